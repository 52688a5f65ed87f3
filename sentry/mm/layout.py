"""Where things go in an address space, and what /proc shows of the program's layout.

arch/x86/mm/mmap.c: mappings are placed top down from a base that lies below the stack by its limit
and a gap, and by 28 random bits of pages.
"""

from __future__ import annotations

import os
from typing import Final

from msgspec import Struct

from sentry.platform.constants import PAGE_MASK, PAGE_SIZE, TASK_SIZE

MMAP_MIN_ADDR: Final = 0x10000
"""vm.mmap_min_addr"""
TASK_END: Final = TASK_SIZE - PAGE_SIZE
"""Below it lies user memory; the page above is never mapped."""
LINUX_TASK_END: Final = (1 << 47) - PAGE_SIZE
"""What a program takes for the end of user space: in between nothing can be mapped."""
MMAP_RANDOM_BITS: Final = 28
STACK_RANDOM: Final = 16 << 30
STACK_GUARD_GAP: Final = 256 << 12
"""stack_guard_gap, mm/mmap.c"""
MIN_GAP: Final = 128 << 20


class ProgramLayout(Struct):
    """The fields of struct mm_struct that the loader sets and prctl(PR_SET_MM) changes."""

    start_code: int = 0
    end_code: int = 0
    start_data: int = 0
    end_data: int = 0
    start_brk: int = 0
    start_stack: int = 0
    arg_start: int = 0
    arg_end: int = 0
    env_start: int = 0
    env_end: int = 0
    auxv: bytes = b""
    program: "object" = None
    """What keeps the program's file from being written while an address space runs it."""


def mmap_base(stack_limit: int, randomize: bool) -> int:
    """Where top-down placement starts: mmap_base(), arch/x86/mm/mmap.c."""
    pad = (STACK_RANDOM if randomize else 0) + STACK_GUARD_GAP
    gap = min(max(stack_limit + pad, MIN_GAP), TASK_SIZE // 6 * 5)
    random = 0
    if randomize:  # os.urandom, for the module secrets costs 5 ms of a start
        random = int.from_bytes(os.urandom(4), "little") >> (32 - MMAP_RANDOM_BITS) << 12
    return (TASK_SIZE - gap - random) & ~PAGE_MASK
