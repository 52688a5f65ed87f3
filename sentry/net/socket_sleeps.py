"""Sleeps of sockets: until one is ready, has received enough, or has sent the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from sentry.abi.socket import AF_UNIX, SOCK_STREAM
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EAGAIN,
    ECONNABORTED,
    ECONNRESET,
    EHOSTUNREACH,
    EINTR,
    ENETUNREACH,
    EPIPE,
    ETIMEDOUT,
    Errno,
)
from sentry.net.message import Ancillary, Received
from sentry.wait.again import NotNow
from sentry.wait.fiber import Clock, Done, Fiber, Interrupted, TimedOut
from sentry.wait.queue import Entry, WaitQueue
from sentry.wait.sleep import Retry, Sleep, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.socket import Socket
    from sentry.vfs.file import Caller, Dest, Source

READABLE: Final = EPOLLIN | EPOLLERR | EPOLLRDHUP | EPOLLHUP
WRITABLE: Final = EPOLLOUT | EPOLLHUP
BROKEN: Final = (ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT)
"""What a connection ends of, and tells once."""


def tell_later(sock: Socket, error: BaseException, pending: int) -> None:
    """A call that has done a part does not tell what has ended it; the next one does, and of what
    was pending also SO_ERROR. In AF_UNIX nobody does: unix_stream_read_generic()."""
    if sock.family == AF_UNIX or not isinstance(error, Errno):
        return
    if isinstance(error, BROKEN) or error.number == pending:
        sock.so_error = error.number


def deadline_of(caller: Caller, timeout_ns: int | None) -> int | None:
    """When a time-out ends that begins now."""
    return None if timeout_ns is None else caller.kernel.loop.now_ns() + timeout_ns


@mypyc_attr(allow_interpreted_subclasses=True)
class SocketSleep(Retry):
    """Until a socket is ready, or its time-out."""

    __slots__ = ("_untried",)

    def __init__(
        self,
        attempt: Callable[[], Any],
        queue: WaitQueue,
        events: int,
        sock: Socket,
        *,
        deadline_ns: int | None,
    ) -> None:
        super().__init__(attempt, queue, events, sock, deadline_ns=deadline_ns)
        self._untried = False

    def begin(self, clock: Clock, name: object, done: Done) -> None:
        """Go to sleep, or try first."""
        super().begin(clock, name, done)
        if self._untried:
            self.wake()

    def now_or_later(self) -> Any:
        """The result, or the sleep itself if it needs one, or a page that has to be fetched: what
        was done before that is not done again."""
        try:
            return self.attempt()
        except EAGAIN:
            return self
        except NotNow:
            self._untried = True
            return self
        except Errno as error:  # raised from here it would be in a circle with `failed`
            if (part := self.part_before(error)) is None:
                raise
            return part

    def part_before(self, error: BaseException) -> Any:
        """What was done before an error, and counts; None: nothing."""

    def failed(self, error: BaseException) -> Any:
        """What was done counts. Else a time-out is EAGAIN, and makes a signal EINTR: signal(7)."""
        if (part := self.part_before(error)) is not None:
            return part
        if isinstance(error, TimedOut):
            raise EAGAIN("timed out")
        if isinstance(error, Interrupted) and self.deadline_ns is not None:
            raise EINTR("a signal")
        raise error


class ReceiveEnough(SocketSleep):
    """A stream's receive till so many bytes have come: MSG_WAITALL, SO_RCVLOWAT."""

    __slots__ = ("_dest", "_enough", "_flags", "_pending", "_sock", "_total")

    def __init__(self, sock: Socket, caller: Caller, dest: Dest, flags: int, enough: int) -> None:
        deadline = deadline_of(caller, sock.rcvtimeo_ns)
        super().__init__(never, sock.queue, READABLE, sock, deadline_ns=deadline)
        self._sock = sock
        self._dest = dest
        self._flags = flags
        self._enough = enough
        self._total = Received(0)
        self._pending = 0

    def attempt(self) -> Received:
        """What there is, until it is enough. Raises: EAGAIN while it is not."""
        total, sock = self._total, self._sock
        while True:
            self._pending = sock.so_error
            part = sock.receive_or_end(self._dest, self._flags)
            total.count += part.count
            total.address = total.address or part.address
            total.flags |= part.flags
            if part.ancillary is not None:
                total.ancillary = part.ancillary
            carries = part.ancillary is not None and sock.family == AF_UNIX
            if not part.count or carries or total.count >= self._enough or sock.stops_here():
                return total

    def part_before(self, error: BaseException) -> Received | None:
        """What has come."""
        if self._total.count and isinstance(error, Errno | Interrupted | TimedOut):
            tell_later(self._sock, error, self._pending)
            return self._total
        return None


class SendRest(SocketSleep):
    """What a send could not do at once; a stream goes on until all is sent."""

    __slots__ = (
        "_ancillary", "_caller", "_flags", "_pending", "_room", "_sent", "_sock", "_source",
        "_target", "_told_of_room",
    )  # fmt: skip

    def __init__(
        self, sock: Socket, caller: Caller, source: Source, target: Any, flags: int,
        ancillary: Ancillary | None,
    ) -> None:  # fmt: skip
        deadline = deadline_of(caller, sock.sndtimeo_ns)
        super().__init__(never, sock.queue, WRITABLE, sock, deadline_ns=deadline)
        self._sock = sock
        self._caller = caller
        self._source = source
        self._target = target
        self._flags = flags
        self._ancillary = ancillary
        self._sent = 0
        self._pending = 0
        self._room = sock.room_of(target)
        self._told_of_room: Entry | None = None

    def enter(self, fiber: Fiber) -> None:
        """On the receiver's queue, too."""
        super().enter(fiber)
        if self._room is not None:
            self._told_of_room = self._room.add(fiber.wake, EPOLLOUT)

    def leave(self) -> None:
        """Off both."""
        if self._room is not None and self._told_of_room is not None:
            self._room.remove(self._told_of_room)
        super().leave()

    def go_on(self, done: int) -> int | Sleep:
        """The rest after so many bytes, if it needs no sleep."""
        self._sent = done
        result: int | Sleep = self.now_or_later()
        return result

    def attempt(self) -> int:
        """As much as goes. Raises: EAGAIN while it is not all; each part has the whole time-out."""
        sock = self._sock
        while True:
            self._pending = sock.so_error
            self._sent += sock.try_send(
                self._caller, self._source, self._target, self._flags, self._ancillary
            )
            if sock.kind != SOCK_STREAM or not self._source.count:
                return self._sent
            self._ancillary = None
            self.deadline_ns = deadline_of(self._caller, sock.sndtimeo_ns)

    def part_before(self, error: BaseException) -> int | None:
        """What was sent."""
        if self._sent and isinstance(error, Errno | Interrupted | TimedOut):
            tell_later(self._sock, error, self._pending)
            return self._sent
        if isinstance(error, EPIPE):
            self._sock.broken_pipe(self._caller, self._flags)
        return None
