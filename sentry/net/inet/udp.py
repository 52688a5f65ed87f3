"""UDP on the loopback: udp(7)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)
from sentry.abi.socket import MSG_OOB, MSG_PEEK, MSG_TRUNC, SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_DGRAM
from sentry.errors import (
    EAGAIN,
    ECONNREFUSED,
    EDESTADDRREQ,
    EINVAL,
    EMSGSIZE,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.socket import Ancillary, Received
from sentry.vfs.file import Caller, Dest, Source

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location

MAX_DATAGRAM: Final = 65507
OVERHEAD: Final = 512
"""What a datagram costs of the receive buffer beside its bytes."""


class UdpSocket(InetSocket):
    """A datagram socket."""

    __slots__ = ("_charged", "_released", "packets")

    def __init__(
        self, location: Location, family: int, protocol: int, stack: Stack, uid: int
    ) -> None:
        super().__init__(location, family, SOCK_DGRAM, protocol, stack, uid)
        self.packets: deque[tuple[bytes, Endpoint]] = deque()
        self._charged = 0
        self._released = False

    @property
    def listening(self) -> bool:
        """Datagram sockets never do."""
        return False

    async def connect(self, caller: Caller, raw: bytes, nonblock: bool) -> None:
        """connect(2): whom to send to, and from whom to take."""
        if address.is_unspec(raw):
            self.remote = None
            return
        target = self.route(raw)
        self.need_port()
        self.remote = target
        if self.local.is_any:
            self.local = self.source_for(target)

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        raise EOPNOTSUPP("datagram")

    def try_accept(self, caller: Caller) -> Any:
        """accept(2)."""
        raise EOPNOTSUPP("datagram")

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        if self.remote is None:
            raise ENOTCONN("no peer")
        return address.pack(self.remote, self.family)

    # --- data

    async def target(self, caller: Caller, raw: bytes) -> Any:
        """Where sendto leads."""
        if address.is_unspec(raw) and self.family == 10:
            return None
        endpoint = self.route(raw)
        if not endpoint.port:
            raise EINVAL("port 0")
        return endpoint

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2): to whoever has the port; to nobody is an error for connected sockets."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        size = source.count
        if size > MAX_DATAGRAM:
            raise EMSGSIZE(f"{size} bytes")
        self.take_error()
        endpoint: Endpoint | None = target or self.remote
        if endpoint is None:
            raise EDESTADDRREQ("no destination")
        if self.write_shut:
            raise EPIPE("shut down")
        self.need_port()
        data = bytes(source.get(size)) if size else b""
        self.stack.counters["Udp.OutDatagrams"] += 1
        sender = self.source_for(endpoint)
        for holder in self.ports.holders(endpoint):
            if isinstance(holder, UdpSocket) and holder.takes_from(sender):
                holder.deliver(data, sender)
                return size
        self.stack.counters["Udp.NoPorts"] += 1
        if self.remote == endpoint:
            self.so_error = ECONNREFUSED.number
            self.queue.notify(EPOLLERR)
        return size

    def takes_from(self, sender: Endpoint) -> bool:
        """A connected socket hears its peer only."""
        return self.remote is None or self.remote == sender

    def deliver(self, data: bytes, sender: Endpoint) -> None:
        """A datagram comes; one too many is dropped."""
        if self.read_shut or (self._charged and self._charged + len(data) + OVERHEAD > self.rcvbuf):
            return
        self._charged += len(data) + OVERHEAD
        self.stack.counters["Udp.InDatagrams"] += 1
        self.packets.append((data, sender))
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        if not self.packets:
            self.take_error()
            if self.read_shut:
                return Received(0)
            raise EAGAIN("nothing there")
        data, sender = self.packets[0]
        taken = min(len(data), dest.count)
        dest.put(data[:taken])
        if not flags & MSG_PEEK:
            self.packets.popleft()
            self._charged -= len(data) + OVERHEAD
        cut = MSG_TRUNC if taken < len(data) else 0
        count = len(data) if flags & MSG_TRUNC else taken
        return Received(count, address.pack(sender, self.family), cut)

    # --- the rest

    def shut(self, how: int) -> None:
        """shutdown(2): of a connected socket."""
        if self.remote is None:
            raise ENOTCONN("no peer")
        self.read_shut |= how in (SHUT_RD, SHUT_RDWR)
        self.write_shut |= how in (SHUT_WR, SHUT_RDWR)
        self.queue.notify()

    def release(self) -> None:
        """The last descriptor is closed."""
        self._released = True
        self.packets.clear()
        self.drop_port()
        self.queue.notify()

    def poll(self) -> int:
        """datagram_poll()."""
        events = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND
        if self.so_error:
            events |= EPOLLERR
        if self.read_shut:
            events |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM
            if self.write_shut:
                events |= EPOLLHUP
        if self.packets:
            events |= EPOLLIN | EPOLLRDNORM
        return events

    def charged(self) -> int:
        """What lies in the receive buffer."""
        return self._charged

    def available(self) -> int:
        """FIONREAD: the size of the next datagram."""
        return len(self.packets[0][0]) if self.packets else 0

    def unsent(self) -> int:
        """TIOCOUTQ."""
        return 0
