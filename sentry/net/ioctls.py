"""ioctl(2) on sockets of any family: interfaces, routes, owners, time stamps. netdevice(7).

The rows of a family (bytes that wait, the urgent mark) stand on these.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import ioctl
from sentry.abi import socket as abi
from sentry.abi.fcntl import F_OWNER_PGRP, F_OWNER_PID
from sentry.abi.netlink import (
    IFF_BROADCAST,
    IFF_POINTOPOINT,
    NLM_F_CREATE,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTM_DELADDR,
    RTM_NEWADDR,
)
from sentry.abi.socket import AF_INET, AF_INET6, AF_PACKET, IFNAMSIZ, RTF_GATEWAY, RTF_HOST
from sentry.errors import (
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOTTY,
    EOPNOTSUPP,
    ESRCH,
)
from sentry.net import arp_ioctls
from sentry.net.ethtool import ethtool
from sentry.net.interfaces import Address, Interface, mask_of, masked
from sentry.net.netlink.notices import (
    change_flags,
    rename,
    set_hardware,
    set_mtu,
    set_queue_length,
    tell_address,
)
from sentry.net.route_changes import insert, with_ways
from sentry.net.routes import Route
from sentry.vfs.notices import set_owner
from sentry.vfs.requests import INT, Requests

if TYPE_CHECKING:
    from sentry.net.socket import Socket
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

IFREQ_SIZE: Final = 40
RTENTRY_SIZE: Final = 120
PREFIX_WITHOUT_BROADCAST: Final = 30
"""A network of two addresses has none."""
INET4: Final = (AF_INET, AF_PACKET)
"""Families whose sockets know about addresses of interfaces."""

NAMES: Final = (abi, ioctl)
SOCKETS: Final = Requests(names=NAMES)
"""What sockets of every family understand."""


def _sockaddr(ip: bytes) -> bytes:
    return struct.pack("<H2x4s8x", AF_INET, ip)


def _first(link: Interface) -> Address:
    own = link.of_family(AF_INET)
    if not own:
        raise EADDRNOTAVAIL(link.name)
    return own[0]


def name_of(request: bytes) -> str:
    """ifr_name."""
    return request[: IFNAMSIZ - 1].split(b"\0", 1)[0].decode(errors="replace")


def socket_ioctl(sock: Socket, caller: Caller, request: int, argument: int) -> int:
    """sock_ioctl(). Raises: ENOTTY for what is no request of such sockets."""
    row = sock.requests.find(request)
    if row is None or (row.families and sock.family not in row.families):
        if request >> 8 == abi.SOCK_IOC_TYPE:
            caller.mm.read(argument, IFREQ_SIZE)
        raise ENOTTY(f"{request:#x}")
    if request >= abi.SIOCADDRT:
        sock.stack.look()
    return row.handler(sock, caller, argument) or 0


# --- of the socket itself


@SOCKETS.handles("FIOSETOWN", "SIOCSPGRP")
def _set_owner(sock: Socket, caller: Caller, argument: int) -> None:
    (who,) = struct.unpack("<i", caller.mm.read(argument, 4))
    if who == -(1 << 31):
        raise EINVAL("no such group")
    kind, number = (F_OWNER_PGRP, -who) if who < 0 else (F_OWNER_PID, who)
    pids: Any = caller.kernel.pids
    wanted = caller.group.pids.known(number) if number else 0
    if number and wanted not in (pids.process_groups if who < 0 else pids.groups):
        raise ESRCH(f"{number}")
    set_owner(caller, sock, kind, wanted)


@SOCKETS.handles("FIOGETOWN", "SIOCGPGRP")
def _get_owner(sock: Socket, caller: Caller, argument: int) -> None:
    kind, number = sock.owner
    number = caller.group.pids.of(number)
    caller.mm.write(argument, INT.pack(-number if kind == F_OWNER_PGRP else number))


def _last_stamp(unit_ns: int, sock: Socket, caller: Caller, argument: int) -> None:
    """SIOCGSTAMP: when the last datagram that was read had come. sock_gettstamp().

    Of the one that was read before anybody had asked it is not known: the time is now.
    """
    sock.keeps_stamp = True
    if sock.last_stamp_ns < 0:
        raise ENOENT("no time stamp")
    sock.last_stamp_ns = sock.last_stamp_ns or time.time_ns()
    seconds, rest = divmod(sock.last_stamp_ns, 10**9)
    caller.mm.write(argument, struct.pack("<qq", seconds, rest // unit_ns))


for _name, _unit_ns in (
    ("SIOCGSTAMP_OLD", 1000), ("SIOCGSTAMP_NEW", 1000),
    ("SIOCGSTAMPNS_OLD", 1), ("SIOCGSTAMPNS_NEW", 1),
):  # fmt: skip
    SOCKETS.row(_name, partial(_last_stamp, _unit_ns), families=(AF_INET, AF_INET6, AF_PACKET))


# --- of interfaces, by a struct ifreq


@SOCKETS.handles("SIOCGIFCONF")
def _configuration(sock: Socket, caller: Caller, argument: int) -> None:
    """SIOCGIFCONF: the interfaces that have an IPv4 address."""
    size, pointer = struct.unpack("<i4xQ", caller.mm.read(argument, 16))
    made = b"".join(
        own.label.encode()[: IFNAMSIZ - 1].ljust(IFNAMSIZ, b"\0") + _sockaddr(own.ip) + bytes(8)
        for link in sock.stack.interfaces
        for own in link.of_family(AF_INET)
    )
    if pointer:
        if size < 0:
            raise EINVAL("ifc_len")
        made = made[: size // IFREQ_SIZE * IFREQ_SIZE]
        caller.mm.write(pointer, made)
    caller.mm.write(argument, INT.pack(len(made)))


@SOCKETS.handles("SIOCGIFNAME")
def _get_name(sock: Socket, caller: Caller, argument: int) -> None:
    (index,) = INT.unpack_from(caller.mm.read(argument, IFREQ_SIZE), IFNAMSIZ)
    name = sock.stack.interfaces.by_index(index).name
    caller.mm.write(argument, name.encode().ljust(IFNAMSIZ, b"\0"))


@SOCKETS.handles("SIOCETHTOOL", partial="the link, offloads and time stamps are told, nothing set")
def _ethtool(sock: Socket, caller: Caller, argument: int) -> None:
    raw = caller.mm.read(argument, IFREQ_SIZE)
    (pointer,) = struct.unpack_from("<Q", raw, IFNAMSIZ)
    ethtool(caller, sock.stack.interfaces.by_name(name_of(raw)), pointer)


def _link(sock: Socket, raw: bytes) -> Interface:
    return sock.stack.interfaces.by_name(name_of(raw).split(":", 1)[0])


def _getter(
    name: str, tell: Callable[[Interface], bytes], families: tuple[int, ...] = (), lack: str = ""
) -> None:
    def get(sock: Socket, caller: Caller, argument: int) -> None:
        link = _link(sock, caller.mm.read(argument, IFREQ_SIZE))
        caller.mm.write(argument + IFNAMSIZ, tell(link))

    SOCKETS.row(name, get, partial=lack, families=families)


def _setter(
    name: str, change: Callable[[Socket, Interface, bytes], None], families: tuple[int, ...] = ()
) -> None:
    def set_(sock: Socket, caller: Caller, argument: int) -> None:
        raw = caller.mm.read(argument, IFREQ_SIZE)
        sock.stack.check_admin(caller)
        link = _link(sock, raw)
        sock.stack.check_own(link.index)
        change(sock, link, raw)

    SOCKETS.row(name, set_, families=families)


def _hardware(link: Interface) -> bytes:
    return struct.pack("<H", link.kind) + link.hardware.ljust(14, b"\0")


_getter("SIOCGIFFLAGS", lambda link: struct.pack("<H", link.flags & 0xFFFF))
_getter("SIOCGIFMETRIC", lambda link: INT.pack(0))
_getter("SIOCGIFMTU", lambda link: INT.pack(link.mtu))
_getter("SIOCGIFINDEX", lambda link: INT.pack(link.index))
_getter("SIOCGIFTXQLEN", lambda link: INT.pack(link.queue_length))
_getter("SIOCGIFMAP", lambda link: bytes(24))
_getter("SIOCGIFHWADDR", _hardware)
_getter("SIOCGIFADDR", lambda link: _sockaddr(_first(link).ip), INET4)
_getter("SIOCGIFDSTADDR", lambda link: _sockaddr(_first(link).peer or _first(link).ip), INET4)
_getter("SIOCGIFNETMASK", lambda link: _sockaddr(mask_of(_first(link).prefix, 4)), INET4)
_getter("SIOCGIFBRDADDR", lambda link: _sockaddr(_first(link).broadcast or bytes(4)), INET4)


# --- changes


def _int(raw: bytes) -> int:
    return int(struct.unpack_from("<i", raw, IFNAMSIZ)[0])


def _set_flags(sock: Socket, link: Interface, raw: bytes) -> None:
    (flags,) = struct.unpack_from("<H", raw, IFNAMSIZ)
    change_flags(sock.stack, link, flags, 0xFFFF)


def _set_mtu(sock: Socket, link: Interface, raw: bytes) -> None:
    set_mtu(sock.stack, link, _int(raw))


def _set_queue(sock: Socket, link: Interface, raw: bytes) -> None:
    if _int(raw) < 0:
        raise EINVAL("queue length")
    set_queue_length(sock.stack, link, _int(raw))


def _set_name(sock: Socket, link: Interface, raw: bytes) -> None:
    rename(sock.stack, link, raw[IFNAMSIZ : 2 * IFNAMSIZ - 1].split(b"\0", 1)[0])


def _ip(raw: bytes) -> bytes:
    (family,) = struct.unpack_from("<H", raw, IFNAMSIZ)
    if family != AF_INET:
        raise EINVAL("family")
    return raw[IFNAMSIZ + 4 : IFNAMSIZ + 8]


def _set_address(sock: Socket, link: Interface, raw: bytes) -> None:
    ip = _ip(raw)
    label = name_of(raw)
    sock.stack.interfaces.check_room()
    for old in link.of_family(AF_INET):
        if old.label == label:
            link.addresses.remove(old)
            tell_address(sock.stack, link, old, RTM_DELADDR)
    if ip != bytes(4):
        prefix = 8 if ip[0] < 128 else 16 if ip[0] < 192 else 24
        if link.flags & IFF_POINTOPOINT:
            prefix = 32
        new = Address(AF_INET, ip, prefix, 254 if link.is_loopback else 0, label)
        new.broadcast = broadcast_of(link, new)
        link.add(new)
        tell_address(sock.stack, link, new, RTM_NEWADDR)


def _set_mask(sock: Socket, link: Interface, raw: bytes) -> None:
    bits = int.from_bytes(_ip(raw), "big")
    prefix = bits.bit_count()
    if bits != ((1 << prefix) - 1) << (32 - prefix):
        raise EINVAL("netmask")
    own = _first(link)
    tell_address(sock.stack, link, own, RTM_DELADDR)
    is_usual = own.broadcast == broadcast_of(link, own)
    own.prefix = prefix
    own.broadcast = broadcast_of(link, own) if is_usual else own.broadcast
    tell_address(sock.stack, link, own, RTM_NEWADDR)


def _set_broadcast(sock: Socket, link: Interface, raw: bytes) -> None:
    own, ip = _first(link), _ip(raw)
    tell_address(sock.stack, link, own, RTM_DELADDR)
    own.broadcast = ip
    tell_address(sock.stack, link, own, RTM_NEWADDR)


def broadcast_of(link: Interface, own: Address) -> bytes:
    """What devinet_ioctl() takes for one; empty where there is none."""
    if not link.flags & IFF_BROADCAST or own.prefix > PREFIX_WITHOUT_BROADCAST:
        return b""
    rest = (1 << (32 - own.prefix)) - 1
    return (int.from_bytes(own.ip) | rest).to_bytes(4)


def _set_peer(sock: Socket, link: Interface, raw: bytes) -> None:
    """The other end."""
    own, ip = _first(link), _ip(raw)
    tell_address(sock.stack, link, own, RTM_DELADDR)
    own.peer = ip if ip != own.ip else b""
    tell_address(sock.stack, link, own, RTM_NEWADDR)


def _set_link_address(sock: Socket, link: Interface, raw: bytes) -> None:
    if not link.hardware:
        raise EOPNOTSUPP(link.name)
    if int.from_bytes(raw[IFNAMSIZ : IFNAMSIZ + 2], "little") != link.kind:
        raise EINVAL("kind of link")
    set_hardware(sock.stack, link, raw[IFNAMSIZ + 2 :])


_setter("SIOCSIFFLAGS", _set_flags)
_setter("SIOCSIFMTU", _set_mtu)
_setter("SIOCSIFTXQLEN", _set_queue)
_setter("SIOCSIFNAME", _set_name)
_setter("SIOCSIFADDR", _set_address, INET4)
_setter("SIOCSIFNETMASK", _set_mask, INET4)
_setter("SIOCSIFBRDADDR", _set_broadcast, INET4)
_setter("SIOCSIFDSTADDR", _set_peer, INET4)
_setter("SIOCSIFHWADDR", _set_link_address)


# --- routes and neighbours


def _route(
    change: Callable[[Socket, Route], None], sock: Socket, caller: Caller, argument: int
) -> None:
    """struct rtentry."""
    sock.stack.check_admin(caller)
    raw = caller.mm.read(argument, RTENTRY_SIZE)
    target, gateway, mask = raw[12:16], raw[28:32], raw[44:48]
    (flags,) = struct.unpack_from("<H", raw, 56)
    (family,) = struct.unpack_from("<H", raw, 8)
    if family != AF_INET:
        raise EAFNOSUPPORT(f"family {family}")
    prefix = 32 if flags & RTF_HOST else int.from_bytes(mask, "big").bit_count()
    if masked(target, prefix) != target:
        raise EINVAL("bits beyond the netmask")
    (device,) = struct.unpack_from("<Q", raw, 88)
    index = 0
    if device:
        name = caller.mm.read_cstr(device, IFNAMSIZ).decode(errors="replace")
        index = sock.stack.interfaces.by_name(name).index
    elif flags & RTF_GATEWAY and (way := sock.stack.routes.lookup(gateway)) is not None:
        index = way.index
    if not index:
        raise ENODEV("no interface")
    sock.stack.check_own(index)
    via = gateway if flags & RTF_GATEWAY else b""
    scope = RT_SCOPE_UNIVERSE if via else RT_SCOPE_LINK
    change(sock, Route(AF_INET, target, prefix, index, scope=scope, origin=3, gateway=via))


def _same(sock: Socket, route: Route) -> list[Route]:
    wanted = (route.destination, route.length, route.table)
    added = sock.stack.routes.added
    return [r for r in added if (r.destination, r.length, r.table) == wanted]


def _add_route(sock: Socket, route: Route) -> None:
    insert(sock.stack, with_ways(sock.stack, route), NLM_F_CREATE)
    sock.stack.outdate()


def _delete_route(sock: Socket, route: Route) -> None:
    same = _same(sock, route)
    if not same:
        raise ESRCH("route")
    sock.stack.check_own(same[0].index)
    sock.stack.routes.added.remove(same[0])
    sock.stack.outdate()


SOCKETS.row("SIOCADDRT", partial(_route, _add_route), families=(AF_INET,))
SOCKETS.row("SIOCDELRT", partial(_route, _delete_route), families=(AF_INET,))


def _of_stack(name: str, body: Callable[[Stack, Caller, int], None]) -> None:
    def handler(sock: Socket, caller: Caller, argument: int) -> None:
        body(sock.stack, caller, argument)

    SOCKETS.row(name, handler, families=(AF_INET,))


_of_stack("SIOCGARP", arp_ioctls.get)
_of_stack("SIOCSARP", arp_ioctls.put)
_of_stack("SIOCDARP", arp_ioctls.delete)
