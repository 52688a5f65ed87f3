"""Advisory locks of one inode: POSIX and OFD record locks, and flock. fcntl_locking(2), flock(2).

An owner is an `FdTable` (POSIX: all tasks that share it), or a `FileDescription` (OFD, flock).
POSIX and OFD locks exclude each other; flock locks live apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from sentry.errors import EAGAIN, EDEADLK
from sentry.vfs.budget import Budget
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Held, ended, now_or_later

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sentry.vfs.lease_table import LeaseTable

END: Final = (1 << 63) - 1
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


_end = attrgetter("end")


def overlapping(locks: Sequence[RecordLock], start: int, end: int) -> Iterator[RecordLock]:
    """Those of an owner's that have a byte of the range."""
    for at in range(bisect_left(locks, start, key=_end), len(locks)):
        if locks[at].start > end:
            return
        yield locks[at]


class FileLocks:
    """All locks of an inode."""

    __slots__ = ("_budget", "_pids", "device", "flocks", "ino", "leases", "queue", "records")

    def __init__(self, budget: Budget, device: int, ino: int) -> None:
        self._budget = budget
        self.device, self.ino = device, ino
        self.records: dict[object, list[RecordLock]] = {}
        """By owner, who has no byte twice: in the order of their ranges."""
        self.flocks: dict[object, bool] = {}
        """Description → exclusive."""
        self._pids: dict[object, int] = {}
        """The process that took a lock of `flocks`: /proc/locks shows it."""
        self.queue = WaitQueue()
        self.leases: LeaseTable | None = None

    def note(self) -> None:
        """Something is held now, or nothing any more: /proc/locks."""
        if self.records or self.flocks or (self.leases is not None and self.leases.items):
            self._budget.locked[self] = None
        else:
            self._budget.locked.pop(self, None)

    def shown(self) -> Iterator[tuple[str, int, str]]:
        """What, whose and where: lock_get_status()."""
        for lock in list(chain.from_iterable(self.records.values())):
            kind = "OFDLCK" if lock.pid == -1 else "POSIX "
            end = "EOF" if lock.end == END else lock.end
            access = "WRITE" if lock.exclusive else "READ"
            yield f"{kind} ADVISORY  {access}", lock.pid, f"{lock.start} {end}"
        for owner, exclusive in list(self.flocks.items()):
            pid = self._pids.get(owner, 0)
            yield f"FLOCK  ADVISORY  {'WRITE' if exclusive else 'READ'}", pid, "0 EOF"
        for lease in list(self.leases.items) if self.leases is not None else ():
            how = "ACTIVE   " if lease.target is None else "BREAKING "
            kind = LEASES[lease.kind if lease.target is None else lease.target]
            yield f"LEASE  {how} {kind}", lease.pid, "0 EOF"

    # --- records

    def conflict(self, request: Request) -> RecordLock | None:
        """The first lock of somebody else that stands in the way."""
        for owner, locks in self.records.items():
            if owner is request.owner:
                continue
            for lock in overlapping(locks, request.start, request.end):
                if lock.exclusive or request.exclusive:
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
        before: list[RecordLock] = []
        after: list[RecordLock] = []
        first = last = bisect_left(mine, start - 1, key=_end)
        while last < len(mine) and mine[last].start <= end + 1:
            lock = mine[last]
            last += 1
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

        def attempt() -> int:
            if request.exclusive is not None:
                blocker = self.conflict(request)
                if blocker is not None and posix:
                    self._check_deadlock(request.owner, blocker.owner, graph)
                    graph[request.owner] = blocker.owner
            self.set(request)
            return 0

        def end(finish: Callable[[], int]) -> int:
            try:
                return finish()
            finally:
                graph.pop(request.owner, None)

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
