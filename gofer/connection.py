"""One client: bytes in, requests handled, replies out.

A client can confuse its own session and no more: what is not 9P closes the connection, every error
of a request becomes Rlerror, and a client that does not read its replies is not read any further.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gofer.fid import FidTable
from gofer.node import Node
from gofer.p9.codec import Message
from gofer.p9.constants import EXTENDED, MSIZE_MAX, NOTAG
from gofer.p9.extensions import Tsparex
from gofer.p9.fields import ProtocolError
from gofer.p9.frames import FrameReader
from gofer.p9.messages import Rflush, Rlerror, Tflush, Tversion
from gofer.replies import HANDLERS, Donation, Job, Later, Reply
from gofer.shared import Shared

MAX_IN_FLIGHT = 32
MAX_OUT_BYTES = 2 * MSIZE_MAX
MAX_OUT = 1024
"""Replies, each of which may hold a descriptor."""
MAX_BUSY_BYTES = 4 * MSIZE_MAX
"""Of the requests that pool threads work on: what they read or write."""
_RECEIVE = 65536
_AT_ONCE = int(socket.MSG_DONTWAIT)
_SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class InFlight:
    """A request that a pool thread works on."""

    __slots__ = ("dropped", "flushes", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.dropped = False
        self.flushes: list[int] = []
        """Tags of Tflush messages to answer after this request."""


class Loop(Protocol):
    """What serves sessions, as they see it (gofer/server.py)."""

    @property
    def connections(self) -> int: ...
    def add(self, sock: socket.socket) -> Connection: ...
    def forget(self, connection: Connection) -> None: ...
    def ended(self, connection: Connection) -> None: ...
    def update(self, connection: Connection) -> None: ...


class Connection:
    """A session and its socket, which stays in blocking mode and is used with MSG_DONTWAIT."""

    def __init__(self, shared: Shared, loop: Loop, sock: socket.socket, number: int) -> None:
        self.shared = shared
        self.loop = loop
        self.sock = sock
        self.number = number
        self.msize = MSIZE_MAX
        self.extended = False
        self.negotiated = False
        self.closed = False
        self.donates = sock.family == socket.AF_UNIX
        self.table = shared.table
        self.fids = FidTable(shared.table, shared.fid_budget)
        self._reader = FrameReader(MSIZE_MAX)
        self._backlog: deque[tuple[int, Message]] = deque()
        self._in_flight: dict[int, InFlight] = {}
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._out_bytes = 0
        self.busy = 0
        """Requests that pool threads work on, those too that the session has forgotten."""
        self._busy_bytes = 0
        self._later = NOTAG
        """Of the request that waits for something to be told."""

    def congested(self) -> bool:
        """Whether requests must wait until replies have gone out."""
        return (
            self.busy >= MAX_IN_FLIGHT
            or self._out_bytes >= MAX_OUT_BYTES
            or len(self._out) >= MAX_OUT
            or self._busy_bytes >= MAX_BUSY_BYTES
        )

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out)

    @property
    def is_quiet(self) -> bool:
        """Nothing is under way, so that the next request may be answered by itself (`Hot`)."""
        return (
            self.extended
            and self.donates
            and not (self._out or self._backlog or self._in_flight or self._reader.pending)
            and self._later == NOTAG
            and not self.shared.journal.belongs_to(self)
        )

    def learn(self, number: int, node: Node) -> None:
        """A fid is a directory where something was made or removed."""
        self.table.hot.learn(self.sock.fileno(), number, node)

    def adopt(self, other: Connection) -> None:
        """Become a duplicate of another session: same protocol, same fids."""
        self.msize = other.msize
        self._reader.limit = other.msize
        self.extended = other.extended
        self.negotiated = other.negotiated
        other.fids.copy_into(self.fids)

    def on_readable(self) -> None:
        """Take what has arrived and answer it."""
        try:
            data = self.sock.recv(_RECEIVE, _AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        self.take(data)

    def take(self, data: bytes) -> None:
        """Answer what has arrived."""
        self._attempt(lambda: self._take(data))

    def _take(self, data: bytes) -> None:
        self._backlog.extend(self._reader.feed(data))
        self.run_backlog()

    def _attempt(self, step: Callable[[], None]) -> None:
        """What goes wrong, in the bytes that came or in this program, is for no other session."""
        try:
            step()
        except Exception as problem:
            kind = "" if isinstance(problem, ProtocolError) else f"{type(problem).__name__}: "
            self.shared.log(f"connection {self.number} closed: {kind}{problem}")
            self.close()

    def run_backlog(self) -> None:
        """Handle requests in their order until there are none, or replies pile up."""
        while self._backlog and not self.closed and not self.congested():
            tag, request = self._backlog.popleft()
            self._handle(tag, request)
        if not self.closed:
            self.loop.update(self)

    def negotiate(self, msize: int, extended: bool) -> None:
        """Tversion: everything of the old session is forgotten."""
        self.reset()
        self.msize = msize
        self._reader.limit = msize
        self.extended = extended
        self.negotiated = True

    def reset(self) -> None:
        self.shared.locks.release_connection(self.number)
        self.fids.clear()
        self.shared.watches.release(self)
        self.shared.hearing.release(self)
        self._later = NOTAG
        for waiting in self._in_flight.values():
            waiting.dropped = True
        self._in_flight.clear()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._finish_journal()
        self.reset()
        for _, fds in self._out:
            _close(fds)
        self._out.clear()
        self._backlog.clear()
        self.loop.forget(self)
        self.sock.close()

    def _handle(self, tag: int, request: Message) -> None:
        if tag in self._in_flight or tag == self._later != NOTAG:
            raise ProtocolError(f"tag {tag} is in use")
        if tag == NOTAG and not isinstance(request, Tversion):
            raise ProtocolError("request without a tag")
        if isinstance(request, Tflush):
            self._flush(tag, request.oldtag)
            return
        if type(request) not in HANDLERS:
            raise ProtocolError(f"{type(request).__name__} is no request")
        if not self.negotiated and not isinstance(request, Tversion):
            raise ProtocolError("no version was negotiated")
        if self.shared.journal.belongs_to(self) and not isinstance(request, Tsparex):
            self.shared.journal.drain()
        reply = self.perform(request)
        if isinstance(reply, Message):
            self.send(tag, reply)
        elif isinstance(reply, Donation):
            self.send(tag, reply.reply, reply.fds)
        elif isinstance(reply, Later):
            self._later = tag
        else:
            self._start(tag, reply)

    def perform(self, request: Message) -> Reply:
        """What a request's handler gives; its errors as Rlerror."""
        self.table.trim()
        if request.type >= EXTENDED and not self.extended:
            return Rlerror(errno.EOPNOTSUPP)
        try:
            return HANDLERS[type(request)](self, request)
        except OSError as problem:
            return Rlerror(problem.errno or errno.EIO)
        except ProtocolError:
            raise
        except Exception as bug:
            self.log(f"{type(request).__name__}: {type(bug).__name__}: {bug}")
            return Rlerror(errno.EIO)

    def log(self, text: str) -> None:
        self.shared.log(text)

    def hear(self) -> None:
        """Amidst many changes: they fill the queue of those of others, too."""
        self.shared.hearing.hear()
        self.shared.hearing.tell()

    @property
    def listens(self) -> bool:
        """Somebody waits to be told."""
        return self._later != NOTAG

    def tell(self, reply: Message) -> None:
        """Answer who does."""
        tag, self._later = self._later, NOTAG
        self.send(tag, reply)

    def _finish_journal(self) -> None:
        """The client may be dead: what it had written was promised to somebody."""
        if self.shared.journal.belongs_to(self):
            try:
                self.shared.journal.drain()
            except ProtocolError as problem:
                self.log(f"journal of connection {self.number}: {problem}")

    def _start(self, tag: int, job: Job) -> None:
        waiting = self._in_flight[tag] = InFlight(job)
        self.busy += 1
        self._busy_bytes += job.size
        job.file.pin()
        self.shared.pool.submit(
            job.work, lambda reply, failure: self._finish(tag, waiting, reply, failure)
        )

    def _finish(
        self, tag: int, waiting: InFlight, reply: Message | None, failure: BaseException | None
    ) -> None:
        """On the main thread: a pool thread is done with a request."""
        waiting.job.file.unpin()
        if waiting.job.owned:
            waiting.job.file.close()
        self.busy -= 1
        self._busy_bytes -= waiting.job.size
        if self.closed:
            self.loop.ended(self)
            return
        if waiting.dropped:
            self._attempt(self.run_backlog)
            return
        self._attempt(lambda: self._answer(tag, waiting, reply, failure))

    def _answer(
        self, tag: int, waiting: InFlight, reply: Message | None, failure: BaseException | None
    ) -> None:
        del self._in_flight[tag]
        if reply is None:
            number = failure.errno if isinstance(failure, OSError) else errno.EIO
            reply = Rlerror(number or errno.EIO)
        self.send(tag, reply)
        for flush in waiting.flushes:
            self.send(flush, Rflush())
        self.run_backlog()

    def _flush(self, tag: int, oldtag: int) -> None:
        """A request under way is answered first, then its flush (flush(5))."""
        waiting = self._in_flight.get(oldtag)
        if oldtag == self._later:
            self._later = NOTAG
        if waiting is None:
            self.send(tag, Rflush())
        elif len(waiting.flushes) < MAX_IN_FLIGHT:
            waiting.flushes.append(tag)
        else:
            raise ProtocolError("too many flushes of one request")

    def send(self, tag: int, reply: Message, fds: tuple[int, ...] = ()) -> None:
        """Send now what the socket takes, the rest later. Closes `fds` when they have gone."""
        if self.closed:
            _close(fds)
            return
        data = reply.encode(tag)
        if self._out:
            self._out.append((memoryview(data), fds))
            self._out_bytes += len(data)
            return
        sent = self._transmit(data, fds)
        if self.closed or sent == len(data):
            return
        if sent < 0:
            self.send(tag, Rlerror(errno.ENFILE))
            return
        rest = memoryview(data)[sent:]
        self._out.append((rest, () if sent else fds))
        self._out_bytes += len(rest)
        self.loop.update(self)

    def owe(self, data: bytes, fds: tuple[int, ...]) -> None:
        """The rest of a reply, to be sent before any other."""
        self._out.append((memoryview(data), fds))
        self._out_bytes += len(data)
        self.loop.update(self)

    def on_writable(self) -> None:
        """The socket takes bytes again."""
        while self._out:
            data, fds = self._out[0]
            sent = self._transmit(data, fds)
            if self.closed:
                return
            if sent < 0:
                tag = int.from_bytes(data[5:7], "little")
                refusal = memoryview(Rlerror(errno.ENFILE).encode(tag))
                self._out[0] = refusal, ()
                self._out_bytes += len(refusal) - len(data)
                continue
            self._out_bytes -= sent
            if sent < len(data):
                self._out[0] = (data[sent:], () if sent else fds)
                return
            self._out.popleft()
        self._attempt(self.run_backlog)

    def _transmit(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        """Bytes sent; descriptors go with the first of them and are closed here then.

        -1: they are closed, but did not go, since the user's sockets hold too many (unix(7),
        ETOOMANYREFS), this client's or others'.
        """
        try:
            if not fds:
                return self.sock.send(data, _SEND_FLAGS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))
            sent = self.sock.sendmsg([data], [rights], _SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as problem:
            if problem.errno == errno.ETOOMANYREFS:
                _close(fds)
                return -1
            if not (self._out and self._out[0][1] is fds):
                _close(fds)
            self.close()
            return 0
        _close(fds)
        return sent


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
