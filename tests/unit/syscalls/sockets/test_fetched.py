"""Calls on sockets where memory of the program has to be fetched first: nothing that was taken is
lost, nothing that went goes twice, and the socket is the one that the call began with."""

from __future__ import annotations

import hashlib
import socket
import struct
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from sentry.abi.fcntl import O_RDWR
from sentry.abi.signal import SIGPIPE
from sentry.abi.socket import (
    AF_INET,
    AF_UNIX,
    IP_RECVERR,
    IPPROTO_IP,
    MSG_OOB,
    MSG_WAITALL,
    SO_ERROR,
    SO_LINGER,
    SO_RCVLOWAT,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.abi.stat import S_IFCHR
from sentry.abi.tun import IFF_TUN, TUNSETIFF
from sentry.errors import ECONNREFUSED, EPIPE
from sentry.mm.errors import NeedsFault
from sentry.net.host import calls
from sentry.net.host.socket import HostSocket
from sentry.net.socket_sleeps import SendRest
from sentry.net.sockfs import socket_location
from tests.world import Program

NAME = struct.pack("<H", AF_UNIX) + b"\0name"
LOOPBACK = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes([127, 0, 0, 1]))
Away = Callable[..., None]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    """`away(what)`: its next call finds no page; `meanwhile` is done while that is fetched."""

    def begin(what: str, meanwhile: Callable[[], object] = lambda: None, after: int = 0) -> None:
        left = after

        async def come_back() -> None:
            monkeypatch.undo()
            meanwhile()

        def missing(*arguments: object) -> object:
            nonlocal left
            if not left:
                raise NeedsFault(come_back)
            left -= 1
            return there(*arguments)

        room, name = what.rsplit(".", 1)
        module, kind = room.rsplit(".", 1)
        there = getattr(getattr(__import__(module, fromlist=[kind]), kind), name)
        monkeypatch.setattr(what, missing)

    return begin


PUT, GET = "sentry.mm.buffers.UserDest.put", "sentry.mm.buffers.UserSource.get"
WRITE = "sentry.mm.manager.MemoryManager.write"


def pair(task: Program, family: int) -> tuple[int, int]:
    if family == AF_UNIX:
        ends = task.place(bytes(8))
        task.ok("socketpair", AF_UNIX, SOCK_STREAM, 0, ends)
        here, there = struct.unpack("<ii", task.read(ends, 8))
        return here, there
    listener, client = (task.ok("socket", AF_INET, SOCK_STREAM, 0) for _ in range(2))
    task.ok("bind", listener, task.place(LOOPBACK), len(LOOPBACK))
    task.ok("listen", listener, 1)
    task.ok("connect", client, task.place(LOOPBACK), len(LOOPBACK))
    return client, task.ok("accept", listener, 0, 0)


def replaced(task: Program, fd: int) -> Callable[[], None]:
    """Another thread puts something else under this number."""

    def change() -> None:
        files, other = task.task.files, task.task.files.get(elsewhere)
        files.close(task.task, fd)
        files.install(other, 1024)

    elsewhere = task.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    return change


@pytest.mark.parametrize("family", [AF_UNIX, AF_INET])
@pytest.mark.parametrize("way", ["MSG_WAITALL", "SO_RCVLOWAT"])
def test_receive_of_enough_keeps_what_it_has_where_a_page_is_away(
    task: Program, away: Away, family: int, way: str
) -> None:
    here, there = pair(task, family)
    data, other = task.buffer(10), task.thread()
    if way == "SO_RCVLOWAT":
        task.ok("setsockopt", here, SOL_SOCKET, SO_RCVLOWAT, struct.pack("<i", 10), 4)
    call = task.begin("recvfrom", here, data, 10, MSG_WAITALL if way == "MSG_WAITALL" else 0, 0, 0)
    other.ok("write", there, other.place(b"hello"), 5)
    task.world.settle()
    assert not call.done
    away(PUT, replaced(other, here))
    other.ok("write", there, other.place(b"world"), 5)
    assert (call.wait(), task.read(data, 10)) == (10, b"helloworld")


