"""Where tasks and the kernel stand, told in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.control import stacks
from sentry.control.protocol import MAX_LINE, Reply, encode
from sentry.wait.fiber import Mode, park
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World(stepped=True) as made:
        made.unwatch()
        yield made


def test_a_task_that_sleeps_shows_its_call_and_what_it_waits_for(world: World) -> None:
    program = world.program()
    ends = program.buffer(8)
    program.ok("pipe2", ends, 0)
    reader = int.from_bytes(program.read(ends, 4), "little")
    program.begin("read", reader, program.buffer(4), 4)

    found = {it.tid: it for it in stacks.tasks_after(world.kernel, 0).tasks}[program.task.tid]

    assert found.pid == program.task.group.tgid
    assert found.state == "sleeps (interruptible)"
    assert found.call.startswith(f"read({reader}, ")
    assert found.frames[0].startswith("sentry.fs.pipe.file.PipeRead")


def test_a_task_that_runs_has_no_call(world: World) -> None:
    program = world.program()

    found = {it.tid: it for it in stacks.tasks_after(world.kernel, 0).tasks}[program.task.tid]

    assert (found.state, found.call, found.frames) == ("runs", "", [])


def test_a_name_and_a_call_have_no_control_characters(world: World) -> None:
    program = world.program()
    program.task.comm = b"a\x1b[31m\nb"
    path = program.buffer(16)
    program.write(path, b"/\x1b]0;x\n\0")
    program.ok("mknod", path, 0o10644, 0)
    program.begin("open", path, 0)

    found = {it.tid: it for it in stacks.tasks_after(world.kernel, 0).tasks}[program.task.tid]

    assert found.name == "a?[31m?b"
    assert found.call.startswith('open("/\\33]0;x\\n"')
    assert found.call.isprintable()


def test_tasks_come_in_pieces_by_number(world: World) -> None:
    for _ in range(2 * stacks.PIECE):
        world.program()

    tids: list[int] = []
    more = True
    while more:
        found = stacks.tasks_after(world.kernel, tids[-1] if tids else 0)
        assert len(encode(Reply(stacks=found))) < MAX_LINE
        tids += [each.tid for each in found.tasks]
        more = found.more

    assert tids == sorted(world.kernel.pids.tasks)


def test_coroutines_beside_any_call_are_told_with_who_waits_for_whom(world: World) -> None:
    async def inner() -> None:
        await park(Mode.KILLABLE)

    async def outer() -> None:
        await inner()

    fiber = world.loop.spawn(outer(), "a\x1b chore")
    world.settle()

    (found,) = [it for it in stacks.of_kernel(world.kernel).fibers if it.name == "a? chore"]

    assert found.state == "sleeps (killable)"
    assert [frame.rpartition(".")[2] for frame in found.frames] == ["inner", "outer"]
    fiber.wake()
    world.settle()
    assert not [it for it in stacks.of_kernel(world.kernel).fibers if it.name == "a? chore"]


def test_the_thread_of_the_kernel_is_told(world: World) -> None:
    (own,) = [it for it in stacks.of_kernel(world.kernel).threads if it.name == "of the kernel"]

    assert own.frames[0].endswith(" of_kernel") or "of_kernel" in own.frames[1]
