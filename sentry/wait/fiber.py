"""Coroutines of the kernel and how they sleep.

A `Fiber` drives one coroutine. The coroutine sleeps by `await park(…)` and is put on the ready list
by `wake`. A signal is thrown in by `interrupt` if the sleep allows it; a wake that came first wins.
Everything happens on the kernel thread, so code between two awaits is atomic.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from enum import IntEnum
from typing import Any, Protocol

from sentry.ahead import mypyc_attr


class Mode(IntEnum):
    """What may end a sleep besides `wake`: the three sleeps of Linux."""

    UNINTERRUPTIBLE = 0
    KILLABLE = 1
    INTERRUPTIBLE = 2


class Interrupted(Exception):
    """A signal ended a sleep. Left alone: ERESTARTSYS, restart if the handler has SA_RESTART."""


class RestartNoHand(Exception):
    """ERESTARTNOHAND: restart only if no handler runs, else EINTR."""


class RestartNoIntr(Exception):
    """ERESTARTNOINTR: always restart."""


class RestartBlock(Exception):
    """ERESTART_RESTARTBLOCK: if no handler runs, restart_syscall(2) calls `again`; else EINTR."""

    def __init__(self, again: Callable[[], Any]) -> None:
        super().__init__()
        self.again = again


class Killed(BaseException):
    """The task is dying; unwinds everything, `except Exception` does not hold it."""


def loosen(error: BaseException | None) -> None:
    """Of an exception that is over: the frames of its traceback hold it, and it holds them."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class TimedOut(Exception):
    """The deadline of a sleep passed."""


class Timer(Protocol):
    """A pending call of the loop."""

    def cancel(self) -> None: ...


class Times(Protocol):
    """A clock that calls."""

    def now_ns(self) -> int: ...
    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer: ...


class Clock(Protocol):
    """What a fiber needs of the loop."""

    fibers: int
    """How many have not ended."""
    step_ns: int
    """Since when the present step goes on."""

    @property
    def programs(self) -> Times:
        """The time that programs see."""
        ...

    def now_ns(self) -> int: ...
    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer: ...
    def ready(self, fiber: Fiber) -> None: ...


class _Park:
    """The request to sleep that a coroutine yields to its fiber."""

    __slots__ = ("deadline_ns", "in_program_time", "mode")

    def __init__(
        self, mode: Mode, deadline_ns: int | None, in_program_time: bool = False
    ) -> None:
        self.mode = mode
        self.deadline_ns = deadline_ns
        self.in_program_time = in_program_time

    def __await__(self) -> Generator[_Park, bool, bool]:
        return (yield self)


class _ThisFiber:
    __slots__ = ()

    def __await__(self) -> Generator[_ThisFiber, Fiber, Fiber]:
        return (yield self)


_THIS = _ThisFiber()


def this_fiber() -> _ThisFiber:
    """`await this_fiber()`: the fiber that runs the calling coroutine. Never sleeps."""
    return _THIS


def park(
    mode: Mode = Mode.INTERRUPTIBLE,
    deadline_ns: int | None = None,
    in_program_time: bool = False,
) -> _Park:
    """`await park(…)`: sleep. True when woken, False when the deadline (CLOCK_MONOTONIC) passed.

    `in_program_time`: on the clock that programs see, which may be another one than the host's.

    Raises: Interrupted, Killed, as the mode allows.
    """
    return _Park(mode, deadline_ns, in_program_time)


Done = Callable[[Any, BaseException | None], None]
"""Hears of a fiber's end: (result, exception)."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Fiber:
    """Drives a coroutine to its end and hands over what came of it."""

    __slots__ = (
        "_clock",
        "_coro",
        "_done",
        "_exception",
        "_late",
        "_parked",
        "_timer",
        "_value",
        "mode",
        "name",
        "since_ns",
        "woken",
    )

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        clock: Clock,
        name: object,
        done: Done,
    ) -> None:
        clock.fibers += 1
        self._coro = coro
        self._clock = clock
        self._done = done
        self._exception: BaseException | None = None
        self._late: tuple[BaseException, Mode] | None = None
        self._parked = False
        self._timer: Timer | None = None
        self._value: bool | None = None
        self.mode = Mode.UNINTERRUPTIBLE
        self.name = name
        self.since_ns = clock.step_ns
        """When it began; 0: before the first step of the loop."""
        self.woken = False

    @property
    def coro(self) -> Coroutine[Any, Any, Any]:
        """What it drives, for whoever looks where it is."""
        return self._coro

    @property
    def parked(self) -> bool:
        """Asleep, with no wake on its way."""
        return self._parked

    def wake(self, _events: int = 0) -> bool:
        """End the sleep, or the next one if the coroutine is running.

        False: something else has ended the sleep already, an earlier wake for one.
        """
        if self.woken:
            return False
        self.woken = True
        if self._parked:
            self._unpark()
            return True
        return self._exception is None and self._value is not False

    def interrupt(self, exception: BaseException, mode: Mode = Mode.INTERRUPTIBLE) -> bool:
        """Throw into the sleep if its mode is at least `mode`; says whether it was asleep so.

        Else the next sleep of such a mode ends at once, as signal_pending() ends it in Linux.
        """
        if not self._parked or self.mode < mode or self.woken:
            if self._late is None or mode <= self._late[1]:
                self._late = exception, mode
            return False
        self._exception = exception
        self._unpark()
        return True

    def _expire(self) -> None:
        if self._parked and not self.woken:
            self._value = False
            self._unpark()

    def _unpark(self) -> None:
        self._parked = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._clock.ready(self)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._clock.fibers -= 1
        self._done(result, error)

    def run(self) -> None:
        """Go on until the next sleep or the end. Called by the loop."""
        coro = self._coro
        try:
            if self._exception is not None:
                exception, self._exception = self._exception, None
                request = coro.throw(exception)
            else:
                value, self._value = self._value, True
                self.woken = False
                request = coro.send(value)
            while True:
                if request is _THIS:
                    request = coro.send(self)
                elif self.woken:
                    self.woken = False
                    request = coro.send(True)
                elif self._late is not None and request.mode >= self._late[1]:
                    (exception, _), self._late = self._late, None
                    request = coro.throw(exception)
                else:
                    break
        except StopIteration as end:
            self._end(end.value, None)
            return
        except BaseException as error:
            self._end(None, error)
            loosen(error)
            return
        self.mode = request.mode
        self._parked = True
        if request.deadline_ns is not None:
            times = self._clock.programs if request.in_program_time else self._clock
            self._timer = times.call_at(request.deadline_ns, self._expire)
