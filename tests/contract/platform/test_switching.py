"""Threads and programs that wake each other and wait: however the platform switches between them,
each goes on with its own state."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

CODE, DATA, STACK_TOP = 0x400000, 0x600000, 0x803F00
READ, WRITE = 1, 2
WAKE, WAIT, DONE = 40, 41, 42
TRAP_FLAG = 0x100

BATON = f"""
1:  mov ${WAKE}, %eax; syscall
    mov ${WAIT}, %eax; syscall
    jmp 1b
"""
"""Wakes the next thread and waits for its own turn, for ever."""

SCRIBBLE = """
1:  mov $0x7fffffe01000, %rbx
    mov $16, %ecx
2:  movl $1, (%rbx); movl $0, (%rbx); movl $3, (%rbx); movq $0, 0x78(%rbx); movq $0, 0x600(%rbx)
    add $0x4000, %rbx
    loop 2b
    jmp 1b
"""
"""Over the words, the tail flags and the FPU headers of all mailboxes."""

UNMAPPED = 0x10000
FAULT_OR_CALL = f"""
    test %rbx, %rbx; jz 1f
    mov (%rbx), %rax
1:  mov ${WAKE}, %eax; syscall
"""


class Ring:
    """A kernel with two calls: WAKE gives the next thread of the ring a token, WAIT takes one."""

    def __init__(self, machine: Any, threads: list[Any]) -> None:
        self.machine = machine
        self.threads = threads
        self.tokens = dict.fromkeys(threads, 0)
        self.asleep: set[Any] = set()
        self.rounds = 0
        self.others: deque[Any] = deque()

    def wake(self, thread: Any) -> None:
        """One token more."""
        self.tokens[thread] += 1
        if thread in self.asleep:
            self.asleep.remove(thread)
            self.tokens[thread] -= 1
            thread.answer(0)

    def serve(self, came: Any) -> None:
        """One exit of a thread of the ring."""
        if came.exit == ExitKind.INTERRUPTED:
            came.resume()
            return
        assert came.exit == ExitKind.SYSCALL, (came.exit, came.vector, hex(came.regs[Reg.RIP]))
        number = came.regs[Reg.ORIG_RAX]
        if number == WAKE:
            target = self.threads[(self.threads.index(came) + 1) % len(self.threads)]
            came.answer(0)
            self.wake(target)
        elif number == WAIT:
            self.rounds += came is self.threads[0]
            if self.tokens[came]:
                self.tokens[came] -= 1
                came.answer(0)
            else:
                self.asleep.add(came)
        else:
            raise AssertionError(f"call {number} of a thread that checks itself")

    def run(self, rounds: int) -> None:
        """Serve until the first thread has waited so many times more."""
        end = self.rounds + rounds
        while self.rounds < end:
            came = self.machine.any_exit()
            if came in self.tokens:
                self.serve(came)
            else:
                self.others.append(came)


def start_ring(machine: Any, source: str, count: int, programs: int = 1) -> Ring:
    """Threads of one program, or of several in turns, numbered from 1 in RDI."""
    spaces = [machine.space(source) for _ in range(programs)]
    threads = []
    for number in range(count):
        threads.append(machine.context(spaces[number % programs], rdi=number + 1))
        threads[-1].regs[Reg.RSP] = STACK_TOP - 0x400 * number
    ring = Ring(machine, threads)
    for thread in threads:
        thread.resume()
    return ring


def checking(machine: Any) -> str:
    """A thread that has all its state depend on RDI, and checks it after each call."""
    avx = machine.platform.xfeatures & 4
    fill = "vinsertf128 $1, %xmm3, %ymm3, %ymm3" if avx else "nop"
    check = "vextractf128 $1, %ymm3, %xmm4" if avx else "pshufd $0xee, %xmm3, %xmm4"
    saved = ("rbp", "r8", "r9", "r10", "r12", "r13", "r14", "r15", "rsi", "rdx")
    fill_registers = "; ".join(f"lea {n}(%rdi), %{r}" for n, r in enumerate(saved))
    test_registers = "; ".join(
        f"lea {n}(%rdi), %rbx; cmp %rbx, %{r}; jne 9f" for n, r in enumerate(saved)
    )
    test = f"""
        {test_registers}
        test %rax, %rax; jne 9f
        movq %xmm3, %rbx; cmp %rdi, %rbx; jne 9f
        {check}; movq %xmm4, %rbx; cmp %rdi, %rbx; jne 9f
        fld %st(0); fistpll -8(%rsp); cmp %rdi, -8(%rsp); jne 9f
        rdfsbase %rbx; cmp %rdi, %rbx; jne 9f
        rdgsbase %rbx; lea 5(%rdi), %rax; cmp %rax, %rbx; jne 9f
    """
    return f"""
        movq %rdi, %xmm3; pinsrq $1, %rdi, %xmm3; {fill}
        fninit; mov %rdi, -8(%rsp); fildll -8(%rsp)
        wrfsbase %rdi; lea 5(%rdi), %rax; wrgsbase %rax
        {fill_registers}
    1:  mov ${WAKE}, %eax; std; syscall; pushfq; cld; pop %rbx; test $0x400, %rbx; jz 9f
        {test}
        mov ${WAIT}, %eax; syscall; pushfq; pop %rbx; test $0x400, %rbx; jnz 9f
        {test}
        jmp 1b
    9:  ud2
    """


def end_ring(machine: Any, ring: Ring) -> None:
    for thread in ring.threads:
        thread.destroy()
    for space in {id(thread.owner): thread.owner for thread in ring.threads}.values():
        space.destroy()
    machine._exited.clear()


@contextlib.contextmanager
def busy_cpus() -> Iterator[None]:
    """Others want all of the CPUs meanwhile."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def kick_all(ring: Ring, threads: Iterable[Any]) -> None:
    for thread in threads:
        thread.kick()
    ring.run(1)


