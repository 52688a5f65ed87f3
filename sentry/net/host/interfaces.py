"""The host's interfaces, addresses and routes: lists of the network process become the stack's.

What has changed since the last list is told to the netlink sockets of the sandbox.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EINVAL, ENOBUFS, EOPNOTSUPP, ERANGE
from sentry.net.interfaces import LOOPBACK_INDEX, MAX_ADDRESSES, Address, Interface, masked
from sentry.net.netlink.message import HEADER, number, parse_attributes
from sentry.net.netlink.nexthops import gateway_of, parse_hops
from sentry.net.netlink.notices import link_message, tell, tell_address
from sentry.net.netlink.route import GROUPS, route_message
from sentry.net.routes import MAX_ROUTES, Hop, Route
from sentry.net.sysctls import link_renamed
from sentry.suppress import suppress

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.wait.steps import Steps

SIZES: Final = {AF_INET: 4, AF_INET6: 16}
MAX_INTERFACES: Final = 1024
EVERY_FLAG: Final = 0xFFFFFFFF
"""ifi_change of a link that is new or gone."""
COUNTED: Final = 32
"""Bytes of struct rtnl_link_stats64 up to tx_bytes."""


def show(stack: Stack, parts: Iterable[bytes], *, links_only: bool) -> Steps[None]:
    """Make the stack such as a list says, a step for each message and each change.

    `links_only`: of addresses and routes nothing has changed, and the list has none.
    """
    links: dict[int, Interface] = {}
    routes: dict[Route, None] = {}
    for kind, body in messages(parts):
        with suppress(EINVAL):  # an attribute that is cut
            _take(kind, body, links, routes)
        yield
    known = {link.index: link for link in stack.interfaces if link.driver is None}
    if not links_only:
        yield from _show_routes(stack, routes)
    for index in known.keys() - links.keys() - {LOOPBACK_INDEX}:
        yield from _show_addresses(stack, known[index], known[index].addresses, [])
        stack.interfaces.remove(index)
        link_renamed(stack, known[index].name, None)
        gone = link_message(known[index], abi.RTM_DELLINK, EVERY_FLAG)
        tell(stack, abi.RTNLGRP_LINK, gone)
    _rename(stack, known, links)
    for index, link in links.items():
        yield
        if (own := stack.interfaces.get(index)) is not None and own.driver is not None:
            continue  # a program has made one with this number
        if index == LOOPBACK_INDEX and stack.host is None:
            continue  # what goes by the loopback stays in the sandbox
        old = known.get(index)
        before = [] if old is None else old.addresses
        if old is not None and links_only:
            link.addresses = before
        stack.interfaces.insert(link)
        if old is None or _facts(old) != _facts(link):
            change = EVERY_FLAG if old is None else old.flags ^ link.flags
            tell(stack, abi.RTNLGRP_LINK, link_message(link, change=change))
        yield from _show_addresses(stack, link, before, link.addresses)


def _rename(stack: Stack, known: dict[int, Interface], links: dict[int, Interface]) -> None:
    """What programs have written of an interface goes with it, whoever has its name now."""
    renamed = [
        (index, known[index].name, links[index].name) for index in known.keys() & links.keys()
        if known[index].name != links[index].name
    ]  # fmt: skip
    for index, old, _ in renamed:
        link_renamed(stack, old, f"{index}/")  # no name: two may have changed theirs
    for index, _, new in renamed:
        link_renamed(stack, f"{index}/", new)


def _take(kind: int, body: bytes, links: dict[int, Interface], routes: dict[Route, None]) -> None:
    """One message of a list. Raises: EINVAL."""
    if kind == abi.RTM_NEWLINK:
        link = parse_link(body)
        if link is not None and len(links) < MAX_INTERFACES:
            links[link.index] = link
    elif kind == abi.RTM_NEWADDR:
        index, address = parse_address(body)
        if address is not None and index in links:
            own = links[index].addresses
            own += [address] if len(own) < MAX_ADDRESSES else []
    elif kind == abi.RTM_NEWROUTE:
        route = parse_route(body)
        if route is not None and len(routes) < MAX_ROUTES:
            routes[route] = None


def _show_addresses(
    stack: Stack, link: Interface, before: list[Address], now: list[Address]
) -> Steps[None]:
    """Tell of what has gone and of what is new or another."""
    if before == now:
        return
    places = {_place(address): address for address in now}
    for address in before:
        if _place(address) not in places:
            tell_address(stack, link, address, abi.RTM_DELADDR)
        yield
    places = {_place(address): address for address in before}
    for address in now:
        if places.get(_place(address)) != address:
            tell_address(stack, link, address, abi.RTM_NEWADDR)
        yield


def _facts(link: Interface) -> tuple[object, ...]:
    """What a notice tells, without counters."""
    return (
        link.name, link.kind, link.flags, link.mtu, link.hardware, link.hardware_broadcast,
        link.queue_length,
    )  # fmt: skip


def _place(address: Address) -> tuple[int, bytes, int]:
    return address.family, address.ip, address.prefix


def _show_routes(stack: Stack, routes: dict[Route, None]) -> Steps[None]:
    kept: list[Route] = []
    before: dict[Route, None] = {}
    for route in stack.routes.added:
        link = stack.interfaces.get(route.index)
        if link is not None and link.driver is not None:
            kept.append(route)
        else:
            before[route] = None
    stack.routes.added = [*routes, *kept]
    for kind, some, others in (
        (abi.RTM_DELROUTE, before, routes),
        (abi.RTM_NEWROUTE, routes, before),
    ):
        for route in some:
            if route not in others:
                tell(stack, GROUPS[route.family], route_message(route, kind))
            yield


def messages(parts: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(type, body) of all messages; the rest of a part whose lengths are wrong is left out."""
    for data in parts:
        at = 0
        while at + HEADER <= len(data):
            header = abi.NLMSGHDR.unpack(data[at : at + HEADER])
            if header.nlmsg_len < HEADER or at + header.nlmsg_len > len(data):
                break
            yield header.nlmsg_type, data[at + HEADER : at + header.nlmsg_len]
            at += (header.nlmsg_len + 3) & ~3


