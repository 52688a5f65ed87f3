"""Page faults of the program, and what stops the Sentry's own copies: mm/memory.c, mm/gup.c."""

from __future__ import annotations

import errno
from typing import Final

from sentry.abi.mman import PROT_EXEC, PROT_WRITE
from sentry.abi.resource import RLIMIT_STACK
from sentry.abi.signal import BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR
from sentry.errors import EFAULT, ENOMEM, Errno
from sentry.mm.address_map import AddressMap
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, NeedsFault, OutOfMemory, SegFault
from sentry.mm.filling import STACK_CHUNK, fill_around
from sentry.mm.layout import MMAP_MIN_ADDR, STACK_GUARD_GAP
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import PROT_ALL, Vma, VmFlag
from sentry.platform.constants import PTE_COW, PTE_NX, PTE_P, PTE_W
from sentry.wait.steps import Steps, Stepwise

PF_PRESENT: Final = 1
PF_WRITE: Final = 2
PF_USER: Final = 4
PF_EXEC: Final = 16
"""Error code of a page fault, SDM volume 3 section 4.7."""
PIECE: Final = 256 << 10
"""Bytes for which the host is asked for memory between two looks at the time."""


def check_lock(amap: AddressMap) -> None:
    """A fault waits for what changes the mappings in steps. Raises: NeedsFault."""
    if amap.lock.holder is not None:
        raise NeedsFault(amap.lock.until_free)


def fault(amap: AddressMap, addr: int, error_code: int) -> None:
    """Repair the mapping for an access of the program.

    Raises: SegFault, BusError (signals), NeedsFault (I/O first), OutOfMemory.
    """
    write, execute = bool(error_code & PF_WRITE), bool(error_code & PF_EXEC)
    vma = amap.vmas.find(addr) or _grow_stack(amap, addr)
    needed = PROT_WRITE if write else PROT_EXEC if execute else 7
    if not vma.prot & needed:
        raise SegFault(addr, SEGV_ACCERR)
    page = addr & ~0xFFF
    entry = amap.space.entry(page)
    if entry & PTE_P:
        if write and not entry & PTE_W:
            if not entry & PTE_COW:
                raise SegFault(addr, SEGV_ACCERR)
            _copy(amap, vma, addr)
        elif not (execute and entry & PTE_NX):
            _check_size(amap, vma, addr)
        return
    try:
        fill_around(amap, vma, page)
        if write and amap.space.entry(page) & PTE_COW:
            _copy(amap, vma, addr)
    except ENOMEM as error:
        raise OutOfMemory(str(error)) from None


def _check_size(amap: AddressMap, vma: Vma, addr: int) -> None:
    """The entry is good, so the fault is over already, unless a host file was truncated."""
    backing = vma.backing
    if isinstance(backing, HostBacking) and vma.file_offset(addr & ~0xFFF) >= backing.size:
        amap.space.unmap(addr & ~0xFFF, 1)
        raise BusError(addr, BUS_ADRERR)


def _copy(amap: AddressMap, vma: Vma, addr: int) -> None:
    """Copy on write: this page and some around it; of a file in RAM, which may still change
    under the private mapping, this page only."""
    page = addr & ~0xFFF
    low, high = vma.start, vma.end
    if isinstance(vma.backing, RamFile):
        low, high = page, page + 0x1000
    result = amap.space.break_cow(page, low, high, vma.prot | PROT_WRITE)
    if result == -errno.EFAULT:
        raise BusError(addr, BUS_ADRERR)
    if result == -errno.ENOMEM:
        raise OutOfMemory("copy on write")


def _grow_stack(amap: AddressMap, addr: int) -> Vma:
    """expand_downwards(), mm/vma.c. Raises: SegFault."""
    vma = amap.vmas.after(addr)
    if vma is None or not vma.flags & VmFlag.GROWSDOWN or addr < MMAP_MIN_ADDR:
        raise SegFault(addr, SEGV_MAPERR)
    page = addr & ~0xFFF
    limit = amap.limits.rlimit(RLIMIT_STACK)
    before = amap.vmas.before(vma.start)
    floor = MMAP_MIN_ADDR
    if before is not None:
        gap = 0 if before.flags & VmFlag.GROWSDOWN or not before.prot else STACK_GUARD_GAP
        floor = max(floor, before.end + gap)
    if page < floor or vma.end - page > limit:
        raise SegFault(addr, SEGV_MAPERR)
    ahead = min(page, max(page - STACK_CHUNK, floor, vma.end - (limit & ~0xFFF)))
    start = ahead if _may_grow(amap, vma, ahead) else page
    if not _may_grow(amap, vma, start):
        raise SegFault(addr, SEGV_MAPERR)
    amap.account(vma, -1)
    amap.vmas.start_at(vma, start)
    amap.account(vma, 1)
    return vma


