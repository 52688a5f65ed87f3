"""O_ASYNC and F_NOTIFY: who hears of a file, and how long."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.fcntl import (
    DN_CREATE,
    DN_MULTISHOT,
    F_NOTIFY,
    F_SETOWN,
    O_CREAT,
    O_DIRECTORY,
    O_RDONLY,
    O_WRONLY,
)
from sentry.fs.eventfd import EventFile
from sentry.kernel import fasync
from sentry.loop import PIECE
from sentry.vfs.notices import O_ASYNC, AsyncNotice, set_async
from sentry.vfs.vfs import Vfs
from tests.world import World


@pytest.fixture
def caller() -> Iterator[Any]:
    """A program with a file system. Without the collector: what is left over stays."""
    gc.collect()
    gc.disable()
    group = SimpleNamespace(tgid=9)
    yield SimpleNamespace(kernel=SimpleNamespace(vfs=Vfs(None, None, lambda: 0)), group=group)
    gc.enable()


def alive() -> int:
    return sum(isinstance(each, AsyncNotice | EventFile) for each in gc.get_objects())


def test_notice_goes_with_its_file(caller: Any) -> None:
    file = EventFile(caller.kernel.vfs, 0, 0).incref()
    told: list[tuple[int, int]] = []
    caller.kernel.vfs.send_io = lambda file, fd, code, band: told.append((fd, code))
    file.owner = (1, 9)
    set_async(caller, file, 5, on=True)
    file.add(1)
    assert [fd for fd, _ in told] == [5] and file.flags & O_ASYNC and alive() == 2
    set_async(caller, file, 6, on=True)
    assert alive() == 2 and len(file.queue) == 1
    file.decref()
    assert not len(file.queue)
    del file
    assert alive() == 0


def test_notice_goes_when_it_is_turned_off(caller: Any) -> None:
    file = EventFile(caller.kernel.vfs, 0, 0).incref()
    set_async(caller, file, 5, on=True)
    set_async(caller, file, 5, on=False)
    assert alive() == 1 and file.async_notice is None and not len(file.queue)
    file.decref()


@pytest.mark.parametrize("many", ["open files", "processes"])
def test_crowd_hears_of_a_directory_in_pieces(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(fasync, "_send", lambda group, task, info: told.append(group))
    with World() as world:
        program, count = world.program(), 2 * PIECE
        files = []
        for _ in range(count if many == "open files" else 1):
            files.append(program.ok("open", b"/", O_RDONLY | O_DIRECTORY))
            program.ok("fcntl", files[-1], F_SETOWN, -program.task.group.tgid)
            program.ok("fcntl", files[-1], F_NOTIFY, DN_CREATE | DN_MULTISHOT)
        crowd = [program.fork() for _ in range(1 if many == "open files" else count)]
        crowd.pop().begin("exit_group", 0)
        world.settle()
        monkeypatch.setattr("sentry.loop.PIECE_NS", -1)
        program.ok("close", program.ok("open", b"/new", O_CREAT | O_WRONLY))
        assert PIECE - 1 <= len(told) <= PIECE  # one of the first may be the one that has ended
        if many == "open files":
            program.ok("close", files[-1])
            count -= 1
        world.settle()
        assert len(told) == count


def test_who_watches_a_directory_does_so_whatever_others_do() -> None:
    with World() as world:
        program = world.program()
        told: list[int] = []
        world.vfs.send_io = lambda file, fd, code, band: told.append(fd)
        place = program.ok("open", b"/", O_RDONLY | O_DIRECTORY)
        queue = program.ok("inotify_init1", 0)
        program.ok("fcntl", place, F_NOTIFY, DN_CREATE | DN_MULTISHOT)
        watch = program.ok("inotify_add_watch", queue, b"/", 0x100)
        program.ok("inotify_rm_watch", queue, watch)
        program.ok("mkdir", b"/one", 0o755)
        assert told == [place]
        watch = program.ok("inotify_add_watch", queue, b"/", 0x100)
        program.ok("fcntl", place, F_NOTIFY, 0)
        room = program.buffer(4096)
        program.ok("read", queue, room, 4096)
        program.ok("mkdir", b"/two", 0o755)
        assert told == [place]
        assert program.ok("read", queue, room, 4096) == 32
