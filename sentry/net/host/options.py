"""Which socket options reach the host: an allow-list, by level. socket(7), ip(7), ipv6(7), tcp(7).

Not here: what attaches programs (BPF), what needs rights that the Sentry does not have, and
time-outs, which the Sentry keeps itself. `runsc/filters` allows setsockopt(2) for these alone.
"""

from __future__ import annotations

from typing import Final

from sentry.abi import socket as abi

_SOCKET: Final = (
    abi.SO_REUSEADDR, abi.SO_REUSEPORT, abi.SO_KEEPALIVE, abi.SO_BROADCAST, abi.SO_OOBINLINE,
    abi.SO_LINGER, abi.SO_SNDBUF, abi.SO_RCVBUF, abi.SO_RCVLOWAT, abi.SO_DONTROUTE,
    abi.SO_NO_CHECK, abi.SO_PRIORITY, abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMPNS_OLD,
    abi.SO_TIMESTAMP_NEW, abi.SO_TIMESTAMPNS_NEW, abi.SO_RXQ_OVFL, abi.SO_BINDTODEVICE,
    abi.SO_BINDTOIFINDEX, abi.SO_MAX_PACING_RATE, abi.SO_SELECT_ERR_QUEUE,
)  # fmt: skip
_IP: Final = (
    abi.IP_TOS, abi.IP_TTL, abi.IP_RECVTOS, abi.IP_RECVTTL, abi.IP_PKTINFO, abi.IP_RECVERR,
    abi.IP_MTU_DISCOVER, abi.IP_MULTICAST_IF, abi.IP_MULTICAST_TTL, abi.IP_MULTICAST_LOOP,
    abi.IP_MULTICAST_ALL, abi.IP_ADD_MEMBERSHIP, abi.IP_DROP_MEMBERSHIP,
    abi.IP_ADD_SOURCE_MEMBERSHIP, abi.IP_DROP_SOURCE_MEMBERSHIP, abi.IP_BIND_ADDRESS_NO_PORT,
    abi.IP_FREEBIND, abi.IP_MINTTL, abi.IP_UNICAST_IF, abi.IP_LOCAL_PORT_RANGE,
    abi.IP_RECVORIGDSTADDR,
)  # fmt: skip
_IPV6: Final = (
    abi.IPV6_V6ONLY, abi.IPV6_UNICAST_HOPS, abi.IPV6_MULTICAST_IF, abi.IPV6_MULTICAST_HOPS,
    abi.IPV6_MULTICAST_LOOP, abi.IPV6_MULTICAST_ALL, abi.IPV6_ADD_MEMBERSHIP,
    abi.IPV6_DROP_MEMBERSHIP, abi.IPV6_MTU_DISCOVER, abi.IPV6_MTU, abi.IPV6_RECVPKTINFO,
    abi.IPV6_RECVHOPLIMIT, abi.IPV6_RECVTCLASS, abi.IPV6_TCLASS, abi.IPV6_RECVERR,
    abi.IPV6_DONTFRAG, abi.IPV6_AUTOFLOWLABEL, abi.IPV6_ADDR_PREFERENCES, abi.IPV6_FREEBIND,
    abi.IPV6_MINHOPCOUNT, abi.IPV6_UNICAST_IF, abi.IPV6_RECVORIGDSTADDR,
)  # fmt: skip
_TCP: Final = (
    abi.TCP_NODELAY, abi.TCP_CORK, abi.TCP_MAXSEG, abi.TCP_KEEPIDLE, abi.TCP_KEEPINTVL,
    abi.TCP_KEEPCNT, abi.TCP_SYNCNT, abi.TCP_LINGER2, abi.TCP_DEFER_ACCEPT, abi.TCP_WINDOW_CLAMP,
    abi.TCP_QUICKACK, abi.TCP_CONGESTION, abi.TCP_USER_TIMEOUT, abi.TCP_FASTOPEN,
    abi.TCP_FASTOPEN_CONNECT, abi.TCP_NOTSENT_LOWAT, abi.TCP_INQ, abi.TCP_SAVE_SYN,
)  # fmt: skip
_UDP: Final = (
    abi.UDP_CORK, abi.UDP_SEGMENT, abi.UDP_GRO, abi.UDP_NO_CHECK6_TX, abi.UDP_NO_CHECK6_RX,
)  # fmt: skip

SETTABLE: Final = frozenset(
    (level, name)
    for level, names in (
        (abi.SOL_SOCKET, _SOCKET),
        (abi.IPPROTO_IP, _IP),
        (abi.IPPROTO_IPV6, _IPV6),
        (abi.IPPROTO_TCP, _TCP),
        (abi.IPPROTO_UDP, _UDP),
    )
    for name in names
)
"""(level, name) that setsockopt(2) passes on."""
READABLE: Final = SETTABLE | {
    (abi.SOL_SOCKET, abi.SO_ERROR),
    (abi.SOL_SOCKET, abi.SO_ACCEPTCONN),
    (abi.SOL_SOCKET, abi.SO_INCOMING_CPU),
    (abi.SOL_SOCKET, abi.SO_MEMINFO),
    (abi.SOL_SOCKET, abi.SO_COOKIE),
    (abi.IPPROTO_IP, abi.IP_MTU),
    (abi.IPPROTO_TCP, abi.TCP_INFO),
    (abi.IPPROTO_TCP, abi.TCP_CC_INFO),
    (abi.IPPROTO_TCP, abi.TCP_TIMESTAMP),
    (abi.IPPROTO_TCP, abi.TCP_SAVED_SYN),
}
"""(level, name) that getsockopt(2) passes on."""
MAX_VALUE: Final = 4096

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
