"""sentry.vfs.fd_table: descriptors and their limits."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.fcntl import F_SETLK, F_WRLCK, O_CREAT, O_RDWR
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.sched import CLONE_FILES
from sentry.abi.signal import SIGKILL
from sentry.errors import EBADF, EMFILE
from sentry.fs.fuse.file import FuseFile
from sentry.vfs.budget import DescriptorLimit
from sentry.vfs.fd_table import PIECE, QUIET_ONES, FdTable
from sentry.vfs.file import FileDescription
from sentry.wait.steps import at_once
from tests.world import World


def test_nr_open_limits_every_table_and_its_copies() -> None:
    limit = DescriptorLimit()
    table = FdTable(limit)
    file: Any = SimpleNamespace(refs=0)
    table.replace(file, 65, file, 1024)
    table.check_copy()
    copy = at_once(table.copying())

    limit.nr_open = 64

    for each in (table, copy):
        with pytest.raises(EMFILE):
            each.check_copy()
        with pytest.raises(EMFILE):
            each.install(file, 1024, lowest=64)
        with pytest.raises(EBADF):
            each.replace(file, 64, file, 1024)
        assert each.install(file, 1024) == 0


def every(kind: type[FileDescription]) -> list[type[FileDescription]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in every(sub))]


def test_kinds_that_do_something_at_each_close_say_so() -> None:
    with World():
        kinds = every(FileDescription)
    flush = FileDescription.flush
    assert FuseFile in kinds
    assert [kind for kind in kinds if kind.flushes != (kind.flush is not flush)] == []


def test_end_of_a_process_gives_back_its_uses_and_locks() -> None:
    with World() as world:
        program = world.program()
        fds = [program.ok("eventfd2", 0, 0) for _ in range(200)]
        locked = program.ok("open", b"/f", O_CREAT | O_RDWR, 0o600)
        files = [program.task.files.get(fd) for fd in (*fds, locked)]
        child = program.fork()
        lock = struct.pack("<hhiqqi4x", F_WRLCK, 0, 0, 0, 0, 0)
        child.ok("fcntl", locked, F_SETLK, lock)
        assert {file.refs for file in files} == {2}
        child.begin("exit_group", 0)
        world.settle()
        assert {file.refs for file in files} == {1}
        program.ok("fcntl", locked, F_SETLK, lock)
        program.begin("exit_group", 0)
        world.settle()
        assert {file.refs for file in files} == {0}


def test_end_of_a_table_is_work_in_steps_wherever_its_holes_are() -> None:
    table, inode = FdTable(), SimpleNamespace(locks=None)
    file: Any = SimpleNamespace(refs=1, flags=0, flushes=False, dnotify=None, inode=inode)
    for fd in range(16 * QUIET_ONES):
        if (fd + 1) % QUIET_ONES:
            table.replace(file, fd, file, 1 << 20)
    table.replace(file, 32 * QUIET_ONES, file, 1 << 20)
    assert sum(1 for _ in table.ending(file)) == 32
    assert file.refs == 1


class Closed:
    """A file that is open only here, and says when it is gone."""

    flags, flushes, dnotify, refs = 0, False, None, 1
    inode = SimpleNamespace(locks=None)

    def __init__(self, gone: list[int]) -> None:
        self.gone = gone

    def flush(self, caller: object) -> None:
        """Nothing."""

    def decref(self) -> None:
        """Nothing."""

    def __del__(self) -> None:
        self.gone.append(1)


def test_end_of_a_table_holds_no_file_longer_than_it_is_open() -> None:
    table, gone = FdTable(), list[int]()
    for fd in range(100):
        file: Any = Closed(gone)
        table.replace(file, fd, file, 1 << 20)
        file.refs = 1
    del file
    for number, _ in enumerate(table.ending(Closed([]))):  # type: ignore[arg-type]
        assert len(gone) >= number


def test_a_copy_is_work_in_steps_and_has_what_was_there_at_its_beginning() -> None:
    table, inode = FdTable(), SimpleNamespace(locks=None)

    def made() -> Any:
        file = SimpleNamespace(refs=0, flags=0, dnotify=None, inode=inode)
        file.flush = lambda caller: None
        file.decref = lambda: setattr(file, "refs", file.refs - 1)
        return file

    every, high, low, other = made(), made(), made(), made()
    for fd in range(5 * PIECE):
        table.replace(every, fd, every, 1 << 20)
    table.replace(every, 1, low, 1 << 20, cloexec=True)
    for fd in (2 * PIECE, 3 * PIECE):
        table.replace(every, fd, high, 1 << 20)
    copying, steps = table.copying(), 1
    next(copying)
    assert every.refs < 5 * PIECE - 3 + PIECE
    table.close(every, 1)
    table.close(every, 2 * PIECE)
    table.replace(every, 2 * PIECE, other, 1 << 20)
    table.close(every, 2 * PIECE)
    table.replace(every, 3 * PIECE, other, 1 << 20, cloexec=True)
    table.replace(every, 5 * PIECE, other, 1 << 20)
    try:
        while True:
            next(copying)
            steps += 1
    except StopIteration as end:
        copy: FdTable = end.value
    assert steps == 4
    assert list(copy) == list(range(5 * PIECE))
    assert [copy.get(fd) for fd in (1, 2 * PIECE, 3 * PIECE)] == [low, high, high]
    assert [copy.close_on_exec_of(fd) for fd in (0, 1, 2 * PIECE, 3 * PIECE)] == [0, 1, 0, 0]
    assert (low.refs, high.refs, other.refs) == (1, 2, 2)
    assert every.refs == 2 * (5 * PIECE - 3)
    table.close(every, 3 * PIECE)
    assert (high.refs, other.refs) == (2, 1)


@pytest.mark.parametrize("call", ["fork", "unshare", "close_range"])
def test_table_with_many_is_copied_in_steps_though_others_close_or_are_killed(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    arguments = {"fork": (), "unshare": (CLONE_FILES,), "close_range": (0, 3, 2)}[call]
    with World() as world:
        program = world.program()
        program.task.group.limits.set(RLIMIT_NOFILE, 1 << 20, 1 << 20)
        first, second = program.ok("eventfd2", 0, 0), program.ok("eventfd2", 0, 0)
        kept, closed = program.task.files.get(first), program.task.files.get(second)
        program.ok("dup3", first, 8 * PIECE, 0)
        program.ok("dup3", second, 9 * PIECE, 0)
        other = program.thread()
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        begun = program.begin(call, *arguments)
        while not program.task.files._copies:
            world.loop.turn()
        other.ok("close", 9 * PIECE)
        other.ok("close", second)
        assert closed.refs == 2
        if call == "fork":
            program.task.group.exit(SIGKILL)
        begun.wait()
        world.settle()
        if call == "fork":
            assert (kept.refs, closed.refs) == (0, 0)
            return
        assert list(program.task.files)[-2:] == [8 * PIECE, 9 * PIECE]
        assert closed.refs == (1 if call == "close_range" else 2)
        other.begin("exit", 0)
        world.settle()
        program.begin("exit_group", 0)
        world.settle()
        assert (kept.refs, closed.refs) == (0, 0)


@pytest.mark.parametrize(
    "fds", [[], [0], [5], [0, PIECE - 1], [1, PIECE], [PIECE - 1, 3 * PIECE + 7]]
)
def test_highest_open_descriptor_is_found_below_any_that_were_closed(fds: list[int]) -> None:
    table, inode = FdTable(), SimpleNamespace(locks=None)
    file: Any = SimpleNamespace(
        refs=1, flags=0, dnotify=None, inode=inode, flush=lambda caller: None, decref=lambda: None
    )
    for fd in (*fds, 5 * PIECE):
        table.replace(file, fd, file, 1 << 20)
    assert table.highest() == 5 * PIECE
    table.close(file, 5 * PIECE)
    assert table.highest() == max(fds, default=0)


def lines(work: Callable[[], object]) -> int:
    """How many lines of Python it runs."""
    count, before = 0, sys.gettrace()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


LOOKS: dict[str, Callable[[FdTable, Any], object]] = {
    "fork": lambda table, file: at_once(table.copying()),
    "check": lambda table, file: table.check_copy(),
    "list": lambda table, file: list(table),
    "count": lambda table, file: len(table),
    "close": lambda table, file: list(table.close_range(file, 1, 0xFFFFFFFF)),
    "mark": lambda table, file: table.mark_range(1, 0xFFFFFFFF),
}


@pytest.mark.parametrize("look", LOOKS)
def test_one_high_descriptor_is_found_without_a_look_at_each_below(look: str) -> None:
    table, inode = FdTable(), SimpleNamespace(locks=None)
    file: Any = SimpleNamespace(
        refs=1, flags=0, dnotify=None, inode=inode, flush=lambda caller: None, decref=lambda: None
    )
    table.replace(file, 0, file, 1 << 20)
    table.replace(file, 100_000, file, 1 << 20)
    assert (list(table), len(table)) == ([0, 100_000], 2)
    assert lines(lambda: LOOKS[look](table, file)) < 1000
    left = [0] if look == "close" else [0, 100_000]
    assert list(at_once(table.copying())) == list(table) == left
    assert table.close_on_exec_of(100_000) == (look == "mark")


def test_free_number_behind_many_is_found_without_a_look_at_each() -> None:
    table, file = FdTable(), SimpleNamespace(refs=0)
    filled: Any = file
    for fd in range(1, 20_000):
        table.replace(filled, fd, filled, 1 << 20)
    found: list[int] = []
    assert lines(lambda: found.append(table.free_from(1, 1 << 20))) < 100
    assert (found, table.free_from(0, 1 << 20), table.free_from(30_000, 1 << 20)) == (
        [20_000], 0, 30_000
    )  # fmt: skip
