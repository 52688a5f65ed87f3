"""`Sched`: the scheduling attributes of a task, as a value. Who may change them is in sched.py."""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sentry.abi.sched import SCHED_DEADLINE, SCHED_FIFO, SCHED_NORMAL, SCHED_RR

REAL_TIME: Final = (SCHED_FIFO, SCHED_RR)


class Sched(Struct, frozen=True):
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

    def for_child(self) -> Sched:
        """What fork gives on: SCHED_RESET_ON_FORK drops privileges."""
        if not self.reset_on_fork:
            return self
        urgent = self.policy in REAL_TIME or self.policy == SCHED_DEADLINE
        nice = 0 if urgent else max(self.nice, 0)
        return replace(
            self, policy=SCHED_NORMAL if urgent else self.policy,
            priority=0, nice=nice, reset_on_fork=False, deadline=(0, 0, 0),
        )  # fmt: skip


DEFAULT: Final = Sched()
