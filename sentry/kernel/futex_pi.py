"""Futexes with an owner: FUTEX_LOCK_PI and its relatives, kernel/futex/pi.c and requeue.c.

The word holds the owner's tid; the kernel keeps a `PiState` only while somebody waits. There are no
real-time priorities here, so waiters get the lock in the order of their arrival, and inheritance
has nothing to pass on. An unlock hands the lock to the first waiter before that one wakes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import islice
from typing import TYPE_CHECKING, Final

from sentry.abi.futex import FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS
from sentry.errors import EAGAIN, EDEADLK, EFAULT, EINVAL, EPERM, ESRCH, ETIMEDOUT, Errno
from sentry.kernel import futex
from sentry.kernel.futex_table import Holder, PiState, Waiter
from sentry.mm.errors import NeedsFault
from sentry.suppress import suppress
from sentry.wait.fiber import Fiber, Interrupted, RestartNoIntr, TimedOut
from sentry.wait.sleep import Sleep
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from sentry.kernel.futex_table import FutexTable
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.vfs.file import Result
    from sentry.wait.steps import Steps

MAX_TRIES: Final = 1000
"""Of changing a word that other threads store to at the same time."""


def _try_lock(task: Task, addr: int, key: Hashable, taker: Holder) -> PiState | None:
    """Take the lock for `taker` (None), or say who holds it, with FUTEX_WAITERS set.

    `task` lends its memory. Raises: EDEADLK, ESRCH (the owner is gone), EINVAL, EAGAIN, EFAULT.
    """
    state = task.kernel.futexes.locks.get(key)

    def taken(value: int) -> int:
        owner_tid = value & FUTEX_TID_MASK
        if owner_tid == taker.own_tid:
            raise EDEADLK("held by the caller")
        if state is not None and owner_tid not in (0, state.owner.own_tid):
            raise EINVAL("the word does not name the owner")
        if state is None and not owner_tid:
            return value & (FUTEX_OWNER_DIED | FUTEX_WAITERS) | taker.own_tid
        return value | FUTEX_WAITERS

    owner_tid = _exchange(task.mm, addr, taken) & FUTEX_TID_MASK
    if state is not None:
        return state
    if not owner_tid:
        return None
    owner = task.pids.task(owner_tid)
    if owner is None or owner.dead:
        raise ESRCH(f"owner {owner_tid}")
    return PiState(key, owner)


def _exchange(mm: MemoryManager, addr: int, change: Callable[[int], int]) -> int:
    """Make of a word what `change` says, and give the value that it had.

    A thread that stores to it without end would hold up everybody here, where Linux only keeps the
    caller busy. Raises: EAGAIN then; EFAULT, what `change` raises.
    """
    value = mm.load_u32(addr)
    for _ in range(MAX_TRIES):
        seen = mm.cmpxchg_u32(addr, value, change(value))
        if seen == value:
            return value
        value = seen
    raise EAGAIN("the word does not stay as it is")


def lock(
    task: Task, addr: int, private: bool, deadline_ns: int | None, *, try_only: bool = False
) -> int | PiSleep:
    """FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI. `deadline_ns`: CLOCK_MONOTONIC."""
    key = futex.key_of(task, addr, private)
    state = _try_lock(task, addr, key, task)
    if state is None:
        return 0
    if try_only:
        raise EAGAIN("locked")
    waiter = Waiter(task, key)
    waiter.addr = addr
    table = task.kernel.futexes
    _enqueue(table, state, waiter)
    return PiSleep(table, waiter, deadline_ns)


def _enqueue(table: FutexTable, state: PiState, waiter: Waiter) -> None:
    waiter.pi = state
    state.waiters.append(waiter)
    table.locks[state.key] = state


class PiSleep(Sleep):
    """Until the lock was handed over."""

    __slots__ = ("_table", "_waiter")

    def __init__(self, table: FutexTable, waiter: Waiter, deadline_ns: int | None) -> None:
        super().__init__(deadline_ns, in_program_time=True)
        self._table = table
        self._waiter = waiter

    def enter(self, fiber: Fiber) -> None:
        """The waiter is queued already."""
        self._waiter.fiber = fiber

    def attempt(self) -> int:
        """Whether it was."""
        if not self._waiter.woken:
            raise EAGAIN
        return 0

    def leave(self) -> None:
        """Out of the queue."""
        self._waiter.fiber = None
        if not self._waiter.woken:
            _leave(self._table, self._waiter)

    def failed(self, error: BaseException) -> int:
        """A lock that was handed over in time is ours. Who was requeued does not begin again."""
        waiter = self._waiter
        if not isinstance(error, TimedOut | Interrupted):
            raise error
        if waiter.woken:
            return 0
        if isinstance(error, TimedOut):
            raise ETIMEDOUT
        if waiter.requeue_to is not None and waiter.pi is not None:
            raise EAGAIN("requeued, then interrupted")
        raise RestartNoIntr


def _leave(table: FutexTable, waiter: Waiter) -> None:
    """Wait no longer. Who got the lock and dies at once gives it back by its robust list."""
    state = waiter.pi
    if state is None:
        table.remove(waiter)
        return
    state.waiters.remove(waiter)
    if not state.waiters:
        table.locks.pop(state.key, None)


def unlock(task: Task, addr: int, private: bool) -> int:
    """FUTEX_UNLOCK_PI. Raises: EPERM when the caller is not the owner."""
    mm = task.mm

    def freed(value: int) -> int:
        if value & FUTEX_TID_MASK != task.own_tid:
            raise EPERM("not the owner")
        return 0

    freed(int.from_bytes(mm.read(addr, 4), "little"))
    key = futex.key_of(task, addr, private)
    table = task.kernel.futexes
    state = table.locks.get(key)
    if state is not None:
        if state.owner is not task:
            raise EINVAL("the lock has another owner")
        _hand_over(table, mm, addr, state, 0)
        return 0
    _exchange(mm, addr, freed)
    return 0


def _hand_over(
    table: FutexTable, mm: MemoryManager, addr: int, state: PiState, keep: int
) -> None:
    """The first waiter owns it now, also in the word. `keep`: bits of the word that stay."""
    heir = state.waiters[0].task.own_tid | FUTEX_WAITERS
    _exchange(mm, addr, lambda value: heir | value & keep)
    _own(table, state)


def _own(table: FutexTable, state: PiState) -> None:
    waiter = state.waiters.pop(0)
    state.owner = waiter.task
    if not state.waiters:
        table.locks.pop(state.key, None)
    waiter.wake()


def owner_dies(task: Task) -> Steps[None]:
    """exit_pi_state_list(): the locks that a dying task holds go to their waiters."""
    table = task.kernel.futexes
    for state in [s for s in table.locks.values() if s.owner is task]:
        if state.owner is not task or not state.waiters:  # by now
            continue
        heir = state.waiters[0]
        try:
            _hand_over(table, heir.task.mm, heir.addr, state, FUTEX_OWNER_DIED)
        except (Errno, NeedsFault):
            _own(table, state)
        yield


def wait_requeue(
    task: Task,
    words: tuple[int, int],
    value: int,
    private: bool,
    deadline_ns: int | None,
    bitset: int,
) -> PiSleep:
    """FUTEX_WAIT_REQUEUE_PI: sleep on the first word, to be moved to the lock, the second."""
    addr, lock_addr = words
    if addr == lock_addr:
        raise EINVAL("the same word twice")
    key = futex.key_of(task, addr, private)
    lock_key = futex.key_of(task, lock_addr, private)
    if key == lock_key:
        raise EINVAL("the same word twice")
    if task.mm.load_u32(addr) != value:
        raise EAGAIN("value changed")
    waiter = Waiter(task, key, bitset)
    waiter.requeue_to = lock_key
    waiter.addr = lock_addr
    table = task.kernel.futexes
    table.add(waiter)
    return PiSleep(table, waiter, deadline_ns)


def cmp_requeue(
    task: Task, words: tuple[int, int], counts: tuple[int, int], private: bool, value: int
) -> Result:
    """FUTEX_CMP_REQUEUE_PI: give the lock to one waiter, make the others wait for it."""
    addr, lock_addr = words
    wake, move = counts
    if addr == lock_addr or wake != 1 or move < 0:
        raise EINVAL("arguments")
    key = futex.key_of(task, addr, private)
    lock_key = futex.key_of(task, lock_addr, private)
    if key == lock_key:
        raise EINVAL("the same word twice")
    if task.mm.load_u32(addr) != value:
        raise EAGAIN("value changed")
    some = list(islice(task.kernel.futexes.queues.get(key, ()), wake + move))
    if any(waiter.requeue_to != lock_key for waiter in some):
        raise EINVAL("a waiter does not wait to be requeued there")
    return in_steps(_move(task, lock_addr, lock_key, some))


def _move(task: Task, lock_addr: int, lock_key: Hashable, some: list[Waiter]) -> Steps[int]:
    table, done = task.kernel.futexes, 0
    for waiter in some:
        if waiter not in table.queues.get(waiter.key, ()):  # by now
            continue
        state = _try_lock(task, lock_addr, lock_key, waiter.task)
        table.remove(waiter)
        if state is None:
            _mark_waiters(task, lock_addr)
            waiter.wake()
        else:
            _enqueue(table, state, waiter)
        done += 1
        yield
    return done


def _mark_waiters(task: Task, addr: int) -> None:
    """The new owner must unlock through the kernel: more waiters are about to come."""
    with suppress(EFAULT, EAGAIN):
        _exchange(task.mm, addr, lambda value: value | FUTEX_WAITERS)
