"""Options of IPPROTO_IP: ip(7), net/ipv4/ip_sockglue.c. What both IP levels have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_RAW
from sentry.abi.socket import IPPROTO_IP, IPPROTO_IPV6, SOCK_RAW
from sentry.errors import EADDRNOTAVAIL, EINVAL, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP, EPERM
from sentry.net.inet import multicast
from sentry.net.inet.netfilter_options import IP_SETS, IP_TABLES
from sentry.net.options import (
    INT,
    SWITCH,
    Check,
    Option,
    Options,
    Parse,
    Setter,
    Within,
    exact,
    flag,
    show_nothing,
    tells,
    whole,
)

if TYPE_CHECKING:
    from sentry.net.inet.inetsocket import InetSocket
    from sentry.vfs.file import Caller

MAX_IP_OPTIONS: Final = 40
INET_ECN_MASK: Final = 3
PMTUDISC: Final = Within(0, 5)


# --- what may be given


def int_value(value: bytes) -> int:
    """An int, or one byte. Raises: EINVAL."""
    if len(value) < 4 and value:
        return value[0]
    return whole(value)


def empty_is_0(value: bytes) -> int:
    """The same; no value at all is 0."""
    return int_value(value) if value else 0


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


def _port_range(number: int) -> int:
    """IP_LOCAL_PORT_RANGE: the first port in the low half, the last in the high one."""
    low, high = number & 0xFFFF, number >> 16 & 0xFFFF
    if low and high and low > high:
        raise EINVAL("range")
    return number


# --- what is done with it


def shown_number(number: int, size: int) -> bytes:
    """An int; a small one may be one byte."""
    if 0 < size < 4 and 0 <= number <= 255:
        return bytes([number])
    return INT.pack(number)


def values_of(row: Option, sock: InetSocket) -> dict[int, int]:
    """Where the options of a level are."""
    return sock.ip_options if row.level == IPPROTO_IP else sock.ipv6_options


def get_number(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    """What most are."""
    return shown_number(sock.ip_options[row.number], size)


def set_number(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """The same."""
    values_of(row, sock)[row.number] = row.number_in(value)


def set_recverr(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """IP_RECVERR, IPV6_RECVERR."""
    set_number(row, sock, caller, value)
    if not values_of(row, sock)[row.number]:
        sock.forget_errors()


def check_transparent(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """IP_TRANSPARENT, IPV6_TRANSPARENT. Raises: EPERM."""
    rights, owner = caller.creds, sock.stack.owner
    if row.number_in(value) and not (
        rights.has_in(owner, CAP_NET_RAW) or rights.has_in(owner, CAP_NET_ADMIN)
    ):
        raise EPERM("CAP_NET_ADMIN")


def _set_transparent(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    check_transparent(row, sock, caller, value)
    set_number(row, sock, caller, value)


def join_or_leave(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """Membership of a multicast group."""
    multicast.change(sock, row.level, row.number, value)


def mtu(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    """IP_MTU, IPV6_MTU. Raises: ENOTCONN."""
    if sock.remote is None:
        raise ENOTCONN("no destination")
    return INT.pack(sock.mtu_towards(sock.remote))


def _set_interface(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    multicast.set_interface(sock, value)


def _set_options(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    if len(value) > MAX_IP_OPTIONS:
        raise EINVAL("options")


def _get_ttl(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    return shown_number(sock.hops, size)


def _get_protocol(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    """inet_num: of a raw socket the protocol, of others the port."""
    return shown_number(sock.protocol if sock.kind == SOCK_RAW else sock.local.port, size)


# --- the rows

IP: Final = Options(IPPROTO_IP, abi, IP_TABLES, IP_SETS)
DEFAULTS: Final[dict[int, int]] = {}
"""Of the options that are numbers."""


def _number(
    name: str,
    default: int = 0,
    check: Check = flag,
    parse: Parse = int_value,
    setter: Setter = set_number,
    partial: str = "",
) -> None:
    row = IP.row(
        name, get_number, setter, check=check, parse=parse, default=default, partial=partial
    )
    DEFAULTS[row.number] = default


_number("IP_TOS", 0, byte, empty_is_0)
IP.row("IP_TTL", _get_ttl, set_number, check=Within(1, 255, -1), parse=int_value)
DEFAULTS[abi.IP_TTL] = -1
_number("IP_HDRINCL", 0, unknown, empty_is_0)
_number("IP_ROUTER_ALERT", 0, invalid, partial="nobody routes: EINVAL")
_number("IP_RECVOPTS", parse=empty_is_0, partial="kept: no packet has options")
_number("IP_RETOPTS", parse=empty_is_0, partial="kept: no packet has options")
_number("IP_PKTINFO", parse=empty_is_0)
_number("IP_MTU_DISCOVER", 1, PMTUDISC, empty_is_0)
_number("IP_RECVERR", parse=empty_is_0, setter=set_recverr)
_number("IP_RECVTTL", parse=empty_is_0)
_number("IP_RECVTOS", parse=empty_is_0)
_number("IP_FREEBIND")
_number("IP_PASSSEC", parse=empty_is_0, partial="kept: there are no security labels")
_number("IP_TRANSPARENT", setter=_set_transparent)
_number("IP_RECVORIGDSTADDR", parse=empty_is_0)
_number("IP_MINTTL", 0, Within(0, 255), partial="kept: no packet is refused for it")
_number("IP_NODEFRAG", 0, unknown, empty_is_0, partial="can only be read: there are no fragments")
_number("IP_CHECKSUM", parse=empty_is_0, partial="kept: there are no checksums")
_number("IP_BIND_ADDRESS_NO_PORT", parse=empty_is_0)
_number("IP_RECVFRAGSIZE", parse=empty_is_0, partial="kept: there are no fragments")
_number("IP_RECVERR_RFC4884", 0, SWITCH, empty_is_0, partial="kept: errors have no extensions")
_number("IP_MULTICAST_TTL", 1, Within(0, 255, 1))
_number("IP_MULTICAST_LOOP", 1)
_number("IP_MULTICAST_ALL", 1, SWITCH)
_number("IP_UNICAST_IF", 0, no_address, exact, partial="no other interface can be chosen")
_number("IP_LOCAL_PORT_RANGE", 0, _port_range, exact)
IP.row("IP_IPSEC_POLICY", None, set_number, check=unsupported, parse=int_value,
       partial="no IPsec: EOPNOTSUPP")  # fmt: skip
IP.row("IP_XFRM_POLICY", None, set_number, check=invalid, parse=int_value,
       partial="no IPsec: EINVAL")  # fmt: skip
IP.row("IP_OPTIONS", show_nothing, _set_options, partial="no packet has options")
IP.row("IP_MULTICAST_IF", tells(lambda sock: sock.multicast_address), _set_interface)
IP.row("IP_MTU", mtu)
IP.row("IP_PROTOCOL", _get_protocol)
IP.row("IP_ADD_MEMBERSHIP", None, join_or_leave)
IP.row("IP_DROP_MEMBERSHIP", None, join_or_leave)
IP.row("MCAST_JOIN_GROUP", None, join_or_leave)
IP.row("MCAST_LEAVE_GROUP", None, join_or_leave)


# --- what streams have instead


def no_stream(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """An option for datagrams. Raises: ENOPROTOOPT of IPv6, EINVAL of IPv4."""
    raise (ENOPROTOOPT if row.level == IPPROTO_IPV6 else EINVAL)("a stream")


def without_ecn(check: Check) -> Check:
    """Two bits belong to TCP itself."""
    return lambda number: check(number) & ~INET_ECN_MASK


IP_STREAM: Final = Options(IPPROTO_IP, abi, IP)
IP_STREAM.row("IP_TOS", get_number, set_number, check=without_ecn(byte), parse=empty_is_0)
IP_STREAM.row("IP_MULTICAST_IF", tells(lambda sock: sock.multicast_address), no_stream)
IP_STREAM.row("IP_MULTICAST_TTL", get_number, no_stream)
IP_STREAM.row("IP_RECVFRAGSIZE", get_number, no_stream)
IP_STREAM.row("IP_PKTOPTIONS", show_nothing, partial="only of streams, and nothing is told")
