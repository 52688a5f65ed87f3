"""How a command has ended, as the sandbox tells it: exit codes, use, limits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runsc.api.limits import (
    CpuLimitExceeded,
    EgressLimitExceeded,
    LimitExceeded,
    MemoryLimitExceeded,
    ProcessLimitExceeded,
    TimeLimitExceeded,
    WriteLimitExceeded,
)
from runsc.api.values import CommandResult, Limits, Usage

if TYPE_CHECKING:
    from sentry.config import JobUse

BAD: Final = 255
"""For a status that none is: no sandbox of ours says that."""


def exit_code(status: int) -> int:
    """Of a wait(2) status: 128 + n if signal n has ended it."""
    if not 0 <= status <= 0xFFFF:
        return BAD
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def usage_of(use: JobUse | None, wall: float) -> Usage:
    """In seconds and bytes."""
    if use is None:
        return Usage(wall)
    return Usage(
        wall,
        use.user_ns / 1e9,
        use.system_ns / 1e9,
        use.memory,
        use.tasks,
        use.read,
        use.written,
        use.sent,
    )


def raise_exceeded(
    name: str, timeout: float | None, limits: Limits, result: CommandResult
) -> None:
    """Raises: LimitExceeded, the one of that name."""
    used = result.usage
    known: dict[str, tuple[type[LimitExceeded], float | None, float]] = {
        "wall": (TimeLimitExceeded, timeout, used.wall),
        "cpu": (CpuLimitExceeded, limits.cpu, used.cpu),
        "memory": (MemoryLimitExceeded, limits.memory, used.memory),
        "processes": (ProcessLimitExceeded, limits.processes, used.processes),
        "written": (WriteLimitExceeded, limits.written, used.written),
        "egress": (EgressLimitExceeded, limits.egress, used.egress),
    }
    kind, limit, amount = known.get(name, (LimitExceeded, None, 0.0))
    raise kind(limit or 0.0, amount, result)
