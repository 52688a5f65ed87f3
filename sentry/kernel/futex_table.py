"""`FutexTable`: who waits on which word, and the locks that have waiters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from sentry.errors import EINVAL

if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager
    from sentry.wait.fiber import Fiber

MATCH_ANY = 0xFFFFFFFF
MANY: Final = 512


class Holder(Protocol):
    """A task: it holds a lock, or waits."""

    mm: MemoryManager

    @property
    def own_tid(self) -> int: ...


class PiState:
    """A priority-inheritance lock with waiters."""

    __slots__ = ("key", "owner", "waiters")

    def __init__(self, key: Hashable, owner: Holder) -> None:
        self.key = key
        self.owner = owner
        self.waiters: list[Waiter] = []


class Waiter:
    """A task asleep on a word."""

    __slots__ = ("addr", "bitset", "fiber", "key", "pi", "requeue_to", "task", "woken")

    def __init__(self, task: Holder, key: Hashable, bitset: int = MATCH_ANY) -> None:
        self.task = task
        self.key = key
        self.bitset = bitset
        self.fiber: Fiber | None = None
        self.woken = False
        self.addr = 0
        """Where the lock lies in the memory of `task`."""
        self.requeue_to: Hashable = None
        """Key of the lock that FUTEX_CMP_REQUEUE_PI moves it to."""
        self.pi: PiState | None = None
        """The lock it waits for since it was moved."""

    def wake(self) -> None:
        """Its sleep is over; it is in no queue any more."""
        self.woken = True
        self.tell()

    def tell(self) -> None:
        """Who was woken hears of it, unless it has ended its sleep meanwhile."""
        if self.fiber is not None:
            self.fiber.wake()


Each = Callable[[Iterable[Waiter], Callable[[Waiter], object]], object]


def in_place(waiters: Iterable[Waiter], act: Callable[[Waiter], object]) -> None:
    """All of them now."""
    for waiter in waiters:
        act(waiter)


class FutexTable:
    """All futexes of a sandbox that somebody waits on."""

    __slots__ = ("_each", "locks", "queues")

    def __init__(self, each: Each = in_place) -> None:
        self._each = each
        """How more than MANY hear that they were woken: Loop.call_for_each."""
        self.queues: dict[Hashable, dict[Waiter, None]] = {}
        """In the order of their arrival. Who leaves need not be looked for: with futex_waitv(2) a
        thread may be 128 times among millions."""
        self.locks: dict[Hashable, PiState] = {}
        """Priority-inheritance locks with waiters."""

    def add(self, waiter: Waiter) -> None:
        """Queue behind the others of its key."""
        queue = self.queues.get(waiter.key)
        if queue is None:
            self.queues[waiter.key] = {waiter: None}
        else:
            queue[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Take out of the queue; harmless when it is not in one."""
        queue = self.queues.get(waiter.key)
        if queue is not None and waiter in queue:
            self._take_out(waiter.key, queue, (waiter,))

    def wake(self, key: Hashable, count: int, bitset: int = MATCH_ANY) -> int:
        """Wake up to `count` waiters (at least one, as Linux) that share a bit; how many.

        Raises: EINVAL when one of them waits for a lock (FUTEX_WAIT_REQUEUE_PI).
        """
        queue = self.queues.get(key)
        if queue is None:
            return 0
        woken: list[Waiter] = []
        is_refused = False
        for waiter in queue:
            if waiter.requeue_to is not None:
                is_refused = True
                break
            if waiter.bitset & bitset:
                woken.append(waiter)
                if len(woken) >= count:
                    break
        self._take_out(key, queue, woken)
        self._wake(woken)
        if is_refused:
            raise EINVAL("waits to be requeued to a lock")
        return len(woken)

    def _wake(self, some: list[Waiter]) -> None:
        for waiter in some:
            waiter.woken = True
        (self._each if len(some) > MANY else in_place)(some, Waiter.tell)

    def _take_out(
        self, key: Hashable, queue: dict[Waiter, None], some: Iterable[Waiter]
    ) -> None:
        for waiter in some:
            del queue[waiter]
        if not queue:
            del self.queues[key]

    def requeue(self, source: Hashable, target: Hashable, wake: int, move: int) -> int:
        """Wake `wake` waiters of one key and move `move` more to another; the sum."""
        queue = self.queues.get(source)
        if queue is None:
            return 0
        some = list(islice(queue, wake + move))
        refused = next((i for i, waiter in enumerate(some) if waiter.requeue_to is not None), None)
        done = some[:refused]
        gone = done[:wake] if source == target else done
        self._take_out(source, queue, gone)
        self._wake(done[:wake])
        for waiter in gone[wake:]:
            waiter.key = target
            self.add(waiter)
        if refused is not None:
            raise EINVAL("waits to be requeued to a lock")
        return len(done)
