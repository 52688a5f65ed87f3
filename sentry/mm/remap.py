"""mremap(2), in the order of checks of mm/mremap.c."""

from __future__ import annotations

import itertools
from typing import Final

from sentry.abi.mman import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE
from sentry.errors import EAGAIN, EFAULT, EINVAL, ENOMEM, EOVERFLOW, EPERM
from sentry.mm.layout import MMAP_MIN_ADDR, TASK_END
from sentry.mm.locking import Locking
from sentry.mm.mapping import MAX_OFFSET, page_up
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import PAGE_MASK

ALL_FLAGS = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP
KEPT: Final = VmFlag.SHARED | VmFlag.MAYWRITE | VmFlag.MAYEXEC | VmFlag.LOCKED
"""What a mapping is after remap_file_pages(2), too: the rest is as for a new one."""


class Remapping(Locking):
    """Growing, shrinking and moving mappings."""

    def mremap(self, old: int, old_size: int, new_size: int, flags: int, new: int = 0) -> int:
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
            self._check_target(old, old_size, new_size, new)
        if flags & MREMAP_FIXED and new < MMAP_MIN_ADDR:
            raise EINVAL("new address")
        vma = self.vmas.find(old)
        if vma is None:
            raise EFAULT("not mapped")
        if vma.flags & VmFlag.SEALED:
            raise EPERM("sealed")
        placed = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
        if not placed and new_size <= old_size:
            if new_size < old_size:
                if old + old_size > TASK_END:
                    raise EINVAL("range")
                self.remove(old + new_size, old + old_size)
            return old
        if placed:
            vma, old_size = self._make_room(old, old_size, new_size, flags, new)
        self._check_source(vma, old, old_size, new_size, flags)
        if not placed and self._extend(vma, old, old_size, new_size):
            return old
        if not flags & MREMAP_MAYMOVE:
            raise ENOMEM("no room to grow")
        return self._move(vma, old, (old_size, new_size), flags, new)

    @staticmethod
    def _check_target(old: int, old_size: int, new_size: int, new: int) -> None:
        if new & PAGE_MASK or new + new_size > TASK_END:
            raise EINVAL("new address")
        if old + old_size > new and new + new_size > old:
            raise EINVAL("the ranges overlap")

    def _make_room(
        self, old: int, old_size: int, new_size: int, flags: int, new: int
    ) -> tuple[Vma, int]:
        """The start of mremap_to(): what lies at the target goes, and what the source has too
        much. The source as it is then, and its size."""
        self._check_count(3)
        if flags & MREMAP_FIXED:
            self.remove(new, new + new_size)
        if new_size < old_size:
            if old + old_size > TASK_END:
                raise EINVAL("range")
            self.remove(old + new_size, old + old_size)
            old_size = new_size
        vma = self.vmas.find(old)
        if vma is None:
            raise EFAULT("the source was unmapped")
        return vma, old_size

    def _check_source(self, vma: Vma, old: int, old_size: int, new_size: int, flags: int) -> None:
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
            try:
                self._check_locked(grow)
            except EAGAIN:
                raise EAGAIN("RLIMIT_MEMLOCK") from None
        if grow > 0:
            charge = vma.private_writable and not vma.flags & VmFlag.NORESERVE
            self._check_expand(grow, vma.private_writable, charge)

    def remap_file_pages(self, start: int, size: int, prot: int, page: int) -> None:
        """remap_file_pages(2): another part of the file in the place of this one. EINVAL."""
        start &= ~PAGE_MASK
        size &= ~PAGE_MASK
        end = start + size
        if prot or not start < end < 1 << 64 or page + (size >> 12) >= 1 << 64:
            raise EINVAL("range")
        vmas = self.vmas.overlapping(start, end)
        first = self.vmas.find(start)
        if first is None or not first.may_be_shared_for_writing or first.backing is None:
            raise EINVAL("not a shared mapping")
        for before, vma in itertools.pairwise(vmas):
            same = (vma.flags, vma.prot) == (first.flags, first.prot)
            same = same and vma.file is first.file and vma.backing is first.backing
            if vma.start != before.end or not same:
                raise EINVAL("more than one mapping")
        if vmas[-1].end < end:
            raise EINVAL("more than the mapping")
        if page << 12 > MAX_OFFSET - size:
            raise EOVERFLOW("offset")
        model = first.part(first.start, first.start + 4096)
        model.start, model.end, model.offset = start, end, page << 12
        model.flags = model.flags & KEPT | self._future_lock()
        self._mapped(model, 1)
        try:
            self.remove(start, end)
            whole = self.insert(model)
        finally:
            self._mapped(model, -1)
        self.populate_new(whole, start, end)

    def _extend(self, vma: Vma, old: int, old_size: int, new_size: int) -> bool:
        """Grow in place if the VMA ends here and what follows is free."""
        end, new_end = old + old_size, old + new_size
        if vma.end != end or new_end > TASK_END or not self._clear_of_stacks(end, new_end):
            return False
        more = vma.part(vma.start, vma.end)
        if more.backing is not None:
            more.offset = vma.file_offset(end)
        more.start, more.end = end, new_end
        whole = self.insert(more)
        self.populate_new(whole, end, new_end)
        if whole.flags & VmFlag.LOCKED:
            self.populate(end, new_end)
        return True

    def _move(self, vma: Vma, old: int, sizes: tuple[int, int], flags: int, new: int) -> int:
        old_size, new_size = sizes
        if not flags & MREMAP_FIXED:
            self._check_count(3)
            align = self.alignment(new_size, vma.backing is None)
            # A hint that keeps large entries whole: the same place within 2 MiB.
            new = self.find_free(new_size, align)
        kept = min(old_size, new_size)
        target = vma.part(old, min(old + max(old_size, 4096), vma.end))
        target.start, target.end = new, new + new_size
        if target.flags & VmFlag.HEAP:
            target.flags &= ~VmFlag.HEAP
            target.name = b""
        if kept:
            self.space.move(old, new, kept >> 12)
        self.insert(target)
        if old_size:
            if flags & MREMAP_DONTUNMAP:
                self._unlock_source(old)
            else:
                self.remove(old, old + old_size)
        whole = self.vmas.find(new)
        assert whole is not None
        if new_size > kept:
            self.populate_new(whole, new + kept, new + new_size)
        if whole.flags & VmFlag.LOCKED:
            self.populate(new, new + new_size)
        return new

    def _unlock_source(self, start: int) -> None:
        """MREMAP_DONTUNMAP: all of the mapping that a part came from is not locked any more."""
        vma = self.vmas.find(start)
        assert vma is not None
        self._account(vma, -1)
        vma.flags &= ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
        self._account(vma, 1)
        self.join_range(vma.start, vma.end)
