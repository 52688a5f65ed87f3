"""Membership of multicast groups: IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP, MCAST_JOIN_GROUP."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from sentry.abi import socket as abi
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_IPV6
from sentry.errors import EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOBUFS, ENODEV, EPROTO
from sentry.net.inet import address
from sentry.net.inet.address import MAPPED

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.stack import Stack

MAX_GROUPS: Final = 20
"""net.ipv4.igmp_max_memberships."""
JOIN: Final = frozenset({(0, abi.IP_ADD_MEMBERSHIP), (41, abi.IPV6_ADD_MEMBERSHIP)})
PROTOCOL_INDEPENDENT: Final = frozenset({abi.MCAST_JOIN_GROUP, abi.MCAST_LEAVE_GROUP})


class Member(Protocol):
    """A socket that may join groups."""

    stack: Stack
    stream: ClassVar[bool]
    groups: list[tuple[bytes, int]]
    multicast_index: int
    multicast_address: bytes


def change(sock: Member, level: int, name: int, value: bytes) -> None:
    """Join or leave. Raises: EINVAL, ENODEV, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS."""
    if sock.stream and level == 0 and name not in PROTOCOL_INDEPENDENT:
        raise EPROTO("a stream")
    if name in PROTOCOL_INDEPENDENT:
        group, index, joins = *_parse_any(level, value), name == abi.MCAST_JOIN_GROUP
    else:
        joins = (level, name) in JOIN
        group, index = _parse4(sock, value) if level == 0 else _parse6(value)
        if sock.stream:
            raise EPROTO("a stream")
    if not address.is_multicast(group):
        invalid = joins or level == IPPROTO_IPV6
        raise EINVAL("no multicast group") if invalid else EADDRNOTAVAIL("no member")
    if not joins and not any(own == group for own, _ in sock.groups):
        raise EADDRNOTAVAIL("no member")
    link = _find(sock, group, index)
    member = (group, link.index)
    if joins:
        if member in sock.groups:
            raise EADDRINUSE("joined already")
        if len(sock.groups) >= MAX_GROUPS:
            raise ENOBUFS("too many groups")
        sock.groups.append(member)
        sock.stack.memberships[member] += 1
        if sock.stack.memberships[member] == 1:
            _tell(sock.stack, member, joins=True)
    elif member in sock.groups:
        sock.groups.remove(member)
        _forget(sock.stack, member)
    else:
        raise EADDRNOTAVAIL("no member")


def leave_all(sock: Member) -> None:
    """It is closed."""
    for member in sock.groups:
        _forget(sock.stack, member)
    sock.groups.clear()


def _forget(stack: Stack, member: tuple[bytes, int]) -> None:
    stack.memberships[member] -= 1
    if not stack.memberships[member]:
        del stack.memberships[member]
        _tell(stack, member, joins=False)


def _tell(stack: Stack, member: tuple[bytes, int], *, joins: bool) -> None:
    """The link hears of it: IGMP, MLD."""
    if stack.ip is None:
        return
    (group, index), groups = member, stack.ip.groups
    ip = group[12:] if group[:12] == MAPPED else group
    (groups.joined if joins else groups.left)(time.monotonic_ns(), ip, index)
    stack.ip.on_deadline()


def _parse4(sock: Member, value: bytes) -> tuple[bytes, int]:
    """struct ip_mreq, struct ip_mreqn."""
    if len(value) < 8:
        raise EINVAL("struct ip_mreq")
    group, local = value[:4], value[4:8]
    index = struct.unpack_from("<i", value, 8)[0] if len(value) >= 12 else 0
    if not index and local != bytes(4):
        holder = sock.stack.interfaces.holder(local)
        if holder is None:
            raise ENODEV("no such address")
        index = holder.index
    return MAPPED + group, index


def _parse6(value: bytes) -> tuple[bytes, int]:
    """struct ipv6_mreq."""
    if len(value) < 20:
        raise EINVAL("struct ipv6_mreq")
    return value[:16], struct.unpack_from("<i", value, 16)[0]


def _parse_any(level: int, value: bytes) -> tuple[bytes, int]:
    """struct group_req, with an address of the family of the level."""
    if len(value) < 136:
        raise EINVAL("struct group_req")
    index, family = struct.unpack_from("<I4xH", value)
    if level == 0:
        if family != AF_INET:
            raise EINVAL("family")
        return address.parse(value[8:24], AF_INET).ip, index
    if family != AF_INET6:
        raise EADDRNOTAVAIL("family")
    return address.parse(value[8:36], AF_INET6).ip, index


def _find(sock: Member, group: bytes, index: int) -> Interface:
    if index:
        return sock.stack.interfaces.by_index(index)
    ip = group[12:] if group[:12] == MAPPED else group
    route = sock.stack.routes.lookup(ip)
    if route is None or not route.index:
        raise ENODEV("no route to the group")
    return sock.stack.interfaces.by_index(route.index)


def set_interface(sock: Member, value: bytes) -> None:
    """IP_MULTICAST_IF: an address, struct ip_mreq or ip_mreqn. Raises: EINVAL, EADDRNOTAVAIL."""
    if len(value) < 4:
        raise EINVAL("address")
    local = value[4:8] if len(value) >= 8 else value[:4]
    index = struct.unpack_from("<i", value, 8)[0] if len(value) >= 12 else 0
    if index:
        _check_index(sock, index)
    elif local != bytes(4):
        holder = sock.stack.interfaces.holder(local)
        if holder is None:
            raise EADDRNOTAVAIL("no such address")
        index = holder.index
    sock.multicast_index, sock.multicast_address = index, local


def _check_index(sock: Member, index: int) -> None:
    try:
        sock.stack.interfaces.by_index(index)
    except ENODEV:
        raise EADDRNOTAVAIL("no such interface") from None
