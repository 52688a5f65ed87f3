"""System V semaphores: ipc/sem.c, semop(2), semctl(2).

An array of operations happens as a whole or not at all. One that cannot waits in its set, keyed by
the semaphore that stopped it; whoever changes that semaphore tries it again, oldest first, does it
on the waiter's behalf and wakes it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.sysvipc import IPC_NOWAIT, SEM_UNDO, SEMAEM, SEMVMX
from sentry.errors import EAGAIN, EIDRM, EINTR, EINVAL, ENOSPC, ERANGE, Errno
from sentry.kernel.sysv_ids import Caller, IdTable, IpcObject, get, now
from sentry.wait.fiber import Fiber, Interrupted, TimedOut
from sentry.wait.lock import Lock
from sentry.wait.sleep import Sleep
from sentry.wait.steps import Steps

if TYPE_CHECKING:
    from sentry.kernel.sysv_undo import UndoList
    from sentry.vfs.budget import Budget

Operation = tuple[int, int, int]
"""(number, operation, flags) of struct sembuf."""
MSL, MNS, OPM, MNI = range(4)
"""Fields of kernel.sem."""
LARGEST_SET: Final = 65535


class Waiter:
    """A task that sleeps in semop(2)."""

    __slots__ = (
        "arrival", "blocked_on", "done", "error", "fiber", "for_zero", "operations", "pid", "undo",
    )  # fmt: skip

    def __init__(
        self,
        operations: list[Operation],
        undo: UndoList | None,
        pid: int,
    ) -> None:
        self.operations = operations
        self.undo = undo
        self.pid = pid
        self.fiber: Fiber | None = None
        self.arrival = 0
        """Who came earlier is tried earlier."""
        self.blocked_on = 0
        """The semaphore that stops it, and whether it waits for that to become 0."""
        self.for_zero = False
        self.done = False
        self.error: Errno | None = None

    def end(self, error: Errno | None = None) -> None:
        """Its call is over."""
        self.done, self.error = True, error
        if self.fiber is not None:
            self.fiber.wake()


class WouldBlock(Exception):
    """The operation at `index` cannot be done now."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index


class SemaphoreSet(IpcObject):
    """struct sem_array."""

    __slots__ = (
        "_arrivals", "_by_number", "lock", "otime", "pids", "undos", "values", "waiters",
    )  # fmt: skip

    def __init__(self, task: Caller, key: int, count: int, flags: int) -> None:
        super().__init__(task.creds, key, flags)
        self.values = array("H", bytes(2 * count))
        self.pids = array("i", bytes(4 * count))
        """Who changed each last."""
        self.otime = 0
        self.waiters: dict[Waiter, None] = {}
        self.lock = Lock()
        """sem_lock(): of who changes it, until those who waited for that have gone on."""
        self._arrivals = 0
        self._by_number: dict[int, dict[Waiter, None]] = {}
        """The same, by the semaphore that stops them."""
        self.undos: dict[UndoList, dict[int, int]] = {}
        """What each list of a process gives back at its end."""

    # --- operations

    def perform(self, operations: list[Operation], undo: UndoList | None, pid: int) -> None:
        """perform_atomic_semop(): all of them or none. Raises: WouldBlock, ERANGE, ENOMEM."""
        new: dict[int, int] = {}
        given_back = self.undos.get(undo, {}) if undo is not None else {}
        adjusted: dict[int, int] = {}
        for index, (number, change, flags) in enumerate(operations):
            value = new.get(number, self.values[number])
            if not change and value:
                raise WouldBlock(index)
            value += change
            if value < 0:
                raise WouldBlock(index)
            if value > SEMVMX:
                raise ERANGE(f"semaphore {number}")
            if flags & SEM_UNDO:
                adjust = adjusted.get(number, given_back.get(number, 0)) - change
                if not -SEMAEM - 1 <= adjust <= SEMAEM:
                    raise ERANGE(f"SEM_UNDO of {number}")
                adjusted[number] = adjust
            new[number] = value
        if adjusted:
            assert undo is not None
            undo.keep(self, adjusted)
        for number, value in new.items():
            self.values[number] = value
            self.pids[number] = pid

    def attempt(
        self, operations: list[Operation], undo: UndoList | None, pid: int
    ) -> Steps[None]:
        """One try of a call that has not slept yet. Raises: WouldBlock, EAGAIN and the like."""
        try:
            self.perform(operations, undo, pid)
        except WouldBlock as stop:
            if operations[stop.index][2] & IPC_NOWAIT:
                raise EAGAIN("IPC_NOWAIT") from None
            raise
        self.otime = now()
        yield from self.changed({number for number, change, _ in operations if change})

    def changed(self, numbers: Iterable[int] | None) -> Steps[None]:
        """Let those go on who waited for these semaphores (None: for any)."""
        dirty = set(self._by_number) if numbers is None else set(numbers)
        while dirty and self.waiters:
            found = [waiter for number in dirty for waiter in self._by_number.get(number, ())]
            found.sort(key=lambda waiter: waiter.arrival)
            dirty = set()
            for waiter in found:
                if waiter in self.waiters and not self._is_hopeless(waiter):
                    dirty |= self._retry(waiter)
                yield

    def _is_hopeless(self, waiter: Waiter) -> bool:
        """It wants something of a semaphore that is used up, as all behind it: update_queue()."""
        alone = len(waiter.operations) == 1 and not waiter.for_zero
        return alone and not self.values[waiter.blocked_on]

    def _retry(self, waiter: Waiter) -> set[int]:
        """Try for a waiter; the semaphores that it changed."""
        error: Errno | None = None
        try:
            self.perform(waiter.operations, waiter.undo, waiter.pid)
            self.otime = now()
        except WouldBlock as stop:
            if not waiter.operations[stop.index][2] & IPC_NOWAIT:
                self.block(waiter, stop.index)
                return set()
            error = EAGAIN("IPC_NOWAIT")
        except Errno as failed:
            error = failed
        self.forget(waiter)
        waiter.end(error)
        if error is not None:
            return set()
        return {number for number, change, _ in waiter.operations if change}

    def block(self, waiter: Waiter, index: int) -> None:
        """It waits for the semaphore of its operation `index`."""
        number, change, _ = waiter.operations[index]
        if waiter in self.waiters:
            self._take_out(waiter)
        else:
            self.waiters[waiter] = None
            self._arrivals += 1
            waiter.arrival = self._arrivals
        waiter.blocked_on, waiter.for_zero = number, not change
        self._by_number.setdefault(number, {})[waiter] = None

    def forget(self, waiter: Waiter) -> None:
        """It does not wait any more, if it did."""
        if waiter in self.waiters:
            del self.waiters[waiter]
            self._take_out(waiter)

    def _take_out(self, waiter: Waiter) -> None:
        beside = self._by_number[waiter.blocked_on]
        beside.pop(waiter, None)
        if not beside:
            del self._by_number[waiter.blocked_on]

    def waiting(self, number: int, for_zero: bool) -> int:
        """GETNCNT, GETZCNT."""
        return sum(waiter.for_zero == for_zero for waiter in self._by_number.get(number, ()))

    # --- semctl

    def set_value(self, number: int, value: int, pid: int) -> Steps[None]:
        """SETVAL: what was to be given back of it is forgotten."""
        for undo in list(self.undos):
            if undo in self.undos:
                undo.forget(self, number)
            yield
        self.values[number] = value
        self.pids[number] = pid
        self.ctime = now()
        yield from self.changed((number,))

    def set_all(self, values: array[int], pid: int) -> Steps[None]:
        """SETALL; the values are checked."""
        for undo in list(self.undos):
            if undo in self.undos:
                undo.drop(self)
            yield
        self.values = values
        self.pids = array("i", [pid]) * len(values)
        self.ctime = now()
        yield from self.changed(None)


