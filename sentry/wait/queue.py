"""Wait queues: who wants to know when something becomes ready.

Objects never sleep: they own a queue and notify it. `until` is the one wait pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from sentry.errors import EAGAIN
from sentry.wait.again import CURRENT, NotNow
from sentry.wait.fiber import Mode, TimedOut, park, this_fiber

T = TypeVar("T")
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
        self._entries: list[Registration] = []

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
        self._entries.append(entry)

    def remove(self, entry: Registration) -> None:
        """Unregister; one that is gone already does no harm."""
        try:
            self._entries.remove(entry)
        except ValueError:
            return

    def notify(self, events: int = ALL) -> int:
        """Tell all plain entries and the first exclusive one that match; how many were told."""
        entries = self._entries
        if not entries:
            return 0
        if len(entries) == 1:
            if not entries[0].mask & events:
                return 0
            entries[0].callback(events)
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


async def until(
    attempt: Callable[[], T],
    queues: Iterable[WaitQueue],
    events: int = ALL,
    *,
    mode: Mode = Mode.INTERRUPTIBLE,
    deadline_ns: int | None = None,
    exclusive: bool = False,
) -> T:
    """Call `attempt` until it does not raise EAGAIN, asleep on the queues in between.

    Raises: TimedOut at the deadline (CLOCK_MONOTONIC), Interrupted, Killed, what `attempt` raises.
    """
    fiber = await this_fiber()
    entries = [(q, q.add(fiber.wake, events, exclusive=exclusive)) for q in queues]
    try:
        while True:
            try:
                return attempt()
            except EAGAIN:
                pass
            if not await park(mode, deadline_ns):
                raise TimedOut
    finally:
        for queue, entry in entries:
            queue.remove(entry)


class Lock:
    """A mutex for what spans a sleep: create, rename, append, copy-up.

    `with` is for plain operations: the lock is taken only where one has to sleep inside, by its
    call. `async with` is for coroutines.
    """

    __slots__ = ("_queue", "holder")

    def __init__(self) -> None:
        self.holder: object | None = None
        """The call or coroutine that is asleep with it."""
        self._queue = WaitQueue()

    def __enter__(self) -> None:
        holder = self.holder
        if holder is not None and holder is not CURRENT.call:
            raise NotNow(self._until_free)

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if isinstance(error, NotNow):
            if self.holder is None:
                self.holder = error.call
                error.call.hold(self)
        else:
            self.let_go()

    def let_go(self) -> None:
        """Nobody has it any more."""
        self.holder = None
        if len(self._queue):
            self._queue.notify()

    def _check_free(self) -> None:
        if self.holder is not None:
            raise EAGAIN

    async def _until_free(self) -> None:
        await until(self._check_free, [self._queue], mode=Mode.KILLABLE, exclusive=True)

    async def __aenter__(self) -> None:
        if self.holder is not None or len(self._queue):
            await self._until_free()
        self.holder = _SEQUENCE

    async def __aexit__(self, *_: object) -> None:
        self.let_go()


_SEQUENCE: Final = object()
"""Holds the locks of coroutines."""