@pytest.mark.parametrize("programs", [1, 2, 5])
def test_turns_keep_registers_fpu_bases_and_flags(machine: Any, programs: int) -> None:
    for count in (2, 5):
        ring = start_ring(machine, checking(machine), count, min(programs, count))
        ring.run(400)
        end_ring(machine, ring)


def test_two_programs_in_turns_keep_their_state(machine: Any) -> None:
    rings = [start_ring(machine, checking(machine), 2) for _ in range(2)]
    for _ in range(60):
        for ring, other in (rings, rings[::-1]):
            ring.run(5)
            while ring.others:
                other.serve(ring.others.popleft())


@pytest.mark.parametrize("programs", [1, 3])
def test_kicks_of_threads_in_turns_lose_no_state(machine: Any, programs: int) -> None:
    ring = start_ring(machine, checking(machine), 3, programs)
    for number in range(150):
        kick_all(ring, ring.threads[: number % 3 + 1])


def test_kick_of_one_that_did_not_get_a_vcpu_from_another_program(machine: Any) -> None:
    """That vCPU came out of its mailbox by itself, and is still in the other address space."""
    for _ in range(80):
        ring = start_ring(machine, checking(machine), 3, 3)
        for number in range(100):
            kick_all(ring, ring.threads[: number % 3 + 1])
        end_ring(machine, ring)


def test_one_that_goes_on_late_on_busy_cpus_is_not_forgotten(machine: Any) -> None:
    """The mailbox of the thread that called last is just given up: there is nobody else to run."""
    rng = random.Random(1)
    spaces = [machine.space(FAULT_OR_CALL) for _ in range(2)]
    threads = [machine.context(space) for space in spaces for _ in range(2)]
    with busy_cpus():
        for _ in range(2000):
            thread = rng.choice(threads)
            address = rng.choice((0, 0, UNMAPPED))
            thread.regs[Reg.RIP], thread.regs[Reg.RBX] = CODE, address
            late = time.monotonic_ns() + rng.choice((0, rng.randrange(200_000)))
            while time.monotonic_ns() < late:
                pass
            thread.resume()
            expected = ExitKind.FAULT if address else ExitKind.SYSCALL
            assert machine.exit_of(thread) == expected


def test_kick_finds_a_thread_that_was_switched_to(machine: Any) -> None:
    """It computes where its waker waits, and then the waker goes on with its own registers."""
    waker_then_spin = f"""
        mov ${WAIT}, %eax; syscall
    1:  inc %rbx; jmp 1b
        .org 0x100
        mov $77, %ebx
        mov ${WAKE}, %eax; syscall
        mov ${WAIT}, %eax; syscall
        mov ${DONE}, %eax; syscall
    """
    space = machine.space(waker_then_spin)
    spinner, waker = machine.context(space), machine.context(space)
    waker.regs[Reg.RIP] += 0x100
    spinner.resume()
    assert machine.syscall_of(spinner) == WAIT
    waker.resume()
    assert machine.syscall_of(waker) == WAKE
    waker.answer(0)
    spinner.answer(0)
    assert machine.syscall_of(waker) == WAIT
    for _ in range(3):
        machine.poll()
        spinner.kick()
        assert machine.any_exit() is spinner
        assert spinner.exit == ExitKind.INTERRUPTED
        spinner.resume()

    waker.answer(0)

    assert machine.syscall_of(waker) == DONE
    assert waker.regs[Reg.RBX] == 77


