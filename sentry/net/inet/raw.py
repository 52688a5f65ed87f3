"""Raw sockets and ping sockets on the loopback: raw(7), icmp(7), net/ipv4/ping.c.

Echo requests are answered here, as Linux answers them. A ping socket (SOCK_DGRAM of ICMP) has a
port, which is the identifier of its requests, and sees only replies to it; a raw socket sees every
packet of its protocol, for IPv4 with the IP header.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IPV6,
    IPPROTO_RAW,
    IPPROTO_UDP,
    MSG_OOB,
    SOCK_DGRAM,
)
from sentry.errors import (
    EADDRNOTAVAIL,
    EDESTADDRREQ,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENOPROTOOPT,
    EOPNOTSUPP,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint
from sentry.net.inet.datagram import DatagramSocket
from sentry.net.inet.packet import Packet, parse_send
from sentry.net.inet.udp import receiver_of
from sentry.net.inet.wire import checksum, show_raw

if TYPE_CHECKING:
    from sentry.net.socket import Ancillary
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location
    from sentry.vfs.file import Caller, Source

MAX_PACKET: Final = 65535
ICMP_HEADER: Final = 8
IP_HEADER: Final = 20
UDP_HEADER: Final = 8
ICMP6_CHECKSUM_AT: Final = 2
ECHO: Final = {AF_INET: (abi.ICMP_ECHO, abi.ICMP_ECHOREPLY), AF_INET6: (128, 129)}
"""(request, reply) by family."""


class RawSocket(DatagramSocket):
    """SOCK_RAW, and SOCK_DGRAM of ICMP."""

    __slots__ = ("_checksum_at", "_icmp_filter", "_includes_header")

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack, uid: int
    ) -> None:
        super().__init__(location, family, kind, protocol, stack, uid)
        self._open()
        self._includes_header = protocol == IPPROTO_RAW
        self._icmp_filter = bytes(32 if family == AF_INET6 else 4)
        self._checksum_at = ICMP6_CHECKSUM_AT if protocol == IPPROTO_ICMPV6 else -1
        stack.raw.add(self)

    @property
    def is_ping(self) -> bool:
        """A ping socket."""
        return self.kind == SOCK_DGRAM

    async def bind(self, caller: Caller, raw: bytes) -> None:
        """bind(2): the address to listen at; of a ping socket also its identifier."""
        if self.is_ping:
            await super().bind(caller, raw)
            return
        if self.family == AF_INET:  # raw_bind() does not look at the family
            raw = struct.pack("<H", AF_INET) + raw[2:]
        wanted = address.parse(raw, self.family)
        if not self.is_local(wanted.ip) and not address.is_multicast(wanted.ip):
            raise EADDRNOTAVAIL("no such address here")
        self.local = Endpoint(wanted.ip, self.protocol)

    def need_port(self) -> None:
        """Only ping sockets have one."""
        if self.is_ping:
            super().need_port()

    def drop_port(self) -> None:
        """Only ping sockets have one."""
        if self.is_ping:
            super().drop_port()

    async def connect(self, caller: Caller, raw: bytes, nonblock: bool) -> None:
        """connect(2)."""
        if len(raw) < 2:
            raise EINVAL("address")
        if address.is_unspec(raw):
            self.remote = None
            return
        target = self.route(raw)
        self.need_port()
        self.remote = target
        if self.local.is_any:
            self.local = Endpoint(self.source_for(target).ip, self.local.port)

    async def target(self, caller: Caller, raw: bytes) -> Any:
        """Where sendto leads; the port of an IPv6 address is the protocol, or nothing."""
        target = self.route(raw)
        raw6 = self.family == AF_INET6 and not self.is_ping and self.protocol != IPPROTO_RAW
        if raw6 and target.port not in (0, self.protocol):
            raise EINVAL("protocol")
        return target

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2)."""
        size = source.count
        if size > MAX_PACKET:
            raise EMSGSIZE(f"{size} bytes")
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        if self.is_ping and size < ICMP_HEADER:
            raise EINVAL("no ICMP header")
        self.take_error()
        options = parse_send(self, ancillary)
        endpoint: Endpoint | None = target or self.remote
        if endpoint is None:
            raise EDESTADDRREQ("no destination")
        data = bytes(source.get(size))
        if self.is_ping:
            if data[:2] != bytes([ECHO[self.family][0], 0]):
                raise EINVAL("only echo requests")
            self.need_port()
            data = data[:4] + struct.pack(">H", self.local.port) + data[6:]
        sender = Endpoint(options.source or self.source_for(endpoint).ip, 0)
        hops = self.ip_options[abi.IP_TTL] if endpoint.is_v4 else 64
        packet = Packet(data, sender, Endpoint(endpoint.ip, 0), options.ttl or hops)
        if not self._includes_header:
            deliver(self.stack, packet, self.family, self.protocol)
            return size
        if size < IP_HEADER:
            raise EINVAL("no IP header")
        packet.data = data[(data[0] & 15) * 4 :]
        packet.tos, packet.ttl = data[1], data[8]
        deliver(self.stack, packet, self.family, data[9])
        return size

    def accepts(self, packet: Packet, protocol: int) -> bool:
        """Whether a packet is for this socket."""
        if self.protocol != protocol or (self.is_ping and not self._is_reply(packet)):
            return False
        if self.remote is not None and self.remote.ip != packet.source.ip:
            return False
        if not self.local.is_any and self.local.ip != packet.target.ip:
            return False
        return self.is_ping or not self._is_filtered(packet)

    def _is_reply(self, packet: Packet) -> bool:
        if len(packet.data) < ICMP_HEADER or packet.data[0] != ECHO[self.family][1]:
            return False
        return packet.data[4:6] == struct.pack(">H", self.local.port)

    def _is_filtered(self, packet: Packet) -> bool:
        """ICMP_FILTER, ICMP6_FILTER: a bit for each type that is not wanted."""
        if self.protocol not in (IPPROTO_ICMP, IPPROTO_ICMPV6) or not packet.data:
            return False
        kind = packet.data[0]
        if kind >= len(self._icmp_filter) * 8:
            return False
        bits = int.from_bytes(self._icmp_filter, "little")
        return bool(bits >> kind & 1)

    def deliver(self, packet: Packet) -> bool:
        """A packet comes, through the filter."""
        if self.filter is not None and not self.filtered(self.shown(packet)):
            return False
        return super().deliver(packet)

    def shown(self, packet: Packet) -> bytes:
        """A raw IPv4 socket sees the IP header."""
        if self.is_ping or self.family == AF_INET6:
            return packet.data
        total = IP_HEADER + len(packet.data)
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, packet.tos, total & 0xFFFF, 0, 0x4000, packet.ttl,
            self.protocol, 0, packet.source.ip[12:], packet.target.ip[12:],
        )  # fmt: skip
        return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + packet.data

    # --- options

    def set_family_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """IP_HDRINCL, ICMP_FILTER, then the common ones."""
        if (level, name) == (0, abi.IP_HDRINCL) and not self.is_ping:
            self._includes_header = any(value)
        elif level == abi.SOL_RAW and name == 1 and self.protocol == IPPROTO_ICMP:
            self._icmp_filter = value[:4].ljust(4, b"\0")
        elif level == IPPROTO_ICMPV6 and name == 1 and self.protocol == IPPROTO_ICMPV6:
            self._icmp_filter = value[:32].ljust(32, b"\0")
        elif level == abi.SOL_RAW and self.family == AF_INET6 and name == abi.IPV6_CHECKSUM:
            if len(value) < 4:
                raise EFAULT("int expected")
            self._checksum_at = struct.unpack_from("<i", value)[0]
        else:
            super().set_family_option(caller, level, name, value)

    def family_option(self, caller: Caller, level: int, name: int, size: int) -> bytes:
        """The same."""
        if (level, name) == (0, abi.IP_HDRINCL) and not self.is_ping:
            return struct.pack("<i", int(self._includes_header))[:size]
        if level in (abi.SOL_RAW, IPPROTO_ICMPV6) and name == 1:
            if self.protocol not in (IPPROTO_ICMP, IPPROTO_ICMPV6):
                raise EOPNOTSUPP("not ICMP")
            return self._icmp_filter[:size]
        raw6 = self.family == AF_INET6 and not self.is_ping
        if raw6 and name == abi.IPV6_CHECKSUM and level in (abi.SOL_RAW, IPPROTO_IPV6):
            return struct.pack("<i", self._checksum_at)[:size]
        return super().family_option(caller, level, name, size)

    def protocol_option(self, level: int, name: int) -> bytes:
        """Nothing more."""
        raise ENOPROTOOPT(f"level {level}")


