"""The FPU state: kept, read and set."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

XMM0 = 160
"""Offset of XMM0 in an image (SDM volume 1, table 10-2)."""


def test_image_after_a_call_has_the_programs_values(machine: Any) -> None:
    context = machine.start("movq %rdi, %xmm0; mov $7, %eax; syscall", rdi=0x1234)
    machine.syscall_of(context)

    image = context.get_fpu()

    assert len(image) == machine.platform.xsave_size
    assert struct.unpack_from("<Q", image, XMM0)[0] == 0x1234


def test_image_after_a_fault_has_the_programs_values(machine: Any) -> None:
    context = machine.start("movq %rdi, %xmm0; ud2", rdi=0x1234)
    assert machine.exit_of(context) == ExitKind.EXCEPTION

    assert struct.unpack_from("<Q", context.get_fpu(), XMM0)[0] == 0x1234


@pytest.mark.parametrize("stop", ["mov $7, %eax; syscall", "int3"])
def test_image_set_is_what_the_program_goes_on_with(machine: Any, stop: str) -> None:
    context = machine.start(f"movq %rdi, %xmm0; {stop}; movq %xmm0, %rdi; syscall", rdi=1)
    machine.exit_of(context)
    image = bytearray(context.get_fpu())
    struct.pack_into("<Q", image, XMM0, 0x5555)

    context.set_fpu(bytes(image))
    context.resume()

    assert machine.exit_of(context) == ExitKind.SYSCALL
    assert context.regs[Reg.RDI] == 0x5555


def test_new_context_starts_with_the_initial_state(machine: Any) -> None:
    first = machine.start("pcmpeqd %xmm0, %xmm0; fldpi; mov $7, %eax; syscall; jmp .")
    machine.syscall_of(first)
    second = machine.start("movq %xmm0, %rdi; fnstcw (%rsp); mov (%rsp), %si; stmxcsr (%rsp);"
                           "mov (%rsp), %edx; mov $7, %eax; syscall")  # fmt: skip

    machine.syscall_of(second)

    assert [second.regs[reg] for reg in (Reg.RDI, Reg.RSI, Reg.RDX)] == [0, 0x37F, 0x1F80]


def test_nonsense_image_is_cleaned_and_the_program_goes_on(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall; mov $8, %eax; syscall")
    machine.syscall_of(context)

    context.set_fpu(b"\xff" * machine.platform.xsave_size)
    context.resume()

    assert machine.exit_of(context) == ExitKind.SYSCALL
    assert context.regs[Reg.ORIG_RAX] == 8


def test_image_set_survives_single_stepping(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall; nop; movq %xmm0, %rdi; ud2")
    machine.syscall_of(context)
    image = bytearray(context.get_fpu())
    struct.pack_into("<Q", image, XMM0, 0x77)
    struct.pack_into("<Q", image, 512, struct.unpack_from("<Q", image, 512)[0] | 3)
    context.set_fpu(bytes(image))
    context.regs[Reg.RFLAGS] |= 0x100
    for _ in range(2):
        context.resume()
        assert machine.exit_of(context) == ExitKind.EXCEPTION
        assert context.vector == 1
    assert context.regs[Reg.RDI] == 0x77


BEYOND = {
    "protection keys": (
        "xor %ecx, %ecx; xor %edx, %edx; mov $0x5c, %eax; wrpkru",
        "xor %ecx, %ecx; rdpkru; mov %rax, %rdi",
    ),
    "tiles": (
        "movb $1, DATA; movb $4, DATA+16; movb $1, DATA+48; ldtilecfg DATA; mov $8, %ecx;"
        "movb $0x5c, DATA+256; lea DATA+256, %rax; tileloadd (%rax,%rcx,1), %tmm0",
        "movb $1, DATA; movb $4, DATA+16; movb $1, DATA+48; ldtilecfg DATA; mov $8, %ecx;"
        "lea DATA+256, %rax; tilestored %tmm0, (%rax,%rcx,1); mov DATA+256, %edi",
    ),
}
"""What no program is told of, which works all the same in ring 3 where the host has it."""


@pytest.mark.parametrize("state", BEYOND)
def test_state_that_no_image_holds_is_not_left_to_another_program(machine: Any, state: str) -> None:
    leave, look = BEYOND[state]
    first = machine.start(f"{leave}; mov $7, %eax; syscall")
    if machine.exit_of(first) == ExitKind.EXCEPTION:
        assert first.vector == 6  # this machine has none of it
        return
    first.destroy()

    for _ in range(8):
        second = machine.start(f"{look}; mov $7, %eax; syscall")
        assert machine.syscall_of(second) == 7
        assert second.regs[Reg.RDI] == 0
