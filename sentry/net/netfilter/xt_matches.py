"""What extensions of iptables match: net/netfilter/xt_*.c. Each reads its struct once."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from sentry.abi import nftables as nft
from sentry.abi.netlink import RTN_UNICAST
from sentry.abi.socket import (
    IPPROTO_DCCP,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.errors import EINVAL, ENOENT
from sentry.net.netfilter.following import UNTRACKED, state_of
from sentry.net.netfilter.machine import Run, Scope
from sentry.net.netfilter.matching import tcp_option
from sentry.net.netfilter.xt_sets import SetMatch

Judge = Callable[[Run], bool]
SECOND_NS: Final = 1_000_000_000
PORTED: Final = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_DCCP)
MULTI_PORTS: Final = 15
ADDRESSES: Final = 16


class Kind(NamedTuple):
    """An extension."""

    size: int
    """Of its struct, padded to 8 bytes."""
    make: Callable[[bytes, Scope], Judge]
    protocols: tuple[int, ...] = ()
    """Whose rules may have it; empty: all."""
    hooks: tuple[int, ...] = ()
    """From where a rule of a table that is handed over as one may be met; empty: from all."""


def _ports(run: Run) -> tuple[int, int] | None:
    packet = run.packet
    if not packet.has(4):
        return None
    found: tuple[int, int] = struct.unpack_from(">HH", packet.data, packet.at)
    return found


def _tcp(info: bytes, scope: Scope) -> Judge:
    """struct xt_tcp."""
    low, high, first, last, option, mask, wanted, inverted = struct.unpack_from("<4H4B", info)

    def judge(run: Run) -> bool:
        packet, found = run.packet, _ports(run)
        if found is None or packet.protocol != IPPROTO_TCP or not packet.has(20):
            return False
        flags = packet.data[packet.at + 13]
        if (low <= found[0] <= high) == bool(inverted & 1):
            return False
        if (first <= found[1] <= last) == bool(inverted & 2):
            return False
        if (flags & mask == wanted) == bool(inverted & 4):
            return False
        has = not option or tcp_option(packet, option) is not None
        return has != bool(inverted & 8) if option else True

    return judge


def _udp(info: bytes, scope: Scope) -> Judge:
    """struct xt_udp."""
    low, high, first, last, inverted = struct.unpack_from("<4HB", info)

    def judge(run: Run) -> bool:
        found = _ports(run)
        if found is None or run.packet.protocol not in (IPPROTO_UDP, IPPROTO_UDPLITE):
            return False
        if (low <= found[0] <= high) == bool(inverted & 1):
            return False
        return bool(first <= found[1] <= last) != bool(inverted & 2)

    return judge


def _icmp(protocol: int) -> Callable[[bytes, Scope], Judge]:
    def make(info: bytes, scope: Scope) -> Judge:
        """struct ipt_icmp, ip6t_icmp."""
        kind, first, last, inverted = info[:4]

        def judge(run: Run) -> bool:
            packet = run.packet
            if packet.protocol != protocol or not packet.has(4):
                return False
            own, code = packet.data[packet.at], packet.data[packet.at + 1]
            is_any = kind == 0xFF and protocol == IPPROTO_ICMP
            return (is_any or (own == kind and first <= code <= last)) != bool(inverted & 1)

        return judge

    return make


def _multiport(info: bytes, scope: Scope) -> Judge:
    """struct xt_multiport_v1."""
    which, count = info[:2]
    ports = struct.unpack_from(f"<{MULTI_PORTS}H", info, 2)
    begins, is_inverted = info[32 : 32 + MULTI_PORTS], bool(info[47])
    if which > nft.XT_MULTIPORT_EITHER or count > MULTI_PORTS:
        raise EINVAL("multiport")
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < count:
        if begins[at]:
            if at + 1 >= count or begins[at + 1] or ports[at] >= ports[at + 1]:
                raise EINVAL("multiport")
            ranges.append((ports[at], ports[at + 1]))
            at += 1
        else:
            ranges.append((ports[at], ports[at]))
        at += 1

    def judge(run: Run) -> bool:
        found = _ports(run)
        if found is None or run.packet.protocol not in PORTED:
            return False
        own = found[:1] if which == nft.XT_MULTIPORT_SOURCE else found
        own = found[1:] if which == nft.XT_MULTIPORT_DESTINATION else own
        fits = any(first <= each <= last for each in own for first, last in ranges)
        return fits != is_inverted

    return judge


def _addrtype(info: bytes, scope: Scope) -> Judge:
    """struct xt_addrtype_info_v1."""
    source, target, flags = struct.unpack_from("<HHI", info)
    both = nft.XT_ADDRTYPE_LIMIT_IFACE_IN | nft.XT_ADDRTYPE_LIMIT_IFACE_OUT
    if flags & both == both:
        raise EINVAL("two interfaces")

    def judge(run: Run) -> bool:
        packet, place = run.packet, run.place
        index = packet.iif if flags & nft.XT_ADDRTYPE_LIMIT_IFACE_IN else 0
        index = packet.oif if flags & nft.XT_ADDRTYPE_LIMIT_IFACE_OUT else index
        for mask, ip, bit in (
            (source, packet.source, nft.XT_ADDRTYPE_INVERT_SOURCE),
            (target, packet.target, nft.XT_ADDRTYPE_INVERT_DEST),
        ):
            if mask:
                kind = place.kind_of(ip, index) or RTN_UNICAST
                if bool(mask >> kind & 1) == bool(flags & bit):
                    return False
        return True

    return judge


def _comment(info: bytes, scope: Scope) -> Judge:
    return lambda run: True


def _mark(info: bytes, scope: Scope) -> Judge:
    """struct xt_mark_mtinfo1."""
    mark, mask, inverted = struct.unpack_from("<IIB", info)
    return lambda run: (run.packet.mark & mask == mark) != bool(inverted)


def _connmark(info: bytes, scope: Scope) -> Judge:
    """struct xt_connmark_mtinfo1."""
    mark, mask, inverted = struct.unpack_from("<IIB", info)

    def judge(run: Run) -> bool:
        connection = run.packet.connection
        return connection is not None and (connection.mark & mask == mark) != bool(inverted)

    return judge


def _owner(info: bytes, scope: Scope) -> Judge:
    """struct xt_owner_match_info."""
    first_uid, last_uid, first_gid, last_gid, wanted, inverted = struct.unpack_from("<4IBB", info)
    if wanted & ~7:
        raise EINVAL("owner")

    def judge(run: Run) -> bool:
        owner = run.packet.owner
        if owner is None:
            return bool(wanted == inverted)
        if wanted & 4 and inverted & 4:
            return False
        if wanted & 1 and (first_uid <= owner[0] <= last_uid) == bool(inverted & 1):
            return False
        return not wanted & 2 or (first_gid <= owner[1] <= last_gid) != bool(inverted & 2)

    return judge


def _limit(info: bytes, scope: Scope) -> Judge:
    """struct xt_rateinfo: `avg` is 1/10000 s from one packet to the next."""
    average, burst = struct.unpack_from("<II", info)
    cost_ns = average * SECOND_NS // 10000
    most_ns = cost_ns * burst
    if not cost_ns or not burst or most_ns > SECOND_NS << 32:
        raise EINVAL("limit")
    state = [most_ns, 0]

    def judge(run: Run) -> bool:
        if state[1]:
            state[0] = min(most_ns, state[0] + run.now_ns - state[1])
        state[1] = run.now_ns
        if state[0] < cost_ns:
            return False
        state[0] -= cost_ns
        return True

    return judge


def _statistic(info: bytes, scope: Scope) -> Judge:
    """struct xt_statistic_info."""
    mode, flags, every, packet = struct.unpack_from("<HHII", info)
    if mode > 1 or flags & ~1:
        raise EINVAL("statistic")
    count = [packet]

    def judge(run: Run) -> bool:
        if mode == 0:
            found = int.from_bytes(run.place.chance(4)) & 0x7FFFFFFF < every
        else:
            found = count[0] == every
            count[0] = 0 if found else count[0] + 1
        return bool(found) != bool(flags)

    return judge


def _length(info: bytes, scope: Scope) -> Judge:
    """struct xt_length_info."""
    first, last, inverted = struct.unpack_from("<HHB", info)
    return lambda run: (first <= len(run.packet.data) <= last) != bool(inverted)


def _pkttype(info: bytes, scope: Scope) -> Judge:
    """struct xt_pkttype_info."""
    wanted, inverted = struct.unpack_from("<ii", info)
    return lambda run: (wanted == (2 if run.packet.is_group else 0)) != bool(inverted)


def _masked(ip: bytes, wanted: bytes, mask: bytes) -> bool:
    pairs = zip(ip, wanted, mask, strict=False)
    return all(own & bits == other & bits for own, other, bits in pairs)


def _conntrack(info: bytes, scope: Scope) -> Judge:
    """struct xt_conntrack_mtinfo3; what is about a helper or a zone is not in it."""
    ends = [info[at : at + ADDRESSES] for at in range(0, 8 * ADDRESSES, ADDRESSES)]
    low_s, high_s, protocol, *rest = struct.unpack_from("<IIH12H", info, 8 * ADDRESSES)
    firsts, lasts = rest[:4], rest[8:]
    match, inverted, states, status = rest[4:8]
    own_of = (("original", "source"), ("original", "target"), ("reply", "source"),
              ("reply", "target"))  # fmt: skip

    def state(run: Run) -> bool:
        found = state_of(run)
        if found == UNTRACKED:
            found = 1 << nft.IP_CT_NUMBER + 3
        connection = run.packet.connection
        if connection is not None:
            if connection.status & nft.IPS_SRC_NAT:
                found |= 1 << nft.IP_CT_NUMBER + 1
            if connection.status & nft.IPS_DST_NAT:
                found |= 1 << nft.IP_CT_NUMBER + 2
        return bool(states & found) != bool(inverted & nft.XT_CONNTRACK_STATE)

    def judge(run: Run) -> bool:
        if match & nft.XT_CONNTRACK_STATE and not state(run):
            return False
        connection = run.packet.connection
        if connection is None:
            return bool(match & nft.XT_CONNTRACK_STATE)
        if match & nft.XT_CONNTRACK_DIRECTION:
            is_original = run.packet.info < nft.IP_CT_IS_REPLY
            if is_original == bool(inverted & nft.XT_CONNTRACK_DIRECTION):
                return False
        for number, (which, end) in enumerate(own_of):
            own = getattr(connection, which)
            bit = nft.XT_CONNTRACK_ORIGSRC << number
            if match & bit:
                fits = _masked(getattr(own, end), *ends[number * 2 : number * 2 + 2])
                if fits == bool(inverted & bit):
                    return False
            bit = nft.XT_CONNTRACK_ORIGSRC_PORT << number
            if match & bit:
                fits = firsts[number] <= getattr(own, f"{end}_id") <= lasts[number]
                if fits == bool(inverted & bit):
                    return False
        left_s = max(0, connection.expires_ns - run.now_ns) // SECOND_NS
        for bit, fits in (
            (nft.XT_CONNTRACK_PROTO, connection.original.protocol == protocol),
            (nft.XT_CONNTRACK_STATUS, bool(connection.status & status)),
            (nft.XT_CONNTRACK_EXPIRES, low_s <= left_s <= high_s),
        ):
            if match & bit and fits == bool(inverted & bit):
                return False
        return True

    return judge


MATCHES: Final[dict[tuple[str, int], Kind]] = {
    ("tcp", 0): Kind(16, _tcp, (IPPROTO_TCP,)),
    ("udp", 0): Kind(16, _udp, (IPPROTO_UDP,)),
    ("icmp", 0): Kind(8, _icmp(IPPROTO_ICMP), (IPPROTO_ICMP,)),
    ("icmp6", 0): Kind(8, _icmp(IPPROTO_ICMPV6), (IPPROTO_ICMPV6,)),
    ("multiport", 1): Kind(48, _multiport, PORTED),
    ("addrtype", 1): Kind(8, _addrtype),
    ("comment", 0): Kind(256, _comment),
    ("mark", 1): Kind(16, _mark),
    ("connmark", 1): Kind(16, _connmark),
    ("owner", 1): Kind(24, _owner, (), (nft.NF_INET_LOCAL_OUT, nft.NF_INET_POST_ROUTING)),
    ("limit", 0): Kind(40, _limit),
    ("statistic", 0): Kind(24, _statistic),
    ("length", 0): Kind(8, _length),
    ("pkttype", 0): Kind(8, _pkttype),
    ("conntrack", 3): Kind(168, _conntrack),
    ("set", 1): Kind(8, SetMatch),
    ("set", 2): Kind(8, SetMatch),
    ("set", 4): Kind(48, SetMatch),
}
"""By name and revision."""
OF_A_FAMILY: Final = {"icmp": nft.NFPROTO_IPV4, "icmp6": nft.NFPROTO_IPV6}
TRACKED_MATCHES: Final = frozenset({"conntrack", "connmark"})
"""Those that ask for connections."""
OF_ALL_FAMILIES: Final = frozenset({
    "comment", "connmark", "conntrack", "limit", "mark", "owner", "pkttype", "statistic",
})  # fmt: skip
"""Registered once for all, NFPROTO_UNSPEC: of these it is told that only a revision is not there.
xt_find_match()."""


def match_known(name: str, revision: int, family: int) -> Kind | None:
    """In a table of this family."""
    return MATCHES.get((name, revision)) if OF_A_FAMILY.get(name, family) == family else None


def has_match(name: str, family: int) -> bool:
    """Some revision of it is known."""
    return any(
        name == each and match_known(name, revision, family) for each, revision in MATCHES
    )


def judge_of(name: str, revision: int, info: bytes, scope: Scope) -> Judge:
    """A match. Raises: ENOENT if it is not known, EINVAL."""
    found = match_known(name, revision, scope.table.family)
    if found is None:
        raise ENOENT(f"match {name}")
    if len(info) != found.size:
        raise EINVAL(f"{len(info)} bytes of {name}")
    if found.protocols and (scope.protocol[1] or scope.protocol[0] not in found.protocols):
        raise EINVAL(f"{name} without its protocol")
    return found.make(info, scope)
