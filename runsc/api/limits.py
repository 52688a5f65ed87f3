"""Limits that a command has exceeded: one exception for each kind."""

from __future__ import annotations

from runsc.api.errors import SandboxError
from runsc.api.values import CommandResult


class LimitExceeded(SandboxError):
    """A command has used more than it may; it was ended, with all that it had started."""

    unit = ""

    def __init__(self, limit: float, used: float, result: CommandResult) -> None:
        super().__init__(
            f"{self.what()}: {_shown(used)}{self.unit} used of {_shown(limit)}{self.unit}"
        )
        self.limit = limit
        """What it may use: seconds, bytes, a number."""
        self.used = used
        """What it had used when that was seen."""
        self.result = result
        """What it had written until then, and what it has used of all else."""

    @classmethod
    def what(cls) -> str:
        """Of what."""
        return (cls.__doc__ or "").partition(":")[0]


class TimeLimitExceeded(LimitExceeded, TimeoutError):
    """time: `timeout`, seconds."""

    unit = " s"


class CpuLimitExceeded(LimitExceeded):
    """CPU time: `Limits.cpu`, seconds."""

    unit = " s"


class MemoryLimitExceeded(LimitExceeded):
    """memory: `Limits.memory`, bytes."""

    unit = " bytes"


class ProcessLimitExceeded(LimitExceeded):
    """processes and threads: `Limits.processes`."""


class WriteLimitExceeded(LimitExceeded):
    """bytes written: `Limits.written`."""

    unit = " bytes"


class OutputLimitExceeded(LimitExceeded):
    """output: `Limits.output`, bytes of standard output and error."""

    unit = " bytes"


class EgressLimitExceeded(LimitExceeded):
    """bytes sent to the network: `Limits.egress`."""

    unit = " bytes"


def _shown(amount: float) -> str:
    """Bytes as they are, seconds to the millisecond."""
    return f"{amount:.3f}".rstrip("0").rstrip(".")
