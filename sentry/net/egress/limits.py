"""Quotas and rates: how much a rule, or all together, may move, and how fast."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sentry.net.egress.rules import Limits

NS: Final = 1_000_000_000
Used = tuple[int, int, int]
"""Bytes out and in, and connections."""


class Way(IntEnum):
    """Of bytes, as the sandbox sees it. A number, since hashes of others are made in Python."""

    OUT = 0
    IN = 1


class Bucket:
    """A token bucket: `rate` bytes a second, and `burst` after a pause.

    It keeps when the bytes so far would have gone at that rate (the virtual scheduling of ITU-T
    I.371), so nothing has to be refilled.
    """

    __slots__ = ("_burst_ns", "_rate", "_ready_ns")

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst_ns = max(burst * NS // rate, 1)
        self._ready_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        """How long it is until something may go; a packet larger than `burst` goes in the end."""
        return max(self._ready_ns - self._burst_ns - now_ns + 1, 0)

    def take(self, count: int, now_ns: int) -> None:
        """So many bytes go."""
        self._ready_ns = max(self._ready_ns, now_ns) + count * NS // self._rate


class Usage:
    """What was used of some limits."""

    __slots__ = ("_buckets", "_limits", "_quotas", "bytes", "connections", "open")

    def __init__(self, limits: Limits) -> None:
        self.bytes = dict.fromkeys(Way, 0)
        self.connections = 0
        self.open = 0
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Other limits, for what was used and what will be."""
        rates = {Way.OUT: limits.rate_out, Way.IN: limits.rate_in}
        self._limits = limits
        self._quotas = {Way.OUT: limits.bytes_out, Way.IN: limits.bytes_in}
        self._buckets = {way: Bucket(rate, limits.burst) for way, rate in rates.items() if rate}

    @property
    def used(self) -> Used:
        """So much."""
        return self.bytes[Way.OUT], self.bytes[Way.IN], self.connections

    @property
    def admits(self) -> bool:
        """Whether there may be one more flow."""
        limits = self._limits
        return (limits.connections is None or self.connections < limits.connections) and (
            limits.open is None or self.open < limits.open
        )

    def begin(self) -> None:
        """There is one more flow."""
        self.connections += 1
        self.open += 1

    def has_room(self, way: Way, count: int) -> bool:
        """Whether the quota has so many bytes left."""
        quota = self._quotas[way]
        return quota is None or self.bytes[way] + count <= quota

    @property
    def is_paced(self) -> bool:
        """There is a rate."""
        return bool(self._buckets)

    def wait_ns(self, way: Way, now_ns: int) -> int:
        """How long bytes have to wait."""
        bucket = self._buckets.get(way)
        return bucket.wait_ns(now_ns) if bucket else 0

    def take(self, way: Way, count: int, now_ns: int) -> None:
        """So many bytes move."""
        self.bytes[way] += count
        if self._buckets and (bucket := self._buckets.get(way)):
            bucket.take(count, now_ns)
