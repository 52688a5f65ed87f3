"""mlock(2), mlock2(2), munlock(2), mlockall(2), munlockall(2): mm/mlock.c.

There is no swap: locked memory is filled at once and counted.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.errors import EAGAIN, EINVAL, ENOMEM, EPERM
from sentry.mm.address_map import AddressMap
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, OutOfMemory, SegFault
from sentry.mm.faults import filled, populate
from sentry.mm.layout import TASK_END
from sentry.mm.vma import PROT_ALL, Vma, VmFlag, page_align
from sentry.platform.constants import PAGE_MASK
from sentry.wait.steps import Steps, Stepwise

NEVER_LOCKED: Final = VmFlag.SPECIAL | VmFlag.DROPPABLE | VmFlag.SECRET
"""What mlock(2) passes over; secret memory is locked always."""


@Stepwise
def mlock(amap: AddressMap, addr: int, length: int, flags: int = 0) -> Steps[None]:
    """mlock(2), mlock2(2). What cannot be filled is locked all the same.

    Raises: EINVAL, EPERM, ENOMEM, EAGAIN.
    """
    if flags & ~MLOCK_ONFAULT:
        raise EINVAL("flags")
    limit = amap.limits.rlimit(RLIMIT_MEMLOCK)
    if not amap.ipc_lock and not limit:
        raise EPERM("RLIMIT_MEMLOCK is 0")
    start = addr & ~PAGE_MASK
    end = start + page_align(length + (addr & PAGE_MASK))
    more = (amap.locked_pages << 12) + end - start
    if not amap.ipc_lock and more > limit:
        for vma, low, high in amap.parts(start, end):  # what is locked already is no more
            more -= high - low if vma.flags & VmFlag.LOCKED else 0
            yield
        if more > limit:
            raise ENOMEM("RLIMIT_MEMLOCK")
    give = VmFlag.LOCKED | (VmFlag.LOCKONFAULT if flags & MLOCK_ONFAULT else 0)
    yield from _lock(amap, start, end, give)
    if start < end:
        yield from _fill_locked(amap, start, end)


@Stepwise
def munlock(amap: AddressMap, addr: int, length: int) -> Steps[None]:
    """munlock(2). Raises: EINVAL, ENOMEM."""
    start = addr & ~PAGE_MASK
    end = start + page_align(length + (addr & PAGE_MASK))
    yield from _lock(amap, start, end, 0)


@Stepwise
def mlockall(amap: AddressMap, flags: int) -> Steps[None]:
    """mlockall(2). Raises: EINVAL, EPERM, ENOMEM."""
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise EINVAL("flags")
    limit = amap.limits.rlimit(RLIMIT_MEMLOCK)
    if not amap.ipc_lock and not limit:
        raise EPERM("RLIMIT_MEMLOCK is 0")
    if not amap.ipc_lock and flags & MCL_CURRENT and amap.total_pages << 12 > limit:
        raise ENOMEM("RLIMIT_MEMLOCK")
    amap.lock_future = flags & (MCL_FUTURE | MCL_ONFAULT) if flags & MCL_FUTURE else 0
    if flags & MCL_CURRENT:
        give = VmFlag.LOCKED | (VmFlag.LOCKONFAULT if flags & MCL_ONFAULT else 0)
        yield from _lock_all(amap, give)
        if not flags & MCL_ONFAULT:
            yield from populate.steps(amap, 0, TASK_END)


@Stepwise
def munlockall(amap: AddressMap) -> Steps[None]:
    """munlockall(2)."""
    amap.lock_future = 0
    yield from _lock_all(amap, 0)


def _lock_all(amap: AddressMap, give: int) -> Steps[None]:
    """apply_mlockall_flags(): one mapping after the other, with holes in between."""
    vma = amap.vmas.after(0)
    while vma is not None:
        end = vma.end
        yield from amap.changing(vma.start, end, lambda vma: _set_locked(amap, vma, give))
        vma = amap.vmas.after(end)


def _lock(amap: AddressMap, start: int, end: int, give: int) -> Steps[None]:
    """apply_vma_lock_flags()."""
    if end >> 64:
        raise EINVAL("range")
    if start == end:
        return
    first = amap.vmas.find(start)
    if first is None:
        raise ENOMEM("not mapped")
    yield from amap.changing(start, end, lambda vma: _set_locked(amap, vma, give))


def _set_locked(amap: AddressMap, vma: Vma, give: int) -> None:
    if vma.flags & NEVER_LOCKED:
        return
    amap.account(vma, -1)
    vma.flags = vma.flags & ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT) | give
    amap.account(vma, 1)


def _fill_locked(amap: AddressMap, start: int, end: int) -> Steps[None]:
    """__mm_populate() and __mlock_posix_error_return(). Raises: ENOMEM, EAGAIN."""
    for vma, low, high in amap.parts(start, end):
        if vma.flags & (VmFlag.SPECIAL | VmFlag.LOCKONFAULT):
            continue
        if not vma.prot & PROT_ALL:
            raise ENOMEM("no rights")
        try:
            there = yield from filled(amap, vma, low, high)
        except (SegFault, BusError):
            raise ENOMEM("past the end of the file") from None
        except (ENOMEM, OutOfMemory):
            raise EAGAIN("no memory") from None
        if not there:
            cut = isinstance(vma.backing, HostBacking)
            raise ENOMEM("a file that was cut") if cut else EAGAIN("no memory")
        yield