def deliver(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """To every raw socket that wants it, to UDP; an echo request is answered."""
    show_raw(stack, packet, family, protocol)
    if protocol == IPPROTO_UDP:
        _deliver_udp(stack, packet)
        return
    data = packet.data
    wanted = IPPROTO_ICMP if family == AF_INET else IPPROTO_ICMPV6
    if protocol != wanted or len(data) < ICMP_HEADER or data[0] != ECHO[family][0]:
        return
    answer = bytes([ECHO[family][1], 0, 0, 0]) + data[4:]
    answer = answer[:2] + struct.pack(">H", checksum(answer)) + answer[4:]
    reply = Packet(answer, packet.target, packet.source, 64)
    stack.counters["Icmp.InEchos"] += 1
    stack.counters["Icmp.OutEchoReps"] += 1
    deliver(stack, reply, family, protocol)


def _deliver_udp(stack: Stack, packet: Packet) -> None:
    """A datagram that a program made itself, header and all."""
    if len(packet.data) < UDP_HEADER:
        return
    source, target, size = struct.unpack_from(">HHH", packet.data)
    if not UDP_HEADER <= size <= len(packet.data):
        return
    inner = Packet(
        packet.data[UDP_HEADER:size],
        Endpoint(packet.source.ip, source),
        Endpoint(packet.target.ip, target),
        packet.ttl,
        packet.tos,
    )
    receiver = receiver_of(stack.ports_of(IPPROTO_UDP), inner)
    if receiver is not None:
        receiver.deliver(inner)
