"""`Rate`: how much a log takes. Not in log.py, for the Gofer's start should not import that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BURST: Final = 256 << 10
BYTES_A_SECOND: Final = 4096


class Rate:
    """So many bytes at once, and so many a second after that: a program does not fill a disk."""

    __slots__ = ("_last_ns", "_left", "_now_ns")

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._last_ns = now_ns()
        self._left = BURST

    @property
    def spent(self) -> bool:
        """Nothing may be written now."""
        now_ns = self._now_ns()
        more = (now_ns - self._last_ns) * BYTES_A_SECOND // 10**9
        if more > 0:
            self._left = min(self._left + more, BURST)
            self._last_ns = now_ns
        return self._left <= 0

    def take(self, size: int) -> None:
        """So many bytes are written."""
        self._left -= size
