"""`Lock`: a mutex for what spans a sleep."""

from __future__ import annotations

from functools import partial
from typing import Final

from sentry.errors import EAGAIN
from sentry.wait.again import CURRENT, NotNow
from sentry.wait.fiber import Interrupted, Mode, RestartNoIntr
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until


class Lock:
    """A mutex for what spans a sleep: create, rename, append, copy-up.

    `with` is for plain operations: the lock is taken only where one has to sleep inside, by its
    call. `async with` is for coroutines.
    """

    __slots__ = ("_queue", "holder")

    def __init__(self) -> None:
        self.holder: object | None = None
        """The call or coroutine that is asleep with it."""
        self._queue = WaitQueue()

    def check(self, mode: Mode = Mode.KILLABLE) -> None:
        """Go on only if nobody else is asleep with it. Raises: NotNow; what that waits for ends as
        in `until_free`."""
        holder = self.holder
        if holder is not None and holder is not CURRENT.call:
            raise NotNow(partial(self.until_free, mode))

    def __enter__(self) -> None:
        self.check()

    def take(self) -> None:
        """It is that of a sequence from now on, until `let_go`. Preconditions: it is free."""
        self.holder = _SEQUENCE

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if isinstance(error, NotNow):
            if self.holder is None:
                self.holder = error.call
                error.call.hold(self)
        elif self.holder is not None:
            if CURRENT.call is not None:  # whose end must not free what others have by then
                CURRENT.call.held.remove(self)
            self.let_go()

    def let_go(self) -> None:
        """Nobody has it any more. Who waited for it was told when nobody had it already."""
        if self.holder is None:
            return
        self.holder = None
        if len(self._queue):
            self._queue.notify()

    def _check_free(self) -> None:
        if self.holder is not None:
            raise EAGAIN

    async def until_free(self, mode: Mode = Mode.KILLABLE) -> None:
        """Sleep while somebody has it. Raises: Killed; RestartNoIntr at a signal, where that may
        interrupt: mutex_lock_interruptible() of a call that begins anew.

        All that sleep so are woken: one that does not take it would keep the turn from the next.
        """
        try:
            await until(self._check_free, [self._queue], mode=mode)
        except Interrupted:
            raise RestartNoIntr from None

    async def __aenter__(self) -> None:
        if self.holder is not None or len(self._queue):
            await self.until_free()
        self.take()

    async def __aexit__(self, *_: object) -> None:
        self.let_go()


_SEQUENCE: Final = object()
"""Holds the locks of coroutines."""
