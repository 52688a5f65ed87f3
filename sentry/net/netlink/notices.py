"""What changes of links and addresses, and the notices that members of groups get: rtnetlink(7).

Routes that appear and vanish with an address are not told.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import AF_INET, AF_INET6, IFNAMSIZ
from sentry.errors import EADDRNOTAVAIL, EEXIST, EINVAL, ENFILE, EOPNOTSUPP
from sentry.net.interfaces import bring_up
from sentry.net.netlink.message import Reply, Request, attribute, message, text, u8, u32
from sentry.net.netlink.registry import multicast
from sentry.net.sysctls import link_renamed

if TYPE_CHECKING:
    from sentry.net.interfaces import Address, Interface
    from sentry.net.stack import Stack

OPER_UNKNOWN: Final = 0
OPER_DOWN: Final = 2
OPER_LOWERLAYERDOWN: Final = 3
OPER_UP: Final = 6
GSO_MAX_SEGMENTS: Final = 65535
MIN_MTU: Final = 68
IFF_SETTABLE: Final = abi.IFF_UP | abi.IFF_PROMISC | abi.IFF_ALLMULTI | abi.IFF_MULTICAST
FOREVER: Final = 0xFFFFFFFF
IFADDR: Final = {AF_INET: abi.RTNLGRP_IPV4_IFADDR, AF_INET6: abi.RTNLGRP_IPV6_IFADDR}
MAX_NUMBERED: Final = 32768
"""Names that a pattern such as "eth%d" may give: __dev_alloc_name()."""


def link_message(link: Interface, kind: int = abi.RTM_NEWLINK, change: int = 0) -> Reply:
    """struct ifinfomsg and the attributes that programs look at."""
    received, octets = link.received
    sent, octets_sent = link.sent or link.received
    counters = (received, sent, octets, octets_sent)
    plain = len(abi.RtnlLinkStats._fields)
    wide = len(abi.RtnlLinkStats64._fields)
    stats = [value & 0xFFFFFFFF for value in counters] + [0] * (plain - 4)
    stats64 = [*counters] + [0] * (wide - 4)
    least, most = (MIN_MTU, link.mtu_max) if link.driver is not None else (0, 0)
    body = abi.IFINFOMSG.pack(0, 0, link.kind, link.index, link.flags, change)
    body += b"".join(
        (
            text(abi.IFLA_IFNAME, link.name),
            u32(abi.IFLA_TXQLEN, link.queue_length),
            u8(abi.IFLA_OPERSTATE, oper_state(link)),
            u8(abi.IFLA_LINKMODE, 0),
            u32(abi.IFLA_MTU, link.mtu),
            u32(abi.IFLA_MIN_MTU, least),
            u32(abi.IFLA_MAX_MTU, most),
            u32(abi.IFLA_GROUP, 0),
            u32(abi.IFLA_PROMISCUITY, 0),
            u32(abi.IFLA_ALLMULTI, 0),
            u32(abi.IFLA_NUM_TX_QUEUES, 1),
            u32(abi.IFLA_GSO_MAX_SEGS, GSO_MAX_SEGMENTS),
            u32(abi.IFLA_GSO_MAX_SIZE, 65536),
            u32(abi.IFLA_NUM_RX_QUEUES, 1),
            u8(abi.IFLA_CARRIER, link.has_carrier),
            u32(abi.IFLA_CARRIER_CHANGES, 0),
            u32(abi.IFLA_CARRIER_UP_COUNT, 0),
            u32(abi.IFLA_CARRIER_DOWN_COUNT, 0),
            u8(abi.IFLA_PROTO_DOWN, 0),
            attribute(abi.IFLA_MAP, bytes(32)),
            _hardware(link),
            attribute(abi.IFLA_STATS64, abi.RTNL_LINK_STATS64.pack(*stats64)),
            attribute(abi.IFLA_STATS, abi.RTNL_LINK_STATS.pack(*stats)),
            text(abi.IFLA_QDISC, "noqueue"),
            _kind_of(link),
        )
    )
    return kind, body


def oper_state(link: Interface) -> int:
    """IF_OPER_*: rfc2863_policy()."""
    driver = link.driver
    if link.is_up and link.has_carrier:
        if driver is not None:
            return driver.oper_state
        return OPER_UNKNOWN if link.is_loopback else OPER_UP
    is_below_down = link.is_up and driver is not None and driver.is_below_down
    return OPER_LOWERLAYERDOWN if is_below_down else OPER_DOWN


def _hardware(link: Interface) -> bytes:
    if not link.hardware:
        return b""
    own = attribute(abi.IFLA_ADDRESS, link.hardware)
    return own + attribute(abi.IFLA_BROADCAST, link.hardware_broadcast)


def _kind_of(link: Interface) -> bytes:
    """rtnl_link_info_fill()."""
    if link.driver is None or not link.driver.kind:
        return b""
    told = text(abi.IFLA_INFO_KIND, link.driver.kind)
    details = link.driver.details()
    told += attribute(abi.IFLA_INFO_DATA, details) if details else b""
    upper = link.driver.upper
    if upper is None:
        return attribute(abi.IFLA_LINKINFO, told) + link.driver.link_attributes()
    told += text(abi.IFLA_INFO_SLAVE_KIND, upper.kind)
    told += attribute(abi.IFLA_INFO_SLAVE_DATA, upper.details())
    master = u32(abi.IFLA_MASTER, upper.index)
    return master + attribute(abi.IFLA_LINKINFO, told) + link.driver.link_attributes()


def address_message(link: Interface, own: Address, kind: int = abi.RTM_NEWADDR) -> Reply:
    """struct ifaddrmsg and its attributes."""
    body = abi.IFADDRMSG.pack(own.family, own.prefix, own.flags & 0xFF, own.scope, link.index)
    times = attribute(abi.IFA_CACHEINFO, struct.pack("<IIII", FOREVER, FOREVER, 0, 0))
    flags = u32(abi.IFA_FLAGS, own.flags)
    if own.family == AF_INET:
        body += attribute(abi.IFA_ADDRESS, own.peer or own.ip) + attribute(abi.IFA_LOCAL, own.ip)
        if own.broadcast:
            body += attribute(abi.IFA_BROADCAST, own.broadcast)
        body += text(abi.IFA_LABEL, own.label) if own.label else b""
        body += flags + times
        return kind, body
    if own.peer:
        body += attribute(abi.IFA_LOCAL, own.ip)
    body += attribute(abi.IFA_ADDRESS, own.peer or own.ip) + times + flags
    return kind, body + (u8(abi.IFA_PROTO, own.origin) if own.origin else b"")


def tell(stack: Stack, group: int, reply: Reply, request: Request | None = None) -> None:
    """A notice to a multicast group of NETLINK_ROUTE; some say whose request made it."""
    kind, body = reply
    sequence, port = (request.sequence, request.sock.port) if request is not None else (0, 0)
    multicast(stack, NETLINK_ROUTE, group, message(kind, 0, sequence, port, body))


def hears(stack: Stack, group: int) -> bool:
    """Somebody is a member of a group."""
    return stack.netlink_groups[NETLINK_ROUTE, group] > 0


def tell_in_steps(stack: Stack, group: int, replies: Iterable[Reply]) -> None:
    """The same of what anybody on a link can cause: a bounded part in each turn of the loop, and
    nothing of it while too much waits."""
    stack.fan_out.begin(_told_in_steps(stack, group, replies))


def _told_in_steps(stack: Stack, group: int, replies: Iterable[Reply]) -> Iterator[None]:
    for kind, body in replies:
        data = message(kind, 0, 0, 0, body)
        for place, sock in list(stack.netlink.items()):
            is_member = place[0] == NETLINK_ROUTE and group in sock.groups
            if is_member and stack.netlink.get(place) is sock:
                sock.deliver(data, 0, group)
                yield
        yield


def tell_address(
    stack: Stack, link: Interface, own: Address, kind: int, request: Request | None = None
) -> None:
    """RTM_NEWADDR, RTM_DELADDR; of IPv6 they name no request: inet6_ifa_notify()."""
    if stack.view is None or link.driver is not None:
        stack.outdate()
    stack.interfaces.address_changes += 1
    named = request if own.family == AF_INET else None
    tell(stack, IFADDR[own.family], address_message(link, own, kind), named)


def check_mtu(link: Interface, mtu: int) -> int:
    """dev_validate_mtu(). Raises: EINVAL."""
    if not 0 <= mtu <= (link.mtu_max or 0x7FFFFFFF) or (not link.is_loopback and mtu < MIN_MTU):
        raise EINVAL(f"MTU {mtu}")
    return mtu


def set_mtu(stack: Stack, link: Interface, mtu: int) -> None:
    """dev_set_mtu(). Raises: EINVAL, ERANGE."""
    if check_mtu(link, mtu) != link.mtu:
        if link.driver is not None:
            link.driver.check_mtu(mtu)
        link.mtu, link.ipv6_mtu = mtu, 0
        if link.driver is not None:
            link.driver.changed()
        tell(stack, abi.RTNLGRP_LINK, link_message(link))


def set_queue_length(stack: Stack, link: Interface, packets: int) -> None:
    """dev_change_tx_queue_len()."""
    if packets != link.queue_length:
        link.queue_length = packets
        tell(stack, abi.RTNLGRP_LINK, link_message(link))


def set_hardware(stack: Stack, link: Interface, wanted: bytes) -> None:
    """dev_set_mac_address(). Raises: EOPNOTSUPP, EINVAL, EADDRNOTAVAIL."""
    if not link.hardware:
        raise EOPNOTSUPP("no hardware address")
    if len(wanted) < len(link.hardware):
        raise EINVAL("hardware address")
    wanted = wanted[: len(link.hardware)]
    if wanted[0] & 1 or not any(wanted):
        raise EADDRNOTAVAIL("nobody's address")
    link.hardware = wanted
    if link.driver is not None:
        link.driver.changed()
    tell(stack, abi.RTNLGRP_LINK, link_message(link))


def change_flags(stack: Stack, link: Interface, flags: int, change: int) -> None:
    """Up and down, and what belongs to it: dev_change_flags(). A link that is down has no IPv6.

    Raises: ENETDOWN where what it stands on is down.
    """
    if link.driver is not None and flags & change & abi.IFF_UP and not link.is_up:
        link.driver.opening()
    before, addresses = link.flags, list(link.addresses)
    link.set_flags(flags, change & IFF_SETTABLE)
    if link.is_loopback and link.is_up and not before & abi.IFF_UP:
        bring_up(link)
    if before & abi.IFF_UP and not link.is_up:
        link.addresses = link.of_family(AF_INET)
        if not link.is_loopback:
            stack.routes.forget(link.index)
    if link.driver is not None and (before ^ link.flags) & abi.IFF_UP:
        link.driver.turned()
    stack.outdate()
    if before != link.flags:
        changed = (before ^ link.flags) & IFF_SETTABLE
        tell(stack, abi.RTNLGRP_LINK, link_message(link, change=changed))
    _tell_difference(stack, link, addresses)


def _tell_difference(stack: Stack, link: Interface, before: list[Address]) -> None:
    """Of its addresses."""
    for own in link.addresses:
        if own not in before:
            tell_address(stack, link, own, abi.RTM_NEWADDR)
    for own in before:
        if own not in link.addresses:
            tell_address(stack, link, own, abi.RTM_DELADDR)


def turn_ipv6(stack: Stack, link: Interface, on: bool) -> None:
    """addrconf_disable_ipv6(). Raises: EPERM for one of the host's."""
    stack.check_own(link.index)
    before = list(link.addresses)
    link.turn_ipv6(on)
    if on and link.is_up and link.driver is not None:
        link.driver.turned()
    stack.outdate()
    _tell_difference(stack, link, before)


