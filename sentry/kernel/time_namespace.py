"""`TimeNamespace`: other offsets of the monotonic and the boot-time clock. time_namespaces(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
)

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.kernel.task import Task

MONOTONIC: Final = frozenset({CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW})
BOOTTIME: Final = frozenset({CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM})


class TimeNamespace:
    """Its offsets are set before the first task is in it."""

    __slots__ = ("__weakref__", "boottime_ns", "charge", "frozen", "monotonic_ns", "owner")

    def __init__(
        self, owner: UserNamespace | None, charge: Charge, model: TimeNamespace | None
    ) -> None:
        self.owner = owner
        self.charge = charge
        self.monotonic_ns: int = model.monotonic_ns if model is not None else 0
        self.boottime_ns: int = model.boottime_ns if model is not None else 0
        self.frozen = False
        """A task is in it: the offsets stay as they are."""


def offset_ns(task: Task, clock: int) -> int:
    """What the task's namespace adds to a clock."""
    ns: TimeNamespace | None = task.time_ns
    if ns is None:
        return 0
    if clock in MONOTONIC:
        return ns.monotonic_ns
    return ns.boottime_ns if clock in BOOTTIME else 0


def join_for_children(task: Task) -> None:
    """timens_on_fork(): a new process, or a new program, is where its children shall be."""
    ns = task.time_for_children
    if ns is not None:
        ns.frozen = True
    task.time_ns = ns
