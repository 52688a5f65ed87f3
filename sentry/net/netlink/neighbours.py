"""RTM_*NEIGH: who is known on the links, and behind the ports of bridges. net/core/neighbour.c.

Who is set by hand on an interface of the host is followed from there, and changed by nobody inside.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import AF_BRIDGE, AF_INET, AF_INET6
from sentry.errors import (
    EAFNOSUPPORT,
    EEXIST,
    EINVAL,
    ENOBUFS,
    ENOENT,
    EOPNOTSUPP,
)
from sentry.net.link.link import EthernetLink
from sentry.net.link.neighbours import VALID, Neighbour
from sentry.net.netlink.message import Reply, Request, attribute, number, u32
from sentry.net.netlink.notices import hears, tell_in_steps
from sentry.net.netlink.registry import handles

if TYPE_CHECKING:
    from sentry.net.link.neighbours import Neighbours
    from sentry.net.stack import Stack

SIZES: Final = {AF_INET: 4, AF_INET6: 16}
TICK_NS: Final = 10_000_000
"""Of the times that are told: USER_HZ."""


def tables(stack: Stack, index: int = 0) -> Iterator[tuple[int, int, Neighbours]]:
    """(interface, family, table) of links that have neighbours; of one, if `index` is not 0."""
    if stack.ip is None:
        return
    for link in list(stack.ip.links.values()):
        if isinstance(link, EthernetLink) and index in (0, link.index):
            yield link.index, AF_INET, link.neighbours4
            yield link.index, AF_INET6, link.neighbours6


def _message(
    stack: Stack, index: int, family: int, who: Neighbour, kind: int = abi.RTM_NEWNEIGH
) -> Reply:
    """neigh_fill_info()."""
    now_ns = stack.kernel.loop.now_ns()
    body = abi.NDMSG.pack(family, 0, 0, index, who.state, 0, abi.RTN_UNICAST)
    body += attribute(abi.NDA_DST, who.ip)
    if who.state & VALID:
        body += attribute(abi.NDA_LLADDR, who.hardware)
    times = (who.confirmed_ns, who.used_ns, who.updated_ns)
    ago = [min(max(now_ns - each, 0) // TICK_NS, 0xFFFFFFFF) for each in times]
    body += u32(abi.NDA_PROBES, who.probes)
    return kind, body + attribute(abi.NDA_CACHEINFO, struct.pack("<IIII", *ago, 0))


def learned(stack: Stack, index: int, who: Neighbour, kind: int) -> None:
    """A neighbour is new, or another, or gone: __neigh_notify()."""
    if hears(stack, abi.RTNLGRP_NEIGH):
        family = AF_INET if len(who.ip) == SIZES[AF_INET] else AF_INET6
        told = _message(stack, index, family, who, kind)
        tell_in_steps(stack, abi.RTNLGRP_NEIGH, (told,))


@handles(NETLINK_ROUTE, abi.RTM_GETNEIGH)
def get_neighbours(request: Request) -> Iterable[Reply]:
    """RTM_GETNEIGH: all, of a family or an interface, or one."""
    if request.body[0] == AF_BRIDGE:
        from sentry.net.virtual import forwarding  # noqa: PLC0415  few programs ask

        if request.flags & abi.NLM_F_DUMP:
            return forwarding.entries(request)
        return forwarding.entry(request, *_parsed(request))
    if not request.flags & abi.NLM_F_DUMP:
        head, attributes = _parsed(request)
        index, table = _table(request.stack, head)
        found = table.get(_target(head, attributes))
        if found is None:
            raise ENOENT("no such neighbour")
        return [_message(request.stack, index, head.ndm_family, found)]
    family, wanted = request.body[0] if request.body else 0, 0
    if len(request.body) >= abi.NDMSG.size:
        head, attributes = _parsed(request)
        if head.ndm_flags & abi.NTF_PROXY:
            return []
        wanted = number(attributes.get(abi.NDA_IFINDEX, bytes(4)))
    return (
        _message(request.stack, index, each, who)
        for index, each, table in tables(request.stack, wanted)
        if family in (0, each)
        for who in list(table)
    )


def _parsed(request: Request) -> tuple[Any, dict[int, bytes]]:
    head = abi.NDMSG.unpack(request.fixed(abi.NDMSG.size))
    return head, request.attributes(abi.NDMSG.size)


def _table(stack: Stack, head: Any) -> tuple[int, Neighbours]:
    """Raises: ENODEV, EAFNOSUPPORT, EOPNOTSUPP, EINVAL."""
    if not head.ndm_ifindex:
        raise EINVAL("no interface")
    interface = stack.interfaces.by_index(head.ndm_ifindex)
    if head.ndm_family not in SIZES:
        raise EAFNOSUPPORT(f"family {head.ndm_family}")
    if head.ndm_flags & abi.NTF_PROXY:
        raise EOPNOTSUPP("proxies")
    for index, family, table in tables(stack, interface.index):
        if family == head.ndm_family:
            return index, table
    raise EOPNOTSUPP(f"{interface.name} has no neighbours, or is down")


def _target(head: Any, attributes: dict[int, bytes]) -> bytes:
    """Raises: EINVAL."""
    size = SIZES.get(head.ndm_family, 0)
    ip = attributes.get(abi.NDA_DST, b"")
    if not size or len(ip) < size:
        raise EINVAL("NDA_DST")
    return ip[:size]


def _to_change(
    stack: Stack, head: Any, attributes: dict[int, bytes]
) -> tuple[Neighbours, bytes]:
    """Raises: what `_table` and `_target` raise, and EPERM for an interface of the host."""
    if abi.NDA_DST not in attributes:
        raise EINVAL("NDA_DST")
    index, table = _table(stack, head)
    ip = _target(head, attributes)
    stack.check_own(index)
    return table, ip


@handles(NETLINK_ROUTE, abi.RTM_NEWNEIGH)
def set_neighbour(request: Request) -> None:
    """RTM_NEWNEIGH: neigh_add()."""
    stack, (head, attributes) = request.stack, _parsed(request)
    if head.ndm_family == AF_BRIDGE:
        from sentry.net.virtual import forwarding  # noqa: PLC0415

        forwarding.add(request, head, attributes)
        return
    table, ip = _to_change(stack, head, attributes)
    hardware = attributes.get(abi.NDA_LLADDR)
    if hardware is not None and len(hardware) < 6:
        raise EINVAL("NDA_LLADDR")
    known = table.get(ip)
    if known is None and not request.flags & abi.NLM_F_CREATE:
        raise ENOENT("no such neighbour")
    if known is not None and request.flags & abi.NLM_F_EXCL:
        raise EEXIST("a neighbour")
    if hardware is None:
        if head.ndm_state & VALID and (known is None or not known.state & VALID):
            raise EINVAL("no NDA_LLADDR")
        hardware = known.hardware if known is not None else b""
    if not table.configure(stack.kernel.loop.now_ns(), ip, hardware[:6], head.ndm_state):
        raise ENOBUFS("too many neighbours")
    _changed(stack)


@handles(NETLINK_ROUTE, abi.RTM_DELNEIGH)
def delete_neighbour(request: Request) -> None:
    """RTM_DELNEIGH: neigh_delete()."""
    stack, (head, attributes) = request.stack, _parsed(request)
    if head.ndm_family == AF_BRIDGE:
        from sentry.net.virtual import forwarding  # noqa: PLC0415

        forwarding.delete(request, head, attributes)
        return
    table, ip = _to_change(stack, head, attributes)
    found = table.get(ip)
    if found is None:
        raise ENOENT("no such neighbour")
    table.configure(stack.kernel.loop.now_ns(), found.ip, b"", abi.NUD_FAILED)
    _changed(stack)
    table.drop(found.ip)


def _changed(stack: Stack) -> None:
    if stack.ip is not None:
        stack.ip.on_deadline()
