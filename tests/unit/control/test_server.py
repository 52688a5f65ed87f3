from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runsc.containers.listener import connect, listen
from sentry.config import EgressConfig, JobUse
from sentry.control.descriptors import close_all
from sentry.control.protocol import (
    MAX_LINE,
    CapturedFrame,
    EgressState,
    Event,
    ExecProcess,
    FileOrder,
    Packets,
    ProcessInfo,
    Reply,
    Request,
    Stack,
    Stacks,
    Stats,
    Trace,
    decode,
    encode,
)
from sentry.control.server import Connection, ControlServer
from sentry.errors import EBUSY, EINVAL, ENODEV, ESRCH
from sentry.loop import HostOnly, Loop


class Exec:
    """A process that runs as long as the test says."""

    def __init__(self, request: ExecProcess, fds: list[int], client: Connection) -> None:
        self.request = request
        self.fds = fds
        self.client = client
        self.signals: list[int] = []
        self.abandoned = False

    def signal(self, number: int, everyone: bool) -> None:
        self.signals.append(-number if everyone else number)

    def abandon(self) -> None:
        self.abandoned = True
        close_all(self.fds)


class Wait:
    """A wait whose end the test tells."""

    def __init__(self, done: Callable[[int], object]) -> None:
        self.done = done
        self.looked = self.abandoned = False

    def look(self) -> None:
        self.looked = True

    def abandon(self) -> None:
        self.abandoned = True


class Look:
    """Somebody who looks at packets."""

    def __init__(self, interface: str, told: Callable[[Packets], object]) -> None:
        self.interface = interface
        self.told = told
        self.asked: list[bool] = []
        self.ended = False

    def ask(self, *, ends: bool) -> None:
        self.asked.append(ends)

    def end(self) -> None:
        self.ended = True


