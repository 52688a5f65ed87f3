"""`Autoconf`: what routers say of a link, as a host heeds it: default routers, prefixes, addresses.

RFC 4861, 6.3; RFC 4862, 5.5; RFC 7559; net/ipv6/ndisc.c, ndisc_router_discovery(); addrconf.c,
addrconf_prefix_rcv(). Sans-io. For links whose host is nobody else: no address is looked for before
it is taken (DupAddrDetectTransmits is 0), and the first question is not delayed, since nobody else
is there to ask at the same time. Routers are not chosen by whether they can be reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET6
from sentry.net.interfaces import Address, masked
from sentry.net.ip import discovery, ipv6
from sentry.net.link.ndp import FOREVER_S
from sentry.net.routes import KERNEL_METRIC6, Route

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from sentry.net.ip.ground import Ground
    from sentry.net.link.link import Link
    from sentry.net.link.ndp import Prefix, Router

    K = TypeVar("K")

MAX_ROUTERS: Final = 8
MAX_PREFIXES: Final = 16
"""Of a link; further ones are not heeded. Ceilings of ours."""
MAX_OWN: Final = 16
"""Addresses that are made: net.ipv6.conf.*.max_addresses."""
INTERFACE_BITS: Final = 64
SECOND_NS: Final = 1_000_000_000
TWO_HOURS_NS: Final = 7200 * SECOND_NS
FIRST_INTERVAL_NS: Final = 4 * SECOND_NS
MAX_INTERVAL_NS: Final = 3600 * SECOND_NS
"""Between questions while no router answers: net.ipv6.conf.*.router_solicitation_*."""
ROUTER_METRIC: Final = 1024
"""IP6_RT_PRIO_USER."""
KERNEL_RA: Final = 2
"""IFAPROT_KERNEL_RA."""
FLAGS: Final = abi.IFA_F_MANAGETEMPADDR | abi.IFA_F_NOPREFIXROUTE
"""Whether its prefix is on the link is said apart."""

Until = int | None
"""A time in ns; None: for ever."""


class Own(NamedTuple):
    """An address that was made."""

    valid: Until
    preferred: Until


class Autoconf:
    """Of one link."""

    def __init__(self, layer: Ground, link: Link, on_change: Callable[[], None]) -> None:
        """`on_change`: `addresses` or `routes` are others than they were."""
        self._layer = layer
        self._link = link
        self._on_change = on_change
        self._routers: dict[bytes, Until] = {}
        self._prefixes: dict[tuple[bytes, int], Until] = {}
        """(network, bits) of those that are on the link."""
        self._own: dict[bytes, Own] = {}
        self._deprecated: frozenset[bytes] = frozenset()
        self._ask_ns: int | None = None
        """When routers are asked for; None: one has answered, or the link is down."""
        self._interval_ns = FIRST_INTERVAL_NS

    # --- what it comes to

    def addresses(self) -> list[Address]:
        """Those that were made."""
        return [
            Address(
                AF_INET6, ip, INTERFACE_BITS, abi.RT_SCOPE_UNIVERSE, origin=KERNEL_RA,
                flags=FLAGS | (abi.IFA_F_DEPRECATED if ip in self._deprecated else 0),
            )
            for ip in self._own
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        """By routers, and to neighbours."""
        index = self._link.index
        found = [
            Route(AF_INET6, network, length, index, metric=KERNEL_METRIC6)
            for network, length in self._prefixes
        ]
        return found + [
            Route(
                AF_INET6, bytes(16), 0, index, origin=abi.RTPROT_RA, gateway=router,
                metric=ROUTER_METRIC,
            )
            for router in self._routers
        ]  # fmt: skip

    # --- what happens

    def begin(self, now_ns: int) -> None:
        """The link is up, and has an address."""
        self._interval_ns = FIRST_INTERVAL_NS
        self._ask(now_ns)

    def end(self) -> None:
        """It is down: what was said of it counts no more."""
        self._ask_ns = None
        self._routers.clear()
        self._prefixes.clear()
        self._own.clear()
        self._on_change()

    def heard(self, now_ns: int, router: bytes, told: Router) -> None:
        """An advertisement of a router, who is a neighbour."""
        before = self._shown()
        if self._accepts("accept_ra_defrtr"):
            expires = now_ns + told.lifetime_s * SECOND_NS if told.lifetime_s else now_ns
            _note(self._routers, router, expires, now_ns, MAX_ROUTERS)
        if told.lifetime_s:
            self._ask_ns = None
        if self._accepts("accept_ra_pinfo"):
            for prefix in told.prefixes:
                self._heed(now_ns, prefix)
        if self._shown() != before:
            self._on_change()
        self._layer.on_deadline()

    def _heed(self, now_ns: int, prefix: Prefix) -> None:
        """One option. A host has the prefix of link-local addresses by itself, and no group's."""
        network = masked(prefix.network, prefix.length)
        if ipv6.is_link_local(network) or ipv6.is_multicast(network):
            return
        valid = _until(now_ns, prefix.valid_s)
        if prefix.is_on_link:
            _note(self._prefixes, (network, prefix.length), valid, now_ns, MAX_PREFIXES)
        if not prefix.is_autonomous or prefix.preferred_s > prefix.valid_s:
            return
        hardware = self._link.hardware
        if prefix.length != INTERFACE_BITS or not hardware or not self._accepts("autoconf"):
            return
        ip = network[:8] + interface_id(hardware)
        preferred = _until(now_ns, prefix.preferred_s)
        known = self._own.get(ip)
        if known is not None:
            self._own[ip] = Own(_prolonged(now_ns, known.valid, valid), preferred)
        elif prefix.valid_s and len(self._own) < MAX_OWN:
            self._own[ip] = Own(valid, preferred)
        self._deprecate(now_ns)

    def _accepts(self, name: str) -> bool:
        return bool(self._layer.ipv6_setting(self._link, name))

    def _shown(self) -> tuple[object, ...]:
        return tuple(self._routers), tuple(self._prefixes), tuple(self._own), self._deprecated

    def _deprecate(self, now_ns: int) -> None:
        """Which of ours are for no new connections any more."""
        self._deprecated = frozenset(
            ip for ip, own in self._own.items() if _is_over(own.preferred, now_ns)
        )

    def _ask(self, now_ns: int) -> None:
        """Until somebody answers, ever less often. RFC 7559, 2."""
        if self._layer.accepts_routers(self._link):
            discovery.solicit_routers(self._layer, now_ns, self._link)
        part = int.from_bytes(self._layer.chance(2)) - (1 << 15)
        self._ask_ns = now_ns + self._interval_ns + self._interval_ns // 10 * part // (1 << 15)
        self._interval_ns = min(2 * self._interval_ns, MAX_INTERVAL_NS)

    # --- time

    def timer(self) -> int | None:
        """When `timeout` is to be called, in ns."""
        times = [self._ask_ns, *self._routers.values(), *self._prefixes.values()]
        for ip, own in self._own.items():
            times += [own.valid, None if ip in self._deprecated else own.preferred]
        return min((each for each in times if each is not None), default=None)

    def timeout(self, now_ns: int) -> None:
        """What is due."""
        before = self._shown()
        if self._ask_ns is not None and self._ask_ns <= now_ns:
            self._ask(now_ns)
        _forget(self._routers, now_ns)
        _forget(self._prefixes, now_ns)
        for ip in [ip for ip, own in self._own.items() if _is_over(own.valid, now_ns)]:
            del self._own[ip]
        self._deprecate(now_ns)
        if self._shown() != before:
            self._on_change()