class Semaphores:
    """All sets of a namespace."""

    def __init__(self, budget: Budget, limits: Callable[[str], tuple[int, ...]]) -> None:
        self.ids: IdTable[SemaphoreSet] = IdTable("sem")
        self.budget = budget
        self.used = 0
        """Semaphores in all of them."""
        self._limits = limits

    @property
    def limits(self) -> tuple[int, ...]:
        """SEMMSL, SEMMNS, SEMOPM, SEMMNI."""
        return self._limits("sem")

    def get(self, task: Caller, key: int, count: int, flags: int) -> int:
        """semget(2)."""
        limits = self.limits
        if not 0 <= count <= min(limits[MSL], LARGEST_SET):
            raise EINVAL(f"{count} semaphores")

        def make() -> int:
            if not count:
                raise EINVAL("no semaphores")
            if self.used + count > limits[MNS]:
                raise ENOSPC("SEMMNS")
            self.budget.check_semaphores(count)
            number = self.ids.add(SemaphoreSet(task, key, count, flags), limits[MNI])
            self.budget.semaphores += count
            self.used += count
            return number

        def check(found: SemaphoreSet) -> None:
            if count > len(found.values):
                raise EINVAL(f"the set has {len(found.values)} semaphores")

        return get(self.ids, task.creds, key, flags, make, check)

    def remove(self, found: SemaphoreSet) -> Steps[None]:
        """IPC_RMID: who waits gets EIDRM."""
        self.ids.remove(found)
        self.used -= len(found.values)
        self.budget.semaphores -= len(found.values)
        for undo in list(found.undos):
            if undo in found.undos:
                undo.drop(found)
            yield
        waiters = list(found.waiters)
        for waiter in waiters:
            if waiter in found.waiters:
                found.forget(waiter)
                waiter.end(EIDRM("removed"))
                yield

    def table(self, reader: Caller) -> Iterator[str]:
        """The lines of /proc/sysvipc/sem."""
        for s in self.ids.in_order():
            yield (
                f"{s.key:10} {s.id:10}  {s.mode:4o} {len(s.values):10} "
                f"{s.owners(reader.creds)} {s.otime:10} {s.ctime:10}\n"
            )


class SemaphoreSleep(Sleep):
    """Until the operations were done by who made them possible.

    `blocked` is the index of the one that stopped them, and the deadline. Raises: EAGAIN at the
    deadline, EINTR, EIDRM, ERANGE.
    """

    __slots__ = ("_found", "_waiter")

    def __init__(
        self,
        found: SemaphoreSet,
        operations: list[Operation],
        undo: UndoList | None,
        pid: int,
        blocked: tuple[int, int | None],
    ) -> None:
        index, deadline_ns = blocked
        super().__init__(deadline_ns, in_program_time=True)
        self._found = found
        self._waiter = Waiter(operations, undo, pid)
        found.block(self._waiter, index)

    def enter(self, fiber: Fiber) -> None:
        """It is in the set's queue already."""
        self._waiter.fiber = fiber

    def attempt(self) -> int:
        """Whether they were done."""
        waiter = self._waiter
        if not waiter.done:
            raise EAGAIN
        if waiter.error is not None:
            raise waiter.error
        return 0

    def leave(self) -> None:
        """Out of the queue."""
        self._found.forget(self._waiter)
        self._waiter.fiber = None

    def failed(self, error: BaseException) -> int:
        """What was done in time counts."""
        if isinstance(error, TimedOut | Interrupted):
            if self._waiter.done:
                return self.attempt()
            raise EAGAIN("the time is up") if isinstance(error, TimedOut) else EINTR("semop")
        raise error
