"""mremap(2), in the order of checks of mm/mremap.c, and remap_file_pages(2)."""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE
from sentry.errors import EFAULT, EINVAL, ENOMEM, EOVERFLOW, EPERM
from sentry.mm.address_map import AddressMap, alignment
from sentry.mm.faults import populate
from sentry.mm.filling import fill_new
from sentry.mm.layout import MMAP_MIN_ADDR, TASK_END
from sentry.mm.vma import MAX_OFFSET, Vma, VmFlag, page_up
from sentry.platform.constants import PAGE_MASK
from sentry.wait.steps import Steps, Stepwise

ALL_FLAGS = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP
KEPT: Final = VmFlag.SHARED | VmFlag.MAYWRITE | VmFlag.MAYEXEC | VmFlag.LOCKED
"""What a mapping is after remap_file_pages(2), too: the rest is as for a new one."""


@Stepwise
def mremap(
    amap: AddressMap, old: int, old_size: int, new_size: int, flags: int, new: int = 0
) -> Steps[int]:
    """mremap(2). Raises: EINVAL, EFAULT, ENOMEM, EAGAIN."""
    if flags & ~ALL_FLAGS or old & PAGE_MASK:
        raise EINVAL("flags or address")
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
        raise EINVAL("flags need MREMAP_MAYMOVE")
    if flags & MREMAP_DONTUNMAP and page_up(old_size) != page_up(new_size):
        raise EINVAL("MREMAP_DONTUNMAP changes no size")
    old_size, new_size = page_up(old_size), page_up(new_size)
    if not new_size or new_size > TASK_END:
        raise EINVAL("new size")
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        _check_target(old, old_size, new_size, new)
    if flags & MREMAP_FIXED and new < MMAP_MIN_ADDR:
        raise EINVAL("new address")
    vma = amap.vmas.find(old)
    if vma is None:
        raise EFAULT("not mapped")
    if vma.flags & VmFlag.SEALED:
        raise EPERM("sealed")
    placed = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
    if not placed and new_size <= old_size:
        if new_size < old_size:
            if old + old_size > TASK_END:
                raise EINVAL("range")
            yield from amap.removing(old + new_size, old + old_size)
        return old
    if placed:
        vma, old_size = yield from _make_room(amap, old, old_size, new_size, flags, new)
    _check_source(amap, vma, old, old_size, new_size, flags)
    if not placed and (yield from _extend(amap, vma, old, old_size, new_size)):
        return old
    if not flags & MREMAP_MAYMOVE:
        raise ENOMEM("no room to grow")
    return (yield from _move(amap, vma, old, (old_size, new_size), flags, new))


def _check_target(old: int, old_size: int, new_size: int, new: int) -> None:
    if new & PAGE_MASK or new + new_size > TASK_END:
        raise EINVAL("new address")
    if old + old_size > new and new + new_size > old:
        raise EINVAL("the ranges overlap")


def _make_room(
    amap: AddressMap, old: int, old_size: int, new_size: int, flags: int, new: int
) -> Steps[tuple[Vma, int]]:
    """The start of mremap_to(): what lies at the target goes, and what the source has too
    much. The source as it is then, and its size."""
    amap.check_count(3)
    if flags & MREMAP_FIXED:
        yield from amap.removing(new, new + new_size)
    if new_size < old_size:
        if old + old_size > TASK_END:
            raise EINVAL("range")
        yield from amap.removing(old + new_size, old + old_size)
        old_size = new_size
    vma = amap.vmas.find(old)
    if vma is None:
        raise EFAULT("the source was unmapped")
    return vma, old_size


def _check_source(
    amap: AddressMap, vma: Vma, old: int, old_size: int, new_size: int, flags: int
) -> None:
    """vma_to_resize()."""
    if not old_size and not vma.shared:
        raise EINVAL("only shared memory can be duplicated")
    if flags & MREMAP_DONTUNMAP and vma.flags & VmFlag.SPECIAL:
        raise EINVAL("special")
    if old_size > vma.end - old:
        raise EFAULT("more than one mapping")
    fixed = vma.flags & VmFlag.SPECIAL or getattr(vma.file, "fixed_size", False)
    if new_size > old_size and fixed:
        raise EFAULT("special mappings have their size")
    if vma.backing is not None and vma.file_offset(old) + new_size > 1 << 63:
        raise EINVAL("offset")
    grow = (new_size - old_size) >> 12
    if vma.flags & VmFlag.LOCKED and grow > 0:
        amap.check_locked(grow)
    if grow > 0:
        charge = vma.private_writable and not vma.flags & VmFlag.NORESERVE
        amap.check_expand(grow, vma.private_writable, charge)


