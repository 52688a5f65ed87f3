"""Group stops: all threads stand, the parent hears, SIGCONT ends it at any moment."""

from __future__ import annotations

from sentry.abi.signal import SIGCHLD, SIGCONT, SIGSTOP, SIGTERM, SIGTSTP
from sentry.kernel import signal_send, task_signals
from sentry.kernel.signals import SigInfo
from sentry.kernel.task import Task
from sentry.kernel.work import WORK_SIGNAL, WORK_STOP
from sentry.platform.interface import Reg
from sentry.wait.fiber import Interrupted
from tests.unit.kernel.conftest import World, handle


def send(task: Task, signo: int) -> None:
    signal_send.send_to_group(task.group, SigInfo.user(signo, 1, 0))


def stopped(world: World, task: Task) -> Task:
    """A second thread; both stand still."""
    other = world.thread(task.group, 101)
    send(task, SIGSTOP)
    world.loop.settle()
    return other


def test_stop_is_complete_when_the_last_thread_stands(world: World, task: Task) -> None:
    handle(world.init, SIGCHLD)
    other = world.thread(task.group, 101)
    send(task, SIGSTOP)
    task_signals.return_to_user(task)
    assert task.stopped
    assert other.work & WORK_STOP
    assert task.group.stop_reported
    task_signals.return_to_user(other)
    assert task.group.stop_signal == SIGSTOP
    assert not task.group.stop_reported
    assert SIGCHLD in world.init.group.shared_pending


def test_continue_lets_all_go_on(world: World, task: Task) -> None:
    other = stopped(world, task)
    send(task, SIGCONT)
    world.loop.settle()
    assert not task.stopped
    assert not other.stopped
    assert (task.ctx.resumed, other.ctx.resumed) == (1, 1)  # type: ignore[attr-defined]
    assert not task.group.continue_reported
    assert task.group.stop_reported


def test_continue_before_the_stop_is_complete_cancels_it(world: World, task: Task) -> None:
    other = world.thread(task.group, 101)
    send(task, SIGSTOP)
    task_signals.return_to_user(task)
    send(task, SIGCONT)
    world.loop.settle()
    task_signals.return_to_user(other)
    assert not task.stopped
    assert not other.stopped
    assert task.group.continue_reported


def test_call_restarts_after_the_stop(world: World, task: Task) -> None:
    task.restart = Interrupted()
    task.ctx.regs[Reg.ORIG_RAX] = 35
    send(task, SIGSTOP)
    task_signals.return_to_user(task)
    send(task, SIGCONT)
    world.loop.settle()
    assert (task.ctx.regs[Reg.RIP], task.ctx.regs[Reg.RAX]) == (0x401000, 35)


def test_signals_wait_for_the_end_of_a_stop_but_death_does_not(world: World, task: Task) -> None:
    stopped(world, task)
    handle(task, SIGTERM)
    send(task, SIGTERM)
    world.loop.settle()
    assert task.stopped
    task.group.exit(9)
    world.loop.settle()
    assert task in world.exits


def test_handler_of_sigcont_runs(world: World, task: Task) -> None:
    handle(task, SIGCONT)
    stopped(world, task)
    send(task, SIGCONT)
    world.loop.settle()
    assert task.ctx.regs[Reg.RIP] == 0x5000


def test_stop_and_continue_cancel_each_other_in_the_queues(task: Task) -> None:
    task.blocked = (1 << 64) - 1
    send(task, SIGTSTP)
    assert SIGTSTP in task.group.shared_pending
    send(task, SIGCONT)
    assert SIGTSTP not in task.group.shared_pending
    send(task, SIGTSTP)
    assert SIGCONT not in task.group.shared_pending


def test_terminal_stops_do_nothing_in_an_orphaned_group(world: World) -> None:
    task = world.process(200, None)
    send(task, SIGTSTP)
    assert task.work & WORK_SIGNAL
    task_signals.return_to_user(task)
    assert not task.stopped


def test_last_running_thread_leaves(world: World, task: Task) -> None:
    other = world.thread(task.group, 101)
    send(task, SIGSTOP)
    task_signals.return_to_user(task)
    other.dead = True
    from sentry.kernel import task_stops  # noqa: PLC0415

    task_stops.thread_leaves(other)
    assert task.group.stop_signal == SIGSTOP
