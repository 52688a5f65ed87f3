"""A client that means harm, and a host that changes things meanwhile."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from gofer.connection import MAX_IN_FLIGHT, MAX_OUT
from gofer.fid import MAX_XATTR_BYTES
from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import Rwalkx, Tcreatex, Tdupx, Twalkx
from gofer.p9.messages import (
    Rgetattr,
    Rread,
    Tattach,
    Tclunk,
    Tflush,
    Tfsync,
    Tgetattr,
    Tlcreate,
    Tlopen,
    Tread,
    Tunlinkat,
    Tversion,
    Twalk,
    Twrite,
    Txattrcreate,
    Txattrwalk,
)
from gofer.server import Server
from gofer.shared import Limits
from tests.patience import TIMEOUT_S
from tests.unit.gofer.conftest import MakeClient
from tests.unit.gofer.harness import Client


def closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


GARBAGE = [
    b"\0" * 64,
    b"\xff" * 64,
    b"\x07\0\0\0\xff\0\0",  # unknown type
    b"\x07\0\0\0\x75\0\0",  # a reply
    b"\x07\0\0\0\x6e\1\0",  # a walk without its body
    b"\xff\xff\xff\x7f\x6e\1\0",  # a frame of 2 GiB
    b"\x06\0\0\0\x6e\1\0",  # shorter than its header
    Tgetattr(0, 0).encode(c.NOTAG),
    Twalk(0, 1, [b"a"]).encode(1) + b"\0\0\0\0garbage",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_closes_its_connection_and_no_other(client: Client, garbage: bytes) -> None:
    client.call(Tdupx())
    other = Client(socket.socket(fileno=client.take_fd()))
    with other.sock:
        client.sock.sendall(garbage)
        while not closed(client.sock):
            pass
        assert other.ask(Tgetattr(0, 0), Rgetattr).nlink


def test_a_request_before_the_version_closes_the_connection(connect: MakeClient) -> None:
    client = connect(start=False)
    with pytest.raises(EOFError):
        client.call(Tgetattr(0, 0))


def test_descriptors_sent_by_the_client_are_dropped(client: Client, tree: Path) -> None:
    with open(tree / "file", "rb") as file:
        request = Tgetattr(0, 0).encode(1)
        socket.send_fds(client.sock, [request], [file.fileno()] * 8)
    assert client.sock.recv(1 << 16)
    assert client.ask(Tgetattr(0, 0), Rgetattr).nlink


def test_replies_that_nobody_reads_do_not_pile_up(client: Client, tree: Path) -> None:
    """The server stops reading requests; once replies are taken it goes on."""
    (tree / "big").write_bytes(b"x" * (1 << 20))
    client.call(Twalk(0, 1, [b"big"]))
    client.call(Tlopen(1, os.O_RDONLY))
    request = b"".join(Tread(1, 0, 1 << 20).encode(tag) for tag in range(200))
    writer = threading.Thread(target=lambda: client.sock.sendall(request))
    writer.start()
    writer.join(0.2)
    left = 200 * ((1 << 20) - 11 + 11)
    while left > 0:
        data = client.sock.recv(1 << 20)
        assert data
        left -= len(data)
    writer.join()
    assert client.ask(Tgetattr(0, 0), Rgetattr).nlink


def test_a_flush_is_answered_after_the_request_it_flushes(client: Client) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Tlopen(1, os.O_RDWR))
    client.sock.sendall(Twrite(1, 0, b"x").encode(5) + Tflush(5).encode(6) + Tflush(9).encode(7))
    data = b""
    while len(data) < 11 + 7 + 7:
        data += client.sock.recv(1 << 16)
    frames = []
    while data:
        size = int.from_bytes(data[:4], "little")
        frames.append((data[4], data[5]))
        data = data[size:]
    assert frames.index((119, 5)) < frames.index((109, 6))
    assert (109, 7) in frames


def test_a_tag_in_use_closes_the_connection(client: Client) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Tlopen(1, os.O_RDWR))
    writes = b"".join(Twrite(1, 0, b"x").encode(5) for _ in range(MAX_IN_FLIGHT * 4))
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sock.sendall(writes)
    while not closed(client.sock):
        pass


# --- ceilings, in this process


class Local:
    """A server in this process and a client of it, with small limits."""

    def __init__(self, tree: Path, limits: Limits) -> None:
        fd = os.open(tree, os.O_PATH)
        self.server = Server([Attachment(b"0", fd)], limits)
        ours, theirs = socket.socketpair()
        self.server.add(theirs)
        self.client = Client(ours)
        self.client.call = self._call  # type: ignore[method-assign]

    def _call(self, request: Message) -> Message:
        self.client.sock.settimeout(TIMEOUT_S)
        stop = threading.Event()

        def pump() -> None:
            while not stop.is_set():
                self.server.step(0.01)

        thread = threading.Thread(target=pump)
        thread.start()
        try:
            return Client.call(self.client, request)
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        self.client.sock.close()
        self.server.close()


MakeLocal = Callable[[Limits], Local]


@pytest.fixture
def local(tree: Path) -> Iterator[MakeLocal]:
    """Servers in this process."""
    with ExitStack() as stack:

        def make(limits: Limits) -> Local:
            made = Local(tree, limits)
            stack.callback(made.close)
            return made

        yield make


def test_fids_have_a_ceiling(local: MakeLocal, tree: Path) -> None:
    served = local(Limits(max_fids=10))
    served.client.start()
    for fid in range(1, 10):
        served.client.call(Twalk(0, fid, []))
    for request in (Twalk(0, 10, []), Twalkx(0, 10, c.NOOPEN, 0, [b"file"])):
        with pytest.raises(OSError) as caught:
            served.client.call(request)
        assert caught.value.errno == errno.EMFILE
    with pytest.raises(OSError):
        served.client.call(Tcreatex(0, 10, b"n", os.O_RDWR, 1, 0o600, 0, 0))
    assert not (tree / "n").exists()
    served.client.call(Tclunk(9))
    served.client.call(Twalk(0, 10, [b"file"]))


def test_sessions_have_a_ceiling(local: MakeLocal) -> None:
    served = local(Limits(max_connections=3))
    served.client.start()
    served.client.call(Tdupx())
    served.client.call(Tdupx())
    with pytest.raises(OSError) as caught:
        served.client.call(Tdupx())
    assert caught.value.errno == errno.EMFILE
    for fd in served.client.fds:
        os.close(fd)


def test_values_that_a_session_holds_have_a_ceiling(local: MakeLocal) -> None:
    """Each attribute may be 64 KiB, and there may be many fids."""
    served = local(Limits())
    served.client.start()
    size = 60_000
    most = MAX_XATTR_BYTES // size
    for fid in range(1, most + 1):
        served.client.call(Twalk(0, fid, [b"file"]))
        served.client.call(Txattrcreate(fid, b"user.a", size, 0))
    served.client.call(Twalk(0, most + 1, [b"file"]))
    with pytest.raises(OSError) as caught:
        served.client.call(Txattrcreate(most + 1, b"user.a", size, 0))
    assert caught.value.errno == errno.ENOMEM
    with pytest.raises(OSError):
        served.client.call(Tclunk(1))  # nothing was written
    served.client.call(Txattrcreate(most + 1, b"user.a", size, 0))


def test_lists_that_a_session_holds_have_a_ceiling(local: MakeLocal, tree: Path) -> None:
    for number in range(10):
        os.setxattr(tree / "file", f"user.{'x' * 200}{number}", b"")
    served = local(Limits(max_fids=1000))
    served.client.start()
    served.client.call(Twalk(0, 1, [b"file"]))
    with pytest.raises(OSError) as caught:
        for fid in range(2, 2 + MAX_XATTR_BYTES // 2000):
            served.client.call(Txattrwalk(1, fid, b""))
    assert caught.value.errno == errno.ENOMEM
    served.client.call(Tclunk(2))
    served.client.call(Txattrwalk(1, 2, b""))


def test_requests_of_the_pool_have_a_ceiling_of_bytes(client: Client) -> None:
    """Thirty large writes at once are done a few at a time, all of them."""
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Tlopen(1, os.O_RDWR))
    data = b"x" * (1 << 19)
    request = b"".join(Twrite(1, 0, data).encode(tag) for tag in range(30))
    writer = threading.Thread(target=lambda: client.sock.sendall(request))
    writer.start()
    left = 30 * 11
    while left:
        left -= len(client.sock.recv(left))
    writer.join()


class Slow:
    """Calls of fsync(2), of which none ends before `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, _fd: int) -> None:
        self.go.wait(60)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow()
    monkeypatch.setattr(os, "fsync", made)
    yield made
    made.go.set()


def test_requests_that_a_session_forgets_are_still_under_way(
    local: MakeLocal, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = local(Limits())
    served.client.start()
    submitted: list[object] = []
    submit = served.server.shared.pool.submit

    def counted(work: Callable[[], object], done: Callable[..., None]) -> None:
        submitted.append(work)
        submit(work, done)

    monkeypatch.setattr(served.server.shared.pool, "submit", counted)
    again = (
        Tversion(c.MSIZE_MAX, c.VERSION_EXTENDED).encode(c.NOTAG)
        + Tattach(0, c.NOFID, b"", b"", 0).encode(1)
        + b"".join(Tfsync(0, 0).encode(tag) for tag in range(2, 10))
    )
    served.client.sock.sendall(again * 20)
    for _ in range(50):
        served.server.step(0)

    assert len(submitted) == MAX_IN_FLIGHT
    slow.go.set()
    while len(submitted) < 160:
        served.server.step(5)


def test_a_closed_session_counts_until_its_requests_are_done(local: MakeLocal, slow: Slow) -> None:
    served = local(Limits(max_connections=2))
    served.client.start()
    served.client.call(Tdupx())
    with socket.socket(fileno=served.client.take_fd()) as other:
        other.sendall(Tfsync(0, 0).encode(1))
        served.server.step(5)
    served.server.step(5)

    with pytest.raises(OSError) as caught:
        served.client.call(Tdupx())
    assert caught.value.errno == errno.EMFILE
    slow.go.set()
    while served.server.connections > 1:
        served.server.step(5)
    served.client.call(Tdupx())
    os.close(served.client.take_fd())


def test_descriptors_that_nobody_takes_do_not_pile_up(local: MakeLocal) -> None:
    served = local(Limits())
    served.client.start()
    before = len(os.listdir("/proc/self/fd"))
    request = b"".join(
        Twalkx(0, c.NOFID, os.O_RDONLY, 0, [b"file"]).encode(tag) for tag in range(4000)
    )
    served.client.sock.setblocking(False)
    while request:
        with suppress(BlockingIOError):
            request = request[served.client.sock.send(request) :]
            continue
        served.server.step(0)
        if len(os.listdir("/proc/self/fd")) - before > MAX_OUT:
            break
    for _ in range(100):
        served.server.step(0)

    assert len(os.listdir("/proc/self/fd")) - before <= MAX_OUT + 1


def test_defect_in_a_reply_ends_its_session_alone(
    local: MakeLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = local(Limits())
    served.client.start()
    served.client.call(Tdupx())
    served.client.call(Tgetattr(0, 0))  # the first use of a message makes its encoder
    monkeypatch.setattr(Rgetattr, "encode", lambda *_: 1 // 0)

    with pytest.raises(EOFError):
        served.client.call(Tgetattr(0, 0))

    assert served.server.connections == 1
    os.close(served.client.take_fd())


def test_a_duplicate_that_does_not_fit_leaves_nothing_behind(local: MakeLocal) -> None:
    served = local(Limits(max_fids=5))
    served.client.start()
    for fid in range(1, 4):
        served.client.call(Twalk(0, fid, []))
    with pytest.raises(OSError) as caught:
        served.client.call(Tdupx())
    assert caught.value.errno == errno.EMFILE
    assert served.server.connections == 1
    served.client.call(Twalk(0, 4, []))


def test_nodes_lose_their_descriptors_and_are_found_again(local: MakeLocal, tree: Path) -> None:
    """More directories than there may be descriptors, each with a fid."""
    served = local(Limits(max_node_fds=4))
    client, table = served.client, served.server.shared.table
    client.start()
    for i in range(20):
        (tree / f"d{i}" / "e").mkdir(parents=True)
        (tree / f"d{i}" / "e" / "f").write_bytes(b"%d" % i)
        client.call(Twalk(0, 2 * i + 1, [b"d%d" % i, b"e"]))
        client.call(Twalk(2 * i + 1, 2 * i + 2, [b"f"]))
    assert len(table.open) <= 4 + 2
    (tree / "d3").rename(tree / "away")
    for i in range(20):
        if i == 3:
            with pytest.raises(OSError) as caught:
                client.call(Twalk(2 * i + 1, 100, [b"f"]))
            assert caught.value.errno == errno.ESTALE
            continue
        client.call(Tlopen(2 * i + 2, os.O_RDONLY))
        assert client.ask(Tread(2 * i + 2, 0, 10), Rread).data == b"%d" % i
    for i in range(20):
        client.call(Tclunk(2 * i + 1))
        client.call(Tclunk(2 * i + 2))
    assert (table.count, len(table.open), table.pinned) == (1, 0, 0)


def test_a_node_of_an_unlinked_file_keeps_its_descriptor(local: MakeLocal, tree: Path) -> None:
    served = local(Limits(max_node_fds=2))
    client = served.client
    client.start()
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Tunlinkat(0, b"file", 0))
    for i in range(10):
        (tree / f"d{i}").mkdir()
        client.call(Twalk(0, 10 + i, [b"d%d" % i]))
        client.call(Twalk(10 + i, 50 + i, []))
    client.call(Tlopen(1, os.O_RDONLY))
    assert client.ask(Tread(1, 0, 10), Rread).data == b"contents"
    client.call(Tclunk(1))
    assert served.server.shared.table.pinned == 0


def test_a_new_version_gives_everything_back(local: MakeLocal, tree: Path) -> None:
    served = local(Limits())
    client = served.client
    client.start()
    before = len(os.listdir("/proc/self/fd"))
    client.call(Twalk(0, 1, [b"dir", b"sub"]))
    client.call(Twalk(0, 2, [b"file"]))
    client.call(Tlopen(2, os.O_RDWR))
    client.call(Twalk(0, 3, []))
    client.call(Tlcreate(3, b"n", os.O_RDWR, 0o600, 0))
    client.call(Tversion(c.MSIZE_MAX, c.VERSION))
    assert served.server.shared.table.count == 1
    assert len(os.listdir("/proc/self/fd")) == before


# --- the host changes things


def test_a_directory_moved_out_of_the_root_does_not_lead_out(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"dir", b"sub"]))
    client.call(Twalk(1, 2, []))
    assert client.ask(Tgetattr(2, 0), Rgetattr).nlink
    (tree / "dir").rename(tree.parent / "outside")
    # '..' is the parent that was walked through, not where the directory is now
    reply = client.call(Twalk(1, 3, [b"..", b"..", b"..", b".."]))
    assert reply
    ino = os.stat(tree).st_ino
    block = client.ask(Twalkx(3, c.NOFID, c.NOOPEN, 0, []), Rwalkx).blocks[0]
    assert Attributes.unpack(block).ino == ino
    with pytest.raises(OSError):
        client.call(Twalk(3, 4, [b"secret"]))


def test_a_fid_whose_name_means_another_file_is_stale(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    (tree / "file").rename(tree / "other")
    (tree / "file").symlink_to("../secret")
    for request in (Tlopen(1, os.O_RDONLY), Tgetattr(1, 0)):
        with pytest.raises(OSError) as caught:
            client.call(request)
        assert caught.value.errno == errno.ESTALE


def test_a_race_of_links_with_opens_never_reaches_the_secret(client: Client, tree: Path) -> None:
    """Somebody swaps a file and a directory with links to what is outside, as fast as possible."""
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "inner").write_bytes(b"secret")
    (tree / "link").symlink_to("../secret")
    (tree / "dlink").symlink_to(outside)
    stop = threading.Event()

    def swap(one: str, other: str) -> None:
        temporary = tree / f"tmp-{one}"
        while not stop.is_set():
            (tree / one).rename(temporary)
            (tree / other).rename(tree / one)
            temporary.rename(tree / other)

    threads = [threading.Thread(target=swap, args=p) for p in (("file", "link"), ("dir", "dlink"))]
    for thread in threads:
        thread.start()
    outcomes: set[bytes | int] = set()
    try:
        for i in range(3000):
            path = [b"file"] if i % 2 else [b"dir", b"inner"]
            reply = client.ask(Twalkx(0, c.NOFID, os.O_RDONLY, 1, path), Rwalkx)
            if reply.opened != c.OPENED_DONATED:
                outcomes.add(reply.error)
                continue
            fd = client.take_fd()
            outcomes.add(os.pread(fd, 100, 0))
            os.close(fd)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert b"secret" not in outcomes
    assert outcomes & {b"contents", b"inner"}
