"""The registers of a vCPU as Python values."""

from __future__ import annotations

from typing import TypedDict

from msgspec import Struct


class Registers(TypedDict, total=False):
    """The general registers, RIP and RFLAGS, of 64 bits each: struct kvm_regs.

    >>> start = Registers(rip=0x1000, rflags=2)
    >>> start["rip"]
    4096
    """

    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int


class Segment(Struct):
    """A segment register with its hidden part: struct kvm_segment, SDM volume 3 section 3.4.5.

    >>> code = Segment(selector=0x33, limit=0xFFFFFFFF, type=11, present=1, dpl=3, s=1, l=1, g=1)
    >>> code.base
    0
    """

    base: int = 0
    """A linear address."""
    limit: int = 0
    """In bytes, whatever `g` says."""
    selector: int = 0
    type: int = 0
    """4 bits; of code and data the accessed bit too."""
    present: int = 0
    dpl: int = 0
    """Descriptor privilege level, 0 to 3."""
    db: int = 0
    s: int = 0
    """1: code or data; 0: a system segment."""
    l: int = 0  # noqa: E741  the manual's name
    """64-bit code."""
    g: int = 0
    avl: int = 0


class Table(Struct):
    """GDTR or IDTR: struct kvm_dtable.

    >>> Table(base=0x5000, limit=8 * 3 - 1).limit
    23
    """

    base: int = 0
    """A linear address."""
    limit: int = 0
    """In bytes, less one."""


class SpecialRegisters(Struct):
    """Segments, descriptor tables and control registers: struct kvm_sregs.

    `VCPU.special_registers` makes one, `VCPU.set_special_registers` takes it; both have an example.
    Interrupts that wait for delivery (interrupt_bitmap) are no part of it.
    """

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: Table
    idt: Table
    cr0: int
    cr2: int
    cr3: int
    """Guest-physical address of the top page table, with its low bits."""
    cr4: int
    cr8: int
    efer: int
    apic_base: int
