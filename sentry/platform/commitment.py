"""How much memory address spaces may promise: vm.overcommit_*, vm.max_map_count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sentry.abi.mman import OVERCOMMIT_ALWAYS, OVERCOMMIT_GUESS, OVERCOMMIT_NEVER

MUCH: Final = 256
"""Pages."""


class Commitment:
    """The settings, and what is promised. One for a sandbox."""

    __slots__ = ("kbytes", "max_map_count", "mode", "on_much", "pages", "ratio")

    def __init__(self) -> None:
        self.mode = OVERCOMMIT_GUESS
        self.ratio = 50
        self.kbytes = 0
        self.max_map_count = 65530
        self.on_much: Callable[[], object] | None = None
        """Hears that somebody is about to be promised MUCH or more."""
        self.pages = 0
        """Private writable pages of all address spaces (Committed_AS); sentry.mm counts them."""

    def limit(self, total: int) -> int:
        """CommitLimit in pages, for so many bytes of memory: vm_commit_limit()."""
        if self.kbytes:
            return self.kbytes >> 2
        return (total >> 12) * self.ratio // 100

    def allows(self, pages: int, total: int) -> bool:
        """__vm_enough_memory()."""
        if pages >= MUCH and self.on_much is not None:
            self.on_much()
        if self.mode == OVERCOMMIT_ALWAYS:
            return True
        if self.mode == OVERCOMMIT_NEVER:
            return self.pages + pages <= self.limit(total)
        return pages << 12 <= total
