"""select(2) of the same sets again and again: what is remembered shows nothing but what holds."""

from __future__ import annotations

import struct

import pytest

from sentry.errors import EBADF
from sentry.syscalls.files import poll_set
from tests.world import Call, World

COUNT = 64
SET = 128
"""Bytes of an fd_set here."""
ONE = struct.pack("<Q", 1)


@pytest.fixture
def world(looking: World) -> World:
    return looking


class Sets:
    """Eventfds of a process, in the sets that are asked for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.program = world.program()
        self.fds = [self.program.ok("eventfd2", 0, 0) for _ in range(COUNT)]
        self.asked: list[list[int]] = [self.fds, [], []]
        self.at = self.program.buffer(3 * SET)
        self.now = self.program.place(bytes(16))

    def write(self) -> tuple[int, ...]:
        """The sets, and what a call is given of them."""
        for n, fds in enumerate(self.asked):
            bits = sum(1 << fd for fd in set(fds))
            self.program.write(self.at + n * SET, bits.to_bytes(SET, "little"))
        sets = [self.at + n * SET for n in range(3)]
        return (max(map(max, filter(None, self.asked))) + 1, *sets)

    def read(self) -> list[set[int]]:
        """The sets after a call."""
        raw = [self.program.read(self.at + n * SET, SET) for n in range(3)]
        numbers = [int.from_bytes(each, "little") for each in raw]
        return [{fd for fd in range(8 * SET) if each >> fd & 1} for each in numbers]

    def select(self) -> list[set[int]]:
        """Which are ready now, of each set."""
        count = self.program.ok("select", *self.write(), self.now)
        found = self.read()
        assert sum(map(len, found)) == count
        return found

    def sleep(self) -> Call:
        call = self.program.thread().begin("select", *self.write(), 0)
        self.world.settle()
        assert not call.done
        return call

    def signal(self, fd: int) -> None:
        self.program.ok("write", fd, self.program.place(ONE), 8)

    @property
    def registered(self) -> int:
        self.world.settle()
        files = [self.program.task.files._files[fd] for fd in self.fds]
        return sum(len(file.queue) for file in files if file is not None)


@pytest.fixture
def sets(world: World) -> Sets:
    return Sets(world)


@pytest.mark.parametrize("before", range(4))
def test_what_becomes_ready_between_two_calls_is_found(sets: Sets, before: int) -> None:
    for _ in range(before):
        assert sets.select() == [set(), set(), set()]
    ready = {sets.fds[0], sets.fds[20], sets.fds[-1]}
    for fd in ready:
        sets.signal(fd)
    for _ in range(2):
        assert sets.select() == [ready, set(), set()]
    sets.program.ok("read", sets.fds[20], sets.program.buffer(8), 8)
    assert sets.select() == [ready - {sets.fds[20]}, set(), set()]
    assert sets.registered == COUNT


def test_each_set_has_what_was_asked_for_in_it(sets: Sets) -> None:
    sets.asked = [sets.fds[:40], sets.fds[20:], sets.fds[:2]]
    sets.signal(sets.fds[25])
    sets.signal(sets.fds[50])
    for _ in range(4):
        assert sets.select() == [{sets.fds[25]}, set(sets.fds[20:]), set()]


@pytest.mark.parametrize("before", range(4))
def test_descriptor_that_is_not_open_is_an_error_each_time(sets: Sets, before: int) -> None:
    for _ in range(before):
        sets.select()
    sets.program.ok("close", sets.fds[9])
    for _ in range(3):
        assert sets.program.call("select", *sets.write(), sets.now) == -EBADF.number


def test_descriptor_that_means_another_file_is_that(sets: Sets) -> None:
    for _ in range(3):
        sets.select()
    other = sets.program.ok("eventfd2", 1, 0)
    sets.program.ok("dup2", other, sets.fds[5])
    for _ in range(3):
        assert sets.select() == [{sets.fds[5]}, set(), set()]


@pytest.mark.parametrize("before", range(4))
def test_sleep_ends_with_what_becomes_ready(sets: Sets, before: int) -> None:
    for _ in range(before):
        sets.select()
    call = sets.sleep()
    sets.signal(sets.fds[40])
    assert call.wait() == 1
    assert sets.read() == [{sets.fds[40]}, set(), set()]


@pytest.mark.parametrize("before", range(4))
def test_descriptor_that_is_closed_meanwhile_is_passed_over(sets: Sets, before: int) -> None:
    for _ in range(before):
        sets.select()
    call = sets.sleep()
    sets.program.ok("close", sets.fds[5])
    sets.world.settle()
    assert not call.done
    sets.signal(sets.fds[6])
    assert call.wait() == 1
    assert sets.read() == [{sets.fds[6]}, set(), set()]


@pytest.mark.parametrize("before", range(2, 4))
def test_file_that_came_and_went_meanwhile_is_looked_at_no_more(sets: Sets, before: int) -> None:
    """The call has no use of it, so it may have ended, and says what it likes."""
    sets.asked = [sets.fds[1:], [], sets.fds[:1]]
    for _ in range(before):
        sets.select()
    call = sets.sleep()
    other = sets.program.ok("eventfd2", 0, 0)
    sets.program.ok("dup2", other, sets.fds[5])
    sets.signal(sets.fds[0])  # it looks, and finds nothing
    sets.world.settle()
    sets.program.ok("close", sets.fds[5])
    sets.signal(other)
    sets.signal(sets.fds[6])
    assert call.wait() == 1
    assert sets.read() == [{sets.fds[6]}, set(), set()]


def test_large_sets_are_not_made_a_list_in_one_step(sets: Sets) -> None:
    def rows() -> bytes:
        raise AssertionError("that takes long")

    table = sets.program.task.files
    for bits in (poll_set.LARGEST + 1, 1 << 20):
        assert poll_set.select_set(sets.world.vfs, table, ((1 << bits) - 1, 0, 0), rows) is None
    assert not sets.world.vfs.polled


def test_few_descriptors_are_not_remembered(sets: Sets) -> None:
    sets.asked = [sets.fds[: poll_set.FEWEST - 1], [], []]
    for _ in range(3):
        sets.select()
    assert sets.world.vfs.polled == sets.registered == 0
