"""Advisory locks of one inode: POSIX and OFD record locks, and flock. fcntl_locking(2), flock(2).

An owner is an `FdTable` (POSIX: all tasks that share it), or a `FileDescription` (OFD, flock).
POSIX and OFD locks exclude each other; flock locks live apart.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from sentry.errors import EAGAIN, EDEADLK, ENOLCK
from sentry.vfs.budget import Budget
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Held, ended, now_or_later

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sentry.vfs.lease_table import LeaseTable

END: Final = (1 << 63) - 1
MAX_OWNERS: Final = 16_384
"""Who have record locks of one file: each lock is compared with those of all. A ceiling of ours."""
MAX_COMPARED: Final = 64
"""Waiters that another one is compared with, to show behind which it stands: a ceiling of ours."""
LEASES: Final = {F_RDLCK: "READ", F_WRLCK: "WRITE", F_UNLCK: "UNLCK"}


class RecordLock(Struct):
    """A range [start, end], inclusive as in Linux."""

    owner: "object"
    pid: int
    """F_GETLK shows it; -1 for OFD locks."""
    exclusive: bool
    start: int
    end: int


class Request(Struct):
    """A lock that is asked for; `exclusive` None unlocks."""

    owner: "object"
    pid: int
    exclusive: bool | None
    start: int
    end: int


class Waiter(Struct):
    """Who sleeps until a lock is free."""

    request: Request
    is_flock: bool = False
    blocker: object = None
    """Whose record lock is in the way."""


Shown = tuple[int, str, int, str] | None
Behind = dict[int, list[Waiter]]
"""Waiters by the id of what they wait for: a lock, or who waits for it, too."""

_start, _end, _exclusive = attrgetter("start"), attrgetter("end"), attrgetter("exclusive")


def overlapping(locks: Sequence[RecordLock], start: int, end: int) -> Iterator[RecordLock]:
    """Those of an owner's that have a byte of the range."""
    for at in range(bisect_left(locks, start, key=_end), len(locks)):
        if locks[at].start > end:
            return
        yield locks[at]


def _exclude(one: Request, other: Request) -> bool:
    """posix_locks_conflict(), flock_locks_conflict()."""
    if one.owner is other.owner or not (one.exclusive or other.exclusive):
        return False
    return one.start <= other.end and other.start <= one.end


def _described(lock: RecordLock | Request, *, is_flock: bool) -> tuple[str, int, str]:
    kind = "FLOCK " if is_flock else "OFDLCK" if lock.pid == -1 else "POSIX "
    end = "EOF" if lock.end == END else lock.end
    access = "WRITE" if lock.exclusive else "READ"
    return f"{kind} ADVISORY  {access}", lock.pid, f"{lock.start} {end}"


def _waiting(behind: Behind, whom: int, depth: int) -> Iterator[Shown]:
    """Who waits for it, each before who waits for that one, too; MAX_COMPARED deep at most."""
    for each in behind.get(whom, ()):
        yield depth, *_described(each.request, is_flock=each.is_flock)
        yield from _waiting(behind, id(each), depth + 1)


