"""The time that programs see, shaped from outside: `sentry.clock`.

`Advancing` lets much of it go by as it would: from one timer to the next, each time when all
programs wait for something. What a program does that runs by the clock is done as often, and in
the order, as if somebody had waited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sentry.control.answers import ClockState
from sentry.control.orders import ClockOrder
from sentry.errors import EBUSY, EINVAL
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task


def show(kernel: Kernel) -> ClockState:
    """What it is."""
    clock = kernel.clock
    return ClockState(clock.wall_ns(), clock.now_ns(), clock.speed, clock.is_shaped)


def order(kernel: Kernel, asked: ClockOrder) -> ClockState:
    """Change it. Raises: EINVAL."""
    clock = kernel.clock
    try:
        if asked.do == "speed":
            clock.run_at(asked.speed)
        elif asked.do == "jump":
            clock.jump(asked.ns)
        elif asked.do == "set":
            clock.set_wall(asked.ns)
        elif asked.do:
            raise EINVAL(f"no way to change a clock: {asked.do[:20]}")
    except ValueError as error:
        raise EINVAL(str(error)) from None
    return show(kernel)


def is_quiet(task: Task) -> bool:
    """It waits for what only others, or time, can bring."""
    trace: Any = task.trace
    if task.stopped or (trace is not None and trace.stop is not None):
        return True
    fiber = None if task.dead else task.fiber  # who is dead is on the way out
    return fiber is not None and fiber.parked and fiber.mode is Mode.INTERRUPTIBLE


class Advancing:
    """Time goes on by so much, timer by timer; `done` hears when it has."""

    def __init__(self, kernel: Kernel, by_ns: int, done: Callable[[ClockState], object]) -> None:
        """Raises: EBUSY, EINVAL."""
        if kernel.loop.at_rest is not None:
            raise EBUSY("somebody has its time go on already")
        self._kernel = kernel
        self._done = done
        self._busy: Task | None = None
        """A program that was not quiet at the last look."""
        try:
            kernel.clock.jump(0)
            self._until_ns = kernel.clock.now_ns() + by_ns
            kernel.clock.check(by_ns)
        except ValueError as error:
            raise EINVAL(str(error)) from None
        kernel.loop.at_rest = self._step

    def _all_are_quiet(self) -> bool:
        busy = self._busy
        pids = self._kernel.pids
        if busy is not None and pids.tasks.get(busy.tid) is busy and not is_quiet(busy):
            return False
        self._busy = None
        for group in pids.groups.values():
            # What is held from outside (paused, copied, out of CPU time) would miss its timers.
            if group.ending or group.container.stands:
                return False
            for task in group.tasks:
                if not is_quiet(task):
                    self._busy = task
                    return False
        return True

    def _step(self) -> None:
        if not self._all_are_quiet():
            return
        clock = self._kernel.clock
        now_ns, first_ns = clock.now_ns(), clock.first_ns()
        if first_ns is not None and first_ns <= now_ns:
            return  # it comes in this turn
        if now_ns >= self._until_ns:
            self.abandon()
            self._done(show(self._kernel))
            return
        until_ns = self._until_ns if first_ns is None else min(first_ns, self._until_ns)
        clock.jump(until_ns - now_ns)

    def look(self) -> None:
        """The loop does, when it has nothing else to do."""

    def abandon(self) -> None:
        """Time goes on from here as before."""
        self._kernel.loop.at_rest = None
