"""Connections within the sandbox that wait: for room with a listener, for who reads. All else:
tests/abi."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import (
    AF_INET,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    SO_RCVLOWAT,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_SYNCNT,
)
from sentry.errors import ETIMEDOUT
from tests.world import Program, World

SECOND_NS = 10**9
PLACE = struct.pack("<H", AF_INET) + struct.pack(">H", 80) + bytes((127, 0, 0, 1)) + bytes(8)


@pytest.fixture
def world() -> Iterator[World]:
    with World(stepped=True) as made:
        yield made


@pytest.fixture
def server(world: World) -> tuple[Program, int]:
    """Who listens, for one connection at a time, and has that."""
    program, first = world.program(), world.program()
    sock = program.ok("socket", AF_INET, SOCK_STREAM, 0)
    program.ok("bind", sock, PLACE, len(PLACE))
    program.ok("listen", sock, 0)
    first.ok("connect", first.ok("socket", AF_INET, SOCK_STREAM, 0), PLACE, len(PLACE))
    return program, sock


@pytest.mark.parametrize(("tries", "seconds"), [(0, 127), (1, 3), (8, 367)])
def test_connection_that_a_listener_has_no_room_for_is_given_up(
    world: World, server: tuple[Program, int], tries: int, seconds: int
) -> None:
    """After as many tries as a SYN has."""
    client = world.program()
    sock = client.ok("socket", AF_INET, SOCK_STREAM, 0)
    if tries:
        value = struct.pack("<i", tries)
        client.ok("setsockopt", sock, IPPROTO_TCP, TCP_SYNCNT, value, len(value))
    call = client.begin("connect", sock, PLACE, len(PLACE))
    world.loop.advance(seconds * SECOND_NS - 1)
    assert not call.done
    world.loop.advance(1)
    assert call.result == -ETIMEDOUT.number

    call = client.begin("connect", sock, PLACE, len(PLACE))
    program, listener = server
    program.ok("accept", listener, 0, 0)
    world.settle()
    assert call.result == 0
    assert world.loop.timers == 0


def test_connection_waits_no_longer_where_more_may_wait(
    world: World, server: tuple[Program, int]
) -> None:
    client = world.program()
    sock = client.ok("socket", AF_INET, SOCK_STREAM, 0)
    call = client.begin("connect", sock, PLACE, len(PLACE))
    world.settle()
    assert not call.done

    program, listener = server
    program.ok("listen", listener, 5)
    world.settle()

    assert call.result == 0


def test_reader_that_wants_more_than_there_is_room_for_hears_when_it_is_full(
    world: World, server: tuple[Program, int]
) -> None:
    program, listener = server
    program.ok("accept", listener, 0, 0)
    client = world.program()
    sock = client.ok("socket", AF_INET, SOCK_STREAM, 0)
    client.ok("connect", sock, PLACE, len(PLACE))
    inside = program.ok("accept", listener, 0, 0)
    value = struct.pack("<i", 1 << 20)
    program.ok("setsockopt", inside, SOL_SOCKET, SO_RCVLOWAT, value, len(value))
    poll = program.buffer(8)
    program.write(poll, struct.pack("<iHH", inside, EPOLLIN, 0))
    call = program.begin("poll", poll, 1, -1 & 0xFFFFFFFF)
    size = 1 << 14
    piece = client.buffer(size)
    client.ok("sendto", sock, piece, size, MSG_DONTWAIT, 0, 0)
    world.settle()
    assert not call.done

    while client.call("sendto", sock, piece, size, MSG_DONTWAIT, 0, 0) > 0:
        pass
    world.settle()

    assert call.result == 1
