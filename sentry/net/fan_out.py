"""A packet on its way to many sockets, each with a filter perhaps: in steps of bounded time.

What few sockets hear is delivered at once. The rest of a long delivery is done between the calls
of others, in order; whoever sent the packet pays for it and waits until all have it, as on Linux.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EAGAIN
from sentry.loop import Charged
from sentry.wait.fiber import Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Held, continued, until

if TYPE_CHECKING:
    from sentry.vfs.file import Caller

STEP_NS: Final = 500_000
"""In a turn of the loop, by all packets."""
MAX_BACKLOG: Final = 1000
"""net.core.netdev_max_backlog: further packets are lost while so many wait."""


class Delivery:
    """One packet: an iterator that delivers to one socket a step."""

    __slots__ = ("done", "payer", "queue", "work")

    def __init__(self, work: Iterator[None]) -> None:
        self.work = work
        self.done = False
        self.payer: Caller | None = None
        """Who sent it, once that one waits."""
        self.queue = WaitQueue()

    def ended(self) -> None:
        """An attempt. Raises: EAGAIN before."""
        if not self.done:
            raise EAGAIN("on its way")


class FanOut:
    """The deliveries of a network namespace."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._left_ns = STEP_NS
        self._coming = False
        """A step is to come."""
        self._backlog: deque[Delivery] = deque()

    def begin(self, work: Iterator[None]) -> None:
        """Deliver after what is on its way, at once if there is time left in this turn."""
        if self._backlog:
            if len(self._backlog) < MAX_BACKLOG:
                self._backlog.append(Delivery(work))
        elif not self._run(work):
            self._backlog.append(Delivery(work))
            self._come_again()

    def _run(self, work: Iterator[None]) -> bool:
        """Go on until the time is over; whether it came to the end."""
        if self._left_ns <= 0:
            return False
        now_ns = began_ns = time.monotonic_ns()
        until_ns = began_ns + self._left_ns
        ended = True
        for _ in work:
            now_ns = time.monotonic_ns()
            if now_ns >= until_ns:
                ended = False
                break
        self._left_ns -= now_ns - began_ns
        if self._left_ns < STEP_NS // 2:
            self._come_again()
        return ended

    def _come_again(self) -> None:
        if not self._coming:
            self._coming = True
            self._kernel.loop.call_soon(self._step)

    def _step(self) -> None:
        self._coming = False
        self._left_ns = STEP_NS
        while self._backlog and self._left_ns > 0:
            first = self._backlog[0]
            before_ns = self._left_ns
            first.done = self._run(first.work)
            if isinstance(first.payer, Charged):
                first.payer.sys_time_ns += before_ns - self._left_ns
                first.payer.used.sys_ns += before_ns - self._left_ns
            if first.done:
                self._backlog.popleft()
                first.queue.notify()
        if self._backlog:
            self._come_again()

    def awaited(self, sock: Held, caller: Caller, result: Any) -> Any:
        """The result of a send, after its packets have come; if it is killed they come, too."""
        if not self._backlog:
            return result
        last = self._backlog[-1]
        if last.payer is not None:
            return result
        for delivery in self._backlog:
            if delivery.payer is None:
                delivery.payer = caller
        wait = until(last.ended, (last.queue,), mode=Mode.KILLABLE).tried((sock,))
        return continued(wait, lambda _: result)