def _may_grow(amap: AddressMap, vma: Vma, start: int) -> bool:
    """acct_stack_growth(): the limits of a process let a stack begin here."""
    pages = (vma.start - start) >> 12
    try:
        amap.check_expand(pages, False)
        if vma.flags & VmFlag.LOCKED:
            amap.check_locked(pages)
    except Errno:
        return False
    return True


@Stepwise
def file_gone(amap: AddressMap) -> Steps[bool]:
    """A page of a window has nothing behind it (FILE_GONE): clear entries past file ends.

    The program then runs again, and the fault names its address; so it does where a piece of a
    window was taken while a vCPU was on its way there. False: nothing was past an end, so the
    host cannot read the page; running again may not help.
    """
    taken = amap.space.ram.windows.taken
    found = taken != amap.windows_taken
    amap.windows_taken = taken
    ends: dict[HostBacking, int] = {}
    at = 0
    while True:
        vmas, at = amap.vmas.backed_piece(at)
        for vma in vmas:
            backing = vma.backing
            if not isinstance(backing, HostBacking):
                continue
            if backing not in ends:
                ends[backing] = (backing.size + 4095) & ~0xFFF
            start = max(vma.start, vma.start + ends[backing] - vma.offset)
            if start < vma.end:
                amap.space.unmap(start, (vma.end - start) >> 12)
                found = True
        if not at:
            return found
        yield


# --- every page of a range


def fill_range(amap: AddressMap, vma: Vma, start: int, end: int) -> None:
    """Map every page of a part of a VMA, writable where the program may write.

    Raises: ENOMEM, BusError, NeedsFault, OutOfMemory.
    """
    if vma.backing is None:
        amap.space.map_anonymous(start, (end - start) >> 12, vma.prot)
    page = start
    write = bool(vma.prot & PROT_WRITE) and not vma.shared
    while page < end:
        page += amap.space.check(page, end - page, write) & ~0xFFF
        if page < end:
            fault(amap, page, PF_USER | (PF_WRITE if write else 0))


@Stepwise
def populate(amap: AddressMap, start: int, end: int) -> Steps[None]:
    """Map every page of a range and have the host give memory for it, as far as it goes."""
    for vma, low, high in amap.parts(start, end):
        if not vma.prot & PROT_ALL or vma.flags & VmFlag.LOCKONFAULT:
            continue
        try:
            if not (yield from filled(amap, vma, low, high)):
                return
        except (Errno, SegFault, BusError, OutOfMemory, NeedsFault):
            continue
        yield


def filled(amap: AddressMap, vma: Vma, start: int, end: int) -> Steps[bool]:
    """Map every page of a part of a VMA, with memory of the host; False: it has none.

    Raises: as `fill_range`.
    """
    while start < end:
        stop = min(end, start + PIECE)
        fill_range(amap, vma, start, stop)
        yield
        if not amap.space.populate(start, (stop - start) >> 12):
            return False
        start = stop
        if start < end:
            yield
    return True


# --- the Sentry's own accesses


def touch(amap: AddressMap, addr: int, write: bool) -> None:
    """Fault a page in for an access of the kernel. Raises: EFAULT, NeedsFault."""
    check_lock(amap)
    try:
        fault(amap, addr, PF_USER | (PF_WRITE if write else 0))
    except (SegFault, BusError) as error:
        raise EFAULT(f"{addr:#x}: {error!r}") from None
    except OutOfMemory as error:
        if (exhausted := amap.space.ram.exhausted) is None:
            raise EFAULT(f"{addr:#x}: {error!r}") from None
        raise NeedsFault(exhausted) from None


def resolve(amap: AddressMap, write: bool) -> None:
    """Repair what stopped the last copy. Raises: EFAULT, NeedsFault."""
    space = amap.space
    addr = space.fault_addr
    if space.fault_gone:
        _gone(amap, addr)
    else:
        touch(amap, addr, write or space.fault_write)


def _gone(amap: AddressMap, addr: int) -> None:
    """The host has no page behind a good entry: the file was cut, or memory is used up."""
    vma = amap.vmas.find(addr)
    if vma is None:
        raise EFAULT("not mapped")
    backing = vma.backing
    if isinstance(backing, HostBacking) and vma.file_offset(addr & ~0xFFF) >= backing.size:
        raise EFAULT("past the end of the file")
    ram = amap.space.ram
    if ram.trim():
        return
    if ram.exhausted is None:
        raise EFAULT("the memory limit is reached")
    raise NeedsFault(ram.exhausted)
