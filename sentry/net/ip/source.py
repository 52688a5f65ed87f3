"""From which address a packet goes: RFC 6724, 5; inet_select_addr(), ipv6_dev_get_saddr()."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sentry.abi.netlink import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_SECONDARY,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    RT_SCOPE_HOST,
)
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.net.interfaces import LINK, Address, Interface, masked, scope6

MAPPED: Final = bytes(10) + b"\xff\xff"
LABELS: Final = (
    (bytes(15) + b"\x01", 128, 0),
    (MAPPED + bytes(4), 96, 4),
    (b"\x20\x01" + bytes(14), 32, 5),
    (b"\x20\x01\x00\x10" + bytes(12), 28, 7),
    (b"\x20\x02" + bytes(14), 16, 2),
    (b"\xfc" + bytes(15), 7, 6),
    (b"\xfe\xc0" + bytes(14), 10, 11),
    (b"\x3f\xfe" + bytes(14), 16, 12),
    (bytes(16), 96, 3),
)  # fmt: skip
"""(prefix, its length, label): net/ipv6/addrlabel.c."""
OTHER_LABEL: Final = 1
MAX_LOOKED_AT: Final = 256
"""Addresses that are compared: a ceiling of ours."""


class Candidate(NamedTuple):
    """An address, and whether its interface is the one by which the packet leaves."""

    address: Address
    is_outgoing: bool


def select4(interface: Interface, target: bytes) -> bytes:
    """The first primary address whose network the target is in, else the first one; empty: none."""
    first = b""
    for address in interface.addresses[:MAX_LOOKED_AT]:
        if address.family != AF_INET or address.flags & IFA_F_SECONDARY:
            continue
        if address.scope >= RT_SCOPE_HOST:
            continue
        if masked(target, address.prefix) == address.network:
            return address.ip
        first = first or address.ip
    return first


def select6(outgoing: Interface, interfaces: Iterable[Interface], target: bytes) -> bytes:
    """The best address by the rules of RFC 6724, of equal ones the first; empty: there is none."""
    only = target[0] == 0xFF or scope6(target) <= LINK
    best: tuple[tuple[int, ...], bytes] | None = None
    looked_at = 0
    for interface in (outgoing,) if only else interfaces:
        if not interface.is_up:
            continue
        for address in interface.addresses:
            looked_at += 1
            if looked_at > MAX_LOOKED_AT:
                break
            if address.family != AF_INET6 or not _is_usable(address):
                continue
            rank = _rank(Candidate(address, interface is outgoing), target)
            if best is None or rank > best[0]:
                best = rank, address.ip
    return best[1] if best is not None else b""


def _is_usable(address: Address) -> bool:
    """Nobody else has it, as far as is known, and it is no group's."""
    if address.flags & IFA_F_DADFAILED or address.flags & IFA_F_TENTATIVE:
        return False
    return address.ip[0] != 0xFF and any(address.ip)


def _rank(candidate: Candidate, target: bytes) -> tuple[int, ...]:
    """Larger is better, by each rule in its order. Rules 4 (mobility) and 5.5 do not apply."""
    address = candidate.address
    own, wanted = scope6(address.ip), scope6(target)
    return (
        address.ip == target,
        own if own < wanted else 64 - own,
        not address.flags & IFA_F_DEPRECATED,
        candidate.is_outgoing,
        label(address.ip) == label(target),
        not address.flags & IFA_F_TEMPORARY,
        min(common_prefix(address.ip, target), address.prefix),
    )


def label(ip: bytes) -> int:
    """Of the longest prefix in the table of policies."""
    found = [(size, number) for prefix, size, number in LABELS if masked(ip, size) == prefix]
    return max(found)[1] if found else OTHER_LABEL


def common_prefix(one: bytes, other: bytes) -> int:
    """How many bits are the same."""
    different = int.from_bytes(one) ^ int.from_bytes(other)
    return len(one) * 8 - different.bit_length()
