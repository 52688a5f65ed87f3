"""Sending signals: kill(2), tgkill(2), rt_sigqueueinfo(2), pidfd_send_signal(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_KILL
from sentry.abi.pidfd import (
    PIDFD_SIGNAL_PROCESS_GROUP,
    PIDFD_SIGNAL_THREAD,
    PIDFD_SIGNAL_THREAD_GROUP,
)
from sentry.abi.signal import SI_TKILL, SIGCONT
from sentry.errors import EINVAL, EPERM, ESRCH
from sentry.kernel.signals import NSIG, SigInfo
from sentry.kernel.task import Task
from sentry.kernel.task_signals import may_signal, send_to_group, send_to_task
from sentry.suppress import suppress
from sentry.syscalls.processes.pidfd import target_of
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Fd, Pid, Signal, UInt
from sentry.vfs.file import Result
from sentry.wait.steps import Steps, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sentry.kernel.thread_group import ProcessGroup, ThreadGroup

SIGINFO_SIZE = 128
SCOPES = (0, PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP)
"""Flags of pidfd_send_signal(2): at most one of them."""


def find_group(task: Task, pid: int) -> ThreadGroup:
    """The process that a pid, or the id of one of its threads, means. ESRCH."""
    pids = task.pids
    group = pids.group(pid)
    if group is None:
        member = pids.task(pid)
        if member is None:
            raise ESRCH(f"pid {pid}")
        group = member.group
    return group


def check(task: Task, group: ThreadGroup, signo: int, target: Task | None = None) -> None:
    """check_kill_permission(): EINVAL, EPERM."""
    if not 0 <= signo <= NSIG:
        raise EINVAL(f"signal {signo}")
    if group is task.group:
        return
    if target is None and group.tasks:
        target = group.tasks[0]
    if target is not None:
        allowed = may_signal(task.creds, target)
    else:
        allowed = group.last_uid in (task.creds.uid, task.creds.euid) or task.creds.has(CAP_KILL)
    if not allowed and not (signo == SIGCONT and group.session is task.group.session):
        raise EPERM(f"signal {signo} to {group.tgid}")


@syscall(62)
def sys_kill(task: Task, pid: Pid, signo: Signal) -> Result:
    """kill(2)."""
    info = SigInfo.user(signo, task.group.tgid, task.creds.uid)
    if pid > 0:
        group = find_group(task, pid)
        check(task, group, signo)
        if signo:
            send_to_group(group, info, by=task)
        return 0
    if pid == -1:
        return in_steps(_kill_everybody(task, info))
    if pid == -(1 << 31):
        raise ESRCH("pid")
    process_group = task.group.process_group if pid == 0 else task.pids.process_group(-pid)
    return in_steps(_kill_each(task, process_group, info))


def _with_those_forked(find: Callable[[], Iterable[ThreadGroup]]) -> Iterator[ThreadGroup]:
    """All of them, also who is forked meanwhile: copy_process() gives a child what comes then."""
    seen: set[ThreadGroup] = set()
    while found := [group for group in find() if group not in seen]:
        seen.update(found)
        yield from (group for group in found if group.kernel.pids.groups.get(group.tgid) is group)


def _kill_each(task: Task, target: ProcessGroup | None, info: SigInfo) -> Steps[None]:
    """kill_pgrp: success if one of them could be signalled."""
    failed: Exception = ESRCH("no such process group")
    done = False
    for group in _with_those_forked(lambda: target.members if target is not None else ()):
        try:
            check(task, group, info.signo)
            if info.signo:
                send_to_group(group, info, by=task)
            done = True
        except (EINVAL, EPERM) as error:
            failed = error
        yield
    if not done:
        raise failed


def _kill_everybody(task: Task, info: SigInfo) -> Steps[None]:
    """All but init and the caller; EPERM alone is no failure (kill_something_info)."""

    def others() -> Iterator[ThreadGroup]:
        spared = task.pids.init, task.group
        return (group for group in task.pids.members() if group not in spared)

    if (first := next(others(), None)) is None:
        raise ESRCH("nobody else")
    with suppress(EPERM):
        check(task, first, info.signo)
    for group in _with_those_forked(lambda: (each for each in others() if each.tasks)):
        with suppress(EPERM):
            check(task, group, info.signo)
            if info.signo:
                send_to_group(group, info, by=task)
        yield


def _send_to_thread(task: Task, tgid: int, tid: int, info: SigInfo) -> None:
    """do_send_specific(): `tgid` 0 is not checked. A leader that has ended can still be meant."""
    pids = task.pids
    target = pids.task(tid)
    group = target.group if target is not None else pids.group(tid)
    if group is None or (tgid and group.tgid != pids.known(tgid)):
        raise ESRCH(f"thread {tid}")
    _send_to(task, group, target, info)


def _send_to(task: Task, group: ThreadGroup, target: Task | None, info: SigInfo) -> None:
    check(task, group, info.signo, target)
    if info.signo and target is not None:
        send_to_task(target, info, by=task)


@syscall(200)
def sys_tkill(task: Task, tid: Pid, signo: Signal) -> None:
    """tkill(2)."""
    if tid <= 0:
        raise EINVAL("tid")
    _send_to_thread(task, 0, tid, SigInfo.tkill(signo, task.group.tgid, task.creds.uid))


@syscall(234)
def sys_tgkill(task: Task, tgid: Pid, tid: Pid, signo: Signal) -> None:
    """tgkill(2)."""
    if tid <= 0 or tgid <= 0:
        raise EINVAL("pid")
    _send_to_thread(task, tgid, tid, SigInfo.tkill(signo, task.group.tgid, task.creds.uid))


@syscall(129)
def sys_rt_sigqueueinfo(task: Task, pid: Pid, signo: Signal, info: Addr) -> None:
    """rt_sigqueueinfo(2): what claims to come from the kernel or from kill only to oneself."""
    sent = _read_info(task, signo, info)
    _check_code(task, sent, pid)
    group = find_group(task, pid)
    check(task, group, signo)
    if signo:
        send_to_group(group, sent, by=task)


@syscall(297)
def sys_rt_tgsigqueueinfo(task: Task, tgid: Pid, tid: Pid, signo: Signal, info: Addr) -> None:
    """rt_tgsigqueueinfo(2)."""
    sent = _read_info(task, signo, info)
    if tid <= 0 or tgid <= 0:
        raise EINVAL("pid")
    _check_code(task, sent, tid)
    _send_to_thread(task, tgid, tid, sent)


def _read_info(task: Task, signo: int, addr: int) -> SigInfo:
    return SigInfo.raw(signo, task.mm.read(addr, SIGINFO_SIZE))


def _check_code(task: Task, info: SigInfo, pid: int) -> None:
    if (info.code >= 0 or info.code == SI_TKILL) and pid != task.own_tid:
        raise EPERM(f"si_code {info.code}")


@syscall(424)
def sys_pidfd_send_signal(task: Task, pidfd: Fd, signo: Signal, info: Addr, flags: UInt) -> Result:
    """pidfd_send_signal(2)."""
    if flags not in SCOPES:
        raise EINVAL("flags")
    group, thread, _ = target_of(task, pidfd)
    if not task.pids.sees(group):
        raise EINVAL("not in this PID namespace")
    scope = flags or (PIDFD_SIGNAL_THREAD if thread is not None else PIDFD_SIGNAL_THREAD_GROUP)
    if info:
        raw = task.mm.read(info, SIGINFO_SIZE)
        if raw[:4] != signo.to_bytes(4, "little", signed=True):
            raise EINVAL("si_signo")
        sent = SigInfo.raw(signo, raw)
        others = group is not task.group or scope == PIDFD_SIGNAL_PROCESS_GROUP
        if others and (sent.code >= 0 or sent.code == SI_TKILL):
            raise EPERM(f"si_code {sent.code}")
    elif scope == PIDFD_SIGNAL_THREAD:
        sent = SigInfo.tkill(signo, task.group.tgid, task.creds.uid)
    else:
        sent = SigInfo.user(signo, task.group.tgid, task.creds.uid)
    tables = task.kernel.pids
    if scope == PIDFD_SIGNAL_PROCESS_GROUP:
        return in_steps(_kill_each(task, tables.process_groups.get(group.tgid), sent))
    if tables.groups.get(group.tgid) is not group or (thread is not None and thread.dead):
        raise ESRCH("reaped")
    elif scope == PIDFD_SIGNAL_THREAD:
        _send_to(task, group, thread or group.leader, sent)
    else:
        check(task, group, signo)
        if signo:
            send_to_group(group, sent, by=task)
    return 0
