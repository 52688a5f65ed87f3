"""The start-up probe: what kind of KVM is this? One small guest program, one `Quirks` value.

On PVM ("pagetable virtual machine") SYSCALL stays in ring 3 and an edited page-table entry is not
seen as long as its old translation is used; ordinary KVM has neither. Nothing else in the Sentry
asks which kind it is.
"""

from __future__ import annotations

import struct
import time

from msgspec import Struct

import guest_stubs
from kvm import exits
from kvm.registers import Registers, Segment
from kvm.vcpu import VCPU
from sentry.abi import processor as cpu
from sentry.platform._native import ffi, lib
from sentry.platform.constants import ENTRY_BASE, PTE_P, PTE_U, PTE_W

_PROGRAM, _DATA = 0x10000, 0x20000

MSR_STAR = 0xC0000081
MSR_LSTAR = 0xC0000082
MSR_SFMASK = 0xC0000084
STAR = lib.SEL_USER32_CS << 48 | lib.SEL_KERNEL_CS << 32
"""Selectors loaded by SYSCALL and SYSRET: the same as Linux's."""
SYSCALL_CLEARS = (
    cpu.X86_EFLAGS_TF | cpu.X86_EFLAGS_IF | cpu.X86_EFLAGS_DF | cpu.X86_EFLAGS_IOPL
    | cpu.X86_EFLAGS_NT | cpu.X86_EFLAGS_AC
)  # fmt: skip
"""Flags that SYSCALL clears: Linux's mask before it cleared all of them."""


class ProbeFailed(Exception):
    """The guest did something that no known KVM does."""


class Quirks(Struct, frozen=True):
    """How this machine's KVM differs from the processor's manual."""

    syscall_stays_in_ring3: bool
    page_table_edits_are_stale: bool
    exit_ns: int
    """What an exit to this process and back costs at least."""


def _segment(segment: Segment, selector: int, kind: int, long_mode: int) -> None:
    segment.base, segment.limit, segment.selector = 0, 0xFFFFFFFF, selector
    segment.type, segment.present, segment.dpl, segment.s = kind, 1, 3, 1
    segment.l, segment.db, segment.g = long_mode, 1 - long_mode, 1


def _enter_ring3(vcpu: VCPU, root: int, cr4: int) -> None:
    sregs = vcpu.special_registers()
    _segment(sregs.cs, lib.SEL_USER_CS, 11, 1)
    for name in ("ss", "ds", "es", "fs", "gs"):
        _segment(getattr(sregs, name), lib.SEL_USER_DS, 3, 0)
    sregs.tr.limit, sregs.tr.type, sregs.tr.present, sregs.tr.s = 0x67, 11, 1, 0
    sregs.idt.limit = sregs.gdt.limit = 0
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = 0x80050033, root, cr4, 0xD01
    vcpu.set_special_registers(sregs)


def _frames(count: int) -> list[int]:
    frames = [lib.frame_alloc() for _ in range(count)]
    if not all(frames):
        _put(frames)
        raise MemoryError("no RAM for the probe")
    return frames


def _put(frames: list[int]) -> None:
    for frame in filter(None, frames):
        lib.frame_put(frame)


def _poke(frame: int, data: bytes) -> None:
    # SAFETY: a frame is 4096 bytes and the probe's data are smaller.
    ffi.memmove(lib.frame_host(frame), data, len(data))


class _Probe:
    def __init__(self, vcpu: VCPU, cr4: int, doorbell: int) -> None:
        self.vcpu, self.cr4, self.doorbell = vcpu, cr4, doorbell
        self.costs_ns: list[int] = []
        self.stub = guest_stubs.load("probe")
        self.space = lib.aspace_new()
        if self.space == ffi.NULL:
            raise MemoryError("no RAM for the probe")

    def map(self, address: int, frame: int, flags: int) -> None:
        if lib.aspace_map_special(self.space, address, frame, PTE_P | PTE_U | flags):
            raise MemoryError("no RAM for the probe")

    def run(self, program: str, rdi: int = 0) -> Registers:
        """Run one of the stub's programs up to its SYSCALL; the registers there."""
        _enter_ring3(self.vcpu, self.space.root, self.cr4)
        self.vcpu.set_registers(rip=_PROGRAM + self.stub.symbols[program], rflags=0x202, rdi=rdi)
        start = time.perf_counter_ns()
        came = self.vcpu.run()
        self.costs_ns.append(time.perf_counter_ns() - start)
        match came:
            case exits.MmioWrite(address) if address == self.doorbell:
                return self.vcpu.registers()
            case other:
                raise ProbeFailed(f"{program}: {other} at {self.vcpu.registers()['rip']:#x}")

    def quirks(self) -> Quirks:
        frames = code, first, second = _frames(3)
        try:
            _poke(code, self.stub.code)
            _poke(first, struct.pack("<Q", 1))
            _poke(second, struct.pack("<Q", 2))
            self.map(ENTRY_BASE, code, 0)
            self.map(ENTRY_BASE + lib.ENTRY_PAGE_DOORBELL, self.doorbell, PTE_W)
            self.map(_PROGRAM, code, 0)
            self.map(_DATA, first, 0)
            ring = self.run("probe_syscall")["rdx"] & 3
            before = self.run("probe_read", _DATA)["rax"]
            self.map(_DATA, second, 0)
            for _ in range(3):
                self.run("probe_syscall")
            after = self.run("probe_read", _DATA)["rax"]
            for address in (ENTRY_BASE, ENTRY_BASE + lib.ENTRY_PAGE_DOORBELL, _PROGRAM, _DATA):
                lib.aspace_unmap_special(self.space, address)
        finally:
            _put(frames)
        if before != 1:
            raise ProbeFailed(f"the guest read {before} where 1 stands")
        return Quirks(ring == 3, after == before, min(self.costs_ns))


def probe(vcpu: VCPU, cr4: int, doorbell: int) -> Quirks:
    """Run the probe on a configured vCPU; `doorbell` is a guest-physical page without a slot.

    Raises: ProbeFailed, MemoryError.
    """
    vcpu.set_msr(MSR_STAR, STAR)
    vcpu.set_msr(MSR_LSTAR, ENTRY_BASE)
    vcpu.set_msr(MSR_SFMASK, SYSCALL_CLEARS)
    attempt = _Probe(vcpu, cr4, doorbell)
    try:
        return attempt.quirks()
    finally:
        lib.aspace_destroy(attempt.space)
