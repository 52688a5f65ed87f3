"""The kernel thread: exits, descriptors and timers in, tasks forward.

All kernel state belongs to the thread that runs `Loop.run`. The machine to wait on is any
`Machine`: a platform in a sandbox, `HostOnly` (poll(2)) in tests and tools without a guest.
"""

from __future__ import annotations

import select
import time
from _heapq import heapify, heappop, heappush
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from sentry.ahead import mypyc_attr
from sentry.clock import MAX_NS, ProgramClock
from sentry.wait.fiber import Done, Fiber

T = TypeVar("T")


class Exited(Protocol):
    """A context with an exit: its owner is told, and charged for what that takes (sys_time_ns)."""

    owner: Any


@mypyc_attr(allow_interpreted_subclasses=True)
class Charged:
    """Base of what fibers work for: their name, if it is charged for their time."""

    __slots__ = ("sys_time_ns", "used")

    sys_time_ns: int
    used: Any
    """Where it counts together with others, as `sys_ns`."""


class Machine(Protocol):
    """What the loop waits on."""

    @property
    def ready(self) -> list[tuple[int, int]]:
        """(descriptor, EPOLL* events) found ready by the last `wait`."""

    def wait(self, deadline_ns: int | None) -> Sequence[Exited]: ...
    def watch(self, fd: int, events: int) -> None: ...


DAY_S = 86_400.0


@mypyc_attr(allow_interpreted_subclasses=True)
class HostOnly:
    """A machine without a guest: descriptors and time alone."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self.ready: list[tuple[int, int]] = []

    def wait(self, deadline_ns: int | None) -> Sequence[Exited]:
        """Wait for a descriptor or the deadline, or for a day: epoll counts 24 of them at most."""
        left = DAY_S
        if deadline_ns is not None:
            left = min(left, max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        self.ready = self._epoll.poll(left)
        return ()

    def watch(self, fd: int, events: int) -> None:
        """Change what is watched on `fd`; 0 forgets it."""
        if not events:
            if fd in self._watched:
                self._watched.discard(fd)
                self._epoll.unregister(fd)
        elif fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._watched.add(fd)
            self._epoll.register(fd, events)


WORK = 32
REST_NS = 20_000_000
"""So long nothing happens before the loop calls itself idle."""
REST_SHARE = 20
"""And so many times as long as `on_idle` took the last time: on a busy machine programs wait for
a CPU, which looks like being idle, again and again."""


TURN_NS = 500_000
"""So long a turn goes on with timers, with callbacks, with fibers; then it looks at exits again."""

CROWD = 64
"""Fibers that are ready at a time; more wait in lines."""

PIECE = 64
"""So many of a crowd are told something between two looks at the time."""
PIECE_NS = 200_000
"""And for so long at a time, with few of them."""


class Timer:
    """A call at a time; `cancel` takes it back."""

    __slots__ = ("_loop", "callback", "deadline_ns")

    def __init__(self, loop: Loop, deadline_ns: int, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.deadline_ns = deadline_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call it; harmless afterwards."""
        if self.callback is not None:
            self.callback = None
            self._loop.timer_cancelled()


