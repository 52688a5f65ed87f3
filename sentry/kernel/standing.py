"""Standing still for a snapshot: no task is in ring 3, and none sleeps in a call.

As for a cgroup that is frozen (pause.py) a sleep is broken off as by a signal without a handler,
and the call is made again: what a task waits for is in its registers, or in a restart block. What
Linux would end with EINTR then is made again, too, until the moment when it would have been over.

A child of vfork(2) goes on until its parent may; the end of a call that nothing breaks off is
waited for.

The other containers of the sandbox stand as well, until all is written: what they have together
with the one that is written stays as it is. Nobody is told that they are paused.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EAGAIN, EBUSY, EINTR
from sentry.kernel.work import WORK_PAUSE
from sentry.platform.interface import Reg
from sentry.wait.fiber import Interrupted, RestartBlock, TimedOut
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Sleep, until

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

PATIENCE_NS: Final = 10 * 10**9
"""So long a call may take that nothing breaks off: an answer of the Gofer, a disk."""
ENDED_BY_SIGNAL: Final = (1 << 64) - EINTR.number
NO_CALL: Final = (1 << 64) - 1
"""In place of a call's number: an exit for something else, whose RAX is the program's own."""
SHOWN: Final = 5
_ARGUMENTS: Final = (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9)


class Standing:
    """Of all tasks of the sandbox, for a snapshot of one container. Raises: EBUSY, somebody else
    wants it already."""

    def __init__(self, kernel: Kernel, container: Container) -> None:
        if kernel.standing is not None:
            raise EBUSY("a snapshot is being made already")
        self._kernel = kernel
        self._container = container
        every = (kernel.container, *kernel.further)
        self._others = [each for each in every if each is not container]
        self._was_paused = True
        self._stood: list[Task] = []
        """Those of the container, once all stand."""
        self._queue = WaitQueue()
        self._awaited: list[Task] = []
        self._passed: set[Task] = set()
        """Children of vfork(2), which may still run."""
        self._broken: dict[Task, int | None] = {}
        """Whose sleep was broken off, and its deadline."""
        kernel.standing = self

    async def begin(self) -> None:
        """Gives when all stand. Raises: EBUSY, which names who does not; then `end` it."""
        self._was_paused, self._container.paused = self._container.paused, True
        for each in self._others:
            each.copied = True
        self._look()
        deadline_ns = self._kernel.loop.now_ns() + PATIENCE_NS
        try:
            await until(self._check, (self._queue,), deadline_ns=deadline_ns)
        except TimedOut:
            names = ", ".join(repr(task) for task in self._all() if not _stands(task))
            raise EBUSY(f"cannot checkpoint: a call does not end: {names[:400]}") from None
        self._stood = [t for group in self._container.processes() for t in group.tasks]

    def is_of(self, container: Container) -> bool:
        """It is that one which stands, until all is over."""
        return container is self._container

    def check_stands(self) -> None:
        """Nobody whose state is written was killed since. Raises: EBUSY."""
        if not all(map(_stands, self._stood)):
            raise EBUSY("cannot checkpoint: a process was killed meanwhile")

    def check_others(self) -> None:
        """Nobody has come who does not stand. Raises: EBUSY."""
        known = {self._container, *self._others}
        if not known.issuperset((self._kernel.container, *self._kernel.further)):
            raise EBUSY("cannot checkpoint: another container has come meanwhile")

    def let_others_go(self) -> None:
        """The other containers go on."""
        from sentry.kernel import pause  # noqa: PLC0415  which knows the way back

        others, self._others = self._others, []
        for each in others:
            pause.stand_no_more(each)

    def end(self) -> None:
        """They go on, unless they were paused before."""
        from sentry.kernel import pause  # noqa: PLC0415  which knows the way back

        self._kernel.standing = None
        self.let_others_go()
        if not self._was_paused:
            pause.resume(self._container)

    # What pause.py asks and tells ----------------------------------------------------------------

    def passes(self, task: Task) -> bool:
        """It does not stand still yet."""
        if task.vfork_done is None:
            return False
        self._passed.add(task)
        self._made_again(task)
        return True

    def stood(self, task: Task) -> None:
        """It stands, or is gone."""
        self._made_again(task)
        self._queue.notify()

    def ended(self) -> None:
        """A process has become a zombie, or is gone."""
        self._queue.notify()

    # ---------------------------------------------------------------------------------------------

    def _made_again(self, task: Task) -> None:
        """What was broken off for this has ended, and is to go on."""
        if task in self._broken:
            deadline_ns = self._broken.pop(task)
            if not task.dead:
                _make_again(task, deadline_ns)

    def _all(self) -> list[Task]:
        containers = (self._container, *self._others)
        return [task for each in containers for group in each.processes() for task in group.tasks]

    def _look(self) -> None:
        """Ask all who do not stand."""
        passed = self._passed
        self._awaited = [t for t in self._all() if not _stands(t) and t not in passed]
        for task in self._awaited:
            self._ask(task)

    def _ask(self, task: Task) -> None:
        task.work |= WORK_PAUSE
        if task.stopped or task.dead:
            return
        fiber = task.fiber
        if fiber is None:
            task.ctx.kick()
            return
        if task not in self._broken:
            self._broken[task] = fiber.deadline_ns if isinstance(fiber, Sleep) else None
        task.interrupt()

    def _check(self) -> None:
        """Raises: EAGAIN while somebody does not stand."""
        for task in [task for task in self._passed if task.vfork_done is None]:
            self._passed.discard(task)
            if not task.dead:
                self._ask(task)
                self._awaited.append(task)
        while True:
            while self._awaited:
                last = self._awaited[-1]
                if not _stands(last) and last in last.group.tasks and last not in self._passed:
                    raise EAGAIN
                self._awaited.pop()
            self._look()
            if not self._awaited:
                break
        if self._passed or any(group.ending for group in self._kernel.pids.groups.values()):
            raise EAGAIN


def _stands(task: Task) -> bool:
    return task.stopped and task.fiber is None and not task.dead


def _make_again(task: Task, deadline_ns: int | None) -> None:
    """A call that has ended as by a signal, which there is none of, is made again."""
    regs = task.ctx.regs
    pending = (task.pending.mask | task.group.shared_pending.mask) & ~task.blocked
    if task.restart is not None or pending or regs[Reg.RAX] != ENDED_BY_SIGNAL:
        return
    if regs[Reg.ORIG_RAX] == NO_CALL:  # it slept in a fault
        return
    if deadline_ns is None:
        task.restart = Interrupted()
        return
    values = [regs[Reg.ORIG_RAX], *(regs[at] for at in _ARGUMENTS)]
    task.restart = RestartBlock(partial(call_until, task, deadline_ns, *values))


def call_until(task: Task, deadline_ns: int, number: int, *values: int) -> Any:
    """Make a call again, which ends at this moment of CLOCK_MONOTONIC at the latest."""
    call = task.kernel.calls[number]
    assert call is not None
    task.ctx.regs[Reg.ORIG_RAX] = number  # not restart_syscall(2): it may be broken off once more
    result = call(task, *values)
    if isinstance(result, Sleep) and result.deadline_ns is not None:
        result.deadline_ns = min(result.deadline_ns, deadline_ns)
    return result
