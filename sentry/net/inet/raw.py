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
    IPPROTO_RAW,
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
    EPIPE,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint
from sentry.net.inet.datagram import DatagramSocket
from sentry.net.inet.packet import Packet, parse_send

if TYPE_CHECKING:
    from sentry.net.socket import Ancillary
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location
    from sentry.vfs.file import Caller, Source

MAX_PACKET: Final = 65535
ICMP_HEADER: Final = 8
IP_HEADER: Final = 20
ECHO: Final = {AF_INET: (abi.ICMP_ECHO, abi.ICMP_ECHOREPLY), AF_INET6: (128, 129)}
"""(request, reply) by family."""


class RawSocket(DatagramSocket):
    """SOCK_RAW, and SOCK_DGRAM of ICMP."""

    __slots__ = ("_icmp_filter", "_includes_header")

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack, uid: int
    ) -> None:
        super().__init__(location, family, kind, protocol, stack, uid)
        self._open()
        self._includes_header = protocol == IPPROTO_RAW
        self._icmp_filter = bytes(32 if family == AF_INET6 else 4)

    @property
    def is_ping(self) -> bool:
        """A ping socket."""
        return self.kind == SOCK_DGRAM

    async def bind(self, caller: Caller, raw: bytes) -> None:
        """bind(2): the address to listen at; of a ping socket also its identifier."""
        if self.is_ping:
            await super().bind(caller, raw)
            return
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
        """Where sendto leads."""
        return self.route(raw)

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
        if self.write_shut:
            raise EPIPE("shut down")
        data = bytes(source.get(size))
        if self.is_ping:
            if data[:2] != bytes([ECHO[self.family][0], 0]):
                raise EINVAL("only echo requests")
            self.need_port()
            data = data[:4] + struct.pack(">H", self.local.port) + data[6:]
        if self._includes_header:
            if size < IP_HEADER:
                raise EINVAL("no IP header")
            data = data[(data[0] & 15) * 4 :]
        sender = Endpoint(options.source or self.source_for(endpoint).ip, 0)
        hops = self.ip_options[abi.IP_TTL] if endpoint.is_v4 else 64
        packet = Packet(data, sender, Endpoint(endpoint.ip, 0), options.ttl or hops)
        deliver(self.stack, packet, self.family, self.protocol)
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
        return super().family_option(caller, level, name, size)

    def protocol_option(self, level: int, name: int) -> bytes:
        """Nothing more."""
        raise ENOPROTOOPT(f"level {level}")


def deliver(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """To every raw socket that wants it; an echo request is answered."""
    for sock in list(stack.sockets):
        if not isinstance(sock, RawSocket) or not sock.refs or sock.family != family:
            continue
        if sock.accepts(packet, protocol):
            sock.deliver(packet)
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


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
