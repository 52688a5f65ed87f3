"""poll(2) and select(2) of more files than one step looks at: what comes in between."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry.abi.poll import EPOLLIN, EPOLLNVAL
from sentry.abi.signal import SIGUSR1
from sentry.errors import EBADF, EINTR
from sentry.wait import steps
from tests.world import World

COUNT = 4
ONE = struct.pack("<Q", 1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Where a look takes a step for each file."""
    monkeypatch.setattr(steps, "STEP_NS", -1)
    monkeypatch.setattr("sentry.syscalls.files.poll.AT_A_TIME", 1)
    monkeypatch.setattr("sentry.syscalls.files.select.AT_A_TIME", 1)
    with World() as made:
        yield made


class Waiting:
    """A thread that polls eventfds of its process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.other = world.program()
        self.files = [self.other.ok("eventfd2", 0, 0) for _ in range(COUNT)]
        self.program = self.other.thread()
        rows = [struct.pack("<ihH", fd, EPOLLIN, 0xFFFF) for fd in self.files]
        self.rows = self.program.place(b"".join(rows))
        bits = sum(1 << fd for fd in self.files)
        self.set = self.program.place(bits.to_bytes(8, "little"))

    def poll(self, timeout_ms: int = -1) -> None:
        self.call = self.program.begin("poll", self.rows, COUNT, timeout_ms & 0xFFFFFFFF)
        assert not self.call.done

    def select(self) -> None:
        self.call = self.program.begin("select", self.files[-1] + 1, self.set, 0, 0, 0)
        assert not self.call.done

    def raise_one(self, number: int) -> None:
        self.other.ok("write", self.files[number], ONE, 8)

    @property
    def events(self) -> list[int]:
        """What poll(2) has found."""
        raw = self.program.read(self.rows, 8 * COUNT)
        return [row[2] for row in struct.iter_unpack("<ihH", raw)]

    def turn_until_it_sleeps(self) -> None:
        self.world.settle()
        assert not self.call.done


@pytest.fixture
def waiting(world: World) -> Waiting:
    return Waiting(world)


def test_file_that_is_ready_is_found_by_the_first_look(waiting: Waiting) -> None:
    waiting.raise_one(3)
    waiting.poll()
    assert waiting.call.wait() == 1
    assert waiting.events == [0, 0, 0, EPOLLIN]


def test_file_that_becomes_ready_behind_the_look_is_found(waiting: Waiting) -> None:
    waiting.poll()
    waiting.raise_one(0)
    assert waiting.call.wait() == 1
    assert waiting.events == [EPOLLIN, 0, 0, 0]


def test_file_that_becomes_ready_while_it_sleeps_wakes_it(waiting: Waiting) -> None:
    waiting.poll()
    waiting.turn_until_it_sleeps()
    waiting.raise_one(2)
    assert waiting.call.wait() == 1
    assert waiting.events == [0, 0, EPOLLIN, 0]


def test_file_that_is_ready_no_more_when_it_is_looked_at_lets_it_sleep_on(
    waiting: Waiting,
) -> None:
    waiting.poll()
    waiting.turn_until_it_sleeps()
    waiting.raise_one(2)
    waiting.other.ok("read", waiting.files[2], waiting.other.buffer(8), 8)
    waiting.turn_until_it_sleeps()
    waiting.raise_one(1)
    assert waiting.call.wait() == 1
    assert waiting.events == [0, EPOLLIN, 0, 0]


def test_file_that_is_closed_behind_the_look_is_none_at_the_next(waiting: Waiting) -> None:
    waiting.poll()
    waiting.other.ok("close", waiting.files[0])
    waiting.turn_until_it_sleeps()
    waiting.raise_one(1)
    assert waiting.call.wait() == 2
    assert waiting.events == [EPOLLNVAL, EPOLLIN, 0, 0]


def test_deadline_counts_from_the_call_and_ends_it_with_nothing(waiting: Waiting) -> None:
    waiting.poll(0)
    assert waiting.call.wait() == 0
    assert waiting.events == [0] * COUNT


def test_signal_waits_for_the_end_of_a_look_that_finds_something(waiting: Waiting) -> None:
    waiting.program.handle(SIGUSR1)
    waiting.raise_one(3)
    waiting.poll()
    waiting.other.ok("tgkill", waiting.program.task.group.tgid, waiting.program.task.tid, SIGUSR1)
    assert waiting.call.wait() == 1


def test_signal_ends_a_look_that_finds_nothing(waiting: Waiting) -> None:
    waiting.program.handle(SIGUSR1)
    waiting.poll()
    waiting.other.ok("tgkill", waiting.program.task.group.tgid, waiting.program.task.tid, SIGUSR1)
    assert waiting.call.wait() == -EINTR.number


def test_kill_ends_it_at_once_and_lets_the_files_go(waiting: Waiting) -> None:
    world, keeper = waiting.world, waiting.other.fork()
    table = keeper.task.files
    files = [table.get(fd) for fd in waiting.files]
    waiting.poll()
    waiting.other.begin("exit_group", 0)
    world.settle()
    assert [len(file.queue) for file in files] == [0] * COUNT
    assert [file.refs for file in files] == [1] * COUNT


def test_select_finds_what_becomes_ready_behind_its_look(waiting: Waiting) -> None:
    waiting.select()
    waiting.raise_one(0)
    assert waiting.call.wait() == 1
    found = int.from_bytes(waiting.program.read(waiting.set, 8), "little")
    assert found == 1 << waiting.files[0]


def test_select_of_a_descriptor_that_is_not_open_fails(waiting: Waiting) -> None:
    waiting.raise_one(0)
    waiting.other.ok("close", waiting.files[2])
    waiting.select()
    assert waiting.call.wait() == -EBADF.number
