"""Long work in steps: others run in between, and what Linux would lock stays locked.

An operation that may take long (all mappings of a process, all bytes of a file) is a generator that
yields after each piece of it. Most have little to do and end in the first step, which costs them
neither a fiber nor a lock; what is left after `STEP_NS` is the rest of the call, a coroutine that
holds the lock until its end. What a piece leaves behind has to be whole: others look at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from functools import update_wrapper
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from sentry.ahead import mypyc_attr
from sentry.wait.fiber import Mode, park
from sentry.wait.lock import Lock

P = ParamSpec("P")
T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that yields after each piece; its result."""
Wait = Callable[[Mode], Coroutine[Any, Any, object]]
WaitingSteps = Generator[Wait | None, None, T]
"""The same, or it yields what makes the coroutine that waits: `Lock.until_free`."""
STEP_NS: Final = 500_000
"""So long one goes on with one piece after the other before others run."""


def at_once(steps: WaitingSteps[T]) -> T:
    """All of it: for what nobody waits for, or has no end that a program could move."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


class Stepwise(Generic[P, T]):
    """An operation that is work in steps: called, it is done at once; `steps` are its pieces."""

    def __init__(self, steps: Callable[P, Steps[T]]) -> None:
        self.steps = steps
        update_wrapper(self, steps)

    def __call__(self, *arguments: P.args, **options: P.kwargs) -> T:
        """All of it."""
        return at_once(self.steps(*arguments, **options))


@mypyc_attr(allow_interpreted_subclasses=True)
class Pace:
    """How long this step goes on already."""

    __slots__ = ("_until_ns",)

    def __init__(self) -> None:
        self._until_ns = time.monotonic_ns() + STEP_NS

    @property
    def over(self) -> bool:
        """Others are to run now."""
        return time.monotonic_ns() >= self._until_ns

    async def rest(self, mode: Mode = Mode.KILLABLE) -> None:
        """Let others run, if this has been going on for long. Raises: as the mode allows."""
        if time.monotonic_ns() >= self._until_ns:
            await park(mode, 0)
            self._until_ns = time.monotonic_ns() + STEP_NS


def in_steps(
    steps: WaitingSteps[int] | WaitingSteps[None],
    lock: Lock | None = None,
    mode: Mode = Mode.UNINTERRUPTIBLE,
) -> int | Coroutine[Any, Any, int]:
    """What a handler gives back: the result of the work (None is 0), or the rest of the call.

    Raises: NotNow, and nothing has begun, while somebody else has the lock; what the work raises.
    """
    if lock is not None:
        lock.check()
    until_ns = time.monotonic_ns() + STEP_NS
    try:
        next(steps)
        while time.monotonic_ns() < until_ns:
            next(steps)
    except StopIteration as end:
        return end.value or 0
    if lock is not None:
        lock.take()
    return _rest(steps, lock, mode)


async def driven(steps: WaitingSteps[T], mode: Mode = Mode.UNINTERRUPTIBLE) -> T:
    """The same for a sequence, which holds what has to be held. Raises: as the mode allows."""
    pace = Pace()
    try:
        while True:
            try:
                wait = next(steps)
            except StopIteration as end:
                return cast("T", end.value)
            await (pace.rest(mode) if wait is None else wait(mode))
    finally:
        steps.close()


async def _rest(
    steps: WaitingSteps[int] | WaitingSteps[None], lock: Lock | None, mode: Mode
) -> int:
    try:
        await park(mode, 0)
        told: int | None = await driven(cast("WaitingSteps[int | None]", steps), mode)
        return told or 0
    finally:
        steps.close()  # who is killed before they go on has them end here, while it has the lock
        if lock is not None:
            lock.let_go()
