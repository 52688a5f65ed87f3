"""How much of an address space is in memory."""

from __future__ import annotations

from typing import Final

from sentry.abi.layout import Record
from sentry.mm.address_map import AddressMap
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import TASK_SIZE

MANY_PAGES: Final = 4096


class Residency(Record):
    """Resident pages of a range: private memory and pages of files, with one owner and with more.

    Shared anonymous memory counts as a file, as on Linux.
    """

    anonymous_own: int = 0
    anonymous_shared: int = 0
    file_own: int = 0
    file_shared: int = 0

    @property
    def anonymous(self) -> int:
        """Private memory."""
        return self.anonymous_own + self.anonymous_shared

    @property
    def file(self) -> int:
        """Pages of files."""
        return self.file_own + self.file_shared

    @property
    def total(self) -> int:
        """All of them."""
        return self.anonymous + self.file


def residency(amap: AddressMap, vma: Vma) -> Residency:
    """How much of a mapping the host has in memory."""
    if vma.shared and vma.flags & VmFlag.SPECIAL:
        return Residency()
    here = amap.space.count(vma.start, vma.pages)
    own, copies, file = here.ram - here.several, here.several, here.windows
    if vma.shared:
        own, copies, file = 0, 0, here.ram + here.windows
    elif isinstance(vma.backing, RamFile):
        copies, file = 0, here.several
    if vma.backing is not None and len(vma.backing.mappers) == 1:  # nobody else maps this file
        return Residency(own, copies, file, 0)
    return Residency(own, copies, 0, file)


class ResidentSet:
    """The resident pages of an address space, now and at most."""

    __slots__ = ("_counted", "_counted_by", "_map", "_peak")

    def __init__(self, amap: AddressMap) -> None:
        self._map = amap
        self._peak = 0
        self._counted = 0
        self._counted_by: tuple[int, int] | None = None

    def pages(self) -> int:
        """RSS in pages."""
        if self._map.space.is_gone:
            return 0
        total = sum(self._map.space.count(0, TASK_SIZE >> 12)[:2])
        self.most(total)
        return total

    def most(self, total: int) -> int:
        """The largest RSS seen, this one among them."""
        self._peak = max(self._peak, total)
        return self._peak

    def peak_pages(self) -> int:
        """The largest RSS seen (ru_maxrss); resident memory is looked at only when asked for.

        Of files, what is mapped counts as if it was in memory, unless that is much.
        """
        space = self._map.space
        if space.is_gone:
            return self._peak
        if space.native.windows > MANY_PAGES:
            self.pages()
        else:
            self._peak = max(self._peak, space.resident_ram() + space.native.windows)
        return self._peak

    def ram_pages(self, ran: int) -> int:
        """Resident pages of RAM, counted only if `ran` or the tables differ from the last time."""
        space = self._map.space
        if space.is_gone:
            return 0
        known_by = (ran, int(space.native.anonymous))
        if known_by != self._counted_by:
            self._counted_by, self._counted = known_by, space.resident_ram()
        return self._counted

    def forget_peak(self) -> None:
        """The most memory counts from now on: /proc/PID/clear_refs."""
        self._peak = 0
