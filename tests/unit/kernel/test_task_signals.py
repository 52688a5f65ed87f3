"""Delivery: restarts of interrupted calls, masks, default actions, who is protected."""

from __future__ import annotations

import pytest

from sentry.abi.signal import (
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIGCHLD,
    SIGKILL,
    SIGSEGV,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
)
from sentry.errors import EAGAIN, EFAULT
from sentry.kernel import signal_send, task_signals
from sentry.kernel.signals import Action, SigInfo, mask_of
from sentry.kernel.task import Task
from sentry.kernel.work import WORK_EXIT, WORK_SIGNAL
from sentry.mm.errors import SegFault
from sentry.platform.interface import Reg
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand, RestartNoIntr
from sentry.wait.sleep import Sleep, never, until
from tests.unit.kernel.conftest import World, handle

EINTR = (1 << 64) - 4
READ = 0


def in_call(task: Task, restart: BaseException) -> None:
    """The task's call was interrupted."""
    task.restart = restart
    task.ctx.regs[Reg.ORIG_RAX] = READ
    task.ctx.regs[Reg.RAX] = EINTR


def send(task: Task, signo: int) -> None:
    signal_send.send_to_task(task, SigInfo.user(signo, 1, 0))


def frame_rip_rax(task: Task) -> tuple[int, int]:
    """Where the handler's frame goes back to."""
    context = task.ctx.regs[Reg.RDX] + 40
    return (
        int.from_bytes(task.mm.read(context + 128, 8), "little"),
        int.from_bytes(task.mm.read(context + 104, 8), "little"),
    )


@pytest.mark.parametrize(
    ("restart", "flags", "restarts"),
    [
        (Interrupted(), 0, False),
        (Interrupted(), SA_RESTART, True),
        (RestartNoHand(), SA_RESTART, False),
        (RestartBlock(lambda: 0), SA_RESTART, False),
        (RestartNoIntr(), 0, True),
    ],
)
def test_handler_decides_about_the_call(
    task: Task, restart: BaseException, flags: int, restarts: bool
) -> None:
    handle(task, SIGUSR1, flags)
    in_call(task, restart)
    send(task, SIGUSR1)
    task_signals.return_to_user(task)
    assert task.ctx.regs[Reg.RIP] == 0x5000
    expected = (0x401000, READ) if restarts else (0x401002, EINTR)
    assert frame_rip_rax(task) == expected
    assert task.restart is None


@pytest.mark.parametrize("restart", [Interrupted(), RestartNoHand(), RestartNoIntr()])
def test_call_restarts_when_no_handler_ran(task: Task, restart: BaseException) -> None:
    in_call(task, restart)
    task_signals.return_to_user(task)
    assert (task.ctx.regs[Reg.RIP], task.ctx.regs[Reg.RAX]) == (0x401000, READ)


def test_tracer_may_have_left_no_room_for_the_instruction(task: Task) -> None:
    in_call(task, Interrupted())
    task.ctx.regs[Reg.RIP] = 0
    task_signals.return_to_user(task)
    assert task.ctx.regs[Reg.RIP] == (1 << 64) - 2


def test_restart_block_goes_through_restart_syscall(task: Task) -> None:
    in_call(task, RestartBlock(lambda: 7))
    task_signals.return_to_user(task)
    assert (task.ctx.regs[Reg.RIP], task.ctx.regs[Reg.RAX]) == (0x401000, 219)
    assert task.restart_block is not None
    assert task.restart_block() == 7


def test_second_frame_does_not_see_the_call_again(task: Task) -> None:
    handle(task, SIGUSR1)
    handle(task, SIGUSR2)
    in_call(task, Interrupted())
    send(task, SIGUSR2)
    send(task, SIGUSR1)
    task_signals.return_to_user(task)
    # SIGUSR1 was delivered first, SIGUSR2 on top of its handler
    assert task.ctx.regs[Reg.RDI] == SIGUSR2
    assert frame_rip_rax(task) == (0x5000, 0)


def test_mask_of_the_handler(task: Task) -> None:
    handle(task, SIGUSR1, mask=mask_of([SIGTERM]))
    send(task, SIGUSR1)
    task_signals.return_to_user(task)
    assert task.blocked == mask_of([SIGUSR1, SIGTERM])
    handle(task, SIGUSR2, SA_NODEFER | SA_RESETHAND)
    send(task, SIGUSR2)
    task_signals.return_to_user(task)
    assert task.blocked == mask_of([SIGUSR1, SIGTERM])
    assert task.group.actions[SIGUSR2].handler == 0


def test_saved_mask_goes_into_the_frame(task: Task) -> None:
    handle(task, SIGUSR1)
    task.blocked, task.saved_mask = 0, mask_of([SIGTERM])
    send(task, SIGUSR1)
    task_signals.return_to_user(task)
    stored = int.from_bytes(task.mm.read(task.ctx.regs[Reg.RDX] + 296, 8), "little")
    assert stored == mask_of([SIGTERM])
    assert task.saved_mask is None


def test_saved_mask_comes_back_without_a_handler(task: Task) -> None:
    task.blocked, task.saved_mask = 0, mask_of([SIGUSR1])
    in_call(task, RestartNoHand())
    task.work |= WORK_SIGNAL
    task_signals.return_to_user(task)
    assert task.blocked == mask_of([SIGUSR1])
    assert task.ctx.regs[Reg.RIP] == 0x401000


def test_temporary_mask_ends_with_the_call(task: Task) -> None:
    task.blocked = mask_of([SIGUSR1])

    def call() -> int:
        assert task.blocked == 0
        return 5

    assert task_signals.masked(task, 0, call) == 5
    assert task.blocked == mask_of([SIGUSR1])
    assert task.saved_mask is None


