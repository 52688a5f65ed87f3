"""Routes: the `local` table follows from the addresses, others a program adds. ip-route(8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sentry.abi.netlink import (
    IFA_F_NOPREFIXROUTE,
    IFF_LOOPBACK,
    IFF_UP,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_UNICAST,
    RTPROT_KERNEL,
)
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.net.interfaces import masked

if TYPE_CHECKING:
    from sentry.net.interfaces import Address, Interface, Interfaces

MAX_ROUTES: Final = 4096
KERNEL_METRIC6: Final = 256


class Route(Struct, frozen=True):
    """struct rtmsg with what matters of its attributes."""

    family: int
    destination: bytes
    length: int
    index: int
    table: int = RT_TABLE_MAIN
    kind: int = RTN_UNICAST
    scope: int = RT_SCOPE_UNIVERSE
    origin: int = RTPROT_KERNEL
    source: bytes = b""
    gateway: bytes = b""
    metric: int = 0

    def matches(self, ip: bytes) -> bool:
        """Whether an address is below its prefix."""
        return len(ip) == len(self.destination) and masked(ip, self.length) == self.destination


class Routes:
    """All tables."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        self.added: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        """In the order in which Linux dumps them: table main first, IPv4 first."""
        for family in (AF_INET, AF_INET6):
            made = [
                route
                for interface in self._interfaces
                if interface.flags & IFF_UP
                for route in _of_interface(interface, family)
            ]
            everything = [r for r in self.added if r.family == family] + made
            yield from (r for r in everything if r.table != RT_TABLE_LOCAL)
            yield from (r for r in everything if r.table == RT_TABLE_LOCAL)

    def forget(self, index: int) -> None:
        """Those by an interface that is down: fib_sync_down_dev()."""
        self.added = [route for route in self.added if route.index != index]

    def lookup(self, ip: bytes) -> Route | None:
        """The route of a packet: table local, then the longest prefix, then the lowest metric."""
        found = [route for route in self if route.matches(ip)]
        return min(
            found,
            key=lambda r: (r.table != RT_TABLE_LOCAL, -r.length, r.metric),
            default=None,
        )


def _of_interface(interface: Interface, family: int) -> Iterator[Route]:
    for address in interface.of_family(family):
        make = _of_address4 if family == AF_INET else _of_address6
        yield from make(interface, address)


def _of_address4(interface: Interface, address: Address) -> Iterator[Route]:
    """fib_add_ifaddr()."""
    index, source = interface.index, address.ip
    if address.prefix < 32:
        local = bool(interface.flags & IFF_LOOPBACK)
        yield Route(
            AF_INET, address.network, address.prefix, index,
            RT_TABLE_LOCAL if local else RT_TABLE_MAIN, RTN_LOCAL if local else RTN_UNICAST,
            RT_SCOPE_HOST if local else RT_SCOPE_LINK, source=source,
        )  # fmt: skip
    yield Route(
        AF_INET, address.ip, 32, index, RT_TABLE_LOCAL, RTN_LOCAL, RT_SCOPE_HOST, source=source
    )
    if address.prefix < 31:
        rest = (1 << (32 - address.prefix)) - 1
        last = (int.from_bytes(address.network, "big") | rest).to_bytes(4, "big")
        yield Route(
            AF_INET, last, 32, index, RT_TABLE_LOCAL, RTN_BROADCAST, RT_SCOPE_LINK, source=source
        )


def _of_address6(interface: Interface, address: Address) -> Iterator[Route]:
    """addrconf: the address itself is local, its prefix on the link."""
    index = interface.index
    yield Route(AF_INET6, address.ip, 128, index, RT_TABLE_LOCAL, RTN_LOCAL)
    if address.prefix < 128 and not address.flags & IFA_F_NOPREFIXROUTE:
        yield Route(AF_INET6, address.network, address.prefix, index, metric=KERNEL_METRIC6)
