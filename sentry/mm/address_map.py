"""`AddressMap`: the VMAs of an address space, their order, accounting and limits.

The value that all operations (mapping.py, protect.py, …) change. It keeps VMAs and page-table
entries in step: a VMA is cut, dropped or joined here and nowhere else.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from msgspec.structs import replace

from sentry.abi.mman import MCL_FUTURE, MCL_ONFAULT
from sentry.abi.prctl import PR_MDWE_NO_INHERIT
from sentry.abi.resource import RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK
from sentry.errors import EAGAIN, ENOMEM, EPERM
from sentry.mm.layout import (
    MMAP_MIN_ADDR,
    STACK_GUARD_GAP,
    TASK_END,
    ProgramLayout,
    mmap_base,
)
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Backing, Vma, VmFlag
from sentry.mm.vma_list import RUN_MAX, VmaList
from sentry.platform.constants import BLOCK_SIZE
from sentry.platform.memory import AddressSpace
from sentry.platform.windows import WindowRange
from sentry.wait.lock import Lock
from sentry.wait.steps import Steps, WaitingSteps, at_once

MAX_MAPS_ALL: Final = 1 << 20
"""Mappings of all processes: they cost memory of the Sentry, not of the program."""
INFINITY: Final = (1 << 64) - 1
AT_ONCE: Final = 8 << 20
"""Bytes whose entries go, or change, between two looks at the time."""
PIECE_VMAS: Final = 16
"""VMAs that are removed between two looks at the time: a flush of translations is for all."""


class Limits(Protocol):
    """Whose resource limits hold: a task, as this room sees it."""

    def rlimit(self, resource: int) -> int: ...


class NoLimits:
    """The kernel's own address spaces, and tests."""

    def rlimit(self, resource: int) -> int:
        """Everything is allowed, but the stack has Linux's default size."""
        return 8 << 20 if resource == RLIMIT_STACK else INFINITY


