"""`Fib`: the routes of a stack, for look-ups that cost the same with one as with thousands.

`sentry.net.routes` is the list that programs see; of it this is made anew when it has changed. In
which tables it is looked, one after the other, `sentry.net.rules` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import RT_TABLE_LOCAL
from sentry.net.interfaces import Interfaces
from sentry.net.routes import Route
from sentry.net.rules import PLAIN, RouteKey, Rules

if TYPE_CHECKING:
    from sentry.errors import Errno
    from sentry.wait.steps import Steps

PIECE: Final = 32
"""Routes that are taken in in a step."""
MAX_OF_PREFIX: Final = 8
"""Routes of the same destination, the best ones: a ceiling of ours."""
MAX_FOUND: Final = 1024
"""Look-ups whose outcome is kept, of table local and of the others: packets of a connection ask for
the same ones."""
Table = dict[int, dict[int, list[Route]]]
"""By length of the prefix, then by the prefix itself."""


class Fib:
    """Both families."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = Rules(Interfaces()) if rules is None else rules
        self._asks = False
        self._tables: dict[tuple[int, int], Table] = {}
        """By size of an address and number."""
        self._coming: Iterable[Route] | None = None
        """What is taken in by the next look-up."""
        self._begun = 0
        self._lengths: dict[tuple[int, int], list[int]] = {}
        self._found_local: dict[bytes, Route | None] = {}
        self._found: dict[tuple[bytes, RouteKey], Route | type[Errno]] = {}

    def rebuild(self, routes: Iterable[Route]) -> Steps[None]:
        """Take these in. Until the last step the old ones count; who begins last counts."""
        self._coming = None
        self._begun += 1
        turn = self._begun
        tables: dict[tuple[int, int], Table] = {}
        asks = not self.rules.are_first
        for number, route in enumerate(routes):
            if number % PIECE == PIECE - 1:
                yield
            size = len(route.destination)
            asks |= bool(route.origin_length or route.hops)
            table = tables.setdefault((size, route.table), {})
            prefix = _prefix(route.destination, route.length)
            same = table.setdefault(route.length, {}).setdefault(prefix, [])
            same.append(route)
            same.sort(key=lambda each: each.rank)
            del same[MAX_OF_PREFIX:]
        if turn != self._begun:
            return
        self._tables, self._asks = tables, asks
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
            known[ip] = self._find((len(ip), RT_TABLE_LOCAL), ip, PLAIN)
        return known[ip]

    def lookup(self, ip: bytes, index: int = 0, key: RouteKey = PLAIN) -> Route | None:
        """The route to an address; None: there is none, or it says that there is no way."""
        found = self.find(ip, index, key)
        return found if isinstance(found, Route) else None

    @property
    def asks(self) -> bool:
        """The way of a packet depends on more than its target."""
        if self._coming is not None:
            self._take_in(self._coming)
        return self._asks

    def find(self, ip: bytes, index: int = 0, key: RouteKey = PLAIN) -> Route | type[Errno]:
        """The route to an address that is none of ours, by interface `index` if it is not 0, or why
        there is none."""
        wanted = self.rules.narrowed(key) if self.asks else PLAIN
        if index != wanted.interface:
            wanted = wanted._replace(interface=index)
        known, asked = self._found, (ip, wanted)
        if asked not in known:
            if len(known) >= MAX_FOUND:
                known.clear()
            known[asked] = self.rules.resolve(
                ip, wanted, cache(lambda table: self._of_table(table, ip, wanted))
            )
        return known[asked]

    def _of_table(self, table: int, ip: bytes, key: RouteKey) -> Route | None:
        return None if table == RT_TABLE_LOCAL else self._find((len(ip), table), ip, key)

    def _take_in(self, routes: Iterable[Route]) -> None:
        for _ in self.rebuild(routes):
            pass

    def _find(self, which: tuple[int, int], ip: bytes, key: RouteKey) -> Route | None:
        table = self._tables.get(which)
        if table is None:
            return None
        number, bits = int.from_bytes(ip), len(ip) * 8
        for length in self._lengths[which]:
            for route in table[length].get(number >> (bits - length), ()):
                if route.is_for(key):
                    return route
        return None


def _prefix(destination: bytes, length: int) -> int:
    return int.from_bytes(destination) >> (len(destination) * 8 - length)
