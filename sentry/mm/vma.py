"""`Vma`: one range of addresses with the same rights and the same backing; `VmaList`: all of them.

The list is two parallel lists in address order, start addresses and VMAs, searched by bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from sentry.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from sentry.mm.backing import HostBacking, MappedFile
from sentry.mm.ramfile import RamFile
from sentry.platform.constants import PAGE_MASK
from sentry.platform.memory import Ram
from sentry.platform.windows import WindowRange

Backing = HostBacking | RamFile

PROT_ALL: Final = PROT_READ | PROT_WRITE | PROT_EXEC
U64: Final = (1 << 64) - 1
MAX_OFFSET: Final = (1 << 63) - 1


def page_up(value: int) -> int:
    """Rounded up to a page."""
    return (value + PAGE_MASK) & ~PAGE_MASK


def page_align(length: int) -> int:
    """PAGE_ALIGN() of an unsigned long: what is too large becomes 0."""
    return page_up(length) & U64


class VmFlag:
    """What a mapping is, besides its rights: VM_* of include/linux/mm.h, our own numbering.

    Plain integers: an IntFlag costs a microsecond per operation.
    """

    SHARED: Final = 1
    GROWSDOWN: Final = 2
    NORESERVE: Final = 4
    LOCKED: Final = 8
    LOCKONFAULT: Final = 16
    DONTCOPY: Final = 32
    WIPEONFORK: Final = 64
    DONTDUMP: Final = 128
    STACK: Final = 256
    """MAP_STACK, and what the loader made for the program."""
    MAYWRITE: Final = 512
    """mprotect may add PROT_WRITE (not: a shared mapping of a file opened read-only)."""
    MAYEXEC: Final = 1024
    HUGEPAGE: Final = 2048
    NOHUGEPAGE: Final = 4096
    RANDOM: Final = 16384
    SEQUENTIAL: Final = 32768
    SPECIAL: Final = 65536
    """Made by the kernel ([vdso]): not changed by madvise, not counted as data."""
    HEAP: Final = 1 << 17
    SEALED: Final = 1 << 18
    """mseal(2)."""
    DROPPABLE: Final = 1 << 19
    SECRET: Final = 1 << 20
    """memfd_secret(2), and the vDSO's clock page: no other process sees it."""
    FORKED: Final = 1 << 21
    """Private memory that came with fork(2): the pages are known to the parent's mapping too, so
    it does not become one with what is mapped later (anon_vma_compatible)."""


class Vma:
    """A mapping. `offset` is the byte of the backing that lies at `start`."""

    __slots__ = (
        "backing", "end", "file", "flags", "name", "offset", "policy", "prot", "start", "windows",
    )  # fmt: skip

    def __init__(
        self,
        start: int,
        end: int,
        prot: int,
        flags: int,
        backing: Backing | None = None,
        offset: int = 0,
        file: MappedFile | None = None,
        name: bytes = b"",
    ) -> None:
        self.start = start
        self.end = end
        self.prot = prot
        self.flags = flags
        self.backing = backing
        self.offset = offset
        self.file = file
        self.name = name
        self.policy: tuple[int, int] | None = None
        """mbind(2): (mode, mask of nodes)."""
        self.windows: list[WindowRange] = []
        """Pieces of FILES windows that entries of this mapping point to."""

    def __repr__(self) -> str:
        return f"<vma {self.start:#x}-{self.end:#x} prot {self.prot} flags {self.flags:#x}>"

    @property
    def pages(self) -> int:
        """Length in pages."""
        return (self.end - self.start) >> 12

    @property
    def shared(self) -> bool:
        """Stores are seen by everybody who maps the same backing."""
        return bool(self.flags & VmFlag.SHARED)

    @property
    def may_be_shared_for_writing(self) -> bool:
        """VM_SHARED, where `shared` is VM_MAYSHARE: not of a file opened for reading only."""
        return self.shared and (self.file is None or self.file.writable)

    @property
    def private_writable(self) -> bool:
        """Counts as data: is_data_mapping(), mm/internal.h."""
        return self.prot & 2 != 0 and not self.flags & (
            VmFlag.SHARED | VmFlag.GROWSDOWN | VmFlag.SPECIAL
        )

    @property
    def accountable(self) -> bool:
        """Private memory that is promised: VM_ACCOUNT."""
        return self.prot & 2 != 0 and not self.flags & (
            VmFlag.SHARED | VmFlag.SPECIAL | VmFlag.NORESERVE
        )

    def file_offset(self, addr: int) -> int:
        """Where in the backing `addr` is."""
        return self.offset + addr - self.start

    def hold(self) -> None:
        """This VMA (also) refers to its file and its windows."""
        if self.file is not None:
            self.file.incref()
        for piece in self.windows:
            piece.get()

    def drop(self) -> None:
        """It does not any more. Preconditions: its entries are unmapped."""
        for piece in self.windows:
            piece.put()
        self.windows = []
        if self.file is not None:
            self.file.decref()

    def part(self, start: int, end: int) -> Vma:
        """A VMA for a part of this one, with holds of its own."""
        copy = Vma(
            start,
            end,
            self.prot,
            self.flags,
            self.backing,
            self.file_offset(start) if self.backing is not None else 0,
            self.file,
            self.name,
        )
        copy.policy = self.policy
        copy.windows = list(self.windows)
        copy.hold()
        return copy

    def continues(self, before: Vma) -> bool:
        """Whether this VMA and the one that ends where it starts can be one."""
        return (
            before.end == self.start
            and before.prot == self.prot
            and before.flags == self.flags
            and before.backing is self.backing
            and before.file is self.file
            and before.name == self.name
            and before.policy == self.policy
            and (self.backing is None or before.file_offset(self.start) == self.offset)
            and not self.flags & VmFlag.SPECIAL
        )

    def window(self, addr: int, pages: int) -> tuple[WindowRange, int]:
        """A window piece for the file's page at `addr` and the gpa of that page there."""
        backing = self.backing
        assert isinstance(backing, HostBacking)
        offset = self.file_offset(addr)
        writable = self.shared and backing.writable and bool(self.flags & VmFlag.MAYWRITE)
        for piece in self.windows:
            if piece.writable == writable and piece.covers(offset, pages << 12):
                return piece, piece.gpa + offset - piece.offset
        piece = backing.window(offset, pages << 12, writable)
        self.windows.append(piece)
        return piece, piece.gpa + offset - piece.offset


