"""Segments into an address space: fs/binfmt_elf.c, elf_load() and what calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import EFAULT, EINVAL, ENOMEM
from sentry.loader.elf import Program, Segment, page_align, page_start
from sentry.mm.errors import NeedsFault
from sentry.mm.mapping import mmap
from sentry.platform.constants import PAGE_MASK, PAGE_SIZE, TASK_SIZE
from sentry.wait.fiber import Mode
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager

T = TypeVar("T")

PIE_BASE: Final = TASK_SIZE // 3 * 2 & ~PAGE_MASK
"""ELF_ET_DYN_BASE: where position-independent programs go, before randomisation."""


class Loaded(Struct, frozen=True):
    """Where a program has come to lie."""

    bias: int
    """What is added to the file's addresses."""
    entry: int
    start_code: int
    end_code: int
    start_data: int
    end_data: int
    end: int
    """End of the highest segment: where brk begins without randomisation."""


async def with_faults(copy: Callable[[], T]) -> T:
    """Do a copy to or from user memory, fetching the pages it needs."""
    while True:
        try:
            return copy()
        except NeedsFault as need:
            await need.wait()


def place(mm: MemoryManager, program: Program, base: int | None) -> int:
    """The bias for a program: 0 for ET_EXEC; about `base` if given; else wherever mm has room.

    The whole span is reserved and given back, so that all segments fit. Raises: ENOMEM, EEXIST.
    """
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    span, align = page_align(program.span), program.alignment
    if program.start + span > TASK_SIZE or align > TASK_SIZE // 4:
        raise ENOMEM("program does not fit")
    if not program.position_independent:
        wanted = program.start
    elif base is not None:
        wanted = base & ~(align - 1)
    else:
        slack = align - PAGE_SIZE
        found = mmap(mm.map, 0, span + slack, PROT_NONE, flags)
        mm.map.remove(found, found + span + slack, entries=False)  # nothing has been there
        wanted = (found + slack) & ~(align - 1)
    mmap(mm.map, wanted, span, PROT_NONE, flags | MAP_FIXED_NOREPLACE)
    mm.map.remove(wanted, wanted + span, entries=False)
    return wanted - program.start


async def map_program(mm: MemoryManager, file: Any, program: Program, bias: int) -> Loaded:
    """Map all segments at `bias`. Raises what mmap raises; EINVAL, EFAULT."""
    starts_code, ends_code, starts_data, ends_data, ends = [], [0], [], [0], [0]
    pace = Pace()
    for segment in program.segments:
        await _map_segment(mm, file, segment, bias)
        await pace.rest(Mode.UNINTERRUPTIBLE)
        start, end = bias + segment.vaddr, bias + segment.vaddr + segment.filesz
        starts_code.append(start)
        if segment.prot & PROT_EXEC:
            ends_code.append(end)
        starts_data.append(start)
        ends_data.append(end)
        ends.append(bias + segment.vaddr + segment.memsz)
    entry = bias + program.entry
    if not 0 <= entry < TASK_SIZE:
        raise EINVAL("entry")
    return Loaded(
        bias, entry, min(starts_code), max(ends_code), max(starts_data), max(ends_data), max(ends)
    )


async def _map_segment(mm: MemoryManager, file: Any, segment: Segment, bias: int) -> None:
    addr = bias + segment.vaddr
    first = page_start(addr)
    if first < PAGE_SIZE or addr + segment.memsz > TASK_SIZE:
        raise EINVAL("segment out of reach")
    skew = addr - first
    file_end = addr + segment.filesz
    if segment.filesz:
        mmap(
            mm.map,
            first,
            page_align(skew + segment.filesz),
            segment.prot,
            MAP_PRIVATE | MAP_FIXED,
            file,
            segment.offset - skew,
        )
    if segment.memsz == segment.filesz:
        return
    zero_start = page_align(file_end) if segment.filesz else first
    if segment.filesz and zero_start > file_end:
        await _clear(mm, file_end, zero_start - file_end, bool(segment.prot & PROT_WRITE))
    zero_end = page_align(addr + segment.memsz)
    if zero_end > zero_start:
        mmap(
            mm.map,
            zero_start,
            zero_end - zero_start,
            PROT_READ | PROT_WRITE | segment.prot & PROT_EXEC,
            MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS,
        )


async def _clear(mm: MemoryManager, addr: int, count: int, writable: bool) -> None:
    """Zero what follows the file's part on its last page; a read-only page keeps what it has."""
    if not writable:
        return
    try:
        await with_faults(lambda: mm.write(addr, bytes(count)))
    except EFAULT:
        raise EFAULT("bss lies beyond the end of the file") from None
