"""For which names an address was given: what egress by name stands on.

A name holds for the TTL of the answer that a program got, and 60 s longer, since programs connect
some time after they have asked. What an address is good for is not decided here: that a name was
allowed opens no range that is denied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

GRACE_NS: Final = 60_000_000_000
MAX_GIVEN: Final = 32768
"""Names of all addresses together; the address that was given longest ago goes first."""
MAX_NAMES: Final = 16
"""Of one address; the one that ends first goes first."""
AGED_AT_ONCE: Final = 2


class Given:
    """Addresses of 16 bytes, IPv4 ones mapped, and the names that they were given for."""

    def __init__(self) -> None:
        self._until_ns: OrderedDict[bytes, dict[str, int]] = OrderedDict()
        self._count = 0
        self.on_answer: Callable[[bytes, str, int], object] = lambda ip, name, ttl_ns: None
        """A program is told of an address."""

    def __len__(self) -> int:
        """Names of all addresses."""
        return self._count

    def remember(self, ip: bytes, name: str, ttl_ns: int, now_ns: int) -> None:
        """A program was told that `ip` is an address of `name`, which it may ask for."""
        self.on_answer(ip, name, ttl_ns)
        names = self._until_ns.setdefault(ip, {})
        self._until_ns.move_to_end(ip)
        self._count += name not in names
        names[name] = max(names.pop(name, 0), now_ns + ttl_ns + GRACE_NS)
        if len(names) > MAX_NAMES:
            del names[min(names, key=names.__getitem__)]
            self._count -= 1
        for _ in range(AGED_AT_ONCE):
            self._drop_oldest(now_ns)
        while self._count > MAX_GIVEN:
            self._count -= len(self._until_ns.popitem(last=False)[1])

    def names_of(self, ip: bytes, now_ns: int) -> tuple[str, ...]:
        """Those that still hold, the one that was given last at the end."""
        names = self._until_ns.get(ip)
        if names is None:
            return ()
        for name in [name for name, until_ns in names.items() if until_ns <= now_ns]:
            del names[name]
            self._count -= 1
        if not names:
            del self._until_ns[ip]
        return tuple(names)

    def _drop_oldest(self, now_ns: int) -> None:
        """Of those that were given longest ago, if all its names are past."""
        ip, names = next(iter(self._until_ns.items()))
        if max(names.values()) <= now_ns:
            del self._until_ns[ip]
            self._count -= len(names)
