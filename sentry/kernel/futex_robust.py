"""Robust futexes: set_robust_list(2). A dying thread marks the locks it held and wakes a waiter.

The list is in the program's memory, so it may be anything: at most ROBUST_LIST_LIMIT entries are
followed, and the first bad address ends the walk (exit_robust_list, kernel/futex/core.c).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sentry.abi.futex import (
    FUTEX_OWNER_DIED,
    FUTEX_TID_MASK,
    FUTEX_WAITERS,
    ROBUST_LIST_HEAD,
    ROBUST_LIST_LIMIT,
)
from sentry.errors import Errno
from sentry.kernel import futex_pi
from sentry.mm.errors import NeedsFault, NeedsPage
from sentry.suppress import suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sentry.kernel.task import Task
    from sentry.wait.fiber import Mode
    from sentry.wait.steps import WaitingSteps

T = TypeVar("T")
PI = 1
"""Bit of a list pointer: the entry is a priority-inheritance futex."""


def exit_robust(task: Task) -> WaitingSteps[None]:
    """Walk the list of a task that leaves its address space; hand its PI locks on.

    Who waits for it in vain takes the list away.
    """
    if task.robust_list:
        with suppress(Errno, NeedsFault):  # else the rest of the list cannot be followed
            yield from _walk(task)
        task.robust_list = 0
    if task.kernel.futexes.locks:
        yield from futex_pi.owner_dies(task)


def _with_room(task: Task, act: Callable[[], T]) -> WaitingSteps[T]:
    """What that gives: where RAM is full somebody dies for it, else who waits for a lock of the
    list would sleep for ever. Who ends for that very reason does not wait for itself.

    Raises: NeedsFault then; NeedsPage, for that may never come; Errno.
    """
    while True:
        try:
            return act()
        except NeedsFault as need:
            if isinstance(need, NeedsPage) or task.group.exiting or not task.robust_list:
                raise
            wait = partial(_wait, need.wait)
        yield wait


def _wait(wait: Callable[[], Coroutine[Any, Any, T]], _: Mode) -> Coroutine[Any, Any, T]:
    return wait()


def _walk(task: Task) -> WaitingSteps[None]:
    head_at, read = task.robust_list, task.mm.read
    found = yield from _with_room(task, partial(read, head_at, ROBUST_LIST_HEAD.size))
    head = ROBUST_LIST_HEAD.unpack(found)
    pending = head.list_op_pending & ~PI
    entry = head.list_next
    for _ in range(ROBUST_LIST_LIMIT):
        if entry & ~PI == head_at:
            break
        follower = yield from _with_room(task, partial(read, entry & ~PI, 8))
        if entry & ~PI != pending:
            word = (entry & ~PI) + head.futex_offset
            yield from _with_room(task, partial(_died, task, word, entry & PI, False))
        entry = int.from_bytes(follower, "little")
        yield None
    if pending:
        word = pending + head.futex_offset
        yield from _with_room(task, partial(_died, task, word, head.list_op_pending & PI, True))


def _died(task: Task, addr: int, pi: int, is_pending: bool) -> None:
    """handle_futex_death(): mark one word if the task owns it."""
    mm, table = task.mm, task.kernel.futexes
    addr &= 0xFFFFFFFFFFFFFFFF
    value = mm.load_u32(addr)
    while True:
        owner = value & FUTEX_TID_MASK
        if is_pending and not pi and not owner:
            table.wake(mm.futex_key(addr, True), 1)
            return
        if owner != task.own_tid:
            return
        seen = mm.cmpxchg_u32(addr, value, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)
        if seen == value:
            break
        value = seen
    if not pi and value & FUTEX_WAITERS:
        table.wake(mm.futex_key(addr, True), 1)
