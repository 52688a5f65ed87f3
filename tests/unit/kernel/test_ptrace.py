"""ptrace: what a tracer sees in a stop, and what it decides; core file names."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.ptrace import PTRACE_EVENT_STOP
from sentry.abi.signal import SI_QUEUE, SIGKILL, SIGSEGV, SIGTRAP, SIGUSR1
from sentry.auth.credentials import Credentials
from sentry.auth.ptrace import ANY, may_attach
from sentry.errors import EINVAL, ENOSPC
from sentry.kernel import core_dump
from sentry.kernel.ptrace import debug_registers, links, restart
from sentry.kernel.ptrace.tracee import CONT, Tracee
from sentry.kernel.services import Services
from sentry.kernel.signals import Queued, SigInfo
from sentry.kernel.task import Task
from sentry.platform.interface import Reg
from sentry.syscalls.processes.ptrace_data import PEEKED_AT_ONCE, peek_siginfo
from sentry.wait.fiber import Interrupted, RestartBlock
from tests.unit.kernel.conftest import World
from tests.world import World as Real

READ = 0
UINT64 = (1 << 64) - 1


@pytest.fixture
def tracee(task: Task, world: World) -> Tracee:
    """`task`, traced by the first thread of another process, and running."""
    made = Tracee(task, world.process(200, world.init), True, 0)
    task.trace = made
    made.tracer.tracees.append(made)
    task.observers.append(made)
    return made


def test_interrupted_call_shows_erestartsys_and_starts_again(task: Task) -> None:
    task.ctx.regs[Reg.ORIG_RAX] = READ
    task.restart = Interrupted()

    restart.show(task)
    assert task.restart is None
    assert task.ctx.regs[Reg.RAX] == -512 & UINT64
    restart.take(task)

    assert isinstance(task.restart, Interrupted)


@pytest.mark.parametrize(("orig_rax", "rax"), [(UINT64, -512 & UINT64), (READ, 5)])
def test_registers_that_a_tracer_changed_keep_a_call_from_restarting(
    orig_rax: int, rax: int, task: Task
) -> None:
    task.ctx.regs[Reg.ORIG_RAX] = READ
    task.restart = RestartBlock(lambda: 7)
    restart.show(task)

    task.ctx.regs[Reg.ORIG_RAX], task.ctx.regs[Reg.RAX] = orig_rax, rax
    restart.take(task)

    assert task.restart is None


def test_stop_is_told_once_and_its_signal_is_the_tracers(task: Task, tracee: Tracee) -> None:
    assert tracee.intercepts(task, SigInfo.user(SIGUSR1, 1, 0))

    assert task.stopped
    assert tracee.unreported == SIGUSR1
    tracee.resume(CONT, False, 0)
    assert not task.stopped
    assert tracee.stop is None


def test_dying_task_does_not_stop(task: Task, tracee: Tracee) -> None:
    task.work |= 4

    assert not tracee.intercepts(task, SigInfo.user(SIGUSR1, 1, 0))
    assert not task.stopped


def test_interrupt_traps_with_event_stop(task: Task, tracee: Tracee) -> None:
    tracee.interrupt()

    assert tracee.jobctl(task)
    assert tracee.unreported == PTRACE_EVENT_STOP << 8 | SIGTRAP


def test_stepping_flag_is_hidden_in_a_stop(task: Task, tracee: Tracee) -> None:
    tracee.interrupt()
    tracee.jobctl(task)
    tracee.resume(CONT, True, 0)
    assert task.ctx.regs[Reg.RFLAGS] & 0x100

    tracee.intercepts(task, SigInfo.kernel(SIGTRAP))

    assert not task.ctx.regs[Reg.RFLAGS] & 0x100


def test_killed_task_leaves_its_stop(task: Task, tracee: Tracee) -> None:
    tracee.intercepts(task, SigInfo.user(SIGUSR1, 1, 0))

    tracee.killed()

    assert tracee.stop is None
    assert not tracee.unreported


def test_unlink_forgets_both_sides(task: Task, tracee: Tracee, monkeypatch: Any) -> None:
    monkeypatch.setattr(links, "child_identity", lambda _: None)

    tracee.drop()

    assert task.trace is None
    assert tracee not in tracee.tracer.tracees
    assert tracee not in task.observers


def test_debug_registers_find_enabled_places() -> None:
    values = [0x1000, 0x2000, 0, 0, 0, 0, 0, 1 | 1 << 2 | 0b1101 << 16]

    assert debug_registers.enabled(values) == [(0, 1, 0x1000, 4), (1, 0, 0x2000, 1)]


@pytest.mark.parametrize(
    ("control", "error"),
    [(1 | 0b0010 << 16, EINVAL), (1 | 0b0100 << 16, EINVAL), (1 | 0b0011 << 16, ENOSPC)],
)
def test_debug_registers_refuse_what_cannot_be(control: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        debug_registers.enabled([0x1000, 0, 0, 0, 0, 0, 0, control])


class Process:
    """A process of one thread, as Yama looks at it."""

    def __init__(self, kernel: Any, parent: Process | None) -> None:
        self.parent = parent
        self.dumpable = 1
        self.exec_user_ns = None
        self.allowed_tracer: tuple[Any, Any] = (None, None)
        self.leader = SimpleNamespace(
            group=self, kernel=kernel, creds=Credentials.user(1000, 1000), trace=None, dead=False
        )


@pytest.mark.parametrize(
    ("scope", "down", "up"), [(0, True, True), (1, True, False), (2, False, False)]
)
def test_yama_scope_decides_about_relatives(scope: int, down: bool, up: bool) -> None:
    kernel = SimpleNamespace(services=Services())
    kernel.services.sysctls["kernel/yama/ptrace_scope"] = str(scope)
    parent = Process(kernel, None)
    child = Process(kernel, parent)

    assert may_attach(parent.leader, child.leader, real=True) is down
    assert may_attach(child.leader, parent.leader, real=True) is up


def test_yama_exception_ends_with_the_leader() -> None:
    kernel = SimpleNamespace(services=Services())
    target, other = Process(kernel, None), Process(kernel, None)
    assert not may_attach(other.leader, target.leader, real=True)

    target.allowed_tracer = target.leader, ANY
    assert may_attach(other.leader, target.leader, real=True)
    old = target.leader
    target.leader = SimpleNamespace(**{**vars(old)})

    assert not may_attach(other.leader, target.leader, real=True)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [(b"core", b"core"), (b"c.%p.%s%%", b"c.100.11%"), (b"%e%", b"a!b"), (b"/x/%u-%z", b"/x/0-")],
)
def test_core_pattern_is_filled_in(
    pattern: bytes, name: bytes, task: Task, monkeypatch: Any
) -> None:
    task.comm = b"a/b"
    task.ns.uts.nodename = b"host"

    assert core_dump.file_name(task, SigInfo.kernel(SIGSEGV), pattern) == name


def test_no_core_without_a_limit_or_for_a_pipe(task: Task) -> None:
    task.kernel.services.sysctls["kernel/core_pattern"] = "|/bin/cat"

    assert not core_dump.start(task, SigInfo.kernel(SIGSEGV))
    assert not task.group.exiting
    assert SIGKILL not in task.pending


def test_many_signals_are_peeked_at_in_several_calls() -> None:
    with Real() as world:
        program = world.program()
        tracee: Any = SimpleNamespace(task=world.program().task)
        for value in range(PEEKED_AT_ONCE + 10):
            tracee.task.pending.add(Queued(SigInfo.queue(40, SI_QUEUE, 1, 0, value)))
        room = program.buffer(128 * PEEKED_AT_ONCE)
        for offset, found in ((0, PEEKED_AT_ONCE), (PEEKED_AT_ONCE, 10), (PEEKED_AT_ONCE + 10, 0)):
            wanted = program.place(struct.pack("<QIi", offset, 0, 1 << 30))
            assert peek_siginfo(program.task, tracee, wanted, room) == found
        assert struct.unpack_from("<Q", program.read(room, 128), 24) == (PEEKED_AT_ONCE,)