class VmaList:
    """All VMAs of an address space, in order; they do not overlap."""

    __slots__ = ("_ram", "_starts", "_vmas")

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self._starts: list[int] = []
        self._vmas: list[Vma] = []

    def __len__(self) -> int:
        return len(self._vmas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def __reversed__(self) -> Iterator[Vma]:
        return reversed(self._vmas)

    def find(self, addr: int) -> Vma | None:
        """The VMA that contains `addr`."""
        index = bisect_right(self._starts, addr) - 1
        if index >= 0 and addr < self._vmas[index].end:
            return self._vmas[index]
        return None

    def after(self, addr: int) -> Vma | None:
        """The first VMA that ends above `addr`."""
        index = bisect_right(self._starts, addr) - 1
        if index >= 0 and addr < self._vmas[index].end:
            return self._vmas[index]
        index += 1
        return self._vmas[index] if index < len(self._vmas) else None

    def before(self, addr: int) -> Vma | None:
        """The last VMA that starts below `addr`."""
        index = bisect_left(self._starts, addr) - 1
        return self._vmas[index] if index >= 0 else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All VMAs that have an address in [start, end)."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._vmas[first].end <= start:
            first += 1
        return self._vmas[first : bisect_left(self._starts, end)]

    def free(self, start: int, end: int) -> bool:
        """Nothing lies in [start, end)."""
        found = self.after(start)
        return found is None or found.start >= end

    def add(self, vma: Vma) -> None:
        """Insert; the range must be free."""
        index = bisect_left(self._starts, vma.start)
        self._starts.insert(index, vma.start)
        self._vmas.insert(index, vma)
        self._ram.vmas += 1

    def remove(self, vma: Vma) -> None:
        """Take out."""
        index = bisect_left(self._starts, vma.start)
        del self._starts[index], self._vmas[index]
        self._ram.vmas -= 1

    def restart(self, vma: Vma, start: int) -> None:
        """Change where a VMA starts (nothing may lie between)."""
        index = bisect_left(self._starts, vma.start)
        self._starts[index] = vma.start = start

    def gap_below(self, end: int, length: int, low: int, align: int) -> int | None:
        """The highest aligned address in [low, end - length] with `length` free bytes."""
        index = bisect_left(self._starts, end) - 1
        while True:
            floor = self._vmas[index].end if index >= 0 else low
            if end - max(floor, low) >= length:
                found = (end - length) & ~(align - 1)
                if found >= max(floor, low):
                    return found
            if index < 0 or floor <= low:
                return None
            end = self._vmas[index].start
            index -= 1

    def gap_above(self, start: int, length: int, high: int, align: int) -> int | None:
        """The lowest aligned address from `start` on with `length` free bytes below `high`."""
        index = bisect_right(self._starts, start) - 1
        if index >= 0 and self._vmas[index].end > start:
            start = self._vmas[index].end
        index += 1
        while True:
            start = (start + align - 1) & ~(align - 1)
            if start + length > high:
                return None
            if index >= len(self._vmas) or self._starts[index] >= start + length:
                return start
            start = max(start, self._vmas[index].end)
            index += 1