def parse_link(body: bytes) -> Interface | None:
    """struct ifinfomsg."""
    if len(body) < abi.IFINFOMSG.size:
        return None
    info = abi.IFINFOMSG.unpack(body[: abi.IFINFOMSG.size])
    found = parse_attributes(body[abi.IFINFOMSG.size :])
    name = found.get(abi.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    if not name or info.ifi_index <= 0:
        return None
    interface = Interface(info.ifi_index, name, info.ifi_type, info.ifi_flags)
    interface.mtu = number(found.get(abi.IFLA_MTU, bytes(4)))
    interface.hardware = found.get(abi.IFLA_ADDRESS, bytes(6))
    interface.hardware_broadcast = found.get(abi.IFLA_BROADCAST, bytes(6))
    interface.queue_length = number(found.get(abi.IFLA_TXQLEN, bytes(4)))
    counted = found.get(abi.IFLA_STATS64, b"")[:COUNTED].ljust(COUNTED, b"\0")
    packets_in, packets_out, bytes_in, bytes_out = struct.unpack("<4Q", counted)
    interface.received, interface.sent = [packets_in, bytes_in], [packets_out, bytes_out]
    return interface


def parse_address(body: bytes) -> tuple[int, Address | None]:
    """struct ifaddrmsg: the index of the interface, and the address."""
    if len(body) < abi.IFADDRMSG.size:
        return 0, None
    info = abi.IFADDRMSG.unpack(body[: abi.IFADDRMSG.size])
    found = parse_attributes(body[abi.IFADDRMSG.size :])
    peer = found.get(abi.IFA_ADDRESS, b"")
    ip = found.get(abi.IFA_LOCAL, peer)
    size = SIZES.get(info.ifa_family)
    if len(ip) != size or len(peer) not in (0, size) or info.ifa_prefixlen > size * 8:
        return 0, None
    return info.ifa_index, Address(
        info.ifa_family, ip, info.ifa_prefixlen, info.ifa_scope,
        found.get(abi.IFA_LABEL, b"").rstrip(b"\0").decode(errors="replace"),
        found.get(abi.IFA_BROADCAST, b""),
        number(found.get(abi.IFA_FLAGS, info.ifa_flags.to_bytes(4, "little"))),
        (found.get(abi.IFA_PROTO) or b"\0")[0],
        peer if peer != ip else b"",
    )  # fmt: skip


def parse_neighbour(body: bytes) -> tuple[int, bytes, bytes] | None:
    """struct ndmsg: the interface, the address and the hardware address of one that an
    administrator has set."""
    if len(body) < abi.NDMSG.size:
        return None
    info = abi.NDMSG.unpack(body[: abi.NDMSG.size])
    found = parse_attributes(body[abi.NDMSG.size :])
    ip, hardware = found.get(abi.NDA_DST, b""), found.get(abi.NDA_LLADDR, b"")
    if not info.ndm_state & abi.NUD_PERMANENT or len(ip) != SIZES.get(info.ndm_family):
        return None
    return (info.ndm_ifindex, ip, hardware) if len(hardware) == 6 else None


def parse_route(body: bytes) -> Route | None:
    """struct rtmsg; those that follow from the addresses are made from them."""
    if len(body) < abi.RTMSG.size:
        return None
    info = abi.RTMSG.unpack(body[: abi.RTMSG.size])
    found = parse_attributes(body[abi.RTMSG.size :])
    size = SIZES.get(info.rtm_family)
    is_made = info.rtm_protocol == abi.RTPROT_KERNEL
    is_known = info.rtm_type <= abi.RTN_THROW
    if size is None or is_made or not is_known or info.rtm_table != abi.RT_TABLE_MAIN:
        return None
    try:
        first, hops = _ways(found, size)
    except (EINVAL, ERANGE, ENOBUFS, EOPNOTSUPP):  # none, more than fit in here, or tunnels
        return None
    destination = found.get(abi.RTA_DST, bytes(size))
    source = found.get(abi.RTA_PREFSRC, b"")
    if len(destination) != size or info.rtm_dst_len > size * 8 or len(source) not in (0, size):
        return None
    return Route(
        info.rtm_family,
        masked(destination, info.rtm_dst_len),
        info.rtm_dst_len,
        first.interface,
        kind=info.rtm_type,
        scope=info.rtm_scope,
        origin=info.rtm_protocol,
        source=source,
        gateway=first.gateway,
        metric=number(found.get(abi.RTA_PRIORITY, bytes(4))),
        hops=hops,
    )


def _ways(found: dict[int, bytes], size: int) -> tuple[Hop, tuple[Hop, ...]]:
    """The first next hop; all, where there are several. Raises: EINVAL, ERANGE, ENOBUFS, and
    EOPNOTSUPP."""
    if abi.RTA_MULTIPATH in found:
        hops = parse_hops(found[abi.RTA_MULTIPATH], size)
        return hops[0], hops if len(hops) > 1 else ()
    if abi.RTA_OIF not in found:
        raise EINVAL("it leads nowhere")
    return Hop(number(found[abi.RTA_OIF]), gateway_of(found, size)), ()
