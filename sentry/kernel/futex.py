"""futex(2): who waits on which word of memory, and how they are woken.

`FutexTable` (futex_table.py) maps keys to queues of waiters. A key is an address of an address
space, or a place in a file for words in shared mappings, so that processes meet there
(`MemoryManager.futex_key`).
Everything between the check of the word and the queueing happens on the kernel thread without an
await, so no wake-up is lost: a wake is a call of the kernel thread too. Priority-inheritance
futexes are in futex_pi.py, lists of robust ones in futex_robust.py.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from sentry.errors import EAGAIN, EINVAL, ENOMEM, ENOSYS, ETIMEDOUT
from sentry.kernel import futex_table
from sentry.kernel.futex_table import MATCH_ANY, Waiter
from sentry.wait.fiber import Interrupted, Mode, RestartBlock, TimedOut
from sentry.wait.sleep import Sleep
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from sentry.kernel.futex_table import FutexTable
    from sentry.kernel.task import Task
    from sentry.vfs.file import Result
    from sentry.wait.fiber import Fiber
    from sentry.wait.steps import Steps

INTERRUPTIBLE = Mode.INTERRUPTIBLE


def key_of(task: Task, addr: int, private: bool) -> Hashable:
    """The key of a word. Raises: EINVAL (alignment), EFAULT.

    One without FUTEX_PRIVATE_FLAG is another, also where nobody else could reach the word:
    FUT_OFF_MMSHARED, get_futex_key().
    """
    if addr & 3:
        raise EINVAL(f"misaligned {addr:#x}")
    mm = task.mm
    if private:
        return (mm, addr, "private")
    key: Hashable = mm.futex_key(addr, True)
    return key


def wait(
    task: Task, addr: int, value: int, private: bool, deadline_ns: int | None, bitset: int
) -> Coroutine[Any, Any, int]:
    """FUTEX_WAIT: sleep if the word has this value. `deadline_ns`: CLOCK_MONOTONIC.

    Raises: EAGAIN when it has another; the coroutine ETIMEDOUT, and what interrupts it.
    """
    key = key_of(task, addr, private)
    if task.mm.load_u32(addr) != value:
        raise EAGAIN("value changed")
    waiter = Waiter(task, key, bitset)
    table = task.kernel.futexes
    table.add(waiter)
    again = None
    if deadline_ns is not None:
        again = partial(wait, task, addr, value, private, deadline_ns, bitset)
    return FutexSleep(table, waiter, deadline_ns, again)


class FutexSleep(Sleep):
    """FUTEX_WAIT after the look at the word."""

    __slots__ = ("_again", "_table", "_waiter")

    def __init__(
        self,
        table: FutexTable,
        waiter: Waiter,
        deadline_ns: int | None,
        again: Callable[[], Any] | None,
    ) -> None:
        self.deadline_ns = deadline_ns  # what Sleep.__init__ does, without the call
        self.in_program_time = True
        self._after = self._end_by = self._inner = None
        self._table = table
        self._waiter = waiter
        self._again = again

    def enter(self, fiber: Fiber) -> None:
        """The waiter is queued already."""
        self._waiter.fiber = fiber

    def attempt(self) -> int:
        """Whether it was this waiter that was meant."""
        if not self._waiter.woken:
            raise EAGAIN
        return 0

    def leave(self) -> None:
        """Out of the queue."""
        waiter = self._waiter
        waiter.fiber = None
        if not waiter.woken:
            self._table.remove(waiter)

    def failed(self, error: BaseException) -> int:
        """A wake-up that was counted must not get lost."""
        if isinstance(error, TimedOut):
            if not self._waiter.woken:
                raise ETIMEDOUT
        elif not isinstance(error, Interrupted):
            raise error
        elif not self._waiter.woken:
            raise error if self._again is None else RestartBlock(self._again)
        return 0


def wait_any(
    task: Task, words: list[tuple[int, int, bool]], deadline_ns: int | None
) -> AnyFutexSleep:
    """futex_waitv(2): sleep on (address, value, private) each; the index of one that was woken.

    Raises: EAGAIN, ETIMEDOUT, EFAULT, EINVAL, Interrupted; ENOMEM beyond the ceiling.
    """
    table = task.kernel.futexes
    if table.listed + len(words) > futex_table.MAX_LISTED:
        raise ENOMEM("the ceiling of words of futex_waitv(2)")
    keys = [key_of(task, addr, private) for addr, _, private in words]
    for addr, value, _ in words:
        if task.mm.load_u32(addr) != value:
            raise EAGAIN("value changed")
    waiters = [Waiter(task, key) for key in keys]
    for waiter in waiters:
        table.add(waiter)
    return AnyFutexSleep(table, waiters, deadline_ns)


class AnyFutexSleep(Sleep):
    """futex_waitv(2) after the look at the words."""

    __slots__ = ("_table", "_waiters")

    def __init__(
        self, table: FutexTable, waiters: list[Waiter], deadline_ns: int | None
    ) -> None:
        super().__init__(deadline_ns, in_program_time=True)
        self._table = table
        self._waiters = waiters
        table.listed += len(waiters)

    def enter(self, fiber: Fiber) -> None:
        """The waiters are queued already."""
        for waiter in self._waiters:
            waiter.fiber = fiber

    def attempt(self) -> int:
        """The index of the first that was woken."""
        for index, waiter in enumerate(self._waiters):
            if waiter.woken:
                return index
        raise EAGAIN

    def leave(self) -> None:
        """Out of the queues."""
        self._table.listed -= len(self._waiters)
        for waiter in self._waiters:
            waiter.fiber = None
            if not waiter.woken:
                self._table.remove(waiter)

    def failed(self, error: BaseException) -> int:
        """A wake-up that was counted must not get lost."""
        if isinstance(error, TimedOut | Interrupted):
            for index, waiter in enumerate(self._waiters):
                if waiter.woken:
                    return index
            if isinstance(error, TimedOut):
                raise ETIMEDOUT
        raise error


def wake(
    task: Task, addr: int, count: int, *, private: bool = False, bitset: int = MATCH_ANY
) -> Result:
    """FUTEX_WAKE; how many were woken, or the rest of the call. Raises: EINVAL, EFAULT."""
    table, key = task.kernel.futexes, key_of(task, addr, private)
    if (count <= 1 and bitset == MATCH_ANY) or not table.is_crowded(key):
        return table.wake(key, count, bitset)
    return in_steps(table.wake_steps(key, count, bitset))


_COMPARE: dict[int, Callable[[int, int], bool]] = {
    0: lambda old, arg: old == arg,
    1: lambda old, arg: old != arg,
    2: lambda old, arg: old < arg,
    3: lambda old, arg: old <= arg,
    4: lambda old, arg: old > arg,
    5: lambda old, arg: old >= arg,
}


def _sign(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (value & (1 << bits) - 1 ^ half) - half


def wake_op(
    task: Task, addr: int, addr2: int, private: bool, counts: tuple[int, int], code: int
) -> Result:
    """FUTEX_WAKE_OP: change the second word, wake on the first, and on the second if it was so."""
    key, key2 = key_of(task, addr, private), key_of(task, addr2, private)
    operation, compare = code >> 28 & 7, code >> 24 & 15
    argument, wanted = _sign(code >> 12, 12), _sign(code, 12)
    if code >> 28 & 8:
        argument = 1 << (argument & 31)
    if operation > 4:
        raise ENOSYS(f"operation {operation}")
    old = _sign(task.mm.futex_op(addr2, operation, argument & 0xFFFFFFFF), 32)
    if compare not in _COMPARE:
        raise ENOSYS(f"comparison {compare}")
    keys = (key, key2) if _COMPARE[compare](old, wanted) else (key,)
    return in_steps(_wake_both(task.kernel.futexes, keys, counts))


def _wake_both(
    table: FutexTable, keys: tuple[Hashable, ...], counts: tuple[int, int]
) -> Steps[int]:
    woken = 0
    for key, count in zip(keys, counts, strict=False):
        woken += yield from table.wake_steps(key, count)
    return woken
