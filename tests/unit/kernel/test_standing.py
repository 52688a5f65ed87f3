"""Standing still for a snapshot: what was asleep is made again, and what was done is done once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentry.abi.fcntl import O_WRONLY
from sentry.abi.signal import SIGKILL
from sentry.control.checkpointing import Checkpointing
from sentry.control.protocol import Reply
from sentry.errors import EBUSY
from sentry.fs.host.file import donated
from sentry.kernel import pause
from sentry.kernel.container import Container
from sentry.kernel.standing import Standing
from sentry.mm.errors import NeedsFault
from sentry.platform.host_io import HostIO, HostThreads
from sentry.platform.interface import ExitKind, Reg
from sentry.state import restarts
from sentry.wait.fiber import Mode, park
from tests.unit.state.test_others import Two
from tests.world import Program, World

EINTR = (1 << 64) - 4


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def stand(world: World) -> Standing:
    """Begin to; whoever can, stands then."""
    standing = Standing(world.kernel, world.kernel.container)
    world.loop.spawn(standing.begin(), "standing")
    world.settle()
    return standing


def epoll(program: Program) -> int:
    """One that watches nothing."""
    return int(program.ok("epoll_create1", 0))


def test_stood_call_that_ends_with_eintr_is_made_again(world: World) -> None:
    program = world.program()
    waiting = program.begin("epoll_wait", epoll(program), program.buffer(12), 1, -1)
    standing = stand(world)
    task = program.task
    assert task.stopped
    assert task.restart is not None
    assert restarts.save(task, task.restart) is not None
    standing.end()
    world.settle()
    assert not waiting.done


def test_stood_call_with_a_deadline_is_made_again_as_often_as_it_is_broken_off(
    world: World,
) -> None:
    program = world.program()
    waiting = program.begin("epoll_wait", epoll(program), program.buffer(12), 1, 3600_000)
    for _ in range(3):
        standing = stand(world)
        assert program.task.stopped
        standing.end()
        world.settle()
        assert not waiting.done


def test_passes_the_call_of_a_child_of_vfork_is_made_again(world: World) -> None:
    parent = world.program()
    known = set(world.kernel.pids.tasks)
    parent.begin("vfork")
    (tid,) = set(world.kernel.pids.tasks) - known
    child = parent._made(tid)
    waiting = child.begin("epoll_wait", epoll(child), child.buffer(12), 1, -1)

    standing = stand(world)

    assert not child.task.stopped
    assert not waiting.done
    standing.end()


def test_stood_in_a_fault_keeps_the_registers(world: World) -> None:
    """RAX is the program's own there, whatever it is."""
    program = world.program()
    task, regs = program.task, program.context.regs
    asleep = True

    async def read() -> None:
        while asleep:
            await park(Mode.INTERRUPTIBLE)

    def fault(*_: object) -> None:
        raise NeedsFault(read)

    regs[Reg.RAX], regs[Reg.ORIG_RAX], regs[Reg.RIP] = EINTR, (1 << 64) - 1, 0x500000
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sentry.kernel.dispatch.fault", fault)
        program.context.exit = ExitKind.FAULT
        task.on_exit(program.context)
        assert task.fiber is not None
        world.settle()
        standing = stand(world)
    asleep = False
    assert task.stopped
    assert task.restart is None
    standing.end()
    world.settle()
    assert (regs[Reg.RAX], regs[Reg.RIP]) == (EINTR, 0x500000)


def test_stood_write_that_the_host_has_done_is_done_once(world: World, tmp_path: Path) -> None:
    """The snapshot comes while the answer of the host's thread is on its way."""
    program = world.program()
    vfs = world.kernel.vfs
    vfs.host_io = HostIO(HostThreads(world.loop, lambda name: name, 1))
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    fd = int(program.task.files.install(donated(vfs, out, O_WRONLY), 100))
    threads: Any = vfs.host_io.threads
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threads, "_ready", lambda _events: None)
        writing = program.begin("write", fd, program.place(b"line\n"), 5)
    while (tmp_path / "out").read_bytes() != b"line\n":
        pass
    assert not writing.done

    standing = Standing(world.kernel, world.kernel.container)
    world.loop.spawn(standing.begin(), "standing")
    while not program.task.stopped:
        world.loop.turn()

    assert program.task.restart is None
    assert program.context.regs[Reg.RAX] == 5
    standing.end()
    assert writing.wait() == 5
    assert (tmp_path / "out").read_bytes() == b"line\n"
    threads.close()
    os.close(out)


def beside(world: World) -> tuple[Container, Program]:
    """A container beside the first one, with a program in it."""
    made = Container()
    made.ns = world.kernel.first
    world.kernel.further.append(made)
    program = world.program()
    made.cgroup.take(program.task.group)
    return made, program


def test_other_containers_stand_until_all_is_written_and_are_not_paused(world: World) -> None:
    other, theirs = beside(world)
    mine = world.program()
    waiting = theirs.begin("epoll_wait", epoll(theirs), theirs.buffer(12), 1, -1)
    standing = stand(world)
    assert mine.task.stopped and theirs.task.stopped
    assert not other.paused

    standing.let_others_go()
    world.settle()
    assert mine.task.stopped and not theirs.task.stopped
    assert not waiting.done

    standing.end()
    world.settle()
    assert not mine.task.stopped


def test_other_containers_that_are_paused_stay_so(world: World) -> None:
    other, theirs = beside(world)
    other.paused = True
    standing = stand(world)
    standing.end()
    world.settle()
    assert other.paused and theirs.task.stopped


def test_a_container_that_comes_meanwhile_is_told(world: World) -> None:
    beside(world)
    standing = stand(world)
    standing.check_others()
    beside(world)
    with pytest.raises(EBUSY, match="another container has come"):
        standing.check_others()
    standing.end()


def test_container_that_was_paused_before_it_stands_stays_so(world: World) -> None:
    program, container = world.program(), world.kernel.container
    standing = Standing(world.kernel, container)
    pause.pause(container, lambda: None)
    world.loop.spawn(standing.begin(), "standing")
    world.settle()
    standing.end()
    assert container.paused and program.task.stopped


@pytest.mark.parametrize("turns", range(0, 30, 3))
def test_snapshot_of_a_process_that_is_killed_meanwhile_is_none(
    turns: int, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, told = Two(world, "network", "ipc"), list[Reply]()
    child = two.forked()
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("objects", "pages")]
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    monkeypatch.setattr("sentry.loop.TURN_NS", 0)
    making = Checkpointing(world.kernel, two.container, files, "", told.append)
    while not (child.stopped and two.second.task.stopped):
        world.loop.turn()
    for _ in range(turns):
        world.loop.turn()
    assert not told
    child.group.exit(SIGKILL)
    while not told:
        world.loop.turn()
    assert told[0].error == "cannot checkpoint: a process was killed meanwhile"
    assert world.kernel.standing is None
    making.abandon()