@pytest.mark.parametrize("programs", [1, 2])
def test_stop_of_one_whose_vcpu_another_has_is_over_soon(machine: Any, programs: int) -> None:
    ring = start_ring(machine, checking(machine), 2, programs)
    for _ in range(50):
        ring.run(3)
        stopped: list[int] = []
        for thread in ring.threads:
            thread.stop(lambda stopped=stopped: stopped.append(1))
        machine.wait_for(lambda stopped=stopped: len(stopped) == 2)


def test_destroy_of_one_leaves_the_other_its_state(machine: Any) -> None:
    space = machine.space(checking(machine))
    keeper = machine.context(space, rdi=1)
    keeper.resume()
    for number in range(2, 40):
        guest = machine.context(space, rdi=number)
        guest.regs[Reg.RSP] = STACK_TOP - 0x400
        ring = Ring(machine, [keeper, guest])
        if number > 2:
            ring.asleep.add(keeper)
        guest.resume()
        ring.run(1 + number % 3)
        while keeper not in ring.asleep:  # without answers the guest cannot keep it awake
            if (came := machine.any_exit()) is keeper:
                ring.serve(came)
        guest.destroy()
        machine._exited.clear()


def test_memory_taken_away_is_gone_for_a_thread_that_was_switched_to(machine: Any) -> None:
    look = f"""
        mov ${WAIT}, %eax; syscall
        mov DATA, %rax
        mov ${WAKE}, %eax; syscall
        jmp .
        .org 0x100
        mov DATA, %rax
        mov ${WAKE}, %eax; syscall
        mov ${WAIT}, %eax; syscall
    """
    for _ in range(20):
        space = machine.space(look)
        second, first = machine.context(space), machine.context(space)
        first.regs[Reg.RIP] += 0x100
        second.resume()
        assert machine.syscall_of(second) == WAIT
        first.resume()
        assert machine.syscall_of(first) == WAKE
        first.answer(0)
        assert machine.syscall_of(first) == WAIT
        space.unmap(DATA, 1)

        second.answer(0)

        assert machine.exit_of(second) == ExitKind.FAULT
        assert second.fault_addr == DATA
        for context in (first, second):
            context.destroy()
        space.destroy()


def test_single_step_of_a_woken_thread_traps_after_one_instruction(machine: Any) -> None:
    space = machine.space(f"""
        mov ${WAIT}, %eax; syscall; inc %rbx; ud2
        .org 0x100
    1:  mov ${WAKE}, %eax; syscall; mov ${WAIT}, %eax; syscall; jmp 1b
    """)
    stepped, waker = machine.context(space, rbx=4), machine.context(space)
    waker.regs[Reg.RIP] += 0x100
    stepped.resume()
    assert machine.syscall_of(stepped) == WAIT
    waker.resume()
    assert machine.syscall_of(waker) == WAKE
    waker.answer(0)
    stepped.regs[Reg.RFLAGS] |= TRAP_FLAG
    stepped.resume()
    came = {machine.next_exit(), machine.next_exit()}

    assert came == {waker, stepped}
    assert waker.exit == ExitKind.SYSCALL
    assert (stepped.exit, stepped.vector) == (ExitKind.EXCEPTION, 1)
    assert stepped.regs[Reg.RBX] == 5


def test_image_set_while_a_thread_sleeps_is_what_it_goes_on_with(machine: Any) -> None:
    space = machine.space(f"""
    1:  mov ${WAIT}, %eax; syscall; movq %xmm3, %rdi; jmp 1b
        .org 0x100
    1:  mov ${WAKE}, %eax; syscall; mov ${WAIT}, %eax; syscall; jmp 1b
    """)
    sleeper, waker = machine.context(space), machine.context(space)
    waker.regs[Reg.RIP] += 0x100
    sleeper.resume()
    waker.resume()
    assert {machine.next_exit(), machine.next_exit()} == {sleeper, waker}
    for number in range(1000, 1030):
        image = bytearray(sleeper.get_fpu())
        image[208:216] = number.to_bytes(8, "little")  # XMM3
        image[512] |= 3
        sleeper.set_fpu(bytes(image))
        waker.answer(0)
        sleeper.answer(0)
        assert {machine.next_exit(), machine.next_exit()} == {sleeper, waker}
        assert sleeper.regs[Reg.RDI] == number
        waker.answer(0)
        assert machine.syscall_of(waker) == WAKE


