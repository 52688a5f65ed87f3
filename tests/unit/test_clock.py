"""The time that programs see: a line through the host's, timers in its order."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import pytest

from sentry.clock import FURTHEST_NS, MAX_NS, MAX_SPEED, ProgramClock, parts_of

S = 10**9


class Timer:
    def __init__(self, at_ns: int, callback: Callable[[], None]) -> None:
        self.at_ns = at_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """The host's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000 * S
        self.timers: list[Timer] = []

    def now_ns(self) -> int:
        return self.now

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(deadline_ns, callback))
        return self.timers[-1]

    def advance(self, ns: int) -> None:
        self.now += ns
        while due := [t for t in self.timers if t.callback is not None and t.at_ns <= self.now]:
            timer = min(due, key=lambda each: each.at_ns)
            callback, timer.callback = timer.callback, None
            assert callback is not None
            callback()
        self.timers = [t for t in self.timers if t.callback is not None]


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def clock(loop: Loop) -> ProgramClock:
    return ProgramClock(loop)


def test_clock_is_the_hosts_until_it_is_shaped(loop: Loop, clock: ProgramClock) -> None:
    assert clock.now_ns() == loop.now
    before = time.time_ns()
    assert before <= clock.wall_ns() <= time.time_ns()
    assert not clock.is_shaped


def test_frozen_clock_shows_one_time_and_fires_nothing(loop: Loop, clock: ProgramClock) -> None:
    fired: list[int] = []
    clock.call_at(loop.now + S, lambda: fired.append(1))
    clock.run_at(0)
    shown, wall = clock.now_ns(), clock.wall_ns()
    loop.advance(100 * S)
    assert (clock.now_ns(), clock.wall_ns()) == (shown, wall)
    assert not fired
    clock.run_at(1)
    loop.advance(S)
    assert fired == [1]


def test_speed_counts_for_what_is_shown_and_for_timers(loop: Loop, clock: ProgramClock) -> None:
    fired: list[int] = []
    clock.run_at(60)
    began = clock.now_ns()
    clock.call_at(began + 60 * S, lambda: fired.append(clock.now_ns() - began))
    loop.advance(S - 1)
    assert not fired
    loop.advance(1)
    assert fired == [60 * S]
    clock.run_at(0.5)
    loop.advance(2 * S)
    assert clock.now_ns() - began == 61 * S


def test_a_fast_clock_goes_no_further_than_any_deadline(loop: Loop, clock: ProgramClock) -> None:
    clock.run_at(MAX_SPEED)
    loop.advance((FURTHEST_NS - clock.now_ns()) // MAX_SPEED + 1)
    assert clock.speed == 1
    assert FURTHEST_NS <= clock.now_ns() < FURTHEST_NS + S
    for refused in (lambda: clock.run_at(2), lambda: clock.jump(1)):
        with pytest.raises(ValueError, match="no further than 70 years"):
            refused()
    before = clock.now_ns()
    loop.advance(S)
    assert clock.now_ns() - before == S


def test_who_was_stopped_for_long_shows_no_more_than_there_is(
    loop: Loop, clock: ProgramClock
) -> None:
    clock.run_at(MAX_SPEED)
    loop.advance(365 * 24 * 3600 * S)
    assert clock.speed == 1
    assert clock.now_ns() == MAX_NS


def test_who_slows_down_before_does_not_arrive(loop: Loop, clock: ProgramClock) -> None:
    clock.run_at(MAX_SPEED)
    clock.run_at(0.5)
    loop.advance(365 * 24 * 3600 * S)
    assert clock.speed == 0.5


def test_jump_makes_due_what_lies_before_in_its_order(loop: Loop, clock: ProgramClock) -> None:
    fired: list[str] = []
    clock.call_at(loop.now + 3 * S, lambda: fired.append("third"))
    clock.call_at(loop.now + S, lambda: fired.append("first"))
    clock.call_at(loop.now + 2 * S, lambda: fired.append("second")).cancel()
    clock.call_at(loop.now + 10 * S, lambda: fired.append("later"))
    clock.run_at(1)
    before, wall = clock.now_ns(), clock.wall_ns()
    clock.jump(5 * S)
    loop.advance(0)
    assert fired == ["first", "third"]
    assert clock.now_ns() - before == 5 * S
    assert clock.wall_ns() - wall == 5 * S
    assert clock.timers == 1


def test_wall_clock_is_set_by_itself_and_told_of(loop: Loop, clock: ProgramClock) -> None:
    told: list[bool] = []
    clock.was_set = lambda: told.append(True)
    clock.run_at(0)
    before = clock.now_ns()
    clock.set_wall(5 * S)
    assert (clock.wall_ns(), clock.now_ns()) == (5 * S, before)
    assert clock.distance_ns(time.CLOCK_REALTIME) == 5 * S - before
    assert told == [True]
    assert clock.shown_ns(time.CLOCK_MONOTONIC) == before
    assert clock.shown_ns(6) == before


def test_time_goes_neither_back_nor_too_far_nor_too_fast(clock: ProgramClock) -> None:
    for wrong in (-1, 1 << 62):
        with pytest.raises(ValueError, match="forward"):
            clock.jump(wrong)
    for speed in (-1, MAX_SPEED * 2, 1e-9, float("nan")):
        with pytest.raises(ValueError, match="speed"):
            clock.run_at(speed)
    with pytest.raises(ValueError, match="wall"):
        clock.set_wall(-1)
    assert not clock.is_shaped


@pytest.mark.parametrize("speed", [MAX_SPEED, 9999.999999, 5000.1234567, 4294.967296, 1e-6])
def test_speed_is_a_fraction_of_32_bits(clock: ProgramClock, speed: float) -> None:
    clock.run_at(speed)
    assert max(clock.parts) < 1 << 32
    assert clock.speed == pytest.approx(speed, rel=1e-9)


@pytest.mark.parametrize("most", [1, 2, 7, 1000, 429_496, 1_000_000])
def test_parts_are_those_of_the_nearest_fraction(most: int) -> None:
    speeds = [0, 1, 3, 0.5, 1 / 3, 0.1, 1e-6, 4e-7, 2.5, 0.875, 1.000001, 3.14159265, 9999.999999]
    for speed in speeds:
        nearest = Fraction(speed).limit_denominator(most)
        assert parts_of(speed, most) == (nearest.numerator, nearest.denominator)


def test_clock_that_nobody_corrects_does_not_go_back(
    clock: ProgramClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_ns = 7 * S
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5 * S)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: 5 * S + ahead_ns)
    clock.run_at(0)
    ahead_ns = 6 * S
    clock.host_was_set()
    assert clock.shown_ns(time.CLOCK_MONOTONIC_RAW) == clock.now_ns() + 7 * S


