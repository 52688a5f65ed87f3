"""UDP-Lite: UDP whose checksum covers only the start of a datagram. udplite(7), RFC 3828.

There is no checksum on our loopback; what a program sees are ports of its own, and that a receiver
may refuse datagrams that are covered too little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.socket import IPPROTO_UDPLITE
from sentry.errors import EIO
from sentry.net.inet.udp import COVERAGE_OPTIONS, HEADER_SIZE, UdpSocket

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.packet import Packet, SendOptions
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location

UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV = COVERAGE_OPTIONS
"""net/udplite.h, which is not among the headers for programs."""
MOST: Final = 0xFFFF


class UdpLiteSocket(UdpSocket):
    """A datagram socket of UDP-Lite."""

    __slots__ = ("_wanted",)
    snmp_row = "UdpLite"

    def __init__(self, location: Location, family: int, stack: Stack, uid: int) -> None:
        super().__init__(location, family, IPPROTO_UDPLITE, stack, uid)
        self.udp_options |= dict.fromkeys(COVERAGE_OPTIONS, 0)
        self._wanted: int | None = None
        """What UDPLITE_RECV_CSCOV asks for."""

    def _send(self, data: bytes, endpoint: Endpoint, options: SendOptions) -> None:
        if self.segment(options):
            raise EIO("UDP_SEGMENT is for UDP")
        super()._send(data, endpoint, options)

    def seal(self, packet: Packet) -> None:
        """How much is covered; 0 is everything, as in udplite_sender_cscov()."""
        covered = self.udp_options[UDPLITE_SEND_CSCOV]
        packet.coverage = covered if covered < len(packet.data) + HEADER_SIZE else 0

    def deliver(self, packet: Packet) -> bool:
        """A datagram comes. udp_queue_rcv_one_skb(): one that is covered too little is dropped."""
        wanted = self._wanted
        if wanted is not None and packet.coverage and (not wanted or packet.coverage < wanted):
            return False
        return super().deliver(packet)

    def set_number(self, name: int, number: int) -> None:
        """The coverages are sizes with the header."""
        if name not in COVERAGE_OPTIONS:
            super().set_number(name, number)
            return
        number = 0 if not number else HEADER_SIZE if number < HEADER_SIZE else min(number, MOST)
        self.udp_options[name] = number
        if name == UDPLITE_RECV_CSCOV:
            self._wanted = number
