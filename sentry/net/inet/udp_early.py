"""Datagrams that go straight from a frame to their socket: udp_v4_early_demux().

Who gets one is asked of the table of ports each time, since sockets come and go; what is kept is
that a packet from there to here has nobody else to ask.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import IPPROTO_UDP
from sentry.net.inet.udp import receiver_of
from sentry.net.link.early import key_of
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Arrived
    from sentry.net.link.early import Receiver, Segment
    from sentry.net.stack import Stack

MOST: Final = 256
"""Pairs of ends that are known: a ceiling of ours. The oldest gives way."""


class Known:
    """Two ends between which datagrams have come."""

    __slots__ = ("_index", "_source", "_stack", "_target")

    def __init__(self, stack: Stack, datagram: Packet) -> None:
        self._stack = stack
        self._source: Endpoint = datagram.source
        self._target: Endpoint = datagram.target
        self._index = datagram.index

    def early(self, now_ns: int, found: Segment, payload: bytes) -> bool:
        """One more. False: nobody has the port any more, which its sender is told."""
        datagram = Packet(
            payload, self._source, self._target, found[12], found[2], index=self._index
        )
        receiver = receiver_of(self._stack.ports_of(IPPROTO_UDP), datagram)
        if receiver is None:
            return False
        receiver.deliver(datagram)
        return True


class KnownEnds:
    """Those of a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._all: deque[tuple[dict[bytes, Receiver], bytes, Known]] = deque()

    def add(self, layer: IpLayer, packet: Arrived, datagram: Packet) -> None:
        """A socket has got this one, which came in this packet."""
        table = layer.early_of(packet)
        if table is None:
            return
        ports = bytes(packet.payload[:4])
        key = key_of(packet.source, packet.target, ports, IPPROTO_UDP)
        if key in table:
            return
        table[key] = made = Known(self._stack, datagram)
        self._all.append((table, key, made))
        if len(self._all) > MOST:
            table, key, oldest = self._all.popleft()
            if table.get(key) is oldest:
                del table[key]
