"""The shim's one thread: descriptors, timers, children, and handlers that wait for something.

Handlers are coroutines that await a `Promise`. There is one thread because sandboxes are made by
forking this process, which takes one; asyncio would do it, too, and takes 60 ms and 8 MB of each
shim to import.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
Ready = Callable[[int], None]
"""Called with what epoll(7) says of a descriptor."""


class Promise(Generic[T]):
    """A value that will be there, or an error, for any number of coroutines that await it."""

    def __init__(self) -> None:
        self._then: list[Callable[[], None]] | None = []
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def settled(self) -> bool:
        """Whether it is there."""
        return self._then is None

    def keep(self, value: T) -> None:
        """It is there."""
        self._value = value
        self._settle()

    def break_(self, error: BaseException) -> None:
        """It will not be: who awaits it gets the exception."""
        self._error = error
        self._settle()

    def then(self, callback: Callable[[], None]) -> None:
        """Call this once it is there."""
        if self._then is None:
            callback()
        else:
            self._then.append(callback)

    def _settle(self) -> None:
        waiting, self._then = self._then or [], None
        for callback in waiting:
            callback()

    def __await__(self) -> Generator[Promise[T], None, T]:
        if not self.settled:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it up to where it waits, and on from there when it need not."""

    def step() -> None:
        try:
            waits_for = coroutine.send(None)
        except StopIteration:
            return
        waits_for.then(step)

    step()


class Timer:
    """Something that will be called."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """It will not."""
        self.callback = None


class Loop:
    """Waits for everything, and calls who is concerned."""

    def __init__(self, on_exit: Callable[[int, int], None]) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._forgotten: set[int] = set()
        """In this turn: what epoll(7) has said of such a number is of the file that it was."""
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._on_exit = on_exit
        self._stopped = False
        self._wakeup, self._signals = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.on_end: Callable[[], None] = self.stop
        """SIGTERM or SIGINT has come."""

    def watch_signals(self) -> None:
        """Children that end, and signals that end the shim, from now on."""
        signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.watch(self._wakeup, READ, self._on_signals)
        self.reap()

    def watch(self, fd: int, events: int, ready: Ready) -> None:
        """Call `ready` while there is one of these events; again for a descriptor: other events."""
        known = fd in self._ready
        self._ready[fd] = ready
        if known:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Before it is closed: a fork of ours may have it open still."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._forgotten.add(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call this in so many seconds."""
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def stop(self) -> None:
        """`run` comes back."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped:
            self._forgotten.clear()
            for fd, events in self._epoll.poll(self._patience()):
                ready = self._ready.get(fd)
                if ready is not None and fd not in self._forgotten:
                    ready(events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now and not self._stopped:
                callback = heapq.heappop(self._timers)[2].callback
                if callback is not None:
                    callback()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _on_signals(self, _: int) -> None:
        with suppress(BlockingIOError):
            numbers = os.read(self._wakeup, 4096)
            self.reap()
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self.on_end()

    def reap(self) -> None:
        """All children that have ended: those that we made, and what they left behind. Each has
        its number to itself until it has been told."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            exited = found.si_code == os.CLD_EXITED
            try:
                self._on_exit(found.si_pid, found.si_status << 8 if exited else found.si_status)
            finally:
                os.waitpid(found.si_pid, 0)


def leave_in_fork() -> None:
    """In a child: signals are as in a new process."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
