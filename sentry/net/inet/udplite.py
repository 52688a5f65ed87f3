"""UDP-Lite: UDP whose checksum covers only the start of a datagram. udplite(7), RFC 3828.

There is no checksum on our loopback: there a program sees ports of its own, and that a receiver may
refuse datagrams that are covered too little. By a link checksums are made and looked at
(`leaving.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sentry.abi.socket import IPPROTO_UDPLITE
from sentry.errors import EIO
from sentry.net.inet.udp import HEADER_SIZE, UdpSocket
from sentry.net.inet.udp_options import COVERAGE, UDPLITE

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.packet import SendOptions
    from sentry.net.packets import Packet
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location


class UdpLiteSocket(UdpSocket):
    """A datagram socket of UDP-Lite."""

    __slots__ = ("wanted",)
    options_known: ClassVar = UDPLITE
    snmp_row: ClassVar = "UdpLite"

    def __init__(self, location: Location, family: int, stack: Stack) -> None:
        super().__init__(location, family, IPPROTO_UDPLITE, stack)
        self.wanted: int | None = None
        """What UDPLITE_RECV_CSCOV asks for."""

    def _send(self, data: bytes, endpoint: Endpoint, options: SendOptions) -> None:
        if self.segment(options):
            raise EIO("UDP_SEGMENT is for UDP")
        super()._send(data, endpoint, options)

    def seal(self, packet: Packet) -> None:
        """How much is covered; 0 is everything, as in udplite_sender_cscov()."""
        covered = self.udp_options.get(COVERAGE.UDPLITE_SEND_CSCOV, 0)
        packet.coverage = covered if covered < len(packet.data) + HEADER_SIZE else 0

    def deliver(self, packet: Packet) -> bool:
        """A datagram comes. udp_queue_rcv_one_skb(): one that is covered too little is dropped."""
        wanted = self.wanted
        if wanted is not None and packet.coverage and (not wanted or packet.coverage < wanted):
            return False
        return super().deliver(packet)
