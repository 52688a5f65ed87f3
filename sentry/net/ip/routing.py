"""`Fib`: the routes of a stack, for look-ups that cost the same with one as with thousands.

`sentry.net.routes` is the list that programs see; of it this is made anew when it has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import RT_TABLE_LOCAL

if TYPE_CHECKING:
    from sentry.net.routes import Route
    from sentry.wait.steps import Steps

PIECE: Final = 32
"""Routes that are taken in in a step."""
MAX_OF_PREFIX: Final = 8
"""Routes of the same destination, the best ones: a ceiling of ours."""
MAX_FOUND: Final = 1024
"""Look-ups of either table whose outcome is kept: packets of a connection ask for the same ones."""
Table = dict[int, dict[int, list["Route"]]]
"""By length of the prefix, then by the prefix itself."""


class Fib:
    """Both families."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, bool], Table] = {}
        """By size of an address, and whether it is table local."""
        self._coming: Iterable[Route] | None = None
        """What is taken in by the next look-up."""
        self._begun = 0
        self._lengths: dict[tuple[int, bool], list[int]] = {}
        self._found_local: dict[bytes, Route | None] = {}
        self._found: dict[tuple[bytes, int], Route | None] = {}

    def rebuild(self, routes: Iterable[Route]) -> Steps[None]:
        """Take these in. Until the last step the old ones count; who begins last counts."""
        self._coming = None
        self._begun += 1
        turn = self._begun
        tables: dict[tuple[int, bool], Table] = {}
        for number, route in enumerate(routes):
            if number % PIECE == PIECE - 1:
                yield
            size = len(route.destination)
            table = tables.setdefault((size, route.table == RT_TABLE_LOCAL), {})
            prefix = _prefix(route.destination, route.length)
            same = table.setdefault(route.length, {}).setdefault(prefix, [])
            same.append(route)
            same.sort(key=lambda each: each.metric)
            del same[MAX_OF_PREFIX:]
        if turn != self._begun:
            return
        self._tables = tables
        self._found_local.clear()
        self._found.clear()
        self._lengths = {key: sorted(table, reverse=True) for key, table in tables.items()}

    def outdate(self, routes: Iterable[Route]) -> None:
        """Routes or addresses that programs have made have changed; they are bounded."""
        self._coming = routes

    def local(self, ip: bytes) -> Route | None:
        """What table local says of an address: RTN_LOCAL, RTN_BROADCAST."""
        if self._coming is not None:
            self._take_in(self._coming)
        known = self._found_local
        if ip not in known:
            if len(known) >= MAX_FOUND:
                known.clear()
            known[ip] = self._find((len(ip), True), ip, 0)
        return known[ip]

    def lookup(self, ip: bytes, index: int = 0) -> Route | None:
        """The route of table main to an address, by interface `index` if it is not 0."""
        if self._coming is not None:
            self._take_in(self._coming)
        known, asked = self._found, (ip, index)
        if asked not in known:
            if len(known) >= MAX_FOUND:
                known.clear()
            known[asked] = self._find((len(ip), False), ip, index)
        return known[asked]

    def _take_in(self, routes: Iterable[Route]) -> None:
        for _ in self.rebuild(routes):
            pass

    def _find(self, key: tuple[int, bool], ip: bytes, index: int) -> Route | None:
        table = self._tables.get(key)
        if table is None:
            return None
        number, bits = int.from_bytes(ip), len(ip) * 8
        for length in self._lengths[key]:
            for route in table[length].get(number >> (bits - length), ()):
                if index in (0, route.index):
                    return route
        return None


def _prefix(destination: bytes, length: int) -> int:
    return int.from_bytes(destination) >> (len(destination) * 8 - length)
