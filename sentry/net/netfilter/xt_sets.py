"""Rules of iptables that ask sets of ipset(8), or fill them: net/netfilter/xt_set.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi import ipset as abi
from sentry.abi.nftables import NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC
from sentry.abi.socket import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.errors import EINVAL, ERANGE, Errno
from sentry.net.netfilter.ip_sets import U64, Given, Key, masked
from sentry.net.netfilter.machine import MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.net.netfilter.ip_sets import Content, Element, IpSet
    from sentry.net.netfilter.machine import Run, Scope, Used
    from sentry.net.netfilter.packet import Packet

INFO: Final = struct.Struct("<HBB")
"""struct xt_set_info."""
MATCH4: Final = struct.Struct("<4xQB7xQB7xI4x")
"""struct xt_set_info_match_v4, behind it."""
PORTED: Final = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP)
PER_STEP: Final = 4
"""Sizes of networks that are looked up for a step of the packet."""
NOTHING: Final = (1 << 32) - 1
"""IPSET_NO_TIMEOUT."""
MOST_S: Final = NOTHING // 1000
"""IPSET_MAX_TIMEOUT."""


class Wanted(NamedTuple):
    """What a match says of the element that is met: operations and numbers."""

    flags: int = 0
    packets: tuple[int, int] = (abi.IPSET_COUNTER_NONE, 0)
    octets: tuple[int, int] = (abi.IPSET_COUNTER_NONE, 0)


def _fits(own: int, wanted: tuple[int, int]) -> bool:
    """ip_set_match_counter()."""
    operation, number = wanted
    return {
        abi.IPSET_COUNTER_NONE: True, abi.IPSET_COUNTER_EQ: own == number,
        abi.IPSET_COUNTER_NE: own != number, abi.IPSET_COUNTER_LT: own < number,
        abi.IPSET_COUNTER_GT: own > number,
    }.get(operation, False)  # fmt: skip


def _is_met(content: Content, element: Element, packet: Packet, wanted: Wanted) -> bool:
    """It counts a packet: ip_set_match_extensions()."""
    if not content.has_counters:
        return True
    if not wanted.flags & abi.IPSET_FLAG_SKIP_COUNTER_UPDATE:
        element.packets = element.packets + 1 & U64
        element.octets = element.octets + len(packet.data) & U64
    if not wanted.flags & abi.IPSET_FLAG_MATCH_COUNTERS:
        return True
    return _fits(element.packets, wanted.packets) and _fits(element.octets, wanted.octets)


class Lookup:
    """A set, and what of a packet it is asked about."""

    __slots__ = ("dimension", "flags", "group")

    def __init__(self, group: IpSet, dimension: int, flags: int) -> None:
        self.group = group
        self.dimension = dimension
        self.flags = flags
        """A bit for each thing that is the source's, from bit 1 on."""

    @classmethod
    def read(cls, info: bytes, scope: Scope) -> Lookup:
        """Raises: ENOENT, ERANGE."""
        index, dimension, flags = INFO.unpack_from(info)
        group = scope.ip_sets.at(index)
        if dimension > abi.IPSET_DIM_MAX:
            raise ERANGE("dimensions")
        return cls(group, dimension, flags)

    def _about(self, group: IpSet) -> Lookup:
        """The same of another set."""
        return Lookup(group, self.dimension, self.flags)

    def _takes(self, packet: Packet) -> bool:
        """A set may be asked about such a packet at all."""
        content = self.group.content
        family = NFPROTO_IPV4 if packet.is_v4 else NFPROTO_IPV6
        is_ours = content.family in (NFPROTO_UNSPEC, family)
        return is_ours and self.dimension >= content.kind.dimension

    def _key(self, packet: Packet, *, is_test: bool) -> Key | None:
        """What of a packet may be in the set. None: nothing."""
        content, at = self.group.content, 1
        kind, width = content.kind, content.width
        ip = prefix = protocol = port = 0
        if kind.has_ip:
            ip = int.from_bytes(packet.source if self.flags >> at & 1 else packet.target)
            if kind.has_prefix:
                prefix = width if is_test or not content.prefixes else content.prefixes[0]
                ip = masked(ip, prefix, width)
            elif not kind.has_port:
                ip = masked(ip, content.netmask, width)
                if not ip:
                    return None
            at = 2
        if kind.has_port:
            found = _port(packet, is_source=bool(self.flags >> at & 1))
            if found is None:
                return None
            protocol, port = found
            if not kind.has_ip:
                if protocol not in (IPPROTO_TCP, IPPROTO_UDP):
                    return None
                if not content.first <= port <= content.last:
                    return None
                protocol = 0
        return Key(ip, prefix, protocol, port)

    def test(self, run: Run, wanted: Wanted) -> bool:
        """ip_set_test()."""
        packet, content = run.packet, self.group.content
        if not self._takes(packet):
            return False
        if content.kind.is_list:
            return self._test_list(run, wanted)
        key = self._key(packet, is_test=True)
        if key is None:
            return False
        packet.steps += len(content.prefixes) // PER_STEP
        if packet.steps > MAX_STEPS:
            return False
        for element in content.holding(run.now_ns, key):
            if _is_met(content, element, packet, wanted):
                turned = wanted.flags & abi.IPSET_FLAG_RETURN_NOMATCH and content.kind.has_prefix
                return element.is_exception == bool(turned)
        return False

    def _test_list(self, run: Run, wanted: Wanted) -> bool:
        """list_set_ktest()."""
        content, flags = self.group.content, wanted.flags & ~abi.IPSET_FLAG_MATCH_COUNTERS
        if flags & abi.IPSET_FLAG_SKIP_SUBCOUNTER_UPDATE:
            flags |= abi.IPSET_FLAG_SKIP_COUNTER_UPDATE
        inner = wanted._replace(flags=flags)
        for group, element in content.living(run.now_ns):
            run.packet.steps += 1
            if run.packet.steps > MAX_STEPS:
                return False
            if self._about(group).test(run, inner) and _is_met(
                content, element, run.packet, wanted
            ):
                return True
        return False

    def add(self, run: Run, timeout_s: int | None, *, replaces: bool) -> bool:
        """ip_set_add(): whether it is new, or may be there."""
        packet, content = run.packet, self.group.content
        if not self._takes(packet):
            return False
        if content.kind.is_list:
            return any(
                each.add(run, timeout_s, replaces=replaces) for each in self._members(run)
            )
        key = self._key(packet, is_test=False)
        if key is None:
            return False
        given = Given(timeout_s, 1, len(packet.data))
        try:
            content.add(run.now_ns, key, given, replaces=replaces)
        except Errno:
            return False
        return True

    def remove(self, run: Run) -> bool:
        """ip_set_del(): whether it was there."""
        content = self.group.content
        if not self._takes(run.packet):
            return False
        if content.kind.is_list:
            return any(each.remove(run) for each in self._members(run))
        key = self._key(run.packet, is_test=False)
        if key is None or content.find(run.now_ns, key) is None:
            return False
        content.remove(run.now_ns, key)
        return True

    def _members(self, run: Run) -> Iterator[Lookup]:
        """Of a list, each a step of the packet."""
        for group, _ in self.group.content.living(run.now_ns):
            run.packet.steps += 1
            if run.packet.steps > MAX_STEPS:
                return
            yield self._about(group)


