"""What is known of the ways to addresses: their MTU, and a better router. RFC 1191, 8201, 1122.

net/ipv4/route.c (struct fib_nh_exception), net/ipv6/route.c.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from sentry.net.ip.ipv6 import LEAST_MTU

SECOND_NS: Final = 1_000_000_000
EXPIRES_NS: Final = 600 * SECOND_NS
"""net.ipv4.route.mtu_expires, net.ipv6.route.mtu_expires."""
LEAST_MTU4: Final = 552
"""net.ipv4.route.min_pmtu."""
MAX_EXCEPTIONS: Final = 4096
"""A ceiling of ours: whom nobody has asked for longest is forgotten first."""


class Detour(Struct, eq=False):
    """Where the way differs from what the route says."""

    mtu: int = 0
    """0: that of the link."""
    mtu_until_ns: int = 0
    may_fragment: bool = False
    """The MTU is too small to be told: packets go without DF."""
    gateway: bytes = b""


class Exceptions:
    """By address, of both families."""

    def __init__(self) -> None:
        self._by_ip: dict[bytes, Detour] = {}

    def __len__(self) -> int:
        return len(self._by_ip)

    def get(self, now_ns: int, ip: bytes) -> Detour | None:
        """What is known of the way to an address. An MTU is forgotten when it is old."""
        found = self._by_ip.get(ip)
        if found is None:
            return None
        if found.mtu and now_ns >= found.mtu_until_ns:
            found.mtu, found.may_fragment = 0, False
            if not found.gateway:
                del self._by_ip[ip]
                return None
        return found

    def learn_mtu(self, now_ns: int, ip: bytes, mtu: int, before: int) -> int:
        """A router says that nothing larger passes: the MTU of the way from now on.

        `before` is the MTU so far. Never does it grow, nor is it less than what each link has to
        carry. __ip_rt_update_pmtu(), __ip6_rt_update_pmtu().
        """
        least = LEAST_MTU if len(ip) == 16 else min(LEAST_MTU4, before)
        if mtu >= before:
            return before
        found = self._take(ip)
        found.may_fragment = len(ip) == 4 and mtu < least
        found.mtu = max(mtu, least)
        found.mtu_until_ns = now_ns + EXPIRES_NS
        return found.mtu

    def learn_gateway(self, ip: bytes, gateway: bytes) -> None:
        """A redirect was believed."""
        self._take(ip).gateway = gateway

    def clear(self) -> None:
        """Routes have changed: rt_cache_flush()."""
        self._by_ip.clear()

    def _take(self, ip: bytes) -> Detour:
        found = self._by_ip.pop(ip, None)
        if found is None:
            if len(self._by_ip) >= MAX_EXCEPTIONS:
                del self._by_ip[next(iter(self._by_ip))]
            found = Detour()
        self._by_ip[ip] = found
        return found
