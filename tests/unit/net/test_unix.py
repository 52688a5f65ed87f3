"""Datagrams: who waits for a place in a queue that others have filled, and who is left."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.poll import EPOLLERR, EPOLLOUT
from sentry.abi.socket import (
    AF_UNIX,
    AF_UNSPEC,
    MSG_WAITALL,
    SO_ERROR,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.errors import EAGAIN, ECONNREFUSED, ECONNRESET
from tests.contract.sockets.calls import Sockets
from tests.world import Call, Program

QUEUE = 11
"""Datagrams in a queue: net.unix.max_dgram_qlen, and one."""


def named(name: bytes) -> bytes:
    return struct.pack("<H", AF_UNIX) + b"\0" + name


def bound(sockets: Sockets, name: bytes) -> int:
    fd = sockets.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    sockets.bind(fd, named(name))
    return fd


def full(sockets: Sockets, name: bytes) -> int:
    """Whose queue has no place for others."""
    fd, sender = bound(sockets, name), sockets.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    sockets.connect(sender, named(name))
    assert [sockets.send(sender, b"x") for _ in range(QUEUE)] == [1] * QUEUE
    assert sockets.send(sender, b"x") == -EAGAIN.number
    return fd


def begun(program: Program, way: str, fd: int) -> Call:
    """What waits until there is a place."""
    to = named(b"full")
    if way == "sendto":
        return program.begin("sendto", fd, program.place(b"y"), 1, 0, program.place(to), len(to))
    Sockets(program).connect(fd, to)
    if way == "send":
        return program.begin("sendto", fd, program.place(b"y"), 1, 0, 0, 0)
    asked = program.place(struct.pack("<ihh", fd, EPOLLOUT, 0))
    return program.begin("poll", asked, 1, 0xFFFFFFFF)


@pytest.mark.parametrize("way", ["send", "sendto", "poll"])
def test_place_in_a_queue_that_others_have_filled_wakes_who_waits_for_it(
    task: Program, way: str
) -> None:
    sockets = Sockets(task)
    fd = full(sockets, b"full")
    call = begun(task.thread(), way, sockets.ok("socket", AF_UNIX, SOCK_DGRAM, 0))
    task.world.settle()
    assert not call.done
    assert sockets.receive(fd) == b"x"
    task.world.settle()
    assert call.done and call.result == 1


def test_queue_is_as_long_as_the_sysctl_says(task: Program) -> None:
    task.task.ns.net.sysctls["net/unix/max_dgram_qlen"] = "2"
    sockets = Sockets(task)
    bound(sockets, b"short")
    sender = sockets.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    sockets.connect(sender, named(b"short"))
    assert [sockets.send(sender, b"x") for _ in range(4)] == [1, 1, 1, -EAGAIN.number]


@pytest.mark.parametrize("way", ["send", "sendto"])
def test_receiver_that_is_closed_refuses_who_waits_for_a_place(task: Program, way: str) -> None:
    sockets = Sockets(task)
    fd = full(sockets, b"full")
    call = begun(task.thread(), way, sockets.ok("socket", AF_UNIX, SOCK_DGRAM, 0))
    task.ok("close", fd)
    task.world.settle()
    assert call.done and call.result == -ECONNREFUSED.number


def test_reset_behind_a_part_is_told_by_nobody(task: Program) -> None:
    sockets = Sockets(task)
    one, other = sockets.pair(AF_UNIX, SOCK_STREAM)
    assert sockets.send(one, b"unread") == 6
    assert sockets.send(other, b"part") == 4
    data, reader = task.buffer(64), task.thread()
    call = reader.begin("recvfrom", one, data, 64, MSG_WAITALL, 0, 0)
    task.ok("close", other)
    task.world.settle()
    assert (call.done, call.result) == (True, 4)
    assert sockets.receive(one) == b""


@pytest.mark.parametrize("to", [named(b"c"), struct.pack("<H", AF_UNSPEC)])
def test_who_turns_to_another_peer_has_lost_what_the_one_before_sent(
    task: Program, to: bytes
) -> None:
    sockets = Sockets(task)
    fd, before, _ = (bound(sockets, name) for name in (b"a", b"b", b"c"))
    sockets.connect(fd, named(b"b"))
    sockets.connect(before, named(b"a"))
    assert sockets.send(before, b"x") == 1
    sockets.connect(fd, named(b"b"))
    assert sockets.receive(fd) == b"x"
    assert sockets.send(before, b"x") == sockets.send(before, b"y") == 1
    sockets.connect(fd, to)
    assert sockets.receive(fd) == -EAGAIN.number
    assert sockets.poll(before, EPOLLOUT) == EPOLLERR | EPOLLOUT
    assert sockets.send(before, b"x") == -ECONNRESET.number
    assert sockets.get(before, SOL_SOCKET, SO_ERROR, 4) == bytes(4)
