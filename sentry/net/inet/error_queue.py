"""What IP_RECVERR and IPV6_RECVERR keep of errors, also of what is too large. ip(7), ipv6(7).

The option of the family in which a packet travels counts: of a mapped address IP_RECVERR, on an
IPv6 socket too. How an entry looks depends on the family of the socket.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from sentry.abi import socket as abi
from sentry.abi.socket import AF_INET, IPPROTO_IP, IPPROTO_IPV6
from sentry.errors import EMSGSIZE
from sentry.net.inet import address
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.inet.wire import INTERNET_CONTROL
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.inet.datagram import DatagramSocket
    from sentry.net.ip.seam import Failure
    from sentry.net.stamps import Record

PORTS: Final = 4
"""Bytes of both ports in front of a packet."""


class SocketError(Struct, frozen=True):
    """struct sock_extended_err, with the bytes and the address that come with it."""

    number: int
    target: Endpoint
    data: bytes = b""
    origin: int = abi.SO_EE_ORIGIN_LOCAL
    kind: int = 0
    code: int = 0
    info: int = 0
    stamp_ns: int = field(default_factory=time.time_ns)
    offender: bytes = b""
    """16 bytes: who said it, if not the target."""

    def complaint(self, receiver: Endpoint) -> Packet:
        """The packet that brought it."""
        tos = INTERNET_CONTROL if self.target.is_v4 else 0
        return Packet(self.data, self.target, receiver, tos=tos, stamp_ns=self.stamp_ns)

    @property
    def is_icmp(self) -> bool:
        """Somebody else said it: SO_ERROR says it too."""
        return self.origin in (abi.SO_EE_ORIGIN_ICMP, abi.SO_EE_ORIGIN_ICMP6)

    def record(self, family: int) -> Record:
        """The control message, with who complained."""
        body = struct.pack(
            "<IBBBBII", self.number, self.origin, self.kind, self.code, 0, self.info, 0
        )
        offender = address.pack(Endpoint(self.offender or self.target.ip, 0), family)
        body += offender if self.is_icmp else bytes(len(offender))
        if family == AF_INET:
            return IPPROTO_IP, abi.IP_RECVERR, body
        return IPPROTO_IPV6, abi.IPV6_RECVERR, body


def unreachable(packet: Packet, number: int) -> SocketError:
    """An ICMP `port unreachable` has come back."""
    if packet.target.is_v4:
        origin, kind, code = abi.SO_EE_ORIGIN_ICMP, 3, 3
    else:
        origin, kind, code = abi.SO_EE_ORIGIN_ICMP6, 1, 4
    return SocketError(number, packet.target, packet.data, origin, kind, code)


def reported(failure: Failure, target: Endpoint, data: bytes) -> SocketError:
    """A complaint that came by a link."""
    origin = abi.SO_EE_ORIGIN_ICMP if target.is_v4 else abi.SO_EE_ORIGIN_ICMP6
    who = failure.offender
    return SocketError(
        failure.number, target, data, origin, failure.kind, failure.code, failure.info,
        offender=MAPPED + who if len(who) == 4 else who,
    )  # fmt: skip


def wants_errors(sock: DatagramSocket, target: Endpoint) -> bool:
    """IP_RECVERR or IPV6_RECVERR, by where the packet goes."""
    if target.is_v4:
        return bool(sock.ip_options[abi.IP_RECVERR])
    return bool(sock.ipv6_options[abi.IPV6_RECVERR])


def too_large(sock: DatagramSocket, target: Endpoint, mtu: int) -> None:
    """ip_local_error(), ipv6_local_error(). Raises: EMSGSIZE."""
    if target.is_v4:
        target = Endpoint(target.ip, sock.remote.port if sock.remote is not None else 0)
    if wants_errors(sock, target):
        sock.add_error(SocketError(EMSGSIZE.number, target, info=mtu))
    raise EMSGSIZE(f"the MTU is {mtu}")


def port_in(data: bytes) -> int | None:
    """Where UDP and TCP have the port that a packet goes to."""
    return int.from_bytes(data[2:4], "big") if len(data) >= PORTS else None


def path_mtu_record(target: Endpoint, mtu: int) -> Record:
    """IPV6_PATHMTU: struct ip6_mtuinfo."""
    where = address.pack(Endpoint(target.ip, 0), abi.AF_INET6)
    return IPPROTO_IPV6, abi.IPV6_PATHMTU, where + struct.pack("<I", mtu)
