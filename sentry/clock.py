"""`ProgramClock`: the time that programs see, and their timers.

It is the host's until somebody outside shapes it: makes it stand still, run at another speed, or go
on at once (`jump`). Then CLOCK_MONOTONIC is a line through a point, of the host's; all others keep
their distance to it, and the wall clock may be set besides. It never goes back. CPU clocks are not
of it, nor are deadlines towards the network, the Gofer and whoever controls the sandbox: these are
the loop's.

A moment inside is later than another whatever the line is. So timers have a queue of their own, in
that order, and the loop wakes the first: a change of the clock arms one timer anew.
"""

from __future__ import annotations

import time
from _heapq import heapify, heappop, heappush
from collections.abc import Callable
from typing import Any, Final, Protocol

from sentry.ahead import mypyc_attr

MAX_NS: Final = 1 << 62
"""Later than anybody will wait: deadlines are cut to it (KTIME_MAX)."""
FURTHEST_NS: Final = MAX_NS // 2
"""No shape takes CLOCK_MONOTONIC further; a fast clock goes on as the host's from there."""
MAX_SPEED: Final = 10_000
PRECISION: Final = 1_000_000
"""The least speed is one part of this."""
MAX_PART: Final = (1 << 32) - 1
TURN_NS: Final = 500_000
"""So long timers that are due are called at a time."""
COARSE_NS: Final = 4_000_000
COARSE: Final = {5: time.CLOCK_REALTIME, 6: time.CLOCK_MONOTONIC}
"""CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE: which clock they are, by ticks."""
WALL: Final = (time.CLOCK_REALTIME, time.CLOCK_TAI)
STEADY: Final = (1, 1)


def parts_of(speed: float, most: int) -> tuple[int, int]:
    """The nearest fraction whose denominator is at most so much: its last convergent, or what lies
    between that and the next one. As Fraction.limit_denominator, whose module would take 0.3 MiB.
    """
    whole, parts = speed.as_integer_ratio()
    if parts <= most:
        return whole, parts
    (above, below), (last, of) = (0, 1), (1, 0)
    rest, by = whole, parts
    while below + rest // by * of <= most:
        times = rest // by
        above, below, last, of = last, of, above + times * last, below + times * of
        rest, by = by, rest - times * by
    times = (most - below) // of
    above, below = above + times * last, below + times * of
    return (last, of) if 2 * by * below <= parts else (above, below)


class Waking(Protocol):
    """What is needed of the loop."""

    def now_ns(self) -> int: ...
    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Any: ...


class Shape(Protocol):
    """Who shows programs the time without a call: sentry.platform.vdso."""

    def hold(self) -> int: ...
    def shape(self, line: tuple[int, int, int, int], offsets: tuple[int, int]) -> None: ...


