"""A program that attacks the entry page, its mailbox and its doorbell harms only itself.

Where the platform keeps these pages out of the program's reach, its accesses fault instead.
"""

from __future__ import annotations

from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

ENTRY = 0x7FFFFFE00000
S, DOORBELL = ENTRY + 0x1000, ENTRY + 0x2000
HARMLESS = {ExitKind.SYSCALL, ExitKind.INTERRUPTED}
MAX_VCPUS = 16

FIND_S = """
    mov $0x7fffffe01000, %rbx
    mov $0x7fffffe00000, %rbp
"""
"""With one context its vCPU is the first one."""


def assert_others_live(machine: Any, victim: Any, rounds: int = 30) -> None:
    """A well-behaved program is served correctly while the attacker does what it does."""
    served = 0
    while served < rounds:
        came = machine.any_exit()
        if came is victim:
            if came.exit == ExitKind.SYSCALL:
                assert came.regs[Reg.ORIG_RAX] == 50
                served += 1
                came.answer(came.regs[Reg.RDI])
            else:
                assert came.exit == ExitKind.INTERRUPTED, (came.exit, came.vector)
                came.resume()
        elif came.exit in HARMLESS:
            came.answer(0) if came.exit == ExitKind.SYSCALL else came.resume()


VICTIM = "1: mov $50, %eax; inc %rdi; mov %rdi, %rbx; syscall; cmp %rax, %rbx; je 1b; ud2"

