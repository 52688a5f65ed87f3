"""What becomes of a socket: data, readiness, shutdown, the end."""

from __future__ import annotations

import struct
from typing import Any

from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    MSG_DONTWAIT,
    MSG_PEEK,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_ACCEPTCONN,
    SO_DOMAIN,
    SO_ERROR,
    SO_PROTOCOL,
    SO_RCVTIMEO_OLD,
    SO_TYPE,
    SOL_SOCKET,
)
from sentry.errors import EAGAIN, EBADF, EINVAL, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE
from tests.contract.sockets.calls import Sockets
from tests.contract.sockets.conftest import Family
from tests.world import World

NOT_CONNECTED = {AF_INET: ENOTCONN.number, AF_INET6: ENOTCONN.number}
"""Of AF_UNIX sockets it is fine."""
ANY = POLLIN | POLLOUT | POLLRDHUP
AGAIN = -EAGAIN.number


def number(value: bytes | int) -> int:
    assert isinstance(value, bytes), value
    return int(struct.unpack("<i", value)[0])


def test_a_new_socket_tells_what_it_is(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    told = {n: number(sockets.get(fd, SOL_SOCKET, n)) for n in (SO_TYPE, SO_DOMAIN, SO_PROTOCOL)}
    assert told == {SO_TYPE: family.kind, SO_DOMAIN: family.domain, SO_PROTOCOL: family.protocol}
    assert number(sockets.get(fd, SOL_SOCKET, SO_ERROR)) == 0
    assert number(sockets.get(fd, SOL_SOCKET, SO_ACCEPTCONN)) == 0


def test_a_message_arrives_at_the_other_end(sockets: Sockets, family: Family) -> None:
    one, other = family.connect(sockets, family)
    assert family.send(sockets, one, b"hello") == 5
    assert sockets.receive(other, MSG_DONTWAIT | MSG_PEEK) == b"hello"
    assert sockets.receive(other) == b"hello"
    assert sockets.receive(other) == AGAIN


def test_a_receive_that_may_not_wait_says_so(sockets: Sockets, family: Family) -> None:
    one, _ = family.connect(sockets, family)
    assert sockets.receive(one, MSG_DONTWAIT) == AGAIN
    sockets.nonblock(one)
    assert sockets.receive(one, 0) == AGAIN
    assert sockets.call("read", one, sockets.place(bytes(8)), 8) == AGAIN


def test_a_receive_waits_as_long_as_its_time_out(sockets: Sockets, family: Family) -> None:
    one, _ = family.connect(sockets, family)
    assert sockets.set(one, SOL_SOCKET, SO_RCVTIMEO_OLD, struct.pack("<qq", 0, 1000)) == 0
    assert sockets.receive(one, 0) == AGAIN


def test_a_receive_that_waits_ends_with_the_message(family: Family) -> None:
    with World() as world:
        sockets = Sockets(world.program())
        one, other = family.connect(sockets, family)
        program: Any = sockets.program
        thread = Sockets(program.thread())
        room = thread.place(bytes(64))
        waiting = thread.begin("recvfrom", other, room, 64, 0, 0, 0)
        assert not waiting.done
        assert family.send(sockets, one, b"late") == 4
        assert waiting.wait() == 4
        assert thread.program.read(room, 4) == b"late"


def test_readiness_comes_and_goes_with_the_message(sockets: Sockets, family: Family) -> None:
    one, other = family.connect(sockets, family)
    assert sockets.poll(other, ANY) == POLLOUT
    family.send(sockets, one, b"x")
    assert sockets.poll(other, ANY) == POLLIN | POLLOUT
    sockets.receive(other)
    assert sockets.poll(other, ANY) == POLLOUT


def test_shutdown_ends_what_it_names(sockets: Sockets, family: Family) -> None:
    one, other = family.connect(sockets, family)
    if not family.has_shutdown:
        assert sockets.call("shutdown", one, SHUT_RDWR) == -EOPNOTSUPP.number
        return
    assert sockets.call("shutdown", one, 3) == -EINVAL.number
    sockets.ok("shutdown", one, SHUT_WR)
    assert family.send(sockets, one, b"x") == -EPIPE.number
    assert family.send(sockets, other, b"y") == 1
    assert sockets.receive(one) == b"y"
    sockets.ok("shutdown", one, SHUT_RD)
    assert sockets.receive(one, 0) == b""
    assert sockets.poll(one, POLLIN | POLLRDHUP) & (POLLIN | POLLRDHUP) == POLLIN | POLLRDHUP
    if family.listens:
        assert sockets.receive(other, 0) == b""
        assert sockets.poll(other, POLLIN | POLLRDHUP) & POLLRDHUP
        assert sockets.poll(one, 0) & POLLHUP


def test_shutdown_of_what_is_not_connected_fails(sockets: Sockets, family: Family) -> None:
    if family.has_shutdown:
        fd = family.new(sockets)
        assert sockets.call("shutdown", fd, SHUT_RDWR) == -NOT_CONNECTED.get(family.domain, 0)


def test_a_listener_is_ready_when_somebody_knocks(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    if not family.listens:
        assert sockets.call("listen", fd, 1) == -EOPNOTSUPP.number
        assert sockets.call("accept", fd, 0, 0) == -EOPNOTSUPP.number
        return
    place = sockets.bind(fd, family.local)
    assert sockets.call("accept", fd, 0, 0) == -EINVAL.number
    sockets.ok("listen", fd, 1)
    assert number(sockets.get(fd, SOL_SOCKET, SO_ACCEPTCONN)) == 1
    sockets.nonblock(fd)
    assert sockets.call("accept", fd, 0, 0) == AGAIN
    assert sockets.poll(fd, ANY) == 0
    one = family.new(sockets)
    sockets.connect(one, place)
    assert sockets.poll(fd, ANY) == POLLIN
    assert sockets.name(sockets.ok("accept", fd, 0, 0)) == place


def test_the_end_of_one_is_seen_at_the_other(sockets: Sockets, family: Family) -> None:
    one, other = family.connect(sockets, family)
    if not family.listens:
        return
    family.send(sockets, one, b"last")
    sockets.ok("close", one)
    assert sockets.receive(other) == b"last"
    assert sockets.receive(other, 0) == b""
    assert not sockets.poll(other, ANY) & POLLERR


def test_what_is_closed_is_no_descriptor(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    sockets.ok("close", fd)
    bad = -EBADF.number
    assert sockets.receive(fd) == sockets.send(fd, b"x") == bad
    assert sockets.get(fd, SOL_SOCKET, SO_TYPE) == bad
    assert sockets.set(fd, SOL_SOCKET, SO_TYPE, bytes(4)) == bad
    for call in ("listen", "shutdown", "accept", "bind", "connect", "getsockname", "getpeername"):
        at, size = sockets.place(bytes(128)), sockets.place(bytes(4))
        assert sockets.call(call, fd, at, size) == bad, call
    assert sockets.poll(fd, ANY) == POLLNVAL


def test_what_is_no_socket_says_so(sockets: Sockets) -> None:
    at = sockets.place(bytes(8))
    sockets.ok("pipe2", at, 0)
    fd = struct.unpack("<i", sockets.program.read(at, 4))[0]
    assert sockets.get(fd, SOL_SOCKET, SO_TYPE) == -ENOTSOCK.number
    assert sockets.receive(fd) == sockets.call("listen", fd, 1) == -ENOTSOCK.number
