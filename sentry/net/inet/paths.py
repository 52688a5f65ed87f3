"""Which way by a link what a socket sends would go, and from which address."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sentry.abi import socket as abi
from sentry.errors import EADDRNOTAVAIL, ENETUNREACH
from sentry.net.inet.address import is_group, mapped, plain
from sentry.net.rules import DSCP, HAVE_PORTS, PLAIN, RouteKey

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.inetsocket import InetSocket
    from sentry.net.ip.seam import Path


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
