"""How a signal comes to a task or a process: permission, ignoring, queueing, waking.

The order of steps is that of prepare_signal, send_signal_locked and complete_signal in Linux's
kernel/signal.c. What a task does about a signal is in task_signals.py.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_KILL
from sentry.abi.resource import RLIMIT_SIGPENDING
from sentry.abi.signal import (
    CLD_CONTINUED,
    SA_NOCLDSTOP,
    SI_USER,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
)
from sentry.errors import EAGAIN
from sentry.kernel.signals import (
    DUMPING,
    SIG_IGN,
    STOPPING,
    UNBLOCKABLE,
    Queued,
    SigInfo,
    mask_of,
)
from sentry.kernel.work import WORK_SIGNAL, WORK_STOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.auth.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

CONTINUE = mask_of((SIGCONT,))
_pid_uid = struct.Struct("<iI")


def may_signal(creds: Credentials, target: Task) -> bool:
    """kill(2): the real or effective uid is the target's real or saved one, or CAP_KILL."""
    other = target.creds
    return (
        creds.euid in (other.suid, other.uid)
        or creds.uid in (other.suid, other.uid)
        or creds.has_in(other.user_ns, CAP_KILL)
    )


def send_to_task(task: Task, info: SigInfo, *, by: Task | None = None, force: bool = False) -> None:
    """Direct a signal at one thread. `by`: the running task, which needs no kick.

    `force`: it comes from outside the sandbox, so SIGKILL and SIGSTOP act on init too.
    Raises: EAGAIN for a real-time signal beyond RLIMIT_SIGPENDING.
    """
    if not task.dead:
        _send(task.group, task, info, by, force)


def send_to_group(
    group: ThreadGroup,
    info: SigInfo,
    *,
    by: Task | None = None,
    force: bool = False,
    first: Task | None = None,
) -> None:
    """Direct a signal at a process; a thread that does not block it takes it, `first` if it can.

    Raises: EAGAIN for a real-time signal beyond RLIMIT_SIGPENDING.
    """
    if group.tasks:
        _send(group, None, info, by, force, first)


def send_kernel(task: Task, signo: int) -> None:
    """A signal that a call of `task` brings upon itself (SIGPIPE, SIGXFSZ); never fails."""
    info = SigInfo.user(signo, task.group.tgid, task.creds.uid)
    send_to_task(task, info, by=task)


def send_timer(
    group: ThreadGroup, task: Task | None, info: SigInfo, on_taken: Callable[[SigInfo], SigInfo]
) -> bool:
    """A timer's signal, whose place was reserved when it was made. False: it is ignored."""
    if not group.tasks or (task is not None and task.dead):
        return False
    signo = info.signo
    if not _prepare(group, task or _main(group), signo, False):
        return False
    if signo == SIGKILL:
        group.exit(SIGKILL)
        return True
    pending = group.shared_pending if task is None else task.pending
    pending.add(Queued(info, on_taken=on_taken))
    _complete(group, task, signo, None)
    return True


def _send(
    group: ThreadGroup,
    task: Task | None,
    info: SigInfo,
    by: Task | None,
    force: bool,
    first: Task | None = None,
) -> None:
    signo = info.signo
    target = task or _main(group)
    if by is not None and by.group is not group:
        force = force or not group.pids.sees(by.group)
    if not _prepare(group, target, signo, force):
        return
    if signo == SIGKILL:
        group.exit(SIGKILL)
        return
    pending = group.shared_pending if task is None else task.pending
    if signo < SIGRTMIN and signo in pending:
        return
    info = seen_by(info, target)
    uid = target.creds.uid
    count = group.kernel.services.signal_quota
    # standard signals of kill and of the kernel are queued even beyond the limit
    override = signo < SIGRTMIN and info.code >= 0
    if count.take(uid, group.limits.soft(RLIMIT_SIGPENDING), override=override):
        pending.add(Queued(info, False, count, uid))
    elif signo >= SIGRTMIN and info.code != SI_USER:
        raise EAGAIN("RLIMIT_SIGPENDING")
    else:
        pending.add_bare(signo)
    _complete(group, task, signo, by, first)


def seen_by(info: SigInfo, target: Task) -> SigInfo:
    """Who sent it, as the receiver's namespaces have it: send_signal_locked()."""
    first = target.kernel.pids
    if not info.names_sender or (
        target.pids is first and not first.has_others_apart and target.creds.user_ns is None
    ):
        return info
    pid, uid = _pid_uid.unpack_from(info.body)
    shown = _pid_uid.pack(target.pids.of(pid), target.creds.shown_uid(uid))
    return SigInfo(info.signo, info.code, shown + info.body[_pid_uid.size :], info.errno)


