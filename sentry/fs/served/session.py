"""`ServedSession`: 9P with a process of the sandbox's owner, which is slow, or hostile, or both."""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gofer.p9.codec import Message
from gofer.p9.extensions import Tpollx
from sentry.fs.gofer.requests import Pending, close_quietly
from sentry.fs.gofer.session import Asked, Exchangeable, Session
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.loop import Loop, Timer

LOOKS: Final = 4
"""So often in its patience one looks whether something has become too old."""
DRAINED_AT_ONCE: Final = 16


class ServedSession(Session):
    """One connection; `patience_ns`: so long a request may take once it is the oldest, but for what
    waits for events."""

    def __init__(self, sock: socket.socket, loop: Loop, patience_ns: int) -> None:
        super().__init__(sock, loop)
        self._timers = loop
        self._patience_ns = patience_ns
        self.is_mounted = False
        """It serves a file system."""
        self._look: Timer | None = None
        self._asked: dict[Pending, None] = {}
        """Requests in their order; those that are done go at the next look."""
        self._first: Pending | None = None
        """The oldest of them at the last look, and how many looks it has been that."""
        self._looks = 0
        self.on_end: list[Callable[[], object]] = []
        """To be called once, when the session has ended."""

    def now_ns(self) -> int:
        """The host's time, as that of its patience."""
        return self._timers.now_ns()

    def put_in_line(self, request: Message) -> Pending:
        pending = super().put_in_line(request)
        if not isinstance(request, Tpollx):
            self._asked[pending] = None
            if self._look is None:
                self._arm()
        return pending

    def exchange(self, kind: Exchangeable, fields: tuple[Any, ...]) -> Pending:
        return self.send(kind.message(*fields))

    def complete(
        self,
        asked: Asked,
        key: Hashable,
        *,
        mode: Mode = Mode.UNINTERRUPTIBLE,
        slow: bool = False,
    ) -> None:
        """Who waits can be killed meanwhile. What it asked for may be done all the same, as if
        somebody else had changed the tree."""
        super().complete(asked, key, mode=max(mode, Mode.KILLABLE), slow=slow)

    def drain(self) -> None:
        """Not while replies are taken: who hears one may ask again, to no end. Nor for as long as
        more of them come: the server could go on for ever."""
        for _ in range(DRAINED_AT_ONCE):
            if self._receiving or not self._requests or not self._receive(0):
                break

    def linger(self, pending: Pending) -> None:
        """It is never waited for in place."""
        if self.loop is None:
            super().linger(pending)
        else:
            self.drain()

    def _arm(self) -> None:
        at_ns = self._timers.now_ns() + self._patience_ns // LOOKS
        self._look = self._timers.call_at(at_ns, self._looked)

    def _looked(self) -> None:
        self._look = None
        self.drain()
        self._asked = {each: None for each in self._asked if not each.done}
        first = next(iter(self._asked), None)
        # Those behind it may wait for it: a program that asks for much ends no session.
        self._looks = self._looks + 1 if first is self._first else 1
        self._first = first
        if first is not None and self._looks > LOOKS:
            self.fail()
        elif first is not None:
            self._arm()

    def _take(self, data: bytes, fds: Sequence[int]) -> None:
        """What brings descriptors is no server of ours."""
        if not fds:
            super()._take(data, fds)
            return
        for fd in fds:
            close_quietly(fd)
        self.fail()

    def _receive(self, patience_ms: int) -> bool:
        came = super()._receive(patience_ms)
        if self.dead:
            self._ended()
        return came

    def fail(self) -> None:
        super().fail()
        self._ended()

    def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._asked.clear()
        self._first = None
        super().close()
        self._ended()

    def watch_for_end(self) -> None:
        """Hear of it also while nothing is asked."""
        self._sleepers += 1
        self._look_out()

    def _ended(self) -> None:
        told, self.on_end = self.on_end, []
        for call in told:
            call()
        if self._fd >= 0:
            self.close()
