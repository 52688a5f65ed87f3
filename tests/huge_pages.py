"""The memory of this process in huge pages, so that a fork of it is cheap.

A worker has all tests in memory, 220 MiB in as many as 55,000 pages, each of which fork(2) and the
child's end have to count: 16 ms of CPU time, of which a third is left. Thousands of tests make
processes so, of Gofers and of Linux' programs.
"""

from __future__ import annotations

import ctypes

from sentry.abi.mman import MADV_COLLAPSE

SIZE = 2 << 20


def collapse() -> None:
    """What is private and can be written, as it is now: madvise(2). An older kernel than 6.1, or
    one without memory for it, leaves it as it is."""
    libc = ctypes.CDLL(None)
    with open("/proc/self/maps", encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        area, rights, *_, name = f"{line} ".split(" ", 5)
        if rights != "rw-p" or name.strip() not in ("", "[heap]"):
            continue
        start, end = (int(part, 16) for part in area.split("-"))
        for place in range(-(-start // SIZE) * SIZE, end - SIZE + 1, SIZE):
            # SAFETY: contents stay as they are, wherever they lie
            libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(SIZE), MADV_COLLAPSE)