class AddressMap:
    """VMAs over one tree of page tables."""

    __slots__ = (
        "_hole_size", "_hole_top", "brk_end", "brk_start", "committed_pages", "data_pages",
        "exec_pages", "ipc_lock", "layout", "limits", "lock", "lock_future", "locked_pages", "mdwe",
        "mmap_base", "peak_total_pages", "randomize", "space", "stack_pages", "total_pages", "vmas",
        "windows_taken",
    )  # fmt: skip

    def __init__(self, space: AddressSpace, limits: Limits, randomize: bool = True) -> None:
        self.space = space
        self.limits = limits
        self.vmas = VmaList(space.ram)
        self.lock = Lock()
        """mmap_lock: an operation that goes on over several steps has it. Between two of them the
        VMAs agree with the entries, so what Linux does without the lock need not look."""
        self.layout = ProgramLayout()
        self.randomize = randomize
        self.mmap_base = mmap_base(limits.rlimit(RLIMIT_STACK), randomize)
        self.total_pages = 0
        self.data_pages = 0
        self.stack_pages = 0
        self.locked_pages = 0
        self.exec_pages = 0
        self.committed_pages = 0
        self.peak_total_pages = 0
        self._hole_top = self.mmap_base
        self._hole_size = 0
        """No free range of `_hole_size` bytes or more lies between `_hole_top` and mmap_base."""
        self.brk_start = self.brk_end = 0
        self.lock_future = 0
        """MCL_FUTURE | MCL_ONFAULT after mlockall(2)."""
        self.ipc_lock = False
        """CAP_IPC_LOCK of the caller: no limit on locked memory; the system call sets it."""
        self.windows_taken = space.ram.windows.taken
        """Up to here a page that was gone is explained (`faults.file_gone`)."""
        self.mdwe = 0
        """PR_MDWE_*: memory that can be written never becomes executable."""

    def empty_like(self, space: AddressSpace, limits: Limits) -> AddressMap:
        """A map without VMAs, with what a child inherits."""
        child = AddressMap(space, limits, self.randomize)
        child.mmap_base = self.mmap_base
        child.forget_holes()
        child.brk_start, child.brk_end = self.brk_start, self.brk_end
        child.layout = replace(self.layout)
        child.ipc_lock = self.ipc_lock
        child.mdwe = self.inherited_mdwe
        return child

    @property
    def inherited_mdwe(self) -> int:
        """PR_MDWE_* of a child, or of the next program: mmf_init_flags()."""
        return 0 if self.mdwe & PR_MDWE_NO_INHERIT else self.mdwe

    def destroy(self) -> None:
        """Give everything back, the VMAs of a large one in their turn."""
        steps = self.destroying()
        next(steps, None)
        rest = range(-(-len(self.vmas) // PIECE_VMAS) + 1)
        self.space.ram.let_go(rest, lambda _: next(steps, None))

    def destroying(self) -> Steps[None]:
        """`destroy` in steps. Preconditions: nobody uses it any more."""
        self.space.destroy()
        self.layout.program = None
        while len(self.vmas):
            for vma in self.vmas.take_last(PIECE_VMAS):
                self._let_go(vma)
            yield
        self.space.ram.commitment.pages -= self.committed_pages
        self.committed_pages = 0
        self.total_pages = self.data_pages = self.stack_pages = self.locked_pages = 0

    # --- accounting

    def account(self, vma: Vma, sign: int) -> None:
        """Count the pages of a VMA (1), or do not any more (-1)."""
        pages = sign * vma.pages
        self.total_pages += pages
        self.peak_total_pages = max(self.peak_total_pages, self.total_pages)
        if vma.flags & VmFlag.GROWSDOWN:
            self.stack_pages += pages
        elif vma.private_writable:
            self.data_pages += pages
        if vma.accountable:
            self.committed_pages += pages
            self.space.ram.commitment.pages += pages
        if vma.flags & VmFlag.LOCKED:
            self.locked_pages += pages
        if vma.prot & 4 and not vma.prot & 2:
            self.exec_pages += pages

    def inherit_accounts(self, parent: AddressMap) -> None:
        """Count all that its parent has, before a child gets it."""
        self.total_pages, self.data_pages = parent.total_pages, parent.data_pages
        self.stack_pages, self.exec_pages = parent.stack_pages, parent.exec_pages
        self.locked_pages = parent.locked_pages
        self.committed_pages = parent.committed_pages
        self.space.ram.commitment.pages += parent.committed_pages

    def check_expand(self, pages: int, data: bool, charge: bool = False) -> None:
        """RLIMIT_AS, RLIMIT_DATA: may_expand_vm(), mm/vma.c; `charge`: counts as committed."""
        if (self.total_pages + pages) << 12 > self.limits.rlimit(RLIMIT_AS):
            raise ENOMEM("RLIMIT_AS")
        if data:
            limit = self.limits.rlimit(RLIMIT_DATA)
            # Zero forbids only brk: Linux allows the rest for Valgrind's sake.
            if limit and (self.data_pages + pages) << 12 > limit:
                raise ENOMEM("RLIMIT_DATA")
        if charge:
            self.check_promise(pages)

    def check_promise(self, pages: int) -> None:
        """vm.overcommit_memory. Raises: ENOMEM."""
        ram = self.space.ram
        if not ram.commitment.allows(pages, ram.limit):
            raise ENOMEM("more than there is memory (overcommit)")

    def check_locked(self, pages: int) -> None:
        """RLIMIT_MEMLOCK: mlock_future_ok(), mm/mlock.c. Raises: EAGAIN."""
        limit = INFINITY if self.ipc_lock else self.limits.rlimit(RLIMIT_MEMLOCK)
        if (self.locked_pages + pages) << 12 > limit:
            raise EAGAIN("RLIMIT_MEMLOCK")

    def future_lock(self) -> int:
        """What mlockall(2) said about new mappings: flags of a VMA."""
        if not self.lock_future & MCL_FUTURE:
            return 0
        on_fault = VmFlag.LOCKONFAULT if self.lock_future & MCL_ONFAULT else 0
        return VmFlag.LOCKED | on_fault

    def check_count(self, more: int) -> None:
        """Room for more VMAs: vm.max_map_count. Raises: ENOMEM."""
        if len(self.vmas) + more > self.space.ram.commitment.max_map_count:
            raise ENOMEM("vm.max_map_count")
        if self.space.ram.vmas + more > MAX_MAPS_ALL:
            raise ENOMEM("the sandbox's mappings")

    # --- VMAs

    def insert(self, vma: Vma) -> Vma:
        """Add a VMA that already holds its file; joined with its neighbours where possible."""
        self.account(vma, 1)
        before = self.vmas.before(vma.start)
        if before is None or not vma.continues(before):
            self.vmas.add(vma)
            self.count_mapping(vma, 1)
            return self._join(vma)
        if vma.windows:
            self.vmas.add(vma)
            self.count_mapping(vma, 1)
            return self._join(self._merge(before, vma))
        before.end = vma.end
        if vma.file is not None:
            vma.file.decref()
        return self._join(before)

    def count_mapping(self, vma: Vma, sign: int) -> None:
        """The backing of a VMA has one more (1) or one less (-1) of this address space."""
        backing = vma.backing
        if backing is None:
            return
        count = backing.mappers.get(self, 0) + sign
        if count:
            backing.mappers[self] = count
            return
        del backing.mappers[self]
        if isinstance(backing, RamFile) and backing.transient and not backing.mappers:
            backing.close()

    def _join(self, vma: Vma) -> Vma:
        """Merge with what lies directly behind."""
        after = self.vmas.find(vma.end)
        if after is not None and after.continues(vma):
            return self._merge(vma, after)
        return vma

    def _merge(self, low: Vma, high: Vma) -> Vma:
        low.end = high.end
        self.vmas.remove(high)
        self.count_mapping(high, -1)
        for piece in high.windows:
            if piece in low.windows:
                piece.put()
            else:
                low.windows.append(piece)
        high.windows = []
        if high.file is not None:
            high.file.decref()
        return low

    def cut(self, addr: int) -> None:
        """Make `addr` a boundary between VMAs. Raises: ENOMEM (too many)."""
        vma = self.vmas.find(addr)
        if vma is None or vma.start == addr:
            return
        self.check_count(1)
        high = vma.part(addr, vma.end)
        vma.end = addr
        self.vmas.add(high)
        self.count_mapping(high, 1)

    def isolate(self, start: int, end: int) -> list[Vma]:
        """The VMAs in [start, end), cut so that none reaches outside."""
        self.cut(start)
        self.cut(end)
        return self.vmas.overlapping(start, end)

    def join_range(self, start: int, end: int) -> None:
        """Merge what can be merged after a change to [start, end)."""
        vma = self.vmas.after(max(start - 1, 0))
        while vma is not None and vma.end <= end:
            following = self.vmas.after(vma.end)
            if following is not None and following.continues(vma):
                vma = self._merge(vma, following)
            else:
                vma = following

    def parts(self, start: int, end: int) -> Iterator[tuple[Vma, int, int]]:
        """VMAs in [start, end), and where each starts and ends within; who goes on after a while
        finds them as they are then."""
        while start < end:
            vmas, behind = self.vmas.piece(start, end)
            for vma in vmas:
                yield vma, max(vma.start, start), min(vma.end, end)
            start = behind

    def mapped_pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A range in pieces that have entries, of which a step can change one; blocks are whole."""
        while start < end:
            stop = min(start + AT_ONCE & -BLOCK_SIZE, end)
            yield start, stop
            start = self.space.next(stop, end)

    def changing(
        self, start: int, end: int, change: Callable[[Vma], Iterable[None] | None]
    ) -> Steps[None]:
        """Apply a change, which may have steps, to every VMA in the range up to the first hole.

        Raises: ENOMEM.
        """
        at = start
        try:
            self.cut(start)
            self.cut(end)
            while at < end:
                vma = self.vmas.find(at)
                if vma is None:
                    raise ENOMEM("a hole")
                more = change(vma)
                if more is not None:
                    yield from more
                at = vma.end
                before = self.vmas.before(vma.start)
                if before is not None and vma.continues(before):
                    self._merge(before, vma)
                yield
        finally:
            for edge in {start, at, end}:
                self.join_range(edge, edge)

    def check_whole(self, start: int, end: int) -> Steps[None]:
        """Whether all of a range is mapped. Raises: ENOMEM."""
        at = start
        for _, low, high in self.parts(start, end):
            if low > at:
                break
            at = high
            yield
        if at < end:
            raise ENOMEM("a hole")

    def remove(self, start: int, end: int, entries: bool = True) -> None:
        """Unmap [start, end), with or without its entries.

        Raises: EPERM (mseal), ENOMEM (too many VMAs, no tables).
        """
        at_once(self.removing(start, end, entries))

    def removing(self, start: int, end: int, entries: bool = True) -> Steps[None]:
        """`remove` in steps: all that can go wrong does so before anything is removed."""
        doomed: list[Vma] = []
        for vma, _, _ in self.parts(start, end):
            if vma.flags & VmFlag.SEALED:
                raise EPERM("sealed")
            doomed.append(vma)
            if not len(doomed) % PIECE_VMAS:
                yield
        if not doomed:
            return
        first = doomed[0]
        if len(doomed) == 1 and (first.start < start) != (first.end > end):
            low, high = max(start, first.start), min(end, first.end)
            if entries:
                yield from self._unmapping(low, high)
            self._shorten(first, low, high)
            return
        if len(doomed) == 1 and first.start < start and first.end > end:
            self.check_count(1)
        if first.start < start or doomed[-1].end > end:
            doomed = self.isolate(start, end)
        while doomed:
            piece = doomed[-PIECE_VMAS:]
            del doomed[-PIECE_VMAS:]
            if entries:
                yield from self._unmapping(piece[0].start, piece[-1].end)
            self._remove(piece)
            if doomed:
                yield

    def _unmapping(self, start: int, end: int) -> Iterable[None]:
        """The entries of a range go, in steps where it is large."""
        if end - start > AT_ONCE:
            return self._unmapping_much(start, end)
        self.space.unmap(start, (end - start) >> 12)
        return ()

    def _unmapping_much(self, start: int, end: int) -> Steps[None]:
        """Its ends first, where a large one may have to be split."""
        top = end - 1 & -BLOCK_SIZE
        self.space.unmap(top, (end - top) >> 12)
        end = top
        while end - (start := self.space.next(start, end)) > AT_ONCE:
            stop = start + AT_ONCE & -BLOCK_SIZE
            self.space.unmap(start, (stop - start) >> 12)
            start = stop
            yield
        self.space.unmap(start, (end - start) >> 12)

    def _remove(self, doomed: list[Vma]) -> None:
        """Neighbours, as a whole, whose entries are gone."""
        high = doomed[-1].end
        for vma in reversed(doomed):
            self.vmas.remove(vma)
            self.account(vma, -1)
            self._let_go(vma)
        self._freed(high)

    def _let_go(self, vma: Vma) -> None:
        """It is no mapping any more: a file that this closes finds that nobody maps it."""
        self.count_mapping(vma, -1)
        vma.drop()

    def _shorten(self, vma: Vma, start: int, end: int) -> None:
        """Remove [start, end), one end of a VMA."""
        self.account(vma, -1)
        if vma.start == start:
            if vma.backing is not None:
                vma.offset += end - start
            self.vmas.start_at(vma, end)
        else:
            self.vmas.end_at(vma, start)
        self.account(vma, 1)
        self._freed(end)

    def _freed(self, end: int) -> None:
        """A range that ended there is free: above what is free around it nothing has changed."""
        if end > self._hole_top:
            above = self.vmas.after(end)
            top = self.mmap_base if above is None else above.start
            self._hole_top = min(top, self.mmap_base)

    def forget_holes(self) -> None:
        """Look for free ranges from mmap_base on."""
        self._hole_top, self._hole_size = self.mmap_base, 0

    def backing_lost(self, backing: Backing, start: int, end: int | None, private: bool) -> None:
        """Bytes [start, end) of a file go away: drop the entries that show them, and with
        `private` those of copies, too. Of a map that is being destroyed they have gone."""
        at_once(self._losing(backing, start, end, private))

    def losing(self, backing: Backing, start: int) -> WaitingSteps[None]:
        """The same of all bytes from `start` on, copies too, in steps: with the lock, so that
        mappings stay where they are."""
        while self.lock.holder is not None:
            yield self.lock.until_free
        self.lock.take()
        try:
            yield from self._losing(backing, start, None, True)
        finally:
            self.lock.let_go()

    def losing_frames(self, backing: Backing, first: int, frames: array[int]) -> Steps[None]:
        """Entries go that show these frames, which were the pages of a file from `first` on; copies
        stay. Without the lock, which whoever makes the hole may have: nobody maps them any more,
        and what another thread moves meanwhile has them until it ends."""
        at = 0
        while True:
            vmas, at = self.vmas.backed_piece(at)
            for vma in vmas:
                if vma.backing is not backing:
                    continue
                if self.space.is_gone:
                    return
                page = vma.offset >> 12
                low, high = max(first, page), min(first + len(frames), page + vma.pages)
                if low < high:
                    shown = frames[low - first : high - first]
                    self.space.forget_list(vma.start + (low - page << 12), shown)
            if not at:
                return
            yield

    def _losing(self, backing: Backing, start: int, end: int | None, private: bool) -> Steps[None]:
        for at, vma in enumerate(self.vmas.backed()):
            if not at % RUN_MAX:
                yield
            if vma.backing is not backing:
                continue
            if self.space.is_gone:
                return
            low = vma.start + max(0, start - vma.offset)
            high = vma.end if end is None else min(vma.end, vma.start + end - vma.offset)
            if low >= high:
                continue
            if vma.shared or private:
                for _ in self._unmapping(low, high):
                    yield
                    if self.space.is_gone:  # of a child that is never born, for example
                        return
                yield
            elif isinstance(backing, RamFile):  # a mapping may be larger than memory
                pages = (high - low) >> 12
                first = vma.file_offset(low) >> 12
                for page, stop in backing.parts(first, first + pages):
                    frames = backing.frames(page, stop - page)
                    self.space.forget_list(low + (page - first << 12), frames)

    def losing_window(self, backing: Backing, piece: WindowRange) -> Steps[None]:
        """A piece of a FILES window goes: drop the entries into it; private copies stay. Without
        the lock: what another thread moves meanwhile keeps it."""
        at = 0
        while True:
            vmas, at = self.vmas.backed_piece(at)
            for vma in vmas:
                if vma.backing is backing and piece in vma.windows:
                    if not self.space.is_gone:
                        self.space.forget_window(vma.start, vma.pages, piece.gpa, piece.size)
                    vma.windows.remove(piece)
                    piece.put()
            if not at:
                return
            yield

    # --- free ranges

    def find_free(self, length: int, align: int, low_2g: bool = False) -> int:
        """An address for a new mapping: top down below mmap_base, else bottom up. ENOMEM."""
        found: int | None
        if low_2g:
            found = self.vmas.gap_above(0x40000000, length, 0x80000000, align)
            if found is None:
                raise ENOMEM("nothing free below 2 GiB")
            return found
        top = self._hole_top if length >= self._hole_size > 0 else self.mmap_base
        found = self.vmas.gap_below(top, length, MMAP_MIN_ADDR, align)
        if found is not None:
            if align == 4096:
                self._hole_top, self._hole_size = found, length
            return found
        if align != 4096:
            return self.find_free(length, 4096)
        self.forget_holes()
        found = self.vmas.gap_above(self.mmap_base, length, TASK_END, align)
        if found is None:
            raise ENOMEM("no free range")
        return found

    def clear_of_stacks(self, start: int, end: int) -> bool:
        """Whether [start, end) is free, with the guard gap kept to a stack above."""
        after = self.vmas.after(start)
        if after is None:
            return True
        gap = STACK_GUARD_GAP if after.flags & VmFlag.GROWSDOWN else 0
        return after.start - gap >= end


def alignment(length: int, anonymous: bool) -> int:
    """Anonymous mappings of whole 2 MiB start where 2 MiB entries fit: __get_unmapped_area().

    The stacks of threads, with a guard page each, lie side by side.
    """
    return BLOCK_SIZE if anonymous and not length % BLOCK_SIZE else 4096
