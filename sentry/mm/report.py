"""What /proc/PID shows of an address space: maps, smaps, pagemap, statm."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator
from typing import Final

from sentry.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from sentry.mm.address_map import AddressMap
from sentry.mm.backing import MappedFile
from sentry.mm.layout import TASK_END
from sentry.mm.ramfile import RamFile
from sentry.mm.residency import Residency, residency
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import RO_WINDOW_GPA

Describe = Callable[[MappedFile], tuple[int, int, int, bytes]]
"""(major, minor, inode, path) of an open file, as the reader of /proc sees it."""

PM_FILE: Final = 1 << 61
PM_PRESENT: Final = 1 << 63
"""Bits of an entry of pagemap."""
GATE_LINE = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0".ljust(73) + b"[vsyscall]\n"
"""The page of vsyscalls, which are emulated: get_gate_vma(), arch/x86/entry/vsyscall."""


def statm(amap: AddressMap) -> Generator[bytes, None, tuple[int, int, int, int, int]]:
    """/proc/PID/statm in pages: size, resident, shared, text, data (with stack).

    An empty piece for each mapping; the sums are of one time no more than Linux's counters are.
    """
    resident = file = 0
    for vma, _, _ in amap.parts(0, TASK_END):
        part = residency(amap, vma)
        resident, file = resident + part.total, file + part.file
        yield b""
    text = (amap.layout.end_code + 4095) // 4096 - amap.layout.start_code // 4096
    return (
        amap.total_pages,
        resident,
        file,
        max(text, 0),
        amap.data_pages + amap.stack_pages,
    )


def name_of(amap: AddressMap, vma: Vma) -> bytes:
    """[heap], [stack], [vdso]… of a mapping without a file."""
    if vma.name or vma.file is not None:
        return vma.name
    if vma.start <= amap.layout.start_stack < vma.end and amap.layout.start_stack:
        return b"[stack]"
    return b""


def maps_line(amap: AddressMap, vma: Vma, describe: Describe) -> bytes:
    """A line of /proc/PID/maps: show_map_vma(), fs/proc/task_mmu.c."""
    rights = (
        ("r" if vma.prot & PROT_READ else "-")
        + ("w" if vma.prot & PROT_WRITE else "-")
        + ("x" if vma.prot & PROT_EXEC else "-")
        + ("s" if vma.shared and not vma.flags & VmFlag.SPECIAL else "p")
    )
    if vma.file is not None:
        major, minor, inode, path = describe(vma.file)
        offset = vma.offset
    else:
        major, minor, inode, path = 0, int(vma.backing is not None), 0, name_of(amap, vma)
        offset = vma.offset if vma.backing is not None else 0
    line = (
        f"{vma.start:08x}-{vma.end:08x} {rights} {offset:08x} {major:02x}:{minor:02x} {inode} "
    ).encode()
    if path:
        line = line.ljust(73) + path.replace(b"\n", b"\\012")
    return line + b"\n"


def maps(amap: AddressMap, describe: Describe) -> Iterator[bytes]:
    """/proc/PID/maps, a piece for each mapping. Preconditions: the map's lock is held."""
    for vma in amap.vmas:
        yield maps_line(amap, vma, describe)
    yield GATE_LINE


def smaps(amap: AddressMap, describe: Describe) -> Iterator[bytes]:
    """/proc/PID/smaps, as `maps`."""
    for vma in amap.vmas:
        yield (
            maps_line(amap, vma, describe)
            + _details(vma.pages * 4, residency(amap, vma), vma)
            + b"VmFlags: "
            + vm_flags(vma)
            + b"\n"
        )
    yield GATE_LINE + _details(4, Residency(), None) + b"VmFlags: ex \n"


def pagemap(amap: AddressMap, start: int, end: int) -> bytes:
    """/proc/PID/pagemap of the pages in [start, end)."""
    table = array("Q", bytes((end - start) >> 9))
    for vma, low, high in amap.parts(start, end):
        resident = amap.space.resident(low, (high - low) >> 12)
        first = (low - start) >> 12
        for number, there in enumerate(resident):
            if there:
                shown = _shows_file(amap, vma, low + (number << 12))
                table[first + number] = PM_PRESENT | (PM_FILE if shown else 0)
    return table.tobytes()


def _shows_file(amap: AddressMap, vma: Vma, page: int) -> bool:
    """Whether a page is the file's own, or of shared memory; not a private copy."""
    if vma.backing is None or vma.shared:
        return vma.shared
    gpa = amap.space.translate(page)
    if isinstance(vma.backing, RamFile):
        return gpa == vma.backing.peek(vma.file_offset(page) >> 12)
    return gpa >= RO_WINDOW_GPA


