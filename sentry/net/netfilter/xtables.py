"""Matches and targets of iptables that nftables has no expressions for: net/netfilter/nft_compat.c.

A program hands over the struct of an extension: its size is checked, and what stands in it is read
once, into an expression. An extension, or a revision of one, that is not here is ENOENT, and so
iptables knows that there is none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sentry.abi import nftables as nft
from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import EINVAL, ENOENT
from sentry.net.netfilter.following import SOURCES, TARGETS, masquerade, redirect
from sentry.net.netfilter.machine import (
    Attributes,
    Chain,
    Expression,
    Run,
    Scope,
    Used,
    expression,
    number,
    string,
)
from sentry.net.netfilter.nat import Range
from sentry.net.netfilter.xt_matches import Judge, judge_of
from sentry.net.netfilter.xt_sets import SetTarget

NAME_MOST: Final = 32
Act = Callable[[Run], int | None]
"""A target: a verdict, or None for the next rule."""
REJECTS4: Final = {0: 0, 1: 1, 2: 2, 3: 3, 5: 9, 6: 10, 8: 13}
"""IPT_ICMP_*: codes of ICMP_DEST_UNREACH."""
REJECTS6: Final = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 7: 5, 8: 6}
"""IP6T_ICMP6_*: codes of ICMPV6_DEST_UNREACH."""
RESET4, RESET6 = 7, 6


class Kind(NamedTuple):
    """An extension."""

    size: int
    """Of its struct, padded to 8 bytes."""
    make: Callable[[bytes, Scope], Act]
    table: str = ""
    """The table of iptables that it may stand in; empty: any."""
    hooks: tuple[int, ...] = ()
    """Where it may stand; empty: anywhere."""


def _mark(info: bytes, scope: Scope) -> Act:
    """struct xt_mark_tginfo2."""
    mark, mask = struct.unpack_from("<II", info)

    def act(run: Run) -> int | None:
        run.packet.mark = run.packet.mark & ~mask ^ mark
        return None

    return act


def _connmark(info: bytes, scope: Scope) -> Act:
    """struct xt_connmark_tginfo1: XT_CONNMARK_SET, _SAVE, _RESTORE."""
    mark, of_connection, of_packet, mode = struct.unpack_from("<IIIB", info)
    if mode > 2:
        raise EINVAL("mode")

    def act(run: Run) -> int | None:
        connection, packet = run.packet.connection, run.packet
        if connection is None:
            return None
        if mode == 0:
            connection.mark = connection.mark & ~of_connection ^ mark
        elif mode == 1:
            connection.mark = connection.mark & ~of_connection ^ packet.mark & of_packet
        else:
            packet.mark = packet.mark & ~of_packet ^ connection.mark & of_connection
        return None

    return act


def _untracked(info: bytes, scope: Scope) -> Act:
    """struct xt_ct_target_info, with XT_CT_NOTRACK and nothing else."""
    if not info[0] & 1 or info[0] & ~3 or any(info[1:]):
        raise EINVAL("anything but notrack")

    def act(run: Run) -> int | None:
        if run.packet.connection is None:
            run.packet.tracked = False
        return None

    return act


def _log(info: bytes, scope: Scope) -> Act:
    """struct xt_log_info."""
    prefix = info[2:32].split(b"\0", 1)[0].decode(errors="replace")
    if info[0] >= 8:
        raise EINVAL("level")

    def act(run: Run) -> int | None:
        run.place.log(run.packet, prefix)
        return None

    return act


def _reject(info: bytes, scope: Scope) -> Act:
    """struct ipt_reject_info, ip6t_reject_info."""
    is_v4 = scope.table.family == nft.NFPROTO_IPV4
    wanted = int.from_bytes(info[:4], "little")
    reset, codes = (RESET4, REJECTS4) if is_v4 else (RESET6, REJECTS6)
    kind, code = nft.NFT_REJECT_ICMP_UNREACH, codes.get(wanted, 0)
    if wanted == reset:
        kind = nft.NFT_REJECT_TCP_RST
        if scope.protocol != (IPPROTO_TCP, False):
            raise EINVAL("a reset, not of TCP")
    elif wanted not in codes:
        raise EINVAL("reject with what?")

    def act(run: Run) -> int | None:
        run.place.reject(run, kind, code)
        return nft.NF_DROP

    return act


def _range4(info: bytes) -> Range:
    """struct nf_nat_ipv4_multi_range_compat."""
    size, flags, first, last, low, high = struct.unpack_from(">4sI4s4sHH", info)
    flags = int.from_bytes(info[4:8], "little")
    if int.from_bytes(size, "little") != 1:
        raise EINVAL("one range")
    return Range(flags, first, last, low, high)


def _range(info: bytes, is_v4: bool) -> Range:
    """struct nf_nat_range, nf_nat_range2."""
    flags = int.from_bytes(info[:4], "little")
    size = 4 if is_v4 else 16
    low, high = struct.unpack_from(">HH", info, 36)
    return Range(flags, info[4 : 4 + size], info[20 : 20 + size], low, high)


def _read(info: bytes, scope: Scope) -> Range:
    """Raises: EINVAL."""
    is_v4 = scope.table.family == nft.NFPROTO_IPV4
    found = _range4(info) if len(info) == MULTI_RANGE else _range(info, is_v4)
    known = nft.NF_NAT_RANGE_MAP_IPS | nft.NF_NAT_RANGE_PROTO_SPECIFIED
    known |= nft.NF_NAT_RANGE_PROTO_RANDOM | nft.NF_NAT_RANGE_PERSISTENT
    if found.flags & ~(known | nft.NF_NAT_RANGE_PROTO_RANDOM_FULLY):
        raise EINVAL("flags")
    return found


def _translate(is_source: bool) -> Callable[[bytes, Scope], Act]:
    def make(info: bytes, scope: Scope) -> Act:
        wanted = _read(info, scope)
        is_v4 = scope.table.family == nft.NFPROTO_IPV4

        def act(run: Run) -> int | None:
            if run.packet.connection is None or run.packet.is_v4 != is_v4:
                return None
            return run.place.translate(run, wanted, is_source=is_source)

        return act

    return make


def _masquerade(info: bytes, scope: Scope) -> Act:
    wanted = _read(info, scope)
    if wanted.flags & nft.NF_NAT_RANGE_MAP_IPS:
        raise EINVAL("an address")
    return lambda run: masquerade(run, wanted.flags, wanted.first_port, wanted.last_port)


def _redirect(info: bytes, scope: Scope) -> Act:
    wanted = _read(info, scope)
    return lambda run: redirect(run, wanted.flags, wanted.first_port, wanted.last_port)


MULTI_RANGE: Final = 24
"""Bytes of the struct that extensions have which know IPv4 alone."""
RANGE, RANGE2 = 40, 48
_POST: Final = (nft.NF_INET_POST_ROUTING,)
TARGETS_KNOWN: Final[dict[tuple[str, int], dict[int, Kind]]] = {
    ("MARK", 2): {0: Kind(8, _mark)},
    ("CONNMARK", 1): {0: Kind(16, _connmark)},
    ("LOG", 0): {0: Kind(32, _log)},
    ("CT", 0): {0: Kind(40, _untracked, "raw", TARGETS)},
    ("CT", 1): {0: Kind(72, _untracked, "raw", TARGETS)},
    ("CT", 2): {0: Kind(72, _untracked, "raw", TARGETS)},
    ("REJECT", 0): {0: Kind(8, _reject, "filter")},
    ("SNAT", 0): {nft.NFPROTO_IPV4: Kind(MULTI_RANGE, _translate(True), "nat", SOURCES)},
    ("DNAT", 0): {nft.NFPROTO_IPV4: Kind(MULTI_RANGE, _translate(False), "nat", TARGETS)},
    ("SNAT", 1): {0: Kind(RANGE, _translate(True), "nat", SOURCES)},
    ("DNAT", 1): {0: Kind(RANGE, _translate(False), "nat", TARGETS)},
    ("SNAT", 2): {0: Kind(RANGE2, _translate(True), "nat", SOURCES)},
    ("DNAT", 2): {0: Kind(RANGE2, _translate(False), "nat", TARGETS)},
    ("MASQUERADE", 0): {
        nft.NFPROTO_IPV4: Kind(MULTI_RANGE, _masquerade, "nat", _POST),
        nft.NFPROTO_IPV6: Kind(RANGE, _masquerade, "nat", _POST),
    },
    ("REDIRECT", 0): {
        nft.NFPROTO_IPV4: Kind(MULTI_RANGE, _redirect, "nat", TARGETS),
        nft.NFPROTO_IPV6: Kind(RANGE, _redirect, "nat", TARGETS),
    },
    ("SET", 1): {0: Kind(8, SetTarget)},
    ("SET", 2): {0: Kind(16, SetTarget)},
    ("SET", 3): {0: Kind(24, SetTarget)},
}
"""By name and revision, then by family; 0: of any."""
TRACKED_TARGETS: Final = frozenset({"CONNMARK"})
"""Those that ask for connections, beside what translates."""
OF_ALL_FAMILIES: Final = frozenset({"DNAT", "SNAT"})
"""As xt_matches.OF_ALL_FAMILIES."""


def target_known(name: str, revision: int, family: int) -> Kind | None:
    """Of a table of this family."""
    found = TARGETS_KNOWN.get((name, revision), {})
    return found.get(family) or found.get(0)


def has_target(name: str, family: int) -> bool:
    """Some revision of it is known."""
    return any(
        name == each and target_known(name, revision, family) for each, revision in TARGETS_KNOWN
    )


def act_of(name: str, revision: int, info: bytes, scope: Scope) -> tuple[Kind, Act]:
    """A target, and its kind. Raises: ENOENT if it is not known, EINVAL."""
    found = target_known(name, revision, scope.table.family)
    if found is None:
        raise ENOENT(f"target {name}")
    if len(info) != found.size:
        raise EINVAL(f"{len(info)} bytes of {name}")
    return found, found.make(info, scope)


def used_by(part: Judge | Act | None) -> Iterable[Used]:
    """What a match or a target needs: a set."""
    used: Iterable[Used] = getattr(part, "uses", ())
    return used


@expression("match")
class Match(Expression):
    """One of `xt_matches.MATCHES`."""

    __slots__ = ("judge",)
    judge: Judge
    needs_tracking = True

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        name = string(data, nft.NFTA_MATCH_NAME, NAME_MOST)
        revision = number(data, nft.NFTA_MATCH_REV)
        info = data.get(nft.NFTA_MATCH_INFO)
        if info is None:
            raise EINVAL("no info")
        made.judge = judge_of(name, revision, info, scope)
        return made

    def run(self, run: Run) -> int | None:
        return None if self.judge(run) else nft.NFT_BREAK

    @property
    def uses(self) -> Iterable[Used]:
        return used_by(self.judge)


@expression("target")
class Target(Expression):
    """One of `TARGETS_KNOWN`."""

    __slots__ = ("act", "kind")
    act: Act
    kind: Kind

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        name = string(data, nft.NFTA_TARGET_NAME, NAME_MOST)
        revision = number(data, nft.NFTA_TARGET_REV)
        info = data.get(nft.NFTA_TARGET_INFO)
        if info is None:
            raise EINVAL("no info")
        made.kind, made.act = act_of(name, revision, info, scope)
        return made

    def run(self, run: Run) -> int | None:
        return self.act(run)

    @property
    def uses(self) -> Iterable[Used]:
        return used_by(self.act)

    def check(self, base: Chain) -> None:
        wanted = self.kind.table
        if wanted and (wanted == "nat") != (base.kind == "nat"):
            raise EINVAL("a target of another table")
        if self.kind.hooks and base.hook not in self.kind.hooks:
            raise EINVAL("a target of other hooks")