@pytest.mark.parametrize("family", [AF_UNIX, AF_INET])
def test_send_whose_page_is_away_in_the_middle_sends_all_once(
    task: Program, away: Away, family: int
) -> None:
    here, there = pair(task, family)
    sent = bytes(range(256)) * 4096
    data, other = task.place(sent), task.thread()
    call = task.begin("sendto", here, data, len(sent), 0, 0, 0)
    assert not call.done
    away(GET)
    got, room = b"", other.buffer(65536)
    while len(got) < len(sent):
        got += other.read(room, other.ok("read", there, room, 65536))
        task.world.settle()
    assert call.wait() == len(got) == len(sent)
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()


@pytest.mark.parametrize("family", [AF_UNIX, AF_INET])
def test_first_attempt_whose_second_page_is_away_sends_all_once(
    task: Program, away: Away, family: int
) -> None:
    here, there = pair(task, family)
    sent = bytes(range(256)) * 4096
    data, other = task.place(sent), task.thread()
    away(GET, after=1)
    call = task.begin("sendto", here, data, len(sent), 0, 0, 0)
    got, room = b"", other.buffer(65536)
    while len(got) < len(sent):
        got += other.read(room, other.ok("read", there, room, 65536))
        task.world.settle()
    assert call.wait() == len(got) == len(sent)
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()


def test_vector_whose_second_part_is_away_is_sent_whole(task: Program, away: Away) -> None:
    here, there = pair(task, AF_UNIX)
    vector = b"".join(struct.pack("<QQ", task.place(part), 3) for part in (b"one", b"two"))
    away("sentry.mm.manager.MemoryManager.read", after=2)
    assert task.begin("writev", here, task.place(vector), 2).wait() == 6
    data = task.buffer(8)
    assert (task.ok("read", there, data, 8), task.read(data, 6)) == (6, b"onetwo")


@pytest.mark.parametrize("call", ["accept", "accept4"])
def test_accept_goes_on_with_its_socket_where_another_has_its_number(
    task: Program, away: Away, call: str
) -> None:
    listener, client = (task.ok("socket", AF_UNIX, SOCK_STREAM, 0) for _ in range(2))
    task.ok("bind", listener, task.place(NAME), len(NAME))
    task.ok("listen", listener, 1)
    task.ok("connect", client, task.place(NAME), len(NAME))
    out, length = task.buffer(128), task.place(struct.pack("<i", 128))
    away(WRITE, replaced(task, listener))
    server = task.begin(call, listener, out, length, 0).wait()
    assert task.ok("write", client, task.place(b"hello"), 5) == 5
    assert task.ok("read", server, task.buffer(5), 5) == 5


@pytest.mark.parametrize("call", ["recvfrom", "recvmsg"])
@pytest.mark.parametrize("what", [PUT, WRITE])
@pytest.mark.parametrize("sleeps", [False, True])
def test_receive_goes_on_with_its_socket_where_another_has_its_number(
    task: Program, away: Away, call: str, what: str, sleeps: bool
) -> None:
    fd = task.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    sender = task.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    task.ok("bind", fd, task.place(NAME), len(NAME))
    task.ok("connect", sender, task.place(NAME), len(NAME))
    data, name, length = task.buffer(8), task.buffer(128), task.place(struct.pack("<i", 128))
    iov = task.place(struct.pack("<QQ", data, 8))
    header = task.place(struct.pack("<QI4xQQQQi4x", name, 128, iov, 1, 0, 0, 0))
    arguments = (data, 8, 0, name, length) if call == "recvfrom" else (header, 0)
    other, change = task.thread(), replaced(task, fd)
    text = other.place(b"hello")
    if not sleeps:
        task.ok("write", sender, text, 5)
        away(what, change)
    receiving = task.begin(call, fd, *arguments)
    if sleeps:
        away(what, change)
        other.ok("write", sender, text, 5)
    assert (receiving.wait(), task.read(data, 5)) == (5, b"hello")


