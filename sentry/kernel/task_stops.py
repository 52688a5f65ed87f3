"""Group stop and continue: what SIGSTOP and SIGCONT do to all threads of a process.

While `group.stopping` is set every thread has WORK_STOP and stands still at its next way back to
ring 3 (`stop`). When the last one stands, the process is stopped: the parent hears of it. SIGCONT
(`signal_send.resume_group`) ends it at once, however far it had come. A stopped task has no fiber
and is not in ring 3; `ThreadGroup.exit` and the tracer may take it up from there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.signal import CLD_STOPPED
from sentry.kernel import signal_send
from sentry.kernel.signals import EVERY
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
    if first:
        others = [member for member in group.tasks if member is not task and member.trace is None]
        task.kernel.loop.call_for_each(others, _look)


def _look(task: Task) -> None:
    """Stand still soon, unless it goes on already."""
    if task.work & WORK_STOP and not task.dead:
        task.interrupt()


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
    if (runs := group.runs) is not None and not _stands(runs):
        return
    group.runs = next((t for t in reversed(group.tasks) if not _stands(t)), None)
    if group.runs is None:
        group.stop_signal = group.stopping
        group.stop_reported = False
        group.continue_reported = True
        if last.trace is None or not last.trace.reports_to(group.parent):
            signal_send.tell_parent(group, CLD_STOPPED, group.stopping)


def _stands(task: Task) -> bool:
    return task.dead or (task.stopped if task.trace is None else task.trace.stands())


def thread_leaves(task: Task) -> None:
    """A thread ends: what it was to see goes to another; a group stop may be complete now."""
    group = task.group
    signal_send.retarget(task, ~task.blocked)
    task.pending.discard(EVERY)
    if group.runs is task:
        group.runs = None
    if group.stopping and not group.exiting and any(t.stopped for t in group.tasks):
        complete_if_all_stand(group, task)
