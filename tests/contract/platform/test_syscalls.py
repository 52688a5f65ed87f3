"""System calls: what the kernel sees of them, and what the program sees afterwards."""

from __future__ import annotations

from typing import Any

from sentry.platform.interface import ExitKind, Reg

CODE, DATA = 0x400000, 0x600000
LIVE = ("RBX", "RBP", "RDI", "RSI", "RDX", "R8", "R9", "R10", "R12", "R13", "R14", "R15")

LOAD_ALL = "\n".join(
    f"mov ${0x1111 * (i + 1) << 32 | i:#x}, %{name.lower()}" for i, name in enumerate(LIVE)
)


def test_syscall_gives_number_arguments_and_place(machine: Any) -> None:
    context = machine.start("mov $100, %eax; mov $1, %edi; mov $2, %esi; syscall; ud2")

    assert machine.syscall_of(context) == 100

    regs = context.regs
    assert (regs[Reg.RDI], regs[Reg.RSI]) == (1, 2)
    assert regs[Reg.RAX] == 2**64 - 38  # -ENOSYS, as Linux shows it to a tracer
    assert regs[Reg.RIP] == regs[Reg.RCX] == CODE + 17
    assert regs[Reg.R11] == regs[Reg.RFLAGS]
    assert (regs[Reg.CS], regs[Reg.SS]) == (0x33, 0x2B)


def test_answer_is_in_rax_and_nothing_else_changes(machine: Any) -> None:
    context = machine.start(LOAD_ALL + "; mov $7, %eax; syscall; syscall; ud2")
    machine.syscall_of(context)
    before = {name: context.regs[Reg[name]] for name in (*LIVE, "RSP", "RFLAGS")}

    context.answer(8)

    assert machine.syscall_of(context) == 8
    assert {name: context.regs[Reg[name]] for name in before} == before


def test_answer_negative_is_an_errno(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall; mov %rax, %rdi; mov $9, %eax; syscall")
    machine.syscall_of(context)

    context.answer(-2)

    machine.syscall_of(context)
    assert context.regs[Reg.RDI] == 2**64 - 2


def test_many_calls_each_come_once_and_in_order(machine: Any) -> None:
    context = machine.start("1: mov $50, %eax; syscall; mov %rax, %rdi; jmp 1b")
    machine.syscall_of(context)
    for number in range(1, 500):
        context.answer(number)
        machine.syscall_of(context)
        assert context.regs[Reg.RDI] == number


def test_flags_survive_a_call(machine: Any) -> None:
    context = machine.start(
        "std; stc; mov $7, %eax; syscall; pushf; pop %rdi; cld; mov $9, %eax; syscall"
    )
    machine.syscall_of(context)

    context.answer(0)

    machine.syscall_of(context)
    assert context.regs[Reg.RDI] & 0x401 == 0x401


def test_resume_loads_every_register(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall; ud2; .org 0x40; syscall; ud2")
    machine.syscall_of(context)
    wanted = {name: 0x2BC0_0000_0000 + i for i, name in enumerate((*LIVE, "RAX", "RSP"))}
    for name, value in wanted.items():
        context.regs[Reg[name]] = value
    context.regs[Reg.RIP] = CODE + 0x40
    context.regs[Reg.RFLAGS] |= 0x801

    context.resume()

    assert machine.syscall_of(context) == wanted.pop("RAX")
    assert {name: context.regs[Reg[name]] for name in wanted} == wanted
    assert context.regs[Reg.RFLAGS] & 0xCD5 == 0x801


def test_bases_are_seen_and_set(machine: Any) -> None:
    context = machine.start(
        "mov $DATA, %eax; wrfsbase %rax; mov $0x77, %eax; wrgsbase %rax; syscall;"
        "mov %fs:8, %rdi; rdgsbase %rsi; syscall"
    )
    context.owner.write(DATA + 16, (99).to_bytes(8, "little"))
    machine.syscall_of(context)
    assert (context.regs[Reg.FS_BASE], context.regs[Reg.GS_BASE]) == (DATA, 0x77)

    context.regs[Reg.FS_BASE], context.regs[Reg.GS_BASE] = DATA + 8, 0x88
    context.resume()

    machine.syscall_of(context)
    assert (context.regs[Reg.RDI], context.regs[Reg.RSI]) == (99, 0x88)


def test_fast_answers_need_no_exit_until_turned_off(machine: Any) -> None:
    source = "".join(
        f"mov ${number}, %eax; syscall; mov %rax, %{register};"
        for number, register in (
            (39, "rbx"),
            (186, "rbp"),
            (102, "r12"),
            (107, "r13"),
            (104, "r14"),
            (108, "r15"),
        )
    )
    context = machine.context(machine.space(f"1: {source} mov $60, %eax; syscall; jmp 1b"))
    context.set_fast(10, 11, (1, 2, 3, 4))
    context.resume()

    assert machine.syscall_of(context) == 60

    names = (Reg.RBX, Reg.RBP, Reg.R12, Reg.R13, Reg.R14, Reg.R15)
    assert [context.regs[name] for name in names] == [10, 11, 1, 2, 3, 4]
    context.set_fast(0, 0, (0, 0, 0, 0))
    context.answer(0)
    assert machine.syscall_of(context) == 39


def test_return_to_an_address_that_is_not_the_programs_faults(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall")
    for address in (0x7FFFFFE00000, 1 << 63, 0xFFFF800000002000):
        machine.syscall_of(context) if address == 0x7FFFFFE00000 else None
        context.regs[Reg.RIP] = address
        context.resume()
        assert machine.exit_of(context) == ExitKind.FAULT
        assert context.fault_addr == address