def test_connect_goes_on_with_its_socket_where_another_has_its_number(
    task: Program, away: Away
) -> None:
    here, there = (task.ok("socket", AF_UNIX, SOCK_DGRAM, 0) for _ in range(2))
    task.ok("bind", there, task.place(NAME), len(NAME))
    name, kept = task.place(NAME), task.ok("dup", here)
    away("sentry.mm.manager.MemoryManager.read", replaced(task, here))
    assert task.begin("connect", here, name, len(NAME)).wait() == 0
    assert task.ok("write", kept, task.place(b"hello"), 5) == 5


def test_recvmmsg_whose_second_header_is_away_tells_both(task: Program, away: Away) -> None:
    fd, sender = (task.ok("socket", AF_UNIX, SOCK_DGRAM, 0) for _ in range(2))
    task.ok("bind", fd, task.place(NAME), len(NAME))
    task.ok("connect", sender, task.place(NAME), len(NAME))
    data = task.buffer(16)
    messages = b""
    for at in (data, data + 8):
        iov = task.place(struct.pack("<QQ", at, 8))
        messages += struct.pack("<QI4xQQQQi4xI4x", 0, 0, iov, 1, 0, 0, 0, 0)
    other, at = task.thread(), task.place(messages)
    call = task.begin("recvmmsg", fd, at, 2, 0, 0)
    other.ok("write", sender, other.place(b"one"), 3)
    task.world.settle()
    away(WRITE)
    other.ok("write", sender, other.place(b"four"), 4)
    assert call.wait() == 2
    assert (task.read(data, 3), task.read(data + 8, 4)) == (b"one", b"four")
    sizes = [struct.unpack("<I", task.read(at + 64 * i + 56, 4))[0] for i in range(2)]
    assert sizes == [3, 4]


@pytest.mark.parametrize("what", ["sentry.syscalls.args.UserOut.put", WRITE])
def test_error_is_told_where_a_page_is_away(task: Program, away: Away, what: str) -> None:
    fd = task.ok("socket", AF_INET, SOCK_DGRAM, 0)
    task.ok("connect", fd, task.place(LOOPBACK), len(LOOPBACK))
    task.ok("write", fd, task.place(b"x"), 1)
    task.world.settle()
    out, length = task.buffer(4), task.place(struct.pack("<i", 4))
    away(what)
    assert task.begin("getsockopt", fd, SOL_SOCKET, SO_ERROR, out, length).wait() == 0
    assert task.read(out, 4) == struct.pack("<i", ECONNREFUSED.number)
    task.ok("getsockopt", fd, SOL_SOCKET, SO_ERROR, out, length)
    assert task.read(out, 4) == bytes(4)


def test_error_behind_a_part_that_was_sent_stays_pending(task: Program) -> None:
    """tcp_reset() in CLOSE_WAIT is EPIPE; tcp_sendmsg() that has sent a part leaves it."""
    client, server = pair(task, AF_INET)
    data, other = task.buffer(1 << 20), task.thread()
    other.ok("shutdown", server, 1)
    call = task.begin("sendto", client, data, 1 << 20, 0, 0, 0)
    other.world.settle()
    assert not call.done
    other.ok("setsockopt", server, SOL_SOCKET, SO_LINGER, struct.pack("<ii", 1, 0), 8)
    other.ok("close", server)
    assert 0 < call.wait() < 1 << 20
    out, length = task.buffer(4), task.place(struct.pack("<i", 4))
    for error in (EPIPE.number, 0):
        task.ok("getsockopt", client, SOL_SOCKET, SO_ERROR, out, length)
        assert task.read(out, 4) == struct.pack("<i", error)