def _main(group: ThreadGroup) -> Task:
    """The thread that stands for the process: the leader while it lives."""
    leader = group.leader
    return leader if leader is not None and not leader.dead else group.tasks[0]


def _prepare(group: ThreadGroup, target: Task, signo: int, force: bool) -> bool:
    """Side effects on job control; False when the signal is to be dropped."""
    if group.exiting:
        if signo == SIGKILL:
            group.hurry()
        return False
    bit = 1 << (signo - 1)
    if bit & STOPPING:
        _discard(group, CONTINUE)
    elif signo == SIGCONT:
        _discard(group, STOPPING)
        resume_group(group)
    if target.blocked & bit or group.actions[signo].handler > SIG_IGN:
        return True
    if target.trace is not None and signo != SIGKILL:
        return True  # the tracer sees also what would be ignored, or does nothing to init
    return not _is_protected(group, signo, force) and not group.actions.ignores(signo)


def _is_protected(group: ThreadGroup, signo: int, force: bool) -> bool:
    """pid_namespaces(7): init gets only signals that it has a handler for."""
    if not group.pids.protects(group) or group.actions[signo].handler:
        return False
    return not (force and UNBLOCKABLE >> (signo - 1) & 1)


def _discard(group: ThreadGroup, mask: int) -> None:
    group.shared_pending.discard(mask)
    for task in group.tasks:
        task.pending.discard(mask)


def _complete(
    group: ThreadGroup, task: Task | None, signo: int, by: Task | None, first: Task | None = None
) -> None:
    """Find the thread that shall see it and wake it."""
    group.signal_queue.notify()
    bit = 1 << (signo - 1)
    target = task or _taker(group, bit, first)
    if target is None or not _is_free_for(target, bit):
        return
    if (
        group.actions.is_fatal(signo)
        and not bit & DUMPING
        and not group.pids.protects(group)
        and target.trace is None
    ):
        group.exit(signo)
        return
    target.work |= WORK_SIGNAL
    if target is not by:
        target.interrupt()


def _is_free_for(task: Task, bit: int) -> bool:
    """The thread does not block the signal and does not have others to see to already."""
    return not (task.blocked & bit or task.dead or task.stopped or task.work & WORK_SIGNAL)


def _taker(group: ThreadGroup, bit: int, first: Task | None) -> Task | None:
    """The thread for a signal of the process: `first` is asked first, else the leader."""
    tasks = group.tasks
    if len(tasks) > 1:
        tasks = [first or _main(group), *tasks]
    for task in tasks:
        if _is_free_for(task, bit):
            return task
    return None


def recalculate(task: Task) -> None:
    """Say again whether a signal may be pending (recalc_sigpending)."""
    if (task.pending.mask | task.group.shared_pending.mask) & ~task.blocked:
        task.work |= WORK_SIGNAL
    else:
        task.work &= ~WORK_SIGNAL


def set_blocked(task: Task, mask: int) -> None:
    """Change the signal mask; what becomes blocked here and is pending goes to another thread."""
    mask &= ~UNBLOCKABLE
    newly = mask & ~task.blocked
    task.blocked = mask
    group = task.group
    if not (group.shared_pending.mask or task.pending.mask or task.work):
        return
    if newly and group.shared_pending.mask:
        retarget(task, newly)
    recalculate(task)


def retarget(task: Task, mask: int) -> None:
    """Pending signals of the process that this thread will not see after all: wake another."""
    group = task.group
    left = group.shared_pending.mask & mask
    if not left or len(group.tasks) < 2:
        return
    for other in group.tasks:
        if other is task or other.dead or not left & ~other.blocked:
            continue
        left &= other.blocked
        if not other.work & WORK_SIGNAL:
            other.work |= WORK_SIGNAL
            other.interrupt()
        if not left:
            return


# Going on after a stop: task_stops.py ---------------------------------------------------------


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
    group.kernel.loop.call_for_each(group.tasks, _resume_unless_stopped_again)
    if was_stopped:
        group.continue_reported = False
        tell_parent(group, CLD_CONTINUED, SIGCONT)


def _resume_unless_stopped_again(task: Task) -> None:
    if task.trace is None and not task.group.stopping:
        resume_task(task)


def resume_task(task: Task) -> None:
    """Take a stopped task up again where it stood, on its way back to ring 3."""
    if not task.stopped:
        return
    task.stopped = False
    recalculate(task)
    task.kernel.loop.call_soon(task.finish)


def tell_parent(group: ThreadGroup, code: int, signo: int) -> None:
    """do_notify_parent_cldstop: SIGCHLD unless the parent does not want it; wake its wait."""
    parent = group.parent
    if parent is None:
        return
    parent.child_queue.notify()  # before the signal: a wait that is satisfied wins over it
    action = parent.actions[SIGCHLD]
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        send_to_group(parent, group.told(SIGCHLD, code, signo))
