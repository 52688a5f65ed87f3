"""What a running program sees is what sentry.mm says, through any history of its page tables.

After every change a program on a vCPU that has used the old translations walks all of memory: each
mapped page must hold its tag, and each unmapped one must fault.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE
from sentry.mm.advice import madvise
from sentry.mm.backing import HostBacking
from sentry.mm.errors import SegFault
from sentry.mm.faults import fault
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.mm.remap import mremap
from sentry.platform.interface import ExitKind, Reg

if TYPE_CHECKING:
    from conftest import Guest

PAGE = 4096
UNIT = 128 * PAGE
UNITS = 32
BASE = 0x40000000 - 8 * UNIT
TABLE = 0x20000000
FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
RW, RWX = 3, 7
FILE_TAG = 1 << 40

VERIFY = """
    mov %rbx, %rsi
1:  mov (%rsi), %rdi
    test %rdi, %rdi
    jz 2f
    mov (%rdi), %rax
    cmp 8(%rsi), %rax
    jne 3f
    add $16, %rsi
    jmp 1b
2:  mov $200, %eax
    syscall
    ud2
3:  mov $201, %eax
    syscall
    ud2
    .org 0x80
    mov (%rbx), %rax
    mov $202, %eax
    syscall
    ud2
    .org 0xc0
    mov %rdx, (%rbx)
    mov $203, %eax
    syscall
    ud2
