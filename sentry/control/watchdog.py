"""What holds up the kernel thread: steps that take long, by what they were.

One thread does everything, so a step that takes long is a wait for all programs. A step is what
the loop does at a time: an exit of a task, a piece of a fiber, a callback. The loop says only which
one it is at; `Watchdog` looks at that after each 5 ms of the thread's CPU time, so that steps cost
nothing more, and a busy host makes none of them longer. What the programs run (an emulated CPU is
on this thread, too) is no step. Times are right to two looks.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from sentry import log
from sentry.abi.layout import Record
from sentry.control.meter import Meter
from sentry.control.standstill import Standstill
from sentry.kernel.task import Task
from sentry.platform.interface import ExitKind, Reg
from sentry.platform.ticks import Ticks
from sentry.syscalls.registry import NUMBERS
from sentry.wait.fiber import Fiber

if TYPE_CHECKING:
    from sentry.control.answers import Cost
    from sentry.loop import Loop
    from sentry.policy.guard import Guard

LOOK_NS: Final = 5_000_000
LONG_NS: Final = 50_000_000
"""Steps that take more are counted."""
TOLD_NS: Final = 1_000_000_000
"""Those that take more are written to the log while they go on."""
TESTED_NS: Final = 250_000_000
"""What no test may see."""
COLLECTION: Final = "(garbage collection)"
FRAMES: Final = 40
HANDLER: Final = "sys_"


class Alarm(Record):
    """Who hears of a step, with its stack, as soon as it has taken so long."""

    limit_ns: int
    tell: Callable[[str], object]


class Watchdog:
    """Looks from its making until `stop`, on the thread that makes it: one at a time.

    Preconditions: no filter yet.
    """

    def __init__(self, loop: Loop, *alarms: Alarm, standstill: Standstill | None = None) -> None:
        self._loop = loop
        self._standstill = standstill
        self._alarms = sorted(alarms, key=lambda alarm: alarm.limit_ns)
        self._told = 0
        """So many of them know of this step."""
        self._meters: dict[str, Meter] = {}
        self._step = self._since_ns = 0
        """Which step it was at the last look; an id, because who is gone is not to be held."""
        self._name = ""
        self._began_ns = self._spent_ns = 0
        self._aside_ns = 0
        """What is no step's: pauses of the collector, and of the machine."""
        self._collecting_ns = 0
        """When the collection began that goes on; 0: none does."""
        self._looked_ns = self._clock()
        self._is_looking = False
        self.guard: Guard | None = None
        """Of a policy's handlers, once there are some."""
        self._ticks = Ticks(LOOK_NS, self._look)
        gc.callbacks.append(self._on_collection)

    def bound(self, fd: int) -> None:
        """A handler that `guard` cannot stop ends the process, and says so there."""
        self._ticks.bound(fd)

    def again(self) -> None:
        """In a fork: for who is bounded alone, since its first steps copy its parent's memory.

        Raises: OSError.
        """
        self._alarms = []
        self._looked_ns = self._clock()
        self._ticks.again()

    def stop(self) -> None:
        """Look no more."""
        self._ticks.stop()
        gc.callbacks.remove(self._on_collection)

    def long_steps(self) -> dict[str, Cost]:
        """All that took more than LONG_NS and are over, by name."""
        if self._loop.step_ns != self._since_ns:
            self._count()
        return {name: meter.cost() for name, meter in self._meters.items()}

    def _clock(self) -> int:
        """CPU time of the steps."""
        return time.thread_time_ns() - self._aside_ns

    def _look(self, frame: FrameType | None) -> None:
        if self._collecting_ns:
            return
        if self.guard is not None:
            self.guard.look(frame)
        if self._is_looking:  # that takes longer than until the next tick
            return
        self._is_looking = True
        try:
            self._look_at_step(frame)
        finally:
            self._is_looking = False

    def _look_at_step(self, frame: FrameType | None) -> None:
        loop, now_ns = self._loop, self._clock()
        if self._standstill is not None:
            stood_ns = min(self._standstill.since_ns(), now_ns - self._looked_ns)
            self._aside_ns += stood_ns
            now_ns -= stood_ns
        looked_ns, self._looked_ns = self._looked_ns, now_ns
        step, since_ns = loop.step, loop.step_ns
        if id(step) != self._step or since_ns != self._since_ns:
            self._count()
            self._step, self._since_ns = id(step), since_ns
            self._began_ns, self._spent_ns, self._name, self._told = looked_ns, 0, "", 0
        if not since_ns:
            return
        self._name = self._name or name_of(step, frame)
        self._spent_ns = now_ns - self._began_ns
        if self._alarms[self._told :]:
            self._told = self._tell(self._name, self._spent_ns, frame, self._told)

    def _count(self) -> None:
        """The step is over. Once: a look may come while it is counted."""
        spent_ns, self._spent_ns = self._spent_ns, 0
        if spent_ns > LONG_NS:
            self._add(self._name, spent_ns)

    def _add(self, name: str, spent_ns: int) -> None:
        meter = self._meters.setdefault(name, Meter())
        meter.count += 1
        meter.add(spent_ns)

    def _tell(self, name: str, spent_ns: int, frame: FrameType | None, told: int) -> int:
        """Those whose limit is reached; how many know now."""
        for limit_ns, tell in self._alarms[told:]:
            if spent_ns < limit_ns or _is_writing(frame):
                break
            owner = _owner(self._loop.step)
            who = f" of {owner!r}" if isinstance(owner, Task) else ""
            stack = "".join(f"  {line}\n" for line in stack_of(frame))
            tell(f"The kernel thread is held up: {spent_ns // 1000000} ms of {name}{who}\n{stack}")
            told += 1
        return told

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now_ns = time.thread_time_ns()
        if self.guard is not None:
            self.guard.collecting(phase)
        if phase == "start":
            self._collecting_ns = now_ns
            return
        spent_ns = now_ns - self._collecting_ns
        self._aside_ns += spent_ns
        self._collecting_ns = 0
        if spent_ns > LONG_NS and self._loop.step_ns:
            self._add(COLLECTION, spent_ns)
            self._tell(COLLECTION, spent_ns, sys._getframe(), 0)


