"""Options of raw sockets: raw(7), do_raw_setsockopt(), do_rawv6_setsockopt()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, SOL_RAW
from sentry.errors import EINVAL, EOPNOTSUPP
from sentry.net.inet.ip_options import IP, empty_is_0, get_number, set_number, shown_number
from sentry.net.inet.ipv6_options import IPV6, V6ONLY
from sentry.net.options import Option, Options, flag, shows, whole
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.inet.raw import RawSocket
    from sentry.vfs.file import Caller


def is_foreign(sock: RawSocket, level: int) -> bool:
    """A level of a protocol that is not the socket's."""
    return level == IPPROTO_ICMPV6 and sock.protocol != IPPROTO_ICMPV6


def _check_icmp(row: Option, sock: RawSocket) -> None:
    if sock.protocol != (IPPROTO_ICMP if row.level == SOL_RAW else IPPROTO_ICMPV6):
        raise EOPNOTSUPP("not ICMP")


def _get_filter(row: Option, sock: RawSocket, caller: Caller, size: int) -> bytes:
    _check_icmp(row, sock)
    return sock.icmp_filter


def _set_filter(row: Option, sock: RawSocket, caller: Caller, value: bytes) -> None:
    _check_icmp(row, sock)
    size = len(sock.icmp_filter)
    sock.icmp_filter = value[:size].ljust(size, b"\0")


def _get_header(row: Option, sock: RawSocket, caller: Caller, size: int) -> bytes:
    return shown_number(int(sock.includes_header), size if row.level == IPPROTO_IP else 4)


def _set_header(row: Option, sock: RawSocket, caller: Caller, value: bytes) -> None:
    sock.includes_header = any(value)


def _set_header6(row: Option, sock: RawSocket, caller: Caller, value: bytes) -> None:
    row.parse(value)
    _set_header(row, sock, caller, value)


def _set_checksum(row: Option, sock: RawSocket, caller: Caller, value: bytes) -> None:
    at = whole(value)
    if sock.protocol == IPPROTO_ICMPV6 and row.level == IPPROTO_IPV6:
        raise EINVAL("ICMPv6 has one")
    if at > 0 and at % 2:
        raise EINVAL("an odd offset")
    sock.checksum_at = max(at, -1)


def _no_ports(row: Option, sock: Any, caller: Caller, value: bytes) -> None:
    raise EINVAL("the protocol is its port")


PING: Final = Options(SOL_RAW, abi, IP, IPV6, SOCKET)

HEADER4: Final = Options(IPPROTO_IP, abi, PING)
HEADER4.row("IP_HDRINCL", _get_header, _set_header)
HEADER4.row("IP_NODEFRAG", get_number, set_number, check=flag, parse=empty_is_0,
            partial="kept: there are no fragments")  # fmt: skip
RAW4: Final = Options(SOL_RAW, abi, HEADER4)
RAW4.row("ICMP_FILTER", _get_filter, _set_filter)

FILTER6: Final = Options(IPPROTO_ICMPV6, abi, IPV6, SOCKET)
FILTER6.row("ICMPV6_FILTER", _get_filter, _set_filter)
HEADER6: Final = Options(IPPROTO_IPV6, abi, FILTER6)
RAW6: Final = Options(SOL_RAW, abi, HEADER6)
for _rows in (HEADER6, RAW6):
    _rows.row("IPV6_CHECKSUM", shows(lambda sock: sock.checksum_at), _set_checksum)
    _rows.row("IPV6_HDRINCL", _get_header, _set_header6)
HEADER6.row("IPV6_V6ONLY", V6ONLY, _no_ports)