"""
PROBE, STORE = 0x80, 0xC0


class TaggedFile:
    """A host file of UNITS units whose pages hold their tags; an open file description of it."""

    has_max_offset = readable = True
    writable = False

    def __init__(self, guest: Guest, folder: Path) -> None:
        path = folder / "file"
        pages = (struct.pack("<Q", FILE_TAG + n).ljust(PAGE, b"-") for n in range(UNITS * 128))
        path.write_bytes(b"".join(pages))
        self.backing = HostBacking(guest.platform.ram.windows, os.open(path, os.O_RDONLY), False)

    def incref(self) -> TaggedFile:
        return self

    def decref(self) -> None:
        pass

    def mmap_backing(self, writable_shared: bool) -> HostBacking:
        return self.backing


class Process:
    """An address space, what should be in it, and threads that look."""

    def __init__(self, guest: Guest, mm: MemoryManager, file: TaggedFile) -> None:
        self.guest = guest
        self.mm = mm
        self.file = file
        self.pages: dict[int, int] = {}
        """Tag of every mapped page whose tag was set, by address."""
        self.units: set[int] = set()
        self.shown: dict[int, int] = {}
        """Unit of the file by unit of memory."""
        self.anonymous: set[int] = set()
        """Pages that are not the file's although their unit is."""
        self.threads: list[Any] = []

    def fresh(self, page: int) -> int:
        """What a page holds that nobody has stored to."""
        unit, offset = divmod(page - BASE, UNIT)
        if page in self.anonymous or unit not in self.shown:
            return 0
        return FILE_TAG + self.shown[unit] * 128 + offset // PAGE

    def run(self, number: int, offset: int, **regs: int) -> ExitKind:
        """Let a thread run code and repair its faults; why it came back in the end."""
        number = min(number, len(self.threads))
        if number == len(self.threads):
            self.threads.append(self.guest.thread(self.mm, offset, **regs))
        else:
            self.guest.again(self.threads[number], offset, **regs)
        return self.guest.serve(self.threads[number], self.mm)

    def verify(self, rng: random.Random) -> None:
        entries = sorted(self.pages.items())
        self.mm.write(TABLE, b"".join(struct.pack("<2Q", *e) for e in entries) + bytes(16))
        for number in range(2):
            assert self.run(number, 0, rbx=TABLE) == ExitKind.SYSCALL
            regs = self.threads[number].regs
            assert regs[Reg.ORIG_RAX] == 200, f"{regs[Reg.RDI]:#x} holds {regs[Reg.RAX]:#x}"
        for unit in rng.sample(range(UNITS), 4):
            addr = BASE + unit * UNIT + rng.randrange(128) * PAGE
            kind = self.run(rng.randrange(2), PROBE, rbx=addr)
            assert (kind == ExitKind.SYSCALL) == (unit in self.units), hex(addr)

    def store(self, rng: random.Random, tag: int) -> None:
        if not self.units:
            return
        addr = BASE + rng.choice(sorted(self.units)) * UNIT + rng.randrange(128) * PAGE
        assert self.run(rng.randrange(2), STORE, rbx=addr, rdx=tag) == ExitKind.SYSCALL
        self.pages[addr] = tag

    def change(self, rng: random.Random, tag: int) -> None:
        first, count = rng.randrange(UNITS), rng.randint(1, 9)
        count = min(count, UNITS - first)
        addr, units = BASE + first * UNIT, set(range(first, first + count))
        match rng.choice(["map", "map", "file", "unmap", "protect", "move", "discard", "page"]):
            case "map":
                mmap(self.mm.map, addr, count * UNIT, RW, FIXED)
                self._forget(units)
                self.units |= units
            case "file":
                self._show(rng, first, count)
            case "unmap":
                munmap(self.mm.map, addr, count * UNIT)
                self._forget(units)
            case "protect" if units <= self.units:
                mprotect(self.mm.map, addr, count * UNIT, 0)
                with pytest.raises(SegFault):
                    fault(self.mm.map, addr, 4)
                assert self.run(0, PROBE, rbx=addr) == ExitKind.FAULT
                mprotect(self.mm.map, addr, count * UNIT, RW)
            case "move" if units <= self.units:
                self._move(rng, first, count)
            case "discard" if units <= self.units:
                madvise(self.mm.map, addr, count * UNIT, 4)
                for page in [p for p in self.pages if addr <= p < addr + count * UNIT]:
                    self.pages[page] = self.fresh(page)
            case "page" if first in self.units:
                page = addr + rng.randrange(128) * PAGE
                mmap(self.mm.map, page, PAGE, RW, FIXED)
                self.pages[page] = 0
                self.anonymous.add(page)
        for _ in range(3):
            self.store(rng, tag)

    def _show(self, rng: random.Random, first: int, count: int) -> None:
        """Map a part of the file over whatever is there: another one, or the same once more."""
        part = self.shown.get(first, 0) if rng.random() < 0.5 else rng.randrange(UNITS)
        part = min(part, UNITS - count)
        addr, flags = BASE + first * UNIT, MAP_PRIVATE | MAP_FIXED
        mmap(self.mm.map, addr, count * UNIT, rng.choice((RW, RWX)), flags, self.file, part * UNIT)
        self._forget(set(range(first, first + count)))
        for n in range(count):
            self.units.add(first + n)
            self.shown[first + n] = part + n
            for page in (0, rng.randrange(128), 127):
                at = addr + n * UNIT + page * PAGE
                self.pages[at] = self.fresh(at)

    def _move(self, rng: random.Random, first: int, count: int) -> None:
        target = rng.randrange(UNITS - count + 1)
        if abs(target - first) < count:
            return
        if any(0 <= page - (BASE + first * UNIT) < count * UNIT for page in self.anonymous):
            return  # more than one mapping in a unit
        for i in range(count):
            at, to = BASE + (first + i) * UNIT, BASE + (target + i) * UNIT
            mremap(self.mm.map, at, UNIT, UNIT, MREMAP_MAYMOVE | MREMAP_FIXED, to)
            moved = {p + to - at: t for p, t in self.pages.items() if at <= p < at + UNIT}
            anonymous = {p + to - at for p in self.anonymous if at <= p < at + UNIT}
            shown = self.shown.get(first + i)
            self._forget({first + i, target + i})
            self.units.add(target + i)
            self.pages |= moved
            self.anonymous |= anonymous
            if shown is not None:
                self.shown[target + i] = shown

    def _forget(self, units: set[int]) -> None:
        self.units -= units
        self.pages = {p: t for p, t in self.pages.items() if (p - BASE) // UNIT not in units}
        self.anonymous = {p for p in self.anonymous if (p - BASE) // UNIT not in units}
        self.shown = {u: s for u, s in self.shown.items() if u not in units}

    def fork(self) -> Process:
        child = Process(self.guest, self.mm.fork(), self.file)
        child.pages, child.units = dict(self.pages), set(self.units)
        child.anonymous, child.shown = set(self.anonymous), dict(self.shown)
        return child

    def end(self) -> None:
        for thread in self.threads:
            thread.destroy()
        self.mm.release()


@pytest.mark.parametrize("seed", range(4))
def test_program_sees_exactly_what_is_mapped(guest: Guest, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    file = TaggedFile(guest, tmp_path)
    mm = guest.memory(VERIFY)
    mmap(mm.map, TABLE, 1 << 20, RW, FIXED)
    processes = [Process(guest, mm, file)]
    for step in range(60):
        process = rng.choice(processes)
        if len(processes) < 3 and rng.random() < 0.2:
            processes.append(process.fork())
        elif len(processes) > 1 and rng.random() < 0.1:
            processes.remove(process)
            process.end()
            continue
        process.change(rng, step + 1)
        for other in processes:
            other.verify(rng)
    for process in processes:
        process.end()
    ram = guest.platform.ram
    guest.settle(lambda: ram.trim() >= 0 and ram.counters().spaces == 0)
    assert ram.counters().frames == 0
