"""RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH: where a route leads. net/ipv4/fib_semantics.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EINVAL, ENOBUFS, EOPNOTSUPP, ERANGE
from sentry.net.netlink.addresses import SIZES
from sentry.net.netlink.message import attribute, parse_attributes, u32
from sentry.net.routes import MAX_HOPS, Hop

if TYPE_CHECKING:
    from sentry.net.routes import Route

FAMILY_SIZE: Final = 2
"""struct rtvia: a family, and an address of it."""
FAILED: Final = abi.RTNH_F_DEAD | abi.RTNH_F_LINKDOWN


def gateway_of(attributes: dict[int, bytes], size: int) -> bytes:
    """Of either family, for a route whose addresses have `size` bytes; empty: none.

    fib_gw_from_via(). Raises: EINVAL.
    """
    own, via = attributes.get(abi.RTA_GATEWAY), attributes.get(abi.RTA_VIA)
    if via is None:
        if own is not None and len(own) < size:
            raise EINVAL("RTA_GATEWAY")
        own = (own or b"")[:size]
        return own if any(own) else b""
    if own is not None or size != SIZES[AF_INET]:
        raise EINVAL("RTA_VIA, of IPv4 and alone")
    family, ip = int.from_bytes(via[:FAMILY_SIZE], "little"), via[FAMILY_SIZE:]
    if len(ip) != SIZES.get(family):
        raise EINVAL("RTA_VIA")
    return ip if any(ip) else b""


def parse_hops(value: bytes, size: int) -> tuple[Hop, ...]:
    """RTA_MULTIPATH: fib_count_nexthops(), fib_get_nhs().

    Raises: ERANGE, EINVAL, EOPNOTSUPP for tunnels, and ENOBUFS.
    """
    if len(value) < abi.RTNEXTHOP.size:
        raise ERANGE("RTA_MULTIPATH")
    hops: list[Hop] = []
    at = 0
    while len(value) - at >= abi.RTNEXTHOP.size:
        one = abi.RTNEXTHOP.unpack(value, at)
        if one.rtnh_len < abi.RTNEXTHOP.size or at + one.rtnh_len > len(value):
            break
        if one.rtnh_flags & FAILED:
            raise EINVAL("rtnh_flags")
        attributes = parse_attributes(value[at + abi.RTNEXTHOP.size : at + one.rtnh_len])
        if abi.RTA_ENCAP in attributes:
            raise EOPNOTSUPP("tunnels")
        if len(hops) >= MAX_HOPS:
            raise ENOBUFS("too many next hops")
        hops.append(Hop(
            one.rtnh_ifindex, gateway_of(attributes, size), one.rtnh_hops + 1,
            bool(one.rtnh_flags & abi.RTNH_F_ONLINK),
        ))  # fmt: skip
        at += (one.rtnh_len + 3) & ~3
    if not hops or at < len(value):
        raise EINVAL("RTA_MULTIPATH")
    return tuple(hops)


def told(route: Route, is_up: Callable[[int], bool]) -> bytes:
    """fib_dump_info(): where it leads, and which of several are not to be had."""
    if route.hops:
        return attribute(
            abi.RTA_MULTIPATH, b"".join(_told_hop(hop, route, is_up) for hop in route.hops)
        )
    by = u32(abi.RTA_OIF, route.index) if route.index else b""
    return _told_gateway(route.gateway, route) + by


def _told_gateway(gateway: bytes, route: Route) -> bytes:
    if not gateway:
        return b""
    if len(gateway) == SIZES[route.family]:
        return attribute(abi.RTA_GATEWAY, gateway)
    family = AF_INET if len(gateway) == SIZES[AF_INET] else AF_INET6
    return attribute(abi.RTA_VIA, family.to_bytes(FAMILY_SIZE, "little") + gateway)


def _told_hop(hop: Hop, route: Route, is_up: Callable[[int], bool]) -> bytes:
    """fib_add_nexthop()."""
    by = _told_gateway(hop.gateway, route)
    flags, size = 0 if is_up(hop.interface) else FAILED, abi.RTNEXTHOP.size + len(by)
    flags |= abi.RTNH_F_ONLINK if hop.onlink else 0
    return abi.RTNEXTHOP.pack(size, flags, hop.weight - 1, hop.interface) + by
