"""The address families: socket(2) finds here who makes a socket."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from sentry.abi.capability import CAP_NET_RAW
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    SOCK_DGRAM,
    SOCK_PACKET,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)
from sentry.errors import EACCES, EAFNOSUPPORT, EINVAL, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from sentry.net.host.protocol import SOCKETS
from sentry.net.host.socket import make_host_socket
from sentry.net.inet.ping import PingSocket
from sentry.net.inet.raw import Raw6Socket, RawSocket
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.udp import UdpSocket
from sentry.net.inet.udplite import UdpLiteSocket
from sentry.net.namespace import stack_of
from sentry.net.netlink.protocols import make_netlink
from sentry.net.netlink.socket import NetlinkSocket
from sentry.net.packet_socket import PacketSocket
from sentry.net.socket import Socket
from sentry.net.sockfs import socket_location
from sentry.net.sysctls import written
from sentry.net.unix import UnixSocket, ucred
from sentry.vfs.file import Caller

IPPROTO_MAX = 263
Made = Socket | Coroutine[Any, Any, Socket]
Make = Callable[[Caller, int, int, int], Made]
"""(caller, type, protocol, family) → a socket, or a coroutine that gives one."""

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
def make_inet(caller: Caller, kind: int, protocol: int, number: int) -> Made:
    """socket(AF_INET), socket(AF_INET6): TCP, UDP and UDP-Lite, on the loopback or of the host."""
    if not 0 <= protocol < IPPROTO_MAX:
        raise EINVAL(f"protocol {protocol}")
    location, stack = socket_location(caller), stack_of(caller)
    if stack.host is not None:
        if kind != SOCK_RAW and (number, kind, protocol) not in SOCKETS:
            raise EPROTONOSUPPORT(f"type {kind}, protocol {protocol}")
        return make_host_socket(location, stack, kind, protocol, number)
    icmp = IPPROTO_ICMP if number == AF_INET else IPPROTO_ICMPV6
    if kind == SOCK_RAW:
        if not protocol:
            raise EPROTONOSUPPORT("raw sockets need a protocol")
        if not caller.creds.has_in(stack.owner, CAP_NET_RAW):
            raise EPERM("CAP_NET_RAW")
        make = RawSocket if number == AF_INET else Raw6Socket
        return make(location, number, kind, protocol, stack)
    if kind == SOCK_DGRAM and protocol == icmp:
        check_ping(caller)
        return PingSocket(location, number, kind, protocol, stack)
    if (kind, protocol) == (SOCK_DGRAM, IPPROTO_UDPLITE):
        return UdpLiteSocket(location, number, stack)
    kinds = {SOCK_STREAM: IPPROTO_TCP, SOCK_DGRAM: IPPROTO_UDP}
    if kind not in kinds:
        raise ESOCKTNOSUPPORT(f"type {kind}")
    if protocol not in (0, kinds[kind]):
        raise EPROTONOSUPPORT(f"protocol {protocol}")
    if kind == SOCK_STREAM:
        return TcpSocket(location, number, IPPROTO_TCP, stack)
    return UdpSocket(location, number, IPPROTO_UDP, stack)


def check_ping(caller: Caller) -> None:
    """net.ipv4.ping_group_range: whose groups may have ping sockets. Raises: EACCES."""
    found = written(stack_of(caller), "net/ipv4/ping_group_range")
    low, high = map(int, (found or "1 0").split())
    creds = caller.creds
    if not any(low <= group <= high for group in (creds.egid, *creds.groups)):
        raise EACCES("ping_group_range")


@family(AF_NETLINK)
def netlink(caller: Caller, kind: int, protocol: int, number: int) -> NetlinkSocket:
    """socket(AF_NETLINK)."""
    return make_netlink(socket_location(caller), kind, protocol, stack_of(caller))


@family(AF_PACKET)
def packet(caller: Caller, kind: int, protocol: int, number: int) -> PacketSocket:
    """socket(AF_PACKET): not where the network is the host's."""
    stack = stack_of(caller)
    if not caller.creds.has_in(stack.owner, CAP_NET_RAW) or stack.host is not None:
        raise EPERM("CAP_NET_RAW")
    if kind not in (SOCK_DGRAM, SOCK_RAW, SOCK_PACKET):
        raise ESOCKTNOSUPPORT(f"type {kind}")
    return PacketSocket(socket_location(caller), kind, protocol, stack)


def make_socket(caller: Caller, number: int, kind: int, protocol: int) -> Made:
    """socket(2). Raises: EAFNOSUPPORT and what the family raises."""
    if (number, kind) == (AF_INET, SOCK_PACKET):
        number = AF_PACKET  # as programs of Linux 2.0 ask for it
    make = FAMILIES.get(number)
    if make is None:
        raise EAFNOSUPPORT(f"family {number}")
    return make(caller, kind, protocol, number)


__all__ = ["FAMILIES", "UnixSocket", "family", "make_socket", "ucred"]