@mypyc_attr(allow_interpreted_subclasses=True)
class Loop:
    """Runs fibers, timers and the callbacks of descriptors; one per sandbox."""

    def __init__(self, machine: Machine, on_error: Callable[[object, BaseException], None]) -> None:
        self._machine = machine
        self._on_error = on_error
        self._ready: deque[Fiber] = deque()
        self._lines: dict[object, deque[Fiber]] = {}
        """More than that: a line for each of whom they work for, and the lines take turns."""
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._cancelled = 0
        self._sequence = 0
        self.programs = ProgramClock(self)
        """The time that programs see, and timers in it."""
        self.at_rest: Callable[[], None] | None = None
        """Called each time before it waits with nothing to do."""
        self._watches: dict[int, Callable[[int], None]] = {}
        self._fresh: set[int] = set()
        """Watched since the machine told what is ready, which meant what had the number before."""
        self._stopped = False
        self._rest_ns = REST_NS
        self._rest_at: int | None = None
        """When the loop is idle, unless something happens before; None: it is already."""
        self.on_idle: Callable[[], None] | None = None
        """Called once each time the loop has become idle: collecting, giving memory back."""
        self.on_work: Callable[[Sequence[Exited]], None] | None = None
        """Called every WORK exits, with the last ones: looks that are too dear for every one."""
        self.work_left = WORK
        """Exits until then; who is called may want the next look sooner."""
        self.step: object = None
        """Whose turn it is: a context with an exit, a fiber, a callback."""
        self.step_ns = 0
        """Since when (contexts with exits at a time have one time); 0: nobody's, the loop waits."""
        self.fibers = 0
        """How many spawned fibers have not ended (for leak checks)."""

    @property
    def timers(self) -> int:
        """How many calls are to come."""
        return sum(entry[2].callback is not None for entry in self._timers)

    @property
    def watches(self) -> int:
        """How many descriptors are watched."""
        return len(self._watches)

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def ready(self, fiber: Fiber) -> None:
        """Run this fiber soon."""
        if not self._lines and len(self._ready) < CROWD:
            self._ready.append(fiber)
        else:
            name = fiber.name
            owner = name.used if isinstance(name, Charged) else None
            self._lines.setdefault(owner, deque()).append(fiber)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call in the next turn."""
        self._soon.append(callback)

    def call_for_each(self, items: Iterable[T], act: Callable[[T], object]) -> None:
        """Call with one after the other: many are done in pieces, the first one now."""
        self._call_for_some(deque(items), act)

    def _call_for_some(self, waiting: deque[T], act: Callable[[T], object]) -> None:
        until_ns = time.monotonic_ns() + PIECE_NS
        while waiting:
            for _ in range(min(len(waiting), PIECE)):
                act(waiting.popleft())
            if time.monotonic_ns() >= until_ns:
                break
        if waiting:
            self.call_soon(lambda: self._call_for_some(waiting, act))

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once CLOCK_MONOTONIC has reached `deadline_ns`."""
        timer = Timer(self, deadline_ns, callback)
        self._sequence += 1
        heappush(self._timers, (deadline_ns, self._sequence, timer))
        return timer

    def wait_by(self, machine: Machine) -> None:
        """From now on: the same machine, or somebody who stands before it."""
        self._machine = machine

    def timer_cancelled(self) -> None:
        """A timer will not fire: when most of the heap is such, make it anew."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapify(self._timers)
            self._cancelled = 0

    def watch(self, fd: int, events: int, callback: Callable[[int], None] | None = None) -> None:
        """Call `callback(events)` while `fd` is ready for `events` (EPOLL*); 0 forgets it."""
        if events:
            if callback is not None:
                if fd not in self._watches:
                    self._fresh.add(fd)
                self._watches[fd] = callback
            self._machine.watch(fd, events)
        elif self._watches.pop(fd, None) is not None:
            self._machine.watch(fd, 0)

    def spawn(
        self,
        coro: Coroutine[Any, Any, Any],
        name: object,
        done: Done | None = None,
    ) -> Fiber:
        """Drive a coroutine; `done(result, exception)` at its end, else an exception is logged."""
        fiber = self.fiber(coro, name, done)
        self.ready(fiber)
        return fiber

    def fiber(
        self,
        coro: Coroutine[Any, Any, Any],
        name: object,
        done: Done | None = None,
    ) -> Fiber:
        """The same, but whoever calls begins to run it."""
        return Fiber(coro, self, name, done or partial(self._ended, name))

    def _ended(self, name: object, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._on_error(name, error)

    def stop(self) -> None:
        """`run` returns after this turn."""
        self._stopped = True

    def _first_timer(self) -> int | None:
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _fire_timers(self) -> None:
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            timer = heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._guard(callback)
                if self.step_ns >= now + TURN_NS:
                    return

    def _call_those_due(self) -> None:
        until_ns = time.monotonic_ns() + TURN_NS
        for _ in range(len(self._soon)):
            self._guard(self._soon.popleft())
            if self.step_ns >= until_ns:
                return

    def _guard(self, callback: Callable[..., object], *values: Any) -> None:
        self.step_ns = time.monotonic_ns()
        self.step = callback
        try:
            callback(*values)
        except Exception as error:
            self._on_error(getattr(callback, "__qualname__", "callback"), error)

    def turn(self) -> None:
        """Wait for something and handle it."""
        machine = self._machine
        deadline = rest_at = self._rest_at
        if self.at_rest is not None and not (self._ready or self._soon or self._lines):
            self._guard(self.at_rest)
            self.step_ns = 0  # waiting, and programs that unicorn runs meanwhile, are no part of it
        if self._ready or self._soon or self._lines:
            deadline = 0
        elif self._timers and (first := self._first_timer()) is not None:
            if not 0 <= first <= MAX_NS:  # machines count in 64 bits, and negative is for ever
                first = 0 if first < 0 else MAX_NS
            deadline = first if rest_at is None else min(first, rest_at)
        if self._fresh:
            self._fresh.clear()
        exited = machine.wait(deadline)
        if exited:
            self.step_ns = began_ns = time.monotonic_ns()
            for context in exited:
                self.step = context
                context.owner.on_exit(context)
            now_ns = time.monotonic_ns()
            if len(exited) == 1:
                owner = context.owner
                owner.sys_time_ns += now_ns - began_ns
                owner.used.sys_ns += now_ns - began_ns
            else:
                share_ns = (now_ns - began_ns) // len(exited)
                for context in exited:
                    owner = context.owner
                    owner.sys_time_ns += share_ns
                    owner.used.sys_ns += share_ns
            self._rest_at = now_ns + self._rest_ns
            self.work_left -= len(exited)
            if self.work_left <= 0:
                self.work_left = WORK
                if self.on_work is not None:
                    self._guard(self.on_work, exited)
        elif machine.ready:
            self._rest_at = time.monotonic_ns() + self._rest_ns
        elif deadline and rest_at is not None and time.monotonic_ns() >= rest_at:
            self._rest_at = None
            if self.on_idle is not None:
                began_ns = time.monotonic_ns()
                self._guard(self.on_idle)
                took_ns = time.monotonic_ns() - began_ns
                self._rest_ns = max(REST_NS, REST_SHARE * took_ns)
        if machine.ready:
            for fd, events in machine.ready:
                if (callback := self._watches.get(fd)) is not None and fd not in self._fresh:
                    self._guard(callback, events)
        if self._timers:
            self._fire_timers()
        if self._soon:
            self._call_those_due()
        if self._ready or self._lines:
            self._run_fibers()
        self.step_ns = 0

    def _run_fibers(self) -> None:
        """Give ready fibers their turn, and charge whoever they work for."""
        ready, lines, began_ns = self._ready, self._lines, time.monotonic_ns()
        until_ns = began_ns + TURN_NS
        left = len(ready)
        while left or lines:
            if left:
                left -= 1
                fiber = ready.popleft()
            else:
                fiber = self._next_in_line()
            self.step_ns = began_ns
            self.step = fiber
            try:
                fiber.run()
            except Exception as error:  # of whoever hears of its end
                self._on_error(fiber.name, error)
            now_ns = time.monotonic_ns()
            if isinstance(fiber.name, Charged):
                fiber.name.sys_time_ns += now_ns - began_ns
                fiber.name.used.sys_ns += now_ns - began_ns
            began_ns = now_ns
            if now_ns >= until_ns:
                return

    def _next_in_line(self) -> Fiber:
        owner = next(iter(self._lines))
        line = self._lines.pop(owner)
        fiber = line.popleft()
        if line:
            self._lines[owner] = line
        return fiber

    def run(self) -> None:
        """Turn until `stop`."""
        while not self._stopped:
            self.turn()
