"""Times in which the machine itself stood still: a virtual one whose host stopped it for a while.

CPU clocks go on in such a time, and it is no step that took it. Each CPU's times in /proc/stat
grow by what its own interrupts count, so together as fast as the clock, but then they stay behind.
Source: proc_stat(5).
"""

from __future__ import annotations

import os
import time
from typing import Final

LEAST_NS: Final = 100_000_000
"""Shorter ones are not told from what is counted in hundredths of a second."""
NS: Final = 1_000_000_000 // 100
"""Of USER_HZ."""
KINDS: Final = 8
"""From user to steal; guest is in user, too."""
ROOM: Final = 1 << 14


class Standstill:
    """Of the CPU that stood still for longest. `fd` is /proc/stat's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._now_ns, self._counted = time.monotonic_ns(), self._read()

    def since_ns(self) -> int:
        """Since it was asked last, in nanoseconds."""
        now_ns, counted = time.monotonic_ns(), self._read()
        past_ns = now_ns - self._now_ns
        moved = (after - before for after, before in zip(counted, self._counted, strict=False))
        behind_ns = past_ns - min(moved, default=0) * NS
        self._now_ns, self._counted = now_ns, counted
        return behind_ns if behind_ns > max(LEAST_NS, past_ns // 2) else 0

    def _read(self) -> list[int]:
        lines = os.pread(self._fd, ROOM, 0).split(b"\n")
        cpus = [line.split() for line in lines if line.startswith(b"cpu") and line[3:4] != b" "]
        return [sum(map(int, words[1 : 1 + KINDS])) for words in cpus]
