"""RTM_*ADDR: addresses of interfaces. net/ipv4/devinet.c, net/ipv6/addrconf.c."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EADDRNOTAVAIL, EAFNOSUPPORT, EEXIST, EINVAL, ENODEV, EOPNOTSUPP
from sentry.net.interfaces import Address
from sentry.net.netlink.message import Reply, Request, number
from sentry.net.netlink.notices import address_message, tell_address
from sentry.net.netlink.registry import handles

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface

SIZES: Final = {AF_INET: 4, AF_INET6: 16}


@handles(NETLINK_ROUTE, abi.RTM_GETADDR)
def get_addresses(request: Request) -> Iterable[Reply]:
    """RTM_GETADDR: all of a family, or of all; one only for IPv6."""
    family = request.body[0]
    wanted = 0
    strict = abi.NETLINK_GET_STRICT_CHK in request.sock.flags_set
    if strict and len(request.body) >= abi.IFADDRMSG.size and request.flags & abi.NLM_F_DUMP:
        wanted = abi.IFADDRMSG.unpack(request.body).ifa_index
        if wanted:
            request.stack.interfaces.by_index(wanted)
    if request.flags & abi.NLM_F_DUMP:
        return (
            address_message(link, own)
            for number_of_family in (AF_INET, AF_INET6)
            if family not in (AF_INET, AF_INET6) or family == number_of_family
            for link in request.stack.interfaces.those_still_there()
            if wanted in (0, link.index)
            for own in link.of_family(number_of_family)
            if own in link.addresses
        )
    if family != AF_INET6:
        raise EOPNOTSUPP("no single address")
    attributes = request.attributes(abi.IFADDRMSG.size)
    ip = attributes.get(abi.IFA_ADDRESS) or attributes.get(abi.IFA_LOCAL)
    if ip is None:
        raise EINVAL("no address")
    holder = request.stack.interfaces.holder(ip)
    if holder is None:
        raise EADDRNOTAVAIL("address")
    return [address_message(holder, own) for own in holder.addresses if own.ip == ip]


def _parse(request: Request) -> tuple[Interface, Address]:
    head = abi.IFADDRMSG.unpack(request.fixed(abi.IFADDRMSG.size))
    if head.ifa_family not in SIZES:
        raise EOPNOTSUPP(f"family {head.ifa_family}")
    size = SIZES[head.ifa_family]
    attributes = request.attributes(abi.IFADDRMSG.size)
    local = attributes.get(abi.IFA_LOCAL) or attributes.get(abi.IFA_ADDRESS)
    if local is None:
        raise EINVAL("no address")
    peer = attributes.get(abi.IFA_ADDRESS, local)
    if len(local) != size or len(peer) != size:
        raise EINVAL("size of the address")
    if head.ifa_prefixlen > size * 8:
        raise EINVAL("prefix")
    link = request.stack.interfaces.by_index(head.ifa_index)
    request.stack.check_own(link.index)
    flags = head.ifa_flags
    if abi.IFA_FLAGS in attributes:
        flags = number(attributes[abi.IFA_FLAGS])
    label = attributes.get(abi.IFA_LABEL, b"").rstrip(b"\0").decode(errors="replace")
    return link, Address(
        head.ifa_family, local, head.ifa_prefixlen, head.ifa_scope, label[:15],
        attributes.get(abi.IFA_BROADCAST, b"")[:size], flags | abi.IFA_F_PERMANENT,
        peer=peer if peer != local else b"",
    )  # fmt: skip


@handles(NETLINK_ROUTE, abi.RTM_NEWADDR)
def new_address(request: Request) -> None:
    """RTM_NEWADDR. One that is there: EEXIST, unless NLM_F_REPLACE."""
    link, own = _parse(request)
    request.stack.interfaces.check_room()
    try:
        link.add(own)
    except EEXIST:
        if request.flags & (abi.NLM_F_EXCL | abi.NLM_F_REPLACE) != abi.NLM_F_REPLACE:
            raise
        own = link.replace(own)
    tell_address(request.stack, link, own, abi.RTM_NEWADDR, request)


@handles(NETLINK_ROUTE, abi.RTM_DELADDR)
def delete_address(request: Request) -> None:
    """RTM_DELADDR."""
    try:
        link, own = _parse(request)
    except EOPNOTSUPP:
        raise EAFNOSUPPORT("family") from None
    except ENODEV:
        raise ENODEV("interface") from None
    gone = link.remove(own)
    tell_address(request.stack, link, gone, abi.RTM_DELADDR, request)
