"""Observers that are put on programs which run already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.control.observing import Observing
from sentry.control.orders import Trace
from sentry.errors import EBUSY, EINVAL
from tests.world import Program, World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        made.unwatch()
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture
def observing(world: World, log: Path) -> Iterator[Observing]:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND)
    yield Observing(world.kernel, fd, -1)
    os.close(fd)


def _done(world: World, told: list[str]) -> str:
    while not told:
        world.settle()
    return told.pop()


def _trace(world: World, observing: Observing, trace: Trace, *fds: int) -> str:
    told: list[str] = []
    observing.strace(trace, list(fds), told.append)
    return _done(world, told)


def test_a_trace_begins_and_ends_while_programs_run(
    world: World, observing: Observing, log: Path
) -> None:
    program = world.program()
    program.ok("getppid")
    assert _trace(world, observing, Trace()) == ""
    program.ok("getppid")
    child = program.fork()
    child.ok("getpgrp")
    assert _trace(world, observing, Trace(on=False)) == ""
    program.ok("getsid", 0)
    world.program().ok("getsid", 0)

    text = log.read_text()
    assert text.count("getppid()") == 1
    assert f"[pid {child.task.tid:5}]" in text
    assert "getpgrp" in text
    assert "getsid" not in text
    assert world.kernel.start_observers == child.task.observers == program.task.observers == []


def test_a_call_that_sleeps_already_is_left_alone(
    world: World, observing: Observing, log: Path
) -> None:
    program = world.program()
    ends = program.buffer(8)
    program.ok("pipe2", ends, 0)
    reader, writer = (program.read(ends + at, 4)[0] for at in (0, 4))
    thread = program.thread()
    waiting = thread.begin("read", reader, thread.buffer(4), 4)
    _trace(world, observing, Trace())

    program.ok("write", writer, program.buffer(4), 1)

    assert waiting.wait() == 1
    assert "read(" not in log.read_text()


def test_only_calls_of_the_list_are_written(world: World, observing: Observing, log: Path) -> None:
    program = world.program()
    _trace(world, observing, Trace(calls=("getsid", "%process"), others=False))
    program.ok("getppid")
    program.ok("getsid", 0)
    _trace(world, observing, Trace(calls=("getsid",), others=True))
    program.ok("getpgrp")
    program.ok("getsid", 0)

    text = log.read_text()
    assert text.count("getsid(") == 1
    assert "getpgrp" in text
    assert "getppid" not in text


def test_a_descriptor_of_the_caller_is_written_to_and_closed_at_the_end(
    world: World, observing: Observing, log: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    _trace(world, observing, Trace(), fd)
    world.init.ok("getppid")
    _trace(world, observing, Trace(on=False))

    assert "getppid" in path.read_text()
    assert log.read_text() == ""
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.parametrize("kind", ["folder", "two", "off"])
def test_a_descriptor_that_is_none_to_write_to_is_refused_and_closed(
    observing: Observing, tmp_path: Path, kind: str
) -> None:
    fds = [os.open(tmp_path if kind == "folder" else os.devnull, os.O_RDONLY)]
    if kind == "two":
        fds.append(os.open(os.devnull, os.O_RDONLY))

    with pytest.raises(EINVAL):
        observing.strace(Trace(on=kind != "off"), fds, print)

    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_a_sandbox_without_a_log_says_so(world: World) -> None:
    fd = os.open(os.devnull, os.O_WRONLY)
    observing = Observing(world.kernel, fd, -1)

    with pytest.raises(EINVAL, match="--strace-log"):
        observing.strace(Trace(), [], print)
    with pytest.raises(EINVAL, match="--debug-log"):
        observing.debug(on=True, done=print)
    assert _trace(world, observing, Trace(on=False)) == ""
    os.close(fd)


def test_two_at_a_time_is_one_too_many(world: World, observing: Observing) -> None:
    told: list[str] = []
    observing.strace(Trace(), [], told.append)

    with pytest.raises(EBUSY):
        observing.strace(Trace(), [], told.append)
    assert _done(world, told) == ""
    assert _trace(world, observing, Trace(on=False)) == ""


def test_what_programs_do_not_get_is_counted_until_it_is_told(
    world: World, observing: Observing
) -> None:
    told: list[str] = []
    program: Program = world.program()
    observing.debug(on=True, done=told.append)
    assert _done(world, told) == ""
    program.call("ioctl", 0, 0x1234, 0)
    program.call("landlock_create_ruleset", 0, 0, 0)
    observing.debug(on=False, done=told.append)
    assert _done(world, told) == ""
    program.call("landlock_create_ruleset", 0, 0, 0)

    (report,) = [text for text in world.log.text if "refused" in text]
    assert "      1  landlock_create_ruleset" in report
    assert world.kernel.start_observers == []
