"""Page faults, and what is mapped before they can happen.

Anonymous memory is filled when it is mapped, so that the program takes no fault for it; huge and
MAP_NORESERVE mappings by 2 MiB on a fault, thread stacks from their top. Files are mapped ahead up
to 16 MiB and around a fault. Private pages of files are mapped read-only and copied on a store.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import Final

from sentry.abi.mman import PROT_EXEC, PROT_WRITE
from sentry.abi.resource import RLIMIT_STACK
from sentry.abi.signal import BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR
from sentry.errors import EFAULT, ENOMEM, Errno
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, NeedsFault, OutOfMemory, SegFault
from sentry.mm.layout import MMAP_MIN_ADDR, STACK_GUARD_GAP
from sentry.mm.map import AddressMap
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import BLOCK_SIZE, PTE_COW, PTE_NX, PTE_P, PTE_W

FILL_AT_ONCE: Final = 256 << 20
FILE_AT_ONCE: Final = 16 << 20
STACK_CHUNK: Final = 128 << 10
FILE_AROUND: Final = 256 << 10

PF_PRESENT: Final = 1
PF_WRITE: Final = 2
PF_USER: Final = 4
PF_EXEC: Final = 16
"""Error code of a page fault, SDM volume 3 section 4.7."""


class Faults(AddressMap):
    """Fills VMAs with page-table entries."""

    min_faults = 0
    """Faults served; getrusage(2) counts them."""

    def fault(self, addr: int, error_code: int) -> None:
        """Repair the mapping for an access of the program.

        Raises: SegFault, BusError (signals), NeedsFault (I/O first), OutOfMemory.
        """
        write, execute = bool(error_code & PF_WRITE), bool(error_code & PF_EXEC)
        vma = self.vmas.find(addr) or self._grow_stack(addr)
        needed = PROT_WRITE if write else PROT_EXEC if execute else 7
        if not vma.prot & needed:
            raise SegFault(addr, SEGV_ACCERR)
        self.min_faults += 1
        page = addr & ~0xFFF
        entry = self.space.entry(page)
        if entry & PTE_P:
            if write and not entry & PTE_W:
                if not entry & PTE_COW:
                    raise SegFault(addr, SEGV_ACCERR)
                self._copy(vma, addr)
            elif not (execute and entry & PTE_NX):
                self._check_size(vma, addr)
            return
        try:
            self._fill_around(vma, page)
            if write and self.space.entry(page) & PTE_COW:
                self._copy(vma, addr)
        except ENOMEM as error:
            raise OutOfMemory(str(error)) from None

    def _check_size(self, vma: Vma, addr: int) -> None:
        """The entry is good, so the fault is over already, unless a host file was truncated."""
        backing = vma.backing
        if isinstance(backing, HostBacking) and vma.file_offset(addr & ~0xFFF) >= backing.size:
            self.space.unmap(addr & ~0xFFF, 1)
            raise BusError(addr, BUS_ADRERR)

    def _copy(self, vma: Vma, addr: int) -> None:
        """Copy on write: this page and some around it; of a file in RAM, which may still change
        under the private mapping, this page only."""
        page = addr & ~0xFFF
        low, high = vma.start, vma.end
        if isinstance(vma.backing, RamFile):
            low, high = page, page + 0x1000
        result = self.space.break_cow(page, low, high, vma.prot | PROT_WRITE)
        if result == -errno.EFAULT:
            raise BusError(addr, BUS_ADRERR)
        if result == -errno.ENOMEM:
            raise OutOfMemory("copy on write")

    # --- stacks

    def _grow_stack(self, addr: int) -> Vma:
        """expand_downwards(), mm/vma.c. Raises: SegFault."""
        vma = self.vmas.after(addr)
        if vma is None or not vma.flags & VmFlag.GROWSDOWN or addr < MMAP_MIN_ADDR:
            raise SegFault(addr, SEGV_MAPERR)
        page = addr & ~0xFFF
        limit = self.limits.rlimit(RLIMIT_STACK)
        before = self.vmas.before(vma.start)
        floor = MMAP_MIN_ADDR
        if before is not None:
            gap = 0 if before.flags & VmFlag.GROWSDOWN or not before.prot else STACK_GUARD_GAP
            floor = max(floor, before.end + gap)
        if page < floor or vma.end - page > limit:
            raise SegFault(addr, SEGV_MAPERR)
        start = max(page - STACK_CHUNK, floor, vma.end - (limit & ~0xFFF))
        start = min(page, start)
        try:
            self._check_expand((vma.start - start) >> 12, False)
            if vma.flags & VmFlag.LOCKED:
                self._check_locked((vma.start - start) >> 12)
        except Errno:
            raise SegFault(addr, SEGV_MAPERR) from None
        self._account(vma, -1)
        self.vmas.restart(vma, start)
        self._account(vma, 1)
        return vma

    # --- filling

    def populate_new(self, vma: Vma, start: int, end: int) -> None:
        """Map ahead what faults would map: after mmap, mprotect, brk. What fails faults later."""
        if not vma.prot & 7:
            return
        try:
            if vma.backing is None:
                self._fill_new_anonymous(vma, start, end)
            elif isinstance(vma.backing, RamFile):
                self._map_ram(vma, start, min(end, start + FILE_AT_ONCE))
            else:
                self._map_window(vma, start, min(end, start + FILE_AT_ONCE))
        except (ENOMEM, BusError):
            pass

    def _fill_new_anonymous(self, vma: Vma, start: int, end: int) -> None:
        if vma.flags & VmFlag.NORESERVE or vma.end - vma.start > FILL_AT_ONCE:
            return
        if self.space.ram.crowded:
            return
        if vma.flags & VmFlag.STACK:
            start = max(start, end - STACK_CHUNK)
        self.space.map_anonymous(start, (end - start) >> 12, vma.prot)

    def _fill_around(self, vma: Vma, page: int) -> None:
        backing = vma.backing
        if backing is None:
            size = STACK_CHUNK if vma.flags & (VmFlag.STACK | VmFlag.GROWSDOWN) else BLOCK_SIZE
            start = max(vma.start, page & ~(size - 1))
            end = min(vma.end, (page & ~(size - 1)) + size)
            self.space.map_anonymous(start, (end - start) >> 12, vma.prot)
            return
        start = max(vma.start, page & ~(FILE_AROUND - 1))
        end = min(vma.end, start + FILE_AROUND)
        if isinstance(backing, HostBacking):
            if vma.file_offset(page) >= backing.size:
                raise BusError(page, BUS_ADRERR)
            self._map_window(vma, start, end)
            return
        offset = vma.file_offset(page)
        if offset >= backing.size:
            raise BusError(page, BUS_ADRERR)
        if backing.loader is not None and not backing.peek(offset >> 12):
            raise NeedsFault(partial(backing.loader, offset >> 12, FILE_AROUND >> 12))
        if backing.transient:
            some = min(end - start, backing.size - vma.file_offset(start))
            backing.fill(vma.file_offset(start) >> 12, (some + 4095) >> 12)
        else:
            backing.page(offset >> 12)
        self._map_ram(vma, start, end)

    def _map_ram(self, vma: Vma, start: int, end: int) -> None:
        """Entries for the pages of a RamFile that exist."""
        backing = vma.backing
        assert isinstance(backing, RamFile)
        offset = vma.file_offset(start)
        pages = min(end - start, ((backing.size + 4095) & ~0xFFF) - offset) >> 12
        if pages <= 0:
            return
        if backing.transient and pages << 12 == vma.end - vma.start:
            backing.fill(offset >> 12, pages)
        frames = backing.frames(offset >> 12, pages)
        self.space.map_list(start, frames, pages, vma.prot, not vma.shared)

    def _map_window(self, vma: Vma, start: int, end: int) -> None:
        """Entries for a host file's pages, up to its end."""
        backing = vma.backing
        assert isinstance(backing, HostBacking)
        room = ((backing.size + 4095) & ~0xFFF) - vma.file_offset(start)
        pages = min(end - start, room) >> 12
        if pages > 0:
            try:
                _, gpa = vma.window(start, pages)
            except Errno as error:
                raise ENOMEM(str(error)) from None
            self.space.map_frames(start, gpa, pages, vma.prot, not vma.shared)

    def show_instead(self, vma: Vma) -> bool:
        """Map a private mapping of a host file in one go with the removal of what is there.

        Preconditions: the VMA is not inserted yet, and what it replaces is removed afterwards.
        False: nothing has been done.
        """
        backing = vma.backing
        if not isinstance(backing, HostBacking) or vma.shared or not vma.prot & 7:
            return False
        replaced = self.vmas.overlapping(vma.start, vma.end)
        if all(each.backing is not backing for each in replaced):
            return False
        room = ((backing.size + 4095) & ~0xFFF) - vma.offset
        if vma.end - vma.start > min(room, FILE_AT_ONCE):
            return False
        try:
            self._check_count(2)  # what the removal may need
            if any(each.flags & VmFlag.SEALED for each in replaced):
                return False
            _, gpa = vma.window(vma.start, vma.pages)
            self.space.map_over(vma.start, gpa, vma.pages, vma.prot)
        except Errno:
            return False
        return True

    def fill_range(self, vma: Vma, start: int, end: int) -> None:
        """Map every page of a part of a VMA, writable where the program may write.

        Raises: ENOMEM, BusError, NeedsFault, OutOfMemory.
        """
        if vma.backing is None:
            self.space.map_anonymous(start, (end - start) >> 12, vma.prot)
        page = start
        write = bool(vma.prot & PROT_WRITE) and not vma.shared
        while page < end:
            page += self.space.check(page, end - page, write) & ~0xFFF
            if page < end:
                self.fault(page, PF_USER | (PF_WRITE if write else 0))

    def file_gone(self) -> bool:
        """A page of a window has nothing behind it (FILE_GONE): clear entries past file ends.

        The program then runs again, and the fault names its address. False: nothing was past an
        end, so the host cannot read the page; running again may not help.
        """
        found = False
        for vma in self.vmas:
            backing = vma.backing
            if not isinstance(backing, HostBacking):
                continue
            last = (backing.size + 4095) & ~0xFFF
            start = max(vma.start, vma.start + last - vma.offset)
            if start < vma.end:
                self.space.unmap(start, (vma.end - start) >> 12)
                found = True
        return found

    # --- the Sentry's own accesses

    def touch(self, addr: int, write: bool) -> None:
        """Fault a page in for an access of the kernel. Raises: EFAULT, NeedsFault."""
        try:
            self.fault(addr, PF_USER | (PF_WRITE if write else 0))
        except (SegFault, BusError) as error:
            raise EFAULT(f"{addr:#x}: {error!r}") from None
        except OutOfMemory as error:
            if (exhausted := self.space.ram.exhausted) is None:
                raise EFAULT(f"{addr:#x}: {error!r}") from None
            raise NeedsFault(exhausted) from None
