"""What a process has used, and what is shown of it piece by piece."""

from __future__ import annotations

import struct

import pytest

from tests.world import World


def test_time_of_a_thread_that_has_ended_counts_on(world: World) -> None:
    program = world.program()
    threads = [program.thread() for _ in range(2)]
    for number, thread in enumerate(threads, 1):
        thread.task.ctx.cpu_ns = number * 10**9
    threads[0].begin("exit", 0)
    world.settle()
    times, room = program.buffer(32), program.buffer(144)
    program.ok("times", times)
    program.ok("getrusage", 0, room)
    assert struct.unpack("<q", program.read(times, 8)) == (300,)
    assert struct.unpack("<q", program.read(room, 8)) == (3,)
    child = program.fork()
    program.ok("getrusage", -1, room)
    assert struct.unpack("<q", program.read(room, 8)) == (0,)
    child.task.ctx.cpu_ns = 5 * 10**9
    child.begin("exit_group", 0)
    program.ok("wait4", child.task.tid, 0, 0, 0)
    program.ok("getrusage", -1, room)
    assert struct.unpack("<q", program.read(room, 8)) == (5,)


def test_groups_of_a_process_are_shown_in_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    world.mount("proc", b"/proc")
    program = world.program()
    groups = range(1, 5001)
    numbers = program.place(b"".join(number.to_bytes(4, "little") for number in groups))
    program.ok("setgroups", len(groups), numbers)
    fd, room = program.ok("open", b"/proc/self/status", 0), program.buffer(1 << 16)
    call = program.begin("read", fd, room, 1 << 16)
    assert not call.done
    text = program.read(room, call.wait())
    assert b"\nGroups:\t%s \n" % b" ".join(b"%d" % number for number in groups) in text
