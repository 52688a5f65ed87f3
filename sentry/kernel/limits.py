"""Resource limits of a process: getrlimit(2)."""

from __future__ import annotations

from sentry.abi.resource import (
    RLIM_INFINITY,
    RLIM_NLIMITS,
    RLIMIT_CORE,
    RLIMIT_MEMLOCK,
    RLIMIT_MSGQUEUE,
    RLIMIT_NICE,
    RLIMIT_NOFILE,
    RLIMIT_RTPRIO,
    RLIMIT_SIGPENDING,
    RLIMIT_STACK,
)

INFINITY = RLIM_INFINITY


def default_limits() -> list[tuple[int, int]]:
    """(soft, hard) per resource, as Linux gives them to init (include/asm-generic/resource.h)."""
    limits = [(INFINITY, INFINITY)] * RLIM_NLIMITS
    limits[RLIMIT_STACK] = (8 << 20, INFINITY)
    limits[RLIMIT_CORE] = (0, INFINITY)
    limits[RLIMIT_NOFILE] = (1024, 1048576)
    limits[RLIMIT_MEMLOCK] = (8 << 20, 8 << 20)
    limits[RLIMIT_MSGQUEUE] = (819200, 819200)
    limits[RLIMIT_SIGPENDING] = (31234, 31234)
    limits[RLIMIT_NICE] = (0, 0)
    limits[RLIMIT_RTPRIO] = (0, 0)
    return limits


class Limits:
    """The limits of one process; copied by fork, kept by exec."""

    __slots__ = ("_values",)

    def __init__(self, values: list[tuple[int, int]] | None = None) -> None:
        self._values = default_limits() if values is None else list(values)

    def copy(self) -> Limits:
        """The child's own."""
        return Limits(self._values)

    def soft(self, resource: int) -> int:
        """The limit in force; INFINITY is 2**64-1."""
        return self._values[resource][0]

    def rlimit(self, resource: int) -> int:
        """The soft limit, as lower rooms ask for it."""
        return self._values[resource][0]

    def hard(self, resource: int) -> int:
        """The ceiling of the soft limit."""
        return self._values[resource][1]

    def set(self, resource: int, soft: int, hard: int) -> None:
        """Set both, unchecked."""
        self._values[resource] = (soft, hard)
