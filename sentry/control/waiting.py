"""Clients that wait for something. `Wait`: how a process of the container ends; nothing of it
changes: the parent waits for it as ever, and a zombie stays one. `OomWait`: that one is killed
because memory ran out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.abi.signal import SIGKILL

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import ThreadGroup


class Wait:
    """Calls `done` once with the wait(2) status, unless it is given up before."""

    def __init__(
        self,
        group: ThreadGroup,
        done: Callable[[int], object],
        forget: Callable[[Wait], object],
    ) -> None:
        self._group = group
        self._done = done
        self._forget = forget
        self._entry = group.pid_queue.add(self._look)

    def look(self) -> None:
        """It may have ended before."""
        self._look(0)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        self._group.pid_queue.remove(self._entry)
        self._forget(self)

    def finish(self, init: ThreadGroup | None, status: int) -> None:
        """The container is over, and its first process ended so; all others were killed by that."""
        self._end(status if self._group is init else SIGKILL)

    def _look(self, _events: int) -> None:
        if not self._group.tasks:
            self._end(self._group.exit_status)

    def _end(self, status: int) -> None:
        self.abandon()
        self._done(status)


class OomWait:
    """Calls `done` once when more than so many have been killed, unless it is given up before."""

    def __init__(
        self, kernel: Kernel, container: Container, known: int, done: Callable[[], None]
    ) -> None:
        self._loop = kernel.loop
        self._container = container
        self._known = known
        self._done = done
        self._entry = container.oom_queue.add(self._look)

    def look(self) -> None:
        """It may have been so before."""
        self._look(0)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        self._container.oom_queue.remove(self._entry)

    def _look(self, _events: int) -> None:
        if self._container.oom_kills > self._known:
            self.abandon()
            self._loop.call_soon(self._done)  # it is in the middle of that
