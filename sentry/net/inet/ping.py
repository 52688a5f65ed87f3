"""Ping sockets, SOCK_DGRAM of ICMP: icmp(7), net/ipv4/ping.c, net/ipv6/ping.c.

One has a port, which is the identifier of its requests, and sees only replies to it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import socket as abi
from sentry.abi.socket import AF_INET, AF_INET6, MSG_OOB
from sentry.errors import (
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EDESTADDRREQ,
    EINVAL,
    EMSGSIZE,
    EOPNOTSUPP,
    Errno,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint, is_group
from sentry.net.inet.datagram import DatagramSocket
from sentry.net.inet.inetsocket import SOCKADDR_IN6_SIZE, InetSocket
from sentry.net.inet.packet import Seen
from sentry.net.inet.raw import ECHO_TYPES, ICMP_CHECKSUM_AT, ICMP_HEADER, RawSocket
from sentry.net.inet.raw_options import PING
from sentry.net.inet.sizes import check_size
from sentry.net.interfaces import LENGTH_MAX
from sentry.net.ioctls import SOCKETS

if TYPE_CHECKING:
    from sentry.net.message import Ancillary
    from sentry.net.packets import Packet
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Result, Source
    from sentry.vfs.location import Location

EXTENDED_ECHO: Final = {AF_INET: abi.ICMP_EXT_ECHO, AF_INET6: abi.ICMPV6_EXT_ECHO_REQUEST}
"""RFC 8335: may be sent, and nobody answers (net.ipv4.icmp_echo_enable_probe)."""


class PingSocket(RawSocket):
    """An open one."""

    __slots__ = ()
    options_known: ClassVar = PING
    requests: ClassVar = SOCKETS
    is_ping = True
    tells_path_mtu: ClassVar = False

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack
    ) -> None:
        super().__init__(location, family, kind, protocol, stack)
        self.local = Endpoint(self.local.ip, 0)
        self.checksum_at = ICMP_CHECKSUM_AT

    # --- addresses

    def bind(self, caller: Caller, raw: bytes) -> Result:
        """bind(2): the address to listen at, and the identifier."""
        if self.family == AF_INET6 and len(raw) < SOCKADDR_IN6_SIZE:
            raise EINVAL("sockaddr_in6")
        self._check_bind(address.parse(raw, self.family))
        InetSocket.bind(self, caller, raw)
        self._comes_first()
        return 0

    def _check_bind(self, wanted: Endpoint) -> None:
        """ping_check_bind_addr(): no group, and no mapped address. EADDRNOTAVAIL, EINVAL."""
        if self.family == AF_INET and is_group(wanted.ip):
            raise EADDRNOTAVAIL("a group")
        if self.family == AF_INET6 and (wanted.is_v4 or address.is_multicast(wanted.ip)):
            raise EINVAL("no unicast address")

    def need_port(self) -> None:
        """An identifier that nobody has."""
        if not self.has_port:
            InetSocket.need_port(self)
            self._comes_first()

    def _comes_first(self) -> None:
        """Of several sockets with an identifier the last one gets the replies: ping_lookup()."""
        if self.stack.raw.pop(self, self) is None:
            self.stack.raw[self] = None

    def drop_port(self) -> None:
        """The identifier is free."""
        InetSocket.drop_port(self)

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC."""
        self.forget_remote()

    # --- sending

    def _endpoint(self, raw: bytes | None) -> Endpoint:
        """Where a request goes."""
        if raw is None:
            if self.remote is None:
                raise EDESTADDRREQ("no destination")
            return self.remote
        if self.family == AF_INET:
            if address.is_unspec(raw) and len(raw) >= 16:
                raise EAFNOSUPPORT("family")
            return self.parsed(raw)
        if len(raw) < SOCKADDR_IN6_SIZE:
            raise EINVAL("sockaddr_in6")
        wanted = address.parse(raw, AF_INET6)
        if wanted.is_v4 or (address.needs_scope(wanted.ip) and not (
            self.device_of(raw) or self.sticky_index(wanted)
        )):
            raise EINVAL("mapped, or an address of which link?")
        return self.parsed(raw)

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2): the header of ICMP is looked at first. ping_common_sendmsg()."""
        size = source.count
        if size > LENGTH_MAX:
            raise EMSGSIZE(f"{size} bytes")
        if size < ICMP_HEADER:
            raise EINVAL("no ICMP header")
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        data = bytes(source.get(size))
        if data[0] not in (ECHO_TYPES[self.family][0], EXTENDED_ECHO[self.family]) or data[1]:
            raise EINVAL("only echo requests")
        endpoint, options = self.way_of(target, ancillary)
        options.sender = caller
        self.check_broadcast(endpoint)
        self.need_port()
        check_size(self, size, self.seen_target(endpoint, data), options)
        self.check_may_send()
        data = data[:4] + struct.pack(">H", self.local.port) + data[6:]
        self.send_packet(data, endpoint, options)
        return size

    # --- receiving

    def accepts(self, packet: Packet, protocol: int) -> bool:
        """A reply with its identifier, whoever sends it; a connected one, too. ping_lookup()."""
        data = packet.data
        if self.protocol != protocol or len(data) < ICMP_HEADER:
            return False
        if data[0] != ECHO_TYPES[self.family][1] or data[4:6] != struct.pack(">H", self.local.port):
            return False
        if self.device not in (0, packet.index):
            return False
        return self.local.is_any or self.local.ip == packet.target.ip

    def shown(self, packet: Packet) -> bytes:
        """Without an IP header."""
        return packet.data

    def seen(self, packet: Packet) -> Seen:
        """The address of ours is not looked for: ping_rcv()."""
        return super().seen(packet)._replace(local=bytes(4))

    def no_getter(self, level: int, name: int) -> Errno:
        """There is no level of its own."""
        return DatagramSocket.no_getter(self, level, name)
