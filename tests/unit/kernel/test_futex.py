"""Futexes: who is woken, moved, timed out; locks of the dead."""

from __future__ import annotations

import errno
import time
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest

from sentry.abi.futex import FUTEX_WAIT
from sentry.abi.prctl import PR_SET_DUMPABLE
from sentry.abi.sched import CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID
from sentry.errors import EAGAIN, EFAULT, EINVAL, EIO, ENOMEM, ENOSYS, ETIMEDOUT, Errno
from sentry.kernel import futex, futex_pi, futex_table, task_exit
from sentry.kernel.futex_robust import exit_robust
from sentry.kernel.futex_table import MANY, MATCH_ANY, FutexTable, Waiter
from sentry.kernel.task import Task
from sentry.kernel.task_exit import leave_memory
from sentry.mm.errors import NeedsFault, NeedsPage
from sentry.mm.manager import MemoryManager
from sentry.wait.fiber import Interrupted, RestartBlock
from sentry.wait.steps import at_once
from tests.unit.kernel.conftest import World
from tests.world import THREAD
from tests.world import World as Real

WORD, OTHER = 0x11000, 0x12000
WAITERS, OWNER_DIED = 0x80000000, 0x40000000


class Sleeper:
    """A thread inside a call that may sleep."""

    def __init__(self, world: World, task: Task, coro: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = not hasattr(coro, "send")
        self.task = task
        if self.done:
            self.result = coro
        else:
            task.fiber = world.loop.spawn(coro, task, self._end)
            world.loop.settle()

    def _end(self, result: Any, error: BaseException | None) -> None:
        self.done, self.result, self.error = True, result, error
        self.task.fiber = None


@pytest.fixture
def threads(world: World, task: Task) -> list[Task]:
    return [world.thread(task.group, 101 + i) for i in range(4)]


def wait(world: World, task: Task, deadline_ns: int | None = None, bitset: int = 1) -> Sleeper:
    return Sleeper(world, task, futex.wait(task, WORD, 0, True, deadline_ns, bitset))


def test_wait_with_another_value_fails_at_once(task: Task) -> None:
    with pytest.raises(EAGAIN):
        _ = futex.wait(task, WORD, 5, True, None, 1)
    with pytest.raises(EINVAL):
        _ = futex.wait(task, WORD + 1, 0, True, None, 1)


def test_wake_is_in_order_of_arrival(world: World, threads: list[Task]) -> None:
    sleepers = [wait(world, t) for t in threads]
    assert futex.wake(threads[0], WORD, 2, private=True) == 2
    world.loop.settle()
    assert [s.done for s in sleepers] == [True, True, False, False]
    assert futex.wake(threads[0], WORD, 100, private=True) == 2
    assert not world.kernel.futexes.queues


def test_wake_between_queueing_and_first_turn_is_not_lost(world: World, task: Task) -> None:
    coro = futex.wait(task, WORD, 0, True, None, 1)
    assert futex.wake(task, WORD, 1, private=True) == 1
    assert Sleeper(world, task, coro).result == 0


def test_bitsets_have_to_meet(world: World, task: Task) -> None:
    sleeper = wait(world, task, bitset=6)
    assert futex.wake(task, WORD, 1, private=True, bitset=1) == 0
    assert futex.wake(task, WORD, 1, private=True, bitset=2) == 1
    world.loop.settle()
    assert sleeper.done


def test_those_between_whose_bits_do_not_meet_stay_in_their_order() -> None:
    table = FutexTable()
    waiters = [Waiter(None, WORD, 1 + at % 2) for at in range(40_000)]  # type: ignore[arg-type]
    for waiter in waiters:
        table.add(waiter)
    began = time.thread_time()
    assert table.wake(WORD, len(waiters), 2) == len(waiters) // 2
    assert [*table.queues[WORD]] == waiters[::2]
    assert all(waiter.woken == (waiter.bitset == 2) for waiter in waiters)
    assert at_once(table.requeue(WORD, OTHER, 1, 5000)) == 5001
    assert [*table.queues[WORD]] == waiters[10002::2]
    assert [*table.queues[OTHER]] == waiters[2:10002:2]
    for waiter in waiters:
        table.remove(waiter)
    assert not table.queues
    assert time.thread_time() - began < 0.5  # and not once for each pair of them


def crowd(table: FutexTable, count: int) -> list[Waiter]:
    waiters = [Waiter(None, WORD, 1 + at % 2) for at in range(count)]  # type: ignore[arg-type]
    for waiter in waiters:
        table.add(waiter)
    return waiters


@pytest.mark.parametrize(("bitset", "every"), [(MATCH_ANY, 1), (1, 2)])
def test_crowd_is_woken_in_pieces_of_those_who_still_wait(bitset: int, every: int) -> None:
    table = FutexTable()
    waiters = crowd(table, 3 * MANY)
    assert table.is_crowded(WORD) and not table.is_crowded(OTHER)
    waking = table.wake_steps(WORD, 2 * MANY // every, bitset)
    next(waking)
    assert [waiter.woken for waiter in waiters[:MANY:every]] == [True] * (MANY // every)
    assert not any(waiter.woken for waiter in waiters[MANY:])
    table.remove(waiters[MANY])
    late = Waiter(None, WORD)  # type: ignore[arg-type]
    table.add(late)
    woken = at_once(waking)
    assert woken == (2 * MANY if every == 1 else MANY)
    assert not waiters[MANY].woken and not late.woken
    assert at_once(table.wake_steps(WORD, 1 << 31)) == 3 * MANY - woken
    assert not table.queues


def test_crowd_whose_time_is_up_between_two_pieces_takes_no_wake_from_the_others() -> None:
    """Nobody sees a time-out and a wake-up that went to nobody."""
    table = FutexTable()
    waiters = crowd(table, 4 * MANY)
    waking = table.wake_steps(WORD, 2 * MANY)
    next(waking)
    for waiter in waiters[MANY : 2 * MANY]:
        table.remove(waiter)
    assert at_once(waking) == 2 * MANY
    assert [waiter.woken for waiter in waiters] == [i // MANY in (0, 2) for i in range(4 * MANY)]


def test_crowd_is_moved_in_pieces_of_those_who_still_wait() -> None:
    table = FutexTable()
    waiters = crowd(table, 3 * MANY)
    moving = table.requeue(WORD, OTHER, MANY + 1, MANY)
    next(moving)
    assert [waiter.woken for waiter in waiters] == [True] * MANY + [False] * 2 * MANY
    table.remove(waiters[MANY])
    assert at_once(moving) == 2 * MANY + 1
    assert waiters[MANY + 1].woken and not waiters[MANY].woken
    assert [*table.queues[OTHER]] == waiters[MANY + 2 : 2 * MANY + 2]
    assert [*table.queues[WORD]] == waiters[2 * MANY + 2 :]
    assert at_once(table.requeue(WORD, WORD, 1, 1 << 31)) == MANY - 2
    assert [*table.queues[WORD]] == waiters[2 * MANY + 3 :]


def test_call_that_wakes_a_crowd_goes_on_after_its_first_step(
    world: World, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    key = futex.key_of(task, WORD, True)
    table = world.kernel.futexes
    waiters = [Waiter(task, key) for _ in range(2 * MANY)]
    for waiter in waiters:
        table.add(waiter)
    assert futex.wake(task, WORD, 1, private=True) == 1
    waking = Sleeper(world, task, futex.wake(task, WORD, 2 * MANY, private=True))
    assert waking.result == 2 * MANY - 1
    for waiter in waiters:
        table.add(waiter)
    code = 0 << 28 | 0 << 24  # the word becomes 0, and was
    both = Sleeper(world, task, futex.wake_op(task, OTHER, WORD, True, (1, 2 * MANY), code))
    assert both.result == 2 * MANY


def test_timeout_leaves_the_queue(world: World, task: Task) -> None:
    sleeper = wait(world, task, world.loop.now_ns() + 1000)
    world.loop.advance(2000)
    assert isinstance(sleeper.error, ETIMEDOUT)
    assert not world.kernel.futexes.queues


def test_interrupted_wait_with_timeout_can_go_on(world: World, task: Task) -> None:
    sleeper = wait(world, task, world.loop.now_ns() + 1000)
    assert task.fiber is not None
    task.fiber.interrupt(Interrupted())
    world.loop.settle()
    assert isinstance(sleeper.error, RestartBlock)
    again = Sleeper(world, task, sleeper.error.again())
    world.loop.advance(2000)
    assert isinstance(again.error, ETIMEDOUT)


def test_wake_wins_over_an_interruption(world: World, task: Task) -> None:
    sleeper = wait(world, task)
    assert task.fiber is not None
    task.fiber.interrupt(Interrupted())
    futex.wake(task, WORD, 1, private=True)
    world.loop.settle()
    assert sleeper.result == 0


def test_requeue_moves_the_rest(world: World, threads: list[Task]) -> None:
    sleepers = [wait(world, t) for t in threads]
    table = world.kernel.futexes
    word, other = (futex.key_of(threads[0], addr, True) for addr in (WORD, OTHER))
    assert at_once(table.requeue(word, other, 1, 2)) == 3
    assert table.wake(other, 10) == 2
    assert table.wake(word, 10) == 1
    world.loop.settle()
    assert all(s.done for s in sleepers)


def test_wake_op_refuses_unknown_operations(task: Task) -> None:
    with pytest.raises(ENOSYS):
        futex.wake_op(task, WORD, OTHER, True, (1, 1), 7 << 28)


def test_wait_any_says_which(world: World, task: Task) -> None:
    sleeper = Sleeper(world, task, futex.wait_any(task, [(WORD, 0, True), (OTHER, 0, True)], None))
    futex.wake(task, OTHER, 1, private=True)
    world.loop.settle()
    assert sleeper.result == 1
    assert not world.kernel.futexes.queues


def test_lock_is_handed_over_in_order(world: World, threads: list[Task]) -> None:
    first, second, third = threads[:3]
    assert futex_pi.lock(first, WORD, True, None) == 0
    assert first.mm.load_u32(WORD) == first.tid
    waiting = [Sleeper(world, t, futex_pi.lock(t, WORD, True, None)) for t in (second, third)]
    assert first.mm.load_u32(WORD) == first.tid | WAITERS
    with pytest.raises(Errno):
        futex_pi.unlock(second, WORD, True)
    futex_pi.unlock(first, WORD, True)
    world.loop.settle()
    assert [w.done for w in waiting] == [True, False]
    assert first.mm.load_u32(WORD) == second.tid | WAITERS
    futex_pi.unlock(second, WORD, True)
    world.loop.settle()
    assert waiting[1].result == 0
    futex_pi.unlock(third, WORD, True)
    assert first.mm.load_u32(WORD) == 0
    assert not world.kernel.futexes.locks


def test_lock_that_was_given_up_waiting_for_is_free_of_waiters(
    world: World, threads: list[Task]
) -> None:
    futex_pi.lock(threads[0], WORD, True, None)
    sleeper = Sleeper(
        world, threads[1], futex_pi.lock(threads[1], WORD, True, world.loop.now_ns() + 10)
    )
    world.loop.advance(100)
    assert isinstance(sleeper.error, ETIMEDOUT)
    assert not world.kernel.futexes.locks


def robust_list(task: Task, *words: int) -> None:
    """A list at 0x18000 with an entry 16 bytes before each word."""
    head = 0x18000
    task.robust_list = head
    links = [head, *(w - 16 for w in words), head]
    for at, target in pairwise(links):
        task.mm.write(at, target.to_bytes(8, "little"))
    task.mm.write(head + 8, (16).to_bytes(8, "little"))
    task.mm.write(head + 16, bytes(8))


def test_robust_lock_of_the_dead_is_marked_and_a_waiter_woken(
    world: World, threads: list[Task]
) -> None:
    owner, other = threads[:2]
    held = owner.tid | WAITERS
    owner.mm.write(WORD, held.to_bytes(4, "little"))
    robust_list(owner, WORD)
    sleeper = Sleeper(world, other, futex.wait(other, WORD, held, False, None, 1))
    at_once(exit_robust(owner))
    world.loop.settle()
    assert sleeper.done
    assert owner.mm.load_u32(WORD) == WAITERS | OWNER_DIED


def test_robust_list_is_followed_in_steps_while_the_memory_is_free(
    world: World, threads: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = threads[0]
    words = [WORD + 32 * number for number in range(20)]
    for word in words:
        owner.mm.write(word, owner.tid.to_bytes(4, "little"))
    robust_list(owner, *words)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    leaving = Sleeper(world, owner, None)
    leaving.done = False
    owner.fiber = world.loop.spawn(leave_memory(owner), owner, leaving._end)
    for _ in range(5):
        world.loop.turn()
    lock = owner.mm.map.lock
    lock.take()
    done = sum(owner.mm.load_u32(word) == OWNER_DIED for word in words)
    assert 2 < done < 8
    world.loop.settle()
    assert sum(owner.mm.load_u32(word) == OWNER_DIED for word in words) <= done + 1
    assert not leaving.done
    lock.let_go()
    world.loop.settle()
    assert leaving.done
    assert all(owner.mm.load_u32(word) == OWNER_DIED for word in words)


@pytest.mark.parametrize(("comes", "marked"), [("room", 2), ("none", 0), ("exiting", 0)])
def test_robust_list_is_followed_when_there_is_room_for_its_words(
    world: World, threads: list[Task], monkeypatch: pytest.MonkeyPatch, comes: str, marked: int
) -> None:
    owner, words, full = threads[0], [WORD, WORD + 32], [True]
    for word in words:
        owner.mm.write(word, owner.tid.to_bytes(4, "little"))
    robust_list(owner, *words)
    swap = type(owner.mm).cmpxchg_u32
    owner.group.exiting = comes == "exiting"

    async def room() -> None:
        if comes != "room":
            raise EFAULT("nobody to kill")
        full.clear()

    def changed(mm: Any, *values: int) -> int:
        if full:
            raise NeedsFault(room)
        return swap(mm, *values)

    monkeypatch.setattr(type(owner.mm), "cmpxchg_u32", changed)
    leaving = Sleeper(world, owner, leave_memory(owner))
    assert (leaving.done, leaving.error, owner.robust_list) == (True, None, 0)
    assert sum(owner.mm.load_u32(word) == OWNER_DIED for word in words) == marked


def test_robust_list_without_end_is_cut(task: Task) -> None:
    robust_list(task, WORD)
    task.mm.write(WORD - 16, (WORD - 16).to_bytes(8, "little"))
    at_once(exit_robust(task))
    assert task.robust_list == 0


def test_lock_of_the_dead_goes_to_its_waiter(world: World, threads: list[Task]) -> None:
    owner, heir = threads[:2]
    futex_pi.lock(owner, WORD, True, None)
    sleeper = Sleeper(world, heir, futex_pi.lock(heir, WORD, True, None))
    robust_list(owner, WORD)
    owner.mm.write(0x18000, (WORD - 16 | 1).to_bytes(8, "little"))
    at_once(exit_robust(owner))
    world.loop.settle()
    assert sleeper.result == 0
    assert heir.mm.load_u32(WORD) == heir.tid | WAITERS | OWNER_DIED


def test_locks_of_the_dead_are_handed_over_one_after_the_other(
    world: World, threads: list[Task]
) -> None:
    owner, *heirs = threads
    words = [WORD + 4 * at for at in range(len(heirs))]
    for word in words:
        futex_pi.lock(owner, word, True, None)
    sleepers = [
        Sleeper(world, heir, futex_pi.lock(heir, word, True, None))
        for heir, word in zip(heirs, words, strict=True)
    ]
    steps = exit_robust(owner)
    next(steps)
    world.loop.settle()
    assert [each.done for each in sleepers] == [True, False, False]
    assert heirs[1].fiber is not None
    heirs[1].fiber.interrupt(Interrupted())
    world.loop.settle()
    at_once(steps)
    world.loop.settle()
    assert [each.result for each in sleepers] == [0, None, 0]
    assert not world.kernel.futexes.locks


@pytest.mark.parametrize("is_read", [True, False])
def test_thread_that_ends_waits_for_the_page_of_the_word_and_wakes_who_joins_it(
    monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    store, full = MemoryManager.write, [True]

    async def room() -> None:
        full.clear()
        if not is_read:
            raise EFAULT("the page cannot be read")

    def write(mm: MemoryManager, addr: int, data: Any) -> None:
        if addr == word and full:
            raise NeedsFault(room)
        store(mm, addr, data)

    with Real() as world:
        program = world.program()
        word = program.place(bytes(4))
        flags = THREAD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
        tid = program.ok("clone", flags, 0, 0, word, 0)
        thread = world.kernel.pids.tasks[tid]
        joins = program.begin("futex", word, FUTEX_WAIT, tid, 0)
        assert not joins.done
        monkeypatch.setattr(MemoryManager, "write", write)
        task_exit.exit_task(thread)
        world.settle()
        assert joins.done is is_read
        assert program.read(word, 4) == (0 if is_read else tid).to_bytes(4, "little")
        assert (program.task.mm.users, program.task.files.users) == (1, 1)


def test_thread_ends_though_nobody_brings_the_page_of_its_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, waited = MemoryManager.write, []

    async def brought() -> None:
        waited.append("for ever, perhaps")
        raise EIO

    def write(mm: MemoryManager, addr: int, data: Any) -> None:
        if addr == word:
            raise NeedsPage(brought)
        store(mm, addr, data)

    with Real() as world:
        program = world.program()
        word = program.place(bytes(4))
        tid = program.ok("clone", THREAD | CLONE_CHILD_CLEARTID, 0, 0, word, 0)
        monkeypatch.setattr(MemoryManager, "write", write)
        task_exit.exit_task(world.kernel.pids.tasks[tid])
        world.settle()
        assert tid not in world.kernel.pids.tasks
    assert waited == []


def test_word_that_never_stays_as_it_is_does_not_hold_up_the_kernel(
    world: World, threads: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = threads[:3]
    futex_pi.lock(first, WORD, True, None)
    sleeper = Sleeper(world, second, futex_pi.lock(second, WORD, True, None))
    tries = count()

    def changed_meanwhile(mm: Any, addr: int, expected: int, desired: int) -> int:
        assert next(tries) < 10_000
        return expected ^ OWNER_DIED

    monkeypatch.setattr(type(first.mm), "cmpxchg_u32", changed_meanwhile)
    for call in (futex_pi.unlock, partial(futex_pi.lock, deadline_ns=None)):
        with pytest.raises(EAGAIN):
            call(first if call is futex_pi.unlock else third, WORD, True)
    at_once(exit_robust(first))
    world.loop.settle()
    assert sleeper.result == 0


def test_where_a_robust_list_lies_is_said_to_who_may_look_into_the_process() -> None:
    with Real() as world:
        program = world.program()
        reader, other = program.sibling(uid=7), program.sibling(uid=7)
        head, size = reader.buffer(8), reader.buffer(8)
        assert reader.call("get_robust_list", other.task.tid, head, size) == 0
        other.ok("prctl", PR_SET_DUMPABLE, 0)  # as of a program that gives other rights
        assert reader.call("get_robust_list", other.task.tid, head, size) == -errno.EPERM
        assert program.call("get_robust_list", other.task.tid, head, size) == 0


def test_words_of_those_who_wait_on_several_have_a_ceiling(
    world: World, threads: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(futex_table, "MAX_LISTED", 3)
    words = [(WORD, 0, True), (OTHER, 0, True)]
    for _ in range(2):
        first = Sleeper(world, threads[0], futex.wait_any(threads[0], words, None))
        with pytest.raises(ENOMEM):
            futex.wait_any(threads[1], words, None)
        other = Sleeper(world, threads[2], futex.wait_any(threads[2], words[:1], None))
        assert futex.wake(threads[3], WORD, 2, private=True) == 2
        world.loop.settle()
        assert (first.result, other.result, world.kernel.futexes.listed) == (0, 0, 0)
