"""Routes that programs set: whether their gateways can be reached, and among which they stand.

net/ipv4/fib_semantics.c and fib_trie.c, net/ipv6/route.c and ip6_fib.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import (
    EEXIST,
    EHOSTUNREACH,
    EINVAL,
    ENETDOWN,
    ENETUNREACH,
    ENODEV,
    ENOENT,
)
from sentry.net.ip.ipv6 import is_link_local
from sentry.net.routes import Hop, Route

if TYPE_CHECKING:
    from sentry.net.stack import Stack

UNICAST_OR_OWN: Final = (abi.RTN_UNICAST, abi.RTN_LOCAL)


def with_ways(stack: Stack, route: Route) -> Route:
    """A route with the interfaces that its gateways tell: fib_check_nh(), ip6_route_check_nh().

    Raises: EINVAL, ENODEV, ENETDOWN, ENETUNREACH, EHOSTUNREACH.
    """
    asked = route.hops or (Hop(route.index, route.gateway, onlink=route.onlink),)
    hops = tuple(_with_interface(stack, route, hop) for hop in asked)
    first = hops[0]
    if route.source:
        is_itself = route.kind == abi.RTN_LOCAL and route.source == route.destination
        if not is_itself and not stack.interfaces.is_local(route.source):
            raise EINVAL("prefsrc is no address of ours")
    return replace(
        route, index=first.interface, gateway=first.gateway, onlink=first.onlink,
        hops=hops if route.hops else (),
    )  # fmt: skip


def _with_interface(stack: Stack, route: Route, hop: Hop) -> Hop:
    if hop.interface:
        stack.interfaces.by_index(hop.interface)
    if hop.gateway:
        check = _checked4 if len(hop.gateway) == 4 else _checked6
        hop = hop._replace(interface=check(stack, route, hop))
    elif not hop.interface:
        raise ENODEV("no interface") if route.family == AF_INET else EINVAL("no interface")
    if not stack.interfaces.by_index(hop.interface).is_up:
        raise ENETDOWN("the interface is down")
    return hop


def _checked4(stack: Stack, route: Route, hop: Hop) -> int:
    """The interface by which a gateway is reached: fib_check_nh_v4_gw()."""
    if route.scope >= abi.RT_SCOPE_LINK:
        raise EINVAL("a gateway, to what is on the link")
    if hop.onlink:
        if not hop.interface:
            raise EINVAL("onlink, and no interface")
        return hop.interface
    found = _way_to(stack, route.table, hop, abi.RT_SCOPE_LINK)
    if found is None:
        raise ENETUNREACH("the gateway is not on a link")
    if found.kind not in UNICAST_OR_OWN:
        raise EINVAL("nobody has the gateway's address")
    return hop.interface or found.index


def _checked6(stack: Stack, route: Route, hop: Hop) -> int:
    """The same of IPv6: ip6_validate_gw()."""
    gateway = hop.gateway
    if gateway[0] == 0xFF:
        raise EINVAL("the gateway is a group")
    if is_link_local(gateway):
        if not hop.interface:
            raise EINVAL("no interface")
        return hop.interface
    if stack.interfaces.holder(gateway) is not None:
        raise EINVAL("the gateway's address is ours")
    if hop.onlink:
        if not hop.interface:
            raise EINVAL("onlink, and no interface")
        return hop.interface
    found = _way_to(stack, route.table if route.family == AF_INET6 else 0, hop, 0)
    if found is None or found.gateway or found.hops or found.kind != abi.RTN_UNICAST:
        raise EHOSTUNREACH("the gateway is not on a link")
    return hop.interface or found.index


def _way_to(stack: Stack, table: int, hop: Hop, scope: int) -> Route | None:
    """The route to a gateway, of those with a scope so near: in the table of the route that it is
    for, else in those that are always there."""
    best: dict[int, Route] = {}
    for route in stack.routes:
        if route.scope < scope or not route.leads_by(hop.interface):
            continue
        if route.matches(hop.gateway):
            known = best.get(route.table)
            if known is None or route.rank < known.rank:
                best[route.table] = route
    first = (table,) if table not in (0, abi.RT_TABLE_MAIN) else ()
    tables = (*first, abi.RT_TABLE_LOCAL, abi.RT_TABLE_MAIN, abi.RT_TABLE_DEFAULT)
    return next((best[each] for each in tables if each in best), None)


def place_of(route: Route) -> tuple[object, ...]:
    """What those have in common of which the metric decides."""
    return (
        route.family, route.destination, route.length, route.table, route.origin_prefix,
        route.origin_length,
    )  # fmt: skip


def insert(stack: Stack, route: Route, flags: int) -> Route:
    """Among the others, by NLM_F_*: fib_table_insert(), fib6_add_rt2node(). It, as it is then.

    Raises: EEXIST, ENOENT, ENOBUFS.
    """
    routes, place = stack.routes, place_of(route)
    near = [each for each in routes if place_of(each) == place]
    same = [each for each in near if each.metric == route.metric]
    added = set(map(id, routes.added))  # thousands may be alike, and all may be of one place
    own = [each for each in same if id(each) in added]
    if same and flags & abi.NLM_F_EXCL:
        raise EEXIST("route")
    if own and flags & abi.NLM_F_REPLACE:
        return _replaced(stack, route, own)
    if route in own:
        raise EEXIST("route")
    if route.family == AF_INET6 and route.gateway:
        others = next((each for each in own if each.gateway), None)
        if others is not None:
            return _joined(stack, route, others)
    if not flags & abi.NLM_F_CREATE and (
        route.family == AF_INET or flags & abi.NLM_F_REPLACE
    ):
        raise ENOENT("route")
    routes.check_room(route)
    if not own:
        later = (each for each in near if each.metric > route.metric and id(each) in added)
        before = next(later, None)  # so that of those of a place the first one counts
        at = len(routes.added) if before is None else routes.added.index(before)
        routes.added.insert(at, route)
    elif flags & abi.NLM_F_APPEND or route.family == AF_INET6:
        routes.added.insert(routes.added.index(own[-1]) + 1, route)
    else:
        routes.added.insert(routes.added.index(own[0]), route)
    return route


def _replaced(stack: Stack, route: Route, own: list[Route]) -> Route:
    """It takes the place of the first one."""
    added = stack.routes.added
    if route in own[1:]:
        raise EEXIST("route")
    if len(route.hops) > len(own[0].hops):
        stack.routes.check_hops(route)
    added[added.index(own[0])] = route
    return route


def _joined(stack: Stack, route: Route, others: Route) -> Route:
    """IPv6: what differs in the gateway alone is one route with several next hops."""
    here = others.hops or (Hop(others.index, others.gateway, onlink=others.onlink),)
    more = route.hops or (Hop(route.index, route.gateway, onlink=route.onlink),)
    if any(hop._replace(weight=1) == old._replace(weight=1) for hop in more for old in here):
        raise EEXIST("a next hop")
    made = replace(others, hops=(*here, *more))
    stack.routes.check_hops(made)
    added = stack.routes.added
    added[added.index(others)] = made
    return made


def without(stack: Stack, old: Route, gateway: bytes) -> Route | None:
    """IPv6: of several next hops the one by this gateway goes alone; None: all of the route."""
    if old.family != AF_INET6 or not gateway or not old.hops:
        return None
    left = tuple(hop for hop in old.hops if hop.gateway != gateway)
    if not left:
        return None
    first = left[0]
    return replace(
        old, index=first.interface, gateway=first.gateway, onlink=first.onlink,
        hops=left if len(left) > 1 else (),
    )  # fmt: skip
