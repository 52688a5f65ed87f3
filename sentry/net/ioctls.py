"""ioctl(2) on sockets of any family: interfaces, routes, owners, time stamps. netdevice(7).

A socket's own requests (bytes that wait, the urgent mark) are its `own_ioctl`.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN
from sentry.abi.fcntl import F_OWNER_PGRP, F_OWNER_PID
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_PACKET,
    FIOGETOWN,
    FIOSETOWN,
    IFNAMSIZ,
    RTF_GATEWAY,
    RTF_HOST,
    SOCK_IOC_TYPE,
)
from sentry.errors import (
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EEXIST,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOTTY,
    ENXIO,
    EPERM,
    ESRCH,
)
from sentry.net.ethtool import ethtool
from sentry.net.interfaces import Address, Interface, mask_of, masked
from sentry.net.netlink.links import change_flags, check_mtu
from sentry.net.routes import Route
from sentry.vfs.notices import set_owner

if TYPE_CHECKING:
    from sentry.net.socket import Socket
    from sentry.vfs.file import Caller

STAMPED: Final = (AF_INET, AF_INET6, AF_PACKET)
"""Families whose sockets know SIOCGSTAMP."""
LAST_STAMP: Final = {
    abi.SIOCGSTAMP_OLD: 1000, 0x80108906: 1000, abi.SIOCGSTAMPNS_OLD: 1, 0x80108907: 1,
}  # fmt: skip
"""SIOCGSTAMP, SIOCGSTAMPNS, and the same with the size in the number: nanoseconds of a unit."""
IFREQ_SIZE: Final = 40
RTENTRY_SIZE: Final = 120

Get = Callable[["Socket", Interface], bytes]


def _sockaddr(ip: bytes) -> bytes:
    return struct.pack("<H2x4s8x", AF_INET, ip)


def _first(link: Interface) -> Address:
    own = link.of_family(AF_INET)
    if not own:
        raise EADDRNOTAVAIL(link.name)
    return own[0]


def _broadcast(sock: Socket, link: Interface) -> bytes:
    return _sockaddr(_first(link).broadcast or bytes(4))


def _hardware(sock: Socket, link: Interface) -> bytes:
    return struct.pack("<H", link.kind) + link.hardware.ljust(14, b"\0")


GETTERS: Final[dict[int, Get]] = {
    abi.SIOCGIFFLAGS: lambda _, link: struct.pack("<H", link.flags & 0xFFFF),
    abi.SIOCGIFMETRIC: lambda _, link: struct.pack("<i", 0),
    abi.SIOCGIFMTU: lambda _, link: struct.pack("<i", link.mtu),
    abi.SIOCGIFINDEX: lambda _, link: struct.pack("<i", link.index),
    abi.SIOCGIFTXQLEN: lambda _, link: struct.pack("<i", link.queue_length),
    abi.SIOCGIFMAP: lambda _, link: bytes(24),
    abi.SIOCGIFHWADDR: lambda _, link: (
        struct.pack("<H", link.kind) + link.hardware.ljust(14, b"\0")
    ),
}
"""Of an interface by name."""
GETTERS4: Final[dict[int, Get]] = {
    abi.SIOCGIFADDR: lambda _, link: _sockaddr(_first(link).ip),
    abi.SIOCGIFDSTADDR: lambda _, link: _sockaddr(_first(link).peer or _first(link).ip),
    abi.SIOCGIFNETMASK: lambda _, link: _sockaddr(mask_of(_first(link).prefix, 4)),
    abi.SIOCGIFBRDADDR: _broadcast,
}
"""Only AF_INET sockets know these."""


def name_of(request: bytes) -> str:
    """ifr_name."""
    return request[: IFNAMSIZ - 1].split(b"\0", 1)[0].decode(errors="replace")


def socket_ioctl(sock: Socket, caller: Caller, request: int, argument: int) -> int:
    """sock_ioctl(). Raises: ENOTTY for what is no request of sockets."""
    if request in (FIOSETOWN, abi.SIOCSPGRP):
        return _set_owner(sock, caller, argument)
    if request in (FIOGETOWN, abi.SIOCGPGRP):
        kind, number = sock.owner
        number = caller.group.pids.of(number)
        value = -number if kind == F_OWNER_PGRP else number
        caller.mm.write(argument, struct.pack("<i", value))
        return 0
    own = sock.own_ioctl(caller, request, argument)
    if own is not None:
        return own
    if request == abi.SIOCGIFCONF:
        return _configuration(sock, caller, argument)
    if request in LAST_STAMP and sock.family in STAMPED:
        return _last_stamp(sock, caller, argument, LAST_STAMP[request])
    if request in (abi.SIOCADDRT, abi.SIOCDELRT) and sock.family == AF_INET:
        return _route(sock, caller, request, argument)
    if request in (abi.SIOCGARP, abi.SIOCSARP, abi.SIOCDARP) and sock.family == AF_INET:
        return _arp(sock, caller, request, argument)
    return _interface(sock, caller, request, argument)


def _set_owner(sock: Socket, caller: Caller, argument: int) -> int:
    (who,) = struct.unpack("<i", caller.mm.read(argument, 4))
    if who == -(1 << 31):
        raise EINVAL("no such group")
    kind, number = (F_OWNER_PGRP, -who) if who < 0 else (F_OWNER_PID, who)
    pids: Any = caller.kernel.pids
    wanted = caller.group.pids.known(number) if number else 0
    if number and wanted not in (pids.process_groups if who < 0 else pids.groups):
        raise ESRCH(f"{number}")
    set_owner(caller, sock, kind, wanted)
    return 0


def _last_stamp(sock: Socket, caller: Caller, argument: int, unit_ns: int) -> int:
    """SIOCGSTAMP: when the last datagram that was read had come. sock_gettstamp().

    Of the one that was read before anybody had asked it is not known: the time is now.
    """
    sock.keeps_stamp = True
    if sock.last_stamp_ns < 0:
        raise ENOENT("no time stamp")
    sock.last_stamp_ns = sock.last_stamp_ns or time.time_ns()
    seconds, rest = divmod(sock.last_stamp_ns, 10**9)
    caller.mm.write(argument, struct.pack("<qq", seconds, rest // unit_ns))
    return 0


def _configuration(sock: Socket, caller: Caller, argument: int) -> int:
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
    caller.mm.write(argument, struct.pack("<i", len(made)))
    return 0


def _interface(sock: Socket, caller: Caller, request: int, argument: int) -> int:
    """dev_ioctl(), devinet_ioctl(): requests over a struct ifreq."""
    interfaces = sock.stack.interfaces
    if request == abi.SIOCGIFNAME:
        raw = caller.mm.read(argument, IFREQ_SIZE)
        (index,) = struct.unpack_from("<i", raw, IFNAMSIZ)
        name = interfaces.by_index(index).name.encode().ljust(IFNAMSIZ, b"\0")
        caller.mm.write(argument, name)
        return 0
    if request == abi.SIOCETHTOOL:
        raw = caller.mm.read(argument, IFREQ_SIZE)
        (pointer,) = struct.unpack_from("<Q", raw, IFNAMSIZ)
        return ethtool(caller, interfaces.by_name(name_of(raw)), pointer)
    getter = GETTERS.get(request)
    if getter is None and sock.family in (AF_INET, AF_PACKET):
        getter = GETTERS4.get(request)
    if getter is not None:
        raw = caller.mm.read(argument, IFREQ_SIZE)
        link = interfaces.by_name(name_of(raw).split(":", 1)[0])
        caller.mm.write(argument + IFNAMSIZ, getter(sock, link))
        return 0
    setter = SETTERS.get(request)
    if setter is None and sock.family in (AF_INET, AF_PACKET):
        setter = SETTERS4.get(request)
    if setter is None:
        if request >> 8 == SOCK_IOC_TYPE:
            caller.mm.read(argument, IFREQ_SIZE)
        raise ENOTTY(f"{request:#x}")
    raw = caller.mm.read(argument, IFREQ_SIZE)
    if not caller.creds.has_in(sock.stack.owner, CAP_NET_ADMIN):
        raise EPERM("CAP_NET_ADMIN")
    setter(sock, interfaces.by_name(name_of(raw).split(":", 1)[0]), raw)
    return 0


# --- changes


def _int(raw: bytes) -> int:
    return int(struct.unpack_from("<i", raw, IFNAMSIZ)[0])


def _set_flags(sock: Socket, link: Interface, raw: bytes) -> None:
    (flags,) = struct.unpack_from("<H", raw, IFNAMSIZ)
    change_flags(sock.stack, link, flags, 0xFFFF)


def _set_mtu(sock: Socket, link: Interface, raw: bytes) -> None:
    link.mtu = check_mtu(link, _int(raw))


def _set_queue(sock: Socket, link: Interface, raw: bytes) -> None:
    if _int(raw) < 0:
        raise EINVAL("queue length")
    link.queue_length = _int(raw)


def _set_name(sock: Socket, link: Interface, raw: bytes) -> None:
    name = raw[IFNAMSIZ : 2 * IFNAMSIZ - 1].split(b"\0", 1)[0].decode(errors="replace")
    if not name or "/" in name or name in (".", ".."):
        raise EINVAL("name")
    if any(other.name == name and other is not link for other in sock.stack.interfaces):
        raise EEXIST(name)
    link.name = name


def _ip(raw: bytes) -> bytes:
    (family,) = struct.unpack_from("<H", raw, IFNAMSIZ)
    if family != AF_INET:
        raise EINVAL("family")
    return raw[IFNAMSIZ + 4 : IFNAMSIZ + 8]


def _set_address(sock: Socket, link: Interface, raw: bytes) -> None:
    ip = _ip(raw)
    label = name_of(raw)
    for old in link.of_family(AF_INET):
        if old.label == label:
            link.addresses.remove(old)
    if ip != bytes(4):
        prefix = 8 if ip[0] < 128 else 16 if ip[0] < 192 else 24
        link.add(Address(AF_INET, ip, prefix, 254 if link.is_loopback else 0, label))


def _set_mask(sock: Socket, link: Interface, raw: bytes) -> None:
    bits = int.from_bytes(_ip(raw), "big")
    prefix = bits.bit_count()
    if bits != ((1 << prefix) - 1) << (32 - prefix):
        raise EINVAL("netmask")
    _first(link).prefix = prefix


def _set_broadcast(sock: Socket, link: Interface, raw: bytes) -> None:
    _first(link).broadcast = _ip(raw)


SETTERS: Final[dict[int, Callable[[Socket, Interface, bytes], None]]] = {
    abi.SIOCSIFFLAGS: _set_flags,
    abi.SIOCSIFMTU: _set_mtu,
    abi.SIOCSIFTXQLEN: _set_queue,
    abi.SIOCSIFNAME: _set_name,
}
SETTERS4: Final[dict[int, Callable[[Socket, Interface, bytes], None]]] = {
    abi.SIOCSIFADDR: _set_address,
    abi.SIOCSIFNETMASK: _set_mask,
    abi.SIOCSIFBRDADDR: _set_broadcast,
}


def _route(sock: Socket, caller: Caller, request: int, argument: int) -> int:
    """SIOCADDRT, SIOCDELRT: struct rtentry."""
    if not caller.creds.has_in(sock.stack.owner, CAP_NET_ADMIN):
        raise EPERM("CAP_NET_ADMIN")
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
    added = sock.stack.routes.added
    same = [r for r in added if (r.destination, r.length) == (target, prefix)]
    if request == abi.SIOCADDRT:
        if same:
            raise EEXIST("route")
        via = gateway if flags & RTF_GATEWAY else b""
        added.append(Route(AF_INET, target, prefix, index, origin=3, gateway=via))
    elif same:
        added.remove(same[0])
    else:
        raise ESRCH("route")
    return 0


def _arp(sock: Socket, caller: Caller, request: int, argument: int) -> int:
    """arp(7): there are no neighbours."""
    raw = caller.mm.read(argument, 68)
    if request != abi.SIOCGARP and not caller.creds.has_in(sock.stack.owner, CAP_NET_ADMIN):
        raise EPERM("CAP_NET_ADMIN")
    if struct.unpack_from("<H", raw)[0] not in (AF_INET,):
        raise EAFNOSUPPORT("family")
    raise ENXIO("no neighbours")
