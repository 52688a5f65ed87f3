"""ICMPv6: RFC 4443; net/ipv6/icmp.c. Neighbour discovery is in `discovery.py`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import IPPROTO_ICMPV6
from sentry.errors import (
    EACCES,
    ECONNREFUSED,
    EHOSTUNREACH,
    EMSGSIZE,
    ENETUNREACH,
    EPROTO,
    Errno,
)
from sentry.net.ip import discovery, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Arrived, Failure, Outgoing
from sentry.net.link import ndp

if TYPE_CHECKING:
    from sentry.net.ip.ground import Ground

HEADER_SIZE: Final = 8
ECHO_HEADER: Final = 4
INFORMATIONAL: Final = 128
QUOTED_LEAST: Final = 8
UNREACHABLE: Final[tuple[tuple[type[Errno], bool], ...]] = (
    (ENETUNREACH, False), (EACCES, True), (EHOSTUNREACH, False), (EHOSTUNREACH, False),
    (ECONNREFUSED, True), (EACCES, True), (EACCES, True),
)  # fmt: skip
"""tab_unreach[], by code."""


class Icmp6:
    """The protocol, as a handler of the layer."""

    def __init__(self, layer: Ground) -> None:
        self._layer = layer

    # --- in

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        """icmpv6_rcv()."""
        data, counters = packet.payload, self._layer.counters
        counters["Icmp6InMsgs"] += 1
        before = pseudo_sum(packet.source, packet.target, IPPROTO_ICMPV6, len(data))
        if len(data) < HEADER_SIZE or (not packet.checksum_is_good and checksum(data, before)):
            counters["Icmp6InErrors"] += 1
            return True
        kind = data[0]
        if kind == abi.ICMPV6_ECHO_REQUEST:
            counters["Icmp6InEchos"] += 1
            if not self._layer.ignores_echo(packet):
                self._echo(now_ns, packet)
        elif kind in discovery.KINDS:
            discovery.arrived(self._layer, now_ns, packet)
        elif kind == abi.ICMPV6_MGM_QUERY:
            self._layer.groups.asked6(now_ns, packet)
        elif kind < INFORMATIONAL:
            self._error(now_ns, packet)
        return True

    def failed(self, now_ns: int, failure: Failure) -> bool:
        """A complaint about ICMPv6 itself."""
        return False

    def _echo(self, now_ns: int, packet: Arrived) -> None:
        """icmpv6_echo_reply()."""
        rest = bytes(packet.payload[ECHO_HEADER:])
        source = b"" if packet.is_group else packet.target
        self.send(now_ns, abi.ICMPV6_ECHO_REPLY, rest, Outgoing(
            packet.source, IPPROTO_ICMPV6, (), source, packet.tos, index=self._index_for(packet),
        ), packet.payload[1])  # fmt: skip
        self._layer.counters["Icmp6OutEchoReplies"] += 1

    @staticmethod
    def _index_for(packet: Arrived) -> int:
        return packet.index if ipv6.is_link_local(packet.source) else 0

    def _error(self, now_ns: int, packet: Arrived) -> None:
        """icmpv6_notify(): what is quoted says whom it is for."""
        data = packet.payload
        kind, code = data[0], data[1]
        quoted = data[HEADER_SIZE:]
        inner = ipv6.parse_quoted(quoted)
        if inner is None or packet.is_group or not self._layer.is_local(inner.source):
            return
        place = ipv6.walk(quoted, inner.following, False)
        at, protocol = place.at, place.protocol
        if protocol == abi.IPPROTO_FRAGMENT:
            fragment = ipv6.parse_fragment(quoted, at)
            at, protocol = at + ipv6.FRAGMENT_SIZE, fragment.following
            if fragment.offset:
                return
        if place.is_dropped or place.problem >= 0 or len(quoted) - at < QUOTED_LEAST:
            return
        number, is_fatal = _errno(kind, code)
        info = int.from_bytes(data[4:8])
        is_too_big = kind == abi.ICMPV6_PKT_TOOBIG
        failure = Failure(
            protocol, inner.source, inner.target, bytes(quoted[at:]), kind, code, number, is_fatal,
            packet.source, info if is_too_big or kind == abi.ICMPV6_PARAMPROB else 0, packet.index,
        )  # fmt: skip
        self._layer.fail(now_ns, failure, info if is_too_big else -1)

    # --- out

    def send(self, now_ns: int, kind: int, rest: bytes, out: Outgoing, code: int = 0) -> None:
        """A message whose body behind the checksum is `rest`; `out` says how, without pieces."""
        source = out.source
        if not source:
            path = self._layer.path_or_none(now_ns, out.target, out.index)
            source = path.source if path is not None else b""
            if not source:
                return
        plain = bytes([kind, code, 0, 0]) + rest
        before = pseudo_sum(source, out.target, IPPROTO_ICMPV6, len(plain))
        message = plain[:2] + struct.pack(">H", checksum(plain, before)) + rest
        out.source, out.pieces = source, (message,)
        self._layer.counters["Icmp6OutMsgs"] += 1
        self._layer.send_or_drop(now_ns, out)

    def complain(self, now_ns: int, packet: Arrived, kind: int, code: int, info: int = 0) -> None:
        """Tell the sender of a packet why it is not taken: icmp6_send(), RFC 4443 2.4."""
        is_about_option = kind == abi.ICMPV6_PARAMPROB and code == abi.ICMPV6_UNK_OPTION
        if (packet.is_group or not packet.to_us) and not is_about_option:
            return
        if packet.source == ipv6.ANY or ipv6.is_multicast(packet.source):
            return
        if _is_error(packet):
            return
        if not self._layer.limit6.allows(now_ns, packet.source):
            return
        room = ipv6.LEAST_MTU - ipv6.HEADER_SIZE - HEADER_SIZE
        quoted = (packet.head + bytes(packet.payload[:room]))[:room]
        source = packet.target if self._layer.is_local(packet.target) else b""
        out = Outgoing(packet.source, IPPROTO_ICMPV6, (), source, index=self._index_for(packet))
        self.send(now_ns, kind, struct.pack(">I", info) + quoted, out, code)


def _is_error(packet: Arrived) -> bool:
    """Behind its extension headers, or it is cut there: is_ineligible()."""
    whole = packet.head + bytes(packet.payload)
    protocol, at = ipv6.transport_of(whole)
    if protocol != IPPROTO_ICMPV6:
        return False
    return at >= len(whole) or whole[at] < INFORMATIONAL or whole[at] == ndp.REDIRECT


def _errno(kind: int, code: int) -> tuple[int, bool]:
    if kind == abi.ICMPV6_DEST_UNREACH and code < len(UNREACHABLE):
        error, is_fatal = UNREACHABLE[code]
        return error.number, is_fatal
    if kind == abi.ICMPV6_PKT_TOOBIG:
        return EMSGSIZE.number, False
    if kind == abi.ICMPV6_TIME_EXCEED:
        return EHOSTUNREACH.number, False
    return EPROTO.number, True
