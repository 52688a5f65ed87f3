"""Calls that sleep: what was taken is not lost where memory has to be fetched, and a socket that is
closed meanwhile is there to their end."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.poll import EPOLLERR, EPOLLOUT
from sentry.abi.signal import SIGPIPE
from sentry.abi.socket import (
    AF_INET,
    AF_UNIX,
    IP_RECVERR,
    IPPROTO_IP,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_FASTOPEN,
    MSG_WAITALL,
    MSG_ZEROCOPY,
    SCM_RIGHTS,
    SO_ATTACH_REUSEPORT_CBPF,
    SO_DETACH_REUSEPORT_BPF,
    SO_EE_ORIGIN_ZEROCOPY,
    SO_LINGER,
    SO_RCVBUF,
    SO_REUSEPORT,
    SO_RXQ_OVFL,
    SO_ZEROCOPY,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.errors import (
    EAGAIN,
    ECONNABORTED,
    ECONNREFUSED,
    ECONNRESET,
    EDESTADDRREQ,
    EFAULT,
    EINPROGRESS,
    EINVAL,
    ENFILE,
    ENOENT,
    ENOTCONN,
    EPIPE,
)
from sentry.vfs import budget
from tests.contract.sockets.calls import Sockets
from tests.world import Program

BPF_RET = 6
Fetch = Callable[[int], None]
NAME = struct.pack("<H", AF_UNIX) + b"\0name"


def bound(task: Program, kind: int) -> int:
    fd = task.ok("socket", AF_UNIX, kind, 0)
    task.ok("bind", fd, task.place(NAME), len(NAME))
    return fd


@pytest.mark.parametrize("sleeps", [False, True])
def test_accept_keeps_its_connection_until_the_page_is_there(
    task: Program, fetched_first: Fetch, sleeps: bool
) -> None:
    listener, client = bound(task, SOCK_STREAM), task.ok("socket", AF_UNIX, SOCK_STREAM, 0)
    task.ok("listen", listener, 1)
    out, length = task.buffer(128), task.place(struct.pack("<i", 128))
    fetched_first(out)
    other = task.thread()
    if not sleeps:
        other.ok("connect", client, other.place(NAME), len(NAME))
    call = task.begin("accept", listener, out, length)
    if sleeps:
        other.ok("connect", client, other.place(NAME), len(NAME))
    server = call.wait()
    assert task.ok("write", client, task.place(b"hello"), 5) == 5
    assert task.ok("read", server, task.buffer(5), 5) == 5
    assert task.task.files.get(server).refs == 1


@pytest.mark.parametrize("call", ["recvfrom", "recvmsg"])
def test_receive_keeps_its_message_until_the_page_is_there(
    task: Program, fetched_first: Fetch, call: str
) -> None:
    fd = bound(task, SOCK_DGRAM)
    data, name, length = task.buffer(8), task.buffer(128), task.place(struct.pack("<i", 128))
    task.ok("sendto", fd, task.place(b"hello"), 5, 0, task.place(NAME), len(NAME))
    fetched_first(name)
    if call == "recvfrom":
        got = task.begin("recvfrom", fd, data, 8, 0, name, length).wait()
    else:
        iov = task.place(struct.pack("<QQ", data, 8))
        header = task.place(struct.pack("<QI4xQQQQi4x", name, 128, iov, 1, 0, 0, 0))
        got = task.begin("recvmsg", fd, header, 0).wait()
    assert (got, task.read(data, 5), task.read(name, len(NAME))) == (5, b"hello", NAME)


def message_of(task: Program, data: int, size: int) -> bytes:
    """struct mmsghdr."""
    iov = task.place(struct.pack("<QQ", data, size))
    return struct.pack("<QI4xQQQQi4xI4x", 0, 0, iov, 1, 0, 0, 0, 0)


def test_recvmmsg_of_a_socket_that_is_closed_meanwhile_takes_all_its_messages(
    task: Program,
) -> None:
    ends = task.place(bytes(8))
    task.ok("socketpair", AF_UNIX, SOCK_DGRAM, 0, ends)
    here, there = struct.unpack("<ii", task.read(ends, 8))
    data = task.buffer(16)
    messages = task.place(message_of(task, data, 8) + message_of(task, data + 8, 8))
    other = task.thread()
    call = task.begin("recvmmsg", here, messages, 2, 0, 0)
    other.ok("close", here)
    other.ok("write", there, other.place(b"one"), 3)
    task.world.settle()
    assert not call.done
    other.ok("write", there, other.place(b"two"), 3)
    assert call.wait() == 2
    assert (task.read(data, 3), task.read(data + 8, 3)) == (b"one", b"two")
    assert other.call("write", there, other.place(b"three"), 5) == -ECONNREFUSED.number


def test_recvmmsg_tells_an_error_behind_the_first_message_at_the_next_call(task: Program) -> None:
    fd = bound(task, SOCK_DGRAM)
    for text in (b"one", b"two", b"six"):
        task.ok("sendto", fd, task.place(text), 3, 0, task.place(NAME), len(NAME))
    messages = task.place(message_of(task, task.buffer(8), 8) + message_of(task, 8, 8))
    assert task.call("recvmmsg", fd, messages, 2, MSG_DONTWAIT, 0) == 1
    assert task.call("recvmmsg", fd, messages, 2, MSG_DONTWAIT, 0) == -EFAULT.number
    assert task.call("recvmmsg", fd, messages, 1, MSG_DONTWAIT, 0) == 1


def test_sendmsg_with_a_name_of_no_bytes_goes_to_the_peer(task: Program) -> None:
    address = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes([127, 0, 0, 1]))
    name, size = task.place(address), len(address)
    fd = task.ok("socket", AF_INET, SOCK_DGRAM, 0)
    iov = task.place(struct.pack("<QQ", task.place(b"hello"), 5))
    message = task.place(struct.pack("<QI4xQQQQi4x", name, 0, iov, 1, 0, 0, 0))
    task.ok("bind", fd, name, size)
    assert task.call("sendmsg", fd, message, 0) == -EDESTADDRREQ.number
    task.ok("connect", fd, name, size)
    assert task.ok("sendmsg", fd, message, 0) == 5
    assert task.ok("read", fd, task.buffer(8), 8) == 5


def connected(task: Program) -> tuple[int, int]:
    """Both ends of a connection of TCP."""
    address = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes([127, 0, 0, 1]))
    listener, client = (task.ok("socket", AF_INET, SOCK_STREAM, 0) for _ in range(2))
    task.ok("bind", listener, task.place(address), len(address))
    task.ok("listen", listener, 1)
    task.ok("connect", client, task.place(address), len(address))
    return client, task.ok("accept", listener, 0, 0)


def test_empty_send_to_an_end_that_is_closed_resets_nothing(task: Program) -> None:
    client, server = connected(task)
    task.ok("close", server)
    assert task.ok("sendto", client, 0, 0, 0, 0, 0) == 0
    assert task.ok("write", client, task.place(b"x"), 1) == 1
    task.block(SIGPIPE)
    assert task.call("write", client, task.place(b"x"), 1) == -EPIPE.number


@pytest.mark.parametrize("way", ["sendto", "recvfrom"])
def test_reset_behind_a_part_is_told_by_the_next_call(task: Program, way: str) -> None:
    client, server = connected(task)
    data, other = task.buffer(1 << 20), task.thread()
    if way == "recvfrom":
        task.ok("write", server, data, 10)
    flags = MSG_WAITALL if way == "recvfrom" else 0
    call = other.begin(way, client, data, 1 << 20, flags, 0, 0)
    task.world.settle()
    assert not call.done
    task.ok("setsockopt", server, SOL_SOCKET, SO_LINGER, struct.pack("<ii", 1, 0), 8)
    task.ok("close", server)
    assert 0 < call.wait() < 1 << 20
    task.block(SIGPIPE)
    assert task.call(way, client, data, 10, 0, 0, 0) == -ECONNRESET.number
    assert task.take_signals() == []
    assert task.call("sendto", client, data, 10, 0, 0, 0) == -EPIPE.number
    assert task.take_signals() == [SIGPIPE]


def test_connection_to_ones_own_port_at_any_address_is_with_oneself(task: Program) -> None:
    address = struct.pack("<H", AF_INET) + struct.pack(">H12x", 4000)
    fd = task.ok("socket", AF_INET, SOCK_STREAM, 0)
    task.ok("bind", fd, task.place(address), len(address))
    task.ok("connect", fd, task.place(address), len(address))
    assert task.ok("write", fd, task.place(b"hello"), 5) == 5
    assert task.ok("read", fd, task.buffer(8), 8) == 5


def test_connect_that_tells_of_a_failure_leaves_the_socket_as_new(task: Program) -> None:
    address = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes([127, 0, 0, 1]))
    fd, name = task.ok("socket", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), task.place(address)
    assert task.call("connect", fd, name, len(address)) == -EINPROGRESS.number
    task.world.settle()
    assert task.call("read", fd, task.buffer(8), 8) == -ECONNREFUSED.number
    assert task.call("connect", fd, name, len(address)) == -ECONNABORTED.number
    assert task.call("read", fd, task.buffer(8), 8) == -ENOTCONN.number


@pytest.mark.parametrize("kind", [SOCK_STREAM, SOCK_DGRAM])
def test_sends_that_are_not_to_be_copied_are_told_as_copied(task: Program, kind: int) -> None:
    sockets = Sockets(task)
    if kind == SOCK_STREAM:
        fd, _ = connected(task)
    else:
        fd = task.ok("socket", AF_INET, kind, 0)
        sockets.connect(fd, sockets.bind(fd, struct.pack("<H14x", AF_INET)))
    data = task.place(b"hello")
    assert task.ok("sendto", fd, data, 5, MSG_ZEROCOPY, 0, 0) == 5
    assert sockets.receive(fd, MSG_ERRQUEUE) == -EAGAIN.number  # SO_ZEROCOPY was not set
    assert sockets.set(fd, SOL_SOCKET, SO_ZEROCOPY, struct.pack("<i", 1)) == 0
    for size in (5, 3, 0):
        assert task.ok("sendto", fd, data, size, MSG_ZEROCOPY, 0, 0) == size
    assert sockets.poll(fd, EPOLLOUT) == EPOLLERR | EPOLLOUT
    control = task.buffer(64)
    message = task.place(struct.pack("<QI4xQQQQi4x", 0, 0, 0, 0, control, 64, 0))
    for first, last in ((0, 1), (2, 2)):
        assert task.ok("recvmsg", fd, message, MSG_ERRQUEUE) == 0
        told = struct.unpack("<QiiIBBBBII", task.read(control, 32))
        assert told == (48, IPPROTO_IP, IP_RECVERR, 0, SO_EE_ORIGIN_ZEROCOPY, 0, 1, 0, first, last)
        assert sockets.poll(fd, EPOLLOUT) == EPOLLOUT
        assert task.ok("sendto", fd, data, 5, MSG_ZEROCOPY, 0, 0) == 5
        task.write(message + 40, struct.pack("<Q", 64))


def test_program_that_chooses_a_socket_of_a_port_takes_nothing_away(task: Program) -> None:
    sockets, fd = Sockets(task), task.ok("socket", AF_INET, SOCK_DGRAM, 0)
    code = task.place(struct.pack("<HBBI", BPF_RET, 0, 0, 0))  # the first one
    program = struct.pack("<H6xQ", 1, code)
    choose = SO_ATTACH_REUSEPORT_CBPF
    assert sockets.set(fd, SOL_SOCKET, choose, program) == -EINVAL.number
    number = struct.pack("<i", 1)
    assert sockets.set(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, number) == -EINVAL.number
    assert sockets.set(fd, SOL_SOCKET, SO_REUSEPORT, number) == 0
    assert sockets.set(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, number) == -ENOENT.number
    assert sockets.set(fd, SOL_SOCKET, choose, program) == 0
    sockets.connect(fd, sockets.bind(fd, struct.pack("<H14x", AF_INET)))
    assert (sockets.send(fd, b"hello"), sockets.receive(fd)) == (5, b"hello")
    assert sockets.set(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, number) == 0


def test_datagrams_that_are_lost_are_counted(task: Program) -> None:
    sockets, fd = Sockets(task), task.ok("socket", AF_INET, SOCK_DGRAM, 0)
    sockets.connect(fd, sockets.bind(fd, struct.pack("<H14x", AF_INET)))
    for name, number in ((SO_RXQ_OVFL, 1), (SO_RCVBUF, 0)):
        assert sockets.set(fd, SOL_SOCKET, name, struct.pack("<i", number)) == 0
    held = 0
    for _ in range(10):
        sockets.send(fd, b"x")
    while sockets.receive(fd) == b"x":
        held += 1
    sockets.send(fd, b"y")
    message = message_of(task, task.buffer(8), 8)[:56]
    control = task.buffer(64)
    header = task.place(message[:32] + struct.pack("<QQ", control, 64) + message[48:])
    assert task.ok("recvmsg", fd, header, 0) == 1
    told = struct.unpack("<QiiI", task.read(control, 20))
    assert told == (20, SOL_SOCKET, SO_RXQ_OVFL, 10 - held)
    counters = task.task.ns.net.stack.counters
    assert (counters["Udp.RcvbufErrors"], counters["Udp.InErrors"]) == (10 - held, 10 - held)
    assert f" {10 - held} " in "".join(task.task.ns.net.lines("udp"))


def test_fast_open_of_a_socket_that_is_closed_meanwhile_sends_its_data(task: Program) -> None:
    address = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes([127, 0, 0, 1]))
    name, size = task.place(address), len(address)
    listener = task.ok("socket", AF_INET, SOCK_STREAM, 0)
    task.ok("bind", listener, name, size)
    task.ok("listen", listener, 0)
    task.ok("connect", task.ok("socket", AF_INET, SOCK_STREAM, 0), name, size)
    client = task.ok("socket", AF_INET, SOCK_STREAM, 0)
    other = task.thread()
    call = task.begin("sendto", client, task.place(b"hello"), 5, MSG_FASTOPEN, name, size)
    other.ok("close", client)
    task.world.settle()
    assert not call.done  # there is no room
    other.ok("accept", listener, 0, 0)
    assert call.wait() == 5
    server = other.ok("accept", listener, 0, 0)
    data = task.buffer(8)
    assert (other.ok("read", server, data, 8), task.read(data, 5)) == (5, b"hello")
    assert other.ok("read", server, data, 8) == 0


def test_connection_for_which_no_file_may_be_open_costs_nobody_else_his(
    task: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes([127, 0, 0, 1]))
    name, size = task.place(address), len(address)
    listener = task.ok("socket", AF_INET, SOCK_STREAM, 0)
    task.ok("bind", listener, name, size)
    task.ok("listen", listener, 0)
    task.ok("connect", task.ok("socket", AF_INET, SOCK_STREAM, 0), name, size)
    client, other = task.ok("socket", AF_INET, SOCK_STREAM, 0), task.thread()
    call = task.begin("connect", client, name, size)
    counts = task.world.vfs.budget
    monkeypatch.setattr(budget, "MAX_FILES", counts.anonymous + counts.files)
    assert other.call("accept", listener, 0, 0) >= 0
    assert call.wait() == -ENFILE.number
    monkeypatch.undo()
    task.ok("connect", client, name, size)


def test_descriptor_of_a_message_whose_vector_is_bad_is_given_back(task: Program) -> None:
    ends = task.place(bytes(8))
    task.ok("socketpair", AF_UNIX, SOCK_DGRAM, 0, ends)
    (here,) = struct.unpack("<i", task.read(ends, 4))
    task.ok("pipe2", ends, 0)
    reader, writer = struct.unpack("<ii", task.read(ends, 8))
    control = struct.pack("<Qiii4x", 20, SOL_SOCKET, SCM_RIGHTS, reader)
    header = struct.pack("<QI4xQQQQi4x", 0, 0, 8, 1, task.place(control), len(control), 0)
    assert task.call("sendmsg", here, task.place(header), 0) == -EFAULT.number
    task.ok("close", reader)
    task.block(SIGPIPE)
    assert task.call("write", writer, task.place(b"x"), 1) == -EPIPE.number
