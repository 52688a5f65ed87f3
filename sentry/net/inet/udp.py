"""UDP on the loopback: udp(7). Multicast and broadcast stay on the loopback too."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from msgspec.structs import replace

from sentry.abi import socket as abi
from sentry.abi.poll import EPOLLERR
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_UDP,
    MSG_CONFIRM,
    MSG_MORE,
    MSG_OOB,
    SO_REUSEPORT,
    SOCK_DGRAM,
)
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EDESTADDRREQ,
    EINVAL,
    EMSGSIZE,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    Errno,
)
from sentry.net.inet import address
from sentry.net.inet.address import ANY4, ANY6, Endpoint, is_group
from sentry.net.inet.datagram import DatagramSocket
from sentry.net.inet.packet import SendOptions, parse_send
from sentry.net.inet.sizes import check_size
from sentry.net.inet.udp_options import DEFAULTS, LEVELS, UDP
from sentry.net.inet.wire import seen_by_filter, show_udp, show_unreachable
from sentry.net.interfaces import LENGTH_MAX
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.inet.ports import Ports
    from sentry.net.message import Ancillary
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Result, Source
    from sentry.vfs.location import Location

KNOWN_FAMILIES: Final = (struct.pack("<H", AF_INET), struct.pack("<H", AF_INET6))
MSG_PROBE: Final = 0x10
"""Of include/linux/socket.h: find the way, but send nothing."""
MAX_SEGMENTS: Final = 128
HEADER_SIZE: Final = 8


@mypyc_attr(allow_interpreted_subclasses=True)
class UdpSocket(DatagramSocket):
    """A datagram socket."""

    __slots__ = ("_corked", "_corked_to", "udp_options")
    options_known: ClassVar = UDP
    levels: ClassVar = LEVELS
    goes_out: ClassVar = True
    snmp_row: ClassVar = "Udp"
    """Its row in /proc/net/snmp."""

    def __init__(self, location: Location, family: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, family, SOCK_DGRAM, protocol, stack)
        self._open()
        self.udp_options = dict(DEFAULTS)
        self._corked = b""
        self._corked_to: Endpoint | None = None

    @property
    def peek_offset(self) -> bool:
        """SO_PEEK_OFF works."""
        return True

    def connect(self, caller: Caller, raw: bytes, nonblock: bool) -> Result:
        """connect(2): whom to send to, and from whom to take."""
        if len(raw) < 2:
            raise EINVAL("address")
        if address.is_unspec(raw):
            self.forget_remote()
            return 0
        self.need_port()  # whatever comes of it
        target = self.destination_to_connect(raw)
        self.remote = target
        if self.local.is_any:
            self.local = self.source_for(target, self.sticky_index(target))
        self.ports.changed(self)
        return 0

    # --- sending

    def target(self, caller: Caller, raw: bytes) -> Any:
        """Where sendto leads, and by which interface, if that is said; the attempt alone gives the
        socket a port: inet_send_prepare()."""
        self.need_port()
        if address.is_unspec(raw) and self.family == AF_INET6:
            return None
        if len(raw) < 16 or (self.family == AF_INET6 and raw[:2] not in KNOWN_FAMILIES):
            raise EINVAL("address")
        if address.is_unspec(raw):
            raw = struct.pack("<H", AF_INET) + raw[2:]
        endpoint = self.parsed(raw)
        if not endpoint.port:
            raise EINVAL("port 0")
        return endpoint, self.scope_of(raw)

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2): to whoever has the port; to nobody is an error for connected sockets."""
        size = source.count
        self.need_port()
        given: Endpoint | None = None
        scope = 0
        if target is not None and self._corked_to is None:
            given, scope = target
        endpoint = self._corked_to or given or self.remote
        is_v4 = self.family == AF_INET if endpoint is None else endpoint.is_v4
        if is_v4 and size > LENGTH_MAX:
            raise EMSGSIZE(f"{size} bytes")
        if flags & MSG_OOB and is_v4:
            raise EOPNOTSUPP("out-of-band data")
        if endpoint is None:
            raise EDESTADDRREQ("no destination")
        options = parse_send(self, ancillary, endpoint, scope or self.sticky_index(endpoint))
        options.confirms, options.sender = bool(flags & MSG_CONFIRM), caller
        if given is not None:
            endpoint = self.destination(given, options.index)
        if endpoint is not self.remote:
            self.check_broadcast(endpoint)
        if flags & MSG_PROBE:
            return size
        self._check_size(size, endpoint, options)
        self.take_error()
        if self.write_shut:
            raise EPIPE("shut down")
        data = bytes(source.get(size)) if size else b""
        if flags & MSG_MORE or self.udp_options[abi.UDP_CORK]:
            self._corked += data
            self._corked_to = endpoint
            return size
        data, self._corked, self._corked_to = self._corked + data, b"", None
        self._send(data, endpoint, options)
        return size

    def _check_size(self, size: int, endpoint: Endpoint, options: SendOptions) -> None:
        """What does not fit takes with it what was held back."""
        try:
            check_size(self, HEADER_SIZE + len(self._corked) + size, endpoint, options)
        except EMSGSIZE:
            self._corked, self._corked_to = b"", None
            raise

    def _send(self, data: bytes, endpoint: Endpoint, options: SendOptions) -> None:
        segment = self.segment(options)
        if segment and len(data) > segment:
            if len(data) > segment * MAX_SEGMENTS:
                raise EINVAL("too many segments")
            self.stack.fan_out.begin(self._send_segments(data, segment, endpoint, options))
            return
        self._send_one(data, endpoint, options)

    def _send_segments(
        self, data: bytes, segment: int, endpoint: Endpoint, options: SendOptions
    ) -> Iterator[None]:
        for at in range(0, len(data), segment):
            try:
                self._send_one(data[at : at + segment], endpoint, options)
            except Errno as error:  # nobody who called is there any more
                self.so_error = error.number
                self.queue.notify(EPOLLERR)
                return
            yield

    def unsent_datagram(self) -> bool:
        """UDP_CORK, MSG_MORE."""
        return self._corked_to is not None

    def segment(self, options: SendOptions) -> int:
        """UDP_SEGMENT, of this datagram or of the socket."""
        return options.segment or self.udp_options[abi.UDP_SEGMENT]

    def uncork(self) -> None:
        """UDP_CORK is cleared: what was held back goes off."""
        if self._corked_to is not None:
            data, endpoint = self._corked, self._corked_to
            self._corked, self._corked_to = b"", None
            self._send(data, endpoint, SendOptions())

    def seal(self, packet: Packet) -> None:
        """What the protocol adds to a datagram that goes out."""

    def _send_one(self, data: bytes, endpoint: Endpoint, options: SendOptions) -> None:
        many = is_group(endpoint.ip)
        sender = self.source_for(endpoint, options.index)
        if options.source is not None:
            sender = Endpoint(options.source, sender.port)
        packet = Packet(data, sender, endpoint, self._ttl(endpoint, options.ttl))
        packet.tos = self._tos(endpoint) if options.tos is None else options.tos
        resolver = self.stack.resolver
        if resolver is not None and self.protocol == IPPROTO_UDP and resolver.is_for(packet):
            packet.index = self.device or packet.index
            self.stack.counters["Udp.OutDatagrams"] += 1
            resolver.take(packet, options.sender)
            self.count_sent(options.sender, len(data))
            return
        link = self.group_link(endpoint, options.index) if many else 0
        if link or self.leaves(endpoint):
            self._send_away(packet, options, link)
            return
        self.seal(packet)
        self.stack.counters[f"{self.snmp_row}.OutDatagrams"] += 1
        if self.stack.netfilter is not None and self.protocol == IPPROTO_UDP and not many:
            passed = self._judged(packet, options)
            if passed is None:
                return
            packet = passed
        watched = (self.stack.raw or self.stack.taps) and self.protocol == IPPROTO_UDP
        whole = show_udp(self.stack, packet) if watched else None
        if many:
            self.stack.fan_out.begin(to_everybody(self.ports, packet))
            return
        receiver = receiver_of(self.ports, packet)
        if receiver is not None:
            receiver.deliver(packet)
            return
        self.stack.counters[f"{self.snmp_row}.NoPorts"] += 1
        if whole is not None:
            show_unreachable(self.stack, whole)
        self.refused(packet)

    def _judged(self, packet: Packet, options: SendOptions) -> Packet | None:
        """As it is behind the rules of this namespace. None: it is lost, or goes by a link.

        Raises: EPERM, and what `IpLayer.send` raises.
        """
        from sentry.net.netfilter.local import judge_datagram  # noqa: PLC0415  few have rules

        ends, now_ns = (packet.source, packet.target), self.stack.kernel.loop.now_ns()
        found = judge_datagram(self.stack, now_ns, ends, packet.data, options.sender)
        if found is None:
            return packet
        if found.leaves:
            self._send_away(packet, options, 0)
            return None
        if not found.passes:
            if found.errno:
                self.refused(packet)
            elif found.at_output:
                raise EPERM("a rule drops it")
            return None
        packet.source, packet.target = found.source, found.target
        return packet

    def _send_away(self, packet: Packet, options: SendOptions, link: int) -> None:
        """By a link; what is for a group also stays, for who is a member here."""
        from sentry.net.inet import leaving  # noqa: PLC0415  few have links

        endpoint = packet.target
        if options.confirms:
            leaving.confirm(self, endpoint)
        discover = leaving.discover_of(self, endpoint, options.dont_fragment)
        self.seal(packet)
        leaving.send_udp(self, packet, discover, link or options.index, options.sender)
        self.stack.counters[f"{self.snmp_row}.OutDatagrams"] += 1
        if link and leaving.loops_back(self, endpoint):
            packet.index = link
            self.stack.fan_out.begin(to_everybody(self.ports, packet))

    def _ttl(self, endpoint: Endpoint, given: int | None) -> int:
        if given is not None:
            return given
        many = address.is_multicast(endpoint.ip)
        if endpoint.is_v4:
            return self.ip_options[abi.IP_MULTICAST_TTL] if many else self.hops
        return self.ipv6_options[abi.IPV6_MULTICAST_HOPS] if many else self.hops6

    def _tos(self, endpoint: Endpoint) -> int:
        if endpoint.is_v4:
            return self.ip_options[abi.IP_TOS]
        return self.ipv6_options[abi.IPV6_TCLASS]

    # --- receiving

    def takes_from(self, sender: Endpoint) -> bool:
        """A connected socket hears its peer only."""
        return self.remote is None or self.remote == sender

    def hears(self, packet: Packet, is_joined: bool) -> bool:
        """Whether a multicast or broadcast packet is for this socket; some socket may have joined
        its group."""
        target, local = packet.target, self.local
        if not self.takes_from(packet.source) or self.device not in (0, packet.index):
            return False
        if target.is_v4 and not local.is_v4 and (local.ip != ANY6 or self.v6only):
            return False
        if not target.is_v4 and local.is_v4:
            return False
        if local.ip not in (ANY4, ANY6, target.ip):
            return False
        if not address.is_multicast(target.ip):
            return True
        if self.has_joined(target.ip):
            return True
        everything = (
            self.ip_options[abi.IP_MULTICAST_ALL]
            if target.is_v4
            else self.ipv6_options[abi.IPV6_MULTICAST_ALL]
        )
        return bool(everything) and is_joined

    def has_joined(self, ip: bytes) -> bool:
        """It is a member of this group, on some interface."""
        return any(group == ip for group, _ in self.groups)

    def deliver(self, packet: Packet) -> bool:
        """A datagram comes, through the filter."""
        if self.filter is not None:
            size = len(packet.data) + HEADER_SIZE
            head = struct.pack(">HHHH", packet.source.port, packet.target.port, size & 0xFFFF, 0)
            family = AF_INET if packet.target.is_v4 else AF_INET6
            whole = replace(packet, data=head + packet.data)
            keep = self.filter.run(seen_by_filter(whole, family, self.protocol, from_header=False))
            if not keep:
                self.drops += 1
                self.stack.counters[f"{self.snmp_row}.InErrors"] += 1
                return False
            if keep < size:
                packet = replace(packet, data=packet.data[: max(0, keep - HEADER_SIZE)])
        taken = super().deliver(packet)
        counters, row = self.stack.counters, self.snmp_row
        if taken:
            counters[f"{row}.InDatagrams"] += 1
        else:
            counters[f"{row}.InErrors"] += 1
            counters[f"{row}.RcvbufErrors"] += 1
        return taken


def to_everybody(ports: Ports, packet: Packet) -> Iterator[None]:
    """Who hears a multicast or broadcast packet, one after the other."""
    target, is_joined = packet.target, False
    if address.is_multicast(target.ip):
        for sock in ports.everybody():
            is_joined = isinstance(sock, UdpSocket) and sock.has_joined(target.ip)
            if is_joined:
                break
            yield
    for sock in list(ports.at(target.port)):
        if isinstance(sock, UdpSocket) and sock.has_port and sock.hears(packet, is_joined):
            sock.deliver(packet)
        yield


def receiver_of(ports: Ports, packet: Packet) -> UdpSocket | None:
    """udp_lib_lookup(): a connected one, then the best binding; SO_REUSEPORT spreads."""
    connected = ports.places.connected(packet.target, packet.source, packet.index)
    if connected is not None:
        return cast("UdpSocket", connected)
    group = ports.places.group(packet.target, packet.index)
    if group is None:
        return None
    first = next(iter(group.socks))
    if SO_REUSEPORT not in first.options:
        return cast("UdpSocket", group.last)
    return cast("UdpSocket", group.at(hash((packet.source, packet.target))))