def test_programs_that_end_in_turns_leave_the_others_their_state(machine: Any) -> None:
    """The next one may get the vCPU of one that is gone, and its memory."""
    keeper = machine.context(machine.space(checking(machine)), rdi=1)
    keeper.resume()
    for number in range(2, 40):
        guest = machine.context(machine.space(checking(machine)), rdi=number)
        ring = Ring(machine, [keeper, guest])
        if number > 2:
            ring.asleep.add(keeper)
        guest.resume()
        ring.run(1 + number % 3)
        while keeper not in ring.asleep:
            if (came := machine.any_exit()) is keeper:
                ring.serve(came)
        guest.destroy()
        guest.owner.destroy()
        machine._exited.clear()


def test_undefined_instructions_of_programs_in_turns_are_their_own(machine: Any) -> None:
    space = [machine.space(f"1: mov ${WAKE}, %eax; syscall; ud2; jmp 1b") for _ in range(2)]
    one, other = (machine.context(each, rdi=n) for n, each in enumerate(space))
    other.resume()
    assert machine.syscall_of(other) == WAKE
    one.resume()
    for number in range(400):
        caller, next_one = (one, other) if number % 2 == 0 else (other, one)
        assert machine.syscall_of(caller) == WAKE
        next_one.answer(0)
        assert machine.exit_of(next_one) == ExitKind.EXCEPTION
        assert (next_one.vector, next_one.regs[Reg.RDI]) == (6, 1 - number % 2)
        next_one.regs[Reg.RIP] += 2
        next_one.resume()


def test_program_that_keeps_its_vcpu_from_the_next_only_loses_it(machine: Any) -> None:
    """A thread answers its siblings' calls itself; one of them then stays, one goes to the trap."""
    meddle = f"""
    1:  mov $0x7fffffe01000, %rbx
        mov $16, %ecx
    2:  movl $0, (%rbx); movq $0, 0x78(%rbx)
        add $0x4000, %rbx
        loop 2b
        jmp 1b
        .org 0x100
    1:  mov ${WAIT}, %eax; mov $77, %r15; syscall
        ud2
        jmp 1b
        .org 0x200
    1:  mov ${WAIT}, %eax; mov $77, %r15; syscall
    2:  pause
        jmp 2b
    """
    hostile = machine.space(meddle)
    attackers = [machine.context(hostile) for _ in range(3)]
    for number, context in enumerate(attackers):
        context.regs[Reg.RIP] += 0x100 * number
        context.resume()
    victim = start_ring(machine, checking(machine), 2, 2)
    end = victim.rounds + 100
    while victim.rounds < end:
        came = machine.any_exit()
        if came in victim.tokens:
            victim.serve(came)
        elif came.exit == ExitKind.INTERRUPTED:
            came.resume()
        elif came is not attackers[0]:
            came.regs[Reg.RIP] = CODE + 0x100 * attackers.index(came)
            came.regs[Reg.RFLAGS] = 0x202
            came.resume()


@pytest.mark.parametrize("programs", [1, 2])
def test_scribbled_mailboxes_of_switching_threads_harm_only_their_process(
    machine: Any, programs: int
) -> None:
    """A third thread meddles with the mailboxes in which the others are switched."""
    hostile = machine.space(SCRIBBLE + ".org 0x100;" + BATON)
    attackers = [machine.context(hostile) for _ in range(3)]
    for context in attackers[1:]:
        context.regs[Reg.RIP] += 0x100
    for context in attackers:
        context.resume()
    asleep: list[Any] = []
    victim = start_ring(machine, checking(machine), 2, programs)
    end = victim.rounds + 300
    while victim.rounds < end:
        came = machine.any_exit()
        if came in victim.tokens:
            victim.serve(came)
        elif came.exit == ExitKind.SYSCALL:
            if came.regs[Reg.ORIG_RAX] == WAIT and not asleep:
                asleep.append(came)
            else:
                if asleep:
                    asleep.pop().answer(0)
                came.answer(0)
        elif came.exit == ExitKind.INTERRUPTED:
            came.resume()
        elif came is not attackers[0]:  # it has hurt itself: once more
            came.regs[Reg.RIP], came.regs[Reg.RFLAGS] = CODE + 0x100, 0x202
            came.resume()
