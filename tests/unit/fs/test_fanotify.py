"""Ceilings of fanotify(7); what it tells is in tests/abi/files_fanotify.c."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from sentry.abi.fanotify import (
    FAN_CREATE,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_NONBLOCK,
    FAN_Q_OVERFLOW,
    FAN_REPORT_DFID_NAME,
    FAN_REPORT_FID,
    FAN_REPORT_PIDFD,
    FAN_UNLIMITED_QUEUE,
)
from sentry.abi.fcntl import AT_FDCWD, F_SETFL
from sentry.abi.sched import CLONE_NEWPID
from sentry.fs import fanotify
from tests.contract.filesystems.calls import Files
from tests.world import Program, World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def group(files: Files) -> int:
    """One that hears of every name that is made."""
    flags = FAN_REPORT_DFID_NAME | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE
    fd = files.ok("fanotify_init", flags, 0)
    how = FAN_MARK_ADD | FAN_MARK_FILESYSTEM
    files.ok("fanotify_mark", fd, how, FAN_CREATE, AT_FDCWD, b"/")
    return fd


def masks(files: Files, fd: int) -> list[int]:
    """Of all events that it has."""
    found: list[int] = []
    buffer = files.program.buffer(4096)
    while (got := files.call("read", fd, buffer, 4096)) > 0:
        data = files.program.read(buffer, got)
        while data:
            size, mask = struct.unpack_from("<I4xQ", data)
            found.append(mask)
            data = data[size:]
    assert got == -errno.EAGAIN
    return found


def test_events_of_all_groups_have_a_ceiling(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanotify, "MAX_EVENTS", 5)
    files = Files(world.program())
    one, other = group(files), group(files)
    for number in range(4):
        files.fill(b"/f%d" % number)
    counts = world.kernel.vfs.fanotify
    assert counts.events == 7
    assert masks(files, one) == [FAN_CREATE] * 3 + [FAN_Q_OVERFLOW]
    assert masks(files, other) == [FAN_CREATE] * 2 + [FAN_Q_OVERFLOW]
    assert counts.events == 0
    files.fill(b"/more")
    assert masks(files, one) == masks(files, other) == [FAN_CREATE]


def test_closed_group_leaves_nothing(world: World) -> None:
    files = Files(world.program())
    fd = group(files)
    files.fill(b"/f")
    counts = world.kernel.vfs.fanotify
    assert (counts.groups, counts.marks, counts.events) == (1, 1, 1)
    files.ok("close", fd)
    assert (counts.groups, counts.marks, counts.events) == (0, 0, 0)


def test_process_that_the_reader_does_not_see_has_no_pidfd(world: World) -> None:
    """copy_event_to_user(): who is in another PID namespace is not told of."""
    outside = world.program()
    reader = outside.sibling()
    reader.ok("unshare", CLONE_NEWPID)
    files = Files(reader.fork())
    files.ok("mkdir", b"/d", 0o755)
    fd = files.ok("fanotify_init", FAN_REPORT_FID | FAN_REPORT_PIDFD | FAN_NONBLOCK, 0)
    files.ok("fanotify_mark", fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CREATE, AT_FDCWD, b"/")
    buffer = files.program.buffer(4096)
    for program, pid, is_told in ((outside, 0, False), (files.program, 1, True)):
        program.ok("creat", b"/d/%d" % pid, 0o644)
        data = files.program.read(buffer, files.ok("read", fd, buffer, 4096))
        told, pidfd = struct.unpack_from("<20xi", data)[0], struct.unpack("<i", data[-4:])[0]
        assert (told, pidfd >= 0) == (pid, is_told)


def test_event_is_not_lost_where_memory_has_to_be_waited_for(
    world: World, changing: Callable[[Program], AbstractContextManager[None]]
) -> None:
    program = world.program()
    files = Files(program)
    fd = group(files)
    files.ok("fcntl", fd, F_SETFL, 0)
    room = program.buffer(4096)
    call = program.thread().begin("read", fd, room, 4096)
    with changing(program):
        Files(world.program()).fill(b"/made")
        world.settle()
        assert not call.done
    size = call.wait()
    assert struct.unpack_from("<I4xQ", program.read(room, size)) == (size, FAN_CREATE)
