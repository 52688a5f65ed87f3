"""RTM_*LINK: the interfaces. net/core/rtnetlink.c."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import AF_BRIDGE, IFNAMSIZ
from sentry.errors import EEXIST, EINVAL, ENODEV, EOPNOTSUPP, ERANGE
from sentry.net.netlink.message import Reply, Request, number, text
from sentry.net.netlink.notices import (
    change_flags,
    link_message,
    rename,
    set_hardware,
    set_mtu,
    set_queue_length,
)
from sentry.net.netlink.registry import handles

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface

def find_link(request: Request, index: int, attributes: dict[int, bytes]) -> Interface:
    """The interface that a request names. Raises: EINVAL, ENODEV."""
    interfaces = request.stack.interfaces
    if index < 0:
        raise EINVAL(f"index {index}")
    if index:
        return interfaces.by_index(index)
    name = attributes.get(abi.IFLA_IFNAME) or attributes.get(abi.IFLA_ALT_IFNAME)
    if name is None:
        raise EINVAL("no interface is named")
    if len(name.rstrip(b"\0")) >= IFNAMSIZ:
        raise ERANGE("name")
    return interfaces.by_name(name.rstrip(b"\0").decode(errors="replace"))


@handles(NETLINK_ROUTE, abi.RTM_GETLINK)
def get_link(request: Request) -> Iterable[Reply]:
    """RTM_GETLINK: one or all."""
    if request.flags & abi.NLM_F_DUMP:
        wanted = 0
        if len(request.body) >= abi.IFINFOMSG.size:
            wanted = abi.IFINFOMSG.unpack(request.body).ifi_index
        strict = abi.NETLINK_GET_STRICT_CHK in request.sock.flags_set
        if strict and wanted:
            raise EINVAL("a dump of one interface")
        if request.body[:1] == bytes([AF_BRIDGE]):
            from sentry.net.virtual import bridging  # noqa: PLC0415

            return bridging.port_messages(request.stack)
        return (link_message(link) for link in request.stack.interfaces.those_still_there())
    head = abi.IFINFOMSG.unpack(request.fixed(abi.IFINFOMSG.size))
    link = find_link(request, head.ifi_index, request.attributes(abi.IFINFOMSG.size))
    return [link_message(link)]


def _is_there(request: Request, index: int, attributes: dict[int, bytes]) -> bool:
    """Of one that is named, or not even that: __rtnl_newlink()."""
    if not index and not attributes.keys() & {abi.IFLA_IFNAME, abi.IFLA_ALT_IFNAME}:
        return False
    try:
        find_link(request, index, attributes)
    except ENODEV:
        return False
    return True


@handles(NETLINK_ROUTE, abi.RTM_NEWLINK, abi.RTM_SETLINK)
def set_link(request: Request) -> None:
    """RTM_SETLINK, and RTM_NEWLINK: flags, MTU, queue length, name, namespace of one that is there;
    else one is made."""
    head = abi.IFINFOMSG.unpack(request.fixed(abi.IFINFOMSG.size))
    attributes = request.attributes(abi.IFINFOMSG.size)
    makes = request.kind == abi.RTM_NEWLINK and request.flags & abi.NLM_F_CREATE
    if makes and not _is_there(request, head.ifi_index, attributes):
        from sentry.net.virtual import making  # noqa: PLC0415  few programs ask

        making.make(request, head, attributes)
        return
    link = find_link(request, head.ifi_index, attributes)
    if request.kind == abi.RTM_NEWLINK and request.flags & abi.NLM_F_EXCL:
        raise EEXIST(link.name)
    request.stack.check_own(link.index)
    if abi.IFLA_LINKINFO in attributes or head.ifi_family == AF_BRIDGE:
        _set_of_bridge(request, link, head.ifi_family, attributes)
        if head.ifi_family == AF_BRIDGE:
            return
    if abi.IFLA_NET_NS_FD in attributes or abi.IFLA_NET_NS_PID in attributes:
        from sentry.net.virtual import making  # noqa: PLC0415

        making.move(request, link, attributes)
    stack = request.stack if link.driver is None else link.driver.stack
    if abi.IFLA_MTU in attributes:
        set_mtu(stack, link, number(attributes[abi.IFLA_MTU]))
    if abi.IFLA_TXQLEN in attributes:
        set_queue_length(stack, link, number(attributes[abi.IFLA_TXQLEN]))
    if abi.IFLA_ADDRESS in attributes:
        set_hardware(stack, link, attributes[abi.IFLA_ADDRESS])
    if head.ifi_index and abi.IFLA_IFNAME in attributes:
        rename(stack, link, attributes[abi.IFLA_IFNAME].split(b"\0", 1)[0])
    if head.ifi_flags or head.ifi_change:
        change_flags(stack, link, head.ifi_flags, head.ifi_change or 0xFFFFFFFF)
    if abi.IFLA_MASTER in attributes:
        from sentry.net.virtual import bridging  # noqa: PLC0415

        bridging.set_master(stack, link, attributes[abi.IFLA_MASTER])


def _set_of_bridge(
    request: Request, link: Interface, family: int, attributes: dict[int, bytes]
) -> None:
    from sentry.net.virtual import bridging  # noqa: PLC0415

    if family != AF_BRIDGE:
        bridging.change(link, attributes)
    elif request.kind == abi.RTM_SETLINK:
        bridging.set_port(link, attributes)
    else:
        raise EOPNOTSUPP("AF_BRIDGE")


@handles(NETLINK_ROUTE, abi.RTM_DELLINK)
def delete_link(request: Request) -> None:
    """RTM_DELLINK: only what a program has made can be deleted."""
    head = abi.IFINFOMSG.unpack(request.fixed(abi.IFINFOMSG.size))
    link = find_link(request, head.ifi_index, request.attributes(abi.IFINFOMSG.size))
    if link.driver is None or not link.driver.kind:
        raise EOPNOTSUPP("this interface stays")
    link.driver.removed()


@handles(NETLINK_ROUTE, abi.RTM_GETQDISC)
def get_qdisc(request: Request) -> Iterable[Reply]:
    """RTM_GETQDISC: an interface without a queue has no discipline; others show noqueue's."""
    tcmsg = struct.Struct("<B3xiIII")
    return [
        (abi.RTM_NEWQDISC, tcmsg.pack(0, link.index, 0, 0xFFFFFFFF, 2) + text(1, "noqueue"))
        for link in request.stack.interfaces
        if request.flags & abi.NLM_F_DUMP
    ]
