"""How poll(2) and select(2) look at files until one is ready: do_poll(), do_select().

A look at some hundred files is a piece of a step, and so is each that follows a wake. Where there
are more, the sleep is a `LongLook`: it looks, registers and looks again piece by piece, and a
signal or the deadline counts when a look is over, as on Linux.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from sentry.errors import EAGAIN
from sentry.vfs.file import FileDescription, Result
from sentry.wait.fiber import Fiber, Mode, TimedOut
from sentry.wait.queue import Entry, WaitQueue
from sentry.wait.sleep import Sleep, instead, until
from sentry.wait.steps import Pace, Steps, at_once

if TYPE_CHECKING:
    from sentry.loop import Loop

AT_A_TIME = 32
"""Files between two looks at the clock."""
Look = Callable[[list[FileDescription]], Steps[int]]
"""Looks at all files, which it puts into the list; how many are ready."""
Tell = Callable[[], int]
"""Stores what the last look has found; the result of the call."""


def look_until_ready(loop: Loop, look: Look, tell: Tell, deadline: int | None) -> Result:
    """What `tell` gives once a look has found something, or at the deadline. Raises: EBADF."""
    files: list[FileDescription] = []
    first, pace = look(files), Pace()
    try:
        while True:
            next(first)
            if pace.over:
                rest = LongLook(loop, first, files, (look, tell), deadline)
                return rest.ended(instead(TimedOut, tell))
    except StopIteration as end:
        if end.value:
            return tell()

    def attempt() -> int:
        if not at_once(look([])):
            raise EAGAIN("nothing is ready")
        return tell()

    queues: list[WaitQueue] = list({id(file.queue): file.queue for file in files}.values())
    return until(attempt, queues, deadline_ns=deadline).tried(files).ended(instead(TimedOut, tell))


class LongLook(Sleep):
    """The rest of the first look, and what follows."""

    __slots__ = (
        "_changed", "_deadline_ns", "_entries", "_fiber", "_files", "_idle", "_loop", "_tell",
        "_work", "ended_by",
    )  # fmt: skip
    ended_by: Mode

    def __init__(
        self,
        loop: Loop,
        first: Steps[int],
        files: list[FileDescription],
        calls: tuple[Look, Tell],
        deadline_ns: int | None,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._deadline_ns = deadline_ns
        self._changed = self._idle = False
        self._entries: dict[FileDescription, Entry] = {}
        self._files = files
        """Those looked at since the last piece."""
        look, self._tell = calls
        self._work = self._looks(first, look)
        self.ended_by = Mode.KILLABLE
        self._register()

    def _looks(self, first: Steps[int], look: Look) -> Generator[bool | None, None, None]:
        """All that is to do; True is yielded where there is nothing until a file changes."""
        ready = yield from first
        while not ready:
            if not self._changed:
                yield True
            self._changed = False
            ready = yield from look([])

    def _register(self) -> None:
        """Hold the files before others run, who may close them."""
        for file in self._files:
            if file not in self._entries:
                file.refs += 1
                self._entries[file] = file.queue.add(self._hear)
        self._files.clear()

    def _hear(self, _events: int) -> None:
        self._changed = True
        if self._idle:
            self._fiber.wake()

    def _wait(self, idle: bool) -> None:
        self._idle = idle
        self.deadline_ns = self._deadline_ns if idle else None
        self.mode = self.ended_by = Mode.INTERRUPTIBLE if idle else Mode.KILLABLE
        if not idle:
            self._loop.call_soon(self._fiber.wake)

    def enter(self, fiber: Fiber) -> None:
        """Go on soon."""
        self._fiber = fiber
        self._wait(False)

    def attempt(self) -> int:
        """The next piece."""
        pace = Pace()
        for idle in self._work:
            if idle or pace.over:
                self._register()
                self._wait(bool(idle))
                raise EAGAIN
        return self._tell()

    def leave(self) -> None:
        """Off the queues, also of those soon."""
        self._work.close()
        self._idle = False
        self._loop.call_for_each(self._entries.items(), _let_go)


def _let_go(entered: tuple[FileDescription, Entry]) -> None:
    file, entry = entered
    file.queue.remove(entry)
    file.decref()