def rename(stack: Stack, link: Interface, wanted: bytes) -> None:
    """dev_change_name(); "%d" in a name is the first free number. Raises: what `free_name` does."""
    if wanted.decode(errors="replace") == link.name:
        return
    name = free_name(wanted, {other.name for other in stack.interfaces if other is not link})
    link.name, old = name, link.name
    link_renamed(stack, old, name)
    stack.outdate()
    tell(stack, abi.RTNLGRP_LINK, link_message(link))
    for own in link.of_family(AF_INET):
        if own.label == old or own.label.startswith(f"{old}:"):
            own.label = (name + own.label[len(old) :])[: IFNAMSIZ - 1]
        tell_address(stack, link, own, abi.RTM_NEWADDR)


def free_name(wanted: bytes, taken: set[str]) -> str:
    """dev_get_valid_name(). Raises: EINVAL, EEXIST, ENFILE."""
    name = wanted.decode(errors="replace")
    bad = len(wanted) >= IFNAMSIZ or name in ("", ".", "..")
    if bad or any(c in "/:" or c.isspace() for c in name):
        raise EINVAL("name")
    if "%" in name:
        name = _numbered(name, taken)
    if name in taken:
        raise EEXIST(name)
    return name


def _numbered(pattern: str, taken: set[str]) -> str:
    if pattern.count("%") != 1 or "%d" not in pattern:
        raise EINVAL("pattern")
    for number in range(MAX_NUMBERED):
        name = pattern.replace("%d", str(number))
        if name not in taken:
            if len(name) >= IFNAMSIZ:
                break
            return name
    raise ENFILE("every number is taken")
