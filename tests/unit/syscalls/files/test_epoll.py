"""epoll_wait(2) among more files than are looked at in a step."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.poll import EPOLLIN
from sentry.fs.epoll import file
from tests.world import Program, World

ONE = struct.pack("<Q", 1)


@pytest.fixture
def program(world: World, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(file, "AT_ONCE", 2)
    return world.program()


def noted(program: Program, count: int) -> tuple[int, list[int]]:
    """An epoll whose files were ready, and are not any more."""
    epoll = program.ok("epoll_create1", 0)
    counters = [program.ok("eventfd2", 0, O_NONBLOCK) for _ in range(count)]
    for number, fd in enumerate(counters):
        program.ok("epoll_ctl", epoll, 1, fd, program.place(struct.pack("<IQ", EPOLLIN, number)))
        program.ok("write", fd, ONE, 8)
        program.ok("read", fd, program.buffer(8), 8)
    return epoll, counters


def found(program: Program, events: int, count: int) -> list[int]:
    raw = program.read(events, 12 * count)
    return [data for _, data in struct.iter_unpack("<IQ", raw)]


def test_what_is_ready_behind_the_others_is_found_without_waiting(program: Program) -> None:
    epoll, counters = noted(program, 7)
    program.ok("write", counters[6], ONE, 8)
    events = program.buffer(12 * 4)
    assert program.ok("epoll_wait", epoll, events, 4, 0) == 1
    assert found(program, events, 1) == [6]


def test_nothing_is_found_where_none_is_ready(program: Program) -> None:
    epoll, _ = noted(program, 7)
    assert program.ok("epoll_wait", epoll, program.buffer(12), 1, 0) == 0


def test_who_waits_hears_of_the_next(program: Program) -> None:
    epoll, counters = noted(program, 7)
    events = program.buffer(12)
    call = program.thread().begin("epoll_wait", epoll, events, 1, -1)
    program.world.settle()
    assert not call.done
    program.ok("write", counters[3], ONE, 8)
    assert call.wait() == 1
    assert found(program, events, 1) == [3]
