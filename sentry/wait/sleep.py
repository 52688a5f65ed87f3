"""Sleep and try again: the same attempt, as often as it is woken.

A handler that has to wait for an event gives back a `Sleep`, as the rest of its call: `Retry` for
one queue, `Until` for several, or a subclass of its room. It is a coroutine (it can be awaited,
sent to, thrown into), but the dispatch lets it be its own fiber, and then a sleep takes no
coroutine: a fifth of the time that Python spends on a byte through a pipe and back went to those.
`until` is the same inside a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sentry.errors import EAGAIN
from sentry.wait.fiber import Clock, Done, Fiber, Mode, TimedOut, park, this_fiber
from sentry.wait.queue import ALL, Entry, WaitQueue

T = TypeVar("T")
After = Callable[[Any], Any]
if TYPE_CHECKING:
    _Coroutine = Coroutine[Any, Any, Any]
else:
    _Coroutine = object
    """`isinstance` takes ten times as long for classes that inherit from an ABC, and asks the ABC
    itself for its methods."""


INTERRUPTIBLE = Mode.INTERRUPTIBLE


class Held(Protocol):
    """What must not go away meanwhile: a file description."""

    refs: int

    def decref(self) -> None: ...


class Sleep(Fiber, _Coroutine):
    """A sleep that ends with an attempt. Subclasses give what it consists of."""

    __slots__ = ("_after", "_inner", "deadline_ns")

    ended_by = INTERRUPTIBLE
    """What may end it besides a wake."""

    def __init__(self, deadline_ns: int | None = None) -> None:
        self.deadline_ns = deadline_ns
        """CLOCK_MONOTONIC."""
        self._after: After | None = None
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

    def then(self, after: After) -> Sleep:
        """The same, whose result is what `after` makes of the result."""
        before = self._after
        self._after = after if before is None else lambda result: after(before(result))
        return self

    # --- as its own fiber

    def begin(self, clock: Clock, name: object, done: Done) -> None:
        """Go to sleep; the attempt has failed just now."""
        clock.fibers += 1
        self._clock = clock
        self._done = done
        self._exception = self._late = self._timer = self._value = None
        self.mode = self.ended_by
        self.name = name
        self.woken = False
        self.enter(self)
        self._fall_asleep()

    def _fall_asleep(self) -> None:
        self._parked = True
        if self.deadline_ns is not None:
            self._timer = self._clock.call_at(self.deadline_ns, self._expire)

    def run(self) -> None:
        """Try again. Called by the loop."""
        error, self._exception = self._exception, None
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
            except BaseException as raised:
                error = raised
            else:
                break
        try:
            self.leave()
            if error is not None:
                result = self.failed(error)
            if self._after is not None:
                result = self._after(result)
        except BaseException as raised:
            self._end(None, raised)
        else:
            self._end(result, None)

    # --- as a coroutine

    async def _run(self) -> Any:
        self.enter(await this_fiber())
        try:
            while True:
                try:
                    result = self.attempt()
                    break
                except EAGAIN:
                    pass
                if not await park(self.ended_by, self.deadline_ns):
                    raise TimedOut
        except BaseException as error:
            self.leave()
            result = self.failed(error)
        else:
            self.leave()
        return result if self._after is None else self._after(result)

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


class Retry(Sleep):
    """Asleep on one wait queue; as its own fiber it is its registration there, too."""

    __slots__ = ("_attempt", "_entry", "_held", "_queue", "exclusive", "mask")
    callback = Fiber.wake
    _entry: Entry | None

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
        self._after = self._inner = None
        self._attempt = attempt
        self._queue = queue
        self._held = held
        self.mask = events
        self.exclusive = exclusive

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


class Until(Sleep):
    """Asleep on several wait queues, or with a mode of its own; the first attempt is its, too."""

    __slots__ = ("_attempt", "_entries", "_events", "_exclusive", "_queues", "ended_by")
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
        self._queues = queues
        self._events = events
        self._exclusive = exclusive
        self.ended_by = ended_by

    def attempt(self) -> Any:
        """Once more."""
        return self._attempt()

    def enter(self, fiber: Fiber) -> None:
        """On the queues."""
        events, exclusive = self._events, self._exclusive
        self._entries = [(q, q.add(fiber.wake, events, exclusive=exclusive)) for q in self._queues]

    def leave(self) -> None:
        """Off the queues."""
        for queue, entry in self._entries:
            queue.remove(entry)

    def begin(self, clock: Clock, name: object, done: Done) -> None:
        """Try, then go to sleep."""
        super().begin(clock, name, done)
        self.wake()


def until(
    attempt: Callable[[], T],
    queues: Iterable[WaitQueue],
    events: int = ALL,
    *,
    mode: Mode = INTERRUPTIBLE,
    deadline_ns: int | None = None,
    exclusive: bool = False,
) -> Coroutine[Any, Any, T]:
    """Call `attempt` until it does not raise EAGAIN, asleep on the queues in between.

    Raises: TimedOut at the deadline (CLOCK_MONOTONIC), Interrupted, Killed, what `attempt` raises.
    """
    return Until(attempt, queues, events, deadline_ns, mode, exclusive)


def continued(rest: Coroutine[Any, Any, Any], after: After) -> Coroutine[Any, Any, Any]:
    """The rest of a call whose result is what `after` makes of it."""
    return rest.then(after) if isinstance(rest, Sleep) else _continued(rest, after)


async def _continued(rest: Coroutine[Any, Any, Any], after: After) -> Any:
    return after(await rest)
