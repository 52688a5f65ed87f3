"""`Looks`: an attempt that is work in steps, and a sleep until something has changed.

Where there is little to look at, one look is a piece of a step. Where there is much (thousands of
files, of children) it goes on piece by piece between the calls of others, and what changes
meanwhile makes it look again. A signal or the deadline counts when a look is over, as on Linux.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from sentry.ahead import mypyc_attr
from sentry.errors import EAGAIN
from sentry.wait.fiber import Fiber, Mode
from sentry.wait.sleep import Sleep
from sentry.wait.steps import Pace, Steps

if TYPE_CHECKING:
    from sentry.loop import Loop


@mypyc_attr(allow_interpreted_subclasses=True)
class Looks(Sleep):
    """The rest of a first look, if there is one, and what follows."""

    __slots__ = ("_changed", "_deadline_ns", "_fiber", "_idle", "_loop", "_work", "ended_by")
    ended_by: Mode

    def __init__(
        self,
        loop: Loop,
        first: Steps[Any] | None,
        look: Callable[[], Steps[Any]],
        deadline_ns: int | None = None,
    ) -> None:
        """A look that gives something true has found it; without a `first` there was one."""
        super().__init__(in_program_time=True)
        self._loop = loop
        self._deadline_ns = deadline_ns
        self._changed = False
        self._idle = first is None
        self._work = self._looks(first, look)
        self.ended_by = Mode.KILLABLE

    @abstractmethod
    def register(self) -> None:
        """Hear of changes in what was looked at, before others run."""

    @abstractmethod
    def found(self, what: Any) -> Any:
        """The result of the call."""

    def hear(self, _events: int) -> None:
        """Something has changed."""
        self._changed = True
        if self._idle:
            self._fiber.wake()

    def _looks(
        self, first: Steps[Any] | None, look: Callable[[], Steps[Any]]
    ) -> Generator[bool | None, None, Any]:
        """All that is to do; True is yielded where there is nothing until something changes."""
        what = (yield from first) if first is not None else None
        while not what:
            if not self._changed:
                yield True
            self._changed = False
            what = yield from look()
        return what

    def _wait(self, idle: bool) -> None:
        self._idle = idle
        self.deadline_ns = self._deadline_ns if idle else None
        self.mode = self.ended_by = Mode.INTERRUPTIBLE if idle else Mode.KILLABLE
        if not idle:
            self._loop.call_soon(self._fiber.wake)

    def enter(self, fiber: Fiber) -> None:
        """Go on soon, or when something has changed."""
        self._fiber = fiber
        self.register()
        if self._idle:
            next(self._work)
        self._wait(self._idle)

    def attempt(self) -> Any:
        """The next piece."""
        pace = Pace()
        while True:
            try:
                idle = next(self._work)
            except StopIteration as end:
                return self.found(end.value)
            if idle or pace.over:
                self.register()
                self._wait(bool(idle))
                raise EAGAIN

    def leave(self) -> None:
        """Nobody hears any more, also not of what comes soon."""
        self._work.close()
        self._idle = False
