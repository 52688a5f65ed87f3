"""IPV6_ADDRFORM: an AF_INET6 socket with an IPv4 peer becomes an AF_INET one. ipv6(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi import socket as abi
from sentry.abi.socket import (
    AF_INET,
    BPF_TCP_ESTABLISHED,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.errors import EADDRNOTAVAIL, EBUSY, EINVAL, ENOPROTOOPT, ENOTCONN
from sentry.net.sockfs import SocketInode, protocol_name

if TYPE_CHECKING:
    from sentry.net.inet.inetsocket import InetSocket

PROTOCOLS = frozenset({IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE})


def _check_connected(sock: InetSocket) -> None:
    if sock.protocol not in PROTOCOLS or sock.kind not in (abi.SOCK_STREAM, abi.SOCK_DGRAM):
        raise ENOPROTOOPT("protocol")
    if sock.unsent_datagram():
        raise EBUSY("corked")
    if sock.connection_state() != BPF_TCP_ESTABLISHED:
        raise ENOTCONN("no peer")


def change(sock: InetSocket, wanted: int) -> None:
    """setsockopt(2). Raises: EINVAL, ENOPROTOOPT, EBUSY, ENOTCONN, EADDRNOTAVAIL."""
    if wanted != AF_INET:
        raise EINVAL("address family")
    _check_connected(sock)
    if sock.v6only or sock.remote is None or not sock.remote.is_v4:
        raise EADDRNOTAVAIL("an IPv6 peer")
    sock.family = AF_INET
    if isinstance(sock.inode, SocketInode):
        sock.inode.protocol_name = protocol_name(AF_INET, sock.kind, sock.protocol)


def value(sock: InetSocket) -> int:
    """getsockopt(2). Raises: ENOPROTOOPT, ENOTCONN."""
    _check_connected(sock)
    return sock.family
