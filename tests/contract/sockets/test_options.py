"""Every row of every family's socket options: legal values, wrong ones, lengths; as Linux does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IPV6,
    IPPROTO_UDPLITE,
    SO_BINDTODEVICE,
    SOCK_DGRAM,
    SOCK_RAW,
    SOL_RAW,
    SOL_SOCKET,
)
from sentry.errors import EINVAL, ENOPROTOOPT, EOPNOTSUPP
from sentry.net.inet.raw_options import RAW4, RAW6
from sentry.net.inet.udp_options import UDPLITE
from sentry.net.options import INT, SWITCH, Option, Within, flag
from tests.contract.sockets.calls import Sockets
from tests.contract.sockets.conftest import FAMILIES as CONNECTED
from tests.contract.sockets.conftest import LOCAL4, LOCAL6, Family, no_pair

NO_OPTION = 9999
SIZES = (0, 1, 3, 4, 8, 16, 64)
UNKNOWN = (-ENOPROTOOPT.number, -EOPNOTSUPP.number)
DIFFERENT = {
    "numbers of the host's": {
        "SO_COOKIE", "SO_NETNS_COOKIE", "TCP_INFO", "TCP_TIMESTAMP", "TCP_CONGESTION",
        "TCP_CC_INFO",
    },
    "since Linux 6.16 only families that have control messages know them": {
        "SO_PASSCRED", "SO_PASSSEC", "SO_PASSPIDFD",
    },
    "what is not there": {
        "SO_TXTIME", "TCP_REPAIR", "TCP_FASTOPEN_KEY", "IP_OPTIONS", "IP_IPSEC_POLICY",
        "IP_XFRM_POLICY", "IPV6_IPSEC_POLICY", "IPV6_XFRM_POLICY", "PACKET_RX_RING",
        "PACKET_TX_RING", "NETLINK_LISTEN_ALL_NSID", "IPV6_ADDR_PREFERENCES", "IP_ROUTER_ALERT",
        "IPV6_RTHDR", "IPV6_DSTOPTS", "IPV6_HOPOPTS", "IPV6_RTHDRDSTOPTS", "IPV6_2292PKTOPTIONS",
    },
    "a hardened Linux does not change it any more: tests/abi/net_ipv6.c": {"IPV6_ADDRFORM"},
    "no room is made before the first group": {"NETLINK_LIST_MEMBERSHIPS"},
    "only the sandbox has a route to groups": {"IP_ADD_MEMBERSHIP", "IP_DROP_MEMBERSHIP"},
    "everything is heard anyway": {"PACKET_ADD_MEMBERSHIP"},
}  # fmt: skip
"""Options whose answers are not Linux's, and why."""
NOT_COMPARED = set().union(*DIFFERENT.values())


