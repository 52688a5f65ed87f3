"""AF_UNIX: stream, datagram and seqpacket sockets. unix(7), net/unix/af_unix.c.

Names are inodes (`Inode.bound`) or entries of the abstract name space. A stream is a queue of
segments per direction; a datagram keeps its sender's address. What is in flight counts against the
sender's SO_SNDBUF, as in Linux.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.ioctl import FIONREAD, TIOCOUTQ
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRNORM,
)
from sentry.abi.socket import (
    AF_UNIX,
    AF_UNSPEC,
    MSG_EOR,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_PASSCRED,
    SO_PEEK_OFF,
    SO_PEERCRED,
    SO_PEERGROUPS,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.abi.stat import S_IFSOCK
from sentry.auth.permissions import MAY_WRITE
from sentry.errors import (
    EADDRINUSE,
    EAGAIN,
    ECONNREFUSED,
    ECONNRESET,
    EEXIST,
    EINVAL,
    EISCONN,
    EMSGSIZE,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    EPROTOTYPE,
)
from sentry.net.socket import Ancillary, Received, Socket, socket_location
from sentry.vfs.access import check_inode
from sentry.vfs.file import Caller, Dest, Source
from sentry.vfs.names import mknod
from sentry.vfs.walk import resolve

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location

PATH_MAX: Final = 108
MAX_DGRAM_QUEUE: Final = 10
"""net.unix.max_dgram_qlen."""
SOMAXCONN: Final = 4096
MAX_SEGMENT: Final = 65536
OVERHEAD: Final = 256
"""What a segment costs beside its bytes (struct sk_buff)."""

Ucred = tuple[int, int, int]


class Segment:
    """Bytes in flight with what belongs to them."""

    __slots__ = ("address", "ancillary", "charge", "creds", "data", "sender")

    def __init__(
        self, data: bytes, sender: UnixSocket, creds: Ucred, ancillary: Ancillary | None
    ) -> None:
        self.data = data
        self.sender = sender
        self.address = sender.local_address() if sender.name is not None else b""
        self.creds = creds
        self.ancillary = ancillary
        self.charge = len(data) + OVERHEAD


class UnixSocket(Socket):
    """One end."""

    __slots__ = (
        "_accepts", "_backlog", "_pending", "_released", "bound_inode", "name", "peer",
        "peer_creds", "queued", "reset", "segments", "sent_charge", "space", "write_closed_by_peer",
    )  # fmt: skip

    def __init__(self, location: Location, kind: int, stack: Stack) -> None:
        super().__init__(location, AF_UNIX, kind, 0, stack)
        self.space = stack.abstract
        """The abstract name space."""
        self.name: bytes | None = None
        """sun_path as bound (abstract ones begin with NUL); None: unnamed."""
        self.bound_inode: Any = None
        self.peer: UnixSocket | None = None
        self.peer_creds: Ucred = (0, 0xFFFFFFFF, 0xFFFFFFFF)
        self.segments: deque[Segment] = deque()
        self.queued = 0
        self.sent_charge = 0
        """What we have sent and nobody has read."""
        self._accepts = False
        self._backlog = 0
        self._pending: deque[UnixSocket] = deque()
        self._released = False
        self.write_closed_by_peer = False
        self.reset = False

    # --- names

    def local_address(self) -> bytes:
        """struct sockaddr_un."""
        return format_address(self.name)

    def peer_address(self) -> bytes:
        """The address of the other end."""
        if self.peer is None:
            raise ENOTCONN("no peer")
        return format_address(self.peer.name)

    async def bind(self, caller: Caller, address: bytes) -> None:
        """bind(2): a new inode, an abstract name, or (address of the family alone) any free one."""
        name = parse_address(address, empty_ok=True)
        if self.name is not None:
            raise EINVAL("bound already")
        if not name:
            self._autobind()
        elif name[0] == 0:
            if name in self.space:
                raise EADDRINUSE(f"{name!r}")
            self.space[name] = self
            self.name = name
        else:
            try:
                place = await mknod(caller, AT_FDCWD, name, S_IFSOCK | 0o777, 0)
            except EEXIST:
                raise EADDRINUSE(f"{name!r}") from None
            self.bound_inode = place.dentry.inode
            self.bound_inode.bound = self
            self.name = name + b"\0"

    def _autobind(self) -> None:
        for number in range(0x100000):
            name = b"\0%05x" % number
            if name not in self.space:
                self.space[name] = self
                self.name = name
                return
        raise EADDRINUSE("no abstract name is free")

    async def _find(self, caller: Caller, name: bytes) -> UnixSocket:
        """Who has a name. Raises: ECONNREFUSED, EPROTOTYPE, and what the path walk raises."""
        if not name:
            raise EINVAL("no name")
        if name[0] == 0:
            found = self.space.get(name)
        else:
            place = await resolve(caller, AT_FDCWD, name)
            inode = place.dentry.inode
            check_inode(caller.creds, inode, MAY_WRITE)
            if inode.kind != S_IFSOCK:
                raise ECONNREFUSED(f"{name!r} is no socket")
            found = inode.bound
        if found is None or found._released:
            raise ECONNREFUSED(f"{name!r}")
        if found.kind != self.kind:
            raise EPROTOTYPE(f"{name!r}")
        return found

    # --- connections

    def pair(self, other: UnixSocket, creds: Ucred) -> None:
        """socketpair(2)."""
        self.peer, other.peer = other, self
        self.peer_creds = other.peer_creds = creds

    async def connect(self, caller: Caller, address: bytes, nonblock: bool) -> None:
        """connect(2)."""
        if self.kind == SOCK_DGRAM:
            if len(address) >= 2 and struct.unpack_from("<H", address)[0] == AF_UNSPEC:
                self._disconnect_dgram()
                return
            found = await self._find(caller, parse_address(address))
            if found.peer is not None and found.peer is not self:
                raise EPERM("it is connected elsewhere")
            self.peer = found
            self.queue.notify(EPOLLOUT)
            return
        name = parse_address(address)
        if self.peer is not None:
            raise EISCONN("connected")
        if self._accepts:
            raise EINVAL("listening")
        found = await self._find(caller, name)
        server = UnixSocket(found.anonymous(caller), self.kind, self.stack)
        creds = ucred(caller)

        def attempt() -> None:
            if not found._accepts or found._released or found.read_shut:
                raise ECONNREFUSED(f"{name!r} does not listen")
            if len(found._pending) > found._backlog:
                raise EAGAIN("backlog is full")
            server.name = found.name
            server.options |= found.options & {SO_PASSCRED}
            self.peer, server.peer = server, self
            self.peer_creds, server.peer_creds = found.peer_creds, creds
            found._pending.append(server)
            found.queue.notify(EPOLLIN | EPOLLRDNORM)

        done = self.wait_for(attempt, EPOLLOUT, self.sndtimeo_ns, nonblock, caller)
        if done is not None:
            entry = found.queue.add(self.queue.notify, EPOLLOUT)
            try:
                await done
            finally:
                found.queue.remove(entry)
        self.queue.notify(EPOLLOUT)

    def anonymous(self, caller: Caller) -> Location:
        """A place for a socket that accept will give."""
        return socket_location(caller)

    def _disconnect_dgram(self) -> None:
        self.peer = None
        self.queue.notify(EPOLLOUT)

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        if self.kind == SOCK_DGRAM:
            raise EOPNOTSUPP("datagram")
        if self.name is None or self.peer is not None:
            raise EINVAL("not bound, or connected")
        self._accepts = True
        self._backlog = min(backlog & 0xFFFFFFFF, SOMAXCONN)
        self.peer_creds = ucred(caller)
        self.queue.notify(EPOLLOUT)

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
        if not self._pending:
            if self.read_shut:
                raise EINVAL("shut down")
            raise EAGAIN("no connection")
        server = self._pending.popleft()
        self.queue.notify(EPOLLOUT)
        return server, format_address(server.peer.name if server.peer is not None else None)

    # --- data

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2)."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        peer = target if target is not None else self.peer
        if self.write_shut:
            raise EPIPE("shut down")
        if peer is None:
            if self.kind == SOCK_DGRAM:
                raise ENOTCONN("no destination")
            if self.write_closed_by_peer:
                raise EPIPE("the other end is closed")
            raise ENOTCONN("not connected")
        if self.kind == SOCK_STREAM:
            return self._send_stream(caller, peer, source, ancillary)
        return self._send_packet(caller, peer, source, ancillary)

    def _send_stream(
        self, caller: Caller, peer: UnixSocket, source: Source, ancillary: Ancillary | None
    ) -> int:
        if peer.read_shut:
            raise EPIPE("the other end does not read")
        done = 0
        while source.count:
            room = self.sndbuf - self.sent_charge - OVERHEAD
            if room <= 0:
                if done:
                    break
                raise EAGAIN("buffer is full")
            data = source.get(min(source.count, room, MAX_SEGMENT))
            self._deliver(peer, Segment(data, self, ucred(caller), ancillary if not done else None))
            done += len(data)
        return done

    def _send_packet(
        self, caller: Caller, peer: UnixSocket, source: Source, ancillary: Ancillary | None
    ) -> int:
        size = source.count
        if size > self.sndbuf - 32:
            raise EMSGSIZE(f"{size} bytes")
        if peer._released:
            if self.kind == SOCK_DGRAM and peer is self.peer:
                self.peer = None
            raise ECONNREFUSED("the other end is closed")
        if peer.read_shut:
            raise EPIPE("the other end does not read")
        if self.kind == SOCK_DGRAM and peer.peer is not None and peer.peer is not self:
            raise EPERM("it is connected elsewhere")
        full = self.sent_charge + size + OVERHEAD > self.sndbuf and self.sent_charge
        if full or (
            self.kind == SOCK_DGRAM and len(peer.segments) > MAX_DGRAM_QUEUE and peer is not self
        ):
            raise EAGAIN("queue is full")
        self._deliver(peer, Segment(source.get(size), self, ucred(caller), ancillary))
        return size

    def _deliver(self, peer: UnixSocket, segment: Segment) -> None:
        self.sent_charge += segment.charge
        peer.segments.append(segment)
        peer.queued += len(segment.data)
        peer.queue.notify(EPOLLIN | EPOLLRDNORM)

    async def target(self, caller: Caller, address: bytes) -> Any:
        """sendto(2) with an address: for datagrams only."""
        if self.kind == SOCK_DGRAM:
            return await self._find(caller, parse_address(address))
        if self.kind == SOCK_STREAM:
            if self.peer is not None:
                raise EISCONN("stream")
            raise EOPNOTSUPP("stream")
        return None

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        connected = self.kind == SOCK_DGRAM or self.peer is not None or self.write_closed_by_peer
        if not connected and (self._accepts or not self.segments):
            raise EINVAL("not connected") if self.kind == SOCK_STREAM else ENOTCONN("no peer")
        if not self.segments:
            if self.reset:
                self.reset = False
                raise ECONNRESET("unread data was dropped")
            if self.so_error:
                self.take_error()
            if self.read_shut or (self.kind != SOCK_DGRAM and self.write_closed_by_peer):
                return Received(0)
            raise EAGAIN("nothing there")
        if self.kind == SOCK_STREAM:
            return self._receive_stream(dest, flags)
        return self._receive_packet(dest, flags)

    def _receive_packet(self, dest: Dest, flags: int) -> Received:
        segment = self.segments[0]
        size = len(segment.data)
        taken = min(size, dest.count)
        dest.put(segment.data[:taken])
        out = MSG_TRUNC if taken < size else 0
        if self.kind == SOCK_SEQPACKET:
            out |= MSG_EOR
        result = Received(
            size if flags & MSG_TRUNC else taken, segment.address, out, self._carried(segment)
        )
        if flags & MSG_PEEK:
            result.ancillary = peeked(result.ancillary)
        else:
            self._consume(segment)
        return result

    def _receive_stream(self, dest: Dest, flags: int) -> Received:
        peek = bool(flags & MSG_PEEK)
        skip = self.numbers[SO_PEEK_OFF] if peek else -1
        skip, offset_moves = (max(skip, 0), skip >= 0)
        if flags & MSG_WAITALL and not peek and self.queued < dest.count and not self._ended():
            first = self.segments[0]
            if first.ancillary is None and not self.options & {SO_PASSCRED}:
                raise EAGAIN("not all there yet")
        result = Received(0)
        creds: Ucred | None = None
        for segment in list(self.segments):
            if skip >= len(segment.data):
                skip -= len(segment.data)
                continue
            if result.count and (
                segment.ancillary is not None
                or (creds != segment.creds and SO_PASSCRED in self.options)
            ):
                break
            part = segment.data[skip : skip + dest.count]
            skip = 0
            dest.put(part)
            result.count += len(part)
            creds = segment.creds
            if segment.ancillary is not None or SO_PASSCRED in self.options:
                result.ancillary = self._carried(segment)
            if not peek:
                if len(part) == len(segment.data):
                    self._consume(segment)
                else:
                    segment.data = segment.data[len(part) :]
                    segment.ancillary = None
                    self.queued -= len(part)
            if not dest.count or (result.ancillary is not None and result.ancillary.files):
                break
        if peek:
            result.ancillary = peeked(result.ancillary)
            if offset_moves:
                self.numbers[SO_PEEK_OFF] += result.count
            if not result.count and dest.count:
                raise EAGAIN("nothing beyond the peek offset")
        elif self.numbers[SO_PEEK_OFF] > 0:
            self.numbers[SO_PEEK_OFF] = max(0, self.numbers[SO_PEEK_OFF] - result.count)
        return result

    def _ended(self) -> bool:
        return self.read_shut or self.write_closed_by_peer

    def _carried(self, segment: Segment) -> Ancillary | None:
        """What the receiver is told: descriptors, and credentials if it asked for them."""
        files = segment.ancillary.files if segment.ancillary is not None else []
        creds = None
        if SO_PASSCRED in self.options:
            given = segment.ancillary.creds if segment.ancillary is not None else None
            creds = given or segment.creds
        return Ancillary(list(files), creds) if files or creds is not None else None

    def _consume(self, segment: Segment) -> None:
        self.segments.popleft()
        self.queued -= len(segment.data)
        sender = segment.sender
        sender.sent_charge -= segment.charge
        sender.queue.notify(EPOLLOUT | EPOLLWRNORM)
        if self.kind == SOCK_DGRAM:
            self.queue.notify(EPOLLOUT)

    # --- end

    def shut(self, how: int) -> None:
        """shutdown(2): the other end sees it."""
        peer = self.peer
        if (
            peer is None
            and not self.write_closed_by_peer
            and not (self.kind == SOCK_DGRAM or self._accepts)
        ):
            raise ENOTCONN("not connected")
        if how in (SHUT_RD, SHUT_RDWR):
            self.read_shut = True
        if how in (SHUT_WR, SHUT_RDWR):
            self.write_shut = True
        if peer is not None and self.kind != SOCK_DGRAM:
            if how in (SHUT_WR, SHUT_RDWR):
                peer.write_closed_by_peer = True
            if how in (SHUT_RD, SHUT_RDWR):
                peer.queue.notify()
            peer.queue.notify(EPOLLIN | EPOLLRDHUP | EPOLLHUP)
        self.queue.notify()

    def release(self) -> None:
        """The last descriptor is closed."""
        self._released = True
        if self.bound_inode is not None:
            self.bound_inode.bound = None
        elif self.name is not None and self.space.get(self.name) is self:
            del self.space[self.name]
        peer, self.peer = self.peer, None
        unread = bool(self.segments)
        while self.segments:
            segment = self.segments[0]
            self._consume(segment)
            drop_files(segment.ancillary)
        if peer is not None and self.kind != SOCK_DGRAM:
            peer.peer = None
            peer.write_closed_by_peer = True
            if unread:
                peer.reset = True
            peer.queue.notify()
        for waiting in self._pending:
            waiting.release()
        self._pending.clear()
        self.queue.notify()

    def poll(self) -> int:
        """unix_poll(), unix_dgram_poll()."""
        events = 0
        if self.so_error:
            events |= EPOLLERR
        if (self.kind != SOCK_DGRAM and self.write_closed_by_peer) or self.read_shut:
            events |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM
        gone = self.kind != SOCK_DGRAM and self.write_closed_by_peer and self.peer is None
        if gone or (self.read_shut and self.write_shut):
            events |= EPOLLHUP
        if self.segments or self._pending:
            events |= EPOLLIN | EPOLLRDNORM
        if (
            self.kind != SOCK_DGRAM
            and self.peer is None
            and not self.write_closed_by_peer
            and not self._accepts
        ):
            events |= EPOLLHUP
        if not self._accepts and self._writable():
            events |= EPOLLOUT | EPOLLWRNORM
        return events

    def _writable(self) -> bool:
        if self.sent_charge * 4 > self.sndbuf:
            return False
        peer = self.peer
        if self.kind == SOCK_DGRAM and peer is not None and peer.peer is not self:
            return len(peer.segments) <= MAX_DGRAM_QUEUE
        return True

    def queues(self) -> tuple[int, int]:
        """For diagnostics: bytes (of a listener: connections) that wait, and what is unsent."""
        if self._accepts:
            return len(self._pending), self._backlog
        return self.queued, self.sent_charge

    def own_ioctl(self, caller: Caller, request: int, argument: int) -> int | None:
        """SIOCINQ (of a datagram socket, the size of the next one), SIOCOUTQ, SIOCATMARK."""
        if request == FIONREAD:
            if self._accepts:
                raise EINVAL("listening")
            if self.kind != SOCK_DGRAM:
                value = self.queued
            else:
                value = len(self.segments[0].data) if self.segments else 0
        elif request == TIOCOUTQ:
            value = self.sent_charge
        else:
            return None
        caller.mm.write(argument, struct.pack("<i", value))
        return 0

    def family_option(self, caller: Caller, level: int, name: int, size: int) -> bytes:
        """Nothing beyond SOL_SOCKET."""
        raise ENOPROTOOPT(f"level {level}") if level != AF_UNIX else EOPNOTSUPP("SOL_UNIX")

    def set_family_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """Nothing beyond SOL_SOCKET."""
        raise EOPNOTSUPP(f"level {level}")

    def option(self, caller: Caller, level: int, name: int, size: int) -> bytes:
        """SO_PEERCRED and SO_PEERGROUPS beside the common ones."""
        if level == SOL_SOCKET and name == SO_PEERCRED:
            return struct.pack("<iII", *self.peer_creds)[:size]
        if level == SOL_SOCKET and name == SO_PEERGROUPS:
            return b""
        return super().option(caller, level, name, size)


def ucred(caller: Caller) -> Ucred:
    """pid, uid, gid of a task."""
    task: Any = caller
    return (task.group.tgid, caller.creds.euid, caller.creds.egid)


def peeked(ancillary: Ancillary | None) -> Ancillary | None:
    """A peek gives the receiver its own uses of the descriptors."""
    if ancillary is not None:
        for file in ancillary.files:
            file.incref()
    return ancillary


def drop_files(ancillary: Ancillary | None) -> None:
    """Descriptors that nobody received."""
    if ancillary is not None:
        for file in ancillary.files:
            file.decref()
        ancillary.files = []


def parse_address(address: bytes, *, empty_ok: bool = False) -> bytes:
    """sun_path: a path without its NUL, or an abstract name with its leading NUL. EINVAL."""
    if len(address) < 2 or len(address) > 2 + PATH_MAX:
        raise EINVAL("sockaddr_un")
    if struct.unpack_from("<H", address)[0] != AF_UNIX:
        raise EINVAL("family")
    name = address[2:]
    if not name:
        if empty_ok:
            return b""
        raise EINVAL("no name")
    return name if name[0] == 0 else name.split(b"\0", 1)[0]


def format_address(name: bytes | None) -> bytes:
    """struct sockaddr_un of a name, or of an unnamed socket."""
    return struct.pack("<H", AF_UNIX) + (name or b"")
