"""Connections that netfilter follows: what conntrack(8) asks and hears.

net/netfilter/nf_conntrack_netlink.c. How they are made and changed is in `ctnetlink_changes.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
)
from sentry.errors import EINVAL, ENOENT, ENOMEM
from sentry.net.netfilter.machine import Attributes, be32, be64, nested, number
from sentry.net.netfilter.tuples import Tuple
from sentry.net.netlink.message import Reply, attribute, message, parse_attributes, u8
from sentry.net.netlink.nfnetlink import Asked, asks, does
from sentry.net.netlink.nft_notices import tell

if TYPE_CHECKING:
    from sentry.net.netfilter.conntrack import Connection, Conntrack
    from sentry.net.packets import NetlinkPort

SUBSYSTEM: Final = nft.NFNL_SUBSYS_CTNETLINK << 8
SECOND_NS: Final = 1_000_000_000
MOST: Final = 32
"""Sockets that hear of connections: a ceiling of ours, for all hear of each in one step."""
LEAST: Final = 200
"""Bytes of what is told of one, about."""
ENDS: Final = {
    AF_INET: (nft.CTA_IP_V4_SRC, nft.CTA_IP_V4_DST, 4),
    AF_INET6: (nft.CTA_IP_V6_SRC, nft.CTA_IP_V6_DST, 16),
}
ICMPS: Final = {
    IPPROTO_ICMP: (nft.CTA_PROTO_ICMP_ID, nft.CTA_PROTO_ICMP_TYPE, nft.CTA_PROTO_ICMP_CODE),
    IPPROTO_ICMPV6: (
        nft.CTA_PROTO_ICMPV6_ID, nft.CTA_PROTO_ICMPV6_TYPE, nft.CTA_PROTO_ICMPV6_CODE,
    ),
}  # fmt: skip


def _tuple(own: Tuple) -> bytes:
    """ctnetlink_dump_tuples()."""
    source, target, _ = ENDS[AF_INET if own.is_v4 else AF_INET6]
    ends = attribute(source, own.source) + attribute(target, own.target)
    about = u8(nft.CTA_PROTO_NUM, own.protocol)
    if own.protocol in ICMPS:
        ident, kind, code = ICMPS[own.protocol]
        about += attribute(ident, own.source_id.to_bytes(2))
        about += u8(kind, own.target_id >> 8) + u8(code, own.target_id)
    else:
        about += attribute(nft.CTA_PROTO_SRC_PORT, own.source_id.to_bytes(2))
        about += attribute(nft.CTA_PROTO_DST_PORT, own.target_id.to_bytes(2))
    return nested(nft.CTA_TUPLE_IP, ends) + nested(nft.CTA_TUPLE_PROTO, about)


def _moved(one: Connection, direction: int) -> bytes:
    packets, octets = one.moved[direction]
    return be64(nft.CTA_COUNTERS_PACKETS, packets) + be64(nft.CTA_COUNTERS_BYTES, octets)


def _told(asked: Asked, one: Connection, now_ns: int) -> Reply:
    """ctnetlink_fill_info()."""
    made = _ends(one) + _left(one, now_ns)
    if asked.netfilter.conntrack.tells_counters:
        made += _counters(one)
    made += _state(one) + be32(nft.CTA_MARK, one.mark)
    made += be32(nft.CTA_ID, one.number) + be32(nft.CTA_USE, 1 if asked.is_dump else 2)
    return SUBSYSTEM | nft.IPCTNL_MSG_CT_NEW, made


def _ends(one: Connection) -> bytes:
    """Its struct nfgenmsg, its tuples and its status."""
    made = bytes([AF_INET if one.original.is_v4 else AF_INET6, 0, 0, 0])
    made += nested(nft.CTA_TUPLE_ORIG, _tuple(one.original))
    made += nested(nft.CTA_TUPLE_REPLY, _tuple(one.reply))
    return made + be32(nft.CTA_STATUS, one.status)


def _left(one: Connection, now_ns: int) -> bytes:
    return be32(nft.CTA_TIMEOUT, max(0, one.expires_ns - now_ns) // SECOND_NS)


def _counters(one: Connection) -> bytes:
    made = nested(nft.CTA_COUNTERS_ORIG, _moved(one, 0))
    return made + nested(nft.CTA_COUNTERS_REPLY, _moved(one, 1))


def _state(one: Connection) -> bytes:
    """Of TCP."""
    if one.original.protocol != IPPROTO_TCP:
        return b""
    state = u8(nft.CTA_PROTOINFO_TCP_STATE, one.state)
    return nested(nft.CTA_PROTOINFO, nested(nft.CTA_PROTOINFO_TCP, state))


# --- what happens to them


class Members:
    """Of the groups that hear of connections: `Conntrack.hears`."""

    def __init__(self, table: Conntrack) -> None:
        self._table = table
        self._socks: dict[NetlinkPort, None] = {}

    @classmethod
    def changed(cls, table: Conntrack, sock: NetlinkPort, *, is_member: bool) -> None:
        """A socket is in one of the groups, or in none any more. Raises: ENOMEM."""
        members = table.hears if isinstance(table.hears, cls) else cls(table)
        if is_member:
            if len(members._socks) >= MOST and sock not in members._socks:
                raise ENOMEM("who hears of connections")
            members._socks[sock] = None
            table.listen(members)
        else:
            members._socks.pop(sock, None)
            table.hears = members if members._socks else None

    def __call__(self, now_ns: int, group: int, one: Connection) -> None:
        """ctnetlink_conntrack_event(). Where nobody has room no message is made."""
        heard: list[NetlinkPort] = []
        for sock in self._socks:
            if group in sock.groups:
                if sock.has_room(LEAST):
                    heard.append(sock)
                else:
                    sock.lose()
        if heard:
            tell(heard, group, [self._message(now_ns, group, one)])

    def _message(self, now_ns: int, group: int, one: Connection) -> bytes:
        is_over = group == nft.NFNLGRP_CONNTRACK_DESTROY
        made = _ends(one) + be32(nft.CTA_ID, one.number)
        if not is_over:
            made += _left(one, now_ns)
        else:
            made += _left(one, now_ns) if one.expires_ns - now_ns >= SECOND_NS else b""
            made += _counters(one) if self._table.tells_counters else b""
        made += _state(one)
        port = self._table.changed_by
        if one.mark or (port and not is_over):
            made += be32(nft.CTA_MARK, one.mark)
        kind = nft.IPCTNL_MSG_CT_DELETE if is_over else nft.IPCTNL_MSG_CT_NEW
        is_new = group == nft.NFNLGRP_CONNTRACK_NEW
        flags = abi.NLM_F_CREATE | abi.NLM_F_EXCL if is_new else 0
        return message(SUBSYSTEM | kind, flags, 0, port, made)


@contextmanager
def changing(asked: Asked) -> Iterator[None]:
    """What happens in here is told as done by whose message it is."""
    table = asked.netfilter.conntrack
    table.changed_by = asked.request.sock.port
    try:
        yield
    finally:
        table.changed_by = 0


# --- what is asked


def read_tuple(family: int, raw: bytes) -> Tuple:
    """ctnetlink_parse_tuple(). Raises: EINVAL, ERANGE."""
    if family not in ENDS:
        raise EINVAL("family")
    source, target, size = ENDS[family]
    data = parse_attributes(raw)
    ends = parse_attributes(data.get(nft.CTA_TUPLE_IP, b""))
    about = parse_attributes(data.get(nft.CTA_TUPLE_PROTO, b""))
    if any(len(ends.get(each, b"")) != size for each in (source, target)):
        raise EINVAL("addresses")
    protocol = number(about, nft.CTA_PROTO_NUM, size=1)
    return Tuple(protocol, ends[source], *_ports(protocol, about, ends[target]))


def _ports(protocol: int, about: Attributes, target: bytes) -> tuple[int, bytes, int]:
    if protocol in ICMPS:
        ident, kind, code = ICMPS[protocol]
        both = number(about, kind, size=1) << 8 | number(about, code, size=1)
        return number(about, ident, size=2), target, both
    first = number(about, nft.CTA_PROTO_SRC_PORT, 0, 2)
    return first, target, number(about, nft.CTA_PROTO_DST_PORT, 0, 2)


def _named(asked: Asked, now_ns: int) -> Connection:
    """The one whose tuple is given. Raises: ENOENT, EINVAL."""
    data = asked.attributes
    kind = nft.CTA_TUPLE_ORIG if nft.CTA_TUPLE_ORIG in data else nft.CTA_TUPLE_REPLY
    if kind not in data:
        raise EINVAL("which connection?")
    found = asked.netfilter.conntrack.find(now_ns, read_tuple(asked.family, data[kind]))
    if found is None or (nft.CTA_ID in data and number(data, nft.CTA_ID) != found[0].number):
        raise ENOENT("connection")
    return found[0]


@asks(nft.IPCTNL_MSG_CT_GET, subsystem=nft.NFNL_SUBSYS_CTNETLINK)
def get_connections(asked: Asked) -> Iterable[Reply]:
    """IPCTNL_MSG_CT_GET: one, or all of a family."""
    now_ns = asked.request.stack.kernel.loop.now_ns()
    if not asked.is_dump:
        yield _told(asked, _named(asked, now_ns), now_ns)
        return
    for one in list(asked.netfilter.conntrack.connections.values()):
        family = AF_INET if one.original.is_v4 else AF_INET6
        if asked.family in (AF_UNSPEC, family) and one.expires_ns > now_ns:
            yield _told(asked, one, now_ns)


@does(SUBSYSTEM | nft.IPCTNL_MSG_CT_DELETE)
def forget_connections(asked: Asked) -> None:
    """IPCTNL_MSG_CT_DELETE: one, or all of a family."""
    table, data = asked.netfilter.conntrack, asked.attributes
    now_ns = asked.request.stack.kernel.loop.now_ns()
    if data.keys() & {nft.CTA_TUPLE_ORIG, nft.CTA_TUPLE_REPLY}:
        one = _named(asked, now_ns)
        with changing(asked):
            table.forget(now_ns, one)
        return
    for one in list(table.connections.values()):
        if asked.family in (AF_UNSPEC, AF_INET if one.original.is_v4 else AF_INET6):
            with changing(asked):
                table.forget(now_ns, one)


@asks(nft.IPCTNL_MSG_CT_GET_STATS, subsystem=nft.NFNL_SUBSYS_CTNETLINK)
def get_count(asked: Asked) -> Iterable[Reply]:
    """IPCTNL_MSG_CT_GET_STATS: how many there are, and may be."""
    table = asked.netfilter.conntrack
    made = be32(nft.CTA_STATS_GLOBAL_ENTRIES, len(table.connections))
    made += be32(nft.CTA_STATS_GLOBAL_MAX_ENTRIES, table.setting("nf_conntrack_max"))
    return [(SUBSYSTEM | nft.IPCTNL_MSG_CT_GET_STATS, bytes(4) + made)]