ATTACKS = {
    "forged requests": FIND_S + "1: movl $1, (%rbx); pause; jmp 1b",
    "answers to itself": FIND_S + "1: movl $0, (%rbx); jmp 1b",
    "ringing states": FIND_S + "1: movl $3, (%rbx); mov $7, %eax; syscall; jmp 1b",
    "all of S": FIND_S
    + "1: mov %rbx, %rdi; mov $512, %ecx; rep stosq; add $0x1111, %rax; mov $7, %eax; syscall;"
    "jmp 1b",
    "forged request, then a fault": FIND_S + "movl $1, (%rbx); mov $1000, %ecx; 2: loop 2b; ud2",
    "endless spin in the entry code": FIND_S
    + "movl $1, (%rbx); mov $-1, %r11; lea 0x18e(%rbp), %rax; jmp *%rax",
    "tail with a bad image": FIND_S
    + "movq $7, 0x78(%rbx); movq $-1, 0x600(%rbx); movq $-1, 0x608(%rbx); mov $7, %eax; syscall;"
    "mov $7, %eax; syscall; jmp .",
    "doorbell read": FIND_S + "mov 0x1000(%rbx), %eax; jmp .",
    "doorbell write": FIND_S + "mov %eax, 0x1000(%rbx); jmp .",
    "doorbell vector write": FIND_S + "movups %xmm0, 0x1000(%rbx); jmp .",
    "doorbell as code": FIND_S + "lea 0x1000(%rbx), %rax; jmp *%rax",
    "entry page write": FIND_S + "movl $0, (%rbp); jmp .",
    "entry page jumps": FIND_S
    + "1: inc %r8; mov %r8, %rax; and $0x3ff, %rax; add %rbp, %rax; mov $DATA, %esp; jmp *%rax",
    "supervisor write": "mov $1, %rax; shl $47, %rax; neg %rax; movl $0, (%rax); jmp .",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_does_not_touch_another_program(machine: Any, attack: str) -> None:
    attacker = machine.start(ATTACKS[attack])
    victim = machine.start(VICTIM, rdi=0)

    assert_others_live(machine, victim)

    attacker.kick()
    assert_others_live(machine, victim, rounds=5)
    space = attacker.owner
    attacker.destroy()
    space.destroy()
    machine._exited = type(machine._exited)(c for c in machine._exited if c is not attacker)
    assert_others_live(machine, victim, rounds=5)


@pytest.mark.parametrize("attack", ATTACKS)
def test_kick_always_gets_an_attacker_out(machine: Any, attack: str) -> None:
    attacker = machine.start(ATTACKS[attack])
    for _ in range(30):
        attacker.kick()
        assert machine.any_exit() is attacker
        if attacker.exit == ExitKind.SYSCALL:
            attacker.answer(0)
        elif attacker.exit == ExitKind.INTERRUPTED:
            attacker.resume()
        else:
            break


@pytest.mark.parametrize("attack", ATTACKS)
def test_stop_always_gets_an_attacker_out(machine: Any, attack: str) -> None:
    attacker = machine.start(ATTACKS[attack])
    for _ in range(10):
        stopped: list[int] = []
        attacker.stop(lambda stopped=stopped: stopped.append(1))
        machine.wait_for(lambda stopped=stopped: stopped)
        came = machine.any_exit() if machine._exited else None
        if came is None or came.exit not in HARMLESS:
            break
        came.answer(0) if came.exit == ExitKind.SYSCALL else came.resume()


@pytest.mark.parametrize(
    "source",
    ["mov $0x7fffffe02000, %rax; mov (%rax), %ecx", "mov $0x7fffffe02000, %rax; mov %ecx, (%rax)"],
    ids=["read", "write"],
)
def test_doorbell_touched_by_the_program_is_its_fault(machine: Any, source: str) -> None:
    context = machine.start(source + "; jmp .")

    assert machine.exit_of(context) == ExitKind.FAULT

    assert context.fault_addr == DOORBELL


def test_sibling_scribbling_over_a_mailbox_harms_only_their_process(machine: Any) -> None:
    scribble = """
    1:  mov $0x7fffffe01000, %rbx
        mov $16, %ecx
    2:  movl $1, (%rbx); movl $0, (%rbx); movq $0, 0x78(%rbx)
        add $0x4000, %rbx
        loop 2b
        jmp 1b
    """
    space = machine.space(scribble + ".org 0x100;" + VICTIM)
    sibling = machine.context(space, rdi=0)
    sibling.regs[Reg.RIP] += 0x100
    sibling.resume()
    attacker = machine.context(space)
    attacker.resume()
    victim = machine.start(VICTIM, rdi=0)

    assert_others_live(machine, victim, rounds=200)


def test_scribbled_tail_gives_no_registers_of_another_process(machine: Any) -> None:
    """The sibling tells the way back not to load the FPU state, while vCPUs change hands."""
    spy = """
    1:  mov $0x7fffffe01000, %rbx
    2:  movq $0, 0x78(%rbx); movq $0, 0x600(%rbx)
        add $0x4000, %rbx
        jmp 2b
        .org 0x100
    1:  xor %ebx, %ebx
        mov $50, %eax; syscall
        movq %xmm7, %rdi; movabs $0x5ec7e75ec7e7, %rsi; cmp %rsi, %rdi; jne 1b
        mov $51, %eax; syscall
    """
    keeper = "movabs $0x5ec7e75ec7e7, %rsi; movq %rsi, %xmm7; 1: mov $52, %eax; syscall; jmp 1b"
    space = machine.space(spy)
    looking = machine.context(space)
    looking.regs[Reg.RIP] += 0x100
    scribbling = machine.context(space)
    contexts = [machine.start(keeper) for _ in range(MAX_VCPUS)]
    for context in (looking, scribbling):
        context.resume()
    looks = 0
    while looks < 300:
        came = machine.any_exit()
        if came is scribbling:
            came.regs[Reg.RIP] = 0x400000
            came.resume()
        elif came.exit == ExitKind.SYSCALL:
            assert came.regs[Reg.ORIG_RAX] != 51, "it saw the others' secret"
            looks += came is looking
            came.answer(0)
        elif came is looking:
            came.regs[Reg.RIP] = 0x400100
            came.resume()
        else:
            where = came.exit, hex(came.fault_addr), came.error_code, hex(came.regs[Reg.RIP])
            assert came.exit == ExitKind.INTERRUPTED and came in contexts, where
            came.resume()
