"""Wait queues: who wants to know when something becomes ready.

Objects never sleep: they own a queue and notify it. How one sleeps on it: `sleep`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import ClassVar, Final, Protocol

ALL = 0xFFFFFFFF
MANY: Final = 512
"""More registrations than that are told piece by piece."""


class Registration(Protocol):
    """`callback(events)` is called when an event of `mask` comes.

    It gives False where that wakes nobody: an exclusive one then does not count. True is for a
    sleeper, which stands behind the others from then on, as it will if it has to sleep on.
    """

    mask: int
    exclusive: bool

    def callback(self, events: int, /) -> object: ...


class Kept(Protocol):
    """Nobody sleeps there, but somebody may ask at any time what was heard of."""

    def callback(self, events: int, /) -> object: ...


Each = Callable[[Iterable[Registration], Callable[[Registration], object]], object]
"""What does something to each of many: Loop.call_for_each."""


def in_place(entries: Iterable[Registration], act: Callable[[Registration], object]) -> None:
    """All of them now."""
    for entry in entries:
        act(entry)


class Entry:
    """A registration of its own."""

    __slots__ = ("callback", "exclusive", "mask")

    def __init__(self, callback: Callable[[int], object], mask: int, exclusive: bool) -> None:
        self.callback = callback
        self.mask = mask
        self.exclusive = exclusive


class WaitQueue:
    """The registrations of one object, in order of arrival. Events are EPOLL* bits, or ALL."""

    __slots__ = ("_entries", "_exclusive", "_kept")
    tell_many: ClassVar[Callable[[WaitQueue, int], object] | None] = None
    """How more than MANY hear of an event (sentry.kernel.crowds); None: in place."""

    def __init__(self) -> None:
        self._entries: dict[Registration, None] = {}
        self._exclusive: dict[int, dict[Registration, None]] | None = None
        """Those of whom one at a time is told, the first first, by their masks."""
        self._kept: dict[Kept, None] | None = None
        """Those who hear in the step in which it happens, however many others there are."""

    def __len__(self) -> int:
        count = len(self._entries)
        if self._exclusive:
            count += sum(map(len, self._exclusive.values()))
        return count if self._kept is None else count + len(self._kept)

    def add(
        self, callback: Callable[[int], object], mask: int = ALL, *, exclusive: bool = False
    ) -> Entry:
        """Register; the entry is the handle for `remove`."""
        entry = Entry(callback, mask, exclusive)
        self.enter(entry)
        return entry

    def enter(self, entry: Registration) -> None:
        """Register what is an entry itself."""
        if not entry.exclusive:
            self._entries[entry] = None
            return
        if self._exclusive is None:
            self._exclusive = {}
        line = self._exclusive.get(entry.mask)
        if line is None:
            self._exclusive[entry.mask] = {entry: None}
        else:
            line[entry] = None

    def remove(self, entry: Registration) -> None:
        """Unregister; one that is gone already does no harm."""
        if not entry.exclusive:
            self._entries.pop(entry, None)
        elif self._exclusive and (line := self._exclusive.get(entry.mask)) is not None:
            line.pop(entry, None)  # the masks are few: an empty line waits for the next

    def keep(self, entry: Kept) -> None:
        """Register what hears of every event, first, and counts as nobody who was told."""
        if self._kept is None:
            self._kept = {}
        self._kept[entry] = None

    def keep_no_more(self, entry: Kept) -> None:
        """Unregister it."""
        if self._kept is not None:
            self._kept.pop(entry, None)

    def _tell_kept(self, events: int) -> None:
        for entry in list(self._kept or ()):
            entry.callback(events)

    def notify(self, events: int = ALL) -> int:
        """Tell all plain entries and the first exclusive one that match; how many were told."""
        if self._kept:
            self._tell_kept(events)
        entries, told = self._entries, 0
        if len(entries) == 1:
            (entry,) = entries
            if entry.mask & events:
                entry.callback(events)
                told = 1
        elif len(entries) > MANY and WaitQueue.tell_many is not None:
            told = len(entries)
            WaitQueue.tell_many(self, events)
        elif entries:
            for entry in list(entries):
                if entry.mask & events:
                    told += 1
                    entry.callback(events)
        if self._exclusive:
            for mask, line in self._exclusive.items():
                if line and mask & events and _told(line, events):
                    return told + 1
        return told

    def notify_all(self, events: int = ALL, each: Each = in_place) -> None:
        """Tell all entries that match, also the exclusive ones: nobody has anything to wait for.

        Thousands hear of it one after the other, where `each` does that in pieces.
        """
        if self._kept:
            self._tell_kept(events)
        lines = (self._exclusive or {}).values()
        if self._entries or lines:
            each([*self._entries, *chain.from_iterable(lines)], partial(self.tell, events))

    def plain(self) -> Iterable[Registration]:
        """Those of whom all are told."""
        return self._entries

    def tell(self, events: int, entry: Registration) -> None:
        """Tell one, if it is in the queue still and this is for it."""
        here = self._entries
        if entry.exclusive:
            here = (self._exclusive or {}).get(entry.mask, {})
        if entry in here and entry.mask & events:
            entry.callback(events)


def _told(line: dict[Registration, None], events: int) -> bool:
    """The first that this wakes, which stands behind the others then if it sleeps."""
    if len(line) == 1:
        (entry,) = line
        return entry.callback(events) is not False
    entry = next(iter(line))
    woken = entry.callback(events)
    if woken is False:
        for entry in list(line)[1:]:
            if (woken := entry.callback(events)) is not False:
                break
        else:
            return False
    if woken is True and entry in line:
        del line[entry]
        line[entry] = None
    return True


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
