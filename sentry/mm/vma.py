"""`Vma`: one range of addresses with the same rights and the same backing."""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from sentry.mm.backing import HostBacking, MappedFile
from sentry.mm.ramfile import RamFile
from sentry.platform.constants import PAGE_MASK
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
