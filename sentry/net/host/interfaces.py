"""The host's interfaces, addresses and routes, as they were when the sandbox started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EEXIST, EINVAL, ENODEV
from sentry.net.interfaces import Address, Interface, masked
from sentry.net.netlink.message import HEADER, number, parse_attributes
from sentry.net.routes import MAX_ROUTES, Route

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.stack import Stack

SIZES: Final = {AF_INET: 4, AF_INET6: 16}
MAX_INTERFACES: Final = 1024


async def show_host(stack: Stack, process: NetworkProcess) -> None:
    """Put them in the place of the sandbox's own. Raises: what a dump raises."""
    for body in messages(await process.dump(abi.RTM_GETLINK), abi.RTM_NEWLINK):
        interface = parse_link(body)
        if interface is not None and interface.index <= MAX_INTERFACES:
            stack.interfaces.insert(interface)
    for body in messages(await process.dump(abi.RTM_GETADDR), abi.RTM_NEWADDR):
        _add_address(stack, body)
    for body in messages(await process.dump(abi.RTM_GETROUTE), abi.RTM_NEWROUTE):
        route = parse_route(body)
        if route is not None and len(stack.routes.added) < MAX_ROUTES:
            stack.routes.added.append(route)
    stack.host = process


def messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """The bodies of the messages of one type."""
    at = 0
    while at + HEADER <= len(data):
        header = abi.NLMSGHDR.unpack(data[at : at + HEADER])
        if header.nlmsg_len < HEADER or at + header.nlmsg_len > len(data):
            return
        if header.nlmsg_type == wanted:
            yield data[at + HEADER : at + header.nlmsg_len]
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
    return interface


def _add_address(stack: Stack, body: bytes) -> None:
    """struct ifaddrmsg."""
    if len(body) < abi.IFADDRMSG.size:
        return
    info = abi.IFADDRMSG.unpack(body[: abi.IFADDRMSG.size])
    found = parse_attributes(body[abi.IFADDRMSG.size :])
    peer = found.get(abi.IFA_ADDRESS, b"")
    ip = found.get(abi.IFA_LOCAL, peer)
    if len(ip) != SIZES.get(info.ifa_family):
        return
    address = Address(
        info.ifa_family, ip, info.ifa_prefixlen, info.ifa_scope,
        found.get(abi.IFA_LABEL, b"").rstrip(b"\0").decode(errors="replace"),
        found.get(abi.IFA_BROADCAST, b""),
        number(found.get(abi.IFA_FLAGS, info.ifa_flags.to_bytes(4, "little"))),
        found.get(abi.IFA_PROTO, b"\0")[0],
        peer if peer != ip else b"",
    )  # fmt: skip
    try:
        stack.interfaces.by_index(info.ifa_index).add(address)
    except (EEXIST, EINVAL, ENODEV):
        return


def parse_route(body: bytes) -> Route | None:
    """struct rtmsg; those that follow from the addresses are made from them."""
    if len(body) < abi.RTMSG.size:
        return None
    info = abi.RTMSG.unpack(body[: abi.RTMSG.size])
    found = parse_attributes(body[abi.RTMSG.size :])
    size = SIZES.get(info.rtm_family)
    is_made = info.rtm_protocol == abi.RTPROT_KERNEL
    if size is None or is_made or info.rtm_table != abi.RT_TABLE_MAIN or abi.RTA_OIF not in found:
        return None
    destination = found.get(abi.RTA_DST, bytes(size))
    if len(destination) != size or info.rtm_dst_len > size * 8:
        return None
    return Route(
        info.rtm_family,
        masked(destination, info.rtm_dst_len),
        info.rtm_dst_len,
        number(found[abi.RTA_OIF]),
        kind=info.rtm_type,
        scope=info.rtm_scope,
        origin=info.rtm_protocol,
        source=found.get(abi.RTA_PREFSRC, b""),
        gateway=found.get(abi.RTA_GATEWAY, b""),
        metric=number(found.get(abi.RTA_PRIORITY, bytes(4))),
    )
