"""Advisory locks of one inode: POSIX and OFD record locks, and flock. fcntl_locking(2), flock(2).

An owner is an `FdTable` (POSIX: all tasks that share it), or a `FileDescription` (OFD, flock).
POSIX and OFD locks exclude each other; flock locks live apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from sentry.errors import EAGAIN, EDEADLK
from sentry.vfs.budget import Budget
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Held, ended, now_or_later

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.vfs.lease_table import LeaseTable

END: Final = (1 << 63) - 1
LEASES: Final = {F_RDLCK: "READ", F_WRLCK: "WRITE", F_UNLCK: "UNLCK"}


class RecordLock(Struct):
    """A range [start, end], inclusive as in Linux."""

    owner: object
    pid: int
    """F_GETLK shows it; -1 for OFD locks."""
    exclusive: bool
    start: int
    end: int

    def overlaps(self, start: int, end: int) -> bool:
        """The ranges have a byte in common."""
        return self.start <= end and start <= self.end


class Request(Struct):
    """A lock that is asked for; `exclusive` None unlocks."""

    owner: object
    pid: int
    exclusive: bool | None
    start: int
    end: int


class FileLocks:
    """All locks of an inode."""

    __slots__ = ("_budget", "_pids", "device", "flocks", "ino", "leases", "queue", "records")

    def __init__(self, budget: Budget, device: int, ino: int) -> None:
        self._budget = budget
        self.device, self.ino = device, ino
        self.records: list[RecordLock] = []
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
        for lock in self.records:
            kind = "OFDLCK" if lock.pid == -1 else "POSIX "
            end = "EOF" if lock.end == END else lock.end
            access = "WRITE" if lock.exclusive else "READ"
            yield f"{kind} ADVISORY  {access}", lock.pid, f"{lock.start} {end}"
        for owner, exclusive in self.flocks.items():
            yield f"FLOCK  ADVISORY  {'WRITE' if exclusive else 'READ'}", self._pids[owner], "0 EOF"
        for lease in self.leases.items if self.leases is not None else ():
            how = "ACTIVE   " if lease.target is None else "BREAKING "
            kind = LEASES[lease.kind if lease.target is None else lease.target]
            yield f"LEASE  {how} {kind}", lease.pid, "0 EOF"

    # --- records

    def conflict(self, request: Request) -> RecordLock | None:
        """The first lock of somebody else that stands in the way."""
        for lock in self.records:
            if lock.owner is request.owner or not lock.overlaps(request.start, request.end):
                continue
            if lock.exclusive or request.exclusive:
                return lock
        return None

    def own(self, request: Request) -> RecordLock | None:
        """The first lock in the range that the asker has: F_OFD_GETLK with F_UNLCK."""
        for lock in self.records:
            if lock.owner is request.owner and lock.overlaps(request.start, request.end):
                return lock
        return None

    def set(self, request: Request) -> None:
        """Take or drop the range now. Raises: EAGAIN, ENOLCK."""
        if request.exclusive is not None and self.conflict(request) is not None:
            raise EAGAIN("locked")
        kept: list[RecordLock] = []
        start, end = request.start, request.end
        for lock in self.records:
            if lock.owner is not request.owner:
                kept.append(lock)
                continue
            same = lock.exclusive == request.exclusive
            if same and lock.start <= end + 1 and start <= lock.end + 1:
                start, end = min(start, lock.start), max(end, lock.end)
                continue
            if not lock.overlaps(request.start, request.end):
                kept.append(lock)
                continue
            if lock.start < request.start:
                kept.append(
                    RecordLock(lock.owner, lock.pid, lock.exclusive, lock.start, request.start - 1)
                )
            if lock.end > request.end:
                kept.append(
                    RecordLock(lock.owner, lock.pid, lock.exclusive, request.end + 1, lock.end)
                )
        if request.exclusive is not None:
            kept.append(RecordLock(request.owner, request.pid, request.exclusive, start, end))
        self._budget.check_locks(len(kept) - len(self.records))
        self._replace(kept)
        if request.exclusive is not True:
            self.queue.notify()

    def _replace(self, records: list[RecordLock]) -> None:
        self._budget.locks += len(records) - len(self.records)
        self.records = records
        self.note()

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
        for held in self.flocks.values():
            if held or exclusive:
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
        kept = [lock for lock in self.records if lock.owner is not owner]
        if len(kept) != len(self.records):
            self._replace(kept)
            self.queue.notify()

    def release_description(self, file: object) -> None:
        """The last use of a description is gone."""
        self.release_owner(file)
        self.unflock(file)
        if self.leases is not None:
            self.leases.release(file)
            self.note()
