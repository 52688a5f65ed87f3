"""Options of IPPROTO_IPV6: ipv6(7), net/ipv6/ipv6_sockglue.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import IPPROTO_IPV6
from sentry.errors import EINVAL, ENOTCONN
from sentry.net.inet import addrform
from sentry.net.inet.ip_options import (
    PMTUDISC,
    check_transparent,
    join_or_leave,
    mtu,
    no_address,
    no_stream,
    set_number,
    set_recverr,
    unknown,
    unsupported,
    without_ecn,
)
from sentry.net.inet.netfilter_options import IP6_TABLES
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
    shows,
    whole,
)
from sentry.net.sysctls import default_hops

if TYPE_CHECKING:
    from sentry.net.inet.inetsocket import InetSocket
    from sentry.vfs.file import Caller

PATHMTU_SIZE: Final = 32
PKTINFO_SIZE: Final = 20
PREFER_DEFAULT: Final = 0x500
"""IPV6_PREFER_SRC_PUBTMP_DEFAULT, IPV6_PREFER_SRC_HOME."""
SHARED: Final = {
    abi.IPV6_FREEBIND: abi.IP_FREEBIND, abi.IPV6_TRANSPARENT: abi.IP_TRANSPARENT,
}  # fmt: skip
"""Options that are one with that of IPPROTO_IP."""
TCLASS: Final = Within(0, 255, 0)


def _short_is_0(value: bytes) -> int:
    """An int; less than that is 0."""
    return whole(value) if len(value) >= 4 else 0


def _preferences(number: int) -> int:
    """IPV6_ADDR_PREFERENCES: what is not said is the default."""
    return Within(0, 0x7FFFFFFF)(number) or PREFER_DEFAULT


def _mtu(number: int) -> int:
    return Within(1280, 0x7FFFFFFF)(number) if number else 0


def _get_number(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    return INT.pack(sock.ipv6_options[row.number])


def _get_hops(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    """Who is not connected knows no link."""
    chosen = sock.ipv6_options[row.number]
    if chosen < 0 and sock.remote is None:
        return INT.pack(default_hops(sock.stack, "all"))
    return INT.pack(sock.hops6)


def _get_shared(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    return INT.pack(sock.ip_options[SHARED[row.number]])


def _set_shared(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    if row.number == abi.IPV6_TRANSPARENT:
        check_transparent(row, sock, caller, value)
    sock.ip_options[SHARED[row.number]] = row.number_in(value)


def _set_interface(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    index = row.number_in(value)
    if index:
        sock.stack.interfaces.by_index(index)
    sock.multicast_index = index


def _set_v6only(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    wanted = bool(row.number_in(value))
    if sock.has_port:
        raise EINVAL("bound already")
    sock.v6only = wanted


def _set_sticky(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """IPV6_PKTINFO: by which interface datagrams leave. Linux heeds no address, and looks for the
    interface when it sends."""
    if len(value) < PKTINFO_SIZE:
        raise EINVAL("struct in6_pktinfo")
    index = row.number_in(value[16:])
    if sock.device not in (0, index):
        raise EINVAL("bound to another interface")
    sock.ipv6_options[row.number] = index


def _set_headers(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    """Nothing at all takes back what was never given."""
    if value:
        raise EINVAL("extension headers")


def _change_family(row: Option, sock: InetSocket, caller: Caller, value: bytes) -> None:
    addrform.change(sock, row.number_in(value))


def _path_mtu(row: Option, sock: InetSocket, caller: Caller, size: int) -> bytes:
    if size < PATHMTU_SIZE:
        raise EINVAL("struct ip6_mtuinfo")
    if sock.remote is None:
        raise ENOTCONN("no destination")
    return bytes(28) + struct.pack("<I", sock.mtu_towards(sock.remote))


IPV6: Final = Options(IPPROTO_IPV6, abi, IP6_TABLES)
DEFAULTS: Final[dict[int, int]] = {}
"""Of the options that are numbers."""
V6ONLY: Final = shows(lambda sock: sock.v6only)
MULTICAST_IF: Final = shows(lambda sock: sock.multicast_index)


def _number(
    name: str,
    default: int = 0,
    check: Check = flag,
    parse: Parse = whole,
    setter: Setter = set_number,
    partial: str = "",
) -> None:
    row = IPV6.row(
        name, _get_number, setter, check=check, parse=parse, default=default, partial=partial
    )
    DEFAULTS[row.number] = default


_number("IPV6_2292PKTINFO")
_number("IPV6_2292HOPOPTS", partial="kept: packets have no extension headers")
_number("IPV6_2292DSTOPTS", partial="kept: packets have no extension headers")
_number("IPV6_2292RTHDR", partial="kept: packets have no extension headers")
_number("IPV6_2292HOPLIMIT")
_number("IPV6_FLOWINFO", partial="kept: packets have no flow labels")
IPV6.row("IPV6_UNICAST_HOPS", _get_hops, set_number, check=Within(0, 255, -1))
DEFAULTS[abi.IPV6_UNICAST_HOPS] = -1
_number("IPV6_MULTICAST_HOPS", 1, Within(0, 255, 1))
_number("IPV6_MULTICAST_LOOP", 1, SWITCH)
_number("IPV6_MTU_DISCOVER", 1, PMTUDISC)
_number("IPV6_RECVERR", setter=set_recverr)
_number("IPV6_MULTICAST_ALL", 1)
_number("IPV6_ROUTER_ALERT_ISOLATE", partial="kept: nobody routes")
_number("IPV6_RECVERR_RFC4884", 0, SWITCH, partial="kept: errors have no extensions")
_number("IPV6_FLOWINFO_SEND", partial="kept: packets have no flow labels")
_number("IPV6_RECVPKTINFO")
_number("IPV6_RECVHOPLIMIT")
_number("IPV6_RECVHOPOPTS", partial="kept: packets have no extension headers")
_number("IPV6_RECVRTHDR", partial="kept: packets have no extension headers")
_number("IPV6_RECVDSTOPTS", partial="kept: packets have no extension headers")
_number("IPV6_RECVPATHMTU")
_number("IPV6_DONTFRAG", parse=_short_is_0)
_number("IPV6_RECVTCLASS")
_number("IPV6_TCLASS", 0, TCLASS)
_number("IPV6_AUTOFLOWLABEL", 1, parse=_short_is_0, partial="kept: packets have no flow labels")
_number("IPV6_MINHOPCOUNT", 0, Within(0, 255), partial="kept: no packet is refused for it")
_number("IPV6_ORIGDSTADDR")
_number("IPV6_UNICAST_IF", 0, no_address, exact, partial="no other interface can be chosen")
_number("IPV6_ADDR_PREFERENCES", PREFER_DEFAULT, _preferences, partial="kept: there is one address")
_number("IPV6_RECVFRAGSIZE", parse=_short_is_0, partial="kept: there are no fragments")
_number("IPV6_ROUTER_ALERT", 0, unknown, partial="can only be read: nobody routes")
for _name in ("IPV6_FREEBIND", "IPV6_TRANSPARENT"):
    IPV6.row(_name, _get_shared, _set_shared, check=flag)
IPV6.row("IPV6_MTU", mtu, set_number, check=_mtu)
for _name in ("IPV6_RTHDR", "IPV6_DSTOPTS", "IPV6_HOPOPTS", "IPV6_RTHDRDSTOPTS"):
    IPV6.row(_name, show_nothing, _set_headers, partial="no extension headers: EINVAL")
IPV6.row("IPV6_IPSEC_POLICY", None, set_number, check=unsupported, partial="no IPsec: EOPNOTSUPP")
IPV6.row("IPV6_XFRM_POLICY", None, set_number, check=unsupported, partial="no IPsec: EOPNOTSUPP")
IPV6.row("IPV6_V6ONLY", V6ONLY, _set_v6only, check=flag)
IPV6.row("IPV6_ADDRFORM", shows(addrform.value), _change_family)
IPV6.row("IPV6_MULTICAST_IF", MULTICAST_IF, _set_interface)
IPV6.row("IPV6_PKTINFO", None, _set_sticky)
DEFAULTS[abi.IPV6_PKTINFO] = 0
IPV6.row("IPV6_PATHMTU", _path_mtu)
IPV6.row("IPV6_2292PKTOPTIONS", None, _set_headers, partial="no control messages are kept")
IPV6.row("IPV6_ADD_MEMBERSHIP", None, join_or_leave)
IPV6.row("IPV6_DROP_MEMBERSHIP", None, join_or_leave)
IPV6.row("MCAST_JOIN_GROUP", None, join_or_leave)
IPV6.row("MCAST_LEAVE_GROUP", None, join_or_leave)

IPV6_STREAM: Final = Options(IPPROTO_IPV6, abi, IPV6)
IPV6_STREAM.row("IPV6_2292PKTOPTIONS", show_nothing, _set_headers, partial="nothing is told")
IPV6_STREAM.row("IPV6_TCLASS", _get_number, set_number, check=without_ecn(TCLASS))
IPV6_STREAM.row("IPV6_MULTICAST_IF", MULTICAST_IF, no_stream)
IPV6_STREAM.row("IPV6_MULTICAST_HOPS", _get_number, no_stream)
