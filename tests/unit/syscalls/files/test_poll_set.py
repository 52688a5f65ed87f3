"""poll(2) of the same list again and again: what is remembered shows nothing but what holds."""

from __future__ import annotations

import struct

import pytest

from sentry import loop
from sentry.abi.poll import EPOLLIN, EPOLLNVAL, EPOLLOUT
from sentry.abi.socket import AF_UNIX, SOCK_STREAM
from sentry.syscalls.files import poll_set
from sentry.vfs.file import FileDescription
from sentry.wait.queue import MANY
from tests.world import Call, World

COUNT = 64
ONE = struct.pack("<Q", 1)


@pytest.fixture
def world(looking: World) -> World:
    return looking


class List:
    """Eventfds of a process that are polled."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.program = world.program()
        self.fds = [self.program.ok("eventfd2", 0, 0) for _ in range(COUNT)]
        self.at = self.program.buffer(8 * COUNT)
        self.write(EPOLLIN)

    def write(self, events: int) -> None:
        rows = b"".join(struct.pack("<ihH", fd, events, 0) for fd in self.fds)
        self.program.write(self.at, rows)

    def poll(self) -> dict[int, int]:
        """Place in the list → what holds."""
        found = self.program.ok("poll", self.at, COUNT, 0)
        raw = self.program.read(self.at, 8 * COUNT)
        ready = {at: row[2] for at, row in enumerate(struct.iter_unpack("<ihH", raw)) if row[2]}
        assert len(ready) == found
        return ready

    def sleep(self) -> Call:
        call = self.program.thread().begin("poll", self.at, COUNT, 0xFFFFFFFF)
        self.world.settle()
        assert not call.done
        return call

    def signal(self, at: int) -> None:
        self.program.ok("write", self.fds[at], self.program.place(ONE), 8)

    def take(self, at: int) -> None:
        self.program.ok("read", self.fds[at], self.program.buffer(8), 8)

    def file(self, at: int) -> FileDescription:
        return self.program.task.files.get(self.fds[at])

    @property
    def registered(self) -> int:
        self.world.settle()  # what is forgotten is let go of in steps
        files = [self.program.task.files._files[fd] for fd in self.fds]
        return sum(len(file.queue) for file in files if file is not None)


@pytest.fixture
def polled(world: World) -> List:
    return List(world)


@pytest.fixture
def known(polled: List) -> List:
    """All of it is registered."""
    for registered in (0, COUNT, COUNT):
        assert polled.poll() == {}
        assert polled.registered == registered
    return polled


@pytest.mark.parametrize("before", range(4))
def test_what_becomes_ready_between_two_calls_is_found(polled: List, before: int) -> None:
    for _ in range(before):
        polled.poll()
    for at in (0, 20, COUNT - 1):
        polled.signal(at)
    for _ in range(2):
        assert polled.poll() == dict.fromkeys((0, 20, COUNT - 1), EPOLLIN)
    polled.take(20)
    assert polled.poll() == dict.fromkeys((0, COUNT - 1), EPOLLIN)


def test_results_of_the_call_before_make_no_other_list(known: List) -> None:
    known.signal(3)
    assert known.poll() == {3: EPOLLIN}
    known.take(3)
    assert known.poll() == {}
    assert known.registered == COUNT


def test_another_list_at_the_same_place_is_looked_at_as_a_whole(known: List) -> None:
    known.write(EPOLLOUT)
    assert known.poll() == dict.fromkeys(range(COUNT), EPOLLOUT)
    assert known.registered == 0


def test_descriptor_that_was_closed_is_none(known: List) -> None:
    known.program.ok("close", known.fds[5])
    assert known.poll() == {5: EPOLLNVAL}
    assert known.poll() == {5: EPOLLNVAL}


def test_descriptor_that_means_another_file_is_that(known: List) -> None:
    other = known.program.ok("eventfd2", 1, 0)
    known.program.ok("dup2", other, known.fds[5])
    assert known.poll() == {5: EPOLLIN}


def test_descriptor_that_is_not_in_the_list_changes_nothing(known: List) -> None:
    known.program.ok("close", known.program.ok("eventfd2", 1, 0))
    assert known.poll() == {}
    assert known.registered == COUNT


def test_file_that_stands_there_twice_is_found_twice(polled: List) -> None:
    polled.program.ok("dup2", polled.fds[1], polled.fds[2])
    for _ in range(3):
        polled.poll()
    polled.signal(1)
    assert polled.poll() == {1: EPOLLIN, 2: EPOLLIN}


def test_negative_descriptors_are_left_out(polled: List) -> None:
    polled.fds[7] = -1
    polled.write(EPOLLIN)
    for _ in range(3):
        assert polled.poll() == {}


def test_socket_that_is_waited_for_to_have_room_is_asked(polled: List) -> None:
    program, pair = polled.program, polled.program.buffer(8)
    program.ok("socketpair", AF_UNIX, SOCK_STREAM, 0, pair)
    left, right = struct.unpack("<ii", program.read(pair, 8))
    program.ok("dup2", left, polled.fds[9])
    polled.write(EPOLLIN | EPOLLOUT)
    eventfds = {at: EPOLLOUT for at in range(COUNT) if at != 9}
    for _ in range(3):
        assert polled.poll() == eventfds | {9: EPOLLOUT}
    program.ok("write", right, program.place(b"x"), 1)
    assert polled.poll() == eventfds | {9: EPOLLIN | EPOLLOUT}


@pytest.mark.parametrize("before", range(4))
def test_sleep_ends_with_what_becomes_ready(polled: List, before: int) -> None:
    for _ in range(before):
        polled.poll()
    call = polled.sleep()
    polled.signal(40)
    assert call.wait() == 1
    assert polled.poll() == {40: EPOLLIN}


def test_file_on_which_a_crowd_waits_is_found_ready_at_once(
    polled: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PIECE_NS", -1)
    queue = polled.file(3).queue
    for _ in range(2 * MANY):
        queue.add(lambda _: None)
    for _ in range(3):
        polled.poll()
    call = polled.program.thread().begin("write", polled.fds[3], polled.program.place(ONE), 8)
    found = polled.program.begin("poll", polled.at, COUNT, 0)
    assert found.wait() == 1
    assert call.wait() == 8


def test_each_of_two_who_poll_a_list_is_told_what_it_has_found(known: List) -> None:
    for at in range(COUNT):
        known.signal(at)
    call = known.program.thread().begin("poll", known.at, COUNT, 0)
    if not call.done:
        known.world.loop.turn()
    known.take(0)
    other = known.program.begin("poll", known.at, COUNT, 0)
    while not call.done:
        known.world.loop.turn()
    raw = known.program.read(known.at, 8 * COUNT)
    if not other.done:
        assert call.result == sum(row[2] != 0 for row in struct.iter_unpack("<ihH", raw)) == COUNT
    assert other.wait() == COUNT - 1


def test_list_that_changes_while_it_is_looked_at_is_looked_at_as_it_is(polled: List) -> None:
    polled.poll()
    call = polled.program.thread().begin("poll", polled.at, COUNT, 0xFFFFFFFF)
    polled.program.ok("dup2", polled.program.ok("eventfd2", 1, 0), polled.fds[COUNT - 1])
    polled.program.ok("close", polled.fds[0])
    polled.world.settle()
    if not call.done:
        polled.signal(30)
    assert call.wait() in (1, 2, 3)
    assert polled.poll() | {30: EPOLLIN} == {0: EPOLLNVAL, 30: EPOLLIN, COUNT - 1: EPOLLIN}
    assert polled.registered == 0


def test_file_that_is_closed_while_it_is_polled_stays_in_use(known: List) -> None:
    file = known.file(5)
    call = known.sleep()
    known.program.ok("close", known.fds[5])
    known.world.settle()
    assert file.refs == 1 and not call.done
    known.signal(6)
    assert call.wait() == 2
    known.world.settle()
    assert file.refs == 0 and len(file.queue) == 0
    known.program.ok("dup2", known.fds[6], known.fds[5])
    assert known.registered == 0
    assert [known.file(at).refs for at in (4, 5, 6, 7)] == [1, 2, 2, 1]


def test_end_of_the_process_leaves_nothing(known: List) -> None:
    keeper = known.program.fork()
    files = [keeper.task.files.get(fd) for fd in known.fds]
    assert known.world.vfs.polled == COUNT
    known.sleep()
    known.program.begin("exit_group", 0)
    known.world.settle()
    assert known.world.vfs.polled == 0
    assert {len(file.queue) for file in files} == {0} and {file.refs for file in files} == {1}


def test_at_the_ceiling_nothing_more_is_remembered(
    polled: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll_set, "MAX_POLLED", COUNT - 1)
    for _ in range(3):
        assert polled.poll() == {}
    polled.signal(1)
    assert polled.poll() == {1: EPOLLIN}
    assert polled.world.vfs.polled == polled.registered == 0


def test_table_remembers_a_few_lists(known: List) -> None:
    for _ in range(poll_set.MAX_SETS):
        rows = known.program.read(known.at, 8 * COUNT)
        known.at = known.program.place(rows)
        known.poll()
    assert known.registered == 0
    assert known.world.vfs.polled == poll_set.MAX_SETS * COUNT
