"""Fragments of IP that a program made itself: the first one has ports, the others follow it.

What the stack cuts was judged when it was whole. RFC 791, 1858, 3128, 8200 (4.5).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from sentry.net.egress.flows import SECOND, TCP, Flow

MAX_KNOWN: Final = 1024
HELD_NS: Final = 30 * SECOND
"""As net.ipv4.ipfrag_time: a receiver puts nothing together that is older."""
HEADER: Final = {TCP: 20}
OTHER_HEADER: Final = 8
"""Bytes that only a first fragment may have, in which it says what it is."""


class Datagram(NamedTuple):
    """What fragments of one packet have in common."""

    protocol: int
    source: bytes
    target: bytes
    ident: int


class Fragments:
    """Packets whose first fragment has left."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Datagram, tuple[Flow, int]] = OrderedDict()

    def first(self, datagram: Datagram, flow: Flow, now_ns: int) -> None:
        """The first fragment leaves, with a whole header, and belongs to this flow."""
        self._flows[datagram] = (flow, now_ns)
        self._flows.move_to_end(datagram)
        if len(self._flows) > MAX_KNOWN:
            self._flows.popitem(last=False)

    def later(self, datagram: Datagram, offset: int, now_ns: int) -> Flow | None:
        """The flow of a fragment that begins at byte `offset`; None if it goes nowhere.

        That is one before the first, and one that would put another header over the first's.
        """
        flow, since_ns = self._flows.get(datagram, (None, 0))
        if flow is None or now_ns - since_ns > HELD_NS or not flow.open:
            self._flows.pop(datagram, None)
            return None
        return flow if offset >= HEADER.get(datagram.protocol, OTHER_HEADER) else None
