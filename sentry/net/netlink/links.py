"""RTM_*LINK: the interfaces. net/core/rtnetlink.c."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import IFNAMSIZ
from sentry.errors import EINVAL, ENODEV, EOPNOTSUPP, ERANGE
from sentry.net.interfaces import bring_up
from sentry.net.netlink.message import Reply, Request, attribute, message, number, text, u8, u32
from sentry.net.netlink.registry import handles, multicast

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.stack import Stack

OPER_UNKNOWN: Final = 0
OPER_UP: Final = 6
GSO_MAX_SEGMENTS: Final = 65535
MIN_MTU: Final = 68
IFF_SETTABLE: Final = abi.IFF_UP | abi.IFF_PROMISC | abi.IFF_ALLMULTI | abi.IFF_MULTICAST


def link_message(link: Interface, kind: int = abi.RTM_NEWLINK, change: int = 0) -> Reply:
    """struct ifinfomsg and the attributes that programs look at."""
    received, octets = link.received
    counters = (received, received, octets, octets)
    plain = len(abi.RtnlLinkStats._fields)
    wide = len(abi.RtnlLinkStats64._fields)
    stats = [value & 0xFFFFFFFF for value in counters] + [0] * (plain - 4)
    stats64 = [*counters] + [0] * (wide - 4)
    state = OPER_UNKNOWN if link.is_loopback else OPER_UP
    body = abi.IFINFOMSG.pack(0, 0, link.kind, link.index, link.flags, change)
    body += b"".join(
        (
            text(abi.IFLA_IFNAME, link.name),
            u32(abi.IFLA_TXQLEN, link.queue_length),
            u8(abi.IFLA_OPERSTATE, state if link.is_up else 2),
            u8(abi.IFLA_LINKMODE, 0),
            u32(abi.IFLA_MTU, link.mtu),
            u32(abi.IFLA_MIN_MTU, 0),
            u32(abi.IFLA_MAX_MTU, 0),
            u32(abi.IFLA_GROUP, 0),
            u32(abi.IFLA_PROMISCUITY, 0),
            u32(abi.IFLA_ALLMULTI, 0),
            u32(abi.IFLA_NUM_TX_QUEUES, 1),
            u32(abi.IFLA_GSO_MAX_SEGS, GSO_MAX_SEGMENTS),
            u32(abi.IFLA_GSO_MAX_SIZE, 65536),
            u32(abi.IFLA_NUM_RX_QUEUES, 1),
            u8(abi.IFLA_CARRIER, 1),
            u32(abi.IFLA_CARRIER_CHANGES, 0),
            u32(abi.IFLA_CARRIER_UP_COUNT, 0),
            u32(abi.IFLA_CARRIER_DOWN_COUNT, 0),
            u8(abi.IFLA_PROTO_DOWN, 0),
            attribute(abi.IFLA_MAP, bytes(32)),
            attribute(abi.IFLA_ADDRESS, link.hardware),
            attribute(abi.IFLA_BROADCAST, link.hardware_broadcast),
            attribute(abi.IFLA_STATS64, abi.RTNL_LINK_STATS64.pack(*stats64)),
            attribute(abi.IFLA_STATS, abi.RTNL_LINK_STATS.pack(*stats)),
            text(abi.IFLA_QDISC, "noqueue"),
        )
    )
    return kind, body


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
        return [link_message(link) for link in request.stack.interfaces]
    head = abi.IFINFOMSG.unpack(request.fixed(abi.IFINFOMSG.size))
    link = find_link(request, head.ifi_index, request.attributes(abi.IFINFOMSG.size))
    return [link_message(link)]


@handles(NETLINK_ROUTE, abi.RTM_NEWLINK, abi.RTM_SETLINK)
def set_link(request: Request) -> None:
    """RTM_SETLINK, and RTM_NEWLINK of one that is there: flags, MTU, queue length, name.

    There are no kinds of interfaces that a program could make.
    """
    head = abi.IFINFOMSG.unpack(request.fixed(abi.IFINFOMSG.size))
    attributes = request.attributes(abi.IFINFOMSG.size)
    try:
        link = find_link(request, head.ifi_index, attributes)
    except ENODEV:
        if request.kind == abi.RTM_NEWLINK and request.flags & abi.NLM_F_CREATE:
            raise EOPNOTSUPP("this kind of interface cannot be made") from None
        raise
    if abi.IFLA_MTU in attributes:
        link.mtu = check_mtu(link, number(attributes[abi.IFLA_MTU]))
    if abi.IFLA_TXQLEN in attributes:
        link.queue_length = number(attributes[abi.IFLA_TXQLEN])
    if abi.IFLA_ADDRESS in attributes:
        if len(attributes[abi.IFLA_ADDRESS]) < len(link.hardware):
            raise EINVAL("hardware address")
        link.hardware = attributes[abi.IFLA_ADDRESS][: len(link.hardware)]
    if head.ifi_flags or head.ifi_change:
        change_flags(request.stack, link, head.ifi_flags, head.ifi_change or 0xFFFFFFFF)


def check_mtu(link: Interface, mtu: int) -> int:
    """dev_validate_mtu(). Raises: EINVAL."""
    if not 0 <= mtu <= 0x7FFFFFFF or (not link.is_loopback and mtu < MIN_MTU):
        raise EINVAL(f"MTU {mtu}")
    return mtu


def change_flags(stack: Stack, link: Interface, flags: int, change: int) -> None:
    """Up and down, and what belongs to it; members of RTNLGRP_LINK are told."""
    before = link.flags
    link.set_flags(flags, change & IFF_SETTABLE)
    if link.is_loopback and link.is_up and not before & abi.IFF_UP:
        bring_up(link)
    if before != link.flags:
        tell(stack, abi.RTNLGRP_LINK, link_message(link, change=before ^ link.flags))


@handles(NETLINK_ROUTE, abi.RTM_DELLINK)
def delete_link(request: Request) -> None:
    """RTM_DELLINK: what is there cannot be deleted."""
    head = abi.IFINFOMSG.unpack(request.fixed(abi.IFINFOMSG.size))
    find_link(request, head.ifi_index, request.attributes(abi.IFINFOMSG.size))
    raise EOPNOTSUPP("this interface stays")


def tell(stack: Stack, group: int, reply: Reply) -> None:
    """A notice to a multicast group of NETLINK_ROUTE."""
    kind, body = reply
    multicast(stack, NETLINK_ROUTE, group, message(kind, 0, 0, 0, body))


@handles(NETLINK_ROUTE, abi.RTM_GETQDISC)
def get_qdisc(request: Request) -> Iterable[Reply]:
    """RTM_GETQDISC: an interface without a queue has no discipline; others show noqueue's."""
    tcmsg = struct.Struct("<B3xiIII")
    return [
        (abi.RTM_NEWQDISC, tcmsg.pack(0, link.index, 0, 0xFFFFFFFF, 2) + text(1, "noqueue"))
        for link in request.stack.interfaces
        if request.flags & abi.NLM_F_DUMP
    ]
