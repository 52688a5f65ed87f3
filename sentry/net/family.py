"""The address families: socket(2) finds here who makes a socket."""

from __future__ import annotations

from collections.abc import Callable

from sentry.abi.capability import CAP_NET_RAW
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)
from sentry.errors import EAFNOSUPPORT, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.udp import UdpSocket
from sentry.net.netlink.protocols import make_netlink
from sentry.net.netlink.socket import NetlinkSocket
from sentry.net.socket import Socket, socket_location
from sentry.net.stack import stack_of
from sentry.net.unix import UnixSocket, ucred
from sentry.vfs.file import Caller

Make = Callable[[Caller, int, int, int], Socket]
"""(caller, type, protocol, family) → a socket."""

FAMILIES: dict[int, Make] = {}
"""By AF_*; each family registers itself."""


def family(number: int) -> Callable[[Make], Make]:
    """Register who makes the sockets of a family."""

    def register(make: Make) -> Make:
        FAMILIES[number] = make
        return make

    return register


@family(AF_UNIX)
def make_unix(caller: Caller, kind: int, protocol: int, number: int) -> UnixSocket:
    """socket(AF_UNIX): SOCK_RAW means datagram, as in Linux."""
    if protocol not in (0, AF_UNIX):
        raise EPROTONOSUPPORT(f"protocol {protocol}")
    if kind == SOCK_RAW:
        kind = SOCK_DGRAM
    if kind not in (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET):
        raise ESOCKTNOSUPPORT(f"type {kind}")
    return UnixSocket(socket_location(caller), kind, stack_of(caller))


@family(AF_INET)
@family(AF_INET6)
def make_inet(caller: Caller, kind: int, protocol: int, number: int) -> Socket:
    """socket(AF_INET), socket(AF_INET6): TCP and UDP on the loopback."""
    kinds = {SOCK_STREAM: IPPROTO_TCP, SOCK_DGRAM: IPPROTO_UDP}
    if kind == SOCK_RAW:
        raise EPROTONOSUPPORT("raw") if caller.creds.has(CAP_NET_RAW) else EPERM("CAP_NET_RAW")
    if kind not in kinds:
        raise ESOCKTNOSUPPORT(f"type {kind}")
    if protocol not in (0, kinds[kind]):
        raise EPROTONOSUPPORT(f"protocol {protocol}")
    protocol, location, stack = kinds[kind], socket_location(caller), stack_of(caller)
    uid = caller.creds.euid
    if kind == SOCK_STREAM:
        return TcpSocket(location, number, protocol, stack, uid)
    return UdpSocket(location, number, protocol, stack, uid)


@family(AF_NETLINK)
def netlink(caller: Caller, kind: int, protocol: int, number: int) -> NetlinkSocket:
    """socket(AF_NETLINK)."""
    return make_netlink(socket_location(caller), kind, protocol, stack_of(caller))


def make_socket(caller: Caller, number: int, kind: int, protocol: int) -> Socket:
    """socket(2). Raises: EAFNOSUPPORT and what the family raises."""
    make = FAMILIES.get(number)
    if make is None:
        raise EAFNOSUPPORT(f"family {number}")
    return make(caller, kind, protocol, number)


__all__ = ["FAMILIES", "UnixSocket", "family", "make_socket", "ucred"]
