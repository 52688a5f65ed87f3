"""AF_UNIX: names and connections of stream, datagram and seqpacket sockets. unix(7), af_unix.c.

Names are inodes (`Inode.bound`) or entries of the abstract name space, which each type has for
itself. What is in flight counts against the sender's SO_SNDBUF, as in Linux. How bytes move is in
`unix_data.py`.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)
from sentry.abi.socket import (
    AF_UNIX,
    AF_UNSPEC,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_PASSCRED,
    SO_PASSPIDFD,
    SO_PASSSEC,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.abi.stat import S_IFSOCK
from sentry.ahead import mypyc_attr
from sentry.auth.permissions import MAY_WRITE
from sentry.errors import (
    EADDRINUSE,
    EAGAIN,
    ECONNREFUSED,
    ECONNRESET,
    EEXIST,
    EINVAL,
    EISCONN,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    EPROTOTYPE,
    Errno,
)
from sentry.net import unix_data
from sentry.net.message import Ancillary, Received
from sentry.net.socket import COMES, Socket
from sentry.net.socket_sleeps import SocketSleep, deadline_of
from sentry.net.sockfs import socket_location
from sentry.net.sysctls import longest_backlog, longest_queue
from sentry.net.unix_address import format_address, parse_address
from sentry.net.unix_flights import flights
from sentry.net.unix_options import REQUESTS, UNIX
from sentry.net.unix_segment import Segment, Ucred
from sentry.vfs.access import check_inode
from sentry.vfs.file import Caller, Dest, Result, Source
from sentry.vfs.names import mknod, unlink
from sentry.vfs.walk import resolve
from sentry.wait.again import Keeping, kept
from sentry.wait.queue import Entry, WaitQueue

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location

NAMES: Final = 0x100000
"""How many names of autobind there are."""

PASSING: Final = frozenset({SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC})
"""Options that an accepted socket inherits."""

_MADE_IN_VAIN: Final = "made in vain"
"""Key of a call that made a name for a socket which has one already."""


class Served(Protocol):
    """A program's socket that the host knows, too: sentry.net.unix_served."""

    def listen(self, backlog: int, creds: Credentials) -> None: ...
    def accept(self, caller: Caller) -> UnixSocket: ...
    def waits(self) -> bool: ...
    def shut(self, how: int) -> None: ...
    def close(self) -> None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class UnixSocket(Socket):
    """One end."""

    __slots__ = (
        "_accepts", "_backlog", "_full", "_released", "bound_inode", "connected", "name",
        "own_creds", "peer", "peer_creds", "peer_groups", "pending", "queued", "room", "segments",
        "sent_charge", "served", "urgent",
    )  # fmt: skip
    options_known: ClassVar = UNIX
    requests: ClassVar = REQUESTS
    tells: ClassVar = COMES
    is_outside: ClassVar = False
    """Behind it is a service of the host: `unix_host.HostEnd`."""

    def take(self, source: Source) -> int:
        """Bytes for that service."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Whether it takes more."""
        return True

    def told(self) -> None:
        """The other end has shut down a direction."""

    def __init__(self, location: Location, kind: int, stack: Stack) -> None:
        super().__init__(location, AF_UNIX, kind, 0, stack)
        self.name: bytes | None = None
        """sun_path as bound (abstract ones begin with NUL); None: unnamed."""
        self.bound_inode: Any = None
        self.peer: UnixSocket | None = None
        self.connected = False
        """TCP_ESTABLISHED: it stays so when the other end has gone."""
        self.peer_creds: Ucred | None = None
        self.peer_groups: tuple[int, ...] = ()
        self.segments: deque[Segment] = deque()
        self.queued = 0
        self.sent_charge = 0
        """What we have sent and nobody has read."""
        self.urgent: Segment | None = None
        """Out-of-band data that is not read yet."""
        self._accepts = False
        self._backlog = longest_queue(stack) if kind == SOCK_DGRAM else 0
        """Connections that may wait, or datagrams of who is not connected: sk_max_ack_backlog."""
        self.room = WaitQueue()
        """Who connects waits here for a place in the backlog; who sends datagrams, for one in the
        queue."""
        self._full: tuple[UnixSocket, Entry] | None = None
        """Whose queue was full, and where we hear that it is not."""
        self.pending: deque[UnixSocket] = deque()
        """Connections that wait for accept."""
        self._released = False
        self.served: Served | None = None
        """Who of the host may come, where its name is there, too."""

    def fdinfo(self) -> str:
        """Descriptors that wait to be received: unix_show_fdinfo()."""
        return f"scm_fds: {sum(len(s.files) for s in self.segments)}\n"

    # --- names

    def local_address(self) -> bytes:
        """struct sockaddr_un."""
        return format_address(self.name)

    def peer_address(self) -> bytes:
        """The address of the other end."""
        if self.peer is None:
            raise ENOTCONN("no peer")
        return format_address(self.peer.name)

    def bind(self, caller: Caller, address: bytes) -> Result:
        """bind(2): a new inode, an abstract name, or (address of the family alone) any free one.

        The inode has the mode that fchmod(2) gave the socket, less the umask: unix_bind_bsd().
        """
        name = parse_address(address, empty_ok=True)
        if not name:
            if self.name is None:
                self.autobind()
            return 0
        if name[0] == 0:
            if self.name is not None:
                raise EINVAL("bound already")
            if (self.kind, name) in self.stack.abstract:
                raise EADDRINUSE(f"{name!r}")
            self.stack.abstract[self.kind, name] = self
            self.name = name
            return 0
        if kept(_MADE_IN_VAIN) is None:
            try:
                place = mknod(caller, AT_FDCWD, name, self.inode.mode, 0, self.kind)
            except EEXIST:
                raise EADDRINUSE(f"{name!r}") from None
            if self.name is None:
                self.bound_inode = place.dentry.inode
                self.bound_inode.bound = self
                served = self.bound_inode.take_served()
                if served is not None:
                    self.served = _serve(self, caller, served)
                self.name = name + b"\0"
                return 0
        with Keeping(_MADE_IN_VAIN, True):
            unlink(caller, AT_FDCWD, name)
        raise EINVAL("bound already")

    def autobind(self) -> None:
        """A free abstract name of five hexadecimal digits, which nobody foresees."""
        first = int.from_bytes(os.urandom(4)) % NAMES
        for number in range(first, first + NAMES):
            name = b"\0%05x" % (number % NAMES)
            if (self.kind, name) not in self.stack.abstract:
                self.stack.abstract[self.kind, name] = self
                self.name = name
                return
        raise EADDRINUSE("no abstract name is free")

    def find(self, caller: Caller, name: bytes) -> Any:
        """Who has a name; a place where a service of the host listens is its inode.

        Raises: ECONNREFUSED, EPROTOTYPE, and what the path walk raises.
        """
        if name[0] == 0:
            found = self.stack.abstract.get((self.kind, name))
        else:
            place = resolve(caller, AT_FDCWD, name)
            inode = place.dentry.inode
            check_inode(caller.creds, inode, MAY_WRITE)
            if inode.kind != S_IFSOCK:
                raise ECONNREFUSED(f"{name!r} is no socket")
            found = inode.bound
            if found is None and inode.is_service:
                return inode
        if not isinstance(found, UnixSocket) or found._released:
            raise ECONNREFUSED(f"{name!r}")
        if found.kind != self.kind:
            raise EPROTOTYPE(f"{name!r}")
        return found

    # --- connections

    def pair(self, other: UnixSocket, caller: Caller) -> None:
        """socketpair(2)."""
        for one, two in ((self, other), (other, self)):
            one.peer = two
            one.connected = self.kind != SOCK_DGRAM
            one.learn(ucred(caller), tuple(caller.creds.groups))

    def learn(self, creds: Ucred | None, groups: tuple[int, ...]) -> None:
        """SO_PEERCRED, SO_PEERGROUPS."""
        self.peer_creds = creds
        self.peer_groups = groups

    def connect(self, caller: Caller, address: bytes, nonblock: bool) -> Result:
        """connect(2)."""
        if self.kind == SOCK_DGRAM:
            return self._connect_dgram(caller, address)
        name = parse_address(address)
        if self._wants_name() and self.name is None:
            self.autobind()
        found = self.find(caller, name)
        if not isinstance(found, UnixSocket):
            return _connect_outside(self, caller, name, found)
        server = UnixSocket(socket_location(caller), self.kind, self.stack)
        creds, groups = ucred(caller), tuple(caller.creds.groups)

        def attempt() -> int:
            if not found._accepts or found._released or found.read_shut:
                raise ECONNREFUSED(f"{name!r} does not listen")
            if len(found.pending) > found._backlog:
                raise EAGAIN("backlog is full")
            if self.connected:
                raise EISCONN("connected")
            if self._accepts:
                raise EINVAL("listening")
            server.name = found.name
            self.peer, server.peer = server, self
            self.connected = server.connected = True
            self.learn(found.peer_creds, found.peer_groups)
            server.learn(creds, groups)
            found.pending.append(server)
            found.queue.notify(EPOLLIN | EPOLLRDNORM)
            self.queue.notify(EPOLLOUT)
            return 0

        try:
            return attempt()
        except EAGAIN:
            if nonblock:
                raise
        deadline = deadline_of(caller, self.sndtimeo_ns)
        return SocketSleep(attempt, found.room, EPOLLOUT, self, deadline_ns=deadline)

    def _connect_dgram(self, caller: Caller, address: bytes) -> int:
        if len(address) < 2:
            raise EINVAL("sockaddr_un")
        if struct.unpack_from("<H", address)[0] == AF_UNSPEC:
            self.turn_to(None)
            return 0
        name = parse_address(address)
        if self._wants_name() and self.name is None:
            self.autobind()
        found = self.find(caller, name)
        if not isinstance(found, UnixSocket):
            return _connect_outside(self, caller, name, found)
        if found.peer is not None and found.peer is not self:
            raise EPERM("it is connected elsewhere")
        self.turn_to(found)
        return 0

    def turn_to(self, peer: UnixSocket | None) -> None:
        """Another peer, or none. What waits to be read is lost if there was one, and who was
        connected to us hears of that: unix_dgram_disconnected()."""
        before, self.peer = self.peer, peer
        if before is not None and before is not peer:
            if self.segments and before.peer is self:
                before.so_error = ECONNRESET.number
                before.queue.notify(EPOLLERR)
            while self.segments:
                unix_data.discard(self, self.segments[0])
            if before.is_outside:
                before.hung_up(False)
        self.queue.notify(EPOLLOUT)

    def _wants_name(self) -> bool:
        return bool(self.options & {SO_PASSCRED, SO_PASSPIDFD})

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        if self.kind == SOCK_DGRAM:
            raise EOPNOTSUPP("datagram")
        if self.name is None or self.connected:
            raise EINVAL("not bound, or connected")
        if self.served is not None:
            self.served.listen(backlog, caller.creds)
        self._accepts = True
        self._backlog = min(backlog & 0xFFFFFFFF, longest_backlog(self.stack))
        self.learn(ucred(caller), tuple(caller.creds.groups))
        self.room.notify()

    @property
    def listening(self) -> bool:
        """SO_ACCEPTCONN."""
        return self._accepts

    def try_accept(self, caller: Caller) -> tuple[Socket, bytes]:
        """accept(2)."""
        if self.kind == SOCK_DGRAM:
            raise EOPNOTSUPP("datagram")
        if not self._accepts:
            raise EINVAL("not listening")
        if self.pending:
            server = self.pending.popleft()
        elif self.served is not None:
            server = self.served.accept(caller)
        else:
            raise EAGAIN("no connection")
        server.options |= self.options & PASSING
        self.room.notify()
        return server, format_address(server.peer.name if server.peer is not None else None)

    # --- data

    def target(self, caller: Caller, address: bytes) -> Any:
        """sendto(2) with an address: for datagrams only; an empty one is none."""
        if not address:
            return None
        if self.kind == SOCK_STREAM:
            raise EISCONN("stream") if self.connected else EOPNOTSUPP("stream")
        if self.kind == SOCK_SEQPACKET:
            return None
        name = parse_address(address)
        if self.write_shut:
            raise EPIPE("shut down")
        found = self.find(caller, name)
        if not isinstance(found, UnixSocket):
            raise ECONNREFUSED("a service of the host has to be connected to")
        return found

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2)."""
        if self.peer is not None and self.peer.is_outside:
            if self.write_shut:
                raise EPIPE("shut down")
            return self.peer.take(source)
        return unix_data.send(self, caller, source, target, flags, ancillary)

    def room_of(self, target: Any) -> WaitQueue | None:
        """Of a datagram's receiver."""
        return target.room if isinstance(target, UnixSocket) else None

    @property
    def is_full(self) -> bool:
        """Datagrams of who is not connected find no place: unix_recvq_full()."""
        return len(self.segments) > self._backlog

    def hear_of_place(self, peer: UnixSocket) -> None:
        """Our queue is to tell when that of `peer` is not full: unix_dgram_peer_wake_me()."""
        if self._full is None or self._full[0] is not peer:
            self._hear_no_more()
            self._full = peer, peer.room.add(self._place_came, EPOLLOUT)

    def _hear_no_more(self) -> None:
        if self._full is not None:
            (peer, entry), self._full = self._full, None
            peer.room.remove(entry)

    def _place_came(self, events: int) -> None:
        self._hear_no_more()
        self.queue.notify(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)

    def has_to_wait(self) -> bool:
        """Nothing there, and nothing wrong."""
        quiet = not (self.segments or self.so_error or self.read_shut)
        return quiet and (self.connected or self.kind == SOCK_DGRAM)

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        return unix_data.receive(self, dest, flags)

    # --- end

    def shut(self, how: int) -> None:
        """shutdown(2): the other end sees it, the other way round."""
        if how in (SHUT_RD, SHUT_RDWR):
            self.read_shut = True
        if how in (SHUT_WR, SHUT_RDWR):
            self.write_shut = True
        peer = self.peer
        if peer is not None and self.kind != SOCK_DGRAM:
            if how in (SHUT_WR, SHUT_RDWR):
                peer.read_shut = True
            if how in (SHUT_RD, SHUT_RDWR):
                peer.write_shut = True
            peer.told()
            peer.queue.notify()
        if self.served is not None:
            self.served.shut(how)
        self.queue.notify()
        self.room.notify()

    @property
    def gone(self) -> bool:
        """The last descriptor is closed."""
        return self._released

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        self._released = True
        self._hear_no_more()
        if self.served is not None:
            self.served.close()
        if self.bound_inode is not None:
            self.bound_inode.bound = None
        elif self.name is not None and self.stack.abstract.get((self.kind, self.name)) is self:
            del self.stack.abstract[self.kind, self.name]
        peer, self.peer = self.peer, None
        unread = bool(self.segments)
        while self.segments:
            unix_data.discard(self, self.segments[0])
        if peer is not None and (self.kind != SOCK_DGRAM or peer.is_outside):
            peer.hung_up(unread)
        if self.pending:
            waiting, self.pending = self.pending, deque()
            self.stack.kernel.vfs.leftovers.begin(waiting, _refuse)
        self.queue.notify()
        self.room.notify()
        flights(self.stack).socket_closed()

    def hung_up(self, unread: bool) -> None:
        """The other end is closed; what we sent and it did not read is a reset."""
        self.read_shut = self.write_shut = True
        if unread:
            self.so_error = ECONNRESET.number
        self.told()
        self.queue.notify()

    def poll(self) -> int:
        """unix_poll(), unix_dgram_poll()."""
        events = EPOLLERR if self.so_error else 0
        if self.read_shut:
            events |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM
            if self.write_shut:
                events |= EPOLLHUP
        if self.segments or self.pending or (self.served is not None and self.served.waits()):
            events |= EPOLLIN | EPOLLRDNORM
        if self.urgent is not None:
            events |= EPOLLPRI
        if self.kind != SOCK_DGRAM and not self.connected and not self._accepts:
            events |= EPOLLHUP
        if not self._accepts and self._writable():
            events |= EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND
        return events

    def _writable(self) -> bool:
        if self.sent_charge * 4 > self.sndbuf:
            return False
        peer = self.peer
        if self.kind == SOCK_DGRAM and peer is not None and peer.peer is not self:
            if peer.is_full:
                self.hear_of_place(peer)
                return False
            return True
        return peer is None or peer.has_room()

    # --- requests and options

    def queues(self) -> tuple[int, int]:
        """For diagnostics: bytes (of a listener: connections) that wait, and what is unsent."""
        if self._accepts:
            return len(self.pending), self._backlog
        return self.queued, self.sent_charge

    def no_setter(self, level: int, name: int, value: bytes) -> Errno:
        """There is no other level."""
        return EOPNOTSUPP("level") if level != SOL_SOCKET else super().no_setter(level, name, value)

    def no_getter(self, level: int, name: int) -> Errno:
        """The same."""
        return EOPNOTSUPP("level") if level != SOL_SOCKET else super().no_getter(level, name)


def _connect_outside(sock: UnixSocket, caller: Caller, name: bytes, place: Any) -> int:
    from sentry.net.unix_host import connect  # noqa: PLC0415  few containers have such a socket

    return connect(sock, caller, name, place)


def _serve(sock: UnixSocket, caller: Caller, served: Any) -> Served | None:
    from sentry.net.unix_served import serve  # noqa: PLC0415  few containers have such a socket

    return serve(sock, caller, served)


def _refuse(sock: UnixSocket) -> None:
    """A connection that nobody accepts any more."""
    other = sock.peer
    sock.release()
    if other is not None:
        other.so_error = ECONNRESET.number
        other.queue.notify()


def ucred(caller: Caller) -> Ucred:
    """pid, uid, gid of a task."""
    task: Any = caller
    return (task.group.tgid, caller.creds.euid, caller.creds.egid)
