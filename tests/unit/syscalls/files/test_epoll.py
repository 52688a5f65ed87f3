"""epoll_wait(2) among more files than are looked at in a step."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.mman import PROT_NONE
from sentry.abi.poll import EPOLLET, EPOLLIN, EPOLLONESHOT
from sentry.fs.epoll import file
from tests.world import Program, World

Fetch = Callable[[int], None]
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


def test_what_is_ready_behind_the_others_is_found_by_who_would_wait(program: Program) -> None:
    epoll, counters = noted(program, 7)
    program.ok("write", counters[6], ONE, 8)
    events = program.buffer(12)
    assert program.ok("epoll_wait", epoll, events, 1, -1) == 1
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


def watched(program: Program, flags: int, count: int) -> int:
    """An epoll, and eventfds that are ready."""
    epoll = program.ok("epoll_create1", 0)
    for number in range(count):
        fd = program.ok("eventfd2", 1, O_NONBLOCK)
        event = program.place(struct.pack("<IQ", EPOLLIN | flags, number))
        program.ok("epoll_ctl", epoll, 1, fd, event)
    return epoll


@pytest.mark.parametrize("flags", [EPOLLET, EPOLLONESHOT])
@pytest.mark.parametrize("sleeps", [False, True])
def test_event_is_not_lost_where_its_place_has_to_be_fetched_first(
    task: Program, fetched_first: Fetch, flags: int, sleeps: bool
) -> None:
    epoll, events = task.ok("epoll_create1", 0), task.buffer(12)
    fd = task.ok("eventfd2", 0, O_NONBLOCK)
    task.ok("epoll_ctl", epoll, 1, fd, task.place(struct.pack("<IQ", EPOLLIN | flags, 7)))
    fetched_first(events)
    if not sleeps:
        task.ok("write", fd, ONE, 8)
    call = task.thread().begin("epoll_wait", epoll, events, 1, 1000)
    task.world.settle()
    if sleeps:
        task.ok("write", fd, ONE, 8)
    assert call.wait() == 1
    assert found(task, events, 1) == [7]
    assert task.ok("epoll_wait", epoll, events, 1, 0) == 0


@pytest.mark.parametrize("flags", [EPOLLET, EPOLLONESHOT])
def test_events_that_cannot_be_told_are_told_by_the_next_call(task: Program, flags: int) -> None:
    epoll = watched(task, flags, 3)
    page = task.ok("mmap", 0, 8192, 3, 0x22, -1, 0)
    task.ok("mprotect", page + 4096, 4096, PROT_NONE)
    end = page + 4096
    assert task.call("epoll_wait", epoll, end, 3, 0) == -errno.EFAULT
    assert task.ok("epoll_wait", epoll, end - 18, 3, 0) == 1
    assert found(task, end - 18, 1) == [0]
    assert task.ok("epoll_wait", epoll, page, 3, 0) == 2
    assert found(task, page, 2) == [1, 2]
    assert task.ok("epoll_wait", epoll, page, 3, 0) == 0