def name_of(step: object, frame: FrameType | None) -> str:
    """A system call by its name, in brackets what else a task has; a callback by its own."""
    for code in (at.f_code for at in _frames(frame)):
        if code.co_name.startswith(HANDLER):
            return code.co_name.removeprefix(HANDLER)
    owner = _owner(step)
    if isinstance(owner, Task):
        return _exit_of(owner)
    if isinstance(step, Fiber):
        return str(owner)
    plain: Any = getattr(step, "func", step)
    return str(getattr(plain, "__qualname__", type(plain).__name__))


def _owner(step: object) -> object:
    """The task, if it is one's; what else a fiber works for."""
    return step.name if isinstance(step, Fiber) else getattr(step, "owner", None)


def _exit_of(task: Task) -> str:
    """Of a task outside of any handler."""
    kind = task.ctx.exit
    if kind != ExitKind.SYSCALL:
        return f"({ExitKind(kind).name.lower()})"
    try:
        number = task.ctx.regs[Reg.ORIG_RAX]
    except ValueError:  # the context is gone
        return "(exit)"
    return NUMBERS.get(number, "(system call)")


def stack_of(frame: FrameType | None) -> list[str]:
    """Where it is, innermost first; no file is looked at, for there is none."""
    found = list(_frames(frame))[:FRAMES]
    return [f"{_module(f)}:{f.f_lineno} {f.f_code.co_name}" for f in found]


def _module(frame: FrameType) -> str:
    """Decoders have none."""
    return str(frame.f_globals.get("__name__", frame.f_code.co_filename))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """To the loop, but without what is below it."""
    while frame is not None and frame.f_globals.get("__name__") != "sentry.loop":
        yield frame
        frame = frame.f_back


def _is_writing(frame: FrameType | None) -> bool:
    """In the middle of the log, which is not for two at a time."""
    return any(at.f_globals is vars(log) for at in _frames(frame))
