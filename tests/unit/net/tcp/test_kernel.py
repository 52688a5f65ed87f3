"""The engine and the host's kernel speak to each other: Linux is the oracle."""

from __future__ import annotations

import errno
import os
import random
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from runsc import host
from sentry.abi.sched import CLONE_NEWNET
from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSE_WAIT as TCP_CLOSE_WAIT,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import SHUT_WR
from sentry.errors import ECONNREFUSED, ECONNRESET, EINVAL
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.segment import ACK, PSH
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.kernel import Kernel, received, sent
from tests.unit.net.tcp.pair import SECOND

Make = Callable[..., Kernel]
SIZE = 3_000_000

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="needs /dev/net/tun"),
]


@pytest.fixture
def own_network() -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    host.unshare(CLONE_NEWNET)
    yield
    host.setns(before, CLONE_NEWNET)
    os.close(before)


@pytest.fixture
def make(own_network: None) -> Iterator[Make]:
    made: list[Kernel] = []

    def make(**settings: object) -> Kernel:
        made.append(Kernel(**settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["ours", "theirs"])
def ends(request: pytest.FixtureRequest) -> Callable[[Kernel], tuple[Connection, socket.socket]]:
    """Who has connected."""
    is_ours = request.param == "ours"
    return Kernel.ours_connects if is_ours else Kernel.theirs_connects


def both_ways(kernel: Kernel, one: Connection, sock: socket.socket, size: int = SIZE) -> None:
    """Bytes in both directions at once, then both ends finish."""
    data = random.Random(1).randbytes(size)
    back = random.Random(2).randbytes(size)
    got, theirs = bytearray(), bytearray()
    at = {"ours": 0, "theirs": 0}
    shut = set()

    def step() -> bool:
        while at["ours"] < size:
            taken = one.send(kernel.now, data[at["ours"] : at["ours"] + (1 << 16)])
            if not taken:
                break
            at["ours"] += taken
        if at["ours"] == size and "ours" not in shut:
            shut.add("ours")
            one.shutdown(kernel.now, SHUT_WR)
        if at["theirs"] < size:
            at["theirs"] += sent(sock, back[at["theirs"] : at["theirs"] + (1 << 18)])
        elif "theirs" not in shut:
            shut.add("theirs")
            sock.shutdown(socket.SHUT_WR)
        for piece in one.receive(kernel.now, 1 << 20):
            got.extend(piece)
        while part := received(sock):
            theirs.extend(part)
        return len(got) == size and len(theirs) == size and one.eof and received(sock) == b""

    kernel.until(step)
    assert (bytes(got), bytes(theirs)) == (back, data)
    kernel.until(lambda: one.is_over)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_bulk_both_ways(make: Make, ends: Callable, cut: bool) -> None:  # type: ignore[type-arg]
    kernel = make(cut=cut)
    one, sock = ends(kernel)

    both_ways(kernel, one, sock)

    assert one.stamps_on and one.sack_on and one.scale_on
    assert one.error == 0
    for who in (True, False):
        largest = max(len(seg.payload) for is_ours, seg in kernel.seen if is_ours is who)
        assert (largest <= one.mss) is cut


@pytest.mark.parametrize(
    "settings",
    [{"tcp_timestamps": 0}, {"tcp_sack": 0}, {"tcp_window_scaling": 0}, {"tcp_ecn": 1}],
    ids=lambda settings: next(iter(settings)),
)
def test_bulk_without_an_option(make: Make, ends: Callable, settings: dict) -> None:  # type: ignore[type-arg]
    kernel = make(**settings)
    one, sock = ends(kernel)

    both_ways(kernel, one, sock, 500_000)


@pytest.mark.parametrize("settings", [{}, {"tcp_sack": 0}, {"tcp_timestamps": 0}], ids=str)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_bulk_over_a_bridge_that_loses(
    make: Make,
    ends: Callable,
    cut: bool,
    settings: dict,  # type: ignore[type-arg]
) -> None:
    kernel = make(cut=cut, **settings)
    one, sock = ends(kernel)
    chance = random.Random(3)
    kernel.lose = lambda is_ours, seg: chance.random() < 0.02

    both_ways(kernel, one, sock, 400_000)


def test_half_close_lets_the_other_way_go_on(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    one.shutdown(kernel.now, SHUT_WR)
    kernel.until(lambda: received(sock) == b"" and one.state == TCP_FIN_WAIT2)

    sock.send(b"still here")
    kernel.until(lambda: one.rcv.queued == 10)
    sock.close()

    kernel.until(lambda: one.is_over)
    assert b"".join(one.receive(kernel.now, 100)) == b"still here"
    assert one.eof and not one.error


def test_half_close_of_the_kernel(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    sock.shutdown(socket.SHUT_WR)
    kernel.until(lambda: one.eof)
    assert one.state == TCP_CLOSE_WAIT

    one.send(kernel.now, b"still here")
    kernel.until(lambda: received(sock) == b"still here")
    one.close(kernel.now)

    kernel.until(lambda: one.is_over)
    assert received(sock) == b""


def test_close_with_unread_data_resets(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    sock.send(b"nobody reads it")
    kernel.until(lambda: one.rcv.queued)

    one.close(kernel.now)

    kernel.until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)


def test_kernel_that_closes_with_unread_data_resets_us(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    one.send(kernel.now, b"nobody reads it")
    kernel.until(lambda: select.select([sock], [], [], 0)[0])

    sock.close()

    kernel.until(lambda: one.error)
    assert (one.take_error(), one.state) == (ECONNRESET.number, TCP_CLOSE)


def test_closed_port_of_the_kernel_refuses(make: Make) -> None:
    kernel = make()
    one = kernel.connection(port=8001)

    kernel.until(lambda: one.error)

    assert one.take_error() == ECONNREFUSED.number


def test_closed_port_of_ours_refuses(make: Make) -> None:
    kernel = make()
    sock = kernel.socket()
    sock.connect_ex(("10.9.0.2", 9001))

    kernel.until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED)


def test_zero_window_of_the_kernel_is_probed_until_it_opens(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    data = bytes(range(256)) * 40000
    at = 0

    def fill() -> bool:
        nonlocal at
        at += one.send(kernel.now, data[at : at + (1 << 16)])
        return one.probes_out > 1 or one.backoff > 0

    kernel.until(fill)
    assert one.snd_wnd < one.mss
    got = bytearray()

    def drain() -> bool:
        nonlocal at
        at += one.send(kernel.now, data[at : at + (1 << 16)])
        while part := received(sock):
            got.extend(part)
        return len(got) == len(data)

    kernel.until(drain)
    assert bytes(got) == data


def test_zero_window_of_ours_opens_when_it_is_read(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make(tcp_rmem=(4096, 16384, 16384))
    one, sock = ends(kernel)
    data = bytes(range(256)) * 400
    at = 0

    def fill() -> bool:
        nonlocal at
        at += sent(sock, data[at:])
        return not one.window_left()

    kernel.until(fill)
    got = bytearray()

    def drain() -> bool:
        nonlocal at
        at += sent(sock, data[at:])
        for piece in one.receive(kernel.now, 1 << 16):
            got.extend(piece)
        return len(got) == len(data)

    kernel.until(drain)
    assert bytes(got) == data


def test_urgent_byte_goes_to_the_kernel(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    one.send(kernel.now, b"before")
    one.send_urgent(kernel.now, b"12!")
    one.send(kernel.now, b"behind")

    kernel.until(lambda: select.select([], [], [sock], 0)[2])

    assert sock.recv(1, socket.MSG_OOB) == b"!"
    got = bytearray()
    kernel.until(lambda: len(got) == 14 or got.extend(received(sock) or b""))
    assert bytes(got) == b"before12behind"


def test_urgent_byte_comes_from_the_kernel(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    sock.send(b"before")
    sock.send(b"12!", socket.MSG_OOB)
    sock.send(b"behind")

    kernel.until(lambda: one.urgent and one.rcv.queued == 15)

    assert one.mark == 8
    assert one.receive_urgent() == ord("!")
    assert not one.urgent
    with pytest.raises(EINVAL):
        one.receive_urgent()
    first, second = one.receive(kernel.now, 100), one.receive(kernel.now, 100)
    assert (b"".join(first), b"".join(second)) == (b"before12", b"behind")


def test_kernel_answers_keepalive(make: Make) -> None:
    kernel = make()
    tuning = Tuning(keepalive=True, keepalive_time=1, keepalive_intvl=1, keepalive_probes=2)
    one, _ = kernel.ours_connects(tuning)
    heard = one.last_heard_ns

    kernel.until(lambda: one.last_heard_ns > heard + SECOND // 2)

    assert kernel.shared.counters["TcpExt.TCPKeepAlive"] == 1
    assert not one.error and one.connected


def test_we_answer_the_kernels_keepalive(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    kernel = make()
    one, sock = ends(kernel)
    for option, value in (
        (socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 1),
    ):  # fmt: skip
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    kernel.seen.clear()

    def answers() -> int:
        return sum(1 for is_ours, seg in kernel.seen if is_ours and not seg.payload)

    kernel.until(lambda: answers() >= 2)

    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert one.connected


def test_kernel_that_is_gone_is_found_by_keepalive(make: Make) -> None:
    kernel = make()
    tuning = Tuning(keepalive=True, keepalive_time=1, keepalive_intvl=1, keepalive_probes=1)
    one, _ = kernel.ours_connects(tuning)
    kernel.lose = lambda is_ours, seg: True

    kernel.until(lambda: one.error)

    assert one.take_error() == errno.ETIMEDOUT


def test_cookie_of_ours_is_believed(make: Make) -> None:
    kernel = make(tcp_syncookies=2)
    one, sock = kernel.theirs_connects()

    assert kernel.shared.counters["TcpExt.SyncookiesRecv"] == 1
    assert one.scale_on and one.sack_on and one.stamps_on
    both_ways(kernel, one, sock, 300_000)


def test_kernel_comes_again_while_we_are_in_time_wait(make: Make) -> None:
    kernel = make()
    one, sock = kernel.theirs_connects()
    port = sock.getsockname()[1]
    one.close(kernel.now)
    kernel.until(lambda: one.state == TCP_CLOSE)
    sock.close()
    kernel.until(lambda: any(left.state == 6 for left in kernel.endpoints.time_wait))

    again = kernel.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(("10.9.0.1", port))
    again.connect_ex(("10.9.0.2", 9000))
    listener = kernel.listeners[0]
    kernel.until(lambda: bool(listener.accepted))

    second = listener.accept()
    assert second is not None
    both_ways(kernel, second, again, 10_000)


def test_both_connect_at_once(make: Make) -> None:
    """A simultaneous open: the kernel's SYN goes out before ours comes."""
    kernel = make()
    sock = kernel.socket()
    sock.bind(("10.9.0.1", 8000))
    kernel.lose = lambda is_ours, seg: not is_ours and not kernel.connections
    sock.connect_ex(("10.9.0.2", 40000))
    one = kernel.connection(port=8000)

    kernel.until(lambda: one.connected and select.select([], [sock], [], 0)[1])

    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    both_ways(kernel, one, sock, 100_000)


def test_request_and_answer_take_the_same_segments_from_both_sides(make: Make) -> None:
    def exchange(is_ours: bool) -> list[tuple[bool, int, int]]:
        kernel = make()
        one, sock = kernel.ours_connects() if is_ours else kernel.theirs_connects()
        kernel.until(lambda: kernel.seen[-1][1].flags == ACK)
        kernel.seen.clear()
        if is_ours:
            one.send(kernel.now, b"q" * 100)
            kernel.until(lambda: received(sock))
            sock.send(b"a" * 200)
            kernel.until(lambda: one.receive(kernel.now, 1000))
        else:
            sock.send(b"q" * 100)
            kernel.until(lambda: one.receive(kernel.now, 1000))
            one.send(kernel.now, b"a" * 200)
            kernel.until(lambda: received(sock))
        return [(who == is_ours, seg.flags, len(seg.payload)) for who, seg in kernel.seen]

    def with_data(found: list[tuple[bool, int, int]]) -> list[tuple[bool, int, int]]:
        return [one for one in found if one[2]]

    expected = [(True, PSH | ACK, 100), (False, PSH | ACK, 200)]
    ours = exchange(True)
    assert with_data(ours) == expected


class Walk:
    """Programs at both ends that do what chance says, over a bridge of changing weather."""

    def __init__(self, kernel: Kernel, one: Connection, sock: socket.socket, seed: int) -> None:
        self.kernel, self.one, self.sock = kernel, one, sock
        self.chance = random.Random(seed)
        self.loss = 0.0
        kernel.lose = lambda is_ours, seg: self.chance.random() < self.loss
        self.sources = random.Random(seed + 1), random.Random(seed + 2)
        self.ours, self.theirs = bytearray(), bytearray()
        """What was written."""
        self.got, self.they_got = bytearray(), bytearray()
        self.shut = [False, False]

    def step(self) -> None:
        chance, kernel = self.chance, self.kernel
        what = chance.choice(("send", "send", "receive", "weather", "tune", "pass", "pass"))
        size = chance.choice((1, 10, 700, 1448, 5000, 70_000))
        if what == "send" and chance.random() < 0.5:
            self.write(size)
        elif what == "send":
            data = self.sources[1].randbytes(size)
            self.theirs += data[: sent(self.sock, data)]
        elif what == "receive":
            self.read(size)
        elif what == "weather":
            self.loss = chance.choice((0.0, 0.0, 0.0, 0.05, 0.2))
        elif what == "tune":
            self.one.tuning.nodelay = chance.random() < 0.5
            self.one.tuning.cork = chance.random() < 0.2
            self.one.tuned(kernel.now)
        else:
            end = kernel.now + chance.choice((0, 100_000, 3_000_000))
            kernel.until(lambda: kernel.now >= end)

    def write(self, size: int) -> None:
        how = self.one.send if self.chance.random() < 0.8 else self.one.send_more
        data = self.sources[0].randbytes(size)
        self.ours += data[: how(self.kernel.now, data)]

    def read(self, size: int) -> None:
        for piece in self.one.receive(self.kernel.now, size):
            self.got += piece
        self.they_got += received(self.sock, size) or b""
        assert self.theirs.startswith(self.got) and self.ours.startswith(self.they_got)

    def finish(self) -> None:
        self.loss = 0.0
        self.one.tuning.cork = False
        self.one.shutdown(self.kernel.now, SHUT_WR)
        self.sock.shutdown(socket.SHUT_WR)
        self.kernel.until(self.is_done)
        assert (self.got, self.they_got) == (self.theirs, self.ours)
        assert not self.one.error

    def is_done(self) -> bool:
        self.read(1 << 20)
        is_read = (len(self.got), len(self.they_got)) == (len(self.theirs), len(self.ours))
        return self.one.is_over and self.one.eof and is_read


def walk(make: Make, ends: Callable, seed: int, steps: int) -> None:  # type: ignore[type-arg]
    chance = random.Random(seed)
    kernel = make(
        cut=chance.random() < 0.5,
        tcp_sack=int(chance.random() < 0.8),
        tcp_timestamps=int(chance.random() < 0.8),
        tcp_window_scaling=int(chance.random() < 0.8),
        tcp_ecn=chance.choice((1, 2)),
    )
    one, sock = ends(kernel)
    made = Walk(kernel, one, sock, seed)
    for _ in range(steps):
        made.step()
    made.finish()


@pytest.mark.parametrize("seed", range(4))
def test_programs_that_do_anything(make: Make, ends: Callable, seed: int) -> None:  # type: ignore[type-arg]
    walk(make, ends, seed, 400)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_programs_that_do_anything_for_long(make: Make, ends: Callable) -> None:  # type: ignore[type-arg]
    walk(make, ends, 99, 50_000)
