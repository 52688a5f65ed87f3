"""ICMP of IPv4: RFC 792, 1122 3.2.2, 1812 4.3; net/ipv4/icmp.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import IP_PMTUDISC_DONT, IPPROTO_ICMP
from sentry.errors import (
    ECONNREFUSED,
    EHOSTDOWN,
    EHOSTUNREACH,
    EMSGSIZE,
    ENETUNREACH,
    ENONET,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EPROTO,
    Errno,
)
from sentry.net.ip import ipv4
from sentry.net.ip.checksum import checksum
from sentry.net.ip.seam import Arrived, Failure, Outgoing

if TYPE_CHECKING:
    from collections import Counter

    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.ground import Ground

HEADER_SIZE: Final = 8
MAX_REPLY: Final = 576
"""Bytes of a complaint with its IP header: RFC 1812, 4.3.2.3."""
LAST_TYPE: Final = 18
ERRORS: Final = (
    abi.ICMP_DEST_UNREACH, abi.ICMP_SOURCE_QUENCH, abi.ICMP_REDIRECT, abi.ICMP_TIME_EXCEEDED,
    abi.ICMP_PARAMETERPROB,
)  # fmt: skip
LIMITED: Final = (
    abi.ICMP_DEST_UNREACH, abi.ICMP_SOURCE_QUENCH, abi.ICMP_TIME_EXCEEDED, abi.ICMP_PARAMETERPROB,
)  # fmt: skip
"""icmp_ratemask."""
COUNTED: Final = {
    abi.ICMP_DEST_UNREACH: "OutDestUnreachs", abi.ICMP_TIME_EXCEEDED: "OutTimeExcds",
    abi.ICMP_PARAMETERPROB: "OutParmProbs", abi.ICMP_REDIRECT: "OutRedirects",
}  # fmt: skip
INTERNET_CONTROL: Final = 0xC0
KEPT_TOS: Final = 0x1E
QUOTED_LEAST: Final = 8
STAMP_SIZE: Final = 4
DAY_MS: Final = 86_400_000
UNREACHABLE: Final[tuple[tuple[type[Errno], bool], ...]] = (
    (ENETUNREACH, False), (EHOSTUNREACH, False), (ENOPROTOOPT, True), (ECONNREFUSED, True),
    (EMSGSIZE, False), (EOPNOTSUPP, False), (ENETUNREACH, True), (EHOSTDOWN, True),
    (ENONET, True), (ENETUNREACH, True), (EHOSTUNREACH, True), (ENETUNREACH, False),
    (EHOSTUNREACH, False), (EHOSTUNREACH, True), (EHOSTUNREACH, True), (EHOSTUNREACH, True),
)  # fmt: skip
"""icmp_err_convert[], by code."""


KINDS: Final = {
    abi.ICMP_ECHOREPLY: "EchoReps", abi.ICMP_DEST_UNREACH: "DestUnreachs",
    abi.ICMP_SOURCE_QUENCH: "SrcQuenchs", abi.ICMP_REDIRECT: "Redirects", abi.ICMP_ECHO: "Echos",
    abi.ICMP_TIME_EXCEEDED: "TimeExcds", abi.ICMP_PARAMETERPROB: "ParmProbs",
    abi.ICMP_TIMESTAMP: "Timestamps", abi.ICMP_TIMESTAMPREPLY: "TimestampReps",
}  # fmt: skip
"""As /proc/net/snmp counts them."""


def count_sent(counters: Counter[str], message: Bytes) -> None:
    """A program sends one: icmp_out_count()."""
    counters["Icmp.OutMsgs"] += 1
    if message[:1] and message[0] in KINDS:
        counters[f"Icmp.Out{KINDS[message[0]]}"] += 1


class Icmp:
    """The protocol, as a handler of the layer."""

    def __init__(self, layer: Ground) -> None:
        self._layer = layer

    # --- in

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        """icmp_rcv()."""
        data, counters = packet.payload, self._layer.counters
        counters["Icmp.InMsgs"] += 1
        if len(data) < HEADER_SIZE:
            counters["Icmp.InErrors"] += 1
            return True
        if not packet.checksum_is_good and checksum(data):
            counters["Icmp.InCsumErrors"] += 1
            return True
        kind = data[0]
        if kind in KINDS:
            counters[f"Icmp.In{KINDS[kind]}"] += 1
        if kind == abi.ICMP_ECHO:
            if not self._layer.ignores_echo(packet):
                self._reply(now_ns, packet, abi.ICMP_ECHOREPLY, data[1], bytes(data[4:]))
        elif kind == abi.ICMP_TIMESTAMP:
            self._timestamp(now_ns, packet)
        elif kind in ERRORS and not packet.is_group:
            self._error(now_ns, packet)
        return True

    def failed(self, now_ns: int, failure: Failure) -> bool:
        """A complaint about ICMP itself: raw and ping sockets have sent it, which hear of it."""
        return False

    def _reply(self, now_ns: int, packet: Arrived, kind: int, code: int, rest: bytes) -> None:
        """To who asked, from the address that was asked unless that is a group's."""
        message = bytes([kind, code, 0, 0]) + rest
        message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
        source = b"" if packet.is_group else packet.target
        self._layer.counters["Icmp.OutMsgs"] += 1
        if kind == abi.ICMP_ECHOREPLY:
            self._layer.counters["Icmp.OutEchoReps"] += 1
        out = Outgoing(packet.source, IPPROTO_ICMP, (message,), source, packet.tos)
        out.discover = IP_PMTUDISC_DONT
        self._layer.send_or_drop(now_ns, out)

    def _timestamp(self, now_ns: int, packet: Arrived) -> None:
        """icmp_timestamp(): milliseconds since midnight, as the clock of the sandbox says."""
        data = packet.payload
        if len(data) < HEADER_SIZE + STAMP_SIZE or packet.is_group:
            return
        now_ms = self._layer.wall_ms() % DAY_MS
        rest = bytes(data[4 : HEADER_SIZE + STAMP_SIZE]) + struct.pack(">II", now_ms, now_ms)
        self._reply(now_ns, packet, abi.ICMP_TIMESTAMPREPLY, 0, rest)

    def _error(self, now_ns: int, packet: Arrived) -> None:
        """icmp_unreach(), icmp_redirect(): what is quoted says whom it is for."""
        data = packet.payload
        kind, code = data[0], data[1]
        inner = ipv4.parse_quoted(data[HEADER_SIZE:])
        if inner is None or kind == abi.ICMP_SOURCE_QUENCH:
            return
        quoted = bytes(data[HEADER_SIZE + inner.size :])
        if len(quoted) < QUOTED_LEAST or not self._layer.is_local(inner.source):
            return
        if kind == abi.ICMP_REDIRECT:
            self._redirect(now_ns, packet, inner)
            return
        number, is_fatal = _errno(kind, code)
        info = 0
        if kind == abi.ICMP_DEST_UNREACH and code == abi.ICMP_FRAG_NEEDED:
            info = int.from_bytes(data[6:8])
        elif kind == abi.ICMP_PARAMETERPROB:
            info = data[4]
        failure = Failure(
            inner.protocol, inner.source, inner.target, quoted, kind, code, number, is_fatal,
            packet.source, info, packet.index,
        )  # fmt: skip
        is_too_big = kind == abi.ICMP_DEST_UNREACH and code == abi.ICMP_FRAG_NEEDED
        self._layer.fail(now_ns, failure, info if is_too_big else -1)

    def _redirect(self, now_ns: int, packet: Arrived, inner: ipv4.Header) -> None:
        """__ip_do_redirect(): only from the router that is used, to another on the same link."""
        code, gateway = packet.payload[1], bytes(packet.payload[4:8])
        if code in _REDIRECTS and ipv4.may_be_source(gateway):
            self._layer.redirect(now_ns, packet, inner.target, gateway)

    # --- out

    def complain(self, now_ns: int, packet: Arrived, kind: int, code: int, info: int = 0) -> None:
        """Tell the sender of a packet why it is not taken: icmp_send()."""
        if not packet.to_us or packet.is_group or not ipv4.may_be_source(packet.source):
            return
        if packet.protocol == IPPROTO_ICMP and _is_error(packet.payload):
            return
        counters = self._layer.counters
        if kind in LIMITED and not self._layer.limit4.allows(now_ns, packet.source):
            counters["Icmp.OutRateLimitHost"] += 1
            return
        room = MAX_REPLY - ipv4.HEADER_SIZE - HEADER_SIZE
        quoted = (packet.head + bytes(packet.payload[:room]))[:room]
        message = struct.pack(">BBHI", kind, code, 0, info) + quoted
        message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
        tos = packet.tos & KEPT_TOS | INTERNET_CONTROL
        source = packet.target if self._layer.is_local(packet.target) else b""
        out = Outgoing(packet.source, IPPROTO_ICMP, (message,), source, tos)
        out.discover = IP_PMTUDISC_DONT
        counters["Icmp.OutMsgs"] += 1
        counters[f"Icmp.{COUNTED[kind]}"] += 1
        self._layer.send_or_drop(now_ns, out)


_REDIRECTS: Final = (
    abi.ICMP_REDIR_NET, abi.ICMP_REDIR_HOST, abi.ICMP_REDIR_NETTOS, abi.ICMP_REDIR_HOSTTOS,
)  # fmt: skip


def _is_error(payload: memoryview) -> bool:
    """Or of a type that nobody knows: nothing is said about such."""
    return not len(payload) or payload[0] in ERRORS or payload[0] > LAST_TYPE


def _errno(kind: int, code: int) -> tuple[int, bool]:
    if kind == abi.ICMP_DEST_UNREACH:
        error, is_fatal = UNREACHABLE[min(code, len(UNREACHABLE) - 1)]
        return error.number, is_fatal
    if kind == abi.ICMP_PARAMETERPROB:
        return EPROTO.number, True
    return EHOSTUNREACH.number, False
