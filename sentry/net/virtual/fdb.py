"""`Fdb`: behind which port of a bridge somebody is. net/bridge/br_fdb.c.

Who was heard is forgotten after a while; whom a program has set is not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_BRIDGE
from sentry.net.netlink.message import Reply, attribute, u32

if TYPE_CHECKING:
    from sentry.net.virtual.port import Port

AGEING_NS: Final = 300_000_000_000
TICK_NS: Final = 10_000_000
"""Of the times that are told: USER_HZ."""
MAX_KNOWN: Final = 4096
"""A ceiling of ours: who was heard of longest ago is forgotten first."""
MAX_SET: Final = 1024
"""Of those that a program has set: the same."""
STEP: Final = 16
"""So many are forgotten in one call."""


class Entry(Struct, eq=False):
    """struct net_bridge_fdb_entry."""

    hardware: bytes
    port: Port | None
    """None: it is the bridge's own."""
    state: int = abi.NUD_REACHABLE
    """Else NUD_NOARP: it does not age, or NUD_PERMANENT: it is the bridge itself."""
    flags: int = 0
    """NTF_STICKY: it stays where it is; NTF_EXT_LEARNED: a program has learned it."""
    used_ns: int = 0
    updated_ns: int = 0

    @property
    def is_local(self) -> bool:
        """Frames for it end here."""
        return self.state == abi.NUD_PERMANENT

    @property
    def ages(self) -> bool:
        """It is forgotten when nothing is heard any more."""
        return self.state == abi.NUD_REACHABLE and not self.flags & abi.NTF_EXT_LEARNED


def told(entry: Entry, bridge: int, now_ns: int, kind: int = abi.RTM_NEWNEIGH) -> Reply:
    """fdb_fill_info(). `bridge`: its index."""
    index = bridge if entry.port is None else entry.port.made.interface.index
    ago = [min(max(now_ns - each, 0) // TICK_NS, 0xFFFFFFFF)
           for each in (entry.used_ns, entry.updated_ns)]  # fmt: skip
    body = abi.NDMSG.pack(AF_BRIDGE, 0, 0, index, entry.state, entry.flags, 0)
    body += attribute(abi.NDA_LLADDR, entry.hardware) + u32(abi.NDA_MASTER, bridge)
    body += u32(abi.NDA_FLAGS_EXT, 0)
    return kind, body + attribute(abi.NDA_CACHEINFO, struct.pack("<IIII", 0, *ago, 0))


class Fdb:
    """Of one bridge, by hardware address."""

    def __init__(self) -> None:
        self.ageing_ns = AGEING_NS
        self._heard: dict[bytes, Entry] = {}
        """Those that age; who was heard of last is last."""
        self._set: dict[bytes, Entry] = {}
        self.on_change: Callable[[Sequence[Entry], int], None] = lambda entries, kind: None
        """They are new or another (RTM_NEWNEIGH), or gone (RTM_DELNEIGH)."""
        self.on_deadline: Callable[[], None] = lambda: None
        """`timer` says something."""

    def __iter__(self) -> Iterator[Entry]:
        yield from self._set.values()
        yield from self._heard.values()

    def get(self, hardware: bytes) -> Entry | None:
        """What is known, however old it is."""
        return self._set.get(hardware) or self._heard.get(hardware)

    # --- frames

    def learn(self, hardware: bytes, port: Port, now_ns: int) -> None:
        """A frame came from there: br_fdb_update()."""
        found = self._set.get(hardware)
        if found is not None:
            if not found.is_local:
                self._moved(found, port, now_ns)
            return
        found = self._heard.pop(hardware, None)
        if found is not None:
            self._heard[hardware] = found
            self._moved(found, port, now_ns)
            return
        self._put(Entry(hardware, port, used_ns=now_ns, updated_ns=now_ns))

    def _moved(self, found: Entry, port: Port, now_ns: int) -> None:
        found.updated_ns = now_ns
        if found.port is port or found.flags & abi.NTF_STICKY:
            return
        found.port = port
        if found.flags & abi.NTF_EXT_LEARNED:
            del self._set[found.hardware]
            found.flags &= ~abi.NTF_EXT_LEARNED
            self._put(found)
        else:
            self.on_change([found], abi.RTM_NEWNEIGH)

    def _put(self, entry: Entry) -> None:
        if entry.ages and len(self._heard) >= MAX_KNOWN:
            self._gone([self._heard.pop(next(iter(self._heard)))])
        of_kind = self._heard if entry.ages else self._set
        of_kind[entry.hardware] = entry
        self.on_change([entry], abi.RTM_NEWNEIGH)
        if len(self._heard) == 1:
            self.on_deadline()

    def find(self, hardware: bytes, now_ns: int) -> Entry | None:
        """Who has an address; None: nobody knows."""
        found = self._set.get(hardware)
        if found is None:
            found = self._heard.get(hardware)
            if found is None:
                return None
            if now_ns - found.updated_ns >= self.ageing_ns:
                self._gone([self._heard.pop(hardware)])
                return None
        found.used_ns = now_ns
        return found

    # --- what is set

    def has_room(self) -> bool:
        """For one more that a program sets."""
        return len(self._set) < MAX_SET

    def put(self, entry: Entry) -> None:
        """In the place of what was known. Preconditions: `has_room`, if it does not age."""
        self._set.pop(entry.hardware, None)
        self._heard.pop(entry.hardware, None)
        self._put(entry)

    def remove(self, entries: Sequence[Entry]) -> None:
        """They are known no more. Preconditions: they are."""
        for each in entries:
            del (self._heard if each.hardware in self._heard else self._set)[each.hardware]
        self._gone(entries)

    def forget(self, port: Port) -> None:
        """Nobody is heard behind it any more; what is set stays."""
        self.remove([each for each in self._heard.values() if each.port is port])

    def drop(self, port: Port) -> None:
        """It is no port any more."""
        self.remove([each for each in self if each.port is port])

    def _gone(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.on_change(entries, abi.RTM_DELNEIGH)

    def end(self) -> None:
        """Nobody hears of it any more."""
        self.on_change = lambda entries, kind: None
        self.on_deadline = lambda: None
        self._heard.clear()
        self._set.clear()

    # --- time

    def timer(self) -> int | None:
        """When the first one is forgotten, in ns."""
        first = next(iter(self._heard.values()), None)
        return None if first is None else first.updated_ns + self.ageing_ns

    def timeout(self, now_ns: int) -> None:
        """Who was not heard of for so long, a bounded number: br_fdb_cleanup()."""
        old: list[Entry] = []
        for each in self._heard.values():
            if len(old) >= STEP or now_ns - each.updated_ns < self.ageing_ns:
                break
            old.append(each)
        self.remove(old)
