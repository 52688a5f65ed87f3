"""Faults and exceptions: vector, error code, address, and going on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

CODE, DATA, STACK = 0x400000, 0x600000, 0x800000
VSYSCALL = 0xFFFFFFFFFF600000


@pytest.mark.parametrize(
    ("source", "address", "error"),
    [
        ("mov 0x123456, %al", 0x123456, 4),
        ("movb $1, 0x123456", 0x123456, 6),
        ("movb $1, 0x700010", 0x700010, 7),
        ("mov $DATA, %eax; jmp *%rax", DATA, 0x15),
        ("mov $0x123456, %eax; jmp *%rax", 0x123456, 0x14),
        ("mov $0xffffffffff600400, %rax; call *%rax", VSYSCALL + 0x400, None),
    ],
    ids=["read", "write", "read-only", "no-execute", "jump", "vsyscall"],
)
def test_page_fault_tells_address_and_kind(
    machine: Any, source: str, address: int, error: int | None
) -> None:
    space = machine.space(source)
    space.map_anonymous(0x700000, 1, 1)
    context = machine.context(space)
    context.resume()

    assert machine.exit_of(context) == ExitKind.FAULT

    assert context.fault_addr == address
    if error is None:
        assert context.regs[Reg.RIP] == address
    else:
        assert context.error_code == error


def test_page_fault_repaired_goes_on(machine: Any) -> None:
    context = machine.start("movl $5, 0x700000; mov 0x700000, %edi; mov $1, %eax; syscall")
    assert machine.exit_of(context) == ExitKind.FAULT

    context.owner.map_anonymous(0x700000, 1, 3)
    context.resume()

    machine.syscall_of(context)
    assert context.regs[Reg.RDI] == 5


def test_page_fault_keeps_all_registers(machine: Any) -> None:
    names = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "R8", "R9", "R10", "R11", "R12",
             "R13", "R14", "R15")  # fmt: skip
    load = "".join(f"mov ${0x5000_0000_0000 + i}, %{n.lower()};" for i, n in enumerate(names))
    context = machine.start(load + "stc; mov 0x700000, %sil; int3")
    assert machine.exit_of(context) == ExitKind.FAULT
    values = [0x5000_0000_0000 + i for i in range(len(names))]
    assert [context.regs[Reg[name]] for name in names] == values

    context.owner.map_anonymous(0x700000, 1, 1)
    context.resume()

    assert machine.exit_of(context) == ExitKind.EXCEPTION
    values[4] &= ~0xFF
    assert [context.regs[Reg[name]] for name in names] == values
    assert context.regs[Reg.RFLAGS] & 1


@pytest.mark.parametrize(
    ("source", "vector", "error", "offset"),
    [
        ("xor %ecx, %ecx; div %ecx", 0, 0, 2),
        ("int3", 3, 0, 1),
        ("ud2", 6, 0, 0),
        ("hlt", 13, 0, 0),
        ("cli", 13, 0, 0),
        ("out %al, $0xf0", 13, 0, 0),
        ("mov %rax, %cr3", 13, 0, 0),
        ("mov $1, %rax; shl $63, %rax; mov (%rax), %al", 13, 0, None),
        ("mov $1, %rax; shl $63, %rax; mov %rax, %rsp; pop %rcx", 12, 0, None),
        ("fninit; movl $0x300, (%rsp); fldcw (%rsp); fldz; fldz; fdivp; fwait", 16, 0, None),
        ("movl $0, (%rsp); ldmxcsr (%rsp); xorps %xmm0, %xmm0; divss %xmm0, %xmm0", 19, 0, None),
        (
            "pushf; orl $0x40000, (%rsp); popf; movl 1(%rsp), %eax",
            17,
            0,
            None,
        ),
    ],
    ids=["DE", "BP", "UD", "hlt", "cli", "out", "cr3", "GP", "SS", "MF", "XM", "AC"],
)
def test_exception_tells_vector_error_and_place(
    machine: Any, source: str, vector: int, error: int, offset: int | None
) -> None:
    if machine.platform.name == "unicorn" and vector in {17, 19}:
        pytest.skip("the emulator checks no alignment and raises no SSE exceptions")
    if os.environ.get("CPU_IS_EMULATED") and vector in {12, 17, 19}:
        pytest.skip("nor does the emulated CPU below this KVM, which has no #SS either")
    context = machine.start("sub $64, %rsp;" + source)

    assert machine.exit_of(context) == ExitKind.EXCEPTION

    assert (context.vector, context.error_code) == (vector, error)
    if offset is not None:
        assert context.regs[Reg.RIP] == CODE + 4 + offset


def test_soft_interrupt_is_an_exception_of_the_program(machine: Any) -> None:
    context = machine.start("int $0x80")

    assert machine.exit_of(context) == ExitKind.EXCEPTION

    assert context.vector in {6, 13}


def caught_under_kicks(machine: Any, context: Any) -> Iterator[int]:
    """The numbers of a running context's next exceptions, with kicks at any moment between them."""
    caught = interrupted = 0
    while caught < 5000:
        if not machine.has_exit() and interrupted <= caught:
            context.kick()
        assert machine.any_exit() is context
        if context.exit == ExitKind.EXCEPTION:
            caught += 1
            yield caught
        else:
            interrupted += 1
            assert context.exit == ExitKind.INTERRUPTED
        context.resume()
    assert interrupted


