"""madvise(2), msync(2), mincore(2)."""

from __future__ import annotations

from typing import Any, Final

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
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import EACCES, EBUSY, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EPERM
from sentry.mm.address_map import AddressMap
from sentry.mm.backing import HostBacking, MappedFile
from sentry.mm.errors import BusError, OutOfMemory, SegFault
from sentry.mm.faults import filled
from sentry.mm.filling import fill_new
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Vma, VmFlag, page_align, page_up
from sentry.platform.constants import PAGE_MASK
from sentry.wait.steps import Steps, Stepwise, at_once

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
DISCARD_AT_ONCE: Final = 8 << 20
"""Bytes that are forgotten between two looks at the time."""
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


@Stepwise
def madvise(amap: AddressMap, addr: int, length: int, advice: int) -> Steps[None]:
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
        yield from _populate_advice(amap, addr, end, advice == MADV_POPULATE_WRITE)
        return
    hole = False
    at = addr
    for vma, low, high in amap.parts(addr, end):
        hole |= low > at
        at = high
        yield from _advise(amap, vma, low, high, advice)
        yield
    if hole or at < end:
        raise ENOMEM("a hole")


def _advise(amap: AddressMap, vma: Vma, start: int, end: int, advice: int) -> Steps[None]:
    special = vma.flags & VmFlag.SPECIAL
    read_only = not vma.prot & PROT_WRITE and vma.file is None and not vma.shared
    if vma.flags & VmFlag.SEALED and read_only and advice in DISCARDS:
        raise EPERM("sealed")
    if advice in SETTING:
        _set_flags(amap, vma, start, end, advice)
    elif advice in (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE):
        if special or (vma.flags & VmFlag.LOCKED and advice != MADV_DONTNEED_LOCKED):
            raise EINVAL("locked or special")
        if advice == MADV_FREE and (vma.backing is not None or vma.shared):
            raise EINVAL("not anonymous")
        while (start := amap.space.next(start, end)) < end:
            _discard(amap, vma, start, stop := min(end, start + DISCARD_AT_ONCE))
            start = stop
            yield
    elif advice == MADV_REMOVE:
        yield from _remove_contents(vma, start, end)
    elif advice in (MADV_COLD, MADV_PAGEOUT) and (special or vma.flags & VmFlag.LOCKED):
        raise EINVAL("locked or special")


def _set_flags(amap: AddressMap, vma: Vma, start: int, end: int, advice: int) -> None:
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
    for part in amap.isolate(start, end):
        part.flags = wanted
    amap.join_range(start, end)


def _discard(amap: AddressMap, vma: Vma, start: int, end: int) -> None:
    """Forget private contents; a file's pages show the file again."""
    pages = (end - start) >> 12
    if vma.backing is None and not vma.shared:
        amap.space.discard(start, pages)
    else:
        amap.space.unmap(start, pages)
        if vma.backing is not None and not vma.shared:
            fill_new(amap, vma, start, end)


def _remove_contents(vma: Vma, start: int, end: int) -> Steps[None]:
    """MADV_REMOVE: a hole in the file behind a shared writable mapping."""
    if vma.flags & VmFlag.LOCKED or vma.backing is None:
        raise EINVAL("locked or not a file")
    if not vma.shared or not vma.flags & VmFlag.MAYWRITE:
        raise EACCES("not a writable shared mapping")
    if not isinstance(vma.backing, RamFile) or vma.backing.loader is not None:
        raise EOPNOTSUPP("the file system cannot punch holes")
    if getattr(vma.file, "write_sealed", False):
        raise EPERM("sealed against writing")
    yield from vma.backing.punching(vma.file_offset(start), end - start)


def _populate_advice(amap: AddressMap, start: int, end: int, write: bool) -> Steps[None]:
    """faultin_page_range(), mm/gup.c."""
    at = start
    for vma, low, high in amap.parts(start, end):
        if low > at:
            raise ENOMEM("a hole")
        needed = PROT_WRITE if write else PROT_READ
        if vma.flags & VmFlag.SPECIAL or not vma.prot & needed:
            raise EINVAL("rights")
        try:
            there = yield from filled(amap, vma, low, high)
        except (SegFault, BusError):
            raise EFAULT("past the end of the file") from None
        except OutOfMemory:
            raise ENOMEM("no memory") from None
        if not there:
            raise EFAULT("no memory")
        at = high
        yield
    if at < end:
        raise ENOMEM("a hole")


# --- msync, mincore


@Stepwise
def msync(amap: AddressMap, addr: int, length: int, flags: int) -> Steps[dict[Any, MappedFile]]:
    """msync(2): the checks. Stores to a shared host file are in the host's cache already;
    the result are the files to fsync (MS_SYNC), and which open ones keep them. Raises: EINVAL,
    ENOMEM, EBUSY."""
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or addr & PAGE_MASK:
        raise EINVAL("flags or address")
    if flags & MS_ASYNC and flags & MS_SYNC:
        raise EINVAL("MS_ASYNC and MS_SYNC")
    end = addr + page_align(length)
    if end > 1 << 64:
        raise ENOMEM("range")
    files: dict[Any, MappedFile] = {}
    at = addr
    hole = False
    for vma, low, high in amap.parts(addr, end):
        hole |= low > at
        at = high
        if flags & MS_INVALIDATE and vma.flags & VmFlag.LOCKED:
            raise EBUSY("locked")
        if vma.shared and flags & MS_SYNC and _lies_elsewhere(vma.backing):
            assert vma.file is not None
            files[vma.backing] = vma.file
        yield
    if hole or at < end > addr:
        raise ENOMEM("a hole")
    return files


def stored_elsewhere(amap: AddressMap, start: int, end: int) -> dict[Any, MappedFile]:
    """Files on a server that may have been stored into by mappings of [start, end), and which open
    ones keep them."""
    return {
        vma.backing: vma.file
        for vma in amap.vmas.backed(start, end)
        if vma.file is not None and vma.shared and vma.file.writable
        and isinstance(vma.backing, RamFile) and vma.backing.loader is not None
    }  # fmt: skip


def _lies_elsewhere(backing: object) -> bool:
    """What is stored there has to be sent somewhere to last."""
    if isinstance(backing, RamFile):
        return backing.loader is not None
    return isinstance(backing, HostBacking)


# --- mseal


def mincore(amap: AddressMap, addr: int, length: int) -> bytes:
    """mincore(2) of a page-aligned address: one byte per page. Raises: ENOMEM.

    What a file in RAM has counts, also where it is not mapped yet.
    """
    end = addr + page_up(length)
    at_once(amap.check_whole(addr, end))
    vector = bytearray(amap.space.resident(addr, (end - addr) >> 12))
    for vma, low, high in amap.parts(addr, end):
        backing = vma.backing
        if isinstance(backing, RamFile) and not backing.transient:
            cached = backing.frames(vma.file_offset(low) >> 12, (high - low) >> 12)
            first = (low - addr) >> 12
            for number, frame in enumerate(cached, first):
                vector[number] |= frame != 0
    return bytes(vector)
