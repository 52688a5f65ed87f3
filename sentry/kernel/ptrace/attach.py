"""How a task comes to be traced, and how a tracee is found. Who may: sentry/auth/ptrace.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_PTRACE
from sentry.abi.ptrace import PTRACE_O_MASK, PTRACE_O_SUSPEND_SECCOMP
from sentry.abi.signal import SIGSTOP
from sentry.auth.ptrace import YAMA_CAPABILITY, yama_scope
from sentry.errors import EINVAL, EPERM, ESRCH
from sentry.kernel import access, signal_send
from sentry.kernel.ptrace.links import link
from sentry.kernel.ptrace.tracee import Tracee
from sentry.kernel.signals import SigInfo
from sentry.kernel.work import WORK_STOP
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def check_options(task: Task, options: int) -> None:
    """check_ptrace_options(). Raises: EINVAL, EPERM."""
    if options & ~PTRACE_O_MASK:
        raise EINVAL(f"options {options:#x}")
    if options & PTRACE_O_SUSPEND_SECCOMP:
        suspended = task.trace is not None and task.trace.suspends_seccomp()
        if not task.creds.has(CAP_SYS_ADMIN) or task.seccomp is not None or suspended:
            raise EPERM("PTRACE_O_SUSPEND_SECCOMP")


def traceme(task: Task) -> None:
    """PTRACE_TRACEME: the thread that made this process traces it. Raises: EPERM."""
    if task.trace is not None:
        raise EPERM("traced already")
    parent = task.group.parent
    tracer = None
    if parent is not None:
        maker = task.group.parent_thread
        if maker is None or maker.dead or maker.group is not parent:
            maker = next((t for t in parent.tasks if not t.dead), None)
        tracer = maker
    if tracer is None:
        raise EPERM("there is no parent that could trace")
    mine, theirs = tracer.creds, task.creds
    subset = mine.user_ns is theirs.user_ns and not theirs.permitted & ~mine.permitted
    strict = yama_scope(task.kernel) >= YAMA_CAPABILITY or not subset
    if yama_scope(task.kernel) > YAMA_CAPABILITY or (
        strict and not mine.has_in(theirs.user_ns, CAP_SYS_PTRACE)
    ):
        raise EPERM("the parent may not trace")
    link(Tracee(task, tracer, False, 0))


def attach(task: Task, pid: int, *, seized: bool, options: int = 0) -> None:
    """PTRACE_ATTACH, PTRACE_SEIZE. Raises: ESRCH, EPERM; NotNow while an execve(2) of the process
    works with the answer that nobody traces it; a signal ends that wait.
    """
    pids = task.pids
    target = pids.task(pid)
    if target is None:
        raise (EPERM if pids.is_taken(pid) else ESRCH)(f"pid {pid}")
    if target.group is task.group:
        raise EPERM("a thread of the same process")
    target.group.exec_lock.check(Mode.INTERRUPTIBLE)
    access.check_attach(task, target)
    if target.dead or target.trace is not None:
        raise EPERM(f"{target!r} is dead or traced already")
    tracee = Tracee(target, task, seized, options)
    link(tracee)
    if target.stopped:
        # a stopped task becomes a traced one without running in between
        tracee.trap_stop = True
        tracee.stop_signo = target.group.stopping
        target.work |= WORK_STOP
        signal_send.resume_task(target)
    elif target.group.stopping and target.work & WORK_STOP:
        tracee.stop_pending = True
        tracee.stop_signo = target.group.stopping
    if not seized:
        signal_send.send_to_task(target, SigInfo.kernel(SIGSTOP), by=task)


def find_tracee(task: Task, pid: int, *, stopped: bool = True) -> Tracee:
    """The caller's tracee of this id, in a stop: ptrace_check_attach(). Raises: ESRCH."""
    target = task.pids.task(pid)
    trace = target.trace if target is not None else None
    if not isinstance(trace, Tracee) or trace.tracer is not task or trace.task.dead:
        raise ESRCH(f"pid {pid} is not traced by this task")
    if stopped and (trace.stop is None or trace.listening):
        raise ESRCH(f"pid {pid} is not stopped")
    return trace
