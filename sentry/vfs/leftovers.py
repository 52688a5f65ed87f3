"""`Leftovers`: what the last close of a file leaves to do, where that is long.

A descriptor is gone at once, and with it what others can find by name. What hangs on the file
(20,000 items of an epoll, connections that nobody accepted) is let go of in steps, between the
calls of others. Linux does that before the closing task is back in its program: so who closes
waits for it (`awaited`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sentry.errors import EAGAIN
from sentry.wait.fiber import Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until
from sentry.wait.steps import Pace, Steps, at_once, driven

if TYPE_CHECKING:
    from sentry.vfs.file import Result

T = TypeVar("T")
FEW: Final = 16
"""So many things are let go of in place."""


class Leftovers:
    """Of all files of a sandbox, one after the other."""

    __slots__ = ("_begun", "_ended", "_is_ending", "_loop", "_queue", "_waited_for", "_work")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._work: deque[Steps[None]] = deque()
        self._is_ending = False
        """Something ends at this moment: what it held ends behind it, however deep that goes."""
        self._begun = self._ended = self._waited_for = 0
        self._queue = WaitQueue()

    def begin(self, things: Iterable[T], end: Callable[[T], object]) -> None:
        """End each of them: at once as far as a step goes, the rest in its turn.

        Nothing holds them any longer than that: to free many is work, too.
        """
        left = deque(things)
        work = self._one_by_one(left, end)
        if self._loop is None:
            at_once(work)
            return
        is_alone = not (self._work or self._is_ending)
        if self._is_ending or len(left) > FEW:
            self._work.append(work)
            self._begun += 1
        else:
            at_once(work)
        if is_alone and self._work:
            self._go()

    def add(self, work: Steps[None]) -> None:
        """The same of work that has steps of its own."""
        if self._loop is None:
            at_once(work)
            return
        is_alone = not (self._work or self._is_ending)
        self._work.append(work)
        self._begun += 1
        if is_alone:
            self._go()

    def _one_by_one(self, left: deque[T], end: Callable[[T], object]) -> Steps[None]:
        while left:
            self._is_ending = True
            try:
                end(left.popleft())
            finally:
                self._is_ending = False
            yield

    def _all(self) -> Steps[None]:
        while self._work:
            try:
                yield from self._work[0]
            finally:
                self._work.popleft()
                self._ended += 1
                self._queue.notify()

    def _go(self) -> None:
        pace, steps = Pace(), self._all()
        try:
            for _ in steps:
                if pace.over:
                    self._go_on(steps)
                    return
        except BaseException:
            self._go_on(self._all())
            raise

    def _go_on(self, steps: Steps[None]) -> None:
        self._loop.call_soon(partial(self._spawn, steps))

    def _spawn(self, steps: Steps[None]) -> None:
        self._loop.spawn(self._rest(steps), "leftovers of a close")

    async def _rest(self, steps: Steps[None]) -> None:
        try:
            await driven(steps)
        finally:
            if self._work:
                self._go_on(self._all())

    def awaited(self, result: int = 0) -> Result:
        """The result of a call that has closed something, or its rest, which waits for that."""
        number = self._begun
        if number in (self._ended, self._waited_for):
            return result
        self._waited_for = number
        done = until(partial(self._check, number), (self._queue,), mode=Mode.UNINTERRUPTIBLE)
        return done.tried().then(lambda _: result)

    def _check(self, number: int) -> None:
        """An attempt. Raises: EAGAIN before."""
        if self._ended < number:
            raise EAGAIN("not done")