class ProgramTimer:
    """A call at a time of programs; `cancel` takes it back."""

    __slots__ = ("_clock", "callback", "deadline_ns")

    def __init__(
        self, clock: ProgramClock, deadline_ns: int, callback: Callable[[], None]
    ) -> None:
        self._clock = clock
        self.deadline_ns = deadline_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call it; harmless afterwards."""
        if self.callback is not None:
            self.callback = None
            self._clock.timer_cancelled()


@mypyc_attr(allow_interpreted_subclasses=True)
class ProgramClock:
    """One of a sandbox: `loop.programs`. All times in ns."""

    def __init__(self, loop: Waking) -> None:
        self._loop = loop
        self.is_shaped = False
        """It is not the host's."""
        self._host_ns = self._base_ns = 0
        """A point of the line: CLOCK_MONOTONIC of the host, and inside."""
        self._speed: tuple[int, int] = STEADY
        self._offsets: dict[int, int] = {}
        """Of clocks of the host, by id: what they show less CLOCK_MONOTONIC, as it was lately."""
        self._set_ns = 0
        """By how much the wall clock was set."""
        self._timers: list[tuple[int, int, ProgramTimer]] = []
        self._sequence = self._cancelled = 0
        self._alarm: Any = None
        """The loop's timer for the first of them, and for when that is."""
        self._alarm_ns = 0
        self._arrival: Any = None
        """The loop's timer for when a fast clock has come as far as it may."""
        self.shape: Shape | None = None
        self.was_set: Callable[[], object] | None = None
        """To be called when the wall clock has changed beside CLOCK_MONOTONIC."""

    # Showing -------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC inside."""
        host_ns = self._loop.now_ns()
        return self._inside(host_ns) if self.is_shaped else host_ns

    def wall_ns(self) -> int:
        """CLOCK_REALTIME inside."""
        if not self.is_shaped:
            return time.time_ns()
        return self.shown_ns(time.CLOCK_REALTIME)

    def shown_ns(self, clock: int) -> int:
        """What a clock of the host's shows inside, by the host's number of it."""
        if not self.is_shaped:
            return time.clock_gettime_ns(clock)
        now_ns = self.now_ns()
        if clock in COARSE:
            clock = COARSE[clock]
            now_ns -= (now_ns - self._base_ns) % COARSE_NS  # never back where a line begins
        return now_ns + self._offset(clock)

    def distance_ns(self, clock: int) -> int:
        """What a clock shows less CLOCK_MONOTONIC, inside."""
        if self.is_shaped or clock == time.CLOCK_MONOTONIC:
            return self._offset(clock)
        return time.clock_gettime_ns(clock) - time.monotonic_ns()

    def _offset(self, clock: int) -> int:
        if clock == time.CLOCK_MONOTONIC:
            return 0
        offset_ns = self._offsets.get(clock)
        if offset_ns is None:
            offset_ns = time.clock_gettime_ns(clock) - time.monotonic_ns()
            self._offsets[clock] = offset_ns
        return offset_ns + (self._set_ns if clock in WALL else 0)

    def _inside(self, host_ns: int) -> int:
        inside, outside = self._speed
        gone_ns = (host_ns - self._host_ns) * inside // outside
        return min(self._base_ns + gone_ns, MAX_NS)

    def _outside(self, at_ns: int) -> int | None:
        """When it will be so late, on the host's clock; None: not as things are."""
        if not self.is_shaped:
            return at_ns
        inside, outside = self._speed
        if not inside:
            return self._host_ns if at_ns <= self._base_ns else None
        ahead = -((self._base_ns - at_ns) * outside // inside)
        return min(self._host_ns + ahead, MAX_NS)

    # Timers --------------------------------------------------------------------------------------

    @property
    def timers(self) -> int:
        """How many calls are to come."""
        return len(self._timers) - self._cancelled

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> ProgramTimer:
        """Call once CLOCK_MONOTONIC inside has reached `deadline_ns`."""
        timer = ProgramTimer(self, deadline_ns, callback)
        self._sequence += 1
        heappush(self._timers, (deadline_ns, self._sequence, timer))
        if self._alarm is None or deadline_ns < self._alarm_ns:
            self._arm()
        return timer

    def timer_cancelled(self) -> None:
        """A timer will not fire: when most of the queue is such, make it anew."""
        self._cancelled += 1
        if self._cancelled == len(self._timers) or (
            self._cancelled > 64 and self._cancelled * 2 > len(self._timers)
        ):
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapify(self._timers)
            self._cancelled = 0
            if not self._timers:
                self._arm()

    def first_ns(self) -> int | None:
        """When the first one is due."""
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0][0] if self._timers else None

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        first_ns = self.first_ns()
        if first_ns is None:
            return
        at_ns = self._outside(first_ns)
        if at_ns is not None:
            self._alarm_ns = first_ns
            self._alarm = self._loop.call_at(at_ns, self._fire)

    def _fire(self) -> None:
        self._alarm = None
        began_ns, now_ns = time.monotonic_ns(), self.now_ns()
        try:
            while self._timers and self._timers[0][0] <= now_ns:
                timer = heappop(self._timers)[2]
                callback, timer.callback = timer.callback, None
                if callback is None:
                    self._cancelled -= 1
                    continue
                callback()
                if time.monotonic_ns() - began_ns >= TURN_NS:
                    break
        finally:
            if self._alarm is None:
                self._arm()

    # Shaping -------------------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """How many seconds go by in one of the host's; 0: it stands still."""
        return self._speed[0] / self._speed[1]

    @property
    def parts(self) -> tuple[int, int]:
        """So many ns go by in so many of the host's."""
        return self._speed

    def run_at(self, speed: float) -> None:
        """From now on. Raises: ValueError."""
        if not 0 <= speed <= MAX_SPEED:
            raise ValueError(f"a speed is 0 to {MAX_SPEED}")
        if speed > 1:
            self.check(0)
        # Both of the fraction have 32 bits: guest_stubs/clock_page.h is made of them.
        given = parts_of(speed, min(PRECISION, MAX_PART // (int(speed) + 1)))
        if speed and not given[0]:
            raise ValueError(f"the least speed but 0 is 1/{PRECISION}")
        self._begin(0, given)

    def jump(self, by_ns: int) -> None:
        """So much time has gone by at once. Raises: ValueError."""
        self.check(by_ns)
        self._begin(by_ns, self._speed)

    def check(self, by_ns: int) -> None:
        """Whether so much time may go by. Raises: ValueError."""
        if by_ns < 0 or self.now_ns() + by_ns >= FURTHEST_NS:
            raise ValueError("time goes forward, and no further than 70 years from the host's boot")

    def set_wall(self, at_ns: int) -> None:
        """CLOCK_REALTIME is so late; only that. Raises: ValueError."""
        if not 0 <= at_ns < MAX_NS:
            raise ValueError("the wall clock shows 1970 to 2116")
        self._begin(0, self._speed)
        self._set_ns += at_ns - self.wall_ns()
        self._show()
        if self.was_set is not None:
            self.was_set()

    def host_was_set(self) -> None:
        """Somebody has set the host's wall clock, or corrects it by steps: so is the one inside,
        unless that stands still, or was set itself."""
        if self.is_shaped:
            if self._speed[0]:
                for clock in (*(() if self._set_ns else WALL), time.CLOCK_BOOTTIME):
                    self._offsets.pop(clock, None)
            self._show()

    def _begin(self, by_ns: int, speed: tuple[int, int]) -> None:
        host_ns = self._loop.now_ns()
        now_ns = self._inside(host_ns) if self.is_shaped else host_ns
        if self.shape is not None:
            now_ns = max(now_ns, self.shape.hold())
        self._offset(time.CLOCK_MONOTONIC_RAW)  # the host corrects the other one: as it is now
        self._host_ns, self._base_ns, self._speed = host_ns, now_ns + by_ns, speed
        self.is_shaped = True
        self._show()
        self._arm()
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        at_ns = self._outside(FURTHEST_NS)
        if speed[0] > speed[1] and at_ns is not None:
            self._arrival = self._loop.call_at(at_ns, self._arrive)

    def _arrive(self) -> None:
        self._begin(0, STEADY)

    def _show(self) -> None:
        if self.shape is not None:
            line = self._host_ns, self._base_ns, *self._speed
            offsets = self._offset(time.CLOCK_REALTIME), self._offset(time.CLOCK_BOOTTIME)
            self.shape.shape(line, offsets)
