"""`Socket`: what all address families share.

A family subclasses `Socket` and gives plain attempts (`try_send`, `try_receive`, `try_accept`, …)
that raise EAGAIN rather than wait; sleeping, time-outs, flags and options are here, once.
Rules: socket(7), recv(2), send(2), net/core/sock.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import sentry.net.filter_options  # noqa: F401  declares its options
from sentry.abi.fcntl import O_NONBLOCK, O_RDWR, RWF_NOWAIT
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLPRI, EPOLLRDHUP
from sentry.abi.signal import SIGPIPE
from sentry.abi.socket import (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_NOSIGNAL,
    MSG_OOB,
    MSG_PEEK,
    MSG_WAITALL,
    MSG_ZEROCOPY,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_PEEK_OFF,
    SO_RCVLOWAT,
    SO_ZEROCOPY,
    SOCK_STREAM,
)
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
    ESPIPE,
    Errno,
    from_number,
)
from sentry.net.ioctls import SOCKETS, socket_ioctl
from sentry.net.message import Ancillary, Received
from sentry.net.options import MOST_READ, Counted, Options, Question
from sentry.net.short_dest import ShortDest
from sentry.net.socket_options import DEFAULT_BUFFER, SOCKET
from sentry.net.socket_sleeps import (
    READABLE,
    ReceiveEnough,
    SendRest,
    SocketSleep,
    deadline_of,
)
from sentry.net.sockfs import SocketInode, protocol_name
from sentry.vfs.file import (
    READ_EVENTS,
    Caller,
    Dest,
    FileDescription,
    Result,
    Source,
    StreamFile,
)
from sentry.vfs.requests import Requests
from sentry.wait.fiber import Interrupted
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Sleep, continued

if TYPE_CHECKING:
    from sentry.bpf.filter import PacketFilter
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location

T = TypeVar("T")

COUNT: Final = attrgetter("count")
COMES: Final = READ_EVENTS | EPOLLPRI | EPOLLRDHUP
"""What the queue of a socket tells of (`tells`). Not of room: that depends on both ends."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Socket(StreamFile):
    """An open socket of any family."""

    can_async: ClassVar = True
    async_room: ClassVar = False
    keeps_unread: ClassVar = True
    """What does not fit into the program's buffer is still there for the next receive."""

    __slots__ = (
        "_life", "chose_rcvbuf", "chose_sndbuf", "cookie", "family", "filter", "keeps_stamp",
        "kind", "last_stamp_ns", "linger", "numbers", "options", "protocol", "rcvbuf",
        "rcvtimeo_ns", "read_shut", "sndbuf", "sndtimeo_ns", "so_error", "stack", "write_shut",
    )  # fmt: skip

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack
    ) -> None:
        super().__init__(location, O_RDWR)
        self.stack = stack
        self._life = stack.life
        self.cookie = 0
        self.filter: PacketFilter | None = None
        self.last_stamp_ns = -1
        """SIOCGSTAMP: when what was read last had come (CLOCK_REALTIME); 0 is not known any more,
        -1 nothing was read."""
        self.keeps_stamp = False
        """SIOCGSTAMP has asked once: SOCK_TIMESTAMP."""
        self.family = family
        self.kind = kind
        self.protocol = protocol
        if isinstance(self.inode, SocketInode):
            self.inode.protocol_name = protocol_name(family, kind, protocol)
        self.options: set[int] = set()
        self.numbers: dict[int, int] = {SO_RCVLOWAT: 1, SO_PEEK_OFF: -1}
        self.linger = (0, 0)
        self.rcvbuf = self.sndbuf = DEFAULT_BUFFER
        self.chose_rcvbuf = self.chose_sndbuf = False
        """SO_RCVBUF, SO_SNDBUF were set: SOCK_RCVBUF_LOCK, SOCK_SNDBUF_LOCK."""
        self.rcvtimeo_ns: int | None = None
        self.sndtimeo_ns: int | None = None
        self.so_error = 0
        """Pending error number, told once."""
        self.read_shut = self.write_shut = False

    # --- life

    def incref(self) -> FileDescription:
        """One more user; with the first one it is open."""
        if not self.refs:
            self.opened()
        return super().incref()

    def opened(self) -> None:
        """The stack knows it, until `release`."""
        self.stack.sockets[self] = None

    def sharing_changed(self) -> None:
        """SO_REUSEADDR was set or cleared."""

    def device_changed(self) -> None:
        """SO_BINDTODEVICE."""

    def release(self) -> None:
        """The last descriptor is closed, or nobody accepted it."""
        self.stack.sockets.pop(self, None)

    # --- what a family gives; each is an attempt that raises EAGAIN rather than sleep

    def bind(self, caller: Caller, address: bytes) -> Result:
        """bind(2)."""
        raise EOPNOTSUPP("bind")

    def connect(self, caller: Caller, address: bytes, nonblock: bool) -> Result:
        """connect(2)."""
        raise EOPNOTSUPP("connect")

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        raise EOPNOTSUPP("listen")

    def try_accept(self, caller: Caller) -> tuple[Socket, bytes]:
        """The next connection and the address of its other end."""
        raise EOPNOTSUPP("accept")

    def local_address(self) -> bytes:
        """getsockname(2)."""
        raise EOPNOTSUPP("getsockname")

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        raise ENOTCONN("getpeername")

    def named_peer(self) -> bytes:
        """SO_PEERNAME."""
        return self.peer_address()

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        raise EOPNOTSUPP("receive")

    def target(self, caller: Caller, address: bytes) -> Any:
        """What sendto's address names, found once before the attempts."""
        return address

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2); consumes from `source` what it took."""
        raise EOPNOTSUPP("send")

    def room_of(self, target: Any) -> WaitQueue | None:
        """A queue besides our own that tells when who is sent to takes more; None: the peer."""
        return None

    def shut(self, how: int) -> None:
        """shutdown(2) of a connected socket."""
        raise EOPNOTSUPP("shutdown")

    requests: ClassVar[Requests] = SOCKETS
    options_known: ClassVar[Options] = SOCKET
    """Whoever asks for another one gets what `no_setter` and `no_getter` give."""

    def no_setter(self, level: int, name: int, value: bytes) -> Errno:
        """What setsockopt(2) answers to an option that is not known, or only read."""
        return ENOPROTOOPT(f"level {level} option {name}")

    def no_getter(self, level: int, name: int) -> Errno:
        """The same of getsockopt(2)."""
        return ENOPROTOOPT(f"level {level} option {name}")

    @property
    def listening(self) -> bool:
        """SO_ACCEPTCONN."""
        return False

    # --- sleeping, written once

    def take_error(self) -> None:
        """Raise and forget the pending error."""
        if self.so_error:
            number, self.so_error = self.so_error, 0
            raise from_number(number)

    def wait_for(
        self,
        attempt: Callable[[], T],
        events: int,
        timeout_ns: int | None,
        nonblock: bool,
        caller: Caller,
    ) -> Any:
        """`attempt` now, or the sleep that repeats it; EAGAIN when non-blocking or timed out."""
        try:
            return attempt()
        except EAGAIN:
            if nonblock:
                raise
        return self._sleep(attempt, events, timeout_ns, caller)

    def _sleep(
        self, attempt: Callable[[], T], events: int, timeout_ns: int | None, caller: Caller
    ) -> SocketSleep:
        deadline = deadline_of(caller, timeout_ns)
        return SocketSleep(attempt, self.queue, events, self, deadline_ns=deadline)

    def nonblock(self, flags: int) -> bool:
        """Whether an operation with MSG_* flags may not sleep."""
        return bool(self.flags & O_NONBLOCK or flags & MSG_DONTWAIT)

    def receive_message(self, caller: Caller, dest: Dest, flags: int) -> Any:
        """recvmsg(2): a `Received` or the sleep that gives one.

        A stream that has to wait goes on until MSG_WAITALL or SO_RCVLOWAT is satisfied.
        """
        if dest.count < dest.wanted and self.keeps_unread:
            dest = ShortDest(dest)
        if self.family == AF_UNIX:
            flags &= ~MSG_ERRQUEUE
        elif flags & MSG_ERRQUEUE and not self.has_error_queue:
            raise EAGAIN("the error queue is empty")
        if self.nonblock(flags) or flags & MSG_ERRQUEUE:
            return self.try_receive(dest, flags)
        wanted = dest.count
        enough = wanted if flags & MSG_WAITALL else min(wanted, self.numbers[SO_RCVLOWAT])
        if flags & MSG_PEEK and flags & MSG_WAITALL and self.short_of(wanted):
            return self._peek_all(caller, dest, flags)
        if self.kind == SOCK_STREAM and enough > 1 and not flags & (MSG_PEEK | MSG_OOB):
            return ReceiveEnough(self, caller, dest, flags, enough).now_or_later()
        if flags or not self.has_to_wait():
            try:
                return self.receive_or_end(dest, flags)
            except EAGAIN:
                pass
        attempt = partial(self.receive_or_end, dest, flags)
        return self._sleep(attempt, READABLE, self.rcvtimeo_ns, caller)

    def has_to_wait(self) -> bool:
        """A receive without flags is bound to end in EAGAIN. False: perhaps not."""
        return False

    def receive_or_end(self, dest: Dest, flags: int) -> Received:
        """A receive that may wait does not wait for what was shut down."""
        try:
            return self.try_receive(dest, flags)
        except EAGAIN:
            if self.read_shut and not flags & MSG_OOB:
                return Received(0)
            raise

    def _peek_all(self, caller: Caller, dest: Dest, flags: int) -> Sleep:
        """A peek with MSG_WAITALL waits until all that it wants is in the queue."""

        def attempt() -> None:
            if self.short_of(dest.count):
                raise EAGAIN("more may come")

        def end(finish: Callable[[], Any]) -> Received:
            try:
                finish()
            except (Errno, Interrupted):
                if self.short_of(1):
                    raise
            return self.receive_or_end(dest, flags)

        return self._sleep(attempt, READABLE, self.rcvtimeo_ns, caller).ended(end)

    def short_of(self, wanted: int) -> bool:
        """Whether a peek for so many bytes has to wait for more."""
        return False

    def stops_here(self) -> bool:
        """A receive of a stream ends early here: the urgent mark."""
        return False

    def send_message(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> Any:
        """sendmsg(2): a count or a sleep; a stream goes on until all is sent."""
        if source.count < source.wanted:
            raise EFAULT("a part of the message")
        if flags & MSG_ZEROCOPY and SO_ZEROCOPY in self.options and source.count:
            sent = self.send_message(caller, source, target, flags & ~MSG_ZEROCOPY, ancillary)
            return continued(sent, self.copied)
        total = source.count
        nonblock = self.nonblock(flags)
        try:
            done = self.try_send(caller, source, target, flags, ancillary)
        except EAGAIN:
            if nonblock:
                raise
            return SendRest(self, caller, source, target, flags, ancillary)
        except EPIPE:
            self.broken_pipe(caller, flags)
            raise
        if done == total or nonblock or self.kind != SOCK_STREAM:
            return done
        return SendRest(self, caller, source, target, flags, None).go_on(done)

    def copied(self, sent: int) -> int:
        """So many bytes went with MSG_ZEROCOPY."""
        return sent

    def count_sent(self, caller: Caller | None, size: int) -> int:
        """So many bytes leave the sandbox, for the job of who sends them. Gives how many."""
        if caller is not None and caller.group.job is not None:
            caller.group.job.sent += size
        return size

    def broken_pipe(self, caller: Caller, flags: int) -> None:
        """SIGPIPE for a stream whose other end is gone, unless MSG_NOSIGNAL."""
        if not flags & MSG_NOSIGNAL and self.kind == SOCK_STREAM:
            caller.send_signal(SIGPIPE)

    def accept(self, caller: Caller, nonblock: bool) -> Any:
        """accept(2): (socket, address) or the sleep that gives it."""
        return self.wait_for(
            lambda: self._accept_or_end(caller, nonblock),
            EPOLLIN | EPOLLHUP, self.rcvtimeo_ns, nonblock, caller,
        )  # fmt: skip

    def _accept_or_end(self, caller: Caller, nonblock: bool) -> tuple[Socket, bytes]:
        try:
            server, peer = self.try_accept(caller)
        except EAGAIN:
            if self.read_shut and not nonblock:
                raise EINVAL("shut down") from None
            raise
        server.inode.uid, server.inode.gid = caller.creds.fsuid, caller.creds.fsgid
        return server, peer

    # --- as a file

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2) is recv(2) without flags; nothing is read of nothing."""
        if not dest.count:
            return 0
        if not rwf and self._begins_with_sleep(dest):
            attempt = partial(self._read_or_end, dest)
            return self._sleep(attempt, READABLE, self.rcvtimeo_ns, caller)
        flags = MSG_DONTWAIT if rwf & RWF_NOWAIT else 0
        got = self.receive_message(caller, dest, flags)
        return got.count if isinstance(got, Received) else got.then(COUNT)

    def _begins_with_sleep(self, dest: Dest) -> bool:
        """A plain receive has to wait, and ends with whatever comes."""
        return (
            self.has_to_wait()
            and not self.flags & O_NONBLOCK
            and dest.count == dest.wanted
            and self.numbers[SO_RCVLOWAT] <= 1
        )

    def _read_or_end(self, dest: Dest) -> int:
        return self.receive_or_end(dest, 0).count

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2) is send(2) without flags."""
        result: Result = self.send_message(
            caller, source, None, MSG_DONTWAIT if rwf & RWF_NOWAIT else 0, None
        )
        return result

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2)."""
        raise ESPIPE("socket")

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """ioctl(2)."""
        return socket_ioctl(self, caller, request, argument)

    def shutdown(self, how: int) -> None:
        """shutdown(2). Raises: EINVAL, ENOTCONN."""
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise EINVAL(f"how {how}")
        self.shut(how)

    # --- options

    def value_size(self, caller: Caller, level: int, name: int, size: int) -> int:
        """How much of a value setsockopt(2) reads. Raises: what the option looks at before."""
        row = self.options_known.find((level, name))
        if row is None or row.reads is None:
            return min(size, MOST_READ)
        return row.reads(row, self, caller, size)

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """setsockopt(2)."""
        row = self.options_known.find((level, name))
        if row is None or row.setter is None:
            raise self.no_setter(level, name, value)
        row.setter(row, self, caller, value)
        self.queue.notify()  # less may be enough now: SO_RCVLOWAT

    def option(
        self, caller: Caller, level: int, name: int, size: int
    ) -> bytes | Counted | Question:
        """getsockopt(2): the value, at most `size` bytes of it."""
        row = self.options_known.find((level, name))
        if row is None or row.getter is None:
            raise self.no_getter(level, name)
        value = row.getter(row, self, caller, size)
        return value[:size] if isinstance(value, bytes) else value

    @property
    def peek_offset(self) -> bool:
        """SO_PEEK_OFF works."""
        return self.family == AF_UNIX

    @property
    def has_error_queue(self) -> bool:
        """MSG_ERRQUEUE may find something."""
        return False

    def urge(self) -> None:
        """Urgent data has come: SIGURG for the owner. send_sigurg()."""
        send = self.stack.kernel.vfs.send_urgent
        if self.owner[1] and send is not None:
            send(self)
