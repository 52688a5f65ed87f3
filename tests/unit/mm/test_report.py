"""What /proc shows of an address space."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from sentry.mm.faults import populate
from sentry.mm.heap import brk, set_brk_start
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.report import maps, pagemap, smaps, smaps_rollup, statm
from sentry.mm.residency import residency
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
AT = 0x400000


def test_maps_lines_are_linuxs(mm: MemoryManager, host_file: Callable[..., OpenFile]) -> None:
    file = host_file(b"x" * 3 * PAGE)
    mmap(mm.map, AT, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, PAGE)
    mmap(mm.map, AT + 16 * PAGE, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    set_brk_start(mm.map, AT + 32 * PAGE)
    brk(mm.map, AT + 33 * PAGE)
    mmap(mm.map, AT + 64 * PAGE, PAGE, RW, ANON | MAP_GROWSDOWN)
    mm.map.layout.start_stack = AT + 64 * PAGE + 100

    lines = b"".join(maps(mm.map, lambda _: (8, 1, 1234, b"/bin/a b\nc"))).splitlines()

    assert lines == [
        b"00400000-00402000 r-xp 00001000 08:01 1234".ljust(73) + b"/bin/a b\\012c",
        b"00410000-00411000 rw-s 00000000 00:01 0".ljust(73) + b"/dev/zero (deleted)",
        b"00420000-00421000 rw-p 00000000 00:00 0".ljust(73) + b"[heap]",
        b"00440000-00441000 rw-p 00000000 00:00 0".ljust(73) + b"[stack]",
        b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0".ljust(73) + b"[vsyscall]",
    ]


def test_sizes_add_up(mm: MemoryManager) -> None:
    mmap(mm.map, AT, 4 * PAGE, RW, ANON)
    mm.write(AT, b"1" * 2 * PAGE)
    mmap(mm.map, AT + 16 * PAGE, 3 * PAGE, PROT_READ, ANON)
    assert at_once(statm(mm.map)) == (7, 2, 0, 0, 4)
    child = mm.share().fork()
    assert at_once(statm(child.map))[1] == 2 and mm.resident.peak_pages() == 2
    vma = mm.map.vmas.find(AT)
    assert vma is not None and residency(mm.map, vma) == (0, 2, 0, 0)
    rollup = b"".join(smaps_rollup(mm.map))
    assert b"Rss:                   8 kB\n" in rollup and rollup.count(b"\n") > 15
    assert b"\nPss:                   4 kB\n" in rollup
    assert b"\nShared_Dirty:          8 kB\n" in rollup
    assert b"".join(smaps(mm.map, lambda _: (0, 0, 0, b""))).count(b"VmFlags: rd") == 2


def test_shared_memory_of_one_process_is_its_own(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    mm.write(addr, b"1" * 2 * PAGE)
    vma = mm.map.vmas.find(addr)
    assert vma is not None and residency(mm.map, vma) == (0, 0, 2, 0)
    shown = b"".join(smaps(mm.map, lambda _: (0, 0, 0, b"")))
    assert b"\nPrivate_Dirty:         8 kB\n" in shown and b"\nAnonymous:             0 kB" in shown
    assert b"\nVmFlags: rd wr sh mr mw me ms \n" in shown
    child = mm.fork()
    assert residency(mm.map, vma) == (0, 0, 0, 2)
    child.release()


def test_pagemap_tells_files_from_copies(
    mm: MemoryManager, host_file: Callable[..., OpenFile]
) -> None:
    file = host_file(b"x" * 3 * PAGE)
    mmap(mm.map, AT, 3 * PAGE, RW, MAP_PRIVATE | MAP_FIXED, file, 0)
    populate(mm.map, AT, AT + 3 * PAGE)
    mmap(mm.map, AT + 3 * PAGE, PAGE, RW, ANON)
    mm.write(AT + 3 * PAGE, b"1")
    shown = array("Q", pagemap(mm.map, AT - PAGE, AT + 5 * PAGE))
    assert [entry >> 63 for entry in shown] == [0, 1, 1, 1, 1, 0]
    assert shown[4] == 1 << 63
