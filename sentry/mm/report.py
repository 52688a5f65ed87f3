"""What /proc/PID shows of an address space: maps, smaps, statm, status."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from sentry.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from sentry.mm.backing import MappedFile
from sentry.mm.layout import ProgramLayout
from sentry.mm.ramfile import RamFile
from sentry.mm.usermem import UserMemory
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.memory import RO_WINDOW

Describe = Callable[[MappedFile], tuple[int, int, int, bytes]]
"""(major, minor, inode, path) of an open file, as the reader of /proc sees it."""


PM_FILE: Final = 1 << 61
PM_PRESENT: Final = 1 << 63
"""Bits of an entry of pagemap."""
GATE_LINE = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0".ljust(73) + b"[vsyscall]\n"
"""The page of vsyscalls, which are emulated: get_gate_vma(), arch/x86/entry/vsyscall."""


class Residency(NamedTuple):
    """Resident pages of a range."""

    anonymous: int
    file: int
    exclusive: int
    shared: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.anonymous + self.file


class Report(UserMemory):
    """Sizes and tables."""

    _peak_resident = 0

    def _copied_layout(self) -> ProgramLayout:
        return replace(self.layout)

    # --- sizes

    def residency(self, vma: Vma) -> Residency:
        """How much of a mapping the host has in memory."""
        in_ram, file, own, several = self.space.count(vma.start, vma.pages)
        if vma.backing is not None and vma.shared:
            return Residency(0, in_ram + file, own, in_ram + file - own)
        return Residency(in_ram, file, own, several + file)

    def resident_pages(self) -> int:
        """RSS in pages."""
        total = sum(sum(self.space.count(v.start, v.pages)[:2]) for v in self.vmas)
        self._peak_resident = max(self._peak_resident, total)
        return total

    def peak_pages(self) -> int:
        """The largest RSS seen (ru_maxrss); resident memory is looked at only when asked for."""
        self.resident_pages()
        return self._peak_resident

    def statm(self) -> tuple[int, int, int, int, int]:
        """/proc/PID/statm in pages: size, resident, shared, text, data (with stack)."""
        parts = [self.residency(vma) for vma in self.vmas]
        text = (self.layout.end_code + 4095) // 4096 - self.layout.start_code // 4096
        return (
            self.total_pages,
            sum(p.total for p in parts),
            sum(p.file for p in parts),
            max(text, 0),
            self.data_pages + self.stack_pages,
        )

    # --- maps

    def name_of(self, vma: Vma) -> bytes:
        """[heap], [stack], [vdso]… of a mapping without a file."""
        if vma.name or vma.file is not None:
            return vma.name
        if vma.start <= self.layout.start_stack < vma.end and self.layout.start_stack:
            return b"[stack]"
        return b""

    def maps_line(self, vma: Vma, describe: Describe) -> bytes:
        """A line of /proc/PID/maps: show_map_vma(), fs/proc/task_mmu.c."""
        rights = (
            ("r" if vma.prot & PROT_READ else "-")
            + ("w" if vma.prot & PROT_WRITE else "-")
            + ("x" if vma.prot & PROT_EXEC else "-")
            + ("s" if vma.shared else "p")
        )
        if vma.file is not None:
            major, minor, inode, path = describe(vma.file)
            offset = vma.offset
        else:
            major, minor, inode, path = 0, int(vma.backing is not None), 0, self.name_of(vma)
            offset = vma.offset if vma.backing is not None else 0
        line = (
            f"{vma.start:08x}-{vma.end:08x} {rights} {offset:08x} {major:02x}:{minor:02x} {inode} "
        ).encode()
        if path:
            line = line.ljust(73) + path.replace(b"\n", b"\\012")
        return line + b"\n"

    def maps(self, describe: Describe) -> bytes:
        """/proc/PID/maps."""
        return b"".join(self.maps_line(vma, describe) for vma in self.vmas) + GATE_LINE

    def smaps(self, describe: Describe) -> Iterator[bytes]:
        """/proc/PID/smaps, a piece for each mapping."""
        for vma in self.vmas:
            yield (
                self.maps_line(vma, describe)
                + self._details([(vma.pages * 4, self.residency(vma), vma)])
                + b"VmFlags: "
                + vm_flags(vma)
                + b"\n"
            )
        yield GATE_LINE + self._details([(4, Residency(0, 0, 0, 0), None)]) + b"VmFlags: ex \n"

    def pagemap(self, start: int, end: int) -> bytes:
        """/proc/PID/pagemap of the pages in [start, end)."""
        table = array("Q", bytes((end - start) >> 9))
        for vma in self.vmas.overlapping(start, end):
            low, high = max(vma.start, start), min(vma.end, end)
            resident = self.space.resident(low, (high - low) >> 12)
            first = (low - start) >> 12
            for number in range(len(resident)):
                if resident[number]:
                    shown = self._shows_file(vma, low + (number << 12))
                    table[first + number] = PM_PRESENT | (PM_FILE if shown else 0)
        return table.tobytes()

    def _shows_file(self, vma: Vma, page: int) -> bool:
        """Whether a page is the file's own, or of shared memory; not a private copy."""
        if vma.backing is None or vma.shared:
            return vma.shared
        gpa = self.space.translate(page)
        if isinstance(vma.backing, RamFile):
            return gpa == vma.backing.peek(vma.file_offset(page) >> 12)
        return gpa >= RO_WINDOW

    def smaps_rollup(self) -> bytes:
        """/proc/PID/smaps_rollup."""
        vmas = list(self.vmas)
        start, end = (vmas[0].start, vmas[-1].end) if vmas else (0, 0)
        head = f"{start:08x}-{end:08x} ---p 00000000 00:00 0 ".encode()
        parts: list[tuple[int, Residency, Vma | None]] = [
            (0, self.residency(vma), vma) for vma in vmas
        ]
        return head.ljust(73) + b"[rollup]\n" + self._details(parts)

    @staticmethod
    def _details(parts: list[tuple[int, Residency, Vma | None]]) -> bytes:
        size = sum(kib for kib, _, _ in parts)
        rss = sum(r.total for _, r, _ in parts) * 4
        own = sum(r.exclusive for _, r, _ in parts) * 4
        anonymous = sum(r.anonymous for _, r, _ in parts) * 4
        locked = sum(r.total for _, r, v in parts if v and v.flags & VmFlag.LOCKED) * 4
        pss = own + (rss - own) // 2
        clean, dirty = max(own - anonymous, 0), min(own, anonymous)
        text = _SUMS % (rss, pss, anonymous)
        if not size:  # smaps_rollup alone tells them apart
            text += _KINDS % (min(pss, anonymous), max(pss - anonymous, 0))
        text += _DETAILS % (rss - own, clean, dirty, rss, anonymous, locked)
        return (_SIZES % size + text + _ELIGIBLE if size else text).encode()


