"""Semaphore operations as a whole, waiters, undoing."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.sched import CLONE_NEWIPC
from sentry.abi.sysvipc import IPC_NOWAIT, SEM_UNDO, SEMVMX
from sentry.auth.credentials import Credentials
from sentry.errors import EAGAIN, EIDRM, EINVAL, ENOMEM, ENOSPC, ERANGE, Errno
from sentry.kernel.sysv_sem import Operation, Semaphores, SemaphoreSet, Waiter, WouldBlock
from sentry.kernel.sysv_undo import UndoList
from sentry.vfs import budget as budgets
from sentry.vfs.budget import Budget
from sentry.wait.eager import eager
from sentry.wait.steps import at_once
from tests.world import World

LIMITS = (32000, 1024000000, 500, 32000)


def somebody() -> Any:
    return SimpleNamespace(creds=Credentials.root(), group=SimpleNamespace(tgid=7), sem_undo=None)


class Sets:
    """A namespace and one set of three semaphores."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.all = Semaphores(self.budget, lambda _: LIMITS)
        self.task = somebody()
        self.one: SemaphoreSet = self.all.ids.find(self.all.get(self.task, 0, 3, 0o600))

    def do(self, *operations: Operation, undo: UndoList | None = None) -> list[int]:
        at_once(self.one.attempt(list(operations), undo, 7))
        return list(self.one.values)

    def wait(self, *operations: Operation) -> Waiter:
        waiter = Waiter(list(operations), None, 8)
        with pytest.raises(WouldBlock) as stop:
            self.one.perform(waiter.operations, None, 8)
        self.one.block(waiter, stop.value.index)
        return waiter


@pytest.fixture
def sets() -> Sets:
    return Sets()


def test_nothing_of_an_array_happens_if_one_of_it_cannot(sets: Sets) -> None:
    with pytest.raises(EAGAIN):
        sets.do((0, 5, 0), (1, -1, IPC_NOWAIT))
    with pytest.raises(ERANGE):
        sets.do((0, 5, 0), (1, SEMVMX, 0), (1, 1, 0))
    assert list(sets.one.values) == [0, 0, 0]


def test_later_operations_see_what_earlier_ones_did(sets: Sets) -> None:
    assert sets.do((0, 3, 0), (0, -2, 0), (1, 0, 0), (0, -1, 0), (0, 0, 0), (2, 1, 0)) == [0, 0, 1]


def test_only_the_operation_that_stops_decides_whether_to_wait(sets: Sets) -> None:
    with pytest.raises(WouldBlock):
        sets.do((0, -1, 0), (1, -1, IPC_NOWAIT))


def test_a_chain_of_waiters_is_served(sets: Sets) -> None:
    first, second = sets.wait((0, -1, 0), (1, 2, 0)), sets.wait((1, -2, 0), (2, 1, 0))
    third = sets.wait((2, -2, 0))
    sets.do((0, 1, 0))
    assert (first.done, second.done, third.done) == (True, True, False)
    assert list(sets.one.values) == [0, 0, 1]
    assert sets.one.waiting(2, False) == 1


def test_a_small_one_passes_a_large_one(sets: Sets) -> None:
    large, small = sets.wait((0, -5, 0)), sets.wait((0, -1, 0))
    sets.do((0, 1, 0))
    assert small.done
    assert not large.done


def test_a_late_error_ends_a_wait(sets: Sets) -> None:
    sets.do((1, SEMVMX, 0))
    waiter = sets.wait((0, -1, 0), (1, 1, 0))
    sets.do((0, 1, 0))
    assert isinstance(waiter.error, ERANGE)
    assert sets.one.values[0] == 1


def test_unshare_ends_when_all_has_been_given_back() -> None:
    with World() as world:
        program = world.program()
        number = program.ok("semget", 0, 1, 0o600)
        program.ok("semop", number, program.place(struct.pack("<HhH", 0, 3, SEM_UNDO)), 1)
        assert program.task.sem_undo is not None
        [found] = program.task.sem_undo.sets
        found.lock.take()
        call = program.begin("unshare", CLONE_NEWIPC)
        world.settle()
        assert not call.done and found.values[0] == 3
        found.lock.let_go()
        assert (call.wait(), found.values[0]) == (0, 0)


def test_removal_ends_waits_and_frees_the_budget(sets: Sets) -> None:
    waiter = sets.wait((0, -1, 0))
    undo = UndoList(sets.budget)
    sets.do((1, 1, SEM_UNDO), undo=undo)
    at_once(sets.all.remove(sets.one))
    assert isinstance(waiter.error, EIDRM)
    assert (sets.budget.semaphores, sets.budget.undos, sets.all.used) == (0, 0, 0)
    assert eager(undo.leave(7)) is None


def test_the_last_task_gives_back_within_what_a_semaphore_holds(sets: Sets) -> None:
    undo = UndoList(sets.budget)
    undo.users = 2
    sets.do((0, 5, SEM_UNDO), (1, 1, SEM_UNDO), undo=undo)
    sets.do((0, -3, 0))
    assert eager(undo.leave(7)) is None
    assert list(sets.one.values) == [2, 1, 0]
    assert eager(undo.leave(7)) is None
    assert list(sets.one.values) == [0, 0, 0]
    assert sets.budget.undos == 0


def test_setval_forgets_what_was_to_be_undone(sets: Sets) -> None:
    undo = UndoList(sets.budget)
    sets.do((0, 5, SEM_UNDO), (1, 5, SEM_UNDO), undo=undo)
    at_once(sets.one.set_value(0, 9, 7))
    assert eager(undo.leave(7)) is None
    assert list(sets.one.values) == [9, 0, 0]


def test_what_programs_can_make_has_ceilings(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(count: int) -> Errno | None:
        try:
            sets.all.get(sets.task, 0, count, 0o600)
        except Errno as error:
            return error
        return None

    monkeypatch.setattr(budgets, "MAX_SEMAPHORES", 10)
    assert isinstance(ask(8), ENOSPC)
    assert ask(7) is None
    assert isinstance(ask(32001), EINVAL)
    monkeypatch.setattr(budgets, "MAX_UNDOS", 1)
    undo = UndoList(sets.budget)
    with pytest.raises(ENOMEM):
        sets.do((0, 1, SEM_UNDO), (1, 1, SEM_UNDO), undo=undo)
    assert list(sets.one.values) == [0, 0, 0]
