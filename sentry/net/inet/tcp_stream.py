"""The bytes of a TCP connection: the queue of one end, what is held back, urgent data. tcp(7)."""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import socket as abi
from sentry.abi.poll import (
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDNORM,
    EPOLLWRNORM,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSE_WAIT as TCP_CLOSE_WAIT,
)
from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_RECV as TCP_SYN_RECV,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.abi.socket import (
    IPPROTO_TCP,
    MSG_MORE,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    SO_OOBINLINE,
    SO_PEEK_OFF,
    SOCK_STREAM,
)
from sentry.ahead import mypyc_attr
from sentry.errors import EFAULT, EINVAL
from sentry.net.inet.inetsocket import STREAMS, InetSocket
from sentry.net.inet.tcp_options import TcpOptions
from sentry.net.message import Ancillary, Received
from sentry.net.stamps import stamps
from sentry.vfs.file import Caller, Dest, Source
from sentry.wait.again import NotNow

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.loop import Timer
    from sentry.net.inet.tcp_seam import EngineSide
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location


CONNECTED: Final = (TCP_ESTABLISHED, TCP_CLOSE_WAIT)
"""What Tcp.CurrEstab counts."""
CONNECTING: Final = (TCP_SYN_SENT, TCP_SYN_RECV)
CORKED_NS: Final = 200_000_000
SNDBUF: Final = 16384
RCVBUF: Final = 131072
JOINED: Final = 8192
"""Up to this size small sends make one chunk of the receive queue."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpStream(InetSocket):
    """What one end has to read, and what it has to send."""

    __slots__ = (
        "_held", "_held_until", "_state", "chunks", "deferral", "deferred_by", "engine", "followed",
        "got", "mark", "peer", "queued", "sent", "stamp_ns", "tcp", "urgent", "urgent_unread",
    )  # fmt: skip

    requests: ClassVar = STREAMS
    stream: ClassVar = True

    def __init__(self, location: Location, family: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, family, SOCK_STREAM, protocol, stack)
        self.rcvbuf, self.sndbuf = RCVBUF, SNDBUF
        self._state = TCP_CLOSE
        self.tcp = TcpOptions()
        self.peer: Any = None
        """The other end, a TcpSocket."""
        self.engine: EngineSide | None = None
        """What has the connection, where it goes by a link: then there is no `peer`."""
        self.chunks: deque[bytes] = deque()
        self.queued = 0
        self.urgent: int | None = None
        """The byte of out-of-band data, when it is not in line."""
        self.urgent_unread = False
        self.mark: int | None = None
        """How many bytes there are before the urgent mark."""
        self.stamp_ns = 0
        """When the last bytes came."""
        self.sent = self.got = 0
        """Bytes, for TCP_INFO."""
        self.deferred_by: Any = None
        """The listener that waits for our first bytes."""
        self.deferral: Timer | None = None
        self.followed: Callable[[bool], None] | None = None
        """Who follows a connection that has no packets: it is complete, or begins to end."""
        self._held = b""
        """What MSG_MORE and TCP_CORK hold back."""
        self._held_until: Timer | None = None

    @property
    def state(self) -> int:
        """TCP_*."""
        return self._state

    @state.setter
    def state(self, new: int) -> None:
        change = (new in CONNECTED) - (self._state in CONNECTED)
        if change:
            self.stack.counters["Tcp.CurrEstab"] += change
            if self.followed is not None:
                self.followed(change > 0)
            if change < 0:
                self.followed = None
        self._state = new

    @property
    def connecting(self) -> bool:
        """The handshake is not over."""
        return self._state in CONNECTING

    @property
    def is_open(self) -> bool:
        """There is an other end."""
        if self.engine is not None:
            return self.engine.is_open
        return self.peer is not None

    def show_state(self, state: int) -> None:
        """As the engine says, which counts for itself."""
        self._state = state

    def stop_deferring(self) -> None:
        """Something has come."""

    # --- sending

    def _holds(self, flags: int) -> bool:
        return bool(flags & MSG_MORE and not flags & MSG_OOB) or bool(self.tcp.values[abi.TCP_CORK])

    def _hold(self, source: Source, caller: Caller) -> int:
        """MSG_MORE, TCP_CORK: less than a segment waits for more, 200 ms at most. tcp(7)."""
        size = source.count
        if not self._held:
            loop = caller.kernel.loop
            self._held_until = loop.call_at(loop.now_ns() + CORKED_NS, self.uncork)
        self._held += source.get(size)
        return size

    def uncork(self) -> None:
        """Send what was held back."""
        if self._held_until is not None:
            self._held_until.cancel()
            self._held_until = None
        data, self._held = self._held, b""
        if data and self.peer is not None:
            self.sent += len(data)
            self.peer.arrived(data)
            self.peer.queue.notify(EPOLLIN | EPOLLRDNORM)

    def arrived(self, data: bytes) -> None:
        """Queue bytes; small ones are joined, so that their number does not cost the Sentry."""
        if self.deferred_by is not None:
            self.stop_deferring()
        self.stamp_ns = time.time_ns()
        chunks = self.chunks
        if chunks and len(chunks[-1]) + len(data) <= JOINED:
            chunks[-1] += data
        else:
            chunks.append(data)
        self.queued += len(data)
        self.got += len(data)

    def _send_urgent(self, peer: TcpStream, data: bytes) -> None:
        """The last byte is urgent: SIGURG is left to the owner, the mark is kept."""
        rest, urgent = data[:-1], data[-1]
        if rest:
            peer.arrived(rest)
        peer.mark = peer.queued
        peer.urgent_unread = True
        peer.urge()
        if SO_OOBINLINE in peer.options:
            peer.arrived(data[-1:])
        else:
            peer.urgent = urgent
        peer.queue.notify(EPOLLPRI)

    # --- receiving

    def _pass_mark(self) -> None:
        """A read goes on behind the urgent mark: the byte that nobody asked for is lost."""
        if self.engine is not None:
            self.engine.connection.pass_mark()
        self.mark = self.urgent = None
        self.urgent_unread = False

    def stops_here(self) -> bool:
        """The urgent mark ends a read."""
        return (self.mark if self.engine is None else self.engine.connection.mark) == 0

    @property
    def peek_offset(self) -> bool:
        """SO_PEEK_OFF works."""
        return True

    def _peeked(self, flags: int) -> int:
        """SO_PEEK_OFF: how many bytes a peek passes over."""
        return max(self.numbers[SO_PEEK_OFF], 0) if flags & MSG_PEEK else 0

    def _count_peek(self, flags: int, done: int) -> None:
        """sk_peek_offset_fwd(), sk_peek_offset_bwd()."""
        at = self.numbers[SO_PEEK_OFF]
        if at >= 0:
            self.numbers[SO_PEEK_OFF] = at + done if flags & MSG_PEEK else max(0, at - done)

    def _take(self, dest: Dest, flags: int) -> int:
        skip = self._peeked(flags)
        limit = dest.count
        if self.mark and self.mark < limit:
            limit = self.mark  # a read stops at the urgent mark
        elif self.mark == 0 and limit and not flags & MSG_PEEK:
            self._pass_mark()
        done = 0
        for chunk in list(self.chunks):
            if done == limit:
                break
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            part = chunk[skip : skip + limit - done]
            skip = 0
            if not flags & MSG_TRUNC and not put(dest, part, done):
                break
            done += len(part)
            if flags & MSG_PEEK:
                continue
            if len(part) == len(chunk):
                self.chunks.popleft()
            else:
                self.chunks[0] = chunk[len(part) :]
        self._count_peek(flags, done)
        if not flags & MSG_PEEK:
            self.queued -= done
            if self.mark is not None:
                self.mark = max(0, self.mark - done)
            if self.peer is not None:
                self.peer.queue.notify(EPOLLOUT | EPOLLWRNORM)
        return done

    def _receive_urgent(self, dest: Dest, flags: int) -> Received:
        if self.engine is not None:
            got: Received = self.engine.receive_urgent(dest, flags)
            return got
        if SO_OOBINLINE in self.options or (self.mark is None and self.urgent is None):
            raise EINVAL("no urgent data")
        if self.urgent is None:
            raise EINVAL("read already")
        if dest.count:
            dest.put(bytes([self.urgent]))
        if not flags & MSG_PEEK:
            self.urgent = None
            self.urgent_unread = False
        return Received(1, flags=MSG_OOB)

    def told(self) -> Ancillary | None:
        """What a receive is told beside the bytes: SO_TIMESTAMP, TCP_INQ."""
        records = stamps(self, self.stamp_ns)
        if self.tcp.values[abi.TCP_INQ]:
            left = struct.pack("<i", self.queued)
            records.append((IPPROTO_TCP, abi.TCP_CM_INQ, left))
        return Ancillary(records=records) if records else None

    def at_mark(self) -> int:
        """SIOCATMARK."""
        return int(self.stops_here())


def put(dest: Dest, part: bytes | memoryview, done: int) -> bool:
    """Give the program some bytes; a bad pointer behind others only ends the receive.

    So does a page that has to be read first: the call would begin anew, without those others.
    """
    try:
        dest.put(part)
    except (EFAULT, NotNow):
        if done:
            return False
        raise
    return True


def taken(source: Source, size: int, done: int) -> bytes:
    """So many bytes of the program's; none where they cannot be read, but others went already: the
    call would begin anew, and send those again."""
    try:
        return bytes(source.get(size))
    except (EFAULT, NotNow):
        if done:
            return b""
        raise