@pytest.mark.parametrize(("source", "vector"), [("int3", 3), ("ud2", 6)], ids=["int3", "ud2"])
def test_kicks_at_any_moment_lose_no_exception(machine: Any, source: str, vector: int) -> None:
    context = machine.start(f"inc %rbx; {source}; 1: jmp 1b", rbx=0)
    for number in caught_under_kicks(machine, context):
        assert (context.vector, context.regs[Reg.RBX]) == (vector, number)
        context.regs[Reg.RIP] = CODE


def test_single_step_stops_after_each_instruction(machine: Any) -> None:
    context = machine.context(machine.space("nop; nop; nop; ud2"))
    context.regs[Reg.RFLAGS] |= 0x100
    for offset in (1, 2, 3):
        context.resume()
        assert machine.exit_of(context) == ExitKind.EXCEPTION
        assert (context.vector, context.regs[Reg.RIP]) == (1, CODE + offset)
        assert context.regs[Reg.RFLAGS] & 0x100


def test_kicks_at_any_moment_lose_no_single_step(machine: Any) -> None:
    context = machine.context(machine.space("1: inc %rbx; jmp 1b"), rbx=0)
    context.regs[Reg.RFLAGS] |= 0x100
    context.resume()
    for step in caught_under_kicks(machine, context):
        assert (context.vector, context.regs[Reg.RBX]) == (1, (step + 1) // 2)
        assert context.regs[Reg.RIP] == CODE + 3 * (step % 2)


def test_single_step_over_a_call_keeps_the_trap_flag(machine: Any) -> None:
    context = machine.context(machine.space("mov $39, %eax; syscall; nop; ud2"))
    context.regs[Reg.RFLAGS] |= 0x100
    context.resume()
    assert machine.exit_of(context) == ExitKind.EXCEPTION
    context.resume()
    assert machine.exit_of(context) == ExitKind.SYSCALL
    assert context.regs[Reg.RFLAGS] & 0x100

    context.answer(1)

    assert machine.exit_of(context) == ExitKind.EXCEPTION
    assert (context.vector, context.regs[Reg.RIP]) == (1, CODE + 8)


def test_trap_flag_of_the_program_itself(machine: Any) -> None:
    context = machine.start("pushf; orl $0x100, (%rsp); popf; nop; nop; ud2")

    assert machine.exit_of(context) == ExitKind.EXCEPTION

    assert context.vector == 1
    context.regs[Reg.RFLAGS] &= ~0x100
    context.resume()
    assert machine.exit_of(context) == ExitKind.EXCEPTION
    assert context.vector == 6


def test_triple_fault_is_impossible_with_a_bad_stack(machine: Any) -> None:
    context = machine.start("xor %esp, %esp; ud2")

    assert machine.exit_of(context) == ExitKind.EXCEPTION

    assert context.vector == 6
