"""`Pace`: whether the kernel thread may write to a disk itself.

A buffered write is a copy into the host's page cache, until the disk cannot follow (dirty pages
are throttled, a journal commits, a file system is frozen) and the writer waits. The kernel cannot
be asked beforehand: ext4 refuses RWF_NOWAIT for buffered writes. So writes are made in place as
long as they are quick; after a slow one others make them for a time in proportion, which bounds
the share of time that the kernel thread can lose.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Final

MAX_IN_PLACE: Final = 256 << 10
"""Bytes: what is more takes long even in memory."""
SLOW_NS: Final = 500_000
RESPITE: Final = 16
"""A call that took t is followed by RESPITE * t without one."""


class Pace:
    """What is known of one file system of the host."""

    __slots__ = ("_not_before_ns", "_now_ns")

    def __init__(self, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self._now_ns = now_ns
        self._not_before_ns = 0

    def begin(self, size: int) -> int:
        """When a write of `size` bytes begins in place; 0: it must not."""
        now = self._now_ns()
        return now if size <= MAX_IN_PLACE and now >= self._not_before_ns else 0

    def end(self, began_ns: int) -> None:
        """It has been made."""
        now = self._now_ns()
        if now - began_ns > SLOW_NS:
            self._not_before_ns = now + RESPITE * (now - began_ns)
