"""How poll(2) and select(2) look at files until one is ready: do_poll(), do_select().

A look at some hundred files is a piece of a step, and so is each that follows a wake. Where there
are more, the sleep is a `LongLook`, which registers as it looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sentry.errors import EAGAIN
from sentry.vfs.file import Result
from sentry.wait.fiber import TimedOut
from sentry.wait.looks import Looks
from sentry.wait.queue import Entry, WaitQueue
from sentry.wait.sleep import instead, until
from sentry.wait.steps import Pace, Steps, at_once

if TYPE_CHECKING:
    from sentry.loop import Loop

AT_A_TIME = 32
"""Files between two looks at the clock."""


class Looked(Protocol):
    """What a look depends on: a file, or a set of files."""

    refs: int
    queue: WaitQueue

    def decref(self) -> None: ...
    def let_go(self) -> None: ...


Look = Callable[[list[Looked]], Steps[int]]
"""Looks at all files, which it puts into the list; how many are ready."""
Tell = Callable[[], int]
"""Stores what the last look has found; the result of the call."""


def look_until_ready(loop: Loop, look: Look, tell: Tell, deadline: int | None) -> Result:
    """What `tell` gives once a look has found something, or at the deadline. Raises: EBADF."""
    files: list[Looked] = []
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
    sleep = until(attempt, queues, deadline_ns=deadline).tried(files).timed_by_programs()
    return sleep.ended(instead(TimedOut, tell))


class LongLook(Looks):
    """The rest of the first look, and what follows."""

    __slots__ = ("_entries", "_files", "_tell")

    def __init__(
        self,
        loop: Loop,
        first: Steps[int],
        files: list[Looked],
        calls: tuple[Look, Tell],
        deadline_ns: int | None,
    ) -> None:
        look, self._tell = calls
        super().__init__(loop, first, lambda: look([]), deadline_ns)
        self._entries: dict[Looked, Entry] = {}
        self._files = files
        """Those looked at since the last piece."""
        self.register()

    def register(self) -> None:
        """Hold the files before others run, who may close them."""
        for file in self._files:
            if file not in self._entries:
                file.refs += 1
                self._entries[file] = file.queue.add(self.hear)
        self._files.clear()

    def found(self, _what: int) -> int:
        """Some are ready."""
        return self._tell()

    def leave(self) -> None:
        """Off the queues."""
        super().leave()
        self._loop.call_for_each(self._entries.items(), _let_go)


def _let_go(entered: tuple[Looked, Entry]) -> None:
    file, entry = entered
    file.queue.remove(entry)
    file.decref()