@pytest.mark.parametrize("flags", [0, MSG_WAITALL])
def test_socket_of_the_host_keeps_what_it_has_taken_where_a_page_is_away(
    task: Program, away: Away, flags: int
) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    stack = task.task.ns.net.stack
    sock = HostSocket(
        socket_location(task.task), AF_INET, SOCK_STREAM, 0, stack, near.detach()
    )
    fd = task.task.files.install(sock, 1024)
    data = task.buffer(10)
    with far:
        call = task.begin("recvfrom", fd, data, 10, flags, 0, 0)
        if flags:
            far.send(b"hello")
            while task.read(data, 5) != b"hello":
                task.world.loop.turn()
        away(PUT)
        far.send(b"world")
        expected = b"helloworld" if flags else b"world"
        assert (call.wait(), task.read(data, len(expected))) == (len(expected), expected)


def test_urgent_byte_stays_where_a_page_is_away(task: Program, away: Away) -> None:
    here, there = pair(task, AF_INET)
    task.ok("sendto", there, task.place(b"ab"), 2, MSG_OOB, 0, 0)
    data = task.buffer(1)
    away(PUT)
    got = task.begin("recvfrom", here, data, 1, MSG_OOB, 0, 0).wait()
    assert (got, task.read(data, 1)) == (1, b"b")


def test_interface_is_attached_once_where_the_page_for_its_name_is_away(
    task: Program, away: Away
) -> None:
    task.ok("mkdir", b"/net", 0o755)
    task.ok("mknod", b"/net/tun", S_IFCHR | 0o666, 10 << 8 | 200)
    fd = task.ok("open", b"/net/tun", O_RDWR, 0)
    request = task.place(b"tun%d".ljust(16, b"\0") + struct.pack("<H22x", IFF_TUN))
    away(WRITE)
    assert task.begin("ioctl", fd, TUNSETIFF, request).wait() == 0
    assert task.read(request, 5) == b"tun0\0"


def test_send_that_fails_behind_its_first_part_leaves_no_circle(task: Program) -> None:
    here, _ = pair(task, AF_INET)
    task.ok("shutdown", here, 1)
    task.block(SIGPIPE)
    source = task.task.mm.buffer_in(task.place(b"x"), 1)
    sock: Any = task.task.files.get(here)
    rest = SendRest(sock, task.task, source, None, 0, None)  # type: ignore[arg-type]
    try:
        rest.now_or_later()
    except EPIPE as error:
        found = weakref.ref(error)
    assert found() is None


def test_error_queue_that_nobody_reads_keeps_no_receive_awake(
    task: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = (socket.socket(AF_INET, SOCK_DGRAM) for _ in range(2))
    near.bind(("127.0.0.1", 0))
    far.bind(("127.0.0.1", 0))
    gone = socket.socket(AF_INET, SOCK_DGRAM)
    gone.bind(("127.0.0.1", 0))
    nobody = gone.getsockname()
    gone.close()
    near.setsockopt(IPPROTO_IP, IP_RECVERR, 1)
    near.setblocking(False)
    to = near.getsockname()
    near.sendto(b"x", nobody)
    assert near.getsockopt(SOL_SOCKET, SO_ERROR) == ECONNREFUSED.number
    stack = task.task.ns.net.stack
    sock = HostSocket(socket_location(task.task), AF_INET, SOCK_DGRAM, 0, stack, near.detach())
    fd = task.task.files.install(sock, 1024)
    attempts, receive = count(), calls.receive

    def counted(*arguments: int) -> object:
        assert next(attempts) < 100
        return receive(*arguments)

    monkeypatch.setattr(calls, "receive", counted)
    data = task.buffer(8)
    call = task.begin("recvfrom", fd, data, 8, 0, 0, 0)
    task.world.settle()
    assert not call.done
    with far:
        far.sendto(b"hello", to)
        assert (call.wait(), task.read(data, 5)) == (5, b"hello")
