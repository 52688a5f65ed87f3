"""A connection from outside to a port inside."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from sentry.abi.socket import AF_INET, AF_INET6, SHUT_WR, SOCK_STREAM
from sentry.control.forwarding import Forward
from sentry.errors import EINVAL
from tests.world import Program, World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


class Ends:
    """What the command line has."""

    def __init__(self, world: World, port: int) -> None:
        self.told: list[str] = []
        into, self.into = os.pipe()
        self.out, out = os.pipe()
        self.world = world
        container = world.kernel.container
        self.forward = Forward(world.kernel, container, [into, out], port, self.told.append)

    def settle(self) -> None:
        for _ in range(10):
            self.world.settle()

    def close(self) -> None:
        for fd in (self.into, self.out):
            if fd >= 0:
                os.close(fd)


def _listening(world: World, family: int, port: int) -> tuple[Program, int]:
    program = world.program()
    sock = program.ok("socket", family, SOCK_STREAM, 0)
    rest = bytes(12) if family == AF_INET else bytes(24)
    raw = struct.pack("<H", family) + struct.pack(">H", port) + rest
    program.ok("bind", sock, raw, len(raw))
    program.ok("listen", sock, 5)
    return program, sock


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_bytes_go_both_ways_until_both_have_ended(world: World, family: int) -> None:
    program, sock = _listening(world, family, 80)
    ends = Ends(world, 80)
    ends.settle()
    assert ends.told == [""]
    server = program.ok("accept", sock, 0, 0)
    os.write(ends.into, b"ask")
    ends.settle()
    buffer = program.buffer(16)
    assert program.ok("read", server, buffer, 16) == 3
    assert program.read(buffer, 3) == b"ask"
    program.ok("write", server, b"answer", 6)
    ends.settle()
    assert os.read(ends.out, 100) == b"answer"

    os.close(ends.into)
    ends.into = -1
    ends.settle()
    assert program.ok("read", server, buffer, 16) == 0
    program.ok("write", server, b"last", 4)
    program.ok("shutdown", server, SHUT_WR)
    ends.settle()
    assert os.read(ends.out, 100) == b"last"
    assert os.read(ends.out, 100) == b""
    assert world.loop.fibers == 0
    ends.close()


def test_a_port_where_nobody_listens_is_told(world: World) -> None:
    ends = Ends(world, 81)
    ends.settle()

    assert ends.told == ["port 81: connection refused"]
    assert os.read(ends.out, 1) == b""
    assert world.loop.fibers == 0
    ends.close()


def test_who_goes_away_ends_the_connection(world: World) -> None:
    program, sock = _listening(world, AF_INET, 80)
    ends = Ends(world, 80)
    ends.settle()
    server = program.ok("accept", sock, 0, 0)
    ends.forward.abandon()
    ends.settle()

    assert program.ok("read", server, program.buffer(4), 4) == 0
    assert os.read(ends.out, 1) == b""
    assert world.loop.fibers == 0
    ends.close()


def test_nobody_gets_sigpipe(world: World) -> None:
    program, sock = _listening(world, AF_INET, 80)
    ends = Ends(world, 80)
    ends.settle()
    server = program.ok("accept", sock, 0, 0)
    os.close(ends.out)
    ends.out = -1
    program.ok("write", server, b"answer", 6)
    ends.settle()

    assert not world.init.task.dead
    assert world.loop.fibers == 0
    ends.close()


@pytest.mark.parametrize("port", [0, -1, 1 << 16])
def test_what_is_no_port_is_refused_and_nothing_stays_open(world: World, port: int) -> None:
    fds = list(os.pipe())

    with pytest.raises(EINVAL):
        Forward(world.kernel, world.kernel.container, fds, port, print)

    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_what_a_program_has_said_goes_out_though_it_hears_no_more(world: World) -> None:
    program, sock = _listening(world, AF_INET, 80)
    ends = Ends(world, 80)
    ends.settle()
    server = program.ok("accept", sock, 0, 0)
    said = 200_000
    buffer = program.buffer(said)
    assert program.ok("write", server, buffer, said) == said
    program.ok("close", server)
    for _ in range(2):  # the first one is answered by a reset
        os.write(ends.into, b"more")
        ends.settle()

    heard = 0
    while data := os.read(ends.out, said):
        heard += len(data)
        ends.settle()

    assert heard == said
    assert world.loop.fibers == 0
    ends.close()


def test_nobody_waits_for_who_is_connected_to_a_closed_socket(world: World) -> None:
    """As a kernel has no socket any more for it: with that of the host it is so, too."""
    program, sock = _listening(world, AF_INET, 80)
    ends = Ends(world, 80)
    ends.settle()
    server = program.ok("accept", sock, 0, 0)
    program.ok("write", server, b"bye", 3)
    program.ok("close", server)
    ends.settle()

    assert os.read(ends.out, 100) == b"bye"
    assert os.read(ends.out, 100) == b""
    with pytest.raises(BrokenPipeError):
        os.write(ends.into, b"more")
    assert world.loop.fibers == 0
    ends.close()
