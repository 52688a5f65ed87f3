"""Who serves a sandbox is safe from it: what does not read, more connections than there is room."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import suppress

import pytest

from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.frames import FrameReader
from gofer.p9.messages import Rclunk, Rread, Tread
from runsc.api.aio.serving import AT_ONCE, AsyncConnection, AsyncListening, AsyncServing
from runsc.api.blocking.serving import Connection, Listening, Serving
from runsc.fs.service import Service
from tests.patience import TIMEOUT_S

LINE = b'{"container":"c","port":80,"address":"192.0.2.1"}\n'
PLACE = ("192.0.2.1", 80)


class Large(Service):
    """Each reply is."""

    kinds = {Tread: "read"}  # noqa: RUF012
    beside = (Tread,)
    asked = 0
    is_over = False

    async def read(self, _tag: int, _asked: Tread) -> Message:
        self.asked += 1
        return Rread(bytes(c.MSIZE_MAX // 2))

    async def end(self) -> None:
        self.is_over = True


def test_replies_that_nobody_reads_are_bounded_and_end_with_the_session() -> None:
    async def run() -> tuple[int, bool]:
        ours, theirs = socket.socketpair()
        service = Large()
        serving = AsyncServing(service, object(), ours)
        serving.start()
        with theirs:
            theirs.sendall(b"".join(Tread(0, 0, 1).encode(tag % 4096) for tag in range(1000)))
            for _ in range(2000):
                await asyncio.sleep(0)
            asked = service.asked
        while not service.is_over:
            await asyncio.sleep(0.001)
        return asked, service.is_over

    asked, is_over = asyncio.run(asyncio.wait_for(run(), 60))
    assert is_over
    assert AT_ONCE <= asked <= AT_ONCE + 2


class Late(Service):
    """Each reply comes by itself."""

    kinds = {Tread: "read"}  # noqa: RUF012
    asked = 0

    async def read(self, tag: int, _asked: Tread) -> None:
        self.asked += 1
        self.send(tag, Rread(bytes(4096)))


def test_replies_that_come_later_and_nobody_reads_are_bounded() -> None:
    async def run() -> int:
        ours, theirs = socket.socketpair()
        service = Late()
        serving = AsyncServing(service, object(), ours)
        serving.start()
        request = b"".join(Tread(0, 0, 1).encode(tag) for tag in range(100))
        with theirs:
            for _ in range(20):
                theirs.sendall(request)
                for _ in range(50):
                    await asyncio.sleep(0)
        assert await serving.ended(60)
        return service.asked

    assert AT_ONCE <= asyncio.run(asyncio.wait_for(run(), 60)) <= 500


def test_a_thread_that_has_something_to_say_waits_for_no_sandbox() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(60)
    service, reader = Large(), FrameReader(c.MSIZE_MAX)
    serving = Serving(service, object(), ours)
    serving.start()
    with theirs:
        theirs.sendall(Tread(0, 0, 1).encode(1))
        begun = theirs.recv(1)
        teller = threading.Thread(target=service.send, args=(2, Rclunk()), daemon=True)
        teller.start()
        teller.join(TIMEOUT_S)
        assert not teller.is_alive()

        got = reader.feed(begun)
        while len(got) < 2:
            got += reader.feed(theirs.recv(1 << 18))
    assert [tag for tag, _ in got] == [1, 2]
    assert serving.ended(60)


def test_who_says_what_is_no_9p_and_reads_nothing_ends_its_session() -> None:
    ours, theirs = socket.socketpair()
    service = Large()
    serving = Serving(service, object(), ours)
    serving.start()
    with theirs:
        service.send(1, Rread(bytes(c.MSIZE_MAX // 2)))
        assert theirs.recv(1)
        theirs.sendall(b"\xff" * 64)
        assert serving.ended(60)
    assert service.is_over


class Scarce:
    """A listener whose first accept(2) finds no descriptor; `accept` is that of the loop, too."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind("")
        self.sock.listen()
        self.refused = 0

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(60)
        client.connect(self.sock.getsockname())
        client.sendall(LINE)
        return client


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Scarce:
    found = Scarce()
    accept = socket.socket.accept

    def refused_once(self: socket.socket) -> tuple[socket.socket, object]:
        if found.refused == 0:
            found.refused += 1
            raise OSError(errno.EMFILE, "no more descriptors")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", refused_once)
    return found


def test_listener_outlives_a_want_of_descriptors(scarce: Scarce) -> None:
    def serve(connection: Connection) -> None:
        connection.sendall(b"served")

    listening = Listening(scarce.sock, {PLACE: serve})
    with scarce.connect() as client:
        assert client.recv(10) == b"served"
    listening.close()


def test_listener_outlives_a_want_of_threads(
    scarce: Scarce, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, []

    def refused_once(self: threading.Thread) -> None:
        if self.name == "runsc-connection" and not refused:
            refused.append(self)
            raise RuntimeError("can't start new thread")
        start(self)

    listening = Listening(scarce.sock, {PLACE: lambda each: each.sendall(b"served")})
    monkeypatch.setattr(threading.Thread, "start", refused_once)
    with scarce.connect() as first, scarce.connect() as second:
        with suppress(ConnectionResetError):
            assert first.recv(100) == b""
        assert second.recv(100) == b"served"
    listening.close()


def test_loops_listener_outlives_a_want_of_descriptors(scarce: Scarce) -> None:
    async def serve(connection: AsyncConnection) -> None:
        await connection.sendall(b"served")

    async def run() -> bytes:
        listening = AsyncListening(scarce.sock, {PLACE: serve})
        with scarce.connect() as client:
            client.setblocking(False)
            said = await asyncio.get_running_loop().sock_recv(client, 10)
        listening.close()
        return said

    assert asyncio.run(asyncio.wait_for(run(), 60)) == b"served"


def test_so_many_connections_are_served_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runsc.api.blocking.serving.CONNECTIONS", 2)
    under_way, let_go = threading.Semaphore(0), threading.Event()

    def serve(connection: Connection) -> None:
        under_way.release()
        let_go.wait(60)
        connection.sendall(b"served")

    scarce = Scarce()
    listening = Listening(scarce.sock, {PLACE: serve})
    clients = [scarce.connect() for _ in range(3)]
    assert under_way.acquire(timeout=60)
    assert under_way.acquire(timeout=60)
    assert not under_way.acquire(timeout=0.1)
    let_go.set()
    for client in clients:
        with client:
            assert client.recv(10) == b"served"
    listening.close()
