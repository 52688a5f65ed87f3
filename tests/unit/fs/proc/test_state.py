"""What is summed over all threads of a process, with others in between."""

from __future__ import annotations

import pytest

from sentry.fs.proc.state import FEW, group_cpu_ns
from tests.world import World


def test_time_of_a_thread_that_dies_meanwhile_counts_once(world: World) -> None:
    program = world.program()
    threads = [program.thread() for _ in range(2 * FEW)]
    for number, thread in enumerate(threads, 1):
        thread.task.sys_time_ns = number * 10**9
    looking = group_cpu_ns(program.task.group)
    next(looking)
    for thread in (threads[0], threads[-1]):  # one that has been looked at, one that has not
        thread.begin("exit", 0)
        world.settle()
    with pytest.raises(StopIteration) as ended:
        while True:
            next(looking)
    _, system = ended.value.value
    expected = sum(range(1, 2 * FEW + 1)) * 10**9
    assert expected <= system < expected + 10**9


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
