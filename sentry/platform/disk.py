"""`Disk`: frames of files whose bytes are no memory of the sandbox. In C: native/frames.c."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Collection
from typing import Any, Final

from sentry.errors import ENOSPC
from sentry.platform._native import ffi, lib
from sentry.platform.constants import PAGE_SIZE, RAM_SPAN
from sentry.platform.memory import Ram, check

MAX_PAGES: Final = RAM_SPAN // 2 // PAGE_SIZE
"""What there is room for in guest-physical addresses."""


class Disk:
    """Frames of a file on a disk of the host, `--overlay2=root:self`: the upper half of `Ram`.

    Made once. What lies there counts nowhere but in its file system. The host has room for a frame
    before it is given out, so a store to it never meets a full disk.

    Raises: OSError.
    """

    on_disk: Final = 1

    def __init__(self, ram: Ram, fd: int) -> None:
        error = lib.ram_store_open(fd)
        if error:
            raise OSError(-error, os.strerror(-error))
        self._ram = ram
        self.put_list = ram.put_list
        self.leaving = 0
        self.file_pages = 0

    @property
    def let_go(self) -> Callable[[Collection[Any], Callable[[Any], object]], None]:
        """As of `Ram`."""
        return self._ram.let_go

    def alloc(self) -> int:
        """A zeroed frame with one reference. Raises: ENOSPC."""
        gpa = lib.data_alloc(1)
        if not gpa:
            raise ENOSPC("the host's disk is full")
        return gpa

    def fill(self, gpas: array[int], first: int, count: int) -> int:
        """Frames for the zeros of a part of an array of u64; how many. Raises: ENOSPC."""
        at = ffi.from_buffer("uint64_t[]", gpas) + first
        return check(lib.data_fill(at, min(count, len(gpas) - first), 1))
