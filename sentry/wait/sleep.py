"""Sleep and try again: the same attempt, as often as it is woken.

A handler that has to wait for an event gives back a `Sleep`, as the rest of its call: `Retry` for
one queue, `Until` for several, or a subclass of its room. It is a coroutine (it can be awaited,
sent to, thrown into), but the dispatch lets it be its own fiber, and then a sleep takes no
coroutine: a fifth of the time that Python spends on a byte through a pipe and back went to those.
`until` is the same inside a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from sentry.ahead import mypyc_attr
from sentry.errors import EAGAIN, Errno
from sentry.wait.again import Call, NotNow, finished
from sentry.wait.fiber import (
    Clock,
    Done,
    Fiber,
    Interrupted,
    Mode,
    RestartNoHand,
    TimedOut,
    loosen,
    park,
    this_fiber,
)
from sentry.wait.queue import ALL, Entry, WaitQueue

After = Callable[[Any], Any]
End = Callable[[Callable[[], Any]], Any]

INTERRUPTIBLE = Mode.INTERRUPTIBLE


class Held(Protocol):
    """What must not go away meanwhile: a file description."""

    refs: int

    def decref(self) -> None: ...
    def let_go(self) -> None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Sleep(Fiber):
    """A sleep that ends with an attempt. Subclasses give what it consists of."""

    __slots__ = ("_after", "_end_by", "_inner", "deadline_ns", "in_program_time")

    ended_by: Mode = INTERRUPTIBLE
    """What may end it besides a wake."""
    goes_on: ClassVar = False
    """An attempt that raises NotNow is made again by itself: what the sleep has done by then, and
    the file that it is about, stay. Else the whole call is made again."""

    def __init__(self, deadline_ns: int | None = None, in_program_time: bool = False) -> None:
        self.deadline_ns = deadline_ns
        """CLOCK_MONOTONIC."""
        self.in_program_time = in_program_time
        """As programs see it: sentry.clock."""
        self._after: After | None = None
        self._end_by: End | None = None
        self._inner: Coroutine[Any, Any, Any] | None = None

    def enter(self, fiber: Fiber) -> None:
        """Have `fiber` woken from now on."""
        raise NotImplementedError

    def attempt(self) -> Any:
        """The result. Raises: EAGAIN, to sleep on."""
        raise NotImplementedError

    def leave(self) -> None:
        """However it ended, nobody need wake the fiber any more."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> Any:
        """The result after TimedOut, Interrupted, or what `attempt` has raised; or it raises."""
        raise error

    def hold(self, call: Call) -> None:
        """What it uses stays in use for a call that waits for something else meanwhile."""

    def once_more(self) -> Any:
        """One more attempt, where something had to be fetched: the result, or the sleep itself."""
        result: Any = None
        failure, self._exception = self._exception, None
        if failure is None:
            try:
                result = self.attempt()
            except EAGAIN:
                return self
            except NotNow as need:
                self._goes_on_after(need)
                raise
            except BaseException as error:
                failure = error
        try:
            if self._end_by is None:
                return self._finish(result, failure)
            return self._end_by(partial(self._finish, result, failure))
        finally:
            failure = None  # which holds this frame by its traceback

    def timed_by_programs(self) -> Sleep:
        """The same, with its deadline on the clock that programs see."""
        self.in_program_time = True
        return self

    def then(self, after: After) -> Sleep:
        """The same, whose result is what `after` makes of the result."""
        before, end_by = self._after, self._end_by
        if end_by is not None:
            self._end_by = lambda finish: after(end_by(finish))
        else:
            self._after = after if before is None else lambda result: after(before(result))
        return self

    def ended(self, by: End) -> Sleep:
        """The same, with another end: `by` is given what gives the result, or raises the error."""
        inner = self._end_by
        self._end_by = by if inner is None else lambda finish: by(lambda: inner(finish))
        return self

    def _finish(self, result: Any, error: BaseException | None) -> Any:
        if error is not None:
            result = self.failed(error)
        return result if self._after is None else self._after(result)

    # --- as its own fiber

    def begin(self, clock: Clock, name: object, done: Done) -> None:
        """Go to sleep; the attempt has failed just now."""
        clock.fibers += 1
        self._clock = clock
        self._done = done
        self._exception = self._late = self._timer = self._value = None
        self.mode = self.ended_by
        self.name = name
        self.since_ns = clock.step_ns
        self.woken = False
        self.enter(self)
        self._fall_asleep()

    def _fall_asleep(self) -> None:
        self._parked = True
        if self.deadline_ns is not None:
            times = self._clock.programs if self.in_program_time else self._clock
            self._timer = times.call_at(self.deadline_ns, self._expire)

    def run(self) -> None:
        """Try again. Called by the loop."""
        error, self._exception = self._exception, None
        result: Any = None
        if error is None and self._value is False:
            error = TimedOut()
        while error is None:
            self.woken = False
            try:
                result = self.attempt()
            except EAGAIN:
                if self.woken:
                    continue
                if self._late is None or self.mode < self._late[1]:
                    self._fall_asleep()
                    return
                error = self._late[0]
            except NotNow as need:
                if self.goes_on:
                    self._fetch(need)
                    return
                error = need
            except BaseException as raised:
                error = raised
            else:
                break
        try:
            self.leave()
            if self._end_by is not None:
                result = self._end_by(partial(self._finish, result, error))
            else:
                if error is not None:
                    result = self.failed(error)
                if self._after is not None:
                    result = self._after(result)
        except BaseException as raised:
            self._end(None, raised)
            loosen(raised)
        else:
            self._end(result, None)
            loosen(error)

    def _fetch(self, need: NotNow) -> None:
        """The call goes on with this sleep when what is missing is there."""
        self._goes_on_after(need)
        self.hold(need.call)
        self.leave()
        self._end(None, need)
        loosen(need)

    def _goes_on_after(self, need: NotNow) -> None:
        need.attempt = self.once_more
        need.wait = partial(self._fetched, need.wait)

    async def _fetched(self, wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await wait()
        except (Errno, Interrupted) as error:  # which end the sleep as any other attempt's do
            self._exception = error.with_traceback(None)

    # --- as a coroutine

    async def _run(self) -> Any:
        result: Any = None
        failure: BaseException | None = None
        self.enter(await this_fiber())
        try:
            while True:
                missing: NotNow | None = None
                try:
                    result = self.attempt()
                    break
                except EAGAIN:
                    pass
                except NotNow as need:
                    if not self.goes_on:
                        raise
                    missing = need.with_traceback(None)
                if missing is not None:
                    try:
                        result = await finished(missing, self.attempt)
                        break
                    except EAGAIN:
                        pass
                if not await park(self.ended_by, self.deadline_ns, self.in_program_time):
                    raise TimedOut
        except BaseException as error:
            failure = error
        try:
            self.leave()
            if self._end_by is None:
                return self._finish(result, failure)
            return self._end_by(partial(self._finish, result, failure))
        finally:
            failure = None  # which holds this frame by its traceback

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run().__await__()

    def send(self, value: Any) -> Any:
        """Go on."""
        if self._inner is None:
            self._inner = self._run()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an exception."""
        if self._inner is None:
            self._inner = self._run()
        return self._inner.throw(*error)

    def close(self) -> None:
        """Never mind."""
        if self._inner is not None:
            self._inner.close()


@mypyc_attr(allow_interpreted_subclasses=True)
class Retry(Sleep):
    """Asleep on one wait queue; as its own fiber it is its registration there, too."""

    __slots__ = ("_attempt", "_entry", "_held", "_queue", "exclusive", "mask")
    _entry: Entry | None
    goes_on: ClassVar = True

    def __init__(
        self,
        attempt: Callable[[], Any],
        queue: WaitQueue,
        events: int,
        held: Held,
        *,
        deadline_ns: int | None = None,
        exclusive: bool = False,
    ) -> None:
        self.deadline_ns = deadline_ns  # what Sleep.__init__ does, without the call
        self.in_program_time = False
        self._after = self._end_by = self._inner = None
        self._attempt = attempt
        self._queue = queue
        self._held = held
        self.mask = events
        self.exclusive = exclusive

    def hold(self, call: Call) -> None:
        """The file."""
        call.hold_files(self._held)

    def callback(self, events: int) -> bool:
        """What it waits for may be there."""
        return self.wake(events)

    def attempt(self) -> Any:
        """Once more."""
        return self._attempt()

    def enter(self, fiber: Fiber) -> None:
        """On the queue, with a use of the file."""
        self._held.refs += 1
        if fiber is self:
            self._entry = None
            self._queue.enter(self)
        else:
            self._entry = self._queue.add(fiber.wake, self.mask, exclusive=self.exclusive)

    def leave(self) -> None:
        """Off the queue."""
        self._queue.remove(self._entry or self)
        self._held.decref()


@mypyc_attr(allow_interpreted_subclasses=True)
class Until(Sleep):
    """Asleep on any number of wait queues, or with a mode of its own."""

    __slots__ = (
        "_attempt", "_entries", "_events", "_exclusive", "_held", "_queues", "_tried", "ended_by",
    )  # fmt: skip
    ended_by: Mode

    def __init__(
        self,
        attempt: Callable[[], Any],
        queues: Iterable[WaitQueue],
        events: int,
        deadline_ns: int | None,
        ended_by: Mode,
        exclusive: bool,
    ) -> None:
        super().__init__(deadline_ns)
        self._attempt = attempt
        self._held: Iterable[Held] = ()
        self._tried = False
        self._queues = queues
        self._events = events
        self._exclusive = exclusive
        self.ended_by = ended_by

    def tried(self, held: Iterable[Held] = ()) -> Until:
        """The same, whose attempt has failed just now; it uses these files."""
        self._held, self._tried = held, True
        return self

    def attempt(self) -> Any:
        """Once more."""
        return self._attempt()

    def enter(self, fiber: Fiber) -> None:
        """On the queues, with a use of the files."""
        for file in self._held:
            file.refs += 1
        events, exclusive = self._events, self._exclusive
        self._entries = [(q, q.add(fiber.wake, events, exclusive=exclusive)) for q in self._queues]

    def leave(self) -> None:
        """Off the queues."""
        for queue, entry in self._entries:
            queue.remove(entry)
        self._entries = []
        for file in self._held:
            file.decref()

    def begin(self, clock: Clock, name: object, done: Done) -> None:
        """Try, unless that was done, then go to sleep."""
        super().begin(clock, name, done)
        if not self._tried:
            self.wake()


def until(
    attempt: Callable[[], Any],
    queues: Iterable[WaitQueue],
    events: int = ALL,
    *,
    mode: Mode = INTERRUPTIBLE,
    deadline_ns: int | None = None,
    exclusive: bool = False,
) -> Until:
    """Call `attempt` until it does not raise EAGAIN, asleep on the queues in between.

    Raises: TimedOut at the deadline (CLOCK_MONOTONIC), Interrupted, Killed, what `attempt` raises.
    """
    return Until(attempt, queues, events, deadline_ns, mode, exclusive)


def never() -> Any:
    """The attempt of who only waits for a signal or a deadline, or has a method for it."""
    raise EAGAIN


def now_or_later(
    attempt: Callable[[], Any],
    queues: Iterable[WaitQueue],
    events: int = ALL,
    *,
    deadline_ns: int | None = None,
    held: Iterable[Held] = (),
) -> Any:
    """What `attempt` gives, or the sleep till it does not raise EAGAIN; the files stay in use."""
    try:
        return attempt()
    except EAGAIN:
        return until(attempt, queues, events, deadline_ns=deadline_ns).tried(held)


def continued(result: Any, after: After) -> Any:
    """A result, or the rest of a call that gives it, as what `after` makes of it."""
    if isinstance(result, Sleep):
        return result.then(after)
    if result is None or result.__class__ is int or not hasattr(result, "__await__"):
        return after(result)
    return _continued(result, after)


def ended(call: Callable[[], Any], by: End) -> Any:
    """Make a call that is plain or gives back a `Sleep`; `by` has its end (`Sleep.ended`)."""
    result: Any = None
    error: BaseException | None = None
    try:
        result = call()
    except BaseException as raised:
        error = raised
    if isinstance(result, Sleep):
        return result.ended(by)

    def finish() -> Any:
        if error is not None:
            raise error
        return result

    try:
        return by(finish)
    finally:
        error = None


def instead(error: type[BaseException], give: Callable[[], Any]) -> End:
    """An end: what `give` makes in place of an error, the result or another error."""

    def end(finish: Callable[[], Any]) -> Any:
        try:
            return finish()
        except error:
            given = give()
        if isinstance(given, BaseException):
            raise given
        return given

    return end


no_hand: Final = instead(Interrupted, RestartNoHand)
"""An end: what a signal ends is restarted only if no handler runs."""


async def _continued(rest: Coroutine[Any, Any, Any], after: After) -> Any:
    return after(await rest)
