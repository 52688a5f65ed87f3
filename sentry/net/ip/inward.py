"""Packets of ours that are for us, as by Linux's loopback: net/core/dev.c, drivers/net/loopback.c.

Sockets of a namespace reach each other without packets. Only what was to leave, and whose target
rules have changed to an address of ours, comes this way, and what answers it; in a later turn, and
some in each, for one brings about the next.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from sentry.errors import EMSGSIZE
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.seam import Arrived, Path

if TYPE_CHECKING:
    from sentry.net.ip.seam import Outgoing

BATCH: Final = 16
"""Packets in a turn."""
MOST_PACKETS, MOST_BYTES = 1024, 4 << 20
"""That wait; more are lost."""
MTU: Final = 65535


class Layer(Protocol):
    """An IP layer, as this module needs it."""

    counters: Counter[str]

    def deliver(self, now_ns: int, packet: Arrived) -> None: ...

    def rest(self, now_ns: int) -> None: ...


class Inward:
    """Of one layer."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._waiting: deque[Arrived] = deque()
        self._bytes = 0
        self._is_due = False
        self.soon: Callable[[], None] = lambda: None
        """`go_on` is to be called, once."""

    def way(self, out: Outgoing) -> tuple[Path, bytes]:
        """Of one whose target is ours, and from where it comes."""
        source = out.source or out.target
        return Path(MTU, source, LOOPBACK_INDEX, out.target), source

    def take(self, arrived: Arrived) -> None:
        """One that has got out."""
        size = len(arrived.payload)
        if len(self._waiting) >= MOST_PACKETS or self._bytes + size > MOST_BYTES:
            self._layer.counters["Ip.OutDiscards" if arrived.is_v4 else "Ip6OutDiscards"] += 1
            return
        self._waiting.append(arrived)
        self._bytes += size
        self._call()

    def go_on(self, now_ns: int) -> None:
        """Some of them come in."""
        self._is_due = False
        for _ in range(min(BATCH, len(self._waiting))):
            arrived = self._waiting.popleft()
            self._bytes -= len(arrived.payload)
            self._layer.deliver(now_ns, arrived)
        self._layer.rest(now_ns)
        if self._waiting:
            self._call()

    def _call(self) -> None:
        if not self._is_due:
            self._is_due = True
            self.soon()


def as_it_comes(out: Outgoing, source: bytes) -> Arrived:
    """One that no rules have seen. Raises: EMSGSIZE."""
    return Arrived(
        out.protocol, source, out.target, memoryview(b"".join(out.pieces)), out.tos, out.ttl,
        LOOPBACK_INDEX, header_of(out, source), checksum_is_good=out.offload.checksum_at >= 0,
    )  # fmt: skip


def header_of(out: Outgoing, source: bytes) -> bytes:
    """The header with which it would go. Raises: EMSGSIZE."""
    size = sum(map(len, out.pieces))
    if len(out.target) == 16:
        if size > ipv6.MAX_PAYLOAD:
            raise EMSGSIZE("larger than any packet")
        return ipv6.build(
            ipv6.Header(out.tos, 0, size, out.protocol, out.ttl, source, out.target)
        )
    if size > ipv4.MAX_SIZE - ipv4.HEADER_SIZE:
        raise EMSGSIZE("larger than any packet")
    return ipv4.build(ipv4.Header(
        ipv4.HEADER_SIZE, ipv4.HEADER_SIZE + size, out.tos, 0, ipv4.DONT_FRAGMENT, out.ttl,
        out.protocol, source, out.target,
    ))  # fmt: skip
