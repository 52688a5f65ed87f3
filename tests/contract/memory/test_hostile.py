"""A hostile program on two vCPUs looks for memory that it has lost, and never sees another's.

Thread B stays in a loop without system calls while the Sentry, on behalf of thread A, takes pages
away: only a flush of translations can stop B.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED
from sentry.mm.advice import madvise
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, SegFault
from sentry.mm.faults import fault, file_gone
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.mm.remap import mremap
from sentry.platform.interface import ExitKind, Reg

if TYPE_CHECKING:
    from conftest import Guest

PAGE = 4096
BLOCK = 2 << 20
TARGET = 0x40000000
FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
RW = 3

READ_LOOP = """
    movq $1, 8(%rdi)
1:  mov (%rbx), %rax
    cmp %rdx, %rax
    jne 1b
    mov $77, %eax
    syscall
"""
"""Reads until it sees the secret in RDX; tells at RDI+8 that it has begun."""
WRITE_LOOP = """
    movq $1, 8(%rdi)
1:  incq (%rbx)
    jmp 1b
"""
SECRET = 0x5EC12E75EC12E7


class OpenFile:
    """What mmap needs of a file description."""

    has_max_offset = True

    def __init__(self, backing: HostBacking, writable: bool) -> None:
        self.backing = backing
        self.readable, self.writable = True, writable

    def incref(self) -> OpenFile:
        return self

    def decref(self) -> None:
        pass

    def mmap_backing(self, writable_shared: bool) -> HostBacking:
        return self.backing


def looping(guest: Guest, source: str, pages: int = 1) -> tuple[MemoryManager, Any]:
    """A process with a thread in a loop over TARGET, and its signal page."""
    mm = guest.memory(source)
    note = mmap(mm.map, 0, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS)
    mmap(mm.map, TARGET, pages * PAGE, RW, FIXED)
    thread = guest.thread(mm, rbx=TARGET, rdi=note, rdx=SECRET)
    guest.settle(lambda: mm.read(note + 8, 1) == b"\1")
    return mm, thread


def expect_fault(guest: Guest, thread: Any, addr: int) -> None:
    assert guest.machine.exit_of(thread) == ExitKind.FAULT, "the secret was seen"
    assert thread.fault_addr == addr


def spend(guest: Guest, pages: int) -> MemoryManager:
    """Another process whose memory is full of the secret: it gets what became free."""
    other = guest.memory("ud2")
    at = mmap(other.map, 0, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS)
    for page in range(pages):
        other.write(at + page * PAGE, SECRET.to_bytes(8, "little") * 512)
    return other


def test_unmapped_page_is_gone_for_a_running_thread(guest: Guest) -> None:
    mm, thread = looping(guest, READ_LOOP)
    munmap(mm.map, TARGET, PAGE)
    spend(guest, 64)
    expect_fault(guest, thread, TARGET)


def test_unmapped_block_is_gone_for_a_running_thread(guest: Guest) -> None:
    mm, thread = looping(guest, READ_LOOP, 512)
    munmap(mm.map, TARGET, PAGE)
    spend(guest, 64)
    expect_fault(guest, thread, TARGET)


def test_block_that_another_process_uses_now_is_not_seen_at_its_old_place(guest: Guest) -> None:
    """2 MiB at once: KVM may keep a table for the block, linked where that was mapped first."""
    source = """
        mov %rdx, (%rbx)
        add $4096, %rbx
        dec %rcx
        jnz .-10
        mov $5, %eax
        syscall
        .org 0x80
        mov (%rbx), %rax
        mov $6, %eax
        syscall
    """
    one, two = guest.memory(source), guest.memory(source)
    mmap(one.map, TARGET, BLOCK, RW, FIXED)
    first = guest.thread(one, rbx=TARGET, rcx=512, rdx=1)
    assert guest.machine.syscall_of(first) == 5
    munmap(one.map, TARGET, BLOCK)
    mmap(two.map, TARGET + 5 * BLOCK, BLOCK, RW, FIXED)
    second = guest.thread(two, rbx=TARGET + 5 * BLOCK, rcx=512, rdx=SECRET)
    assert guest.machine.syscall_of(second) == 5
    for page in range(0, 512, 37):
        guest.again(first, 0x80, rbx=TARGET + page * PAGE)
        assert guest.machine.exit_of(first) == ExitKind.FAULT


def test_page_without_rights_is_gone_for_a_running_thread(guest: Guest) -> None:
    mm, thread = looping(guest, READ_LOOP)
    mprotect(mm.map, TARGET, PAGE, 0)
    expect_fault(guest, thread, TARGET)
    mprotect(mm.map, TARGET, PAGE, RW)
    mm.write(TARGET, SECRET.to_bytes(8, "little"))
    thread.resume()
    assert guest.machine.syscall_of(thread) == 77


def test_discarded_page_reads_as_zero_for_a_running_thread(guest: Guest) -> None:
    mm, thread = looping(guest, READ_LOOP, 512)
    madvise(mm.map, TARGET, 512 * PAGE, 4)
    spend(guest, 1024)
    mm.write(TARGET, SECRET.to_bytes(8, "little"))
    assert guest.machine.syscall_of(thread) == 77


def test_write_protected_page_stays_as_it_is(guest: Guest) -> None:
    mm, thread = looping(guest, WRITE_LOOP)
    mprotect(mm.map, TARGET, PAGE, 1)
    before = mm.read(TARGET, 8)
    expect_fault(guest, thread, TARGET)
    assert thread.error_code & 2 and mm.read(TARGET, 8) == before


def test_child_of_fork_does_not_see_a_running_threads_stores(guest: Guest) -> None:
    mm, thread = looping(guest, WRITE_LOOP)
    child = mm.share().fork()
    before = child.read(TARGET, 8)
    assert guest.machine.exit_of(thread) == ExitKind.FAULT
    fault(mm.map, thread.fault_addr, thread.error_code)
    thread.resume()
    guest.settle(lambda: mm.read(TARGET, 8) != before)
    assert child.read(TARGET, 8) == before


def test_copy_on_write_is_seen_by_the_other_thread(guest: Guest) -> None:
    mm, thread = looping(guest, READ_LOOP)
    mm.write(TARGET, b"x")
    mm.share().fork()
    mm.write(TARGET, SECRET.to_bytes(8, "little"))
    assert guest.machine.syscall_of(thread) == 77


def test_moved_page_is_gone_from_its_old_place(guest: Guest) -> None:
    mm, thread = looping(guest, READ_LOOP)
    mremap(mm.map, TARGET, PAGE, PAGE, 3, TARGET + BLOCK)
    mm.write(TARGET + BLOCK, SECRET.to_bytes(8, "little"))
    expect_fault(guest, thread, TARGET)


def test_memory_of_a_dead_process_is_not_seen_through_its_tables(guest: Guest) -> None:
    """Processes come and go at changing addresses; none translates what its forerunners mapped."""
    places = [TARGET + i * BLOCK for i in range(40)]
    source = "mov (%rbx), %rax; mov $5, %eax; syscall; ud2"
    for generation in range(40):
        mm = guest.memory(source)
        mine = {places[(generation * 7 + i * 3) % 40] for i in range(10)}
        for addr in mine:
            mmap(mm.map, addr, PAGE, RW, FIXED)
            mm.write(addr, SECRET.to_bytes(8, "little"))
        thread = guest.thread(mm, rbx=min(mine))
        assert guest.machine.syscall_of(thread) == 5
        for addr in places[generation % 4 :: 4]:
            guest.again(thread, 0, rbx=addr)
            kind = guest.machine.exit_of(thread)
            assert (kind == ExitKind.SYSCALL) == (addr in mine), hex(addr)
        thread.destroy()
        mm.release()
    ram = guest.platform.ram
    guest.settle(lambda: ram.trim() >= 0 and ram.counters().spaces == 0)
    assert ram.counters().frames == 0


def test_tables_that_became_empty_do_not_translate_for_others(guest: Guest) -> None:
    """One process empties more tables than may stay linked, while another fills fresh ones."""
    source = "mov (%rbx), %rax; mov $5, %eax; syscall; ud2"
    one, two = guest.memory(source), guest.memory(source)
    first = second = None
    for turn in range(3):
        base = TARGET + turn * 400 * BLOCK
        for i in range(300):
            mmap(one.map, base + i * BLOCK, PAGE, RW, FIXED)
        for i in range(0, 300, 10):
            if first is None:
                first = guest.thread(one, rbx=base)
            else:
                guest.again(first, 0, rbx=base + i * BLOCK)
            assert guest.machine.syscall_of(first) == 5
        munmap(one.map, base, 300 * BLOCK)
        for i in range(300):
            mmap(two.map, base + i * BLOCK, PAGE, RW, FIXED)
            two.write(base + i * BLOCK, SECRET.to_bytes(8, "little"))
        for i in range(0, 300, 10):
            addr = base + i * BLOCK
            if second is None:
                second = guest.thread(two, rbx=addr)
            else:
                guest.again(second, 0, rbx=addr)
            assert guest.machine.syscall_of(second) == 5
            assert first is not None
            guest.again(first, 0, rbx=addr)
            assert guest.machine.exit_of(first) == ExitKind.FAULT, hex(addr)
    assert guest.platform.ram.counters().flush_alls > 0


def test_file_truncated_under_a_mapping_names_the_address(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * 3 * PAGE)
    fd = os.open(path, os.O_RDWR)
    file = OpenFile(HostBacking(guest.platform.ram.windows, fd, True), True)
    mm = guest.memory("mov (%rbx), %rax; mov $5, %eax; syscall; ud2")
    addr = mmap(mm.map, 0, 3 * PAGE, RW, MAP_SHARED, file, 0)
    thread = guest.thread(mm, rbx=addr + 2 * PAGE)
    assert guest.machine.syscall_of(thread) == 5

    os.ftruncate(fd, PAGE)

    guest.again(thread, 0, rbx=addr + 2 * PAGE)
    kind = guest.machine.exit_of(thread)
    if kind == ExitKind.FILE_GONE:
        file_gone(mm.map)
        thread.resume()
        kind = guest.machine.exit_of(thread)
    assert kind == ExitKind.FAULT and thread.fault_addr == addr + 2 * PAGE
    with pytest.raises(BusError):
        fault(mm.map, thread.fault_addr, thread.error_code)
    guest.again(thread, 0, rbx=addr)
    assert guest.machine.syscall_of(thread) == 5
    os.close(fd)


def test_store_to_a_private_file_page_stays_private(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * PAGE)
    fd = os.open(path, os.O_RDONLY)
    file = OpenFile(HostBacking(guest.platform.ram.windows, fd, False), False)
    mm = guest.memory("mov (%rbx), %rcx; movb $1, (%rbx); mov $5, %eax; syscall; ud2")
    addr = mmap(mm.map, 0, PAGE, RW, MAP_PRIVATE, file, 0)
    thread = guest.thread(mm, rbx=addr)
    assert guest.serve(thread, mm) == ExitKind.SYSCALL
    assert mm.read(addr, 2) == b"\1f" and path.read_bytes() == b"f" * PAGE
    os.close(fd)


def test_store_through_a_shared_file_mapping_reaches_the_host(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * PAGE)
    fd = os.open(path, os.O_RDWR)
    file = OpenFile(HostBacking(guest.platform.ram.windows, fd, True), True)
    mm = guest.memory("movb $65, (%rbx); mov $5, %eax; syscall; ud2")
    addr = mmap(mm.map, 0, PAGE, RW, MAP_SHARED, file, 0)
    thread = guest.thread(mm, rbx=addr)
    assert guest.serve(thread, mm) == ExitKind.SYSCALL
    assert path.read_bytes()[:2] == b"Af"
    os.close(fd)


def test_fault_of_a_running_program_has_the_right_code(guest: Guest) -> None:
    mm = guest.memory("movb $1, (%rbx); mov $5, %eax; syscall; ud2")
    addr = mmap(mm.map, 0, PAGE, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    thread = guest.thread(mm, rbx=addr)
    for where, code in ((addr, 2), (0x100000, 1)):
        assert guest.machine.exit_of(thread) == ExitKind.FAULT
        with pytest.raises(SegFault) as found:
            fault(mm.map, thread.fault_addr, thread.error_code)
        assert (found.value.addr, found.value.si_code) == (where, code)
        guest.again(thread, 0, rbx=0x100000)
    assert thread.regs[Reg.RBX] == 0x100000
