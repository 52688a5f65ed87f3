"""How often something was done, and how long it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentry.control.answers import Cost


class Meter:
    """Calls of one kind."""

    __slots__ = ("count", "longest_ns", "total_ns")

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self.longest_ns = 0

    def add(self, ns: int) -> None:
        """One piece of work."""
        self.total_ns += ns
        self.longest_ns = max(self.longest_ns, ns)

    def cost(self) -> Cost:
        """As the command line gets it."""
        from sentry.control.answers import Cost  # noqa: PLC0415  few ask

        return Cost(self.count, self.total_ns, self.longest_ns)