@pytest.mark.parametrize(
    ("speed", "is_set", "follows"), [(1, False, 1), (0, False, 0), (1, True, 0)]
)
def test_wall_clock_that_stands_still_or_was_set_is_not_the_hosts(
    clock: ProgramClock, monkeypatch: pytest.MonkeyPatch, speed: int, is_set: bool, follows: int
) -> None:
    ahead_ns = 7 * S
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5 * S)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: 5 * S + ahead_ns)
    clock.run_at(speed)
    if is_set:
        clock.set_wall(100 * S)
    before = clock.wall_ns()
    ahead_ns += 499_000
    clock.host_was_set()
    assert clock.wall_ns() - before == follows * 499_000


def test_clocks_of_ticks_do_not_go_back_when_a_line_begins(
    loop: Loop, clock: ProgramClock
) -> None:
    loop.now += 3_999_999
    clock.run_at(1)
    assert clock.shown_ns(6) == loop.now  # no host's shows more
    loop.advance(3_999_999)
    assert clock.shown_ns(6) == loop.now - 3_999_999
    shown = clock.shown_ns(6)
    clock.run_at(1)
    assert clock.shown_ns(6) >= shown


def test_what_programs_have_seen_is_the_least(loop: Loop, clock: ProgramClock) -> None:
    class Page:
        shown: tuple[int, int, int, int] | None = None

        def hold(self) -> int:
            return loop.now + 700

        def shape(self, line: tuple[int, int, int, int], offsets: tuple[int, int]) -> None:
            self.shown = line

    clock.shape = page = Page()
    clock.run_at(0)
    assert clock.now_ns() == loop.now + 700
    assert page.shown == (loop.now, loop.now + 700, 0, 1)


def test_timer_that_fails_keeps_no_other_from_firing(loop: Loop, clock: ProgramClock) -> None:
    def fails() -> None:
        raise OSError("a defect")

    fired: list[int] = []
    clock.call_at(loop.now + S, fails)
    clock.call_at(loop.now + S, lambda: fired.append(1))
    with pytest.raises(OSError, match="defect"):
        loop.advance(S)
    loop.advance(0)
    assert fired == [1]


def test_cancelled_timers_leave_nothing_behind(loop: Loop, clock: ProgramClock) -> None:
    timers = [clock.call_at(loop.now + S + number, lambda: None) for number in range(1000)]
    for timer in timers:
        timer.cancel()
        timer.cancel()
    assert clock.timers == 0
    loop.advance(2 * S)
    assert not loop.timers
