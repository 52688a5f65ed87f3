"""`Guard`: a handler of a policy has 10 ms of the kernel thread, its module when it is loaded 50.

The watchdog looks each 5 ms of CPU time (sentry/control/watchdog.py), between two bytecodes of
whatever runs. When it is time, and it is a frame of the policy's that runs, an exception is raised
there; never in code of the kernel that a handler has called, whose next look comes soon enough. A
handler costs two stores for that.

A handler that goes on all the same (it catches everything; it is in one long operation of C, where
nobody can raise) ends the sandbox after a second: the signal's own handler counts, too
(sentry/platform/native/ticks.c).
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from sentry.platform._native import ffi, lib

FILENAME: Final = "policy: "
"""Code of policies has file names that begin so."""
LOOKS: Final = 3
"""The third look comes after 10 to 15 ms."""
LOOKS_OF_LOADING: Final = 11
"""A module does once what its handlers need."""
LAST_LOOKS: Final = 200
"""The process ends after a second."""


class TooLong(BaseException):
    """A handler has used its time."""


class Guard:
    """Of one sandbox."""

    def __init__(self) -> None:
        self._left = memoryview(ffi.buffer(lib.ticks_left(), 8)).cast("q")
        self.looks = LOOKS
        self._most = LOOKS
        self._kept = 0

    def load(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a policy's module. Raises: TooLong, what it raises."""
        self._most = LOOKS_OF_LOADING
        try:
            return self.run(function, *arguments)
        finally:
            self._most = LOOKS

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call code of the policy. Raises: TooLong, what it raises."""
        left = self._left
        left[0], self.looks = LAST_LOOKS, 0
        try:
            result = function(*arguments)
        finally:
            used, left[0] = LAST_LOOKS - left[0], 0
        if used >= self._most or self.looks >= self._most:
            raise TooLong
        return result

    def look(self, frame: FrameType | None) -> None:
        """The watchdog does. Raises: TooLong, in `frame`."""
        if not self._left[0]:
            return
        self.looks += 1
        if (
            self.looks >= self._most
            and frame is not None
            and frame.f_code.co_filename.startswith(FILENAME)
        ):
            raise TooLong

    def collecting(self, phase: str) -> None:
        """The garbage collector's time is nobody's."""
        if phase == "start":
            self._kept = self._left[0]
        elif self._kept:
            self._left[0] = self._kept
