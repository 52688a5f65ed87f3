"""What datagram sockets share: the queue of packets, the queue of errors, readiness."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from sentry.abi import socket as abi
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
    AF_INET,
    AF_INET6,
    MSG_ERRQUEUE,
    MSG_PEEK,
    MSG_TRUNC,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_BINDTOIFINDEX,
    SO_BROADCAST,
    SO_PEEK_OFF,
    SO_RXQ_OVFL,
    SO_SELECT_ERR_QUEUE,
)
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EACCES,
    EAGAIN,
    ECONNREFUSED,
    EINVAL,
    ENETUNREACH,
    ENOTCONN,
    EOPNOTSUPP,
)
from sentry.net.inet import address, paths
from sentry.net.inet.address import LOOPBACK4, LOOPBACK6, Endpoint, is_group
from sentry.net.inet.error_queue import (
    SocketError,
    path_mtu_record,
    port_in,
    reported,
    unreachable,
    wants_errors,
)
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.inet.packet import Seen, told
from sentry.net.message import Ancillary, Received
from sentry.net.packets import Packet
from sentry.net.socket_options import U32
from sentry.net.stamps import Record, note, stamps
from sentry.wait.again import NotNow

if TYPE_CHECKING:
    from sentry.net.ip.seam import Failure
    from sentry.vfs.file import Caller, Dest, Source

OVERHEAD: Final = 767
"""What a datagram costs of the receive buffer beside its bytes."""


@mypyc_attr(allow_interpreted_subclasses=True)
class DatagramSocket(InetSocket):
    """UDP, raw and ping sockets."""

    __slots__ = ("_charged", "drops", "errors", "packets", "path_mtu")

    def _open(self) -> None:
        self.packets: deque[Packet] = deque()
        self.errors: deque[SocketError] = deque()
        """IP_RECVERR, IPV6_RECVERR: what was not delivered, and why."""
        self.path_mtu: tuple[Endpoint, int] | None = None
        """What IPV6_RECVPATHMTU tells next: where a datagram did not fit, and the MTU there."""
        self._charged = 0
        self.drops = 0
        """Packets that were lost for want of room, or by the filter: sk_drops."""

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

    # --- addresses

    def parsed(self, raw: bytes) -> Endpoint:
        """An address, which an IPv6 socket may be given as one of IPv4."""
        if self.family == AF_INET6 and raw[:2] == b"\x02\0" and len(raw) >= 16:
            return address.parse(raw, AF_INET)
        return address.parse(raw, self.family)

    def destination(self, endpoint: Endpoint, index: int) -> Endpoint:
        """Where an address leads, by an interface if `index` is not 0: unicast, and on the loopback
        also multicast and broadcast."""
        if not is_group(endpoint.ip):
            return self.routed(endpoint, index)
        if self.group_link(endpoint, index):
            return endpoint
        if address.is_multicast(endpoint.ip) and not endpoint.is_v4:
            if self.stack.routes.lookup(endpoint.ip) is None:
                raise ENETUNREACH("the loopback has no route for groups of IPv6")
            return endpoint
        if index or self.device or self._leaves_by_source(endpoint):
            return endpoint
        if address.is_multicast(endpoint.ip):
            if not self.multicast_index and self.stack.routes.lookup(endpoint.ip[12:]) is None:
                raise ENETUNREACH("no interface for the group")
        elif endpoint.ip[12] == 255:
            raise ENETUNREACH("no route")
        return endpoint

    def sticky_index(self, target: Endpoint) -> int:
        """By which interface IPV6_PKTINFO lets it leave where nothing else says one, or 0.

        Raises: ENETUNREACH.
        """
        index = self.ipv6_options[abi.IPV6_PKTINFO]
        if not index or target.is_v4 or self.device:
            return 0
        if self.stack.interfaces.get(index) is None:
            raise ENETUNREACH(f"no interface {index}")
        return index

    def _leaves_by_source(self, target: Endpoint) -> bool:
        """A group is reached by the interface that has the socket's own IPv4 address."""
        local = self.local
        return target.is_v4 and local.is_v4 and not (local.is_any or is_group(local.ip))

    def destination_to_connect(self, raw: bytes) -> Endpoint:
        """The same for connect(2), which leaves the socket bound to the link of an address that
        each link has, whatever comes of it: __ip6_datagram_connect(). Raises: EACCES, EINVAL.
        """
        scope, wanted = self.scope_of(raw), self.parsed(raw)
        if address.needs_scope(wanted.ip):
            by_option = self.multicast_index if address.is_multicast(wanted.ip) else 0
            if scope and self.device not in (0, scope):
                raise EINVAL("an address of another link")
            scope = scope or self.device or by_option
            if not scope:
                raise EINVAL("an address of which link?")
            self.numbers[SO_BINDTOIFINDEX] = scope
            self.device_changed()
        target = self.destination(wanted, scope or self.sticky_index(wanted))
        self.check_broadcast(target)
        return target

    def check_broadcast(self, target: Endpoint) -> None:
        """Raises: EACCES without SO_BROADCAST."""
        if address.is_broadcast(target.ip) and SO_BROADCAST not in self.options:
            raise EACCES("broadcast")

    def seen(self, packet: Packet) -> Seen:
        """The address of ours that a packet was for, fib_compute_spec_dst(), and the port."""
        local = packet.source if is_group(packet.target.ip) else packet.target
        return Seen(local.ip[12:], packet.target.port)

    def send_message(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> Any:
        """sendmsg(2), till all who are to hear of it have."""
        result = super().send_message(caller, source, target, flags, ancillary)
        return self.stack.fan_out.awaited(self, caller, result)

    # --- receiving

    def shown(self, packet: Packet) -> bytes:
        """What the program gets to see of a packet."""
        return packet.data

    def deliver(self, packet: Packet) -> bool:
        """A datagram comes; one too many is dropped."""
        size = len(packet.data) + OVERHEAD
        if self._charged and self._charged + size > self.rcvbuf:
            self.drops += 1
            return False
        if self.drops and SO_RXQ_OVFL in self.options:
            packet = replace(packet, dropped=self.drops & U32)
        self._charged += size
        self.packets.append(packet)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)
        return True

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_ERRQUEUE:
            return self._receive_error(dest)
        if self.path_mtu is not None and self.tells_path_mtu:
            return self._receive_path_mtu()
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
            try:
                dest.put(data[:taken])  # after a bad pointer it is lost, as in Linux
            except NotNow:
                self.packets.appendleft(packet)
                self._charged += len(packet.data) + OVERHEAD
                raise
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

    # --- by a link

    def group_link(self, target: Endpoint, index: int = 0) -> int:
        """The interface by which what is sent to a group leaves, `index` if that was said; 0: it
        stays in the sandbox."""
        if self.stack.ip is None or not is_group(target.ip):
            return 0
        from sentry.net.inet import leaving  # noqa: PLC0415  few have links

        return leaving.group_link(self, target, index)

    def source_for(self, target: Endpoint, index: int = 0) -> Endpoint:
        """The address that the other end sees."""
        chosen = not (self.local.is_any or is_group(self.local.ip))
        link = 0 if chosen else self.group_link(target, index)
        if not link:
            return super().source_for(target, index)
        return Endpoint(paths.source_towards(self, target, link), self.local.port)

    def complained(
        self, failure: Failure, target: Endpoint, data: bytes, *, is_fatal: bool
    ) -> None:
        """ICMP says that a packet of its did not arrive: udp_err(), raw_err(), ping_err()."""
        wanted = wants_errors(self, target)
        if wanted:
            self.add_error(reported(failure, target, data))
        if wanted or (is_fatal and self.remote is not None):
            self.so_error = failure.number
            self.queue.notify(EPOLLERR)

    # --- errors

    def refused(self, packet: Packet) -> None:
        """Nobody has the port: ICMP says so, to who is connected to it or to nobody. udp_err()."""
        if self.remote is not None and self.remote != packet.target:
            return
        wanted = wants_errors(self, packet.target)
        if wanted:
            self.add_error(unreachable(packet, ECONNREFUSED.number))
        if wanted or self.remote is not None:
            self.so_error = ECONNREFUSED.number
            self.queue.notify(EPOLLERR)

    def add_error(self, error: SocketError) -> None:
        """For MSG_ERRQUEUE, within the receive buffer: sock_queue_err_skb()."""
        size = len(error.data) + OVERHEAD
        if self._charged + size < self.rcvbuf:
            self._charged += size
            self.errors.append(error)
            self.queue.notify(EPOLLERR)

    def forget_errors(self) -> None:
        """IP_RECVERR was turned off."""
        while self.errors:
            self._charged -= len(self.errors.popleft().data) + OVERHEAD

    def _receive_error(self, dest: Dest) -> Received:
        """MSG_ERRQUEUE: ip_recv_error()."""
        if not self.errors:
            return self.receive_copied()
        error = self.errors.popleft()
        self._charged -= len(error.data) + OVERHEAD
        following = self.errors[0] if self.errors else None
        if following is not None and following.is_icmp:
            self.so_error = following.number
        elif error.is_icmp:
            self.so_error = 0
        taken = min(len(error.data), dest.count)
        dest.put(error.data[:taken])
        cut = MSG_TRUNC if taken < len(error.data) else 0
        return Received(
            taken,
            address.pack(error.target, self.family),
            MSG_ERRQUEUE | cut,
            Ancillary(records=self._told_of_error(error)),
        )

    def _told_of_error(self, error: SocketError) -> list[Record]:
        """Of what came from elsewhere, also what is told of every packet that comes."""
        if not error.is_icmp:
            return [*stamps(self, error.stamp_ns), error.record(self.family)]
        to = Endpoint(LOOPBACK4 if error.target.is_v4 else LOOPBACK6, 0)
        packet = error.complaint(to)
        return [*told(self, packet, Seen(bytes(4), port_in(error.data))), error.record(self.family)]

    @property
    def tells_path_mtu(self) -> bool:
        """IPV6_RECVPATHMTU."""
        return self.family == AF_INET6 and bool(self.ipv6_options[abi.IPV6_RECVPATHMTU])

    def _receive_path_mtu(self) -> Received:
        """A message without bytes: ipv6_recv_rxpmtu()."""
        assert self.path_mtu is not None
        (target, mtu), self.path_mtu = self.path_mtu, None
        where = address.pack(Endpoint(target.ip, 0), AF_INET6)
        return Received(0, where, 0, Ancillary(records=[path_mtu_record(target, mtu)]))

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
        if self.copies != self.copies_told:
            events |= EPOLLERR
        if self.so_error or self.errors:
            events |= EPOLLERR
            if SO_SELECT_ERR_QUEUE in self.options:
                events |= EPOLLPRI
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