def _port(packet: Packet, *, is_source: bool) -> tuple[int, int] | None:
    """Its protocol and a port, or type and code: ip_set_get_ip4_port(). None: it is cut."""
    protocol = packet.protocol
    if packet.is_later:
        return None
    if protocol in PORTED:
        if not packet.has(4):
            return None
        at = packet.at if is_source else packet.at + 2
        return protocol, int.from_bytes(packet.data[at : at + 2])
    if protocol == (IPPROTO_ICMP if packet.is_v4 else IPPROTO_ICMPV6):
        if not packet.has(2):
            return None
        return protocol, int.from_bytes(packet.data[packet.at : packet.at + 2])
    return protocol, 0


class SetMatch:
    """A match: struct xt_set_info_match_v1, _v4. Raises: ENOENT, ERANGE."""

    __slots__ = ("_is_inverted", "_lookup", "_wanted", "uses")

    def __init__(self, info: bytes, scope: Scope) -> None:
        lookup = Lookup.read(info, scope)
        self._lookup = lookup
        self._is_inverted = bool(lookup.flags & abi.IPSET_INV_MATCH)
        self._wanted = Wanted(lookup.flags & abi.IPSET_FLAG_RETURN_NOMATCH)
        if len(info) > 8:
            packets, of_packets, octets, of_octets, flags = MATCH4.unpack_from(info, INFO.size)
            if of_packets or of_octets:
                flags |= abi.IPSET_FLAG_MATCH_COUNTERS
            self._wanted = Wanted(flags, (of_packets, packets), (of_octets, octets))
        self.uses: tuple[Used, ...] = (lookup.group,)

    def __call__(self, run: Run) -> bool:
        """Whether a packet is in the set."""
        return self._lookup.test(run, self._wanted) != self._is_inverted


class SetTarget:
    """A target: struct xt_set_info_target_v1 to _v3. Raises: EINVAL, ENOENT, ERANGE."""

    __slots__ = ("_adds", "_removes", "_replaces", "_timeout_s", "uses")

    def __init__(self, info: bytes, scope: Scope) -> None:
        self._replaces = False
        self._timeout_s: int | None = None
        parts = 3 if len(info) == 24 else 2
        if len(info) > 8:
            flags, timeout_s = struct.unpack_from("<II", info, parts * INFO.size)
            self._replaces = bool(flags & abi.IPSET_FLAG_EXIST)
            if timeout_s != NOTHING:
                self._timeout_s = min(timeout_s, MOST_S)
        found = [
            None if each[0] == abi.IPSET_INVALID_ID else Lookup.read(INFO.pack(*each), scope)
            for each in INFO.iter_unpack(info[: parts * INFO.size])
        ]
        if any(found[2:]):
            raise EINVAL("struct skb_info")
        self._adds, self._removes = found[:2]
        self.uses: tuple[Used, ...] = tuple(each.group for each in found if each is not None)

    def __call__(self, run: Run) -> int | None:
        """A packet is put into one set and taken out of another one."""
        if self._adds is not None:
            self._adds.add(run, self._timeout_s, replaces=self._replaces)
        if self._removes is not None:
            self._removes.remove(run)
        return None