class Kernel:
    """Records what it is asked for."""

    def __init__(self) -> None:
        self.killed: list[tuple[int, int, bool]] = []
        self.limits: tuple[int | None, int | None] = (None, None)
        self.paused: list[Callable[[], object]] = []
        self.synced: list[Callable[[str], object]] = []
        self.execs: list[Exec] = []
        self.waits: list[Wait] = []
        self.looks: list[Look] = []
        self.policies: list[str] = []
        self.traced: list[tuple[Trace, int]] = []
        self.processes = [ProcessInfo(1, 0, 0, "sh", "S")]
        self.expires_ns = 0

    def control_forward(self, port: int, fds: list[int], told: Callable[[str], object]) -> Wait:
        close_all(fds)
        if port != 80:
            raise EINVAL("no such port")
        self.waits.append(Wait(lambda _: told("")))
        return self.waits[-1]

    def control_read(
        self, request: Request, fds: list[int], told: Callable[[str], object]
    ) -> Wait:
        close_all(fds)
        self.waits.append(Wait(lambda _: told(f"{request.path!r} {request.size}")))
        return self.waits[-1]

    def control_file(
        self, order: FileOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Wait:
        if order.do == "wrong":
            close_all(fds)
            raise EINVAL("no such order")
        close_all(fds)
        self.waits.append(Wait(lambda _: told(Reply(error=f"{order.do} {len(fds)}"))))
        return self.waits[-1]

    def control_oom(self, known: int, done: Callable[[], None]) -> Wait:
        self.waits.append(Wait(lambda _: done()))
        return self.waits[-1]

    def control_egress(self, request: Request, fds: list[int]) -> EgressState:
        close_all(fds)
        if request.egress is not None:
            self.policies.append(request.egress.policy)
        return EgressState("", {"after": request.after, "ways": len(fds)})

    def control_denials(self, after: int, done: Callable[[], None]) -> Wait:
        self.waits.append(Wait(lambda _: done()))
        return self.waits[-1]

    def control_packets(self, interface: str, told: Callable[[Packets], object]) -> Look:
        if interface == "eth9":
            raise ENODEV("interface eth9")
        self.looks.append(Look(interface, told))
        return self.looks[-1]

    def control_stats(self) -> Stats:
        return Stats(1, 2, 3, 4, 5, 6, 7, 8)

    def control_strace(self, trace: Trace, fds: list[int], done: Callable[[str], object]) -> None:
        self.traced.append((trace, len(fds)))
        close_all(fds)
        done("")

    def control_log(self, debug: bool, done: Callable[[str], object]) -> None:
        done("no log" if debug else "")

    def control_stacks(self, after: int) -> Stacks:
        return Stacks(tasks=[Stack("sh", "runs", tid=after + 1)])

    def control_wait(self, pid: int, done: Callable[[int], object]) -> Wait:
        if pid == 99:
            raise ESRCH("no process 99")
        self.waits.append(Wait(done))
        return self.waits[-1]

    def control_exec(self, request: ExecProcess, fds: list[int], client: Connection) -> Exec:
        if request.args == (b"refused",):
            close_all(fds)
            raise EBUSY("no")
        self.execs.append(Exec(request, fds, client))
        return self.execs[-1]

    def control_pause(self, done: Callable[[], object]) -> None:
        self.paused.append(done)

    def control_sync(self, told: Callable[[str], object]) -> None:
        self.synced.append(told)

    control_share = control_sync

    def control_resume(self) -> None:
        raise EBUSY("container not paused")

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        if pid == 99:
            raise ESRCH("no process 99")
        self.killed.append((pid, signal, everyone))

    def control_update(self, request: Request) -> None:
        self.limits = (request.pids_limit, request.memory_limit)

    def control_expire(self, time_ns: int) -> None:
        if time_ns < 0:
            raise EINVAL("no time")
        self.expires_ns = time_ns

    def control_expires_ns(self) -> int:
        return self.expires_ns

    def control_processes(self, told: Callable[[list[ProcessInfo]], object]) -> None:
        told(self.processes)

    def control_status(self) -> str:
        return "running"


def _fail(name: str, error: BaseException) -> None:
    raise error


@pytest.fixture
def served() -> tuple[Loop, Kernel, socket.socket]:
    ours, theirs = socket.socketpair()
    loop, kernel = Loop(HostOnly(), _fail), Kernel()
    server = ControlServer(loop, kernel, theirs.detach())
    yield loop, kernel, ours
    ours.close()
    server.close()


def _ask(loop: Loop, sock: socket.socket, request: Request) -> Reply:
    sock.send(encode(request))
    loop.turn()
    return decode(sock.recv(1 << 16), Reply)


def test_requests_reach_the_kernel(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served

    assert _ask(loop, sock, Request("kill", signal=15)) == Reply()
    assert _ask(loop, sock, Request("kill", signal=9, pid=4, all=True)) == Reply()
    assert _ask(loop, sock, Request("state")).status == "running"
    assert _ask(loop, sock, Request("update", pids_limit=-1)) == Reply()
    assert kernel.limits == (-1, None)
    assert _ask(loop, sock, Request("ps")).processes == kernel.processes
    assert kernel.killed == [(1, 15, False), (4, 9, True)]


def test_long_answer_is_sent_as_the_client_reads_it(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    kernel.processes = [ProcessInfo(pid, 1, 0, "x" * 100, "S") for pid in range(1, 30001)]
    sock.send(encode(Request("ps")))
    sock.send(encode(Request("state")))
    sock.setblocking(False)
    received = b""
    while received.count(b"\n") < 2:
        loop.turn()
        with suppress(BlockingIOError):
            received += sock.recv(1 << 18)
    first, second, _ = received.split(b"\n")
    assert decode(first, Reply).processes == kernel.processes
    assert decode(second, Reply).status == "running"


def test_client_that_reads_nothing_loses_its_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    kernel.processes = [ProcessInfo(1, 1, 0, "x" * 3_000_000, "S")]
    for _ in range(7):
        with suppress(BrokenPipeError):
            sock.send(encode(Request("ps")))
            loop.turn()
    with pytest.raises(BrokenPipeError):
        sock.send(encode(Request("state")))


def test_errors_come_back_as_text(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served

    assert _ask(loop, sock, Request("kill", pid=99)).error == "no process 99"
    assert "unknown operation" in _ask(loop, sock, Request("reboot")).error


def _send_fds(sock: socket.socket, data: bytes, count: int) -> None:
    """With so many descriptors of a pipe; none of them stays here."""
    ends = os.pipe()
    socket.send_fds(sock, [data], [ends[0]] * count)
    close_all(ends)


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_exec_brings_descriptors_and_hears_of_the_end(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    process = ExecProcess((b"program", b"x" * 100_000), extra_env=(b"A=b",), terminal=True)
    data = encode(Request("exec", process=process))
    _send_fds(sock, data[:1], 3)
    loop.turn()
    assert kernel.execs == []
    for at in range(1, len(data), 1 << 15):
        sock.sendall(data[at : at + (1 << 15)])
        loop.turn()

    (made,) = kernel.execs
    assert made.request == process
    assert len(made.fds) == 3
    assert all(os.get_inheritable(fd) is False for fd in made.fds)
    made.client.started(12)
    assert decode(sock.recv(1 << 16), Reply).pid == 12
    assert _ask(loop, sock, Request("signal", signal=15)) == Reply()
    assert _ask(loop, sock, Request("signal", signal=9, all=True)) == Reply()
    assert made.signals == [15, -9]
    assert "one process" in _ask(loop, sock, Request("exec", process=ExecProcess((b"p",)))).error
    made.client.ended(256, JobUse(written=5), "cpu")
    event = decode(sock.recv(1 << 16), Event)
    assert (event.event, event.status, event.exceeded) == ("exited", 256, "cpu")
    assert event.use == JobUse(written=5)
    assert _ask(loop, sock, Request("signal", signal=15)).error
    close_all(made.fds)


def test_process_of_a_client_that_goes_away_is_abandoned(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    before = _open_descriptors()
    _send_fds(sock, encode(Request("exec", process=ExecProcess((b"p",)))), 3)
    loop.turn()
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()

    assert kernel.execs[0].abandoned
    assert _open_descriptors() == before - 1


@pytest.mark.parametrize(
    "data",
    [
        encode(Request("state")),
        encode(Request("exec", process=ExecProcess((b"refused",)))),
        b"nonsense\n",
        b'{"op":"exec","process":{"args":"x"}}\n',
        b'{"op":"exec"}\n',
    ],
)
def test_descriptors_without_a_use_do_not_stay(
    served: tuple[Loop, Kernel, socket.socket], data: bytes
) -> None:
    loop, kernel, sock = served
    before = _open_descriptors()
    _send_fds(sock, data, 200)
    loop.turn()

    assert _open_descriptors() <= before
    assert decode(sock.recv(1 << 16).split(b"\n")[0], Reply).error
    assert kernel.execs == []


def test_descriptors_of_two_messages_end_the_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, _, sock = served
    before = _open_descriptors()
    for _ in range(2):
        _send_fds(sock, b"{", 253)
        loop.turn()

    assert _open_descriptors() == before - 1
    assert decode(sock.recv(1 << 16), Reply).error


def test_pause_answers_when_all_stand(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served
    sock.setblocking(False)
    sock.send(encode(Request("pause")))
    loop.turn()
    with pytest.raises(BlockingIOError):
        sock.recv(1 << 16)
    kernel.paused[0]()

    assert decode(sock.recv(1 << 16), Reply) == Reply()
    assert _ask(loop, sock, Request("resume")).error == "container not paused"


@pytest.mark.parametrize("operation", ["sync", "share"])
def test_sync_answers_when_all_is_written(
    served: tuple[Loop, Kernel, socket.socket], operation: str
) -> None:
    loop, kernel, sock = served
    sock.setblocking(False)
    sock.send(encode(Request(operation)))
    loop.turn()
    with pytest.raises(BlockingIOError):
        sock.recv(1 << 16)
    kernel.synced[0]("EIO")

    assert decode(sock.recv(1 << 16), Reply).error == "EIO"


def test_strace_may_bring_one_descriptor(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served
    before = _open_descriptors()
    _send_fds(sock, encode(Request("strace", trace=Trace(limit=7))), 1)
    loop.turn()

    assert decode(sock.recv(1 << 16), Reply) == Reply()
    assert _ask(loop, sock, Request("strace", trace=Trace(on=False))) == Reply()
    assert kernel.traced == [(Trace(limit=7), 1), (Trace(on=False), 0)]
    assert "what to trace" in _ask(loop, sock, Request("strace")).error
    assert _open_descriptors() == before


def test_stacks_and_levels_reach_the_kernel(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served

    assert _ask(loop, sock, Request("log", debug=True)).error == "no log"
    assert _ask(loop, sock, Request("log")) == Reply()
    assert _ask(loop, sock, Request("stacks", pid=4)).stacks == Stacks(
        tasks=[Stack("sh", "runs", tid=5)]
    )


def test_wait_answers_at_the_end_and_is_given_up_with_the_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    assert _ask(loop, sock, Request("wait", pid=99)).error == "no process 99"
    sock.send(encode(Request("wait")))
    loop.turn()
    (wait,) = kernel.waits
    assert wait.looked
    assert _ask(loop, sock, Request("wait")).error == "one wait for each connection"
    wait.done(0x700)
    assert decode(sock.recv(1 << 16), Reply).wait_status == 0x700

    sock.send(encode(Request("wait")))
    loop.turn()
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()
    assert not wait.abandoned
    assert kernel.waits[1].abandoned


def test_forward_brings_two_descriptors_and_ends_with_the_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    before = _open_descriptors()
    _send_fds(sock, encode(Request("forward", port=7)), 2)
    loop.turn()
    assert decode(sock.recv(1 << 16), Reply).error == "no such port"
    _send_fds(sock, encode(Request("forward", port=80)), 2)
    loop.turn()
    kernel.waits[0].done(0)
    assert decode(sock.recv(1 << 16), Reply) == Reply()
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()

    assert kernel.waits[0].abandoned
    assert _open_descriptors() == before - 1


def test_read_brings_a_descriptor_and_answers_at_the_end(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    _send_fds(sock, encode(Request("read", path=b"/x", size=3)), 1)
    loop.turn()
    kernel.waits[0].done(0)

    assert decode(sock.recv(1 << 16), Reply).error == "b'/x' 3"


def test_file_orders_bring_a_pipe_or_none_and_are_abandoned(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    assert _ask(loop, sock, Request("file")).error == "what to do?"
    assert _ask(loop, sock, Request("file", file=FileOrder("wrong"))).error == "no such order"
    _send_fds(sock, encode(Request("file", file=FileOrder("list", b"/x"))), 1)
    loop.turn()
    kernel.waits[0].done(0)
    assert decode(sock.recv(1 << 16), Reply).error == "list 1"

    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()
    assert kernel.waits[0].abandoned


def test_an_end_is_set_told_and_taken_back(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served
    assert _ask(loop, sock, Request("expire", time_ns=-1)).error == "no time"
    assert _ask(loop, sock, Request("expire", time_ns=7)) == Reply()
    assert _ask(loop, sock, Request("state")).expires_ns == 7
    assert _ask(loop, sock, Request("expire")) == Reply()
    assert _ask(loop, sock, Request("state")).expires_ns == 0


def test_egress_is_told_changed_and_waited_for(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    for request in (
        Request("egress", after=-1),
        Request("egress", egress=EgressConfig('default = "deny"', ("192.0.2.1",))),
    ):
        sock.send(encode(request))
        loop.turn()
        told = decode(sock.recv(1 << 16), Reply).egress
        assert told == EgressState("", {"after": request.after, "ways": 0})
    assert kernel.policies == ['default = "deny"']
    _send_fds(sock, encode(Request("egress", egress=EgressConfig("x"))), 1)
    loop.turn()
    told = decode(sock.recv(1 << 16), Reply).egress
    assert told == EgressState("", {"after": 0, "ways": 1})
    sock.send(encode(Request("denials", after=5)))
    loop.turn()
    kernel.waits[-1].done(0)
    told = decode(sock.recv(1 << 16), Reply).egress
    assert told == EgressState("", {"after": 5, "ways": 0})


def test_packets_are_looked_at_as_long_as_the_connection_lasts(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    assert _ask(loop, sock, Request("packets", interface="eth9")).error == "interface eth9"
    for ends in (False, True):
        sock.send(encode(Request("packets", interface="eth0", ends=ends)))
        loop.turn()
    (look,) = kernel.looks
    assert (look.interface, look.asked) == ("eth0", [False, True])
    packets = Packets([], [CapturedFrame(2, 5, b"\0\xff")])
    look.told(packets)
    assert decode(sock.recv(1 << 16), Reply).packets == packets
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()
    assert look.ended


def test_oom_answers_with_stats(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served
    sock.send(encode(Request("oom", oom_kills=5)))
    loop.turn()
    kernel.waits[0].done(0)

    assert decode(sock.recv(1 << 16), Reply).stats == kernel.control_stats()


@pytest.mark.parametrize(
    "line", [b"{}\n", b"\xff\n", b'{"op": 3}\n', b"x" * (MAX_LINE + 2), b"x" * 5_000_000 + b"\n"]
)
def test_nonsense_ends_the_connection(
    served: tuple[Loop, Kernel, socket.socket], line: bytes
) -> None:
    loop, kernel, sock = served

    sock.setblocking(False)
    received, closed = b"", False
    while not closed:
        with suppress(BlockingIOError, BrokenPipeError):
            line = line[sock.send(line) :]
        loop.call_soon(int)  # so that the turn does not wait
        loop.turn()
        try:
            chunk = sock.recv(1 << 16)
            received, closed = received + chunk, not chunk
        except BlockingIOError:
            pass
        except ConnectionResetError:
            closed = True

    assert not received or decode(received, Reply).error
    assert kernel.killed == []


def test_listener_serves_other_command_lines_at_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    path = str(folder / "control.sock")
    loop, kernel = Loop(HostOnly(), _fail), Kernel()
    listener = listen(path)
    server = ControlServer(loop, kernel, -1, listener.detach(), os.geteuid())

    client = connect(path)
    loop.turn()
    reply = _ask(loop, client, Request("state"))
    server.announce(Event("ready"))

    assert reply.status == "running"
    client.close()
    server.close()


def test_listener_refuses_another_user(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    loop, kernel = Loop(HostOnly(), _fail), Kernel()
    server = ControlServer(loop, kernel, -1, listen(path).detach(), os.geteuid() + 1)

    with connect(path) as client:
        client.sendall(encode(Request("kill", signal=9)))
        loop.turn()
        assert decode(client.recv(4096), Reply).error == "the sandbox belongs to another user"
        with suppress(ConnectionResetError):
            assert client.recv(4096) == b""

    assert kernel.killed == []
    server.close()
