"""Kicks, stops, deadlines, and more contexts than vCPUs."""

from __future__ import annotations

import os
import select
import time
from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

CODE, DATA = 0x400000, 0x600000
MANY = 40
COUNT_FOR_EVER = "1: incq DATA; jmp 1b"


def counter(context: Any) -> int:
    return int.from_bytes(context.owner.read(DATA, 8), "little")


def test_kick_interrupts_an_endless_loop_which_goes_on(machine: Any) -> None:
    context = machine.start("1: inc %rbx; jmp 1b")
    seen = []
    for _ in range(3):
        context.kick()
        assert machine.any_exit() is context
        assert context.exit == ExitKind.INTERRUPTED
        assert CODE <= context.regs[Reg.RIP] < CODE + 5
        seen.append(context.regs[Reg.RBX])
        context.resume()
        machine.poll()
    assert seen == sorted(seen)


def test_kick_after_an_exit_comes_at_the_next_resume(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall; mov $8, %eax; syscall")
    machine.syscall_of(context)
    context.kick()

    context.answer(5)

    assert machine.any_exit().exit == ExitKind.INTERRUPTED
    assert context.regs[Reg.RAX] == 5
    context.resume()
    assert machine.syscall_of(context) == 8


def test_kicks_at_any_moment_neither_lose_nor_repeat_a_call(machine: Any) -> None:
    context = machine.start(
        "1: mov $1000, %eax; lea 1(%rbx), %rbx; syscall; cmp %rax, %rbx; je 1b; ud2", rbx=0
    )
    done = interrupted = 0
    kick = True
    while done < 3000:
        if kick:
            context.kick()
        came = machine.any_exit()
        kick = came.exit == ExitKind.SYSCALL and done % 3 != 0
        assert came.exit in {ExitKind.SYSCALL, ExitKind.INTERRUPTED}, (came.exit, done)
        if came.exit == ExitKind.SYSCALL:
            done += 1
            assert came.regs[Reg.RBX] == done
            came.answer(done)
        else:
            interrupted += 1
            assert came.regs[Reg.RIP] < 0x7FFFFFE00000
            came.resume()
    assert interrupted


def test_kicks_during_fast_answers_keep_the_registers(machine: Any) -> None:
    space = machine.space(
        "1: mov $39, %eax; syscall; cmp $77, %rax; jne 2f; inc %rbx; cmp $20000, %rbx; jne 1b;"
        "mov $60, %eax; syscall; 2: ud2"
    )
    context = machine.context(space, rbx=0)
    context.set_fast(77, 78, (0, 0, 0, 0))
    context.resume()
    while True:
        machine.poll()
        if not machine.has_exit():
            context.kick()
        came = machine.any_exit()
        if came.exit == ExitKind.SYSCALL and came.regs[Reg.ORIG_RAX] == 60:
            break
        if came.exit == ExitKind.SYSCALL:
            assert came.regs[Reg.ORIG_RAX] == 39
            came.answer(77)
        else:
            assert came.exit == ExitKind.INTERRUPTED, (came.exit, came.vector)
            came.resume()
    assert context.regs[Reg.RBX] == 20000


def test_stop_calls_back_when_the_loop_is_left(machine: Any) -> None:
    context = machine.start("1: jmp 1b")
    stopped: list[int] = []

    context.stop(lambda: stopped.append(1))

    machine.wait_for(lambda: stopped)


def test_stop_during_a_call_calls_back_before_the_answer(machine: Any) -> None:
    context = machine.start("1: mov $7, %eax; syscall; jmp 1b")
    for number in range(50):
        machine.syscall_of(context)
        stopped: list[int] = []
        context.stop(lambda stopped=stopped: stopped.append(1))
        machine.wait_for(lambda stopped=stopped: stopped)
        context.answer(number)


def test_more_endless_loops_than_vcpus_all_advance(machine: Any) -> None:
    contexts = [machine.start(COUNT_FOR_EVER) for _ in range(MANY)]

    machine.wait_for(lambda: all(counter(context) for context in contexts))

    first = [counter(context) for context in contexts]
    machine.wait_for(lambda: all(counter(c) > n for c, n in zip(contexts, first, strict=True)))


def test_who_woke_goes_before_those_that_compute(machine: Any) -> None:
    if machine.platform.name == "unicorn":
        pytest.skip("emulates one after the other, in the order of the queue")
    computing = [machine.start(COUNT_FOR_EVER) for _ in range(MANY)]
    for _ in range(3):
        seen = [counter(context) for context in computing]
        machine.wait_for(
            lambda seen=seen: all(counter(c) > n for c, n in zip(computing, seen, strict=True))
        )
    sleeper = machine.start("1: mov $35, %eax; syscall; jmp 1b")
    went_first = []
    for _ in range(20):
        machine.syscall_of(sleeper)
        machine.poll()
        seen = [counter(context) for context in computing]
        sleeper.answer(0)
        assert machine.next_exit() is sleeper
        went_first.append(sum(counter(c) > n for c, n in zip(computing, seen, strict=True)))
        sleeper.answer(0)

    assert min(went_first) <= MANY // 4


def test_many_that_wake_do_not_keep_those_that_compute_from_it(machine: Any) -> None:
    computing = [machine.start(COUNT_FOR_EVER) for _ in range(4)]
    waking = [machine.start("1: mov $35, %eax; syscall; jmp 1b") for _ in range(MANY)]
    seen = [counter(context) for context in computing]
    asleep: list[Any] = []
    for _ in range(3):
        while not all(counter(c) > n for c, n in zip(computing, seen, strict=True)):
            machine.poll()
            while machine.has_exit():
                asleep.append(machine.any_exit())
            for context in asleep:
                context.answer(0) if context.exit == ExitKind.SYSCALL else context.resume()
            asleep.clear()
        seen = [counter(context) for context in computing]
    assert len({context.owner for context in waking}) == MANY


def test_more_callers_than_vcpus_keep_registers_and_fpu(machine: Any) -> None:
    avx = machine.platform.xfeatures & 4
    fill = "vinsertf128 $1, %xmm3, %ymm3, %ymm3" if avx else "nop"
    check = "vextractf128 $1, %ymm3, %xmm4" if avx else "pshufd $0xee, %xmm3, %xmm4"
    source = f"""
        movq %rdi, %xmm3; pinsrq $1, %rdi, %xmm3; {fill}
        fninit; mov %rdi, (%rsp); fildll (%rsp); wrfsbase %rdi
    1:  mov $50, %eax; syscall
        cmp %rdi, %rax; jne 9f
        movq %xmm3, %rbx; cmp %rdi, %rbx; jne 9f
        {check}; movq %xmm4, %rbx; cmp %rdi, %rbx; jne 9f
        fld %st(0); fistpll (%rsp); cmp %rdi, (%rsp); jne 9f
        rdfsbase %rbx; cmp %rdi, %rbx; jne 9f
        jmp 1b
    9:  ud2
    """
    contexts = [machine.start(source, rdi=1000 + number) for number in range(MANY)]
    calls = dict.fromkeys(contexts, 0)
    while min(calls.values()) < 5:
        context = machine.any_exit()
        if context.exit == ExitKind.SYSCALL:
            calls[context] += 1
            context.answer(context.regs[Reg.RDI])
        else:
            assert context.exit == ExitKind.INTERRUPTED, (context.exit, context.vector)
            context.resume()


def test_two_contexts_share_an_address_space(machine: Any) -> None:
    space = machine.space("1: cmpl $0, DATA; je 1b; mov $7, %eax; syscall; ud2")
    waiter = machine.context(space)
    other = machine.context(space)
    waiter.resume()
    space.write(DATA, b"\1\0\0\0")
    other.resume()

    came = {machine.next_exit(), machine.next_exit()}

    assert came == {waiter, other}
    assert {context.exit for context in came} == {ExitKind.SYSCALL}


def test_address_spaces_do_not_share_memory(machine: Any) -> None:
    contexts = [
        machine.start("mov %rdi, DATA; mov $7, %eax; syscall; mov DATA, %rsi; syscall", rdi=number)
        for number in (1, 2, 3)
    ]
    for _ in contexts:
        machine.next_exit()
    for context in contexts:
        context.answer(8)
        assert machine.syscall_of(context) == 8
        assert context.regs[Reg.RSI] == context.regs[Reg.RDI]


def test_bind_moves_a_context_to_another_space(machine: Any) -> None:
    context = machine.start("mov $7, %eax; syscall; ud2")
    machine.syscall_of(context)
    old, new = context.owner, machine.space("mov $9, %eax; syscall")

    context.bind(new)
    old.destroy()
    context.regs[Reg.RIP] = CODE
    context.resume()

    assert machine.syscall_of(context) == 9


def test_destroy_in_every_state_leaves_the_others_alone(machine: Any) -> None:
    victims = [machine.start("1: mov $7, %eax; syscall; jmp 1b") for _ in range(6)]
    runners = [machine.start("1: jmp 1b") for _ in range(6)]
    survivor = machine.start("1: mov $50, %eax; syscall; jmp 1b")
    came = [machine.any_exit(), *machine._exited]
    machine._exited.clear()
    for context in (*victims, *runners):
        space = context.owner
        context.destroy()
        space.destroy()
    survivor.answer(0) if survivor in came else survivor.kick()
    for _ in range(20):
        came = machine.any_exit()
        assert came is survivor
        came.answer(0) if came.exit == ExitKind.SYSCALL else came.resume()


def test_who_calls_without_a_pause_keeps_nobody_from_it(machine: Any) -> None:
    callers = [machine.start("1: mov $39, %eax; syscall; jmp 1b") for _ in range(3)]
    computing = machine.start(COUNT_FOR_EVER)
    served = dict.fromkeys(callers, 0)
    while min(served.values()) < 100 or not counter(computing):
        came = machine.any_exit()
        if came.exit != ExitKind.SYSCALL:
            came.resume()
            continue
        served[came] += 1
        came.answer(0)


def test_copy_takes_registers_and_fpu(machine: Any) -> None:
    parent = machine.start("movq %rdi, %xmm5; mov $57, %eax; syscall; movq %xmm5, %rsi; syscall",
                           rdi=4711)  # fmt: skip
    machine.syscall_of(parent)
    child = machine.platform.new_context(parent.owner)
    child.copy_from(parent)
    child.answer(0)
    assert machine.syscall_of(child) == 0
    assert child.regs[Reg.RSI] == 4711
    parent.answer(99)
    assert machine.syscall_of(parent) == 99
    assert parent.regs[Reg.RSI] == 4711


def test_wait_ends_at_the_deadline(machine: Any) -> None:
    deadline = time.monotonic_ns() + 3_000_000

    assert list(machine.platform.wait(deadline)) == []

    assert time.monotonic_ns() >= deadline


def test_wait_reports_a_ready_descriptor(machine: Any) -> None:
    read_end, write_end = os.pipe()
    machine.platform.watch(read_end, select.EPOLLIN)
    os.write(write_end, b"x")

    machine.wait_for(lambda: machine.platform.ready)

    assert machine.platform.ready == [(read_end, select.EPOLLIN)]
    machine.platform.watch(read_end, 0)
    assert list(machine.platform.wait(time.monotonic_ns())) == []
    assert machine.platform.ready == []
    os.close(read_end)
    os.close(write_end)


def test_cpu_time_grows_with_the_program(machine: Any) -> None:
    context = machine.start("mov $30000000, %ecx; 1: dec %ecx; jnz 1b; mov $7, %eax; syscall")
    before = context.cpu_time_ns()

    machine.syscall_of(context)

    assert context.cpu_time_ns() - before > 1_000_000


def test_account_counts_who_runs_and_who_has_run(machine: Any) -> None:
    account = machine.platform.new_account()
    code = "mov $30000000, %ecx; 1: dec %ecx; jnz 1b; mov $7, %eax; syscall; 2: jmp 2b"
    context = machine.start(code)
    assert account.cpu_time_ns() == 0
    context.charge(account)
    machine.syscall_of(context)
    ran = account.cpu_time_ns()
    assert ran > 1_000_000
    other = machine.start(code)
    machine.syscall_of(other)
    assert account.cpu_time_ns() < ran + other.cpu_time_ns() // 2

    context.destroy()
    assert account.cpu_time_ns() >= ran
    other.charge(account)
    other.answer(0)
    before = account.cpu_time_ns()
    machine.wait_for(lambda: account.cpu_time_ns() > before)
    other.destroy()
