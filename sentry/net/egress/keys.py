"""Which flow a packet belongs to: its `Key`, from the headers behind IP's. Sans-io."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import IPPROTO_ICMP, IPPROTO_ICMPV6
from sentry.net.egress.flows import PORTED, Key
from sentry.net.inet.address import MAPPED
from sentry.net.ip import icmp, icmp6, ipv4, ipv6
from sentry.net.link import ndp

if TYPE_CHECKING:
    from sentry.net.ip.checksum import Bytes

ICMP: Final = (IPPROTO_ICMP, IPPROTO_ICMPV6)
ICMP_HEADER: Final = 8
PORTS: Final = 4
EXTENDED: Final = {IPPROTO_ICMP: (42, 43), IPPROTO_ICMPV6: (160, 161)}
"""RFC 8335: a request, and the answer."""
ECHOES: Final = {
    IPPROTO_ICMP: (abi.ICMP_ECHO, abi.ICMP_ECHOREPLY, *EXTENDED[IPPROTO_ICMP]),
    IPPROTO_ICMPV6: (
        abi.ICMPV6_ECHO_REQUEST, abi.ICMPV6_ECHO_REPLY, *EXTENDED[IPPROTO_ICMPV6],
    ),
}  # fmt: skip
OF_LINKS: Final = frozenset((
    abi.ICMPV6_MGM_QUERY, abi.ICMPV6_MGM_REPORT, abi.ICMPV6_MGM_REDUCTION, abi.ICMPV6_MLD2_REPORT,
    ndp.ROUTER_SOLICITATION, ndp.ROUTER_ADVERTISEMENT, ndp.SOLICITATION, ndp.ADVERTISEMENT,
    ndp.REDIRECT,
))  # fmt: skip
"""Types of ICMPv6 that no router forwards: members of groups, neighbour discovery (RFC 4861)."""


def mapped(ip: bytes) -> bytes:
    """An address as flows have it."""
    return MAPPED + ip if len(ip) == 4 else ip


def key_of(protocol: int, source: bytes, target: bytes, head: Bytes) -> Key | None:
    """Of a packet whose transport begins with `head`, as it goes; None: its header is cut."""
    source_port = target_port = 0
    if protocol in PORTED:
        if len(head) < PORTS:
            return None
        source_port = int.from_bytes(head[:2])
        target_port = int.from_bytes(head[2:4])
    elif protocol in ICMP:
        if len(head) < ICMP_HEADER:
            return None
        if head[0] in ECHOES[protocol]:
            source_port = int.from_bytes(head[4:6])
    return Key(protocol, mapped(source), source_port, mapped(target), target_port)


def from_inside(protocol: int, ours: bytes, theirs: bytes, head: Bytes) -> Key | None:
    """The same of one that has come: the flow's source is ours."""
    key = key_of(protocol, theirs, ours, head)
    if key is None:
        return None
    if protocol in ICMP:  # an echo's identifier is of both
        return Key(protocol, key.target, key.source_port, key.source, 0)
    return Key(protocol, key.target, key.target_port, key.source, key.source_port)


def is_error(protocol: int, head: Bytes) -> bool:
    """A message about another packet, which it quotes."""
    if not len(head):
        return False
    if protocol == IPPROTO_ICMP:
        return head[0] in icmp.ERRORS
    return protocol == IPPROTO_ICMPV6 and head[0] < icmp6.INFORMATIONAL


def quoted(is_v4: bool, message: Bytes) -> Key | None:
    """The key of the packet that an error is about, as it went; None: it does not say."""
    packet = message[ICMP_HEADER:]
    if is_v4:
        header = ipv4.parse_quoted(packet)
        if header is None or header.fragment & ipv4.OFFSET:
            return None
        return key_of(header.protocol, header.source, header.target, packet[header.size :])
    header6 = ipv6.parse_quoted(packet)
    if header6 is None:
        return None
    protocol, at = ipv6.transport_of(packet)
    return key_of(protocol, header6.source, header6.target, packet[at:])
