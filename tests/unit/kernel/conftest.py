"""Tasks of a real kernel, of numbers that a test gives, on a clock that it moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi.signal import SIGCHLD
from sentry.kernel import namespaces, task_clone
from sentry.kernel.signals import Action
from sentry.kernel.task import Task
from sentry.kernel.task_clone import CloneArgs
from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup
from sentry.mm.mapping import mmap
from sentry.platform.interface import Reg
from sentry.wait.steps import at_once
from tests import world as real
from tests.caller import HANDLER, RESTORER

LOW, STACK = 0x10000, 0x7FFF0000
"""A program's memory begins here; its stack grows down from there."""
ANYWHERE = 0x4032
"""MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE."""


def stays(maker: Task) -> Any:
    """A child in the namespaces of its parent."""
    return namespaces.make(maker, 0, maker.creds), None


class World:
    """A kernel with an init, and what tests do to it."""

    def __init__(self, kernel: real.World) -> None:
        self.loop = kernel.loop
        self.kernel = kernel.kernel
        self.kernel.cpus = 2
        self.exits: list[Task] = []
        self.init: Task = kernel.init.task
        self._like_new(self.init)

    def process(self, pid: int, parent: Task | None) -> Task:
        """A process with one thread, in a process group of its own; an orphan in a new session."""
        maker = parent or self.init
        args = CloneArgs(0, SIGCHLD, set_tid=(pid,))
        files = at_once(maker.files.copying())
        task = task_clone.make(maker, args, maker.mm.fork(), files, stays(maker))
        session, pids = task.group.session, self.kernel.pids
        if parent is None:
            task.group.parent = None
            session = pids.sessions[pid] = Session(pid, None)
        group = pids.process_groups[pid] = ProcessGroup(pid, session)
        task.group.join(group)
        return self._like_new(task)

    def thread(self, group: ThreadGroup, tid: int) -> Task:
        """One more thread."""
        maker = group.tasks[0]
        thread = CloneArgs(real.THREAD, set_tid=(tid,))
        maker.files.users += 1
        made = task_clone.make(maker, thread, maker.mm.share(), maker.files, stays(maker))
        return self._like_new(made)

    def _like_new(self, task: Task) -> Task:
        ctx: Any = task.ctx
        ctx.regs[Reg.RSP] = STACK
        ctx.fpu = bytes(range(256)) * 2 + ctx.fpu[512:]
        ctx.fpu = ctx.fpu[:24] + (0x1F80).to_bytes(4, "little") + ctx.fpu[28:512]
        ctx.fpu += (7).to_bytes(8, "little") + bytes(ctx.xsave_size - 520)
        if task.mm.users == 1:
            mmap(task.mm.map, LOW, STACK + 0x10000 - LOW, 3, ANYWHERE)
        return task


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The kernel; tasks that exit are only noted in `exits`."""
    kernel = real.World(stepped=True)
    made = World(kernel)

    def exit_task(task: Task) -> None:
        if not task.dead:
            task.dead = True
            made.exits.append(task)

    monkeypatch.setattr("sentry.kernel.task_exit.exit_task", exit_task)
    yield made
    kernel.abandon()


@pytest.fixture
def task(world: World) -> Task:
    """A process that is not init."""
    return world.process(100, world.init)


def handle(task: Task, signo: int, flags: int = 0, mask: int = 0) -> None:
    """Install a handler."""
    restorer = 0x04000000
    task.group.actions[signo] = Action(HANDLER, flags | restorer, RESTORER, mask)
