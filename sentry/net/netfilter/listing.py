"""/proc/net/nf_conntrack, and what there is of iptables: ct_seq_show() of
nf_conntrack_standalone.c, xt_proto_init() of x_tables.c."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.nftables import IPS_ASSURED, IPS_SEEN_REPLY
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_DCCP,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.net.netfilter.tcp_states import NAMES

if TYPE_CHECKING:
    from sentry.net.netfilter.conntrack import Connection
    from sentry.net.netfilter.tuples import Tuple
    from sentry.net.stack import Stack

SECOND_NS: Final = 1_000_000_000
PROTOCOLS: Final = {
    IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp", IPPROTO_UDPLITE: "udplite", IPPROTO_ICMP: "icmp",
    IPPROTO_ICMPV6: "icmpv6", IPPROTO_SCTP: "sctp", IPPROTO_DCCP: "dccp",
}  # fmt: skip


def followed(stack: Stack) -> Iterator[str]:
    """A line for each connection, or an empty one."""
    if stack.netfilter is None:
        return
    now_ns, table = stack.kernel.loop.now_ns(), stack.netfilter.conntrack
    moved = _moved if table.tells_counters else lambda one, direction: ""
    for each in list(table.connections.values()):
        yield _line(each, now_ns, moved) if each.expires_ns > now_ns else ""


def _line(one: Connection, now_ns: int, moved: Callable[[Connection, int], str]) -> str:
    own = one.original
    family, number = ("ipv4", AF_INET) if own.is_v4 else ("ipv6", AF_INET6)
    left_s = (one.expires_ns - now_ns) // SECOND_NS
    name = PROTOCOLS.get(own.protocol, "unknown")
    parts = [f"{family:8} {number} {name:8} {own.protocol} {left_s}"]
    if own.protocol == IPPROTO_TCP:
        parts.append(NAMES[one.state])
    parts.append(_ends(own) + moved(one, 0))
    if not one.status & IPS_SEEN_REPLY:
        parts.append("[UNREPLIED]")
    parts.append(_ends(one.reply) + moved(one, 1))
    if one.status & IPS_ASSURED:
        parts.append("[ASSURED]")
    return f"{' '.join(parts)} mark={one.mark} zone=0 use=2\n"


def _moved(one: Connection, direction: int) -> str:
    packets, octets = one.moved[direction]
    return f" packets={packets} bytes={octets}"


def _ends(own: Tuple) -> str:
    family = AF_INET if own.is_v4 else AF_INET6
    source, target = socket.inet_ntop(family, own.source), socket.inet_ntop(family, own.target)
    ends = f"src={source} dst={target}"
    if own.protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        kind, code = own.target_id >> 8, own.target_id & 0xFF
        return f"{ends} type={kind} code={code} id={own.source_id}"
    if own.protocol not in PROTOCOLS:
        return ends
    return f"{ends} sport={own.source_id} dport={own.target_id}"


def table_names(stack: Stack, *, is_v4: bool) -> Iterator[str]:
    """Tables of iptables without nftables that somebody has asked for, the last one first."""
    if stack.netfilter is not None:
        for of_v4, name in reversed(list(stack.netfilter.ip_tables)):
            yield f"{name}\n" if of_v4 == is_v4 else ""


def matches_known(*, is_v4: bool) -> Iterator[str]:
    """Matches of iptables: a line for each revision."""
    from sentry.net.netfilter.xt_matches import MATCHES, match_known  # noqa: PLC0415  few ask

    for name, revision in MATCHES:
        if match_known(name, revision, AF_INET if is_v4 else AF_INET6) is not None:
            yield f"{name}\n"


def targets_known(*, is_v4: bool) -> Iterator[str]:
    """Targets, and those that every table has."""
    from sentry.net.netfilter.xtables import TARGETS_KNOWN, target_known  # noqa: PLC0415  few ask

    for name, revision in TARGETS_KNOWN:
        if target_known(name, revision, AF_INET if is_v4 else AF_INET6) is not None:
            yield f"{name}\n"
    yield "ERROR\n"