class FileLocks:
    """All locks of an inode."""

    __slots__ = ("_budget", "_pids", "device", "flocks", "ino", "leases", "queue", "records",
                 "waiting")  # fmt: skip

    def __init__(self, budget: Budget, device: int, ino: int) -> None:
        self._budget = budget
        self.device, self.ino = device, ino
        self.records: dict[object, list[RecordLock]] = {}
        """By owner, who has no byte twice: in the order of their ranges."""
        self.flocks: dict[object, bool] = {}
        """Description → exclusive."""
        self._pids: dict[object, int] = {}
        """The process that took a lock of `flocks`: /proc/locks shows it."""
        self.waiting: dict[int, Waiter] = {}
        """By their ids, in the order in which they came."""
        self.queue = WaitQueue()
        self.leases: LeaseTable | None = None

    def note(self) -> None:
        """Something is held now, or nothing any more: /proc/locks."""
        if self.records or self.flocks or (self.leases is not None and self.leases.items):
            self._budget.locked[self] = None
        else:
            self._budget.locked.pop(self, None)

    def shown(self) -> Iterator[Shown]:
        """How many wait for one another before it, what, whose and where: lock_get_status(). None
        after a step of which there is nothing to show.
        """
        records = list(chain.from_iterable(self.records.values()))
        flocks = list(self.flocks.items())
        behind: Behind = {}
        for waiter in list(self.waiting.values()):
            self._stand(behind, waiter)
            yield None
        for lock in records:
            yield 0, *_described(lock, is_flock=False)
            yield from _waiting(behind, id(lock), 1)
        for owner, exclusive in flocks:
            held = RecordLock(owner, self._pids.get(owner, 0), exclusive, 0, END)
            yield 0, *_described(held, is_flock=True)
            yield from _waiting(behind, id(owner), 1)
        for lease in list(self.leases.items) if self.leases is not None else ():
            how = "ACTIVE   " if lease.target is None else "BREAKING "
            kind = LEASES[lease.kind if lease.target is None else lease.target]
            yield 0, f"LEASE  {how} {kind}", lease.pid, "0 EOF"

    def _stand(self, behind: Behind, waiter: Waiter) -> None:
        """Behind the lock that is in the way, or who waits for that and would be: the last one of
        them. __locks_insert_block()."""
        asked, left = waiter.request, MAX_COMPARED
        if waiter.is_flock:
            first = next(iter(self.flocks), None)
        else:
            locks = overlapping(self.records.get(waiter.blocker, ()), asked.start, asked.end)
            first = next((lock for lock in locks if lock.exclusive or asked.exclusive), None)
        if first is None:
            return  # it goes on soon
        queue = behind.setdefault(id(first), [])
        looked_at = 0
        while looked_at < len(queue) and left:
            before, left = queue[looked_at], left - 1
            looked_at += 1
            if _exclude(before.request, asked):
                queue, looked_at = behind.setdefault(id(before), []), 0
        queue.append(waiter)

    # --- records

    def conflict(self, request: Request) -> RecordLock | None:
        """The first lock of somebody else that stands in the way."""
        for owner, locks in self.records.items():
            if owner is request.owner:
                continue
            there = overlapping(locks, request.start, request.end)
            lock = next(there if request.exclusive else filter(_exclusive, there), None)
            if lock is not None:
                return lock
        return None

    def own(self, request: Request) -> RecordLock | None:
        """The first lock in the range that the asker has: F_OFD_GETLK with F_UNLCK."""
        locks = self.records.get(request.owner, ())
        return next(overlapping(locks, request.start, request.end), None)

    def set(self, request: Request) -> None:
        """Take or drop the range now. Raises: EAGAIN, ENOLCK."""
        if request.exclusive is not None and self.conflict(request) is not None:
            raise EAGAIN("locked")
        owner, start, end = request.owner, request.start, request.end
        mine = self.records.get(owner, [])
        if not mine and len(self.records) >= MAX_OWNERS and request.exclusive is not None:
            raise ENOLCK("the ceiling of owners of a file's locks")
        before: list[RecordLock] = []
        after: list[RecordLock] = []
        first = bisect_left(mine, start - 1, key=_end)
        last = max(bisect_right(mine, end + 1, key=_start), first)
        # what lies between the first and the last is replaced as a whole
        for at in {first, last - 1} if first < last else ():
            lock = mine[at]
            if lock.exclusive == request.exclusive:
                start, end = min(start, lock.start), max(end, lock.end)
                continue
            if lock.start < request.start:
                left = min(lock.end, request.start - 1)
                before.append(RecordLock(owner, lock.pid, lock.exclusive, lock.start, left))
            if lock.end > request.end:
                right = max(lock.start, request.end + 1)
                after.append(RecordLock(owner, lock.pid, lock.exclusive, right, lock.end))
        if request.exclusive is not None:
            before.append(RecordLock(owner, request.pid, request.exclusive, start, end))
        more = len(before) + len(after) - (last - first)
        self._budget.check_locks(more)
        self._budget.locks += more
        mine[first:last] = before + after
        if mine:
            self.records[owner] = mine
        else:
            self.records.pop(owner, None)
        self.note()
        if request.exclusive is not True:
            self.queue.notify()

    def wait_set(
        self, request: Request, file: Held, graph: dict[object, object], posix: bool
    ) -> Any:
        """F_SETLKW. `graph`: who waits for whom, over all files. Raises: EDEADLK, Interrupted."""

        waiter = Waiter(request)

        def attempt() -> int:
            blocker = self.conflict(request) if request.exclusive is not None else None
            if blocker is not None:
                if posix:
                    self._check_deadlock(request.owner, blocker.owner, graph)
                    graph[request.owner] = blocker.owner
                waiter.blocker = blocker.owner
                self.waiting[id(waiter)] = waiter
                raise EAGAIN("locked")
            self.set(request)
            return 0

        def end(finish: Callable[[], int]) -> int:
            try:
                return finish()
            finally:
                graph.pop(request.owner, None)
                self.waiting.pop(id(waiter), None)

        return ended(lambda: now_or_later(attempt, (self.queue,), held=(file,)), end)

    @staticmethod
    def _check_deadlock(owner: object, blocker: object, graph: dict[object, object]) -> None:
        """posix_locks_deadlock(): at most 10 steps."""
        at: object | None = blocker
        for _ in range(10):
            at = graph.get(at)
            if at is None:
                return
            if at is owner:
                raise EDEADLK("a circle of waiters")

    # --- flock

    def flock(self, owner: object, exclusive: bool, pid: int) -> int:
        """Take or convert a lock now. Raises: EAGAIN; a conversion has then lost the old lock."""
        if self.flocks.get(owner) is exclusive:
            return 0
        self.unflock(owner)
        if self.flocks and (exclusive or next(iter(self.flocks.values()))):  # who has it alone
            raise EAGAIN("locked")
        self.flocks[owner], self._pids[owner] = exclusive, pid
        self.note()
        return 0

    def wait_flock(self, file: Held, exclusive: bool, pid: int) -> Any:
        """The same, as long as it takes. Raises: Interrupted."""
        waiter = Waiter(Request(file, pid, exclusive, 0, END), is_flock=True)
        attempt = partial(self.flock, file, exclusive, pid)
        self.waiting[id(waiter)] = waiter

        def end(finish: Callable[[], int]) -> int:
            try:
                return finish()
            finally:
                self.waiting.pop(id(waiter), None)

        return ended(lambda: now_or_later(attempt, (self.queue,), held=(file,)), end)

    def unflock(self, owner: object) -> None:
        """LOCK_UN."""
        if self.flocks.pop(owner, None) is not None:
            del self._pids[owner]
            self.note()
            self.queue.notify()

    # --- the ends of owners

    def release_owner(self, owner: object) -> None:
        """A process closed a descriptor of the file: its POSIX locks are gone, as POSIX has it."""
        locks = self.records.pop(owner, None)
        if locks is not None:
            self._budget.locks -= len(locks)
            self.note()
            self.queue.notify()

    def release_description(self, file: object) -> None:
        """The last use of a description is gone."""
        self.release_owner(file)
        self.unflock(file)
        if self.leases is not None:
            self.leases.release(file)
            self.note()
