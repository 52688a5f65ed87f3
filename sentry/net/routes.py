"""Routes: the `local` table follows from the addresses, others a program adds. ip-route(8).

A table is there as long as it has a route; which of them are asked, `sentry.net.rules` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

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
from sentry.errors import ENOBUFS, Errno
from sentry.net.interfaces import masked
from sentry.net.rules import PLAIN, RouteKey, Rules

if TYPE_CHECKING:
    from sentry.net.interfaces import Address, Interface, Interfaces

MAX_ROUTES: Final = 4096
MAX_HOPS: Final = 32
"""Next hops of one route: a ceiling of ours."""
KERNEL_METRIC6: Final = 256
USER_METRIC6: Final = 1024
"""IP6_RT_PRIO_USER: where a program says none."""


class Hop(NamedTuple):
    """One of several next hops: struct fib_nh_common."""

    interface: int
    gateway: bytes = b""
    """Of either family."""
    weight: int = 1
    onlink: bool = False
    """RTNH_F_ONLINK: nobody asks whether the gateway is on the link."""


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
    """Of either family."""
    metric: int = 0
    hops: tuple[Hop, ...] = ()
    """Where there are several next hops, of which `index` and `gateway` are the first one."""
    origin_prefix: bytes = b""
    """RTA_SRC: it is for packets from there alone, of IPv6."""
    origin_length: int = 0
    onlink: bool = False
    """That of its only next hop."""

    def matches(self, ip: bytes) -> bool:
        """Whether an address is below its prefix."""
        return len(ip) == len(self.destination) and masked(ip, self.length) == self.destination

    def leads_by(self, index: int) -> bool:
        """Whether a packet may go that way by an interface; 0: by any."""
        if index in (0, self.index) or not self.hops:
            return index in (0, self.index)
        return any(hop.interface == index for hop in self.hops)

    def is_for(self, key: RouteKey) -> bool:
        """Whether a packet may take it that is below its prefix."""
        if not self.leads_by(key.interface):
            return False
        size = self.origin_length
        return not size or (
            len(key.source) == len(self.origin_prefix)
            and masked(key.source, size) == self.origin_prefix
        )

    @property
    def rank(self) -> tuple[int, int, int]:
        """Of two that match the smaller one counts."""
        return -self.length, -self.origin_length, self.metric


class Routes:
    """All tables, and the rules that say which of them are asked."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        self.rules = Rules(interfaces)
        self.added: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        """IPv4 first; those of a table and prefix in the order in which they count."""
        for family in (AF_INET, AF_INET6):
            made = [
                route
                for interface in self._interfaces
                if interface.flags & IFF_UP
                for route in _of_interface(interface, family)
            ]
            yield from (route for route in self.added if route.family == family)
            yield from made

    def in_order(self) -> list[Route]:
        """As Linux dumps them: by table, as these are hashed, then as in its trees, where IPv4 goes
        from the shorter address on and IPv6 from what is inside."""
        return sorted(self, key=_order)

    def check_room(self, wanted: Route) -> None:
        """For one more. Raises: ENOBUFS."""
        if len(self.added) >= MAX_ROUTES:
            raise ENOBUFS("too many routes")
        self.check_hops(wanted)

    def check_hops(self, wanted: Route) -> None:
        """For those of one. Raises: ENOBUFS."""
        if len(wanted.hops) > MAX_HOPS or (
            wanted.hops and sum(len(each.hops) for each in self.added) >= MAX_ROUTES
        ):
            raise ENOBUFS("too many next hops")

    def forget(self, index: int) -> None:
        """Those by an interface that is down, alone: fib_sync_down_dev()."""
        self.added = [
            route for route in self.added
            if (self._has_others(route, index) if route.hops else route.index != index)
        ]  # fmt: skip

    def _has_others(self, route: Route, index: int) -> bool:
        """Of several next hops none is by that interface, or one by another that is up."""
        if not route.leads_by(index):
            return True
        return any(hop.interface != index and self.is_up(hop.interface) for hop in route.hops)

    def drop(self, index: int) -> None:
        """Those by an interface that is no more."""
        self.added = [route for route in self.added if not route.leads_by(index)]

    def is_up(self, index: int) -> bool:
        """An interface."""
        found = self._interfaces.get(index)
        return found is not None and found.is_up

    def lookup(self, ip: bytes, key: RouteKey = PLAIN) -> Route | None:
        """The route of a packet; None: there is none, or it says that there is no way."""
        found = self.find(ip, key)
        return found if isinstance(found, Route) else None

    def find(self, ip: bytes, key: RouteKey = PLAIN) -> Route | type[Errno]:
        """The route of a packet, or why there is none: by rules, then the longest prefix, then the
        lowest metric."""
        best: dict[int, Route] = {}
        for route in self:
            if route.matches(ip) and route.is_for(key):
                known = best.get(route.table)
                if known is None or route.rank < known.rank:
                    best[route.table] = route
        return self.rules.resolve(ip, key, best.get)


def _order(route: Route) -> tuple[int, int, int, int, int]:
    """fib_table_dump(), fib6_dump_table(): tables are in 256 lists, with the newest first."""
    first = int.from_bytes(route.destination)
    if route.family == AF_INET6:
        first |= (1 << (128 - route.length)) - 1
    return route.family, route.table & 0xFF, first, -route.length, route.metric


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
