"""Limits and usage: getrlimit(2), prlimit(2), getrusage(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from sentry.abi import resource
from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.resource import (
    RLIM_NLIMITS,
    RLIMIT,
    RLIMIT_CPU,
    RLIMIT_NOFILE,
    RUSAGE,
    RUSAGE_CHILDREN,
    RUSAGE_SELF,
    RUSAGE_THREAD,
    Rlimit,
)
from sentry.errors import EINVAL, EPERM, ESRCH
from sentry.kernel.task import Task
from sentry.kernel.thread_group import Usage
from sentry.kernel.timers import watch_cpu_limit
from sentry.syscalls.args import StructOut, show_choice, signed, struct_in, struct_out, unsigned
from sentry.syscalls.processes.process import pack_usage
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Pid
from sentry.wait.again import Keeping, kept

if TYPE_CHECKING:
    from sentry.kernel.thread_group import ThreadGroup

Resource = Annotated[
    int,
    unsigned(
        32, show_choice({n: v for n, v in vars(resource).items() if n.startswith("RLIMIT_")})
    ),
]
RlimitIn = Annotated[Rlimit, struct_in(RLIMIT)]
RlimitInOrNull = Annotated[Rlimit | None, struct_in(RLIMIT, null=True)]
OLD: Final = "old"
"""Key of the limits before, where they could not be told yet."""
RlimitOut = Annotated[StructOut, struct_out(RLIMIT)]
RusageOut = Annotated[StructOut, struct_out(RUSAGE)]
Who = Annotated[
    int, signed(32, show_choice({n: v for n, v in vars(resource).items() if n[:7] == "RUSAGE_"}))
]


def change_limit(
    task: Task, group: ThreadGroup, number: int, new: Rlimit | None
) -> tuple[int, int]:
    """do_prlimit(): set if `new`, and give the old (soft, hard)."""
    if number >= RLIM_NLIMITS:
        raise EINVAL(f"resource {number}")
    old = group.limits.soft(number), group.limits.hard(number)
    if new is not None:
        if new.rlim_cur > new.rlim_max:
            raise EINVAL("soft above hard")
        if number == RLIMIT_NOFILE and new.rlim_max > task.kernel.vfs.descriptors.nr_open:
            raise EPERM("fs.nr_open")
        if new.rlim_max > old[1] and not task.creds.has(CAP_SYS_RESOURCE):
            raise EPERM("raises the hard limit")
        group.limits.set(number, new.rlim_cur, new.rlim_max)
        if number == RLIMIT_CPU:
            watch_cpu_limit(group)
    return old


@syscall(97)
def sys_getrlimit(task: Task, number: Resource, limit: RlimitOut) -> None:
    """getrlimit(2)."""
    limit.put(*change_limit(task, task.group, number, None))


@syscall(160)
def sys_setrlimit(task: Task, number: Resource, limit: RlimitIn) -> None:
    """setrlimit(2)."""
    change_limit(task, task.group, number, limit)


@syscall(302)
def sys_prlimit64(
    task: Task, pid: Pid, number: Resource, new: RlimitInOrNull, old: RlimitOut
) -> None:
    """prlimit(2): another process needs the same ids, all of them, or CAP_SYS_RESOURCE."""
    target = task if pid == 0 else task.pids.task_or_zombie(pid)
    if target is None:
        raise ESRCH(f"pid {pid}")
    mine, theirs = task.creds, target.creds
    own = {theirs.uid, theirs.euid, theirs.suid} == {mine.uid} and (
        {theirs.gid, theirs.egid, theirs.sgid} == {mine.gid}
    )
    if not (target.group is task.group or own or mine.has_in(theirs.user_ns, CAP_SYS_RESOURCE)):
        raise EPERM(f"limits of {pid}")
    was = kept(OLD) or change_limit(task, target.group, number, new)
    if old:
        with Keeping(OLD, was):
            old.put(*was)


def running_usage(group: ThreadGroup) -> Usage:
    """The same with the largest resident set so far."""
    usage = group.usage()
    usage.maxrss = max(usage.maxrss, max_rss_kib(group))
    return usage


def max_rss_kib(group: ThreadGroup) -> int:
    """The largest resident set that the process has had."""
    living = next((task for task in group.tasks if not task.dead), None)
    now = living.mm.resident.peak_pages() if living is not None else 0
    return max(group.used.maxrss, now * 4)


@syscall(98)
def sys_getrusage(task: Task, who: Who, usage: RusageOut) -> None:
    """getrusage(2): block operations are not counted."""
    if who == RUSAGE_SELF:
        result = running_usage(task.group)
    elif who == RUSAGE_CHILDREN:
        result = task.group.reaped_usage
    elif who == RUSAGE_THREAD:
        result = Usage()
        result.count(task)
        result.maxrss = max_rss_kib(task.group)
    else:
        raise EINVAL(f"who {who}")
    task.mm.write(usage.addr, pack_usage(result))
