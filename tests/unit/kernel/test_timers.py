"""Interval timers, CPU-time deadlines, POSIX timers, on a clock that the test moves."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any
from weakref import finalize

import pytest

from sentry.abi.resource import RLIMIT_CPU
from sentry.abi.signal import SIGALRM, SIGEV_SIGNAL, SIGKILL, SIGPROF, SIGXCPU
from sentry.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME, ITIMER_PROF, ITIMER_REAL
from sentry.kernel import task_signals
from sentry.kernel.clocks import CpuClock
from sentry.kernel.cpu_timers import AT_ONCE, CpuTimer
from sentry.kernel.posix_timers import Notify, PosixTimer
from sentry.kernel.signals import mask_of
from sentry.kernel.task import Task
from sentry.kernel.timers import timers_of, watch_cpu_limit
from tests.unit.kernel.conftest import World, handle

MS = 1_000_000
RT = 40


@pytest.fixture
def quiet(task: Task) -> Task:
    """A task that blocks everything, with handlers."""
    for signo in (SIGALRM, SIGPROF, SIGXCPU, RT):
        handle(task, signo)
    task.blocked = (1 << 64) - 1
    return task


def taken(task: Task, signo: int) -> int:
    """How many times the signal can be taken now."""
    count = 0
    while task_signals.take(task, mask_of([signo])) is not None:
        count += 1
    return count


def test_real_timer_waits_until_its_signal_is_taken(world: World, quiet: Task) -> None:
    timers = timers_of(quiet.group)
    timers.set(ITIMER_REAL, 10 * MS, 5 * MS)
    assert timers.get(ITIMER_REAL) == (10 * MS, 5 * MS)
    world.loop.advance(100 * MS)
    assert not world.loop.timers
    assert taken(quiet, SIGALRM) == 1
    # the next point of the same grid: 5, 15, … 105
    assert timers.get(ITIMER_REAL) == (10 * MS, 5 * MS)
    world.loop.advance(5 * MS)
    assert taken(quiet, SIGALRM) == 1


def test_real_timer_that_is_stopped_does_not_fire(world: World, quiet: Task) -> None:
    timers = timers_of(quiet.group)
    timers.set(ITIMER_REAL, 0, 5 * MS)
    timers.set(ITIMER_REAL, 0, 0)
    world.loop.advance(100 * MS)
    assert taken(quiet, SIGALRM) == 0


def test_cpu_timer_counts_cpu_time_alone(world: World, quiet: Task) -> None:
    ctx: Any = quiet.ctx
    timers_of(quiet.group).set(ITIMER_PROF, 0, 20 * MS)
    world.loop.advance(50 * MS)
    assert taken(quiet, SIGPROF) == 0
    ctx.cpu_ns = 20 * MS
    world.loop.advance(50 * MS)
    assert taken(quiet, SIGPROF) == 1


def test_cpu_limit_warns_then_kills(world: World, quiet: Task) -> None:
    ctx: Any = quiet.ctx
    quiet.group.limits.set(RLIMIT_CPU, 1, 3)
    watch_cpu_limit(quiet.group)
    ctx.cpu_ns = 1000 * MS
    world.loop.advance(1500 * MS)
    assert taken(quiet, SIGXCPU) == 1
    assert not quiet.group.exiting
    ctx.cpu_ns = 3000 * MS
    world.loop.advance(3000 * MS)
    assert quiet.group.exit_status == SIGKILL


def posix(task: Task, clock: Any = CLOCK_MONOTONIC) -> PosixTimer:
    timer = PosixTimer(task.group, 0, clock, Notify(SIGEV_SIGNAL, RT, 77), 0)
    task.group.posix_timers[0] = timer
    return timer


def test_posix_timer_counts_the_periods_nobody_saw(world: World, quiet: Task) -> None:
    timer = posix(quiet)
    timer.set(10 * MS, 10 * MS, absolute=False)
    world.loop.advance(55 * MS)
    entry = task_signals.take(quiet, mask_of([RT]))
    assert entry is not None
    assert entry.info.body[:16] == b"\0\0\0\0\4\0\0\0M\0\0\0\0\0\0\0"
    assert timer.overrun_last == 4
    assert timer.get() == (10 * MS, 5 * MS)
    world.loop.advance(5 * MS)
    assert taken(quiet, RT) == 1
    assert timer.overrun_last == 0


def test_posix_timer_that_has_gone_off_once_is_not_set_any_more(
    world: World, quiet: Task
) -> None:
    timer = posix(quiet)
    timer.set(0, 5 * MS, absolute=False)
    world.loop.advance(10 * MS)
    assert timer.get() == (0, 0)
    assert taken(quiet, RT) == 1
    assert timer.get() == (0, 0)


def test_posix_timer_restored_has_the_time_that_was_left(world: World, quiet: Task) -> None:
    was = posix(quiet)
    was.set(0, 10 * MS, absolute=False)
    world.loop.advance(4 * MS)
    at_ns, left_ns = was._at_ns, was.left_ns
    was._stop()
    world.loop.advance(1000 * MS)  # nobody ran
    timer = posix(quiet)
    timer.restore(at_ns, left_ns, rests=False)
    assert timer.get() == (0, 6 * MS)
    world.loop.advance(5 * MS)
    assert taken(quiet, RT) == 0
    world.loop.advance(MS)
    assert taken(quiet, RT) == 1


def test_posix_timer_restored_to_a_point_on_its_clock_stays_there(
    world: World, quiet: Task
) -> None:
    at_ns = world.loop.now_ns() + 10 * MS
    world.loop.advance(1000 * MS)
    timer = posix(quiet)
    timer.restore(at_ns, None, rests=False)
    world.loop.advance(0)
    assert taken(quiet, RT) == 1


def test_posix_timer_restored_while_nobody_wants_its_signal_follows_the_wall_clock(
    world: World, quiet: Task
) -> None:
    timer = posix(quiet, CLOCK_REALTIME)
    timer.interval_ns = MS
    timer.restore(1, None, rests=True)
    steps = world.kernel.services.clock_steps
    assert timer._step is not None and timer._timer is None
    steps.notify(1)  # nothing is to be moved yet
    assert timer._timer is None


def test_posix_timer_set_again_forgets_its_queued_signal(world: World, quiet: Task) -> None:
    timer = posix(quiet)
    timer.set(10 * MS, 10 * MS, absolute=False)
    world.loop.advance(15 * MS)
    timer.set(0, 0, absolute=False)
    assert taken(quiet, RT) == 1
    world.loop.advance(100 * MS)
    assert taken(quiet, RT) == 0
    timer.set(0, 7 * MS, absolute=False)
    world.loop.advance(7 * MS)
    assert taken(quiet, RT) == 1


def test_posix_timer_whose_signal_is_ignored_does_not_busy_the_kernel(
    world: World, task: Task
) -> None:
    from sentry.kernel.signals import Action  # noqa: PLC0415

    task.group.actions[RT] = Action(1, 0, 0, 0)
    timer = posix(task)
    timer.set(1, 1, absolute=False)
    for _ in range(100):
        world.loop.advance(MS)
    assert 0 < world.loop.fired <= 11


def test_posix_timer_on_a_cpu_clock(world: World, quiet: Task) -> None:
    ctx: Any = quiet.ctx
    timer = posix(quiet, CpuClock(quiet.group, quiet, False))
    timer.set(0, 10 * MS, absolute=False)
    world.loop.advance(100 * MS)
    assert taken(quiet, RT) == 0
    ctx.cpu_ns = 10 * MS
    world.loop.advance(100 * MS)
    assert taken(quiet, RT) == 1


def test_others_have_their_turn_between_many_cpu_timers(world: World, quiet: Task) -> None:
    ctx: Any = quiet.ctx
    timers, count = timers_of(quiet.group).cpu, 5 * AT_ONCE + 1
    fired: list[int] = []
    turns: list[int] = []
    for at in range(count):
        clock = CpuClock(quiet.group, quiet, False)
        timers.arm(CpuTimer(clock, partial(fired.append, at)), 10 * MS + at)
    ctx.cpu_ns = 20 * MS

    def turn() -> None:
        if len(fired) < count:
            turns.append(len(fired))
            world.loop.call_soon(turn)

    world.loop.now += 20 * MS
    turn()
    world.loop.settle()
    assert fired == list(range(count))
    assert {after - before for before, after in pairwise(turns)} <= {0, AT_ONCE}


def test_many_cpu_timers_that_are_forgotten_go_one_by_one(
    world: World, quiet: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)  # a step does one thing
    timers, count = timers_of(quiet.group).cpu, 100
    ended: list[int] = []
    for number in range(count):
        whose: set[int] = set()
        finalize(whose, ended.append, number)
        timers.arm(CpuTimer(CpuClock(quiet.group, quiet, False), whose.clear), 10 * MS)
    del whose
    turns = [0]

    def turn() -> None:
        turns.append(len(ended))
        if len(ended) < count:
            world.loop.call_soon(turn)

    timers.cancel()
    turn()
    world.loop.settle()
    assert {after - before for before, after in pairwise(turns)} <= {0, 1}


def test_cpu_timers_that_are_set_again_are_sorted_out_in_steps_and_fire_once(
    world: World, quiet: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)  # a step does one piece
    ctx: Any = quiet.ctx
    timers, count = timers_of(quiet.group).cpu, 10 * AT_ONCE
    fired: list[int] = []
    made = [
        CpuTimer(CpuClock(quiet.group, quiet, False), partial(fired.append, number))
        for number in range(count)
    ]
    sizes: list[int] = []
    for at in (20, 15, 10):
        for timer in made:
            timers.arm(timer, at * MS)
            sizes.append(sum(map(len, timers._heaps.values())))
    assert max(sizes) <= 64 + 2 * count
    assert min(sizes[count:]) <= AT_ONCE + 1
    world.loop.settle()
    assert sum(map(len, timers._heaps.values())) < 2 * count
    ctx.cpu_ns = 30 * MS
    world.loop.advance(30 * MS)
    assert sorted(fired) == list(range(count))


def test_deleted_timer_gives_its_place_back(world: World, quiet: Task) -> None:
    world.kernel.services.signal_quota.take(0, 10)
    timer = posix(quiet)
    timer.set(0, 10 * MS, absolute=False)
    timer.delete()
    world.loop.advance(100 * MS)
    assert taken(quiet, RT) == 0
    assert world.kernel.services.signal_quota.of(0) == 0
    assert not quiet.group.posix_timers