FAMILIES = CONNECTED | {
    "raw": Family(AF_INET, SOCK_RAW, IPPROTO_ICMP, RAW4, LOCAL4, no_pair),
    "raw6": Family(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, RAW6, LOCAL6, no_pair),
    "raw of another protocol": Family(AF_INET, SOCK_RAW, 253, RAW4, LOCAL4, no_pair),
    "raw6 of another protocol": Family(AF_INET6, SOCK_RAW, 253, RAW6, LOCAL6, no_pair),
    "udplite": Family(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, UDPLITE, LOCAL4, no_pair),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Those of the whole contract, and some that are only asked for options."""
    return FAMILIES[request.param]


def rows_of(family: Family) -> Iterator[Option]:
    """The rows that a socket of the family has."""
    for row in family.options.everything().values():
        if row.level != IPPROTO_IPV6 or family.domain == AF_INET6:
            yield row


def legal_numbers(row: Option) -> tuple[int, ...]:
    """What its rule lets pass."""
    if row.check is flag or row.check is SWITCH:
        return (0, 1)
    if isinstance(row.check, Within):
        return (max(row.check.low, 0), row.check.high)
    return ()


def answers(sockets: Sockets, family: Family, row: Option) -> list[Any]:
    """What it says to reads and changes of every length, one after the other to the same socket:
    Linux takes 17 ms to close one of packets."""
    found: list[Any] = []
    fd = family.new(sockets)
    for size in SIZES:
        for byte in (0, 1, 7):
            before = sockets.get(fd, row.level, row.number, size)
            done = sockets.set(fd, row.level, row.number, bytes([byte, *bytes(63)])[:size])
            after = sockets.get(fd, row.level, row.number)
            found.append((size, byte, before, done, after))
    sockets.ok("close", fd)
    return found


def is_unknown(found: list[Any]) -> bool:
    """A Linux that is older than the option."""
    return all(result in (*UNKNOWN, -EINVAL.number) for case in found for result in case[2:])


def test_answers_are_those_of_linux(linux: Sockets, sentry: Sockets, family: Family) -> None:
    different = {}
    for row in rows_of(family):
        if row.name in NOT_COMPARED:
            continue
        ours, theirs = answers(sentry, family, row), answers(linux, family, row)
        if ours != theirs and not is_unknown(theirs):
            different[row.name] = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert not different


def test_legal_numbers_are_kept(sentry: Sockets, family: Family) -> None:
    for row in rows_of(family):
        for number in legal_numbers(row):
            fd = family.new(sentry)
            done = sentry.set(fd, row.level, row.number, INT.pack(number))
            shown = sentry.get(fd, row.level, row.number)
            if row.getter is not None and row.setter is not None and not done:
                assert shown == INT.pack(row.check(number)), (row.name, number)
            else:
                assert done == 0 or row.partial or done in UNKNOWN, (row.name, number, done)
            sentry.ok("close", fd)


def test_numbers_out_of_bounds_are_refused(sentry: Sockets, family: Family) -> None:
    fd = family.new(sentry)
    for row in rows_of(family):
        if row.setter is None or not isinstance(row.check, Within):
            continue
        low, high = row.check.low, row.check.high
        for number in {max(low - 1, -2), min(high + 1, 0x7FFFFFFF)} - {low, high}:
            if number == -1 and row.check.default is not None:
                continue
            before = sentry.get(fd, row.level, row.number)
            done = sentry.set(fd, row.level, row.number, INT.pack(number))
            assert done in (-EINVAL.number, *UNKNOWN), (row.name, number)
            assert sentry.get(fd, row.level, row.number) == before, row.name


def test_less_than_an_int_is_refused_by_sol_socket(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    for row in rows_of(family):
        if row.level == SOL_SOCKET and row.number != SO_BINDTODEVICE:
            assert sockets.set(fd, row.level, row.number, bytes(3)) == -EINVAL.number, row.name


def test_negative_lengths_are_refused(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    at = sockets.place(bytes(64))
    for row in rows_of(family):
        level, name = row.level, row.number
        if level in (IPPROTO_IPV6, IPPROTO_ICMPV6, SOL_RAW):
            continue  # Linux takes it as a big room, or looks at the protocol first
        assert sockets.call("setsockopt", fd, level, name, at, -1) == -EINVAL.number, row.name
        room = sockets.place(INT.pack(-1))
        assert sockets.call("getsockopt", fd, level, name, at, room) == -EINVAL.number, row.name


def test_what_nobody_knows_is_refused(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    unknown = -ENOPROTOOPT.number
    assert sockets.get(fd, SOL_SOCKET, NO_OPTION) == unknown
    assert sockets.set(fd, SOL_SOCKET, NO_OPTION, bytes(4)) == unknown
    assert sockets.get(fd, family.options.level, NO_OPTION) == unknown
    assert sockets.set(fd, family.options.level, NO_OPTION, bytes(4)) == unknown


def test_a_level_of_nobody_is_refused(sockets: Sockets, family: Family) -> None:
    fd = family.new(sockets)
    unsupported = family.domain in (AF_UNIX, AF_INET)
    assert sockets.get(fd, NO_OPTION, 1) == UNKNOWN[unsupported]
    assert sockets.set(fd, NO_OPTION, 1, bytes(4)) == UNKNOWN[family.domain == AF_UNIX]


@pytest.mark.parametrize("name", sorted(NOT_COMPARED))
def test_what_is_not_compared_is_an_option(name: str) -> None:
    assert any(row.name == name for family in FAMILIES.values() for row in rows_of(family))
