"""What a process keeps when its program is replaced."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.elf import PT_LOAD
from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.abi.prctl import PR_SET_NO_NEW_PRIVS
from sentry.abi.ptrace import PTRACE_ATTACH
from sentry.abi.seccomp import (
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_RET_ALLOW,
    SECCOMP_SET_MODE_FILTER,
)
from sentry.abi.signal import SIGEV_SIGNAL, SIGUSR1, SIGUSR2
from sentry.abi.time import CLOCK_MONOTONIC
from sentry.auth.credentials import Credentials
from tests.world import Program, World

SECOND = 10**9
BASE, EHDR_SIZE, PHDR_SIZE = 0x400000, 64, 56
SYSCALL = b"\x0f\x05"
TURNS = 40
"""More than an execve of a small program takes."""


def make_program(program: Program, path: bytes) -> None:
    """One that is a `syscall` and nothing else."""
    start = EHDR_SIZE + PHDR_SIZE
    data = struct.pack(
        "<16s2HI3QI6H", b"\x7fELF\2\1\1", 2, 62, 1, BASE + start, EHDR_SIZE, 0, 0,
        EHDR_SIZE, PHDR_SIZE, 1, 0, 0, 0,
    )  # fmt: skip
    size = start + len(SYSCALL)
    data += struct.pack("<2I6Q", PT_LOAD, 5, 0, BASE, BASE, size, size, 4096) + SYSCALL
    fd = program.ok("open", path, O_CREAT | O_WRONLY, 0o755)
    assert program.ok("write", fd, program.place(data), size) == size
    program.ok("close", fd)


def test_timers_of_the_old_program_go_in_steps_and_none_ends_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World(stepped=True) as world:
        program = world.program()
        make_program(program, b"/x")
        program.handle(SIGUSR1)
        number, quota = program.buffer(4), world.kernel.services.signal_quota
        event = program.place(struct.pack("<QiiI44x", 0, SIGUSR1, SIGEV_SIGNAL, 0))
        for _ in range(50):
            program.ok("timer_create", CLOCK_MONOTONIC, event, number)
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        timers, task = program.task.group.posix_timers, program.task
        last = timers[49]
        last.set(0, SECOND, False)
        execve = program.begin("execve", b"/x", 0, 0)
        counts = [50]
        while counts[-1]:
            world.loop.turn()
            assert counts[-1] - len(timers) <= 1
            counts.append(len(timers))
            if counts[-2:] == [26, 25]:
                last._expired()
                assert task.group.shared_pending.mask
        assert execve.wait() == 0
        assert (task.group.shared_pending.mask, task.group.exiting) == (0, False)
        assert quota.of(0) == 0


def test_signals_that_timers_have_sent_do_not_wait_for_the_new_program() -> None:
    with World(stepped=True) as world:
        program = world.program()
        make_program(program, b"/x")
        program.block(SIGUSR1, SIGUSR2)
        number = program.buffer(4)
        event = program.place(struct.pack("<QiiI44x", 0, SIGUSR1, SIGEV_SIGNAL, 0))
        program.ok("timer_create", CLOCK_MONOTONIC, event, number)
        program.ok("timer_settime", 0, 0, program.place(struct.pack("<4q", 0, 0, 1, 0)), 0)
        world.loop.advance(2 * SECOND)
        program.ok("kill", program.task.group.tgid, SIGUSR2)
        program.ok("execve", b"/x", 0, 0)
        assert program.task.group.shared_pending.mask == 1 << SIGUSR2 - 1


def user_with_a_program_of_root(world: World, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A process of a user, and /x, which makes him root; each step of a call is a turn."""
    program = world.program()
    make_program(program, b"/x")
    program.ok("chmod", b"/x", 0o4755)
    program.task.creds = Credentials.user(1000, 1000)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    return program


def some_turns(world: World, count: int) -> None:
    for _ in range(count):
        world.loop.call_soon(lambda: None)
        world.loop.turn()


def test_nobody_attaches_to_who_becomes_root_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    with World(stepped=True) as world:
        user = user_with_a_program_of_root(world, monkeypatch)
        euids = set()
        for count in range(TURNS):
            child = user.fork()
            child.begin("execve", b"/x", 0, 0)
            some_turns(world, count)
            attach = user.begin("ptrace", PTRACE_ATTACH, child.task.group.tgid, 0, 0)
            world.settle()
            assert attach.done
            assert child.task.trace is None or child.task.creds.euid == 1000
            euids.add(child.task.creds.euid)
        assert 0 in euids


def test_signal_interrupts_who_waits_to_attach_to_who_executes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World(stepped=True) as world:
        user = user_with_a_program_of_root(world, monkeypatch)
        child = user.fork()
        child.task.group.exec_lock.take()
        user.handle(SIGUSR1)
        attach = user.begin("ptrace", PTRACE_ATTACH, child.task.group.tgid, 0, 0)
        assert not attach.done
        world.init.ok("kill", user.task.group.tgid, SIGUSR1)
        world.settle()
        assert user.in_handler
        user.leave_handler()
        assert not attach.done  # it waits again, whatever the handler's flags are
        child.task.group.exec_lock.let_go()
        assert attach.wait() == 0
        assert child.task.trace is not None


def test_signal_interrupts_who_waits_for_another_thread_that_executes() -> None:
    with World(stepped=True) as world:
        user = world.program()
        make_program(user, b"/x")
        thread, lock = user.thread(), user.task.group.exec_lock
        lock.take()
        thread.handle(SIGUSR1)
        execve = thread.begin("execve", b"/x", 0, 0)
        assert not execve.done
        world.init.ok("tgkill", user.task.group.tgid, thread.task.tid, SIGUSR1)
        world.settle()
        assert thread.in_handler
        thread.leave_handler()
        assert not execve.done
        lock.let_go()
        assert execve.wait() == 0
        assert user.task.dead
        assert lock.holder is None


def test_no_thread_gives_a_filter_to_who_becomes_root_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World(stepped=True) as world:
        user = user_with_a_program_of_root(world, monkeypatch)
        allow = user.place(struct.pack("<HBBI", 6, 0, 0, SECCOMP_RET_ALLOW))
        filters = user.place(struct.pack("<HxxxxxxQ", 1, allow))
        euids = set()
        for count in range(TURNS):
            child = user.fork()
            child.ok("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            thread = child.thread()
            thread.task.no_new_privs = False  # as one made before
            thread.begin("execve", b"/x", 0, 0)
            some_turns(world, count)
            if not child.task.dead:
                flags = SECCOMP_FILTER_FLAG_TSYNC
                child.begin("seccomp", SECCOMP_SET_MODE_FILTER, flags, filters)
            world.settle()
            assert thread.task.seccomp is None or thread.task.creds.euid == 1000
            euids.add(thread.task.creds.euid)
        assert 0 in euids
