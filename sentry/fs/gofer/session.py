"""A 9P session with the Gofer over a stream socket.

Requests are pipelined. An operation uses `reply`: the reply to a metadata request usually comes
within tens of microseconds, so it is first waited for in place, for a bounded time; only if that
was too short the call sleeps, and finds the reply when it is made again. `call_now` waits for as
long as it takes (boot, before the loop runs). `send` does not wait: what has no tag, or no room in
the socket, stands in line until replies were taken, and who waits for it sleeps.

When the Gofer dies, everybody who waits gets EIO, and later requests fail with EIO at once.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from time import monotonic_ns
from typing import Any, Protocol, TypeVar

from gofer.p9.codec import Message
from gofer.p9.constants import (
    MSIZE_MAX,
    MSIZE_MIN,
    NOCPU,
    NOFID,
    NONUNAME,
    VERSION,
    VERSION_EXTENDED,
)
from gofer.p9.extensions import Rwalkx, Tdupx, Tnearx
from gofer.p9.messages import Rversion, Tattach, Tclunk, Tversion
from sentry.abi.layout import Record
from sentry.ahead import mypyc_attr
from sentry.errors import EAGAIN, EINTR, EIO, EPROTO, Errno
from sentry.fs.gofer.requests import Pending, Requests, close_quietly
from sentry.platform.exchange import OTHER, UNSENT, Exchange
from sentry.platform.exchange import TAG as EXCHANGE_TAG
from sentry.platform.host_io import here, receive, send
from sentry.suppress import suppress
from sentry.wait.again import NotNow, kept
from sentry.wait.fiber import Mode, park, this_fiber

PATIENCE_MS = 1
"""The bound of a wait in place."""
_DRAIN_AT = 32
_RECEIVED_AT_ONCE = 16
"""How often one looks for more before others run."""

_M = TypeVar("_M", bound=Message)


class Asked:
    """A request that a call makes once, and what the operation wants to find with its reply."""

    __slots__ = ("extra", "pending", "taken", "undo")

    def __init__(
        self,
        pending: Pending,
        extra: Any = None,
        undo: Callable[[Message], None] | None = None,
    ) -> None:
        self.pending = pending
        self.extra = extra
        self.undo = undo
        """Takes back what it did, if nobody comes for the reply."""
        self.taken = False

    def let_go(self) -> None:
        """The call has ended."""
        if not self.taken:
            self.pending.abandon(self.undo)


class Exchangeable(Record):
    """A kind of request that can be one call together with its reply."""

    call: Callable[..., int]
    """Of sentry.platform.exchange."""
    message: Callable[..., Message]
    """The request, of the same fields."""


class Watcher(Protocol):
    """What a session needs of the loop."""

    def watch(
        self, fd: int, events: int, callback: Callable[[int], None] | None = None
    ) -> None: ...
    def call_soon(self, callback: Callable[[], object]) -> None: ...


class Recorder(Protocol):
    """A journal, in one order with what is sent."""

    def before(self, request: Message) -> None:
        """It is about to be sent."""

    def ends(self, fid: int) -> bool:
        """Whether it is recorded, in place of a Tclunk; the number comes back later."""


class Faults(Protocol):
    """sentry.inject.gofer."""

    def instead(self, request: Message, send: Callable[[], Pending]) -> Pending: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Session:
    """One connection. `loop` may be set later; until then only `call_now` and `send` work."""

    def __init__(self, sock: socket.socket, loop: Watcher | None = None) -> None:
        self.sock = sock
        self._fd = sock.fileno()
        self.loop = loop
        self.msize = MSIZE_MIN
        self.version = b""
        self._requests = Requests()
        self.sent = 0
        """Requests so far."""
        self.waited_ns = 0
        """How long callers waited in place for replies."""
        self._sleepers = 0
        self._beside: dict[Pending, list[Callable[[], object]]] = {}
        """Who sleeps until a reply is there that several wait for."""
        self._left: bytes | memoryview = b""
        """What the socket did not take of a request."""
        self._watching = 0
        self._is_late = False
        """The last wait in place was in vain, and nothing has come since."""
        self._receiving = False
        self._told_cpu = NOCPU
        self._exchange = Exchange()
        self._clunks: list[int] = []
        self.recorder: Recorder | None = None
        self.faults: Faults | None = None
        """Who has some requests fail or be late, if that is wanted."""
        self.on_move: list[Callable[[], object]] = []
        """What is another one for a forked sandbox: `move_to`."""
        self._free_fids: list[int] = []
        self._next_fid = 0

    @property
    def dead(self) -> bool:
        """The Gofer is gone: every request fails with EIO."""
        return self._requests.dead

    @property
    def extended(self) -> bool:
        """The server speaks the messages of `gofer.p9.extensions`."""
        return self.version == VERSION_EXTENDED

    @property
    def unanswered(self) -> int:
        """Requests whose reply has not come, abandoned ones too."""
        return self._requests.unanswered

    @property
    def crowded(self) -> bool:
        """What is asked now has to wait until it is sent."""
        return bool(self._left or self._requests.line)

    # --- fids

    def new_fid(self) -> int:
        """A fid that is not in use."""
        if not self._free_fids and len(self._clunks) >= _DRAIN_AT:
            self._give_back()
        if self._free_fids:
            return self._free_fids.pop()
        self._next_fid += 1
        return self._next_fid - 1

    def free_fid(self, fid: int) -> None:
        """The number of a fid that was never bound, or is being clunked by a message.

        The server handles requests in their order, so the number can be used again at once.
        """
        self._free_fids.append(fid)

    def unwanted(self, fid: int, reply: Message) -> None:
        """What this reply is about has bound `fid`, if it has; nobody has come for it."""
        if isinstance(reply, Rwalkx) and reply.error:
            self.free_fid(fid)
        else:
            self.clunk(fid)

    def clunk(self, fid: int) -> None:
        """Give a fid back, with the next request or the loop's next turn. Never fails, and does
        nothing else now: a finalizer calls this in the middle of anything, of another session's
        doings too."""
        if not self._clunks and self.loop is not None:
            self.loop.call_soon(self._give_back)
        self._clunks.append(fid)

    def _give_back(self) -> None:
        self._clunk_in_line()
        self._push()
        if len(self._requests) >= _DRAIN_AT:
            self.drain()

    def _clunk_in_line(self) -> None:
        clunks, self._clunks = self._clunks, []
        for fid in clunks:
            if self.recorder is not None and self.recorder.ends(fid):
                continue
            try:
                self._put_in_line(Tclunk(fid)).abandon()
            except EIO:
                break
            self.free_fid(fid)

    # --- the start

    def negotiate(self, msize: int = MSIZE_MAX, version: bytes = VERSION_EXTENDED) -> None:
        """Agree on version and message size. Raises: EPROTO if the server speaks no 9P2000.L."""
        try:
            reply = expect(self.call_now(Tversion(msize, version)), Rversion)
        except Errno:
            # Some servers (diod) answer a version with a suffix by an error.
            reply = expect(self.call_now(Tversion(msize, VERSION)), Rversion)
        self.agreed(reply, msize)

    def agreed(self, reply: Rversion, msize: int) -> None:
        """The server has answered. Raises: EPROTO."""
        if not reply.version.startswith(b"9P2000.L") or not MSIZE_MIN <= reply.msize <= msize:
            raise EPROTO(f"the server offers {reply.version!r}, {reply.msize} bytes")
        self.version = reply.version
        self.msize = reply.msize

    def attach(self, name: bytes, uid: int = NONUNAME, user: bytes = b"") -> int:
        """The fid of the root of an attachment."""
        fid = self.new_fid()
        self.call_now(Tattach(fid, NOFID, user, name, uid))
        return fid

    # --- requests

    def send(self, request: Message) -> Pending:
        """Have a request sent; the reply is for whoever waits for it, or nobody. Raises: EIO."""
        if len(self._requests) >= _DRAIN_AT:
            self.drain()
        pending = self.put_in_line(request)
        self._push()
        return pending

    def exchange(self, kind: Exchangeable, fields: tuple[Any, ...]) -> Pending:
        """`send`, for who waits for the reply next: it may have come when this returns, and is the
        Pending's `check`, `block` and descriptor then. Raises: EIO."""
        if self._has_company() or self.recorder is not None or self.faults is not None:
            return self.send(kind.message(*fields))
        exchange = self._exchange
        began_ns = monotonic_ns()
        number = exchange.make(kind.call, self._fd, PATIENCE_MS, fields)
        if number == UNSENT:
            return self.send(kind.message(*fields))
        self.sent += 1
        self.waited_ns += monotonic_ns() - began_ns
        if number == OTHER:
            return self._late(kind, fields)
        pending, fd = Pending(None), exchange.fd
        pending.answered(number, exchange.block() if fd >= 0 else None, fd)
        if self.extended and exchange.cpu != self._told_cpu:
            self._tell_where()
        return pending

    def _has_company(self) -> bool:
        """Something is unanswered, or cannot be sent, so that a reply may be another one's, or
        there is no time to wait for one."""
        if self._clunks:
            self._give_back()
        if self._requests and not self._is_late:
            self.drain()
        return bool(self._requests or self._is_late or self.loop is None or self.dead)

    def _late(self, kind: Exchangeable, fields: tuple[Any, ...]) -> Pending:
        """A request that was sent, whose reply has not come, or is not what it should be."""
        exchange, came, problem = self._exchange, None, None
        try:
            came = exchange.came()
        except Errno as error:
            problem = error
        request = kind.message(*fields)
        pending = self._requests.sent(request)
        if came is not None:
            self._came(*came)
        elif problem is not None:
            self._came_not(problem)
        if exchange.missing and not self.dead:
            self._left = request.encode(EXCHANGE_TAG)[-exchange.missing :]
            self._push()
        self._is_late = not pending.done
        return pending

    def send_together(self, requests: Iterable[Message]) -> list[Pending]:
        """The same for several: the server wakes up once. Raises: EIO."""
        found = [self.put_in_line(request) for request in requests]
        self._left = self._left or b"".join(iter(self._requests.next, b""))
        self._push()
        return found

    def put_in_line(self, request: Message) -> Pending:
        """It is sent with the next that is sent. Raises: EIO."""
        if self._clunks:
            self._clunk_in_line()
        return self._put_in_line(request)

    def _put_in_line(self, request: Message) -> Pending:
        if self.recorder is not None:
            self.recorder.before(request)
        self.sent += 1
        if self.faults is not None:
            return self.faults.instead(request, partial(self._requests.submit, request))
        return self._requests.submit(request)

    def _push(self) -> None:
        """Send as much as the server takes: it reads no further until its replies are taken."""
        requests = self._requests
        while data := self._left or requests.next():
            try:
                sent = send(self.sock.fileno(), data)  # a closed one's number may be another's
            except EAGAIN:
                self._left = data
                break
            except Errno:
                requests.fail()
                break
            self._left = memoryview(data)[sent:] if sent < len(data) else b""
            if not self._left and not requests.line:
                break
        if requests.dead:
            self._left = b""
        if self._watching or self._left or requests.line:
            self._look_out()

    def _look_out(self) -> None:
        """Have the loop call as long as there is something to wait for."""
        events = select.EPOLLIN if self._sleepers or self.crowded else 0
        if self._left:
            events |= select.EPOLLOUT
        if events != self._watching and self.loop is not None and self._fd >= 0:
            self._watching = events
            self.loop.watch(self._fd, events, self._on_event)

    def call_now(self, request: Message) -> Message:
        """The reply, waited for without the loop. Raises: the server's Errno, EIO."""
        return self.wait_now(self.send(request))

    def wait_now(self, pending: Pending) -> Message:
        """The reply of a request that was sent."""
        while not pending.done:
            self._receive(PATIENCE_MS)
            self._push()
        return pending.result()

    def reply(
        self,
        key: Hashable,
        request: Message,
        *,
        mode: Mode = Mode.UNINTERRUPTIBLE,
        slow: bool = False,
    ) -> Message:
        """The reply of a request that this call makes once, as its `key`.

        Raises: the server's Errno, EIO; NotNow, and then the wait ends as `mode` allows.
        """
        asked: Asked = kept(key) or Asked(self.send(request))
        self.complete(asked, key, mode=mode, slow=slow)
        return asked.pending.result()

    def complete(
        self,
        asked: Asked,
        key: Hashable,
        *,
        mode: Mode = Mode.UNINTERRUPTIBLE,
        slow: bool = False,
    ) -> None:
        """Wait for a reply: in place where it comes soon, else NotNow; `slow` ones do not."""
        pending = asked.pending
        if not pending.done:
            if slow and self.loop is not None:
                self.drain()
            else:
                self.linger(pending)
            if not pending.done:
                need = NotNow(partial(self._sleep, pending, mode), key, asked)
                need.call.hold(asked)
                try:
                    raise need
                finally:
                    del need  # which has this frame: a circle
        asked.taken = True

    def wait_beside(self, pending: Pending) -> None:
        """Wait for a reply that others may wait for, too. Raises: NotNow."""
        self.linger(pending)
        if not pending.done:
            raise NotNow(partial(self._sleep_beside, pending))

    def tell(self, pending: Pending, callback: Callable[[], object]) -> None:
        """Call when the reply is there, for which nobody waits."""
        if pending.done:
            callback()
            return
        self._sleepers += 1
        self._look_out()

        def came() -> None:
            self._sleepers -= 1
            callback()

        pending.when_done(came)

    def fail(self) -> None:
        """The server cannot be trusted: every request is EIO from now on."""
        self._requests.fail()

    def drain(self) -> None:
        """Take the replies that have arrived."""
        while self._requests and not self._receiving and self._receive(0):
            pass

    def duplicate(self) -> int:
        """A socket with a copy of this session on it: same fids, none of them open."""
        pending = self.send(Tdupx())
        self.wait_now(pending)
        return pending.take_fd()

    def copy_on(self, fd: int) -> Session:
        """The session on a socket that came as `duplicate`. Raises: EIO."""
        try:
            made = Session(socket.socket(fileno=fd), self.loop)
        except (OSError, ValueError):  # no socket, or lost on the way
            close_quietly(fd)
            raise EIO("what came is no socket") from None
        made.adopt(self)
        return made

    def adopt(self, other: Session) -> None:
        """This session is the duplicate of `other` (in a forked sandbox)."""
        self.msize, self.version = other.msize, other.version
        self._free_fids, self._next_fid = list(other._free_fids), other._next_fid
        self._clunks = list(other._clunks)

    def move_to(self, fd: int) -> None:
        """In a forked sandbox: go on over what `duplicate` gave before the fork.

        Preconditions: nothing is unanswered.
        """
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._told_cpu = NOCPU
        for change in self.on_move:
            change()

    def close(self) -> None:
        """End the session; whoever waits gets EIO."""
        if self._watching and self.loop is not None:
            self.loop.watch(self._fd, 0)
        self._left, self._watching = b"", 0
        self._requests.fail()
        self.sock.close()
        self._fd = -1

    # --- replies

    def linger(self, pending: Pending) -> None:
        """Wait in place, for a bounded time, unless the server is late already."""
        if self.loop is None:
            self.wait_now(pending)
            return
        if self._is_late or self._left or self._requests.line:
            self.drain()
            return
        began_ns = monotonic_ns()
        while not pending.done and self._receive(PATIENCE_MS):
            pass
        self._is_late = not pending.done
        self.waited_ns += monotonic_ns() - began_ns
        if self.extended:
            self._tell_where()

    def _tell_where(self) -> None:
        """The server had better run where this thread waits for it; not that of a journal, with
        which nobody mostly does."""
        cpu = here() if self.recorder is None else NOCPU
        if cpu != self._told_cpu:
            self._told_cpu = cpu
            request = Tnearx(cpu)
            if self.recorder is not None:  # the Gofer looks at the journal for it, too
                self.recorder.before(request)
            with suppress(EIO):
                self._requests.submit(request).abandon()
                self._push()

    async def _sleep(self, pending: Pending, mode: Mode) -> None:
        fiber = await this_fiber()
        assert self.loop is not None, "a session without a loop cannot sleep"
        pending.when_done(fiber.wake)
        self._sleepers += 1
        self._look_out()
        try:
            while not pending.done:
                await park(mode)
        finally:
            pending.when_done(None)
            self._sleepers -= 1
            self._look_out()

    async def _sleep_beside(self, pending: Pending) -> None:
        fiber = await this_fiber()
        if not pending.done and pending not in self._beside:
            self._beside[pending] = []
            self.tell(pending, lambda: [wake() for wake in self._beside.pop(pending)])
        waiting = self._beside.get(pending, [])
        waiting.append(fiber.wake)
        try:
            while not pending.done:
                await park(Mode.KILLABLE)
        finally:
            waiting.remove(fiber.wake)

    def _on_event(self, _events: int) -> None:
        for _ in range(_RECEIVED_AT_ONCE):
            if not self._receive(0) or not self._watching:
                break
        self._push()

    def _take(self, data: bytes, fds: Sequence[int]) -> None:
        """What has come."""
        self._requests.receive(data, fds)

    def _receive(self, patience_ms: int) -> bool:
        """Take what has arrived; False if nothing came in that time."""
        try:
            data, fds = receive(self._fd, patience_ms)
        except Errno as problem:
            return self._came_not(problem)
        return self._came(data, fds)

    def _came_not(self, problem: Errno) -> bool:
        if not isinstance(problem, (EAGAIN, EINTR)):
            self._requests.fail()
        return False

    def _came(self, data: bytes, fds: Sequence[int]) -> bool:
        self._is_late = False
        self._receiving = True
        try:
            self._take(data, fds)
        finally:
            self._receiving = False
        if self._left or self._requests.line:
            self._push()
        return bool(data)


def found_by(reply: Rwalkx) -> bytes:
    """The attributes of what a walk without an error has come to. Raises: EIO."""
    if not reply.blocks:
        raise EIO("a walk without attributes")
    return reply.blocks[-1]


def expect(reply: Message, kind: type[_M]) -> _M:
    """`reply`, typed: the session has checked that it answers its request."""
    assert isinstance(reply, kind)
    return reply
