"""Scheduling attributes: kept and reported, not acted upon.

vCPU threads are scheduled by the host; nice values, policies and affinity change nothing here but
are checked and remembered as Linux does, because programs read them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from sentry.abi.capability import CAP_SYS_NICE
from sentry.abi.resource import RLIMIT_NICE, RLIMIT_RTPRIO
from sentry.abi.sched import (
    SCHED_BATCH,
    SCHED_DEADLINE,
    SCHED_EXT,
    SCHED_IDLE,
    SCHED_NORMAL,
)
from sentry.errors import EBUSY, EINVAL, EPERM
from sentry.kernel.sched_attributes import DEFAULT, REAL_TIME, Sched

if TYPE_CHECKING:
    from sentry.kernel.task import Task

FAIR: Final = (SCHED_NORMAL, SCHED_BATCH, SCHED_IDLE)
UNRANKED: Final = (*FAIR, SCHED_DEADLINE, SCHED_EXT)
"""Those without a priority."""
POLICIES: Final = (*REAL_TIME, *FAIR, SCHED_DEADLINE)
MIN_NICE, MAX_NICE = -20, 19
MAX_RT_PRIORITY: Final = 99
MIN_RUNTIME_NS: Final = 1024
MIN_PERIOD_NS, MAX_PERIOD_NS = 100_000, (1 << 22) * 1000
MAX_BANDWIDTH: Final = 0.95


def of(task: Task) -> Sched:
    """The attributes of a task."""
    found: Sched | None = task.sched
    return found if found is not None else DEFAULT


def change(task: Task, **values: Any) -> None:
    """Set some of them, unchecked."""
    task.sched = replace(of(task), **values)


def may_change(task: Task, target: Task) -> bool:
    """check_same_owner() or CAP_SYS_NICE."""
    mine, theirs = task.creds, target.creds
    return mine.euid in (theirs.euid, theirs.uid) or mine.has(CAP_SYS_NICE)


def outranked(task: Task, target: Task) -> bool:
    """cap_safe_nice(): the target has capabilities that the caller lacks."""
    mine, theirs = task.creds, target.creds
    more = theirs.permitted & ~mine.permitted
    return bool(more) and not mine.has_in(theirs.user_ns, CAP_SYS_NICE)


def check_capabilities(task: Task, target: Task) -> None:
    """Who can do more than oneself is not slowed down. Raises: EPERM."""
    if outranked(task, target):
        raise EPERM("has more capabilities")


def may_nice(task: Task, target: Task, nice: int) -> bool:
    """can_nice(): RLIMIT_NICE is 20 - nice."""
    return 20 - nice <= target.rlimit(RLIMIT_NICE) or task.creds.has(CAP_SYS_NICE)


class Wanted(Struct, frozen=True):
    """What sched_setscheduler(2), sched_setparam(2) and sched_setattr(2) ask for."""

    policy: int
    priority: int = 0
    nice: int | None = None
    """None: as it is."""
    reset_on_fork: bool = False
    deadline: tuple[int, int, int] = (0, 0, 0)


def set_policy(task: Task, target: Task, wanted: Wanted) -> None:
    """__sched_setscheduler(), kernel/sched/syscalls.c. Raises: EINVAL, EPERM, EBUSY."""
    policy, priority = wanted.policy, wanted.priority
    if policy not in POLICIES:
        raise EINVAL(f"policy {policy}")
    if not 0 <= priority <= MAX_RT_PRIORITY or (policy in REAL_TIME) != bool(priority):
        raise EINVAL(f"priority {priority}")
    if policy == SCHED_DEADLINE:
        _check_deadline(*wanted.deadline)
    if not task.creds.has(CAP_SYS_NICE):
        _check_unprivileged(task, target, wanted)
    check_capabilities(task, target)
    old = of(target)
    if policy == SCHED_DEADLINE:
        _check_bandwidth(task, target, wanted.deadline)
    nice = wanted.nice if wanted.nice is not None and policy in FAIR else old.nice
    change(
        target, policy=policy, priority=priority, nice=nice,
        reset_on_fork=wanted.reset_on_fork, deadline=wanted.deadline,
    )  # fmt: skip


def _check_deadline(runtime: int, deadline: int, period: int) -> None:
    """__checkparam_dl(), kernel/sched/deadline.c. EINVAL."""
    period = period or deadline
    if (
        not deadline
        or runtime < MIN_RUNTIME_NS
        or (deadline | period) >> 63
        or not runtime <= deadline <= period
        or not MIN_PERIOD_NS <= period <= MAX_PERIOD_NS
    ):
        raise EINVAL(f"deadline {runtime} {deadline} {period}")


def _check_bandwidth(task: Task, target: Task, wanted: tuple[int, int, int]) -> None:
    """A share of 95 % of all CPUs may be promised, to tasks that may use all. EPERM, EBUSY."""
    kernel = task.kernel
    affinity = of(target).affinity
    if affinity is not None and affinity != (1 << kernel.cpus) - 1:
        raise EPERM("affinity")
    promised = sum(
        runtime / (period or deadline)
        for other in kernel.pids.tasks.values()
        if other is not target and of(other).policy == SCHED_DEADLINE
        for runtime, deadline, period in (of(other).deadline,)
    )
    if promised + wanted[0] / (wanted[2] or wanted[1]) > MAX_BANDWIDTH * kernel.cpus:
        raise EBUSY("no CPU time left")


def _check_unprivileged(task: Task, target: Task, wanted: Wanted) -> None:
    """user_check_sched_setscheduler(). EPERM."""
    old, policy, priority = of(target), wanted.policy, wanted.priority
    nice = old.nice if wanted.nice is None else wanted.nice
    if policy in FAIR and nice < old.nice and not may_nice(task, target, nice):
        raise EPERM("RLIMIT_NICE")
    if policy in REAL_TIME:
        limit = target.rlimit(RLIMIT_RTPRIO)
        if policy != old.policy and not limit:
            raise EPERM("RLIMIT_RTPRIO")
        if priority > old.priority and priority > limit:
            raise EPERM("RLIMIT_RTPRIO")
    if policy == SCHED_DEADLINE:
        raise EPERM("SCHED_DEADLINE")
    if old.policy == SCHED_IDLE != policy and not may_nice(task, target, old.nice):
        raise EPERM("RLIMIT_NICE")
    if not may_change(task, target):
        raise EPERM("another user's")
    if old.reset_on_fork and not wanted.reset_on_fork:
        raise EPERM("SCHED_RESET_ON_FORK stays")


def priority_range(policy: int) -> tuple[int, int]:
    """sched_get_priority_min(2), _max(2). Raises: EINVAL."""
    if policy in REAL_TIME:
        return 1, MAX_RT_PRIORITY
    if policy in UNRANKED:
        return 0, 0
    raise EINVAL(f"policy {policy}")
