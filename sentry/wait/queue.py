"""Wait queues: who wants to know when something becomes ready.

Objects never sleep: they own a queue and notify it. How one sleeps on it: `sleep`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

ALL = 0xFFFFFFFF


class Registration(Protocol):
    """`callback(events)` is called when an event of `mask` comes."""

    mask: int
    exclusive: bool

    def callback(self, events: int, /) -> object: ...


class Entry:
    """A registration of its own."""

    __slots__ = ("callback", "exclusive", "mask")

    def __init__(self, callback: Callable[[int], object], mask: int, exclusive: bool) -> None:
        self.callback = callback
        self.mask = mask
        self.exclusive = exclusive


class WaitQueue:
    """The registrations of one object, in order of arrival. Events are EPOLL* bits, or ALL."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Registration, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, callback: Callable[[int], object], mask: int = ALL, *, exclusive: bool = False
    ) -> Entry:
        """Register; the entry is the handle for `remove`."""
        entry = Entry(callback, mask, exclusive)
        self.enter(entry)
        return entry

    def enter(self, entry: Registration) -> None:
        """Register what is an entry itself."""
        self._entries[entry] = None

    def remove(self, entry: Registration) -> None:
        """Unregister; one that is gone already does no harm."""
        self._entries.pop(entry, None)

    def notify(self, events: int = ALL) -> int:
        """Tell all plain entries and the first exclusive one that match; how many were told."""
        entries = self._entries
        if not entries:
            return 0
        if len(entries) == 1:
            (entry,) = entries
            if not entry.mask & events:
                return 0
            entry.callback(events)
            return 1
        told, exclusive_told = 0, False
        for entry in list(entries):
            if not entry.mask & events or (entry.exclusive and exclusive_told):
                continue
            exclusive_told |= entry.exclusive
            told += 1
            entry.callback(events)
        return told


class ChangeCount:
    """A count of changes, for readers that poll a text for them."""

    __slots__ = ("count", "queue")

    def __init__(self) -> None:
        self.count = 0
        self.queue = WaitQueue()

    def happened(self) -> None:
        """One more."""
        self.count += 1
        self.queue.notify()
