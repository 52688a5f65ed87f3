"""SIOC*ARP: neighbours of IPv4, as arp(7) has them. net/ipv4/arp.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, IFNAMSIZ
from sentry.errors import EINVAL, ENOBUFS, ENODEV, ENXIO, EPFNOSUPPORT
from sentry.net.link.neighbours import VALID
from sentry.net.netlink.neighbours import tables

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.link.neighbours import Neighbours
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

_REQUEST: Final = struct.Struct("<H2x4s8xH6s8xi16x16s")
"""struct arpreq: family, address, family and address of hardware, flags, interface."""
PUBLISHED: Final = abi.ATF_NETMASK | abi.ATF_DONTPUB


class _Asked(NamedTuple):
    ip: bytes
    kind: int
    hardware: bytes
    flags: int
    interface: Interface
    table: Neighbours


def _asked(stack: Stack, caller: Caller, argument: int, *, needs_device: bool) -> _Asked:
    """arp_ioctl(). Raises: EPFNOSUPPORT, EINVAL, ENODEV, ENXIO."""
    family, ip, kind, hardware, flags, device = _REQUEST.unpack(
        caller.mm.read(argument, _REQUEST.size)
    )
    if family != AF_INET:
        raise EPFNOSUPPORT("family")
    if not flags & abi.ATF_PUBL and flags & PUBLISHED:
        raise EINVAL("a proxy without ATF_PUBL")
    name, interfaces = device.split(b"\0", 1)[0][:IFNAMSIZ], stack.interfaces
    if name:
        interface = interfaces.by_name(name.decode(errors="replace"))
    elif needs_device:
        raise ENODEV("no interface")
    else:
        route = stack.routes.lookup(ip)
        if route is None:
            raise EINVAL("no route")
        interface = interfaces.by_index(route.index)
    for _, each, table in tables(stack, interface.index):
        if each == AF_INET:
            return _Asked(ip, kind, hardware, flags, interface, table)
    raise ENXIO("no neighbours")


def get(stack: Stack, caller: Caller, argument: int) -> None:
    """SIOCGARP: arp_req_get()."""
    asked = _asked(stack, caller, argument, needs_device=True)
    found = asked.table.get(asked.ip)
    if found is None:
        raise ENXIO("no such neighbour")
    flags = abi.ATF_COM if found.state & VALID else 0
    flags |= abi.ATF_PERM if found.state & abi.NUD_PERMANENT else 0
    name = asked.interface.name.encode()
    caller.mm.write(argument, _REQUEST.pack(
        AF_INET, asked.ip, asked.interface.kind, found.hardware, flags, name
    ))  # fmt: skip


def put(stack: Stack, caller: Caller, argument: int) -> None:
    """SIOCSARP: arp_req_set()."""
    stack.check_admin(caller)
    asked = _asked(stack, caller, argument, needs_device=False)
    if asked.flags & abi.ATF_PUBL or asked.kind not in (0, asked.interface.kind):
        raise EINVAL("a proxy, or hardware of another kind")
    stack.check_own(asked.interface.index)
    known = asked.table.get(asked.ip)
    if asked.flags & (abi.ATF_COM | abi.ATF_PERM):
        hardware = asked.hardware
    elif known is not None and known.state & VALID:
        hardware = known.hardware
    else:
        raise EINVAL("no hardware address")
    state = abi.NUD_PERMANENT if asked.flags & abi.ATF_PERM else abi.NUD_STALE
    if not asked.table.configure(stack.kernel.loop.now_ns(), asked.ip, hardware, state):
        raise ENOBUFS("too many neighbours")


def delete(stack: Stack, caller: Caller, argument: int) -> None:
    """SIOCDARP: arp_req_delete()."""
    stack.check_admin(caller)
    asked = _asked(stack, caller, argument, needs_device=False)
    stack.check_own(asked.interface.index)
    if asked.table.get(asked.ip) is None:
        raise ENXIO("no such neighbour")
    asked.table.drop(asked.ip)
