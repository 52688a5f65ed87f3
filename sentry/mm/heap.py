"""brk(2): mm/mmap.c."""

from __future__ import annotations

from sentry.abi.mman import PROT_READ, PROT_WRITE
from sentry.abi.resource import RLIMIT_DATA
from sentry.errors import ENOMEM, Errno
from sentry.mm.address_map import AddressMap
from sentry.mm.faults import populate
from sentry.mm.filling import fill_new
from sentry.mm.layout import TASK_END
from sentry.mm.vma import Vma, VmFlag, page_up
from sentry.wait.steps import Steps, Stepwise


def set_brk_start(amap: AddressMap, addr: int) -> None:
    """Where the heap begins; the loader's."""
    amap.brk_start = amap.brk_end = addr
    amap.layout.start_brk = addr


@Stepwise
def brk(amap: AddressMap, addr: int) -> Steps[int]:
    """brk(2): the end of the heap afterwards, unchanged where it cannot be."""
    if addr < amap.brk_start or not amap.brk_start:
        return amap.brk_end
    layout = amap.layout
    data_limit = amap.limits.rlimit(RLIMIT_DATA)
    if addr - amap.brk_start + layout.end_data - layout.start_data > data_limit:
        return amap.brk_end
    old, new = page_up(amap.brk_end), page_up(addr)
    try:
        if new < old:
            yield from amap.removing(new, old)
        elif new > old:
            yield from _grow_heap(amap, old, new)
    except Errno:
        return amap.brk_end
    amap.brk_end = addr
    return addr


def _grow_heap(amap: AddressMap, old: int, new: int) -> Steps[None]:
    if new > TASK_END or not amap.clear_of_stacks(old, new):
        raise ENOMEM("something is in the way")
    pages = (new - old) >> 12
    amap.check_expand(pages, True, True)
    amap.check_count(0)
    flags = VmFlag.MAYWRITE | VmFlag.MAYEXEC | VmFlag.HEAP
    if locked := amap.future_lock():
        amap.check_locked(pages)
        flags |= locked
    whole = amap.insert(Vma(old, new, PROT_READ | PROT_WRITE, flags, name=b"[heap]"))
    fill_new(amap, whole, old, new)
    if flags & VmFlag.LOCKED:
        yield from populate.steps(amap, old, new)
