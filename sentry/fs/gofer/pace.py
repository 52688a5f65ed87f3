"""`Pace`: whether the kernel thread may read or write a disk itself.

A buffered write is a copy into the host's page cache, until the disk cannot follow (dirty pages
are throttled, a journal commits, a file system is frozen) and the writer waits. The kernel cannot
be asked beforehand: ext4 refuses RWF_NOWAIT for buffered writes, overlayfs for reads, too. So what
cannot be asked is done in place as long as that is quick; after slow ones others do it for a time
in proportion, which bounds the share of time that the kernel thread can lose. One is slow, too,
when other programs of the host had the processor meanwhile: so after the first slow one it is
looked at who waits, and for what.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from sentry.ahead import mypyc_attr

MAX_IN_PLACE: Final = 256 << 10
"""Bytes: what is more takes long even in memory."""
SLOW_NS: Final = 500_000
RESPITE: Final = 16
"""What waited for t is followed by RESPITE * t without one."""


PROBATION: Final = 64
"""How many are looked at closely after a slow one."""


def _waits() -> int:
    """How often this thread has waited so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw



@mypyc_attr(allow_interpreted_subclasses=True)
class Pace:
    """What is known of reads, or of writes, in one file system of the host."""

    __slots__ = ("_left", "_not_before_ns", "_now_ns", "_waited", "_waits")

    def __init__(
        self, now_ns: Callable[[], int] = monotonic_ns, waits: Callable[[], int] = _waits
    ) -> None:
        self._now_ns = now_ns
        self._waits = waits
        self._not_before_ns = 0
        self._left = 0
        """On probation."""
        self._waited = 0

    def begin(self, size: int) -> int:
        """When one of `size` bytes begins in place; 0: it must not."""
        now = self._now_ns()
        if size > MAX_IN_PLACE or now < self._not_before_ns:
            return 0
        if self._left:
            self._waited = self._waits()
        return now

    def end(self, began_ns: int) -> None:
        """It has been made."""
        now = self._now_ns()
        slow = now - began_ns > SLOW_NS
        if self._left:
            self._left -= 1
            if slow and self._waits() != self._waited:
                self._not_before_ns = now + RESPITE * (now - began_ns)
        if slow:
            self._left = PROBATION
