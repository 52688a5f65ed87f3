"""Scheduling attributes: kept and reported, not acted upon.

vCPU threads are scheduled by the host; nice values, policies and affinity change nothing here but
are checked and remembered as Linux does, because programs read them back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_NICE
from sentry.abi.resource import RLIMIT_NICE, RLIMIT_RTPRIO
from sentry.abi.sched import (
    SCHED_BATCH,
    SCHED_DEADLINE,
    SCHED_FIFO,
    SCHED_IDLE,
    SCHED_NORMAL,
    SCHED_RR,
)
from sentry.errors import EINVAL, EPERM

if TYPE_CHECKING:
    from sentry.kernel.task import Task

REAL_TIME: Final = (SCHED_FIFO, SCHED_RR)
FAIR: Final = (SCHED_NORMAL, SCHED_BATCH, SCHED_IDLE)
MIN_NICE, MAX_NICE = -20, 19
MAX_RT_PRIORITY: Final = 99


@dataclass(frozen=True, slots=True)
class Sched:
    """What a task asked for. A value: tasks share it until one changes its own."""

    policy: int = SCHED_NORMAL
    priority: int = 0
    """1 to 99 for the real-time policies."""
    nice: int = 0
    reset_on_fork: bool = False
    affinity: int | None = None
    """Mask of CPUs; None: all."""
    ioprio: int = 0
    """IOPRIO_PRIO_VALUE(class, level); 0: by the nice value."""
    deadline: tuple[int, int, int] = (0, 0, 0)
    """SCHED_DEADLINE: runtime, deadline, period in ns."""
    slice_ns: int = 0

    def for_child(self) -> Sched:
        """What fork gives on: SCHED_RESET_ON_FORK drops privileges."""
        if not self.reset_on_fork:
            return self
        nice = max(self.nice, 0)
        return replace(
            self, policy=SCHED_NORMAL if self.policy in REAL_TIME else self.policy,
            priority=0, nice=nice, reset_on_fork=False,
        )  # fmt: skip


DEFAULT: Final = Sched()


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


def may_nice(task: Task, target: Task, nice: int) -> bool:
    """can_nice(): RLIMIT_NICE is 20 - nice."""
    return 20 - nice <= target.rlimit(RLIMIT_NICE) or task.creds.has(CAP_SYS_NICE)


def set_policy(task: Task, target: Task, policy: int, priority: int, reset: bool) -> None:
    """sched_setscheduler(2), __sched_setscheduler(). Raises: EINVAL, EPERM."""
    if policy not in (*REAL_TIME, *FAIR):
        raise EINVAL(f"policy {policy}")
    if not 0 <= priority <= MAX_RT_PRIORITY or (policy in REAL_TIME) != bool(priority):
        raise EINVAL(f"priority {priority}")
    old = of(target)
    if not task.creds.has(CAP_SYS_NICE):
        _check_unprivileged(task, target, policy, priority)
        if old.reset_on_fork and not reset:
            raise EPERM("SCHED_RESET_ON_FORK stays")
    change(target, policy=policy, priority=priority, reset_on_fork=reset)


def _check_unprivileged(task: Task, target: Task, policy: int, priority: int) -> None:
    old = of(target)
    if policy in REAL_TIME:
        limit = target.rlimit(RLIMIT_RTPRIO)
        if policy != old.policy and not limit:
            raise EPERM("RLIMIT_RTPRIO")
        if priority > old.priority and priority > limit:
            raise EPERM("RLIMIT_RTPRIO")
    if old.policy == SCHED_IDLE != policy and not may_nice(task, target, old.nice):
        raise EPERM("RLIMIT_NICE")
    if not may_change(task, target):
        raise EPERM("another user's")


def priority_range(policy: int) -> tuple[int, int]:
    """sched_get_priority_min(2), _max(2). Raises: EINVAL."""
    if policy in REAL_TIME:
        return 1, MAX_RT_PRIORITY
    if policy in (*FAIR, SCHED_DEADLINE):
        return 0, 0
    raise EINVAL(f"policy {policy}")
