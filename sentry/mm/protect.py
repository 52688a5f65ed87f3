"""mprotect(2), madvise(2), msync(2), mincore(2), mseal(2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sentry.abi import mman
from sentry.abi.mman import (
    MADV_COLD,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_REMOVE,
    MADV_WILLNEED,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    PROT_EXEC,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_READ,
    PROT_SEM,
    PROT_WRITE,
)
from sentry.errors import EACCES, EBADF, EBUSY, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EPERM
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, OutOfMemory, SegFault
from sentry.mm.layout import TASK_END
from sentry.mm.mapping import PROT_ALL, Mapping, page_align, page_up
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import PAGE_MASK

SETTING: Final[dict[int, tuple[int, int]]] = {
    mman.MADV_NORMAL: (0, VmFlag.RANDOM | VmFlag.SEQUENTIAL),
    mman.MADV_SEQUENTIAL: (VmFlag.SEQUENTIAL, VmFlag.RANDOM),
    mman.MADV_RANDOM: (VmFlag.RANDOM, VmFlag.SEQUENTIAL),
    mman.MADV_DONTFORK: (VmFlag.DONTCOPY, 0),
    mman.MADV_DOFORK: (0, VmFlag.DONTCOPY),
    mman.MADV_WIPEONFORK: (VmFlag.WIPEONFORK, 0),
    mman.MADV_KEEPONFORK: (0, VmFlag.WIPEONFORK),
    mman.MADV_DONTDUMP: (VmFlag.DONTDUMP, 0),
    mman.MADV_DODUMP: (0, VmFlag.DONTDUMP),
    mman.MADV_HUGEPAGE: (VmFlag.HUGEPAGE, VmFlag.NOHUGEPAGE),
    mman.MADV_NOHUGEPAGE: (VmFlag.NOHUGEPAGE, VmFlag.HUGEPAGE),
}
"""Advice that only changes flags: what to set, what to clear. There is no KSM (MADV_MERGEABLE) and
no memory failure (MADV_HWPOISON), which is EINVAL as in a Linux without them."""
HINTS: Final = frozenset({MADV_WILLNEED, MADV_COLD, MADV_PAGEOUT})
DISCARDS: Final = frozenset(
    {
        MADV_FREE,
        MADV_DONTNEED,
        MADV_DONTNEED_LOCKED,
        MADV_REMOVE,
        mman.MADV_DONTFORK,
        mman.MADV_WIPEONFORK,
    }
)
"""What mseal(2) forbids on memory that cannot be written: is_madv_discard()."""
ACTIONS: Final = frozenset(
    {
        MADV_DONTNEED,
        MADV_DONTNEED_LOCKED,
        MADV_FREE,
        MADV_REMOVE,
        MADV_POPULATE_READ,
        MADV_POPULATE_WRITE,
    }
)


class Protection(Mapping):
    """Changing what is mapped, in place."""

    # --- mprotect

    def mprotect(self, addr: int, length: int, prot: int, key: int = -1) -> None:
        """mprotect(2). Parts before a hole or a forbidden mapping are changed, as on Linux.

        Raises: EINVAL, ENOMEM, EACCES. A protection key is EINVAL: there are none.
        """
        grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
        prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP)
        if grows == PROT_GROWSDOWN | PROT_GROWSUP or addr & PAGE_MASK:
            raise EINVAL("address or flags")
        if not length:
            return
        end = addr + page_align(length)
        if end >> 64 or end <= addr:
            raise ENOMEM("range")
        if prot & ~(PROT_ALL | PROT_SEM) or key != -1:
            raise EINVAL("rights or key")
        first = self.vmas.after(addr)
        if first is None:
            raise ENOMEM("not mapped")
        if grows == PROT_GROWSDOWN:
            if first.start >= end:
                raise ENOMEM("not mapped")
            if not first.flags & VmFlag.GROWSDOWN:
                raise EINVAL("not a stack")
            addr = first.start
        elif first.start > addr:
            raise ENOMEM("not mapped")
        elif grows:
            raise EINVAL("nothing grows up")
        self._each(addr, end, lambda vma: self._protect(vma, prot & PROT_ALL))

    def _each(self, start: int, end: int, change: Callable[[Vma], None]) -> None:
        """Apply a change to every VMA in the range up to the first hole. Raises: ENOMEM."""
        at = start
        try:
            for vma in self.isolate(start, end):
                if vma.start > at:
                    raise ENOMEM("a hole")
                change(vma)
                at = vma.end
            if at < end:
                raise ENOMEM("a hole")
        finally:
            self.join_range(start, end)

    def _protect(self, vma: Vma, prot: int) -> None:
        if self.mdwe and prot & PROT_EXEC and (prot & PROT_WRITE or not vma.prot & PROT_EXEC):
            raise EACCES("PR_SET_MDWE")
        if prot & PROT_WRITE and not vma.flags & VmFlag.MAYWRITE:
            raise EACCES("the file is not open for writing")
        if prot & PROT_EXEC and not vma.flags & VmFlag.MAYEXEC:
            raise EACCES("mounted noexec")
        if vma.flags & VmFlag.SEALED:
            raise EPERM("sealed")
        if prot == vma.prot:
            return
        becomes_data = bool(prot & PROT_WRITE) and not vma.prot & PROT_WRITE and not vma.shared
        if becomes_data and not vma.flags & (VmFlag.GROWSDOWN | VmFlag.SPECIAL):
            reserve = not vma.flags & VmFlag.NORESERVE
            self._check_data(vma.pages, reserve)
        had_rights = vma.prot & PROT_ALL
        self._account(vma, -1)
        vma.prot = prot
        self._account(vma, 1)
        self.space.protect(vma.start, vma.pages, prot)
        if prot and not had_rights:
            self.populate_new(vma, vma.start, vma.end)
        if becomes_data and vma.flags & VmFlag.LOCKED:
            self.populate(vma.start, vma.end)  # the copies are made now

    def _check_data(self, pages: int, charge: bool) -> None:
        self.total_pages -= pages
        try:
            self._check_expand(pages, True, charge)
        finally:
            self.total_pages += pages

    # --- madvise

    def name(self, addr: int, length: int, name: bytes) -> None:
        """prctl(PR_SET_VMA_ANON_NAME): what maps shows for anonymous memory; empty: nothing.

        Raises: EINVAL, ENOMEM, EBADF.
        """
        end = addr + page_up(length)
        if addr & PAGE_MASK or page_up(length) >> 64 or end >> 64:
            raise EINVAL("range")

        def change(vma: Vma) -> None:
            if vma.file is not None:
                raise EBADF("a file")
            kind = b"anon_shmem" if vma.shared else b"anon"
            vma.name = b"[%s:%s]" % (kind, name) if name else b""

        if length:
            self._each(addr, min(end, TASK_END), change)
            if end > TASK_END:
                raise ENOMEM("range")

    def madvise(self, addr: int, length: int, advice: int) -> None:
        """madvise(2). Holes are passed over; the rest is done and ENOMEM raised at the end.

        Raises: EINVAL, ENOMEM, EACCES, EPERM, EFAULT, EBUSY.
        """
        if advice not in SETTING and advice not in HINTS and advice not in ACTIONS:
            raise EINVAL("advice")
        if addr & PAGE_MASK:
            raise EINVAL("address")
        size = page_align(length)
        if (length and not size) or (addr + size) >> 64:
            raise EINVAL("length")
        if not size:
            return
        end = addr + size
        if advice in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
            self._populate_advice(addr, end, advice == MADV_POPULATE_WRITE)
            return
        hole = False
        at = addr
        for vma in self.vmas.overlapping(addr, end):
            low, high = max(vma.start, addr), min(vma.end, end)
            hole |= low > at
            at = high
            self._advise(vma, low, high, advice)
        if hole or at < end:
            raise ENOMEM("a hole")

    def _advise(self, vma: Vma, start: int, end: int, advice: int) -> None:
        special = vma.flags & VmFlag.SPECIAL
        read_only = not vma.prot & PROT_WRITE and vma.file is None and not vma.shared
        if vma.flags & VmFlag.SEALED and read_only and advice in DISCARDS:
            raise EPERM("sealed")
        if advice in SETTING:
            self._set_flags(vma, start, end, advice)
        elif advice in (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE):
            if special or (vma.flags & VmFlag.LOCKED and advice != MADV_DONTNEED_LOCKED):
                raise EINVAL("locked or special")
            if advice == MADV_FREE and (vma.backing is not None or vma.shared):
                raise EINVAL("not anonymous")
            self.discard(vma, start, end)
        elif advice == MADV_REMOVE:
            self._remove_contents(vma, start, end)
        elif advice in (MADV_COLD, MADV_PAGEOUT) and (special or vma.flags & VmFlag.LOCKED):
            raise EINVAL("locked or special")

    def _set_flags(self, vma: Vma, start: int, end: int, advice: int) -> None:
        give, take = SETTING[advice]
        if advice == mman.MADV_WIPEONFORK and (vma.backing is not None or vma.shared):
            raise EINVAL("not private anonymous memory")
        if advice in (mman.MADV_DOFORK, mman.MADV_DODUMP) and vma.flags & VmFlag.SPECIAL:
            raise EINVAL("special")
        if advice in (mman.MADV_KEEPONFORK, mman.MADV_DODUMP) and vma.flags & VmFlag.DROPPABLE:
            raise EINVAL("droppable")
        wanted = vma.flags & ~take | give
        if wanted == vma.flags:
            return
        for part in self.isolate(start, end):
            part.flags = wanted
        self.join_range(start, end)

    def discard(self, vma: Vma, start: int, end: int) -> None:
        """Forget private contents; a file's pages show the file again."""
        pages = (end - start) >> 12
        if vma.backing is None and not vma.shared:
            self.space.discard(start, pages)
        else:
            self.space.unmap(start, pages)
            if vma.backing is not None and not vma.shared:
                self.populate_new(vma, start, end)

    def _remove_contents(self, vma: Vma, start: int, end: int) -> None:
        """MADV_REMOVE: a hole in the file behind a shared writable mapping."""
        if vma.flags & VmFlag.LOCKED or vma.backing is None:
            raise EINVAL("locked or not a file")
        if not vma.shared or not vma.flags & VmFlag.MAYWRITE:
            raise EACCES("not a writable shared mapping")
        if not isinstance(vma.backing, RamFile):
            raise EOPNOTSUPP("the file system cannot punch holes")
        if getattr(vma.file, "write_sealed", False):
            raise EPERM("sealed against writing")
        vma.backing.punch(vma.file_offset(start), end - start)

    def _populate_advice(self, start: int, end: int, write: bool) -> None:
        """faultin_page_range(), mm/gup.c."""
        at = start
        for vma in self.vmas.overlapping(start, end):
            low, high = max(vma.start, start), min(vma.end, end)
            if low > at:
                raise ENOMEM("a hole")
            needed = PROT_WRITE if write else PROT_READ
            if vma.flags & VmFlag.SPECIAL or not vma.prot & needed:
                raise EINVAL("rights")
            try:
                self.fill_range(vma, low, high)
            except (SegFault, BusError):
                raise EFAULT("past the end of the file") from None
            except OutOfMemory:
                raise ENOMEM("no memory") from None
            if not self.space.populate(low, (high - low) >> 12):
                raise EFAULT("no memory")
            at = high
        if at < end:
            raise ENOMEM("a hole")

    # --- msync, mincore

    def msync(self, addr: int, length: int, flags: int) -> list[HostBacking]:
        """msync(2): the checks. Stores to a shared host file are in the host's cache already;
        the result are the files to fsync (MS_SYNC). Raises: EINVAL, ENOMEM, EBUSY."""
        if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or addr & PAGE_MASK:
            raise EINVAL("flags or address")
        if flags & MS_ASYNC and flags & MS_SYNC:
            raise EINVAL("MS_ASYNC and MS_SYNC")
        end = addr + page_align(length)
        if end > 1 << 64:
            raise ENOMEM("range")
        files: dict[HostBacking, None] = {}
        at = addr
        hole = False
        for vma in self.vmas.overlapping(addr, end) if end > addr else ():
            hole |= vma.start > at
            at = vma.end
            if flags & MS_INVALIDATE and vma.flags & VmFlag.LOCKED:
                raise EBUSY("locked")
            if vma.shared and isinstance(vma.backing, HostBacking) and flags & MS_SYNC:
                files[vma.backing] = None
        if hole or at < end > addr:
            raise ENOMEM("a hole")
        return list(files)

    # --- mseal

    def mseal(self, addr: int, length: int) -> None:
        """mseal(2): nothing of the range can be unmapped, moved or protected otherwise any more.

        Raises: EINVAL, ENOMEM.
        """
        size = page_align(length)
        if addr & PAGE_MASK or (length and not size) or (addr + size) >> 64:
            raise EINVAL("range")
        end = addr + size
        if end == addr:
            return
        self._check_whole(addr, end)
        self._each(addr, end, self._seal)

    def _check_whole(self, start: int, end: int) -> None:
        at = start
        for vma in self.vmas.overlapping(start, end):
            if vma.start > at:
                break
            at = vma.end
        if at < end:
            raise ENOMEM("a hole")

    @staticmethod
    def _seal(vma: Vma) -> None:
        vma.flags |= VmFlag.SEALED

    def mincore(self, addr: int, length: int) -> bytes:
        """mincore(2) of a page-aligned address: one byte per page. Raises: ENOMEM.

        What a file in RAM has counts, also where it is not mapped yet.
        """
        end = addr + page_up(length)
        self._check_whole(addr, end)
        vector = bytearray(self.space.resident(addr, (end - addr) >> 12))
        for vma in self.vmas.overlapping(addr, end):
            backing = vma.backing
            if isinstance(backing, RamFile) and not backing.transient:
                low, pages = max(vma.start, addr), (min(vma.end, end) - max(vma.start, addr)) >> 12
                cached = backing.frames(vma.file_offset(low) >> 12, pages)
                first = (low - addr) >> 12
                for number, frame in enumerate(cached, first):
                    vector[number] |= frame != 0
        return bytes(vector)
