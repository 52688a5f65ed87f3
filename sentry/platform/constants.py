"""Numbers of the Sentry and its C half, as guest_stubs/memory_map.h and layout.h set them."""

from __future__ import annotations

from typing import Final

from sentry.platform._native import lib

PAGE_SIZE: Final[int] = lib.PAGE_SIZE
PAGE_MASK: Final[int] = PAGE_SIZE - 1
BLOCK_SIZE: Final[int] = lib.BLOCK_SIZE
"""What a large page-table entry maps."""
TASK_SIZE: Final[int] = lib.TASK_SIZE
"""First address that is not the program's: above it lie the entry pages."""
ENTRY_BASE: Final[int] = lib.ENTRY_BASE
ENTRY_STRIDE: Final[int] = lib.ENTRY_STRIDE
"""From the entry page of one vCPU to that of the next."""
NUM_REGS: Final[int] = lib.NUM_REGS
XFEATURES: Final[int] = lib.XFEATURES
"""XCR0 at most: x87, SSE, AVX, and the three parts of AVX-512."""

RAM_SPAN: Final[int] = lib.RAM_SPAN
"""Guest-physical addresses below are RAM; then come the two FILES windows."""
RO_WINDOW_GPA: Final[int] = lib.RO_WINDOW_GPA
RW_WINDOW_GPA: Final[int] = lib.RW_WINDOW_GPA
WINDOW_SPAN: Final[int] = lib.WINDOW_SPAN
DOORBELL_GPA: Final[int] = lib.DOORBELL_GPA

PTE_P: Final[int] = lib.PTE_P
"""Page-table entry: present; below, writable, user, copy on write, not executable."""
PTE_W: Final[int] = lib.PTE_W
PTE_U: Final[int] = lib.PTE_U
PTE_COW: Final[int] = lib.PTE_COW
PTE_NX: Final[int] = lib.PTE_NX
