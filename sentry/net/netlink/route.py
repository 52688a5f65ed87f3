"""RTM_*ROUTE: where packets go. net/ipv4/fib_frontend.c."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE, RTCF_LOCAL
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import (
    EAFNOSUPPORT,
    EINVAL,
    ENOENT,
    EOPNOTSUPP,
    ESRCH,
)
from sentry.net.interfaces import LOOPBACK_INDEX, masked
from sentry.net.netlink.addresses import SIZES
from sentry.net.netlink.message import Reply, Request, attribute, number, u8, u32
from sentry.net.netlink.nexthops import gateway_of, parse_hops, told
from sentry.net.netlink.notices import tell
from sentry.net.netlink.registry import handles
from sentry.net.route_changes import insert, place_of, with_ways, without
from sentry.net.routes import USER_METRIC6, Hop, Route
from sentry.net.rules import DSCP, OF_ROUTES, RouteKey

if TYPE_CHECKING:
    from sentry.net.stack import Stack

TABLE_COMPAT: Final = 252
"""RT_TABLE_COMPAT: the number is in RTA_TABLE."""
CLONED: Final = abi.RTM_F_CLONED
GROUPS: Final = {AF_INET: abi.RTNLGRP_IPV4_ROUTE, AF_INET6: abi.RTNLGRP_IPV6_ROUTE}
BASIC_TABLES: Final = (0, abi.RT_TABLE_LOCAL, abi.RT_TABLE_MAIN, abi.RT_TABLE_DEFAULT)
"""That are always there; 0: all."""
NO_WAY: Final = (*OF_ROUTES, abi.RTN_THROW)
"""Kinds of routes that lead nowhere."""


def route_message(
    route: Route,
    kind: int = abi.RTM_NEWROUTE,
    is_up: Callable[[int], bool] = lambda index: True,
) -> Reply:
    """struct rtmsg and its attributes. `is_up`: of an interface."""
    table = route.table if route.table < 256 else TABLE_COMPAT
    body = abi.RTMSG.pack(
        route.family, route.length, route.origin_length, 0, table, route.origin, route.scope,
        route.kind, abi.RTNH_F_ONLINK if route.onlink and not route.hops else 0,
    )  # fmt: skip
    body += u32(abi.RTA_TABLE, route.table)
    if route.length:
        body += attribute(abi.RTA_DST, route.destination)
    if route.origin_length:
        body += attribute(abi.RTA_SRC, route.origin_prefix)
    if route.source:
        body += attribute(abi.RTA_PREFSRC, route.source)
    if route.metric or route.family == AF_INET6:
        body += u32(abi.RTA_PRIORITY, route.metric)
    body += told(route, is_up)
    if route.family == AF_INET6:
        body += attribute(abi.RTA_CACHEINFO, bytes(32)) + u8(abi.RTA_PREF, 0)
    return kind, body


@handles(NETLINK_ROUTE, abi.RTM_GETROUTE)
def get_route(request: Request) -> Iterable[Reply]:
    """RTM_GETROUTE: a dump of all tables, or the way to one address."""
    family = request.body[0]
    if request.flags & abi.NLM_F_DUMP:
        wanted, routes = _filter(request), request.stack.routes
        found = [
            route_message(route, is_up=routes.is_up)
            for route in routes.in_order()
            if (family not in SIZES or route.family == family) and wanted in (0, route.table)
        ]
        if not found and family == AF_INET and wanted not in BASIC_TABLES:
            raise ENOENT(f"table {wanted}")
        return found
    if family not in SIZES:
        raise EOPNOTSUPP(f"family {family}")
    head = abi.RTMSG.unpack(request.fixed(abi.RTMSG.size))
    attributes = request.attributes(abi.RTMSG.size)
    size = SIZES[family]
    target = attributes.get(abi.RTA_DST, bytes(size))
    if len(target) < size:
        raise EINVAL("RTA_DST")
    target = target[:size]
    if target == bytes(size):
        target = b"\x7f\0\0\x01" if size == 4 else bytes(15) + b"\x01"
    key = _key(request, head, attributes)
    route = request.stack.routes.find(target, key)
    if not isinstance(route, Route):
        raise route("no route")
    return [_way(request, route, target, key)]


def _key(request: Request, head: Any, attributes: dict[int, bytes]) -> RouteKey:
    """inet_rtm_getroute(). Raises: EINVAL, ENODEV."""
    size = SIZES[head.rtm_family]
    source = attributes.get(abi.RTA_SRC, b"")[:size]
    if source and len(source) < size:
        raise EINVAL("RTA_SRC")
    index, index_in, mark = (
        number(attributes[kind]) if kind in attributes else 0
        for kind in (abi.RTA_OIF, abi.RTA_IIF, abi.RTA_MARK)
    )
    for each in (index, index_in):
        if each:
            request.stack.interfaces.by_index(each)
    user = attributes.get(abi.RTA_UID)
    creds = request.caller.creds
    return RouteKey(
        source if any(source) else b"", index, index_in, mark, head.rtm_tos & DSCP,
        creds.euid if user is None else creds.kuid(number(user)),
        int.from_bytes(attributes.get(abi.RTA_IP_PROTO, b"")[:1]),
        int.from_bytes(attributes.get(abi.RTA_SPORT, b"")[:2]),
        int.from_bytes(attributes.get(abi.RTA_DPORT, b"")[:2]),
    )  # fmt: skip


def _filter(request: Request) -> int:
    """The table that a dump asks for, where the socket has strict checking."""
    if abi.NETLINK_GET_STRICT_CHK not in request.sock.flags_set:
        return 0
    if len(request.body) < abi.RTMSG.size:
        return 0
    table = request.attributes(abi.RTMSG.size).get(abi.RTA_TABLE)
    return number(table) if table else abi.RTMSG.unpack(request.body).rtm_table


def _way(request: Request, found: Route, target: bytes, key: RouteKey) -> Reply:
    """rt_fill_info(): the answer to `ip route get`."""
    local = found.kind == abi.RTN_LOCAL
    cloned = CLONED | (RTCF_LOCAL if local else 0) if len(target) == 4 else 0
    index, gateway = _hop(request.stack, found, target, key)
    if local:
        index = next((i.index for i in request.stack.interfaces if i.is_loopback), index)
    source = b"" if key.source else _source(request, found, target, index)
    body = abi.RTMSG.pack(
        found.family, len(target) * 8, len(key.source) * 8, 0, found.table,
        found.origin if not cloned else 0, found.scope if not cloned else 0, found.kind, cloned,
    )  # fmt: skip
    body += u32(abi.RTA_TABLE, found.table) + attribute(abi.RTA_DST, target)
    if key.source:
        body += attribute(abi.RTA_SRC, key.source)
    one = replace(found, index=index, gateway=gateway, hops=())
    body += told(one, request.stack.routes.is_up)
    if source:
        body += attribute(abi.RTA_PREFSRC, source)
    for kind, value in ((abi.RTA_IIF, key.interface_in), (abi.RTA_MARK, key.mark)):
        body += u32(kind, value) if value else b""
    body += u32(abi.RTA_UID, request.caller.creds.euid) if len(target) == 4 else b""
    if found.family == AF_INET6:
        body += u32(abi.RTA_PRIORITY, found.metric)
    return abi.RTM_NEWROUTE, body + attribute(abi.RTA_CACHEINFO, bytes(32))


def _hop(stack: Stack, found: Route, target: bytes, key: RouteKey) -> tuple[int, bytes]:
    """Of several next hops the one that a packet would take."""
    if not found.hops or stack.ip is None:
        return found.index, found.gateway
    path = stack.ip.path_or_none(stack.kernel.loop.now_ns(), target, key.interface, key)
    if path is None:
        return found.index, found.gateway
    return path.interface, b"" if path.next_hop == target else path.next_hop


def _source(request: Request, found: Route, target: bytes, index: int) -> bytes:
    """Which address of ours a packet would carry."""
    if found.kind == abi.RTN_LOCAL and request.stack.interfaces.holder(target) is not None:
        return target
    if found.source:
        return found.source
    link = request.stack.interfaces.by_index(index)
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
    origin = b""
    if head.rtm_src_len:
        origin = attributes.get(abi.RTA_SRC, b"")[:size]
        if head.rtm_family == AF_INET or head.rtm_src_len > size * 8:
            raise EINVAL("routes by source are of IPv6; IPv4 has rules")
        if len(origin) < size or masked(origin, head.rtm_src_len) != origin:
            raise EINVAL("RTA_SRC")
    source = attributes.get(abi.RTA_PREFSRC, b"")[:size]
    if source and len(source) < size:
        raise EINVAL("RTA_PREFSRC")
    if abi.RTA_NH_ID in attributes:
        raise EINVAL("no such next hop")
    if head.rtm_tos or abi.RTA_ENCAP in attributes:
        raise EOPNOTSUPP("routes by TOS, and tunnels")
    first, hops = _next_hops(request, attributes, size)
    table = number(attributes[abi.RTA_TABLE]) if abi.RTA_TABLE in attributes else head.rtm_table
    metric = number(attributes[abi.RTA_PRIORITY]) if abi.RTA_PRIORITY in attributes else 0
    return Route(
        head.rtm_family, destination, head.rtm_dst_len, first.interface, table or abi.RT_TABLE_MAIN,
        head.rtm_type, head.rtm_scope, head.rtm_protocol,
        source, first.gateway, metric, hops, origin, head.rtm_src_len, first.onlink,
    )  # fmt: skip


def _next_hops(
    request: Request, attributes: dict[int, bytes], size: int
) -> tuple[Hop, tuple[Hop, ...]]:
    """The first one; all, where there are several."""
    if abi.RTA_MULTIPATH in attributes:
        hops = parse_hops(attributes[abi.RTA_MULTIPATH], size)
        return hops[0], hops if len(hops) > 1 else ()
    index = number(attributes[abi.RTA_OIF]) if abi.RTA_OIF in attributes else 0
    flags = abi.RTMSG.unpack(request.fixed(abi.RTMSG.size)).rtm_flags
    return Hop(index, gateway_of(attributes, size), onlink=bool(flags & abi.RTNH_F_ONLINK)), ()


def _as_new(route: Route) -> Route:
    """With what is not said. Raises: EINVAL."""
    if route.kind > abi.RTN_THROW:
        raise EINVAL(f"kind {route.kind}")
    if route.kind in NO_WAY:
        if route.family == AF_INET and (route.index or route.gateway):
            raise EINVAL("it leads nowhere")
        index = LOOPBACK_INDEX if route.family == AF_INET6 else 0
        route = replace(route, index=index, gateway=b"", hops=())
    if route.family == AF_INET6 and not route.metric:
        route = replace(route, metric=USER_METRIC6)
    return route


@handles(NETLINK_ROUTE, abi.RTM_NEWROUTE)
def new_route(request: Request) -> None:
    """RTM_NEWROUTE."""
    stack, route = request.stack, _as_new(_parse(request))
    if route.kind in NO_WAY:
        stack.check_own(0)
    else:
        route = with_ways(stack, route)
        for index in {hop.interface for hop in route.hops} or {route.index}:
            stack.check_own(index)
    route = insert(stack, route, request.flags)
    stack.outdate()
    tell(stack, GROUPS[route.family], route_message(route))


@handles(NETLINK_ROUTE, abi.RTM_DELROUTE)
def delete_route(request: Request) -> None:
    """RTM_DELROUTE."""
    stack, route = request.stack, _parse(request)
    place = place_of(route)
    for old in stack.routes.added:  # of a place in the order of their metrics
        if place_of(old) == place and _is_meant(old, route):
            stack.check_own(old.index)
            left = without(stack, old, route.gateway)
            at = stack.routes.added.index(old)
            stack.routes.added[at : at + 1] = [] if left is None else [left]
            stack.outdate()
            tell(stack, GROUPS[route.family], route_message(old, abi.RTM_DELROUTE))
            return
    raise ESRCH("route")


def _is_meant(old: Route, asked: Route) -> bool:
    """fib_table_delete(), fib_nh_match(): what is not said may be anything."""
    if asked.hops:
        ways = [[hop[:2] for hop in each.hops] for each in (asked, old)]
        if ways[0] != ways[1]:
            return False
    elif not old.leads_by(asked.index):
        return False
    elif asked.gateway:
        several = old.hops if old.family == AF_INET6 else ()
        if asked.gateway not in {old.gateway, *(hop.gateway for hop in several)}:
            return False
    return asked.metric in (0, old.metric) and asked.kind in (0, old.kind)


@handles(NETLINK_ROUTE, abi.RTM_GETNEIGHTBL, abi.RTM_GETADDRLABEL,
         abi.RTM_GETMULTICAST, abi.RTM_GETANYCAST, abi.RTM_GETNETCONF)  # fmt: skip
def get_nothing(request: Request) -> Iterable[Reply]:
    """What is empty here."""
    if request.flags & abi.NLM_F_DUMP:
        return []
    raise EOPNOTSUPP("a single one")
