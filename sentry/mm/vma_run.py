"""`Run`: some hundred VMAs of a list that lie one after the other, and how fork(2) shares them.

A child's run may be lent: it has no VMAs of its own until somebody looks at one, or the parent is
about to. So a fork copies a few of 10,000 mappings if the child soon ends or executes a program.
Only private memory without a file is lent: nothing else knows such a VMA.
"""

from __future__ import annotations

from array import array
from typing import Final

from sentry.mm.vma import Vma, VmFlag

MAX_BORROWERS: Final = 2
"""Of a run, who all get theirs in the step in which its owner looks at it."""
NOT_LENT: Final = (
    VmFlag.SHARED | VmFlag.LOCKED | VmFlag.LOCKONFAULT | VmFlag.DONTCOPY | VmFlag.WIPEONFORK
    | VmFlag.SPECIAL
)  # fmt: skip


def inherited(vma: Vma) -> Vma:
    """What a child gets: it is not locked, and not one with what is mapped beside it later."""
    copy = vma.part(vma.start, vma.end)
    copy.flags &= ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
    if vma.backing is None and vma.private_writable and not vma.flags & VmFlag.HEAP:
        copy.flags |= VmFlag.FORKED
    return copy


class Run:
    """Neighbours in the list. None is empty, but for the only one."""

    __slots__ = ("_borrowers", "_lender", "starts", "tied", "vmas", "widest")

    def __init__(self, starts: list[int], vmas: list[Vma], widest: int) -> None:
        self.starts = starts
        self.vmas = vmas
        """Preconditions: it is not tied."""
        self.widest = widest
        """No gap between two of them has more bytes."""
        self.tied = False
        """It is lent, or borrowed: `settle` first."""
        self._lender: Run | None = None
        self._borrowers: list[Run] | None = None

    # --- lending

    @property
    def seen(self) -> list[Vma]:
        """The VMAs, to look at them in this step only: flags may be those of the parent."""
        return self.vmas if self._lender is None else self._lender.vmas

    def can_be_lent(self) -> bool:
        """To one more child."""
        owner = self._lender or self
        if owner._borrowers is not None and len(owner._borrowers) >= MAX_BORROWERS:
            return False
        for vma in self.seen:
            if vma.backing is not None or vma.file is not None or vma.flags & NOT_LENT:
                return False
        return True

    def lend(self) -> Run:
        """A child's run."""
        owner = self._lender or self
        lent = Run(self.starts, [], self.widest)
        lent._lender = owner
        if owner._borrowers is None:
            owner._borrowers = []
        owner._borrowers.append(lent)
        owner.tied = lent.tied = True
        return lent

    def settle(self) -> None:
        """Who has borrowed it gets VMAs of his own; so does this one if it is borrowed."""
        if self._lender is not None:
            vmas = [inherited(vma) for vma in self._lender.vmas]
            self.give_back()
            self.starts, self.vmas = list(self.starts), vmas
        for borrower in list(self._borrowers or ()):
            borrower.settle()

    def give_back(self) -> None:
        """It is borrowed no more."""
        owner, self._lender = self._lender, None
        self.tied = False
        if owner is not None and owner._borrowers is not None:
            owner._borrowers.remove(self)
            owner.tied = bool(owner._borrowers)

    @property
    def is_borrowed(self) -> bool:
        """It has no VMAs of its own."""
        return self._lender is not None

    def rows(self) -> array[int]:
        """For the page tables: of each its start, with its rights in the lowest bits, and end."""
        return array("Q", [at for vma in self.seen for at in (vma.start | vma.prot, vma.end)])

    # --- gaps

    def opened(self, index: int) -> None:
        """The gap before the VMA at this index may have become wider."""
        if 0 < index < len(self.starts):
            self.widest = max(self.widest, self.starts[index] - self.vmas[index - 1].end)

    def highest(self, below: int, length: int, align: int) -> int | None:
        """The highest address for `length` bytes between two of the first `below` ones."""
        if self.widest < length:
            return None
        starts, vmas, widest = self.starts, self.seen, 0
        for index in range(below - 1, 0, -1):
            start, floor = starts[index], vmas[index - 1].end
            widest = max(widest, start - floor)
            found = (start - length) & -align
            if found >= floor:
                return found
        if below == len(starts):
            self.widest = widest
        return None

    def lowest(self, above: int, length: int, align: int) -> int | None:
        """The lowest address for `length` bytes between two of those from `above` on."""
        if self.widest < length:
            return None
        starts, vmas = self.starts, self.seen
        for index in range(above + 1, len(starts)):
            found = (vmas[index - 1].end + align - 1) & -align
            if found + length <= starts[index]:
                return found
        return None
