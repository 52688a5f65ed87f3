"""Calls in the middle of what a thread does, by its CPU time: a thread that sleeps has none.

The call comes by a signal, between two bytecodes of the main thread: after a function of C, where
that took longer. Timers are made before the filter, which knows none of their calls.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from sentry.platform._native import lib

SIGNAL: Final = signal.SIGPROF


class Ticks:
    """`call(frame)` after each `interval_ns` of this thread. Raises: OSError, ValueError.

    Preconditions: the main thread.
    """

    def __init__(self, interval_ns: int, call: Callable[[FrameType | None], None]) -> None:
        self._before = signal.signal(SIGNAL, lambda _, frame: call(frame))
        signal.siginterrupt(SIGNAL, False)
        self._interval_ns = interval_ns
        try:
            self.again()
        except OSError:
            signal.signal(SIGNAL, self._before)
            raise

    def again(self) -> None:
        """In a fork, which has the handler and no timer. Raises: OSError."""
        self._timer = lib.ticks_start(SIGNAL, self._interval_ns)
        if self._timer < 0:
            raise OSError(-self._timer, "no timer of CPU time")

    def bound(self, fd: int) -> None:
        """Code that has a number of ticks left (`ticks_left`) ends the process with the last one,
        which is said into a descriptor. Preconditions: no filter yet."""
        lib.ticks_bound(SIGNAL, fd)

    def stop(self) -> None:
        """No more of them."""
        lib.ticks_stop(self._timer)
        signal.signal(SIGNAL, signal.SIG_IGN)  # one may be on its way
        signal.signal(SIGNAL, self._before)