def _row(name: str, value: str = "%8d") -> str:
    return f"{name + ':':<16}{value} kB\n"


_ZERO, _FOUR = f"{0:8}", f"{4:8}"
_SIZES = _row("Size") + _row("KernelPageSize", _FOUR) + _row("MMUPageSize", _FOUR)
_SUMS = _row("Rss") + _row("Pss") + _row("Pss_Dirty")
_KINDS = _row("Pss_Anon") + _row("Pss_File") + _row("Pss_Shmem", _ZERO)
_DETAILS = (
    _row("Shared_Clean")
    + _row("Shared_Dirty", _ZERO)
    + "".join(map(_row, ("Private_Clean", "Private_Dirty", "Referenced", "Anonymous")))
    + "".join(
        _row(name, _ZERO)
        for name in (
            "KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped",
            "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss",
        )
    )
    + _row("Locked")
)  # fmt: skip
_ELIGIBLE = "THPeligible:           0\n"
_MNEMONICS = (
    (VmFlag.GROWSDOWN, b"gd"),
    (VmFlag.LOCKED, b"lo"),
    (VmFlag.LOCKONFAULT, b"lf"),
    (VmFlag.SEQUENTIAL, b"sr"),
    (VmFlag.RANDOM, b"rr"),
    (VmFlag.DONTCOPY, b"dc"),
    (VmFlag.WIPEONFORK, b"wf"),
    (VmFlag.NORESERVE, b"nr"),
    (VmFlag.DONTDUMP, b"dd"),
    (VmFlag.DROPPABLE, b"dp"),
    (VmFlag.HUGEPAGE, b"hg"),
    (VmFlag.NOHUGEPAGE, b"nh"),
    (VmFlag.MERGEABLE, b"mg"),
    (VmFlag.SEALED, b"sl"),
)


def vm_flags(vma: Vma) -> bytes:
    """The VmFlags line of smaps: show_smap_vma_flags()."""
    found = [
        name
        for bit, name in ((PROT_READ, b"rd"), (PROT_WRITE, b"wr"), (PROT_EXEC, b"ex"))
        if vma.prot & bit
    ]
    found += [b"sh"] if vma.shared else []
    found.append(b"mr")
    found += [b"mw"] if vma.flags & VmFlag.MAYWRITE else []
    found += [b"me"] if vma.flags & VmFlag.MAYEXEC else []
    found += [name for flag, name in _MNEMONICS if vma.flags & flag]
    return b" ".join(found) + b" "
