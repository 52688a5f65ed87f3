"""Where everything stands: `runsc debug --stacks`.

Tasks with the call that they are in, and how long; the coroutines of the kernel behind them, and
those that work for no task; Python's threads. A coroutine has no stack of its own while it sleeps:
it is the chain of those that wait for each other (`cr_await`), outermost first. Nothing is written
down beforehand but when a call began to sleep (`Fiber.since_ns`).
"""

from __future__ import annotations

import gc
import sys
from _thread import get_ident
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sentry.control.answers import Stack, Stacks
from sentry.control.watchdog import stack_of
from sentry.kernel.task import Task
from sentry.platform.interface import ExitKind, Reg
from sentry.syscalls.registry import describe
from sentry.wait.fiber import Fiber
from sentry.wait.fiber import __name__ as fiber_module
from sentry.wait.sleep import Sleep

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel

PIECE: Final = 40
"""So many tasks are told at a time, and coroutines in all."""
ENOUGH: Final = 32 << 10
"""Characters after which there are no more."""
DEPTH: Final = 30
MOST: Final = 1000
"""Coroutines that wait for each other."""
CALL_SIZE: Final = 400
NAME_SIZE: Final = 100
ARGUMENTS: Final = (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9)


def tasks_after(kernel: Kernel, tid: int) -> Stacks:
    """Some tasks, by number, from the one after `tid` on; `more` says whether there are others."""
    tids = sorted(each for each in kernel.pids.tasks if each > tid)
    now_ns = kernel.loop.now_ns()
    found = _some(_of_task(kernel.pids.tasks[each], now_ns) for each in tids)
    return Stacks(tasks=found, more=len(tids) > len(found))


def of_kernel(kernel: Kernel) -> Stacks:
    """Coroutines that work for no task, or beside its call; and the threads of this process."""
    now_ns = kernel.loop.now_ns()
    objects = (each for each in gc.get_objects() if isinstance(each, Fiber))
    others = [fiber for fiber in objects if getattr(fiber, "parked", False) and not _is_call(fiber)]
    found = _some(_of_fiber(fiber, now_ns) for fiber in others)
    names = {get_ident(): "of the kernel"}
    threads = _some(
        Stack(name=names.get(ident, str(ident)), state="", frames=stack_of(frame))
        for ident, frame in sys._current_frames().items()
    )
    return Stacks(fibers=found, threads=threads, more=len(others) > len(found))


def _some(stacks: Iterator[Stack]) -> list[Stack]:
    """As many as a reply takes, which is sent at once or not at all."""
    found: list[Stack] = []
    size = 0
    for stack in islice(stacks, PIECE):
        found.append(stack)
        size += len(stack.call) + sum(map(len, stack.frames))
        if size > ENOUGH:
            break
    return found


def _is_call(fiber: Fiber) -> bool:
    return isinstance(fiber.name, Task) and fiber.name.fiber is fiber


def _of_task(task: Task, now_ns: int) -> Stack:
    fiber = task.fiber
    return Stack(
        name=_plain(task.comm.decode(errors="replace"), NAME_SIZE),
        tid=task.tid,
        pid=task.group.tgid,
        state=_state(task),
        call=_plain(_call(task), CALL_SIZE) if fiber is not None and not task.dead else "",
        asleep_ns=_age(fiber, now_ns) if fiber is not None else 0,
        frames=_frames(fiber) if fiber is not None else [],
    )


def _state(task: Task) -> str:
    if task.dead:
        return "ends"
    if task in task.kernel.held:
        return "is held"
    if task.stopped:
        return "is stopped"
    if task.fiber is None:
        return "runs"
    return f"sleeps ({task.fiber.mode.name.lower()})" if task.fiber.parked else "works"


def _call(task: Task) -> str:
    """What it asked for, as strace shows it; what it met, if it asked for nothing."""
    if task.ctx.exit != ExitKind.SYSCALL:
        return f"({ExitKind(task.ctx.exit).name.lower()})"
    regs = task.ctx.regs
    values = tuple(regs[register] for register in ARGUMENTS)
    return describe(task, regs[Reg.ORIG_RAX] & 0xFFFFFFFF, values)


def _of_fiber(fiber: Fiber, now_ns: int) -> Stack:
    owner = fiber.name
    name = f"{owner!r}" if isinstance(owner, Task) else str(owner)
    return Stack(
        name=_plain(name, NAME_SIZE),
        state=f"sleeps ({fiber.mode.name.lower()})" if fiber.parked else "works",
        asleep_ns=_age(fiber, now_ns),
        frames=_frames(fiber),
    )


def _age(fiber: Fiber, now_ns: int) -> int:
    return max(0, now_ns - fiber.since_ns) if fiber.since_ns else 0


def _frames(fiber: Fiber) -> list[str]:
    return list(islice(_chain(fiber), MOST))[::-1][:DEPTH]


def _chain(fiber: Fiber) -> Iterator[str]:
    """Who waits for whom: frames, and at the end what has none."""
    at: Any = fiber if isinstance(fiber, Sleep) else fiber.coro
    while at is not None:
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None)
        if frame is not None:
            module = frame.f_globals.get("__name__", frame.f_code.co_filename)
            if module != fiber_module:  # where all of them end
                yield f"{module}:{frame.f_lineno} {frame.f_code.co_qualname}"
        elif isinstance(at, Sleep):
            yield _attempt(at)
        elif not hasattr(at, "cr_await"):
            return
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)


def _attempt(sleep: Sleep) -> str:
    """What it tries again."""
    kind = f"{type(sleep).__module__}.{type(sleep).__qualname__}"
    attempt: Any = getattr(sleep, "_attempt", None)
    while hasattr(attempt, "func"):
        attempt = attempt.func
    name = getattr(attempt, "__qualname__", "")
    return f"{kind}: {attempt.__module__}.{name}" if attempt is not None and name else kind


def _plain(text: str, size: int) -> str:
    """No control characters, and no more of it."""
    return "".join(c if c.isprintable() else "?" for c in text[:size])
