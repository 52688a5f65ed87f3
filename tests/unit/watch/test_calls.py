"""Calls that somebody listens to: what is told, and that nothing else changes."""

from __future__ import annotations

import json
import os
from typing import Any

from sentry.abi import unistd
from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.errors import ENOSYS
from sentry.protobuf import decode
from sentry.syscalls.registry import CALLS, TABLE
from sentry.wait.steps import driven
from sentry.watch import messages as m
from sentry.watch.points import every
from tests.unit.watch.conftest import Watched

OPENAT = ("syscall/openat/enter", "syscall/openat/exit")


def test_a_call_is_told_when_it_begins_and_when_it_has_ended(world: Watched) -> None:
    program = world.program()
    world.listen(*OPENAT)
    fd = program.ok("openat", -100, b"/new", os.O_CREAT | os.O_RDWR, 0o640)
    begun, ended = world.records(m.Open)
    expected = m.Open(None, None, 257, -100, "", "/new", os.O_CREAT | os.O_RDWR, 0o640)
    assert begun == expected
    expected.exit = m.Exit(fd)
    assert ended == expected


def test_an_error_is_told_as_a_positive_errno(world: Watched) -> None:
    program = world.program()
    world.listen("syscall/openat/exit")
    assert program.call("openat", -100, b"/none", 0, 0) == -2
    assert world.records(m.Open)[0].exit == m.Exit(0, 2)


def test_registers_are_told_before_what_they_mean(world: Watched) -> None:
    program = world.program()
    world.listen("syscall/close/enter", "syscall/sysno/3/enter")
    program.call("close", 77)
    told = world.told()
    assert [kind for kind, _ in told] == [m.MessageType.SYSCALL_RAW, m.MessageType.SYSCALL_CLOSE]
    raw = decode(m.Syscall, told[0][1])
    assert (raw.sysno, raw.arg1, raw.exit) == (3, 77, None)


def test_an_argument_that_cannot_be_read_is_told_with_its_error(world: Watched) -> None:
    program = world.program()
    world.listen("syscall/chdir/enter", "syscall/chdir/exit", "syscall/read/exit")
    assert program.call("chdir", 8) == -14
    begun, ended = world.records(m.Chdir)
    assert begun == m.Chdir(None, None, 80, -100)
    assert ended.exit == m.Exit(0, 14)
    assert program.call("read", 99, 0, 1) == -9
    assert world.records(m.Read)[0].exit == m.Exit(0, 9)


def test_a_path_is_what_the_handler_used_though_memory_changes(world: Watched) -> None:
    program = world.program()
    world.listen("syscall/openat/exit")
    path = program.buffer(16)
    program.write(path, b"/one\0")
    call = program.begin("openat", -100, path, os.O_CREAT | os.O_WRONLY, 0o600)
    program.write(path, b"/two\0")
    assert call.wait() >= 0
    assert world.records(m.Open)[0].pathname == "/one"


def test_a_call_that_sleeps_is_told_once(world: Watched) -> None:
    program = world.program()
    pair = program.buffer(8)
    program.ok("pipe2", pair, 0)
    reader, writer = (int.from_bytes(program.read(pair + at, 4), "little") for at in (0, 4))
    other = program.thread()
    world.listen("syscall/read/enter", "syscall/read/exit")
    call = program.begin("read", reader, program.buffer(4), 4)
    assert not call.done
    assert [each.exit for each in world.records(m.Read)] == [None]
    other.ok("write", writer, b"abc", 3)
    assert call.wait() == 3
    assert [each.exit for each in world.records(m.Read)] == [m.Exit(3)]


def test_a_call_that_is_made_again_is_told_once(world: Watched, tmp_path: Any) -> None:
    (tmp_path / "there").write_bytes(b"x")
    world.attach(world.export(tmp_path, exclusive=False), b"/srv")
    program = world.program()
    world.listen(*OPENAT)
    assert program.ok("openat", -100, b"/srv/there", 0, 0) >= 0
    begun, ended = world.records(m.Open)
    assert begun.exit is None
    assert ended.exit is not None
    assert begun.pathname == ended.pathname == "/srv/there"


def test_what_programs_count_stays_right(world: Watched) -> None:
    program = world.program()
    fd = program.ok("openat", -100, b"/f", os.O_CREAT | os.O_RDWR, 0o600)
    world.listen("syscall/write/enter")
    before = program.task.wchar
    program.ok("write", fd, b"12345", 5)
    assert program.task.wchar == before + 5


def test_a_number_without_a_call_is_told_and_counted(world: Watched) -> None:
    number = next(n for n in range(400) if TABLE[n] is None)
    program = world.program()
    world.listen(f"syscall/sysno/{number}/enter", f"syscall/sysno/{number}/exit")
    program.context.load(number, (0,) * 6)
    program._exit()
    assert program.context.result == -ENOSYS.number
    assert world.kernel.counters.unknown_calls[number] == 1
    assert [each.exit for each in world.records(m.Syscall)] == [None, m.Exit(0, 38)]


def test_other_calls_are_not_touched_and_the_table_is_as_before_in_the_end(
    world: Watched,
) -> None:
    before = list(CALLS)
    world.listen(*OPENAT)
    changed = [n for n, (old, new) in enumerate(zip(before, CALLS, strict=True)) if old is not new]
    assert changed == [unistd.openat]
    world.watch.delete("Default")
    program = world.program()
    assert program.ok("openat", -100, b"/", 0, 0) >= 0
    assert CALLS[unistd.openat] is TABLE[unistd.openat].call  # type: ignore[union-attr]


def test_all_points_come_and_go_in_short_steps(world: Watched) -> None:
    """The world fails a test whose kernel thread is held up."""
    points = tuple(TracePoint(point.name) for point in every())
    config = TraceSession("all", points, (TraceSink("null"),))
    made: list[object] = []
    world.loop.spawn(driven(world.watch.create(config, [])), "test", lambda *end: made.append(end))
    while not made:
        world.loop.turn()
    assert made == [(None, None)]
    program = world.program()
    assert program.ok("openat", -100, b"/", 0, 0) >= 0
    world.loop.call_soon(lambda: world.watch.delete("all"))
    world.settle()
    assert program.ok("openat", -100, b"/", 0, 0) >= 0


def test_two_sessions_hear_the_same_and_one_goes_on_alone(world: Watched) -> None:
    program = world.program()
    first = world.listen("syscall/getppid/enter")
    world.listen("syscall/getppid/enter", name="other")
    program.ok("getppid")
    world.watch.flush()
    assert first.recv(1024)
    assert len(world.told()) == 1
    world.watch.delete("Default")
    program.ok("getppid")
    assert len(world.told()) == 1
    assert first.recv(1024) == b""
    first.close()


def test_a_call_without_a_message_of_its_own_has_its_arguments_by_name(world: Watched) -> None:
    program = world.program()
    there = world.listen("syscall/mkdir/enter", "syscall/getdents64/exit", sink="json")
    program.ok("mkdir", b"/folder", 0o711)
    assert program.call("getdents64", 99, 0x1000, 5) == -9
    world.watch.flush()
    made, listed = map(json.loads, there.recv(4096).splitlines())
    assert made["point"] == "syscall/mkdir/enter"
    assert made["record"]["name"] == "mkdir"
    assert made["record"]["args"] == {"path": "/folder", "mode": 0o711}
    assert listed["record"]["args"] == {"file": 99, "buf": 0x1000, "count": 5}
    assert listed["record"]["exit"] == {"errorno": 9}