@pytest.mark.parametrize(
    ("error", "signal"), [(Interrupted(), True), (RestartNoHand(), True), (EFAULT(), False)]
)
def test_temporary_mask_stays_for_the_signal_that_ends_a_sleep(
    task: Task, error: Exception, signal: bool
) -> None:
    task.blocked = mask_of([SIGUSR1])
    sleep = task_signals.masked(task, 0, lambda: until(never, ()).tried())
    assert isinstance(sleep, Sleep) and task.blocked == 0
    sleep.send(None)
    sleep.send(task)
    with pytest.raises(type(error)):
        sleep.throw(error)
    assert task.blocked == (0 if signal else mask_of([SIGUSR1]))
    assert task.saved_mask == (mask_of([SIGUSR1]) if signal else None)


def test_fatal_signal_ends_every_thread(world: World, task: Task) -> None:
    other = world.thread(task.group, 101)
    send(task, SIGTERM)
    assert task.group.exiting
    assert task.group.exit_status == SIGTERM
    assert task.work & WORK_EXIT
    assert other.work & WORK_EXIT
    task_signals.return_to_user(task)
    assert world.exits == [task]
    assert not task.ctx.resumed  # type: ignore[attr-defined]


def test_ignored_signals_are_dropped_unless_blocked(task: Task) -> None:
    send(task, SIGCHLD)
    assert not task.pending.mask
    task.blocked = mask_of([SIGCHLD])
    send(task, SIGCHLD)
    assert task.pending.mask == mask_of([SIGCHLD])
    assert not task.work & WORK_SIGNAL


def test_init_is_safe_from_what_it_does_not_handle(world: World) -> None:
    init = world.init
    for signo in (SIGTERM, SIGKILL):
        signal_send.send_to_group(init.group, SigInfo.user(signo, 2, 0))
    assert not init.group.exiting
    handle(init, SIGTERM)
    signal_send.send_to_group(init.group, SigInfo.user(SIGTERM, 2, 0))
    assert init.work & WORK_SIGNAL
    signal_send.send_to_group(init.group, SigInfo.user(SIGKILL, 0, 0), force=True)
    assert init.group.exiting


def test_init_dies_of_its_own_faults(world: World) -> None:
    assert task_signals.fault(world.init, SegFault(16, 1), 16, 6)
    assert world.init.group.exit_status == SIGSEGV
    assert world.exits == [world.init]


def test_fault_that_is_blocked_kills(task: Task) -> None:
    handle(task, SIGSEGV)
    task.blocked = mask_of([SIGSEGV])
    task_signals.fault(task, SegFault(16, 1), 16, 2)
    assert task.group.exit_status == SIGSEGV


def test_fault_tells_the_handler(task: Task) -> None:
    handle(task, SIGSEGV)
    task_signals.fault(task, SegFault(0x123000, 2), 0x123000, 3)
    info = task.mm.read(task.ctx.regs[Reg.RSI], 24)
    assert info[:12] == b"\x0b\0\0\0\0\0\0\0\2\0\0\0"
    assert int.from_bytes(info[16:24], "little") == 0x123000
    assert task.trap == (14, 7, 0x123000)


def test_frame_that_cannot_be_written_is_a_fault(task: Task) -> None:
    handle(task, SIGUSR1)
    task.ctx.regs[Reg.RSP] = 64
    send(task, SIGUSR1)
    task_signals.return_to_user(task)
    assert task.group.exit_status == SIGSEGV


def test_group_signal_wakes_a_thread_that_does_not_block_it(world: World, task: Task) -> None:
    handle(task, SIGUSR1)
    other = world.thread(task.group, 101)
    task.blocked = mask_of([SIGUSR1])
    signal_send.send_to_group(task.group, SigInfo.user(SIGUSR1, 1, 0))
    assert not task.work & WORK_SIGNAL
    assert other.work & WORK_SIGNAL
    # it blocks it before it got there: the other one has to see to it
    task_signals.set_blocked(task, 0)
    task.work = 0
    task_signals.set_blocked(other, mask_of([SIGUSR1]))
    assert task.work & WORK_SIGNAL


def test_running_task_is_not_kicked_for_its_own_signal(task: Task) -> None:
    handle(task, SIGUSR1)
    signal_send.send_to_group(task.group, SigInfo.user(SIGUSR1, 1, 0), by=task)
    assert not task.ctx.kicked  # type: ignore[attr-defined]
    assert task.work & WORK_SIGNAL


def test_real_time_signals_beyond_the_limit_fail(task: Task) -> None:
    task.group.limits.set(11, 2, 2)
    task.blocked = (1 << 64) - 1
    for _ in range(2):
        signal_send.send_to_task(task, SigInfo.queue(40, -1, 1, 0, 0))
    with pytest.raises(EAGAIN):
        signal_send.send_to_task(task, SigInfo.queue(40, -1, 1, 0, 0))
    signal_send.send_to_task(task, SigInfo.user(SIGUSR1, 1, 0))
    assert SIGUSR1 in task.pending


def test_ignored_action_lets_exec_and_handlers_differ(task: Task) -> None:
    task.group.actions[SIGUSR1] = Action(1, 0, 0, 0)
    task.blocked = mask_of([SIGUSR1])
    send(task, SIGUSR1)
    task_signals.set_blocked(task, 0)
    task_signals.return_to_user(task)
    assert task.ctx.resumed == 1  # type: ignore[attr-defined]
    assert not task.pending.mask
