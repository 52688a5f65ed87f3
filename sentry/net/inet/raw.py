"""Raw sockets on the loopback: raw(7). What is sent, and echo requests, which are answered here.

A raw socket sees every packet of its protocol, for IPv4 with the IP header. Ping sockets are in
`ping.py`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import socket as abi
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_RAW,
    IPPROTO_UDP,
    MSG_MORE,
    MSG_OOB,
)
from sentry.errors import (
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EDESTADDRREQ,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENETUNREACH,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EPIPE,
    Errno,
)
from sentry.net.inet import address
from sentry.net.inet.address import ANY4, ANY6, Endpoint, is_group
from sentry.net.inet.datagram import DatagramSocket
from sentry.net.inet.error_queue import port_in, too_large
from sentry.net.inet.packet import Seen, SendOptions, parse_send
from sentry.net.inet.raw_header import IP6_HEADER, IP_HEADER, parse4, parse6
from sentry.net.inet.raw_options import RAW4, RAW6, is_foreign
from sentry.net.inet.sizes import check_size
from sentry.net.inet.udp import receiver_of
from sentry.net.inet.wire import (
    checksum,
    checksum6,
    checksum_udp,
    seen_by_filter,
    show,
    show_raw,
    with_header,
)
from sentry.net.interfaces import LENGTH_MAX
from sentry.net.packets import Packet
from sentry.net.sysctls import ignores_echo

if TYPE_CHECKING:
    from sentry.net.message import Ancillary, Received
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Dest, Result, Source
    from sentry.vfs.location import Location

ICMP_HEADER: Final = 8
UDP_HEADER: Final = 8
ICMP_CHECKSUM_AT: Final = 2
ICMP_TYPE_AND_CODE: Final = 2
LEAST_ICMP: Final = {(AF_INET, IPPROTO_ICMP): 8, (AF_INET6, IPPROTO_ICMPV6): 4}
"""Raw sockets of ICMP do not see shorter packets."""
ECHO_TYPES: Final = {AF_INET: (abi.ICMP_ECHO, abi.ICMP_ECHOREPLY), AF_INET6: (128, 129)}
"""(request, reply) by family."""


class RawSocket(DatagramSocket):
    """SOCK_RAW of IPv4, and what the others have of it."""

    __slots__ = ("_held", "checksum_at", "icmp_filter", "includes_header")
    options_known: ClassVar = RAW4
    is_ping = False
    goes_out: ClassVar = True

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack
    ) -> None:
        super().__init__(location, family, kind, protocol, stack)
        self._open()
        self.options.add(abi.SO_REUSEADDR)  # INET_PROTOSW_REUSE
        self.local = Endpoint(self.local.ip, protocol)
        self._held: tuple[bytes, Endpoint, SendOptions] | None = None
        """MSG_MORE: what waits for more, where it goes, and how."""
        self.includes_header = protocol == IPPROTO_RAW
        self.icmp_filter = bytes(32 if family == AF_INET6 else 4)
        self.checksum_at = ICMP_CHECKSUM_AT if protocol == IPPROTO_ICMPV6 else -1

    def opened(self) -> None:
        """It sees what others send, too."""
        super().opened()
        self.stack.raw[self] = None

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        self.stack.raw.pop(self, None)

    def bind(self, caller: Caller, raw: bytes) -> Result:
        """bind(2): the address to listen at. raw_bind(), rawv6_bind()."""
        if self.remote is not None:
            raise EINVAL("connected")
        if self.family == AF_INET:  # raw_bind() does not look at the family
            raw = struct.pack("<H", AF_INET) + raw[2:]
        elif raw[:2] != struct.pack("<H", AF_INET6):
            raise EINVAL("family")
        wanted = address.parse(raw, self.family)
        if address.needs_scope(wanted.ip) and not self.device_of(raw):
            raise EINVAL("an address of which link?")
        foreign = wanted.is_v4 != (self.family == AF_INET)
        if foreign or not (self.is_local(wanted.ip) or is_group(wanted.ip)):
            raise EADDRNOTAVAIL("no such address here")
        self.local = Endpoint(wanted.ip, self.protocol)
        return 0

    def need_port(self) -> None:
        """The protocol is its port."""

    def drop_port(self) -> None:
        """It has none to give back."""

    def connect(self, caller: Caller, raw: bytes, nonblock: bool) -> Result:
        """connect(2)."""
        if len(raw) < 2:
            raise EINVAL("address")
        if address.is_unspec(raw):
            self.disconnect()
            return 0
        self.need_port()  # whatever comes of it
        if self.family == AF_INET6 and raw[:2] != struct.pack("<H", AF_INET6):
            raise EAFNOSUPPORT("family")
        target = self.destination_to_connect(raw)
        self.remote = target
        if self.local.is_any:
            source = self.source_for(target, self.sticky_index(target))
            self.local = Endpoint(source.ip, self.local.port)
        return 0

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC: its name is forgotten, and it hears nothing any more."""
        self.remote = None
        self.numbers.pop(abi.SO_BINDTOIFINDEX, None)
        self.local = Endpoint(ANY4 if self.family == AF_INET else ANY6, 0)
        self.stack.raw.pop(self, None)

    def target(self, caller: Caller, raw: bytes) -> Any:
        """An address is looked at after the data: `_endpoint`."""
        return raw

    def leaves(self, target: Endpoint) -> bool:
        """Not what it has made itself, header and all."""
        return not self.includes_header and super().leaves(target)

    def _endpoint(self, raw: bytes | None) -> Endpoint:
        """Of an address; the port of an IPv6 address is the protocol, or nothing."""
        if raw is None or (not raw and self.family == AF_INET):
            if self.remote is None:
                raise EDESTADDRREQ("no destination")
            return self.remote
        if address.is_unspec(raw):
            raw = struct.pack("<H", self.family) + raw[2:]
        if self.family == AF_INET6:
            wanted = address.parse(raw, self.family)
            if self.protocol != IPPROTO_RAW and wanted.port not in (0, self.protocol):
                raise EINVAL("protocol")
            if wanted.is_v4:
                raise ENETUNREACH("no way for a mapped address")
        return self.parsed(raw)

    def way_of(
        self, raw: bytes | None, ancillary: Ancillary | None
    ) -> tuple[Endpoint, SendOptions]:
        """Where a packet goes, and how. Raises: what is wrong with either."""
        endpoint = self._endpoint(raw)
        scope = self.scope_of(raw) if raw and self.family == AF_INET6 else 0
        index = scope or (self.sticky_index(endpoint) if self.is_ping else 0)
        options = parse_send(self, ancillary, endpoint, index)
        if endpoint is not self.remote:
            endpoint = self.destination(endpoint, options.index)
        return endpoint, options

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2): raw_sendmsg(), rawv6_sendmsg()."""
        size = source.count
        if size > LENGTH_MAX and self.family == AF_INET:
            raise EMSGSIZE(f"{size} bytes")
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        endpoint, options = self.way_of(target, ancillary)
        options.sender = caller
        self.check_broadcast(endpoint)
        if self.includes_header:
            self._send_whole(source, endpoint, options)
            return size
        held, self._held = self._held, None
        before, first, options = held or (b"", endpoint, options)
        endpoint = endpoint if self.family == AF_INET else first  # of IPv4 the last address counts
        data = before
        is_icmp = self.protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6)
        if is_icmp and not before:
            if size < ICMP_TYPE_AND_CODE:
                raise EFAULT("no type of ICMP")
            data = bytes(source.get(ICMP_TYPE_AND_CODE))
        check_size(self, len(before) + size, self.seen_target(endpoint, data), options)
        data += bytes(source.get(source.count)) if source.count else b""
        if flags & MSG_MORE:
            self._held = data, endpoint, options
            return size
        self.send_packet(data, endpoint, options)
        return size

    def seen_target(self, endpoint: Endpoint, data: bytes) -> Endpoint:
        """The address that an error tells: type and code of ICMPv6 stand where a port would."""
        if self.protocol != IPPROTO_ICMPV6 or self.family != AF_INET6:
            return Endpoint(endpoint.ip, 0)
        return Endpoint(endpoint.ip, int.from_bytes(data[:ICMP_TYPE_AND_CODE], "big"))

    def check_may_send(self) -> None:
        """sock_alloc_send_pskb(). Raises: the pending error, EPIPE."""
        self.take_error()
        if self.write_shut:
            raise EPIPE("shut down")

    def send_packet(self, data: bytes, endpoint: Endpoint, options: SendOptions) -> None:
        """A packet goes out."""
        sender = Endpoint(options.source or self.source_for(endpoint, options.index).ip, 0)
        packet = Packet(data, sender, Endpoint(endpoint.ip, 0), *self._hops_and_class(options))
        self._fill_checksum(packet)
        link = self.group_link(endpoint, options.index)
        if link or self.leaves(endpoint):
            from sentry.net.inet import leaving  # noqa: PLC0415  few have links

            discover = leaving.discover_of(self, endpoint, options.dont_fragment)
            leaving.send_raw(self, packet, discover, link or options.index, options.sender)
            if not link or not leaving.loops_back(self, endpoint):
                return
        self._deliver(packet, self.protocol, options)

    def _deliver(self, packet: Packet, protocol: int, options: SendOptions) -> None:
        """Within the sandbox, as far as rules let it through."""
        passed: Packet | None = packet
        if self.stack.netfilter is not None and not is_group(packet.target.ip):
            from sentry.net.inet.raw_filtered import passed_of  # noqa: PLC0415  few have rules

            passed = passed_of(self, packet, protocol, options)
        if passed is not None:
            deliver(self.stack, passed, self.family, protocol)

    def _send_whole(self, source: Source, endpoint: Endpoint, options: SendOptions) -> None:
        """A packet with its own IP header: raw_send_hdrinc(), rawv6_send_hdrinc()."""
        size, mtu = source.count, self.stack.interfaces.loopback.mtu
        if size > mtu:
            too_large(self, Endpoint(endpoint.ip, 0), mtu)
        if size < (IP_HEADER if endpoint.is_v4 else IP6_HEADER):
            raise EINVAL("no IP header")
        self.check_may_send()
        data = bytes(source.get(size))
        if self.family == AF_INET6:
            whole = parse6(data)
        else:
            whole = parse4(self.stack, data, self.source_for(endpoint))
        if whole is not None:
            self._deliver(whole[0], whole[1], options)

    @property
    def sends_from_anywhere(self) -> bool:
        """Who makes headers writes what it wants into them."""
        return self.includes_header or super().sends_from_anywhere

    def seen(self, packet: Packet) -> Seen:
        """It has no port of its own."""
        return super().seen(packet)._replace(port=port_in(packet.data))

    def _hops_and_class(self, options: SendOptions) -> tuple[int, int]:
        if self.family == AF_INET:
            hops, kind = self.hops, self.ip_options[abi.IP_TOS]
        else:
            hops = self.hops6
            kind = self.ipv6_options[abi.IPV6_TCLASS]
        return options.ttl or hops, kind if options.tos is None else options.tos

    def _fill_checksum(self, packet: Packet) -> None:
        """ICMP of ping sockets, and what IPV6_CHECKSUM asks for."""
        at = self.checksum_at
        if at < 0:
            return
        data = packet.data
        if at + 2 > len(data):
            raise EINVAL("no room for the checksum")
        data = data[:at] + bytes(2) + data[at + 2 :]
        if self.family == AF_INET6:
            total = checksum6(packet, data, self.protocol)
        else:
            total = checksum(data)
        packet.data = data[:at] + struct.pack(">H", total) + data[at + 2 :]

    def accepts(self, packet: Packet, protocol: int) -> bool:
        """Whether a packet is for this socket."""
        if self.protocol != protocol or self.device not in (0, packet.index):
            return False
        if self.remote is not None and self.remote.ip != packet.source.ip:
            return False
        if not self.local.is_any and self.local.ip != packet.target.ip:
            return False
        if self.family == AF_INET6 and self.checksum_at >= 0:
            return checksum6(packet, packet.data, protocol) == 0 and not self._is_filtered(packet)
        return not self._is_filtered(packet)

    def _is_filtered(self, packet: Packet) -> bool:
        """ICMP_FILTER, ICMP6_FILTER: a bit for each type that is not wanted."""
        least = LEAST_ICMP.get((self.family, self.protocol))
        if least is None:
            return False
        if len(packet.data) < least:
            return True
        kind = packet.data[0]
        if kind >= len(self.icmp_filter) * 8:
            return False
        bits = int.from_bytes(self.icmp_filter, "little")
        return bool(bits >> kind & 1)

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        return super().try_receive(dest, flags)

    def deliver(self, packet: Packet) -> bool:
        """A packet comes, through the filter."""
        if self.filter is not None:
            is_v4 = self.family == AF_INET
            seen = seen_by_filter(packet, self.family, self.protocol, from_header=is_v4)
            if not self.filter.run(seen):
                return False
        return super().deliver(packet)

    def shown(self, packet: Packet) -> bytes:
        """A raw IPv4 socket sees the IP header."""
        if self.family == AF_INET6:
            return packet.data
        return with_header(packet, self.family, self.protocol)

    def available(self) -> int:
        """FIONREAD: the size of the next packet, as it is shown."""
        return len(self.shown(self.packets[0])) if self.packets else 0

    # --- options

    def no_getter(self, level: int, name: int) -> Errno:
        """do_raw_getsockopt() is asked for its level alone."""
        if level == abi.SOL_RAW:
            return ENOPROTOOPT(f"option {name}")
        return super().no_getter(level, name)


class Raw6Socket(RawSocket):
    """SOCK_RAW of IPv6."""

    __slots__ = ()
    options_known: ClassVar = RAW6
    levels: ClassVar = (abi.SOL_RAW,)

    def _other_level(self, level: int) -> Errno | None:
        return EOPNOTSUPP("not ICMPv6") if is_foreign(self, level) else None

    def no_setter(self, level: int, name: int, value: bytes) -> Errno:
        """rawv6_setsockopt()."""
        return self._other_level(level) or super().no_setter(level, name, value)

    def no_getter(self, level: int, name: int) -> Errno:
        """rawv6_getsockopt()."""
        return self._other_level(level) or super().no_getter(level, name)


def deliver(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """To whoever looks at packets, to UDP; an echo request is answered."""
    show(stack, packet, family, protocol)
    _to_protocol(stack, packet, family, protocol)


def take_in(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """A packet that came with its link header, and was seen there."""
    show_raw(stack, packet, family, protocol)
    _to_protocol(stack, packet, family, protocol)


def _to_protocol(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    if protocol == IPPROTO_UDP:
        _deliver_udp(stack, packet)
        return
    data = packet.data
    wanted = IPPROTO_ICMP if family == AF_INET else IPPROTO_ICMPV6
    if protocol != wanted or len(data) < ICMP_HEADER or data[0] != ECHO_TYPES[family][0]:
        return
    if _icmp_checksum(packet, data, protocol):
        stack.counters["Icmp.InCsumErrors"] += 1
        return
    if ignores_echo(stack, is_v4=family == AF_INET, is_group=is_group(packet.target.ip)):
        return
    reply = Packet(b"", packet.target, packet.source, 64, packet.tos)
    answer = bytes([ECHO_TYPES[family][1], 0, 0, 0]) + data[4:]
    total = _icmp_checksum(reply, answer, protocol)
    reply.data = answer[:2] + struct.pack(">H", total) + answer[4:]
    stack.counters["Icmp.InEchos"] += 1
    stack.counters["Icmp.OutEchoReps"] += 1
    passed: Packet | None = reply
    if stack.netfilter is not None:
        from sentry.net.inet.raw_filtered import answer_of  # noqa: PLC0415  few have rules

        passed = answer_of(stack, reply, family, protocol)
    if passed is not None:  # and is answered no more, though rules may make it a request again
        show(stack, passed, family, protocol)


def _icmp_checksum(packet: Packet, data: bytes, protocol: int) -> int:
    """ICMPv6 has a pseudo header. RFC 4443, 2.3."""
    return checksum6(packet, data, protocol) if protocol == IPPROTO_ICMPV6 else checksum(data)


def _deliver_udp(stack: Stack, packet: Packet) -> None:
    """A datagram that a program made itself, header and all."""
    if len(packet.data) < UDP_HEADER:
        return
    source, target, size = struct.unpack_from(">HHH", packet.data)
    if not UDP_HEADER <= size <= len(packet.data):
        return
    if packet.data[6:UDP_HEADER] != bytes(2) and checksum_udp(packet, packet.data[:size]):
        stack.counters["Udp.InCsumErrors"] += 1
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
