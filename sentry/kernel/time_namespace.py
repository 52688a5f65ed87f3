"""Other offsets of the monotonic and the boot-time clock. time_namespaces(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
)
from sentry.mm.mapping import leave_clock_page

if TYPE_CHECKING:
    from sentry.kernel.nsproxy import TimeNamespace
    from sentry.kernel.task import Task

MONOTONIC: Final = frozenset({CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW})
BOOTTIME: Final = frozenset({CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM})


def offset_ns(task: Task, clock: int) -> int:
    """What the task's namespace adds to a clock."""
    ns = task.ns.time
    if clock in MONOTONIC:
        return ns.monotonic_ns
    return ns.boottime_ns if clock in BOOTTIME else 0


def to_host_ns(task: Task, clock: int, at_ns: int) -> int:
    """timens_ktime_to_host(): a moment that the task names, on the host's clock."""
    return at_ns if task.ns.time.is_first else max(1, at_ns - offset_ns(task, clock))


def join_for_children(task: Task) -> None:
    """timens_on_fork(): a new process, or a new program, is where its children shall be."""
    ns = task.ns.time_for_children
    if ns is not task.ns.time or (not ns.is_first and task.group.has_execed):
        join(task, ns)


def join(task: Task, ns: TimeNamespace) -> None:
    """The task is there from now on; its clocks are not those of the shared page any more."""
    task.ns = task.ns.but(time=ns)
    if ns.is_first:
        return
    ns.frozen = True
    leave_clock_page(task.mm.map)