def smaps_rollup(amap: AddressMap) -> Iterator[bytes]:
    """/proc/PID/smaps_rollup: all of it is the last piece."""
    first, last = amap.vmas.after(0), amap.vmas.before(TASK_END)
    start, end = (first.start, last.end) if first is not None and last is not None else (0, 0)
    head = f"{start:08x}-{end:08x} ---p 00000000 00:00 0 ".encode()
    rows = dict.fromkeys(_COUNTED, 0)
    for vma, _, _ in amap.parts(0, TASK_END):
        _count(rows, residency(amap, vma), vma)
        yield b""
    yield head.ljust(73) + b"[rollup]\n" + (_ROLLUP % rows).encode()


def _details(size: int, pages: Residency, vma: Vma | None) -> bytes:
    rows = dict.fromkeys(_COUNTED, 0)
    if vma is not None:
        _count(rows, pages, vma)
    return (_SIZES % size + _SMAPS % rows + _ELIGIBLE).encode()


def _count(rows: dict[str, int], pages: Residency, vma: Vma) -> None:
    """smaps_account(): kB of a mapping into the sums; what is shared counts by half."""
    if not pages.total:
        return
    in_ram = isinstance(vma.backing, RamFile)
    kind = "Dirty" if in_ram else "Clean"
    anonymous = pages.anonymous_own * 4 + pages.anonymous_shared * 2
    file = pages.file_own * 4 + pages.file_shared * 2
    rows["Pss"] += anonymous + file
    rows["Pss_Dirty"] += anonymous + file if in_ram else anonymous
    rows["Pss_Anon"] += anonymous
    rows["Pss_Shmem" if in_ram else "Pss_File"] += file
    rows[f"Shared_{kind}"] += pages.file_shared * 4
    rows[f"Private_{kind}"] += pages.file_own * 4
    rows["Shared_Dirty"] += pages.anonymous_shared * 4
    rows["Private_Dirty"] += pages.anonymous_own * 4
    rows["Rss"] += pages.total * 4
    rows["Anonymous"] += pages.anonymous * 4
    if vma.flags & VmFlag.LOCKED:
        rows["Locked"] += anonymous + file


def _row(name: str, value: str) -> str:
    return f"{name + ':':<16}{value} kB\n"


def _counted(*names: str, of: str = "") -> str:
    """Rows whose values come from a dictionary."""
    return "".join(_row(name, f"%({of or name})8d") for name in names)


_COUNTED = (
    "Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem", "Shared_Clean", "Shared_Dirty",
    "Private_Clean", "Private_Dirty", "Anonymous", "Locked",
)  # fmt: skip
_NONE = (
    "KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb",
    "Private_Hugetlb", "Swap", "SwapPss",
)  # fmt: skip
_SIZES = _row("Size", "%8d") + "".join(
    _row(name, f"{4:8}") for name in ("KernelPageSize", "MMUPageSize")
)
_REST = (
    _counted("Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty")
    + _counted("Referenced", of="Rss")
    + _counted("Anonymous")
    + "".join(_row(name, f"{0:8}") for name in _NONE)
    + _counted("Locked")
)
_SMAPS = _counted("Rss", "Pss", "Pss_Dirty") + _REST
_ROLLUP = _counted("Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem") + _REST
_ELIGIBLE = "THPeligible:           0\n"
_MNEMONICS = (
    (VmFlag.SHARED, b"ms"),
    (VmFlag.GROWSDOWN, b"gd"),
    (VmFlag.LOCKED, b"lo"),
    (VmFlag.SEQUENTIAL, b"sr"),
    (VmFlag.RANDOM, b"rr"),
    (VmFlag.DONTCOPY, b"dc"),
    (VmFlag.LOCKONFAULT, b"lf"),
    (VmFlag.NORESERVE, b"nr"),
    (VmFlag.WIPEONFORK, b"wf"),
    (VmFlag.DONTDUMP, b"dd"),
    (VmFlag.HUGEPAGE, b"hg"),
    (VmFlag.NOHUGEPAGE, b"nh"),
    (VmFlag.DROPPABLE, b"dp"),
    (VmFlag.SEALED, b"sl"),
)


def vm_flags(vma: Vma) -> bytes:
    """The VmFlags line of smaps: show_smap_vma_flags()."""
    found = [
        name
        for bit, name in ((PROT_READ, b"rd"), (PROT_WRITE, b"wr"), (PROT_EXEC, b"ex"))
        if vma.prot & bit
    ]
    if vma.flags & VmFlag.SPECIAL:
        vvar = bool(vma.flags & VmFlag.SECRET)
        found += [b"mr", b"pf", b"io", b"de", b"dd"] if vvar else [b"mr", b"me", b"de"]
        return b" ".join(found) + b" "
    found += [b"sh"] if vma.may_be_shared_for_writing else []
    found.append(b"mr")
    found += [b"mw"] if vma.flags & VmFlag.MAYWRITE else []
    found += [b"me"] if vma.flags & VmFlag.MAYEXEC else []
    found += [name for flag, name in _MNEMONICS if vma.flags & flag]
    return b" ".join(found) + b" "