def _extend(amap: AddressMap, vma: Vma, old: int, old_size: int, new_size: int) -> Steps[bool]:
    """Grow in place if the VMA ends here and what follows is free."""
    end, new_end = old + old_size, old + new_size
    if vma.end != end or new_end > TASK_END or not amap.clear_of_stacks(end, new_end):
        return False
    more = vma.part(vma.start, vma.end)
    if more.backing is not None:
        more.offset = vma.file_offset(end)
    more.start, more.end = end, new_end
    whole = amap.insert(more)
    fill_new(amap, whole, end, new_end)
    if whole.flags & VmFlag.LOCKED:
        yield from populate.steps(amap, end, new_end)
    return True


def _move(
    amap: AddressMap, vma: Vma, old: int, sizes: tuple[int, int], flags: int, new: int
) -> Steps[int]:
    old_size, new_size = sizes
    if not flags & MREMAP_FIXED:
        amap.check_count(3)
        align = alignment(new_size, vma.backing is None)
        # A hint that keeps large entries whole: the same place within 2 MiB.
        new = amap.find_free(new_size, align)
    kept = min(old_size, new_size)
    target = vma.part(old, min(old + max(old_size, 4096), vma.end))
    target.start, target.end = new, new + new_size
    if target.flags & VmFlag.HEAP:
        target.flags &= ~VmFlag.HEAP
        target.name = b""
    try:
        for start, stop in amap.mapped_pieces(old, old + kept):
            amap.space.prepare_move(start, start - old + new, (stop - start) >> 12)
            if stop < old + kept:
                yield
    except BaseException:
        target.drop()
        raise
    amap.insert(target)  # from here on nothing fails
    for start, stop in amap.mapped_pieces(old, old + kept):
        amap.space.move(start, start - old + new, (stop - start) >> 12)
        if stop < old + kept:
            yield
    if old_size:
        if flags & MREMAP_DONTUNMAP:
            _unlock_source(amap, old)
        else:
            yield from amap.removing(old, old + old_size)
    whole = amap.vmas.find(new)
    assert whole is not None
    if new_size > kept:
        fill_new(amap, whole, new + kept, new + new_size)
    if whole.flags & VmFlag.LOCKED:
        yield from populate.steps(amap, new, new + new_size)
    return new


def _unlock_source(amap: AddressMap, start: int) -> None:
    """MREMAP_DONTUNMAP: all of the mapping that a part came from is not locked any more."""
    vma = amap.vmas.find(start)
    assert vma is not None
    amap.account(vma, -1)
    vma.flags &= ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
    amap.account(vma, 1)
    amap.join_range(vma.start, vma.end)


@Stepwise
def remap_file_pages(
    amap: AddressMap, start: int, size: int, prot: int, page: int
) -> Steps[None]:
    """remap_file_pages(2): another part of the file in the place of this one. EINVAL."""
    start &= ~PAGE_MASK
    size &= ~PAGE_MASK
    end = start + size
    if prot or not start < end < 1 << 64 or page + (size >> 12) >= 1 << 64:
        raise EINVAL("range")
    first = amap.vmas.find(start)
    if first is None or not first.may_be_shared_for_writing or first.backing is None:
        raise EINVAL("not a shared mapping")
    at = start
    for vma, low, high in amap.parts(start, end):
        same = (vma.flags, vma.prot) == (first.flags, first.prot)
        same = same and vma.file is first.file and vma.backing is first.backing
        if low != at or not same:
            raise EINVAL("more than one mapping")
        at = high
        yield
    if at < end:
        raise EINVAL("more than the mapping")
    if page << 12 > MAX_OFFSET - size:
        raise EOVERFLOW("offset")
    model = first.part(first.start, first.start + 4096)
    model.start, model.end, model.offset = start, end, page << 12
    model.flags = model.flags & KEPT | amap.future_lock()
    amap.count_mapping(model, 1)
    try:
        yield from amap.removing(start, end)
        whole = amap.insert(model)
    except BaseException:
        model.drop()
        raise
    finally:
        amap.count_mapping(model, -1)
    fill_new(amap, whole, start, end)
