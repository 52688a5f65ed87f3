"""Which socket options reach the host: an allow-list, by level. socket(7), ip(7), ipv6(7), tcp(7).

Not here: what attaches programs (BPF), what needs rights that the Sentry does not have, and
time-outs, which the Sentry keeps itself. `runsc/filters` allows setsockopt(2) for these alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.net.host import calls
from sentry.net.options import Option, Options
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.host.socket import HostSocket
    from sentry.vfs.file import Caller

OURS: Final = frozenset(
    {
        "SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_PEERPIDFD",
        "SO_RCVTIMEO_OLD", "SO_RCVTIMEO_NEW", "SO_SNDTIMEO_OLD", "SO_SNDTIMEO_NEW",
    }
)  # fmt: skip
"""Options of SOL_SOCKET that need no call."""

MAX_VALUE: Final = 4096
"""Bytes of an option."""


def _pass_set(row: Option, sock: HostSocket, caller: Caller, value: bytes) -> None:
    calls.set_option(sock.fd, row.level, row.number, value[:MAX_VALUE])


def _pass_get(row: Option, sock: HostSocket, caller: Caller, size: int) -> bytes:
    return calls.option(sock.fd, row.level, row.number, min(size, MAX_VALUE))


def _set_lowat(row: Option, sock: HostSocket, caller: Caller, value: bytes) -> None:
    """SO_RCVLOWAT: the host's, and ours for how long a receive waits."""
    _pass_set(row, sock, caller, value)
    ours = SOCKET[row.level, row.number]
    assert ours.setter is not None
    ours.setter(ours, sock, caller, value)


def _level(
    level: int, settable: tuple[str, ...], readable: tuple[str, ...], *others: Options
) -> Options:
    rows = Options(level, abi, *others)
    for name in settable:
        rows.row(name, _pass_get, _set_lowat if name == "SO_RCVLOWAT" else _pass_set)
    for name in readable:
        rows.row(name, _pass_get)
    return rows


_SOCKET: Final = (
    "SO_REUSEADDR", "SO_REUSEPORT", "SO_KEEPALIVE", "SO_BROADCAST", "SO_OOBINLINE", "SO_LINGER",
    "SO_SNDBUF", "SO_RCVBUF", "SO_RCVLOWAT", "SO_DONTROUTE", "SO_NO_CHECK", "SO_PRIORITY",
    "SO_TIMESTAMP_OLD", "SO_TIMESTAMPNS_OLD", "SO_TIMESTAMP_NEW", "SO_TIMESTAMPNS_NEW",
    "SO_RXQ_OVFL", "SO_BINDTODEVICE", "SO_BINDTOIFINDEX", "SO_MAX_PACING_RATE",
    "SO_SELECT_ERR_QUEUE",
)  # fmt: skip
_IP: Final = (
    "IP_TOS", "IP_TTL", "IP_RECVTOS", "IP_RECVTTL", "IP_PKTINFO", "IP_RECVERR", "IP_MTU_DISCOVER",
    "IP_MULTICAST_IF", "IP_MULTICAST_TTL", "IP_MULTICAST_LOOP", "IP_MULTICAST_ALL",
    "IP_ADD_MEMBERSHIP", "IP_DROP_MEMBERSHIP", "IP_ADD_SOURCE_MEMBERSHIP",
    "IP_DROP_SOURCE_MEMBERSHIP", "IP_BIND_ADDRESS_NO_PORT", "IP_FREEBIND", "IP_MINTTL",
    "IP_UNICAST_IF", "IP_LOCAL_PORT_RANGE", "IP_RECVORIGDSTADDR",
)  # fmt: skip
_IPV6: Final = (
    "IPV6_V6ONLY", "IPV6_UNICAST_HOPS", "IPV6_MULTICAST_IF", "IPV6_MULTICAST_HOPS",
    "IPV6_MULTICAST_LOOP", "IPV6_MULTICAST_ALL", "IPV6_ADD_MEMBERSHIP", "IPV6_DROP_MEMBERSHIP",
    "IPV6_MTU_DISCOVER", "IPV6_MTU", "IPV6_RECVPKTINFO", "IPV6_RECVHOPLIMIT", "IPV6_RECVTCLASS",
    "IPV6_TCLASS", "IPV6_RECVERR", "IPV6_DONTFRAG", "IPV6_AUTOFLOWLABEL", "IPV6_ADDR_PREFERENCES",
    "IPV6_FREEBIND", "IPV6_MINHOPCOUNT", "IPV6_UNICAST_IF", "IPV6_RECVORIGDSTADDR",
)  # fmt: skip
_TCP: Final = (
    "TCP_NODELAY", "TCP_CORK", "TCP_MAXSEG", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT",
    "TCP_SYNCNT", "TCP_LINGER2", "TCP_DEFER_ACCEPT", "TCP_WINDOW_CLAMP", "TCP_QUICKACK",
    "TCP_CONGESTION", "TCP_USER_TIMEOUT", "TCP_FASTOPEN", "TCP_FASTOPEN_CONNECT",
    "TCP_NOTSENT_LOWAT", "TCP_INQ", "TCP_SAVE_SYN",
)  # fmt: skip
_UDP: Final = (
    "UDP_CORK", "UDP_SEGMENT", "UDP_GRO", "UDP_NO_CHECK6_TX", "UDP_NO_CHECK6_RX",
)  # fmt: skip

HOST: Final = _level(
    abi.SOL_SOCKET,
    _SOCKET,
    ("SO_ERROR", "SO_ACCEPTCONN", "SO_INCOMING_CPU", "SO_MEMINFO", "SO_COOKIE"),
    _level(abi.IPPROTO_IP, _IP, ("IP_MTU",)),
    _level(abi.IPPROTO_IPV6, _IPV6, ()),
    _level(abi.IPPROTO_TCP, _TCP, ("TCP_INFO", "TCP_CC_INFO", "TCP_TIMESTAMP", "TCP_SAVED_SYN")),
    _level(abi.IPPROTO_UDP, _UDP, ()),
)
SETTABLE: Final = frozenset(key for key, row in HOST.everything().items() if row.setter)
"""(level, number) that setsockopt(2) passes on."""
for _row in SOCKET.declared:
    if _row.name in OURS:
        HOST.declare((_row.level, _row.number), _row)

SENT_CONTROL: Final = frozenset(
    {
        (abi.IPPROTO_IP, abi.IP_PKTINFO),
        (abi.IPPROTO_IP, abi.IP_TTL),
        (abi.IPPROTO_IP, abi.IP_TOS),
        (abi.IPPROTO_IPV6, abi.IPV6_PKTINFO),
        (abi.IPPROTO_IPV6, abi.IPV6_HOPLIMIT),
        (abi.IPPROTO_IPV6, abi.IPV6_TCLASS),
        (abi.IPPROTO_IPV6, abi.IPV6_DONTFRAG),
        (abi.IPPROTO_UDP, abi.UDP_SEGMENT),
    }
)
"""Control messages of sendmsg(2) that are passed on."""
