"""What datagram sockets share: the queue of packets, the queue of errors, readiness."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
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
from sentry.abi.socket import (
    AF_INET6,
    IPPROTO_IP,
    MSG_ERRQUEUE,
    MSG_PEEK,
    MSG_TRUNC,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_PEEK_OFF,
)
from sentry.errors import EAGAIN, ECONNREFUSED, ENOTCONN, EOPNOTSUPP
from sentry.net.inet import address
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.inet.packet import told, unreachable
from sentry.net.packets import Packet
from sentry.net.socket import Ancillary, Received
from sentry.net.stamps import note

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, Dest

OVERHEAD: Final = 767
"""What a datagram costs of the receive buffer beside its bytes."""
MAX_ERRORS: Final = 64


class DatagramSocket(InetSocket):
    """UDP, raw and ping sockets."""

    __slots__ = ("_charged", "errors", "packets")

    def _open(self) -> None:
        self.packets: deque[Packet] = deque()
        self.errors: deque[tuple[Packet, int]] = deque()
        """IP_RECVERR: what was not delivered, and why."""
        self._charged = 0

    @property
    def listening(self) -> bool:
        """Datagram sockets never do."""
        return False

    @property
    def has_error_queue(self) -> bool:
        """IP_RECVERR."""
        return True

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        raise EOPNOTSUPP("datagram")

    def try_accept(self, caller: Caller) -> Any:
        """accept(2)."""
        raise EOPNOTSUPP("datagram")

    def peer_address(self) -> bytes:
        """getpeername(2): who is connected to port 0 has none."""
        if self.remote is None or not self.remote.port:
            raise ENOTCONN("no peer")
        return address.pack(self.remote, self.family)

    # --- receiving

    def shown(self, packet: Packet) -> bytes:
        """What the program gets to see of a packet."""
        return packet.data

    def deliver(self, packet: Packet) -> bool:
        """A datagram comes; one too many is dropped."""
        size = len(packet.data) + OVERHEAD
        if self._charged and self._charged + size > self.rcvbuf:
            return False
        self._charged += size
        self.packets.append(packet)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)
        return True

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_ERRQUEUE:
            return self._receive_error(dest)
        self.take_error()
        peek = bool(flags & MSG_PEEK)
        skip = max(self.numbers[SO_PEEK_OFF], 0) if peek else 0
        packet = None
        for candidate in self.packets:
            if skip < len(candidate.data) or not skip:
                packet = candidate
                break
            skip -= len(candidate.data)
        if packet is None:
            raise EAGAIN("nothing there")
        data = self.shown(packet)[skip:]
        taken = min(len(data), dest.count)
        if peek:
            dest.put(data[:taken])
            if self.numbers[SO_PEEK_OFF] >= 0:
                self.numbers[SO_PEEK_OFF] += taken
        else:
            self.packets.popleft()
            self._charged -= len(packet.data) + OVERHEAD
            dest.put(data[:taken])  # after a bad pointer it is lost, as in Linux
            if self.numbers[SO_PEEK_OFF] > 0:
                self.numbers[SO_PEEK_OFF] = max(0, self.numbers[SO_PEEK_OFF] - len(data))
            note(self, packet.stamp_ns)
        cut = MSG_TRUNC if taken < len(data) else 0
        records = told(self, packet)
        return Received(
            len(data) if flags & MSG_TRUNC else taken,
            address.pack(packet.source, self.family),
            cut,
            Ancillary(records=records) if records else None,
        )

    # --- errors

    def refused(self, packet: Packet) -> None:
        """Nobody has the port: ICMP says so, to who is connected to it or to nobody. udp_err()."""
        if self.remote is not None and self.remote != packet.target:
            return
        family_options = self.ipv6_options if self.family == AF_INET6 else self.ip_options
        name = abi.IPV6_RECVERR if self.family == AF_INET6 else abi.IP_RECVERR
        wanted = family_options[name] or self.ip_options[abi.IP_RECVERR]
        if wanted and len(self.errors) < MAX_ERRORS:
            self.errors.append((packet, ECONNREFUSED.number))
        if wanted or self.remote is not None:
            self.so_error = ECONNREFUSED.number
            self.queue.notify(EPOLLERR)

    def forget_errors(self) -> None:
        """IP_RECVERR was turned off."""
        self.errors.clear()

    def _receive_error(self, dest: Dest) -> Received:
        """MSG_ERRQUEUE: ip_recv_error()."""
        if not self.errors:
            raise EAGAIN("the error queue is empty")
        packet, number = self.errors.popleft()
        self.so_error = self.errors[0][1] if self.errors else 0
        taken = min(len(packet.data), dest.count)
        dest.put(packet.data[:taken])
        record = unreachable(packet, number, self.family)
        if record[0] != IPPROTO_IP and self.family != AF_INET6:
            record = (IPPROTO_IP, abi.IP_RECVERR, record[2])
        cut = MSG_TRUNC if taken < len(packet.data) else 0
        return Received(
            taken,
            address.pack(packet.target, self.family),
            MSG_ERRQUEUE | cut,
            Ancillary(records=[record]),
        )

    # --- the rest

    def shut(self, how: int) -> None:
        """shutdown(2): an unconnected socket is shut too, and ENOTCONN."""
        self.read_shut |= how in (SHUT_RD, SHUT_RDWR)
        self.write_shut |= how in (SHUT_WR, SHUT_RDWR)
        self.queue.notify()
        if self.remote is None:
            raise ENOTCONN("no peer")

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        self.packets.clear()
        self.errors.clear()
        self.drop_port()
        self.queue.notify()

    def poll(self) -> int:
        """datagram_poll()."""
        events = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND
        if self.so_error or self.errors:
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
        return len(self.packets[0].data) if self.packets else 0
