"""Ties between tracer and tracee: made, cut, and what becomes of them when either ends.

kernel/ptrace.c: ptrace_attach, ptrace_traceme, ptrace_detach, exit_ptrace; kernel/exit.c:
exit_notify, wait_task_zombie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.ptrace import PTRACE_O_EXITKILL
from sentry.abi.signal import CLD_DUMPED, CLD_EXITED, CLD_KILLED, SA_NOCLDWAIT, SIGCHLD, SIGKILL
from sentry.kernel import signal_send, task_exit
from sentry.kernel.identity import child_identity
from sentry.kernel.signals import SIG_IGN, SigInfo
from sentry.kernel.thread_group import Usage
from sentry.kernel.work import WORK_STOP

if TYPE_CHECKING:
    from sentry.kernel.ptrace.tracee import Tracee


def link(tracee: Tracee) -> None:
    """Make the tie. The observer goes before seccomp: a tracer may change what filters judge."""
    task = tracee.task
    task.trace = tracee
    tracee.tracer.tracees.append(tracee)
    at = task.observers.index(task.seccomp) if task.seccomp is not None else len(task.observers)
    task.observers.insert(at, tracee)
    if not task.dead:
        child_identity(task)


def unlink(tracee: Tracee) -> None:
    """Cut the tie; a process that is stopping has to stop all the same. __ptrace_unlink()."""
    task = tracee.task
    if task.trace is not tracee:
        return
    task.trace = None
    tracee.tracer.tracees.remove(tracee)
    task.observers.remove(tracee)
    if task.dead:
        task.kernel.pids.awaited.discard(task.tid)
        task.kernel.pids.release(task.tid)
        return
    child_identity(task)
    if task.group.stopping and not task.group.exiting:
        task.work |= WORK_STOP
        if tracee.stop is None:
            task.interrupt()


def detach(tracee: Tracee, signo: int) -> None:
    """PTRACE_DETACH: as if it had never been traced; `signo` as for PTRACE_CONT."""
    task = tracee.task
    tracee.mode, tracee.stepping = 0, False
    unlink(tracee)
    if not task.dead:
        tracee.leave(signo)
    elif tracee.dead and task.group.leader is task:
        task_exit.announce(task.group)


def tracer_ended(tracee: Tracee) -> None:
    """exit_ptrace(): a signal that the tracer had not heard of goes its way."""
    if tracee.options & PTRACE_O_EXITKILL and not tracee.task.dead:
        tracee.task.group.exit(SIGKILL)
    stop = tracee.stop
    heard_of = stop is None or stop.info is None or stop.info.signo != tracee.unreported
    detach(tracee, 0 if heard_of else tracee.unreported)


def task_ended(tracee: Tracee) -> None:
    """A thread is a zombie for its tracer, but a leader only with its whole process."""
    task = tracee.task
    tracee.killed()
    if task.group.leader is task:
        return
    tracee.status = task_exit.status_of(task)
    tracee.usage = Usage()
    tracee.usage.count(task)
    task.kernel.pids.awaited.add(task.tid)
    _become_zombie(tracee, SIGCHLD)


def group_ended(tracee: Tracee) -> bool:
    """The last thread of a traced leader's process is gone. True: the tracer waits for it first."""
    if not tracee.holds_group():
        return False
    tracee.status = tracee.task.group.exit_status
    _become_zombie(tracee, SIGCHLD)
    return tracee.task.trace is tracee


def _become_zombie(tracee: Tracee, signo: int) -> None:
    """do_notify_parent(); a tracer that ignores SIGCHLD needs not wait."""
    tracee.dead = True
    group, task, status = tracee.tracer.group, tracee.task, tracee.status
    action = group.actions[SIGCHLD]
    code = CLD_EXITED if not status & 0x7F else CLD_DUMPED if status & 0x80 else CLD_KILLED
    value = status >> 8 & 0xFF if code == CLD_EXITED else status & 0x7F
    if action.handler != SIG_IGN:
        signal_send.send_to_group(group, SigInfo.waitid(code, task.tid, task.creds.uid, value))
    if action.handler == SIG_IGN or action.flags & SA_NOCLDWAIT:
        unlink(tracee)
    group.child_queue.notify()


def waited_for(tracee: Tracee) -> None:
    """The tracer has taken the zombie: a process is its parent's now."""
    unlink(tracee)
    group = tracee.task.group
    if group.leader is tracee.task and group.is_zombie:
        task_exit.announce(group)
