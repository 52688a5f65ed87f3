"""`NetlinkSocket`: ports, groups, queues, dumps. net/netlink/af_netlink.c.

A request is answered while it is sent; a dump is made piece by piece as it is read. What a
protocol understands are the handlers in PROTOCOLS.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi.capability import CAP_NET_ADMIN
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)
from sentry.abi.socket import (
    AF_NETLINK,
    AF_UNSPEC,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    SO_PASSCRED,
    SOL_NETLINK,
)
from sentry.errors import (
    EADDRINUSE,
    EAGAIN,
    EBUSY,
    ECONNREFUSED,
    EINVAL,
    EMSGSIZE,
    ENOBUFS,
    ENODATA,
    ENOMEM,
    EOPNOTSUPP,
    EPERM,
    Errno,
)
from sentry.net.message import Ancillary, Received
from sentry.net.netlink.message import (
    HEADER,
    Reply,
    Request,
    error_message,
    message,
)
from sentry.net.netlink.options import NETLINK
from sentry.net.netlink.registry import GROUPS, OPEN_TO_ALL, PROTOCOLS, multicast
from sentry.net.socket import Socket
from sentry.vfs.file import Caller, Dest, Result, Source
from sentry.wait.fiber import Mode
from sentry.wait.lock import Lock
from sentry.wait.queue import WaitQueue
from sentry.wait.steps import Steps, in_steps

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location

PIECE: Final = 16384
LEAST_PIECE: Final = 3776
"""How much of a dump goes into one datagram: as much as was made room for once, from one to the
other. NLMSG_GOODSIZE."""
FREE_PORTS: Final = (1 << 31) - 4096
"""S32_MIN to -4097: ports that no process id is."""
OVERHEAD: Final = 256
MAX_MEMBERS: Final = 1024
"""Of a group in a network namespace: a ceiling of ours, for all hear of a notice in one step."""


class NetlinkSocket(Socket):
    """An open netlink socket."""

    __slots__ = (
        "_asked", "_charged", "_dump", "_dump_end", "_dump_kind", "_dump_of", "_dump_tail",
        "_overrun", "_piece", "destination", "flags_set", "groups", "has_groups", "packets", "port",
    )  # fmt: skip
    options_known = NETLINK

    def __init__(self, location: Location, kind: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, AF_NETLINK, kind, protocol, stack)
        self.port = 0
        """nl_pid; 0: not bound."""
        self.groups: set[int] = set()
        self.has_groups = False
        """It has asked for a group once: netlink_realloc_groups()."""
        self.destination = (0, 0)
        """connect(2): port and mask of groups."""
        self.flags_set: set[int] = set()
        self.packets: deque[tuple[bytes, int, int, tuple[int, int, int]]] = deque()
        """(bytes, sender's port, group, sender's credentials)."""
        self._asked: Steps[None] | None = None
        """What a datagram asks for, whose send is not over."""
        self._charged = 0
        self._dump: Iterator[bytes] | None = None
        self._dump_tail = self._dump_end = b""
        self._dump_kind = self._dump_of = 0
        """What is told, and which state of it the last piece was of."""
        self._piece = LEAST_PIECE
        self._overrun = False

    def shutdown(self, how: int) -> None:
        """sock_no_shutdown()."""
        raise EOPNOTSUPP("shutdown")

    # --- addresses

    def local_address(self) -> bytes:
        """struct sockaddr_nl."""
        return sockaddr(self.port, sum(1 << (g - 1) for g in self.groups if g <= 32))

    def peer_address(self) -> bytes:
        """Whom connect(2) named; the kernel is port 0."""
        return sockaddr(*self.destination)

    def prepare_to_join(self, caller: Caller) -> None:
        """Who joins a group hears of what changes from now on. Raises: EPERM, NotNow."""
        capable = caller.creds.has_in(self.stack.owner, CAP_NET_ADMIN)
        if not capable and self.protocol not in OPEN_TO_ALL:
            raise EPERM("multicast groups")
        if self.protocol == abi.NETLINK_ROUTE:
            self.stack.look()

    def check_members(self, groups: set[int]) -> None:
        """There is room for one more in each. Raises: ENOMEM."""
        counted = self.stack.netlink_groups
        if any(counted[self.protocol, each] >= MAX_MEMBERS for each in groups - self.groups):
            raise ENOMEM("too many who hear of the same")

    def set_groups(self, groups: set[int]) -> None:
        """Whose notices it gets. Raises: ENOMEM."""
        self.check_members(groups)
        counted = self.stack.netlink_groups
        counted.subtract((self.protocol, group) for group in self.groups)
        counted.update((self.protocol, group) for group in groups)
        self.groups = groups
        if groups and self.stack.view is not None:
            self.stack.view.listened()

    def bind(self, caller: Caller, address: bytes) -> Result:
        """bind(2): the port once, groups as often as wanted."""
        port, groups = parse_sockaddr(address)
        if groups:
            self.prepare_to_join(caller)
        low = {bit + 1 for bit in range(32) if groups >> bit & 1}
        high = {group for group in self.groups if group > 32}
        wanted = high | {group for group in low if group <= GROUPS[self.protocol]}
        self.check_members(wanted)
        if self.port:
            if port != self.port:
                raise EINVAL("bound already")
        else:
            self._take_port(caller, port)
        self.has_groups |= bool(groups)
        self.set_groups(wanted)
        return 0

    def _take_port(self, caller: Caller, port: int = 0) -> None:
        """netlink_insert(), netlink_autobind(): the process id, or one that nobody has."""
        ports = self.stack.netlink
        if port:
            if (self.protocol, port) in ports:
                raise EADDRINUSE(f"port {port}")
        else:
            task: Any = caller
            port = task.group.pids.of(task.group.tgid)
            while (self.protocol, port) in ports:
                port = (1 << 31) + int.from_bytes(os.urandom(4)) % FREE_PORTS
        ports[self.protocol, port] = self
        self.port = port

    def connect(self, caller: Caller, address: bytes, nonblock: bool) -> Result:
        """connect(2): whom send(2) means."""
        if len(address) < 2:
            raise EINVAL("address")
        if address[:2] == struct.pack("<H", AF_UNSPEC):
            self.destination = (0, 0)
            return 0
        port, groups = parse_sockaddr(address)
        if (port or groups) and not self._may_send(caller):
            raise EPERM("connect")
        if not self.port:
            self._take_port(caller)
        self.destination = (port, groups)
        return 0

    def _may_send(self, caller: Caller) -> bool:
        """CAP_NET_ADMIN, or NL_CFG_F_NONROOT_SEND."""
        capable = caller.creds.has_in(self.stack.owner, CAP_NET_ADMIN)
        return capable or self.protocol == abi.NETLINK_USERSOCK

    # --- sending: requests

    def target(self, caller: Caller, address: bytes) -> Any:
        """sendto(2) with an address; an empty one is none."""
        if not address:
            return None
        port, groups = parse_sockaddr(address)
        if (port or groups) and not self._may_send(caller):
            raise EPERM("send")
        return port, groups

    def send_message(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> Any:
        """sendmsg(2): a datagram may ask for much, and others run between its messages."""
        lock = self.lock()
        if lock is not None:
            lock.check()
        sent = super().send_message(caller, source, target, flags, ancillary)
        asked, self._asked = self._asked, None
        if asked is None:
            return sent
        return in_steps(self._until_done(asked, sent), lock, Mode.KILLABLE)

    def lock(self) -> Lock | None:
        """What is held while a datagram does what it asks for."""
        return None

    def _until_done(self, asked: Steps[None], sent: int) -> Steps[int]:
        with self.held():
            yield from asked
        return sent

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2): to the kernel (port 0), to another socket, to groups."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        size = source.count
        if not size:
            raise ENODATA("an empty message")
        port, groups = target if target is not None else self.destination
        if not port and self.protocol == abi.NETLINK_ROUTE:
            self.stack.look()
        if not self.port:
            self._take_port(caller)
        if size > self.sndbuf - 32:
            raise EMSGSIZE(f"{size} bytes")
        other = self.stack.netlink.get((self.protocol, port)) if port else None
        if other is not None and not other.has_room(size):
            raise EAGAIN("its queue is full")
        data = bytes(source.get(size))
        task: Any = caller
        creds = (task.group.tgid, caller.creds.euid, caller.creds.egid)
        if groups:
            group = (groups & -groups).bit_length()
            multicast(self.stack, self.protocol, group, data, self, creds)
        if port:
            if other is None or not (self._may_send(caller) or other is self):
                raise ECONNREFUSED(f"port {port}")
            other.deliver(data, self.port, 0, creds)
        elif not groups or self.protocol != abi.NETLINK_USERSOCK:
            if not PROTOCOLS[self.protocol] and self.protocol != abi.NETLINK_NETFILTER:
                raise ECONNREFUSED("the kernel does not listen")
            self._asked = self._requests(caller, data)
        return size

    def room_of(self, target: Any) -> WaitQueue | None:
        """Of whom a datagram is for."""
        port, _ = target if target is not None else self.destination
        other = self.stack.netlink.get((self.protocol, port)) if port else None
        return None if other is None else other.queue

    def _requests(self, caller: Caller, data: bytes) -> Steps[None]:
        """netlink_rcv_skb(): every message of a datagram, a piece each."""
        at = 0
        while len(data) - at >= HEADER:
            head = abi.NLMSGHDR.unpack(data, at)
            if head.nlmsg_len < HEADER or at + head.nlmsg_len > len(data):
                return
            whole = data[at : at + head.nlmsg_len]
            at += (head.nlmsg_len + 3) & ~3
            number = 0
            if head.nlmsg_flags & abi.NLM_F_REQUEST and head.nlmsg_type >= abi.NLMSG_MIN_TYPE:
                request = Request(
                    head.nlmsg_type, head.nlmsg_flags, head.nlmsg_seq, whole[HEADER:],
                    caller, self.stack, self,
                )  # fmt: skip
                try:
                    if self._answer(request):
                        yield
                        continue
                except Errno as error:
                    number = error.number
            if number or head.nlmsg_flags & abi.NLM_F_ACK:
                self._acknowledge(whole, number)
            yield

    def _answer(self, request: Request) -> bool:
        """Let the protocol answer; True where a dump has begun, which needs no other end."""
        handler = PROTOCOLS[self.protocol].get(request.kind)
        if self.protocol == abi.NETLINK_ROUTE:
            if request.kind > abi.RTM_MAX:
                raise EOPNOTSUPP(f"type {request.kind}")
            if not request.body:
                return False  # too short to be anything: nothing is said
            if request.kind & 3 != 2:
                self.stack.check_admin(request.caller)
        if handler is None:
            unknown = self.protocol == abi.NETLINK_SOCK_DIAG
            raise EINVAL("type") if unknown else EOPNOTSUPP(f"type {request.kind}")
        is_get = self.protocol == abi.NETLINK_SOCK_DIAG or request.kind & 3 == 2
        if is_get and request.flags & abi.NLM_F_DUMP:
            return self._dump_or_busy(request, lambda: handler(request) or ())
        for kind, body in handler(request) or ():
            self.deliver(message(kind, 0, request.sequence, self.port, body), 0, 0)
        return False

    def _dump_or_busy(self, request: Request, answers: Callable[[], Iterable[Reply]]) -> bool:
        """True: a dump has begun. Raises: EBUSY, and what is wrong with the request."""
        if self._dump is not None:
            raise EBUSY("a dump is under way")
        if self.protocol != abi.NETLINK_ROUTE:  # that says it at the end of the dump
            replies = iter(answers())
            first = list(islice(replies, 1))
            answers = partial(chain, first, replies)
        self._dump = self._parts(request, answers)
        self._dump_kind = request.kind
        self._dump_of = self.dump_state(request.kind)
        self._go_on()
        return True

    def _acknowledge(self, request: bytes, number: int) -> None:
        short = not number or abi.NETLINK_CAP_ACK in self.flags_set
        flags = abi.NLM_F_CAPPED if short and len(request) > HEADER else 0
        answer = error_message(request[:HEADER] if short else request, number, self.port, flags)
        self.deliver(answer, 0, 0)

    # --- dumps

    def _parts(self, request: Request, answers: Callable[[], Iterable[Reply]]) -> Iterator[bytes]:
        """The messages of a dump, the end with the error that there was: netlink_dump_done()."""
        head, number = (abi.NLM_F_MULTI, request.sequence, self.port), 0
        try:
            for kind, body in answers():
                yield message(kind, *head, body)
        except Errno as error:
            number = error.number
        self._dump_end = message(abi.NLMSG_DONE, *head, struct.pack("<i", -number))
        yield self._dump_end

    def dump_state(self, kind: int) -> int:
        """Another number than before if what such a dump tells has changed meanwhile."""
        interfaces = self.stack.interfaces
        if self.protocol != abi.NETLINK_ROUTE or kind not in (abi.RTM_GETLINK, abi.RTM_GETADDR):
            return 0
        of_addresses = interfaces.address_changes if kind == abi.RTM_GETADDR else 0
        return interfaces.changes + of_addresses

    def _go_on(self) -> None:
        """The next piece of a dump, when all before is read; its end comes alone."""
        if self._dump is None or self.packets:
            return
        piece, self._dump_tail = self._dump_tail, b""
        for part in self._dump:
            if piece and (part is self._dump_end or len(piece) + len(part) > self._piece):
                self._dump_tail = part
                break
            piece += part
        else:
            self._dump = None
        if piece:
            self.deliver(self._consistent(piece), 0, 0)

    def _consistent(self, piece: bytes) -> bytes:
        """The first message says that something has changed: nl_dump_check_consistent()."""
        before, self._dump_of = self._dump_of, self.dump_state(self._dump_kind)
        if before == self._dump_of:
            return piece
        head = abi.NLMSGHDR.unpack(piece)
        flags = head.nlmsg_flags | abi.NLM_F_DUMP_INTR
        return abi.NLMSGHDR.pack(*head._replace(nlmsg_flags=flags)) + piece[HEADER:]

    # --- receiving

    def deliver(
        self, data: bytes, port: int, group: int, creds: tuple[int, int, int] = (0, 0, 0)
    ) -> bool:
        """A datagram for this socket; one too many is lost, which the next receive says."""
        if not self.has_room(len(data)):
            self.lose()
            return False
        self._charged += len(data) + OVERHEAD
        self.packets.append((data, port, group, creds))
        self.queue.notify(EPOLLIN | EPOLLRDNORM)
        return True

    def has_room(self, size: int) -> bool:
        """A datagram of so many bytes would not be lost."""
        return not self._charged or self._charged + size + OVERHEAD <= self.rcvbuf

    def lose(self) -> None:
        """Something was lost for want of room."""
        if not self._overrun and abi.NETLINK_NO_ENOBUFS not in self.flags_set:
            self._overrun = True
            self.so_error = ENOBUFS.number
            self.queue.notify(EPOLLERR)

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_OOB:
            raise EOPNOTSUPP("out-of-band data")
        self.take_error()
        self._piece = min(max(self._piece, dest.count), PIECE)
        if not self.packets:
            raise EAGAIN("nothing there")
        data, port, group, creds = self.packets[0]
        taken = min(len(data), dest.count)
        dest.put(data[:taken])
        if not flags & MSG_PEEK:
            self.packets.popleft()
            self._charged -= len(data) + OVERHEAD
            if not self.packets:
                self._overrun = False
            self.queue.notify(EPOLLOUT)  # for who waits to send to us
            self._go_on()
        ancillary = Ancillary()
        if SO_PASSCRED in self.options:
            ancillary.creds = creds
        if abi.NETLINK_PKTINFO in self.flags_set:
            info = struct.pack("<I", group)
            ancillary.records.append((SOL_NETLINK, abi.NETLINK_PKTINFO, info))
        address = sockaddr(port, 1 << (group - 1) if 0 < group <= 32 else 0)
        cut = MSG_TRUNC if taken < len(data) else 0
        count = len(data) if flags & MSG_TRUNC else taken
        return Received(count, address, cut, ancillary)

    # --- the rest

    def poll(self) -> int:
        """datagram_poll()."""
        events = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND
        if self.so_error:
            events |= EPOLLERR
        if self.packets:
            events |= EPOLLIN | EPOLLRDNORM
        return events

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        self.set_groups(set())
        if self.port:
            self.stack.netlink.pop((self.protocol, self.port), None)
        self.packets.clear()
        self._dump = None
        self.queue.notify()


def sockaddr(port: int, groups: int) -> bytes:
    """struct sockaddr_nl."""
    return struct.pack("<HHII", AF_NETLINK, 0, port, groups)


def parse_sockaddr(address: bytes) -> tuple[int, int]:
    """(port, groups) of a struct sockaddr_nl. Raises: EINVAL."""
    if len(address) < 12:
        raise EINVAL("sockaddr_nl")
    family, _, port, groups = struct.unpack_from("<HHII", address)
    if family != AF_NETLINK:
        raise EINVAL(f"family {family}")
    return port, groups
