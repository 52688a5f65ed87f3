"""`Crowds`: who hears of an event after hundreds of others hears of it piece by piece.

Linux tells all of them before the call that has caused it returns. So its thread is on its way back
to ring 3 until they have heard (WORK_TELL); others run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sentry.errors import EAGAIN
from sentry.kernel.work import WORK_TELL
from sentry.loop import Charged
from sentry.wait.fiber import Mode
from sentry.wait.queue import Registration, WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.loop import Loop
    from sentry.wait.fiber import Fiber

_LAST: Final = None


class Task(Protocol):
    """A thread, as far as it matters here."""

    dead: bool
    fiber: Fiber | None
    work: int


T = TypeVar("T", bound=Task)


def _raise(error: Exception) -> None:
    raise error


class Following:
    """What happens while a queue is being told: it is told that afterwards, all in one."""

    __slots__ = ("events", "tasks")

    def __init__(self) -> None:
        self.events = 0
        self.tasks: list[Task] = []


class Crowds:
    """Those of a sandbox that have not been told all."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._telling: dict[WaitQueue, Following] = {}
        self._waiting: dict[Task, int] = {}
        """How many of its events somebody still has to hear of."""
        self._queue = WaitQueue()
        WaitQueue.tell_many = self.tell

    def tell(self, queue: WaitQueue, events: int) -> None:
        """Tell those who are in the queue; whoever runs now waits for that."""
        tasks = self._who_waits()
        if (following := self._telling.get(queue)) is not None:
            following.events |= events
            following.tasks += tasks
        else:
            self._begin(queue, events, tasks)

    def until(self) -> Callable[[], None]:
        """Whoever runs now waits until this is called: something else was done in pieces."""
        tasks = self._who_waits()

        def done() -> None:
            for task in tasks:
                self._told(task)

        return done

    def _who_waits(self) -> list[Task]:
        step = self._loop.step
        task: Any = getattr(step, "owner", None) or getattr(step, "name", None)
        is_task = isinstance(task, Charged)
        if not is_task or task.dead:
            return []
        self._waiting[task] = self._waiting.get(task, 0) + 1
        task.work |= WORK_TELL
        return [task]

    def _begin(self, queue: WaitQueue, events: int, tasks: list[Task]) -> None:
        self._telling[queue] = Following()

        def act(entry: Registration | None) -> None:
            if entry is not None:
                try:
                    queue.tell(events, entry)
                except Exception as error:  # a bug of ours, for the log; others hear all the same
                    self._loop.call_soon(partial(_raise, error))
                return
            for task in tasks:
                self._told(task)
            following = self._telling.pop(queue)
            if following.events:
                self._begin(queue, following.events, following.tasks)

        self._loop.call_for_each([*queue.plain(), _LAST], act)

    def _told(self, task: Task) -> None:
        self._waiting[task] -= 1
        if not self._waiting[task]:
            del self._waiting[task]
            self._queue.notify()

    def _check(self, task: Task) -> None:
        """An attempt. Raises: EAGAIN before all have heard."""
        if task in self._waiting:
            raise EAGAIN("not all have heard")

    def hold(self, task: T, go_on: Callable[[T], object]) -> bool:
        """On the way back to ring 3: whether the task waits, and then goes on."""
        task.work &= ~WORK_TELL
        if task not in self._waiting:
            return False

        def done(_result: object, _error: BaseException | None) -> None:
            task.fiber = None
            go_on(task)

        rest = until(partial(self._check, task), (self._queue,), mode=Mode.UNINTERRUPTIBLE).tried()
        task.fiber = rest
        rest.begin(self._loop, task, done)
        return True
