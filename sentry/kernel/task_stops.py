"""Group stop and continue: what SIGSTOP and SIGCONT do to all threads of a process.

While `group.stopping` is set every thread has WORK_STOP and stands still at its next way back to
ring 3 (`stop`). When the last one stands, the process is stopped: the parent hears of it. SIGCONT
(`resume_group`) ends it at once, however far it had come. A stopped task has no fiber and is not in
ring 3; `exit_group` and the tracer may take it up from there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.signal import CLD_CONTINUED, CLD_STOPPED, SA_NOCLDSTOP, SIGCHLD, SIGCONT
from sentry.kernel import signal_send
from sentry.kernel.signals import EVERY, SIG_IGN, SigInfo
from sentry.kernel.work import WORK_STOP

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup


def start_group_stop(task: Task, signo: int) -> None:
    """`task` took a stop signal with its default action: all threads of the process shall stop."""
    group = task.group
    if group.exiting or group.execing is not None:
        return
    first = not group.stopping
    group.stopping = group.stopping or signo
    for member in group.tasks:
        if member.dead:
            continue
        if member.trace is not None:  # it may run although the others stand already
            member.trace.group_stop(signo, member is task)
        elif first or member is task:
            member.work |= WORK_STOP
            if member is not task:
                member.interrupt()


def stop(task: Task) -> bool:
    """Stand still if the process is stopping; the last thread to do so completes the stop."""
    group = task.group
    if task.trace is not None:
        return bool(task.trace.jobctl(task))
    if not group.stopping:
        task.work &= ~WORK_STOP
        return False
    task.stopped = True
    complete_if_all_stand(group, task)
    return True


def complete_if_all_stand(group: ThreadGroup, last: Task) -> None:
    """A thread stands still, or is gone: perhaps that completes the stop of the process.

    A parent that traces `last` has heard of its stop already.
    """
    if not group.stopping or group.stop_signal:
        return
    if all(t.dead or (t.stopped if t.trace is None else t.trace.stands()) for t in group.tasks):
        group.stop_signal = group.stopping
        group.stop_reported = False
        group.continue_reported = True
        if last.trace is None or not last.trace.reports_to(group.parent):
            _tell_parent(group, CLD_STOPPED, group.stopping)


def thread_leaves(task: Task) -> None:
    """A thread ends: what it was to see goes to another; a group stop may be complete now."""
    group = task.group
    signal_send.retarget(task, ~task.blocked)
    task.pending.discard(EVERY)
    if group.stopping and not group.exiting and any(t.stopped for t in group.tasks):
        complete_if_all_stand(group, task)


def resume_group(group: ThreadGroup) -> None:
    """SIGCONT: end a group stop, complete or not."""
    for task in group.tasks:
        if task.trace is not None and not task.dead:
            task.trace.continued()
    if not group.stopping:
        return
    was_stopped = group.stop_signal
    group.stopping = 0
    group.stop_signal = 0
    group.stop_reported = True
    for task in group.tasks:
        if task.trace is None:
            task.work &= ~WORK_STOP
            resume_task(task)
    if was_stopped:
        group.continue_reported = False
        _tell_parent(group, CLD_CONTINUED, SIGCONT)


def resume_task(task: Task) -> None:
    """Take a stopped task up again where it stood, on its way back to ring 3."""
    if not task.stopped:
        return
    task.stopped = False
    signal_send.recalculate(task)
    task.kernel.loop.call_soon(task.finish)


def _tell_parent(group: ThreadGroup, code: int, signo: int) -> None:
    """do_notify_parent_cldstop: SIGCHLD unless the parent does not want it; wake its wait."""
    parent = group.parent
    if parent is None:
        return
    parent.child_queue.notify()  # before the signal: a wait that is satisfied wins over it
    action = parent.actions[SIGCHLD]
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        signal_send.send_to_group(parent, SigInfo.child(SIGCHLD, code, group, signo))
