"""Listings of many names: no call makes all of them, and what is gone is not listed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.syscalls.files.directories import MAX_LISTING
from sentry.vfs.dirents import PIECE, Dirents
from sentry.wait.steps import Steps
from tests.world import Program, World

MANY = 3000
ROOM = 1 << 20


@pytest.fixture()
def program() -> Iterator[Program]:
    with World() as world:
        program = world.program()
        program.ok("mkdir", b"/d", 0o700)
        for number in range(MANY):
            program.ok("mknod", b"/d/%d" % number, 0o100600, 0)
        yield program


def listed(program: Program, fd: int, room: int, size: int) -> list[tuple[bytes, int]]:
    """The names that one call gives, each with the position behind it."""
    data = program.read(room, program.ok("getdents64", fd, room, size))
    found = []
    while data:
        position, length = struct.unpack_from("<qH", data, 8)
        found.append((data[19:length].split(b"\0", 1)[0], position))
        data = data[length:]
    return found


def opened(program: Program, path: bytes = b"/d") -> tuple[int, int]:
    """A directory, and room."""
    return program.ok("open", path, os.O_DIRECTORY), program.ok("mmap", 0, ROOM, 3, 0x22, -1, 0)


def test_one_call_gives_no_more_than_takes_a_millisecond(program: Program) -> None:
    fd, room = opened(program)
    names: list[bytes] = []
    while found := listed(program, fd, room, ROOM):
        assert len(found) <= MAX_LISTING // 24
        names += [name for name, _ in found]
    assert names == [b".", b"..", *(b"%d" % number for number in range(MANY))]


def test_what_is_removed_before_it_is_read_is_not_listed(program: Program) -> None:
    fd, room = opened(program)
    first = listed(program, fd, room, 1 << 12)
    program.ok("unlink", b"/d/%d" % (MANY - 1))
    program.ok("unlink", first[-1][0].join((b"/d/", b"")))
    program.ok("mknod", b"/d/new", 0o100600, 0)
    rest: list[bytes] = []
    while found := listed(program, fd, room, ROOM):
        rest += [name for name, _ in found]
    assert rest == [b"%d" % number for number in range(len(first) - 2, MANY - 1)]


def test_far_position_is_reached_in_steps(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, room = opened(program)
    whole: list[tuple[bytes, int]] = []
    while found := listed(program, fd, room, ROOM):
        whole += found
    other = program.thread()
    program.ok("mknod", b"/d/new", 0o100600, 0)  # what was kept of the listing is old
    again, _ = opened(program)
    program.ok("lseek", again, whole[-2][1], 0)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    reading = program.begin("getdents64", again, room, ROOM)
    assert not reading.done
    other.ok("close", other.ok("open", b"/d/1", 0))
    program.read(room, reading.wait())
    monkeypatch.undo()
    program.ok("lseek", again, whole[-2][1], 0)
    names = [name for name, _ in listed(program, again, room, ROOM)]
    assert names == [b"%d" % (MANY - 1), b"new"]


def test_positions_past_the_end_list_nothing(program: Program) -> None:
    fd, room = opened(program)
    program.ok("lseek", fd, 1 << 40, 0)
    assert listed(program, fd, room, ROOM) == []


def test_threads_are_found_by_their_numbers(program: Program) -> None:
    program.world.mount("proc", b"/proc")
    other, stranger = program.thread(), program.fork()
    fd, room = opened(program, b"/proc/self/task")
    names = [name for name, _ in listed(program, fd, room, ROOM)]
    assert names[2:] == [b"%d" % one.task.tid for one in (program, other)]
    assert program.ok("stat", b"/proc/self/task/%d" % other.task.tid, room) == 0
    assert program.call("stat", b"/proc/self/task/%d" % stranger.task.tid, room) == -2
    assert program.call("stat", b"/proc/self/task/0", room) == -2


def read_on(program: Program, fd: int, room: int) -> list[bytes]:
    names: list[bytes] = []
    while found := listed(program, fd, room, ROOM):
        names += [name for name, _ in found]
    return names


def test_listings_have_a_ceiling_and_who_lost_his_reads_on_in_another(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = program.task.kernel.vfs.budget
    fds, firsts = [], []
    for number in range(4):
        fd, room = opened(program)
        fds.append(fd)
        firsts.append(listed(program, fd, room, 1 << 12))
        assert budget.text_bytes >= (number + 1) * 24 * MANY
        program.ok("mknod", b"/d/new%d" % number, 0o100600, 0)
    monkeypatch.setattr("sentry.vfs.budget.MAX_TEXT_BYTES", budget.text_bytes // 2)
    program.ok("lseek", fds[3], firsts[3][-1][1], 0)
    assert listed(program, fds[3], room, 1 << 12)
    files: list[Any] = [program.task.files.get(fd) for fd in fds]
    assert [file._listing is None for file in files] == [True, True, False, False]
    assert len(budget.texts) == 2
    names = [b"%d" % number for number in range(len(firsts[0]) - 2, MANY)]
    assert read_on(program, fds[0], room) == [*names, b"new0", b"new1", b"new2", b"new3"]
    program.ok("unlink", b"/d/0")
    assert program.call("getdents64", fds[1], room, ROOM) == -errno.ENOMEM
    assert program.call("getdents64", fds[1], room, ROOM) == -errno.ENOMEM
    assert files[1]._listing is None
    program.ok("lseek", fds[1], 0, 0)
    assert len(read_on(program, fds[1], room)) == 2 + MANY - 1 + 4
    for fd in fds:
        program.ok("close", fd)
    assert (budget.text_bytes, budget.texts) == (0, {})


def test_listing_that_is_lost_while_a_position_is_reached_is_reached_in_steps_again(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, room = opened(program)
    whole = listed(program, fd, room, ROOM)
    program.ok("mknod", b"/d/new", 0o100600, 0)  # what was kept of the listing is old
    again, _ = opened(program)
    program.ok("lseek", again, MANY, 0)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    reading = program.begin("getdents64", again, room, ROOM)
    file: Any = program.task.files.get(again)
    file.inode.touched()
    file.forget_text()
    steps = 0

    def counted(entries: Dirents, index: int) -> Steps[None]:
        nonlocal steps
        for _ in reach(entries, index):
            steps += 1
            yield

    reach = Dirents.reach
    monkeypatch.setattr(Dirents, "reach", counted)
    assert reading.wait() > 0 and whole
    assert steps >= MANY // PIECE
