"""`FutexTable`: who waits on which word, and the locks that have waiters."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from sentry.errors import EINVAL

if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager
    from sentry.wait.fiber import Fiber
    from sentry.wait.steps import Steps

MATCH_ANY = 0xFFFFFFFF
MANY: Final = 512
"""So many are woken or moved in one step."""
MAX_LISTED: Final = 1 << 20
"""Words that those wait on who wait on several: a look at who waits on one word is at all of them,
25 ms of so many."""


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
        if self.fiber is not None:
            self.fiber.wake()


class FutexTable:
    """All futexes of a sandbox that somebody waits on."""

    __slots__ = ("listed", "locks", "queues")

    def __init__(self) -> None:
        self.queues: dict[Hashable, dict[Waiter, None]] = {}
        """In the order of their arrival. Who leaves need not be looked for: with futex_waitv(2) a
        thread may be 128 times among millions."""
        self.locks: dict[Hashable, PiState] = {}
        """Priority-inheritance locks with waiters."""
        self.listed = 0
        """Words in the lists of those who wait on several."""

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
            self._take_out(waiter.key, (waiter,))

    def is_crowded(self, key: Hashable) -> bool:
        """More wait there than one step is for."""
        queue = self.queues.get(key)
        return queue is not None and len(queue) > MANY

    def wake(self, key: Hashable, count: int, bitset: int = MATCH_ANY) -> int:
        """Wake up to `count` waiters (at least one, as Linux) that share a bit; how many.

        Raises: EINVAL when one of them waits for a lock (FUTEX_WAIT_REQUEUE_PI).
        """
        queue = self.queues.get(key)
        return 0 if queue is None else self._wake(key, queue, count, bitset)

    def wake_steps(self, key: Hashable, count: int, bitset: int = MATCH_ANY) -> Steps[int]:
        """The same where it is crowded: of those who wait now."""
        woken, count = 0, max(count, 1)
        for some in self._pieces(key, count if bitset == MATCH_ANY else None):
            woken += self._wake(key, some, count - woken, bitset)
            if woken >= count:
                break
            yield
        return woken

    def _pieces(self, key: Hashable, most: int | None) -> Iterator[list[Waiter]]:
        """Of the first that wait there now, MANY at a time, those who still do; and for those who
        do not any more (a time-out, a signal) as many others.

        Preconditions: where there is a `most`, who was given is taken out before the next piece.
        """
        missing = most
        while missing is None or missing:
            waiting = deque(islice(self.queues.get(key, ()), missing))
            missing = 0
            while waiting:
                some = [waiting.popleft() for _ in range(min(MANY, len(waiting)))]
                queue = self.queues.get(key, {})
                still = [waiter for waiter in some if waiter in queue]
                if most is not None:
                    missing += len(some) - len(still)
                yield still

    def _wake(self, key: Hashable, among: Iterable[Waiter], count: int, bitset: int) -> int:
        woken: list[Waiter] = []
        is_refused = False
        for waiter in among:
            if waiter.requeue_to is not None:
                is_refused = True
                break
            if waiter.bitset & bitset:
                woken.append(waiter)
                if len(woken) >= count:
                    break
        self._take_out(key, woken)
        for waiter in woken:
            waiter.wake()
        if is_refused:
            raise EINVAL("waits to be requeued to a lock")
        return len(woken)

    def _take_out(self, key: Hashable, some: Iterable[Waiter]) -> None:
        queue = self.queues.get(key, {})
        for waiter in some:
            del queue[waiter]
        if not queue:
            self.queues.pop(key, None)

    def requeue(self, source: Hashable, target: Hashable, wake: int, move: int) -> Steps[int]:
        """Wake `wake` waiters of one key and move `move` more to another; the sum."""
        done, most = 0, wake + move
        for some in self._pieces(source, None if source == target else most):
            done += self._requeue(source, target, some[: most - done], max(wake - done, 0))
            yield
            if done >= most:
                break
        return done

    def _requeue(self, source: Hashable, target: Hashable, some: list[Waiter], wake: int) -> int:
        refused = next((i for i, waiter in enumerate(some) if waiter.requeue_to is not None), None)
        done = some[:refused]
        gone = done[:wake] if source == target else done
        self._take_out(source, gone)
        for waiter in done[:wake]:
            waiter.wake()
        for waiter in gone[wake:]:
            waiter.key = target
            self.add(waiter)
        if refused is not None:
            raise EINVAL("waits to be requeued to a lock")
        return len(done)
