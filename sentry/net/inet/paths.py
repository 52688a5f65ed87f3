"""Which way by a link what a socket sends would go, from which address, and how large it may be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.errors import EADDRNOTAVAIL, ENETUNREACH
from sentry.net.inet.address import is_group, mapped, plain
from sentry.net.inet.error_queue import too_large
from sentry.net.interfaces import LENGTH_MAX
from sentry.net.rules import DSCP, HAVE_PORTS, PLAIN, RouteKey

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.datagram import DatagramSocket
    from sentry.net.inet.inetsocket import InetSocket
    from sentry.net.inet.packet import SendOptions
    from sentry.net.ip.seam import Path

IP_HEADER: Final = 20
IP6_HEADER: Final = 40
MAY_FRAGMENT: Final = (abi.IP_PMTUDISC_DONT, abi.IP_PMTUDISC_WANT, abi.IP_PMTUDISC_OMIT)
"""IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: a datagram may be larger than the MTU."""
KEEPS_WHOLE: Final = (abi.IPPROTO_UDP, abi.IPPROTO_ICMPV6, abi.IPPROTO_RAW)
"""IPV6_DONTFRAG counts for packets of these protocols."""

def path_of(sock: InetSocket, target: Endpoint, index: int = 0) -> Path:
    """The way by a link, by an interface if `index` is not 0.

    Raises: ENETUNREACH, EHOSTUNREACH, and what rules and routes say: EACCES, EINVAL.
    """
    assert sock.stack.ip is not None
    now_ns, key = time.monotonic_ns(), key_of(sock, target)
    return sock.stack.ip.path(now_ns, plain(target.ip), index or sock.device, key)


def key_of(sock: InetSocket, target: Endpoint) -> RouteKey:
    """What rules of routing are asked of what it sends."""
    assert sock.stack.ip is not None
    if not sock.stack.ip.fib.asks:
        return PLAIN
    own = sock.local
    is_chosen = own.is_v4 == target.is_v4 and not (own.is_any or is_group(own.ip))
    tos = sock.ip_options[abi.IP_TOS] if target.is_v4 else sock.ipv6_options[abi.IPV6_TCLASS]
    has_ports = sock.protocol in HAVE_PORTS
    return RouteKey(
        plain(own.ip) if is_chosen else b"", mark=mark_of(sock),
        tos=tos & DSCP, user=sock.inode.uid, protocol=sock.protocol,
        source_port=own.port if has_ports else 0, port=target.port if has_ports else 0,
    )  # fmt: skip


def mark_of(sock: InetSocket) -> int:
    """SO_MARK."""
    return sock.numbers.get(abi.SO_MARK, 0) & 0xFFFFFFFF


def source_towards(sock: InetSocket, target: Endpoint, index: int) -> bytes:
    """16 bytes: from where a packet goes by a link, by an interface if `index` is not 0.

    Raises: ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL.
    """
    found = path_of(sock, target, index).source
    if not found:
        raise ENETUNREACH("no address") if target.is_v4 else EADDRNOTAVAIL("no address")
    return mapped(found)


def check_size(sock: DatagramSocket, size: int, target: Endpoint, options: SendOptions) -> None:
    """Whether so many bytes behind an IP header can be sent: ip_append_data(), ip6_append_data().

    Raises: EMSGSIZE, which the queue of errors tells of, and IPV6_RECVPATHMTU.
    """
    if target.is_v4:
        _check_size4(sock, size, target)
    else:
        _check_size6(sock, size, target, options)


def _check_size4(sock: DatagramSocket, size: int, target: Endpoint) -> None:
    mtu = sock.mtu_towards(target)
    fragments = sock.ip_options[abi.IP_MTU_DISCOVER] in MAY_FRAGMENT
    if size > (LENGTH_MAX if fragments else mtu) - IP_HEADER:
        too_large(sock, target, mtu)


def _check_size6(sock: DatagramSocket, size: int, target: Endpoint, options: SendOptions) -> None:
    own = sock.ipv6_options
    mtu = sock.mtu_towards(target)
    mtu = min(mtu, own.get(abi.IPV6_MTU) or mtu)
    whole = own[abi.IPV6_DONTFRAG] if options.dont_fragment is None else options.dont_fragment
    if size > mtu - IP6_HEADER and whole and sock.protocol in KEEPS_WHOLE:
        sock.path_mtu = (target, mtu)
        too_large(sock, target, mtu)
    fragments = own[abi.IPV6_MTU_DISCOVER] in MAY_FRAGMENT
    if size > (LENGTH_MAX if fragments else mtu - IP6_HEADER):
        too_large(sock, target, mtu)
