"""Options of IPPROTO_IP and IPPROTO_IPV6 as tables: ip(7), ipv6(7), net/ipv4/ip_sockglue.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from sentry.abi import socket as abi
from sentry.errors import EADDRNOTAVAIL, EINVAL, ENOPROTOOPT, EOPNOTSUPP

Check = Callable[[int], int]


class Option(Struct, frozen=True):
    """One option that is a number."""

    default: int
    check: Check
    """Gives the value that is kept, or raises."""


def flag(number: int) -> int:
    """On or off."""
    return int(bool(number))


def within(low: int, high: int) -> Check:
    """A number between two others. Raises: EINVAL."""

    def check(number: int) -> int:
        if not low <= number <= high:
            raise EINVAL(f"{number}")
        return number

    return check


def or_default(low: int, high: int, default: int) -> Check:
    """The same; -1 is the default."""
    inner = within(low, high)
    return lambda number: default if number == -1 else inner(number)


def byte(number: int) -> int:
    """The low byte."""
    return number & 0xFF


def unsupported(number: int) -> int:
    """Raises: EOPNOTSUPP."""
    raise EOPNOTSUPP("option")


def unknown(number: int) -> int:
    """It can only be read, or not even that. Raises: ENOPROTOOPT."""
    raise ENOPROTOOPT("option")


def invalid(number: int) -> int:
    """Raises: EINVAL."""
    raise EINVAL("option")


def no_address(number: int) -> int:
    """0 takes back what was never given. Raises: EADDRNOTAVAIL."""
    if number:
        raise EADDRNOTAVAIL("option")
    return 0


def port_range(number: int) -> int:
    """IP_LOCAL_PORT_RANGE: the first port in the low half, the last in the high one."""
    low, high = number & 0xFFFF, number >> 16 & 0xFFFF
    if low and high and low > high:
        raise EINVAL("range")
    return number


def preferences(number: int) -> int:
    """IPV6_ADDR_PREFERENCES: what is not said is the default."""
    return within(0, 0x7FFFFFFF)(number) or PREFER_DEFAULT


PREFER_DEFAULT: Final = 0x500
"""IPV6_PREFER_SRC_PUBTMP_DEFAULT, IPV6_PREFER_SRC_HOME."""
_FLAG: Final = Option(0, flag)
_ON: Final = Option(1, flag)

IP: Final[dict[int, Option]] = {
    abi.IP_TOS: Option(0, byte),
    abi.IP_TTL: Option(64, or_default(1, 255, 64)),
    abi.IP_HDRINCL: Option(0, unknown),
    abi.IP_ROUTER_ALERT: Option(0, invalid),
    abi.IP_RECVOPTS: _FLAG,
    abi.IP_RETOPTS: _FLAG,
    abi.IP_PKTINFO: _FLAG,
    abi.IP_MTU_DISCOVER: Option(1, within(0, 5)),
    abi.IP_RECVERR: _FLAG,
    abi.IP_RECVTTL: _FLAG,
    abi.IP_RECVTOS: _FLAG,
    abi.IP_FREEBIND: _FLAG,
    abi.IP_PASSSEC: _FLAG,
    abi.IP_TRANSPARENT: _FLAG,
    abi.IP_RECVORIGDSTADDR: _FLAG,
    abi.IP_MINTTL: Option(0, within(0, 255)),
    abi.IP_NODEFRAG: Option(0, unknown),
    abi.IP_CHECKSUM: _FLAG,
    abi.IP_BIND_ADDRESS_NO_PORT: _FLAG,
    abi.IP_RECVFRAGSIZE: _FLAG,
    abi.IP_RECVERR_RFC4884: Option(0, within(0, 1)),
    abi.IP_MULTICAST_TTL: Option(1, or_default(0, 255, 1)),
    abi.IP_MULTICAST_LOOP: _ON,
    abi.IP_MULTICAST_ALL: Option(1, within(0, 1)),
    abi.IP_UNICAST_IF: Option(0, no_address),
    abi.IP_LOCAL_PORT_RANGE: Option(0, port_range),
}
IPV6: Final[dict[int, Option]] = {
    abi.IPV6_2292PKTINFO: _FLAG,
    abi.IPV6_2292HOPOPTS: _FLAG,
    abi.IPV6_2292DSTOPTS: _FLAG,
    abi.IPV6_2292RTHDR: _FLAG,
    abi.IPV6_2292HOPLIMIT: _FLAG,
    abi.IPV6_FLOWINFO: _FLAG,
    abi.IPV6_UNICAST_HOPS: Option(64, or_default(0, 255, 64)),
    abi.IPV6_MULTICAST_HOPS: Option(1, or_default(0, 255, 1)),
    abi.IPV6_MULTICAST_LOOP: Option(1, within(0, 1)),
    abi.IPV6_MTU_DISCOVER: Option(1, within(0, 5)),
    abi.IPV6_RECVERR: _FLAG,
    abi.IPV6_MULTICAST_ALL: _ON,
    abi.IPV6_ROUTER_ALERT_ISOLATE: _FLAG,
    abi.IPV6_RECVERR_RFC4884: Option(0, within(0, 1)),
    abi.IPV6_FLOWINFO_SEND: _FLAG,
    abi.IPV6_RECVPKTINFO: _FLAG,
    abi.IPV6_RECVHOPLIMIT: _FLAG,
    abi.IPV6_RECVHOPOPTS: _FLAG,
    abi.IPV6_RECVRTHDR: _FLAG,
    abi.IPV6_RECVDSTOPTS: _FLAG,
    abi.IPV6_RECVPATHMTU: _FLAG,
    abi.IPV6_DONTFRAG: _FLAG,
    abi.IPV6_RECVTCLASS: _FLAG,
    abi.IPV6_TCLASS: Option(0, or_default(0, 255, 0)),
    abi.IPV6_AUTOFLOWLABEL: _ON,
    abi.IPV6_MINHOPCOUNT: Option(0, within(0, 255)),
    abi.IPV6_ORIGDSTADDR: _FLAG,
    abi.IPV6_TRANSPARENT: _FLAG,
    abi.IPV6_UNICAST_IF: Option(0, no_address),
    abi.IPV6_FREEBIND: _FLAG,
    abi.IPV6_ADDR_PREFERENCES: Option(PREFER_DEFAULT, preferences),
    abi.IPV6_RECVFRAGSIZE: _FLAG,
    abi.IPV6_ROUTER_ALERT: Option(0, unknown),
    abi.IPV6_2292PKTOPTIONS: Option(0, flag),
    abi.IPV6_MTU: Option(0, lambda number: number if not number or number >= 1280 else invalid(0)),
}
REFUSED: Final[dict[tuple[int, int], Check]] = {
    (0, abi.IP_IPSEC_POLICY): unsupported,
    (0, abi.IP_XFRM_POLICY): invalid,
    (41, abi.IPV6_RTHDR): invalid,
    (41, abi.IPV6_DSTOPTS): invalid,
    (41, abi.IPV6_IPSEC_POLICY): unsupported,
    (41, abi.IPV6_XFRM_POLICY): unsupported,
}
EMPTY_MEANS_0: Final = frozenset(
    {
        abi.IP_RECVOPTS, abi.IP_RETOPTS, abi.IP_PKTINFO, abi.IP_MTU_DISCOVER, abi.IP_RECVERR,
        abi.IP_RECVTTL, abi.IP_RECVTOS, abi.IP_PASSSEC, abi.IP_RECVORIGDSTADDR, abi.IP_CHECKSUM,
        abi.IP_BIND_ADDRESS_NO_PORT, abi.IP_RECVERR_RFC4884, abi.IP_TOS, abi.IP_RECVFRAGSIZE,
        abi.IP_HDRINCL, abi.IP_NODEFRAG,
    }
)  # fmt: skip
"""Options of IPPROTO_IP that can be set with no value at all."""
SHORT_MEANS_0: Final = frozenset({abi.IPV6_DONTFRAG, abi.IPV6_AUTOFLOWLABEL})
"""Options of IPPROTO_IPV6 that can be set with less than an int."""
INT_EXACTLY: Final = frozenset(
    {(0, abi.IP_UNICAST_IF), (0, abi.IP_LOCAL_PORT_RANGE), (41, abi.IPV6_UNICAST_IF)}
)
NO_STREAM: Final = {
    (0, abi.IP_MULTICAST_IF): EINVAL, (0, abi.IP_MULTICAST_TTL): EINVAL,
    (0, abi.IP_RECVFRAGSIZE): EINVAL,
    (41, abi.IPV6_MULTICAST_IF): ENOPROTOOPT, (41, abi.IPV6_MULTICAST_HOPS): ENOPROTOOPT,
}  # fmt: skip
"""What a stream answers to options that are for datagrams."""
WITH_ECN: Final = frozenset({(0, abi.IP_TOS), (41, abi.IPV6_TCLASS)})
"""Two bits of these belong to TCP itself."""
RECVERR: Final = frozenset({(0, abi.IP_RECVERR), (41, abi.IPV6_RECVERR)})
NEEDS_RAW: Final = frozenset({(0, abi.IP_TRANSPARENT), (41, abi.IPV6_TRANSPARENT)})
