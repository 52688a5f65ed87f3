"""Network interfaces of a sandbox: names, flags, addresses. netdevice(7), net/core/dev.c.

There is the loopback, and what programs make; with the host's network its interfaces are shown
instead (sentry/net/host).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from msgspec import Struct, field

from sentry.abi.netlink import (
    ARPHRD_LOOPBACK,
    IFA_F_PERMANENT,
    IFA_F_SECONDARY,
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_RUNNING,
    IFF_UP,
    RT_SCOPE_HOST,
)
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EACCES, EADDRNOTAVAIL, EEXIST, EINVAL, ENOBUFS, ENODEV

LOOPBACK_INDEX: Final = 1
LOOPBACK_MTU: Final = 65536
LENGTH_MAX: Final = 65535
"""Of an IPv4 packet, and of what follows the header of an IPv6 one."""
KERNEL_LO: Final = 1
"""IFAPROT_KERNEL_LO."""
MAX_ADDRESSES: Final = 1024
"""Of one interface: a ceiling of ours."""
LINK, SITE, GLOBAL = 2, 5, 14
"""Scopes of IPv6 addresses."""


class Address(Struct):
    """An address of an interface: struct in_ifaddr, struct inet6_ifaddr."""

    family: int
    ip: bytes
    prefix: int
    scope: int = RT_SCOPE_HOST
    label: str = ""
    broadcast: bytes = b""
    flags: int = IFA_F_PERMANENT
    origin: int = 0
    """IFA_PROTO."""
    peer: bytes = b""
    """IFA_ADDRESS, where it is not the address itself."""

    def covers(self, number: int) -> bool:
        """An address, as a number, is of its network."""
        ip = self.peer or self.ip
        return not (number ^ int.from_bytes(ip)) >> (len(ip) * 8 - self.prefix)

    @property
    def network(self) -> bytes:
        """The address with the bits of the host cleared."""
        return masked(self.peer or self.ip, self.prefix)


class Upper(Protocol):
    """Who has the frames of an interface: the bridge that it is a port of."""

    kind: str
    """As `ip link` names it."""
    bridge: Any
    """Its driver."""

    @property
    def index(self) -> int:
        """Of its interface."""

    def came(self, *frames: bytes) -> None:
        """Frames with their virtio headers have come in."""

    def changed(self) -> None:
        """The port is up or down, has a carrier, another MTU or hardware address."""

    def left(self) -> None:
        """The port is none any more."""

    def details(self) -> bytes:
        """IFLA_INFO_SLAVE_DATA."""


class Driver(Protocol):
    """What is behind an interface that was made inside: struct net_device_ops."""

    kind: str
    """As `ip link` names it; empty: a card, which no program has made, and none deletes."""
    stack: Any
    """Of its network namespace."""
    oper_state: int
    """IF_OPER_* while it is up and has a carrier."""
    upper: Upper | None

    @property
    def is_below_down(self) -> bool:
        """What it stands on, in the same namespace, has no carrier either."""

    def opening(self) -> None:
        """It is to be up. Raises: ENETDOWN."""

    def check_mtu(self, mtu: int) -> None:
        """Raises: ERANGE."""

    def turned(self) -> None:
        """Up, or down."""

    def changed(self) -> None:
        """Another MTU, another hardware address."""

    def removed(self) -> None:
        """It is no more: RTM_DELLINK."""

    def moved(self, stack: Any, wanted: bytes) -> None:
        """To another network namespace, with this name."""

    def link_attributes(self) -> bytes:
        """IFLA_LINK and the like: what it stands on."""

    def details(self) -> bytes:
        """IFLA_INFO_DATA."""

    def attributes(self) -> dict[str, str]:
        """Its own files in /sys/class/net/NAME."""


class Interface(Struct):
    """struct net_device, as far as a program sees it."""

    index: int
    name: str
    kind: int = ARPHRD_LOOPBACK
    flags: int = IFF_LOOPBACK
    mtu: int = LOOPBACK_MTU
    hardware: bytes = bytes(6)
    hardware_broadcast: bytes = bytes(6)
    queue_length: int = 1000
    ipv6_is_on: bool = True
    """net.ipv6.conf.*.disable_ipv6 is 0."""
    ipv6_mtu: int = 0
    """net.ipv6.conf.*.mtu; 0: that of the link."""
    addresses: list[Address] = field(default_factory=list)
    received: list[int] = field(default_factory=lambda: [0, 0])
    """Packets, bytes."""
    sent: list[int] | None = None
    """The same; what the loopback receives it has sent."""
    dropped: int = 0
    """Packets that could not be sent."""
    mtu_max: int = 0
    """0: any."""
    has_carrier: bool = True
    driver: Driver | None = None
    """None: the loopback, or an interface of the host."""

    @property
    def is_loopback(self) -> bool:
        """IFF_LOOPBACK."""
        return bool(self.flags & IFF_LOOPBACK)

    @property
    def is_up(self) -> bool:
        """IFF_UP."""
        return bool(self.flags & IFF_UP)

    def set_flags(self, wanted: int, change: int) -> None:
        """dev_change_flags(): of the flags those that a program may change."""
        settable = change & ~(IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP)
        self.flags = self.flags & ~settable | wanted & settable
        up = IFF_RUNNING | IFF_LOWER_UP
        has_all = self.is_up and self.has_carrier
        self.flags = self.flags | up if has_all else self.flags & ~up

    @property
    def mtu_of_ipv6(self) -> int:
        """Of IPv6 packets."""
        return self.ipv6_mtu or self.mtu

    def mtu_for(self, is_v4: bool) -> int:
        """No packet of IPv4 is larger than its header can say."""
        return min(self.mtu, LENGTH_MAX) if is_v4 else self.mtu_of_ipv6

    def turn_ipv6(self, on: bool) -> None:
        """Without IPv6 there are no addresses of it; with it the loopback has its own again."""
        self.ipv6_is_on = on
        if not on:
            self.addresses = self.of_family(AF_INET)
        elif self.is_loopback and self.is_up:
            bring_up(self)

    def of_family(self, family: int) -> list[Address]:
        """Its addresses of one family."""
        return [a for a in self.addresses if a.family == family]

    def add(self, new: Address) -> None:
        """RTM_NEWADDR. Raises: EEXIST, EINVAL, EACCES."""
        if new.family == AF_INET6 and not self.ipv6_is_on:
            raise EACCES("disable_ipv6")
        if len(new.ip) not in (4, 16) or not 0 <= new.prefix <= len(new.ip) * 8:
            raise EINVAL("address")
        if len(self.addresses) >= MAX_ADDRESSES:
            raise EINVAL("too many addresses")
        if self._same(new) is not None:
            raise EEXIST("address")
        for old in self.addresses:
            if new.family == AF_INET and old.family == AF_INET and old.prefix == new.prefix:
                same = old.network == new.network and not old.flags & IFA_F_SECONDARY
                new.flags |= IFA_F_SECONDARY if same else 0
        if not new.label and new.family == AF_INET:
            new.label = self.name
        self.put(new)

    def _same(self, new: Address) -> Address | None:
        """The address, if it is there already."""
        for old in self.addresses:
            if old.ip == new.ip and (new.family == AF_INET6 or old.prefix == new.prefix):
                return old
        return None

    def replace(self, new: Address) -> Address:
        """RTM_NEWADDR with NLM_F_REPLACE of one that is there, and stays where it is: only of IPv6
        flags and the other end change, inet6_addr_modify(). Preconditions: `add` raised EEXIST."""
        old = self._same(new)
        assert old is not None
        if new.family == AF_INET6:
            old.flags, old.peer = new.flags, new.peer or old.peer
        return old

    def put(self, new: Address) -> None:
        """Where it stands among the others."""
        self.addresses.insert(self._place_for(new), new)

    def _place_for(self, new: Address) -> int:
        """Of IPv6 the newest of each scope is the first: ipv6_link_dev_addr()."""
        if new.family == AF_INET6:
            scope = scope6(new.ip)
            for place, old in enumerate(self.addresses):
                if old.family == AF_INET6 and scope6(old.ip) <= scope:
                    return place
        return len(self.addresses)

    def remove(self, gone: Address) -> Address:
        """RTM_DELADDR: with this label, if there is one. Raises: EADDRNOTAVAIL."""
        for old in self.addresses:
            if old.ip == gone.ip and old.prefix == gone.prefix and gone.label in ("", old.label):
                self.addresses.remove(old)
                return old
        raise EADDRNOTAVAIL("address")


class Interfaces:
    """All interfaces, by index."""

    def __init__(self, *, up: bool = True) -> None:
        self._by_index: dict[int, Interface] = {}
        self._last = LOOPBACK_INDEX
        self.changes = self.address_changes = 0
        """How often an interface came or went, and an address."""
        loopback = Interface(LOOPBACK_INDEX, "lo")
        self.insert(loopback)
        if up:
            bring_up(loopback)

    def __iter__(self) -> Iterator[Interface]:
        return iter([self._by_index[i] for i in sorted(self._by_index)])

    def those_still_there(self) -> Iterator[Interface]:
        """All by index, for who tells of them in pieces: without those that go meanwhile."""
        for index in sorted(self._by_index):
            if (found := self._by_index.get(index)) is not None:
                yield found

    @property
    def loopback(self) -> Interface:
        """It is always there."""
        return self._by_index[LOOPBACK_INDEX]

    def free_index(self, least: int = 0) -> int:
        """The next one, which none has had: dev_new_index()."""
        self._last = max(self._last + 1, least)
        while self._last in self._by_index:
            self._last += 1
        return self._last

    def check_room(self) -> None:
        """For one more address that a program makes. Raises: ENOBUFS."""
        made = (each for each in self if each.driver is not None or each.is_loopback)
        if sum(len(each.addresses) for each in made) >= MAX_ADDRESSES:
            raise ENOBUFS("too many addresses")

    def insert(self, interface: Interface) -> None:
        """A new one, or another in the place of one with its index."""
        self._by_index[interface.index] = interface
        self.changes += 1

    def remove(self, index: int) -> None:
        """It is gone. Preconditions: it is there, and not the loopback."""
        del self._by_index[index]
        self.changes += 1

    def by_index(self, index: int) -> Interface:
        """Raises: ENODEV."""
        found = self._by_index.get(index)
        if found is None:
            raise ENODEV(f"interface {index}")
        return found

    def get(self, index: int) -> Interface | None:
        """One that is there."""
        return self._by_index.get(index)

    def by_name(self, name: str) -> Interface:
        """Raises: ENODEV."""
        for interface in self:
            if interface.name == name:
                return interface
        raise ENODEV(f"interface {name}")

    def is_local(self, ip: bytes) -> bool:
        """Whether packets for an address end here: the `local` table. 4 or 16 bytes."""
        for interface in self._by_index.values():
            if interface.is_up:
                for own in interface.addresses:
                    if own.ip == ip:
                        return True
        loopback = self.loopback  # of IPv4 its whole networks
        if len(ip) == 4 and loopback.is_up:
            number = int.from_bytes(ip)
            for own in loopback.addresses:
                if own.family == AF_INET and own.covers(number):
                    return True
        return False

    @property
    def has_ipv6(self) -> bool:
        """Something that is up has an IPv6 address."""
        return any(interface.of_family(AF_INET6) for interface in self if interface.is_up)

    def holder(self, ip: bytes) -> Interface | None:
        """The interface that has an address."""
        for interface in self:
            if any(own.ip == ip for own in interface.addresses):
                return interface
        return None


def bring_up(loopback: Interface) -> None:
    """What `ip link set lo up` makes: both loopback addresses appear."""
    loopback.set_flags(IFF_UP, IFF_UP)
    if not loopback.of_family(AF_INET):
        loopback.addresses.insert(
            0, Address(AF_INET, b"\x7f\0\0\x01", 8, RT_SCOPE_HOST, loopback.name)
        )
    if not loopback.of_family(AF_INET6) and loopback.ipv6_is_on:
        loopback.addresses.append(
            Address(AF_INET6, bytes(15) + b"\x01", 128, RT_SCOPE_HOST, origin=KERNEL_LO)
        )


def masked(ip: bytes, prefix: int) -> bytes:
    """An address with only its first `prefix` bits."""
    bits = len(ip) * 8
    keep = ((1 << prefix) - 1) << (bits - prefix)
    return (int.from_bytes(ip, "big") & keep).to_bytes(len(ip), "big")


def mask_of(prefix: int, size: int) -> bytes:
    """A netmask."""
    return masked(b"\xff" * size, prefix)


def scope6(ip: bytes) -> int:
    """Of an address of 16 bytes: RFC 6724, 3.1 and 3.2."""
    if ip[0] == 0xFF:
        return ip[1] & 15
    if ip[0] == 0xFE:
        if ip[1] & 0xC0 == 0x80:
            return LINK
        if ip[1] & 0xC0 == 0xC0:
            return SITE
    if ip == bytes(15) + b"\x01":
        return LINK
    return GLOBAL
