"""RTM_*ROUTE, RTM_GETRULE: where packets go. net/ipv4/fib_frontend.c."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE, RTCF_LOCAL
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import (
    EAFNOSUPPORT,
    EEXIST,
    EHOSTUNREACH,
    EINVAL,
    ENETDOWN,
    ENETUNREACH,
    ENOBUFS,
    EOPNOTSUPP,
    ESRCH,
)
from sentry.net.interfaces import masked
from sentry.net.netlink.addresses import SIZES
from sentry.net.netlink.message import Reply, Request, attribute, number, u8, u32
from sentry.net.netlink.notices import tell
from sentry.net.netlink.registry import handles
from sentry.net.routes import MAX_ROUTES, Route

TABLE_COMPAT: Final = 252
"""RT_TABLE_COMPAT: the number is in RTA_TABLE."""
CLONED: Final = abi.RTM_F_CLONED
GROUPS: Final = {AF_INET: abi.RTNLGRP_IPV4_ROUTE, AF_INET6: abi.RTNLGRP_IPV6_ROUTE}
RULES: Final = (
    (0, abi.RT_TABLE_LOCAL), (32766, abi.RT_TABLE_MAIN), (32767, abi.RT_TABLE_DEFAULT),
)  # fmt: skip


def route_message(route: Route, kind: int = abi.RTM_NEWROUTE) -> Reply:
    """struct rtmsg and its attributes."""
    table = route.table if route.table < 256 else TABLE_COMPAT
    body = abi.RTMSG.pack(
        route.family, route.length, 0, 0, table, route.origin, route.scope, route.kind, 0
    )  # fmt: skip
    body += u32(abi.RTA_TABLE, route.table)
    if route.length:
        body += attribute(abi.RTA_DST, route.destination)
    if route.source:
        body += attribute(abi.RTA_PREFSRC, route.source)
    if route.gateway:
        body += attribute(abi.RTA_GATEWAY, route.gateway)
    if route.metric or route.family == AF_INET6:
        body += u32(abi.RTA_PRIORITY, route.metric)
    if route.index:
        body += u32(abi.RTA_OIF, route.index)
    if route.family == AF_INET6:
        body += attribute(abi.RTA_CACHEINFO, bytes(32)) + u8(abi.RTA_PREF, 0)
    return kind, body


@handles(NETLINK_ROUTE, abi.RTM_GETROUTE)
def get_route(request: Request) -> Iterable[Reply]:
    """RTM_GETROUTE: a dump of all tables, or the way to one address."""
    family = request.body[0]
    if request.flags & abi.NLM_F_DUMP:
        wanted = _filter(request)
        return [
            route_message(route)
            for route in request.stack.routes
            if (family not in SIZES or route.family == family) and wanted in (0, route.table)
        ]
    if family not in SIZES:
        raise EOPNOTSUPP(f"family {family}")
    abi.RTMSG.unpack(request.fixed(abi.RTMSG.size))
    attributes = request.attributes(abi.RTMSG.size)
    size = SIZES[family]
    target = attributes.get(abi.RTA_DST, bytes(size))
    if len(target) < size:
        raise EINVAL("RTA_DST")
    target = target[:size]
    if target == bytes(size):
        target = b"\x7f\0\0\x01" if size == 4 else bytes(15) + b"\x01"
    found = request.stack.routes.lookup(target)
    if found is None:
        raise ENETUNREACH("no route")
    if found.kind == abi.RTN_UNREACHABLE:
        raise EHOSTUNREACH("no route")
    return [_way(request, found, target)]


def _filter(request: Request) -> int:
    """The table that a dump asks for, where the socket has strict checking."""
    if abi.NETLINK_GET_STRICT_CHK not in request.sock.flags_set:
        return 0
    if len(request.body) < abi.RTMSG.size:
        return 0
    table = request.attributes(abi.RTMSG.size).get(abi.RTA_TABLE)
    return number(table) if table else abi.RTMSG.unpack(request.body).rtm_table


def _way(request: Request, found: Route, target: bytes) -> Reply:
    """rt_fill_info(): the answer to `ip route get`."""
    local = found.kind == abi.RTN_LOCAL
    cloned = CLONED | (RTCF_LOCAL if local else 0) if len(target) == 4 else 0
    index = found.index
    if local:
        index = next((i.index for i in request.stack.interfaces if i.is_loopback), index)
    source = _source(request, found, target)
    body = abi.RTMSG.pack(
        found.family, len(target) * 8, 0, 0, found.table, found.origin if not cloned else 0,
        found.scope if not cloned else 0, found.kind, cloned,
    )  # fmt: skip
    body += u32(abi.RTA_TABLE, found.table) + attribute(abi.RTA_DST, target)
    if found.gateway:
        body += attribute(abi.RTA_GATEWAY, found.gateway)
    body += u32(abi.RTA_OIF, index)
    if source:
        body += attribute(abi.RTA_PREFSRC, source)
    body += u32(abi.RTA_UID, request.caller.creds.euid) if len(target) == 4 else b""
    if found.family == AF_INET6:
        body += u32(abi.RTA_PRIORITY, found.metric)
    return abi.RTM_NEWROUTE, body + attribute(abi.RTA_CACHEINFO, bytes(32))


def _source(request: Request, found: Route, target: bytes) -> bytes:
    """Which address of ours a packet would carry."""
    if found.kind == abi.RTN_LOCAL and request.stack.interfaces.holder(target) is not None:
        return target
    if found.source:
        return found.source
    link = request.stack.interfaces.by_index(found.index)
    family = AF_INET if len(target) == 4 else AF_INET6
    return next((own.ip for own in link.of_family(family)), b"")


def _parse(request: Request) -> Route:
    head = abi.RTMSG.unpack(request.fixed(abi.RTMSG.size))
    if head.rtm_family not in SIZES:
        raise EAFNOSUPPORT(f"family {head.rtm_family}")
    size = SIZES[head.rtm_family]
    attributes = request.attributes(abi.RTMSG.size)
    if head.rtm_dst_len > size * 8:
        raise EINVAL("prefix")
    destination = attributes.get(abi.RTA_DST, bytes(size))[:size].ljust(size, b"\0")
    if masked(destination, head.rtm_dst_len) != destination:
        raise EINVAL("bits beyond the prefix")
    index = number(attributes[abi.RTA_OIF]) if abi.RTA_OIF in attributes else 0
    gateway = attributes.get(abi.RTA_GATEWAY, b"")[:size]
    if gateway and not index:
        way = request.stack.routes.lookup(gateway)
        if way is None:
            raise ENETUNREACH("gateway")
        index = way.index
    if index:
        request.stack.interfaces.by_index(index)
    table = number(attributes[abi.RTA_TABLE]) if abi.RTA_TABLE in attributes else head.rtm_table
    metric = number(attributes[abi.RTA_PRIORITY]) if abi.RTA_PRIORITY in attributes else 0
    return Route(
        head.rtm_family, destination, head.rtm_dst_len, index, table or abi.RT_TABLE_MAIN,
        head.rtm_type, head.rtm_scope, head.rtm_protocol,
        attributes.get(abi.RTA_PREFSRC, b"")[:size], gateway, metric,
    )  # fmt: skip


def _same(a: Route, b: Route) -> bool:
    return (a.family, a.destination, a.length, a.table, a.metric) == (
        b.family, b.destination, b.length, b.table, b.metric,
    )  # fmt: skip


@handles(NETLINK_ROUTE, abi.RTM_NEWROUTE)
def new_route(request: Request) -> None:
    """RTM_NEWROUTE."""
    route = _parse(request)
    if not route.index and route.kind == abi.RTN_UNICAST:
        raise EINVAL("no interface")
    request.stack.check_own(route.index)
    if route.index and not request.stack.interfaces.by_index(route.index).is_up:
        raise ENETDOWN("the interface is down")
    routes = request.stack.routes
    old = next((r for r in routes.added if _same(r, route)), None)
    if old is not None:
        if request.flags & abi.NLM_F_EXCL or not request.flags & abi.NLM_F_REPLACE:
            raise EEXIST("route")
        routes.added.remove(old)
    elif not request.flags & abi.NLM_F_CREATE:
        raise ESRCH("route")
    if len(routes.added) >= MAX_ROUTES:
        raise ENOBUFS("too many routes")
    routes.added.append(route)
    request.stack.outdate()
    tell(request.stack, GROUPS[route.family], route_message(route))


@handles(NETLINK_ROUTE, abi.RTM_DELROUTE)
def delete_route(request: Request) -> None:
    """RTM_DELROUTE."""
    route = _parse(request)
    for old in request.stack.routes.added:
        same_place = (old.family, old.destination, old.length, old.table) == (
            route.family, route.destination, route.length, route.table,
        )  # fmt: skip
        if same_place and route.metric in (0, old.metric) and route.index in (0, old.index):
            request.stack.check_own(old.index)
            request.stack.routes.added.remove(old)
            request.stack.outdate()
            tell(request.stack, GROUPS[route.family], route_message(old, abi.RTM_DELROUTE))
            return
    raise ESRCH("route")


@handles(NETLINK_ROUTE, abi.RTM_GETRULE)
def get_rules(request: Request) -> Iterable[Reply]:
    """RTM_GETRULE: those that every kernel begins with."""
    if not request.flags & abi.NLM_F_DUMP:
        raise EOPNOTSUPP("no single rule")
    family = request.body[0]
    if family not in (0, AF_INET, AF_INET6):
        raise EAFNOSUPPORT(f"family {family}")
    made = []
    for each in (AF_INET, AF_INET6):
        if family not in (0, each):
            continue
        for priority, table in RULES[: 3 if each == AF_INET else 2]:
            body = abi.FIB_RULE_HDR.pack(each, 0, 0, 0, table, 0, 0, abi.FR_ACT_TO_TBL, 0)
            body += u32(abi.FRA_TABLE, table) + u32(abi.FRA_SUPPRESS_PREFIXLEN, 0xFFFFFFFF)
            body += u8(abi.FRA_PROTOCOL, abi.RTPROT_KERNEL)
            body += u32(abi.FRA_PRIORITY, priority) if priority else b""
            made.append((abi.RTM_NEWRULE, body))
    return made


@handles(NETLINK_ROUTE, abi.RTM_GETNEIGHTBL, abi.RTM_GETADDRLABEL,
         abi.RTM_GETMULTICAST, abi.RTM_GETANYCAST, abi.RTM_GETNETCONF)  # fmt: skip
def get_nothing(request: Request) -> Iterable[Reply]:
    """What is empty here."""
    if request.flags & abi.NLM_F_DUMP:
        return []
    raise EOPNOTSUPP("a single one")