def interface_id(hardware: bytes) -> bytes:
    """The lower half of an address, of a hardware address: RFC 4291, 2.5.1, modified EUI-64."""
    return bytes([hardware[0] ^ 2]) + hardware[1:3] + b"\xff\xfe" + hardware[3:]


def _until(now_ns: int, lifetime_s: int) -> Until:
    return None if lifetime_s == FOREVER_S else now_ns + lifetime_s * SECOND_NS


def _is_over(until: Until, now_ns: int) -> bool:
    return until is not None and until <= now_ns


def _note(table: dict[K, Until], key: K, until: Until, now_ns: int, most: int) -> None:
    """It counts until then, if there is room; no more, if that is now."""
    if _is_over(until, now_ns):
        table.pop(key, None)
    elif key in table or len(table) < most:
        table[key] = until


def _forget(table: dict[K, Until], now_ns: int) -> None:
    for key in [key for key, until in table.items() if _is_over(until, now_ns)]:
        del table[key]


def _prolonged(now_ns: int, known: Until, told: Until) -> Until:
    """Nobody ends the life of an address in less than two hours: RFC 4862, 5.5.3, e."""
    if told is None:
        return None
    least = now_ns + TWO_HOURS_NS
    if told > least or (known is not None and told > known):
        return told
    return known if known is not None and known <= least else least
