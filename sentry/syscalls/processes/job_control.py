"""Process groups and sessions: setpgid(2), setsid(2), credentials(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import EACCES, EINVAL, EPERM, ESRCH
from sentry.kernel.task import Task
from sentry.kernel.thread_group import ProcessGroup, Session
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Pid

if TYPE_CHECKING:
    from sentry.kernel.thread_group import ThreadGroup


def find(task: Task, pid: int) -> ThreadGroup:
    """The process of an id (0: the caller's). ESRCH."""
    if pid == 0:
        return task.group
    found = task.pids.task(pid)
    if found is not None:
        return found.group
    group = task.pids.group(pid)
    if group is None:
        raise ESRCH(f"pid {pid}")
    return group


@syscall(109)
def sys_setpgid(task: Task, pid: Pid, pgid: Pid) -> None:
    """setpgid(2): oneself or a child that has not called execve, within the session."""
    if (pgid or pid) < 0:
        raise EINVAL("pgid")
    pids = task.pids
    target = task.group if pid == 0 else pids.group(pid)
    if target is None and pids.task(pid) is not None:
        raise EINVAL(f"{pid} is a thread")
    if target is None or (target is not task.group and target.parent is not task.group):
        raise ESRCH(f"pid {pid}")
    if target is not task.group:
        if target.session is not task.group.session:
            raise EPERM("child of another session")
        if target.has_execed:
            raise EACCES("child has called execve")
    if target.session.leader is target:
        raise EPERM("session leader")
    tables = task.kernel.pids
    wanted = pids.known(pgid) if pgid else target.tgid
    group = tables.process_groups.get(wanted)
    if wanted == target.tgid:
        if group is None:
            group = tables.process_groups[wanted] = target.session.group_of(wanted)
    elif group is None or group.session is not task.group.session:
        raise EPERM(f"process group {wanted}")
    if group is not target.process_group:
        target.join(group)


@syscall(121)
def sys_getpgid(task: Task, pid: Pid) -> int:
    """getpgid(2)."""
    return task.pids.of(find(task, pid).process_group.pgid)


@syscall(111)
def sys_getpgrp(task: Task) -> int:
    """getpgrp(2)."""
    return task.pids.of(task.group.process_group.pgid)


@syscall(124)
def sys_getsid(task: Task, pid: Pid) -> int:
    """getsid(2)."""
    return task.pids.of(find(task, pid).session.sid)


@syscall(112)
def sys_setsid(task: Task) -> int:
    """setsid(2): EPERM for a process group leader."""
    group, pids = task.group, task.kernel.pids
    if group.tgid in pids.process_groups:
        raise EPERM("process group leader")
    session = pids.sessions[group.tgid] = Session(group.tgid, group)
    process_group = pids.process_groups[group.tgid] = ProcessGroup(group.tgid, session)
    group.join(process_group)
    group.terminal = None
    return task.own_pid
