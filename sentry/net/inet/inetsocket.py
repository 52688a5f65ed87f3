"""What TCP and UDP sockets share: addresses, binding, options of IPPROTO_IP and IPPROTO_IPV6."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_BIND_SERVICE
from sentry.abi.poll import EPOLLERR
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    BPF_TCP_CLOSE,
    BPF_TCP_ESTABLISHED,
    IPPROTO_IP,
    IPPROTO_IPV6,
    SO_BROADCAST,
    SOL_SOCKET,
)
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EACCES,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EAGAIN,
    EINVAL,
    ENETUNREACH,
    ENOPROTOOPT,
    EOPNOTSUPP,
    Errno,
)
from sentry.net.inet import address, ip_options, ipv6_options, multicast, paths
from sentry.net.inet.address import ANY4, ANY6, MAPPED, Endpoint
from sentry.net.ioctls import NAMES, SOCKETS
from sentry.net.message import Ancillary, Received
from sentry.net.options import INT, Counted, Question
from sentry.net.socket import Socket
from sentry.net.socket_options import U32
from sentry.net.sysctls import (
    binds_nonlocal,
    default_hops,
    default_ttl,
    ephemeral_ports,
    first_unprivileged_port,
    is_v6only,
    reserved_ports,
)
from sentry.vfs.file import Caller, Result
from sentry.vfs.requests import Requests, put_int

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location

SOCKADDR_IN6_SIZE: Final = 28


DATAGRAMS: Final = Requests(SOCKETS)
DATAGRAMS.row("FIONREAD", put_int(lambda sock: sock.available()))
DATAGRAMS.row("TIOCOUTQ", put_int(lambda sock: sock.unsent()))
STREAMS: Final = Requests(DATAGRAMS, names=NAMES)
STREAMS.row("SIOCOUTQNSD", put_int(lambda sock: sock.never_sent()))
STREAMS.row("SIOCATMARK", put_int(lambda sock: sock.at_mark()))


@mypyc_attr(allow_interpreted_subclasses=True)
class InetSocket(Socket):
    """A socket with an IP address and a port."""

    __slots__ = (
        "_bound_ip",
        "_bound_port",
        "copies",
        "copies_told",
        "groups",
        "has_port",
        "ip_options",
        "ipv6_options",
        "local",
        "multicast_address",
        "multicast_index",
        "ports",
        "remote",
        "shares_port",
        "v6only",
    )

    stream: ClassVar = False
    goes_out: ClassVar = False
    """What it sends may leave by a link, if there is one."""
    requests: ClassVar = DATAGRAMS
    levels: ClassVar[tuple[int, ...]] = ()
    """Of the protocol's own options."""

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack
    ) -> None:
        super().__init__(location, family, kind, protocol, stack)
        self.ports = stack.ports_of(protocol)
        self.local: Endpoint = Endpoint(ANY4 if family == AF_INET else ANY6, 0)
        self.remote: Endpoint | None = None
        self.v6only = family == AF_INET6 and is_v6only(stack)
        self.ip_options = dict(ip_options.DEFAULTS)
        if family == AF_INET6:
            self.ip_options[abi.IP_MULTICAST_ALL] = 0
        self.ipv6_options = dict(ipv6_options.DEFAULTS)
        self.groups: list[tuple[bytes, int]] = []
        """Multicast groups: (address, interface)."""
        self.multicast_index = 0
        self.multicast_address = bytes(4)
        self.has_port = self.shares_port = False
        self.copies = self.copies_told = 0
        """Sends with MSG_ZEROCOPY, and those of which MSG_ERRQUEUE has told."""
        self._bound_ip = self._bound_port = False
        """Which part of the local address the program chose: SOCK_BINDADDR_LOCK, _BINDPORT_LOCK."""

    @property
    def device(self) -> int:
        """The interface that it is bound to, or 0."""
        return self.numbers.get(abi.SO_BINDTOIFINDEX, 0)

    @property
    def owner_uid(self) -> int:
        """Whose port it is: sk_uid, which follows fchown(2)."""
        return self.inode.uid

    # --- addresses

    def local_address(self) -> bytes:
        """getsockname(2)."""
        return address.pack(self.local, self.family)

    def bind(self, caller: Caller, raw: bytes) -> Result:
        """bind(2): an address of the loopback, or the wildcard."""
        wanted = address.parse(raw, self.family)
        if self.has_port:
            raise EINVAL("bound already")
        if address.needs_scope(wanted.ip) and not self.device_of(raw):
            raise EINVAL("an address of which link?")
        if address.is_multicast(wanted.ip):
            if self.stream and not wanted.is_v4:
                raise EINVAL("multicast")
        elif not (self.is_local(wanted.ip) or address.is_broadcast(wanted.ip) or self.free_bind()):
            raise EADDRNOTAVAIL("no such address here")
        if wanted.is_v4 and self.family == AF_INET6 and self.v6only:
            raise EINVAL("IPV6_V6ONLY")
        if 0 < wanted.port < first_unprivileged_port(self.stack) and not caller.creds.has_in(
            self.stack.owner, CAP_NET_BIND_SERVICE
        ):
            raise EACCES(f"port {wanted.port}")
        self._bound_ip = not wanted.is_any
        if not wanted.port and self.ip_options[abi.IP_BIND_ADDRESS_NO_PORT]:
            self.local = wanted
        else:
            self.local = self.ports.claim(self, wanted, stream=self.stream)
            self.has_port = True
            self._bound_port = bool(wanted.port)
        if self._bound_ip and not wanted.is_v4:
            self.v6only = True
        return 0

    def forget_remote(self) -> None:
        """Not connected any more: what the program did not choose of its address is free again."""
        self.remote = None
        if not self.stream:
            self.numbers.pop(abi.SO_BINDTOIFINDEX, None)
        if self.has_port and not self.stream:
            self.ports.changed(self)
        ip = self.local.ip
        if not self._bound_ip:
            ip = ANY4 if self.family == AF_INET else ANY6
        if self._bound_port:
            self.local = Endpoint(ip, self.local.port)
            return
        self.drop_port()
        self.local = Endpoint(ip, 0)

    def free_bind(self) -> bool:
        """IP_FREEBIND, IP_TRANSPARENT, ip_nonlocal_bind: any address will do."""
        if self.ip_options[abi.IP_FREEBIND] or self.sends_from_anywhere:
            return True
        return binds_nonlocal(self.stack, 4 if self.family == AF_INET else 6)

    @property
    def hops(self) -> int:
        """IP_TTL, or what is used where it was not set."""
        chosen: int = self.ip_options[abi.IP_TTL]
        return default_ttl(self.stack) if chosen < 0 else chosen

    @property
    def hops6(self) -> int:
        """IPV6_UNICAST_HOPS, or that of the link."""
        chosen: int = self.ipv6_options[abi.IPV6_UNICAST_HOPS]
        return default_hops(self.stack) if chosen < 0 else chosen

    @property
    def sends_from_anywhere(self) -> bool:
        """FLOWI_FLAG_ANYSRC: packets may have an address that is not ours."""
        return bool(self.ip_options[abi.IP_TRANSPARENT])

    def device_of(self, raw: bytes) -> int:
        """The interface that an address names (sin6_scope_id), or that the socket is bound to."""
        bound = self.device
        if bound or len(raw) < SOCKADDR_IN6_SIZE or raw[:2] != struct.pack("<H", AF_INET6):
            return bound
        return int(struct.unpack_from("<I", raw, 24)[0])

    def scope_of(self, raw: bytes) -> int:
        """The interface that an address names which each link has; 0: it is none, or names none."""
        if len(raw) < SOCKADDR_IN6_SIZE or raw[:2] != struct.pack("<H", AF_INET6):
            return 0
        return int(struct.unpack_from("<I", raw, 24)[0]) if address.needs_scope(raw[8:24]) else 0

    def is_local(self, ip: bytes) -> bool:
        """An address of ours, or a wildcard."""
        if ip in (ANY4, ANY6):
            return True
        return self.stack.interfaces.is_local(ip[12:] if ip[:12] == MAPPED else ip)

    def available(self) -> int:
        """FIONREAD."""
        return 0

    def charged(self) -> int:
        """What lies in the receive buffer."""
        return self.available()

    def queues(self) -> tuple[int, int]:
        """For diagnostics: what waits, and what is unsent."""
        return self.charged(), self.unsent()

    def unsent(self) -> int:
        """TIOCOUTQ."""
        return 0

    def never_sent(self) -> int:
        """SIOCOUTQNSD."""
        return self.unsent()

    def at_mark(self) -> int:
        """SIOCATMARK."""
        return 0

    def connection_state(self) -> int:
        """A state of TCP; datagram sockets have two of them."""
        return BPF_TCP_ESTABLISHED if self.remote is not None else BPF_TCP_CLOSE

    def unsent_datagram(self) -> bool:
        """UDP_CORK holds something back."""
        return False

    @property
    def port_range(self) -> tuple[int, int]:
        """Where a port is looked for: IP_LOCAL_PORT_RANGE inside of the sandbox's range."""
        first, last = ephemeral_ports(self.stack)
        chosen = self.ip_options[abi.IP_LOCAL_PORT_RANGE]
        low, high = chosen & 0xFFFF, chosen >> 16 & 0xFFFF
        inside = range(first, last + 1)
        return low if low in inside else first, high if high in inside else last

    @property
    def reserved_ports(self) -> bytes:
        """Which are not found."""
        return reserved_ports(self.stack)

    def need_port(self) -> None:
        """An ephemeral port, if there is none yet."""
        if not self.has_port:
            self.local = self.ports.claim(self, Endpoint(self.local.ip, 0), stream=self.stream)
            self.has_port = True

    def sharing_changed(self) -> None:
        """Others ask for it when they want the port."""
        if self.has_port:
            self.ports.sharing_changed(self)

    def device_changed(self) -> None:
        """Packets of other interfaces are not for it."""
        if self.has_port and (not self.stream or self.listening):
            self.ports.changed(self)

    def drop_port(self) -> None:
        """Give the port back."""
        if self.has_port:
            self.ports.release(self)
            self.has_port = self.shares_port = False

    def route(self, raw: bytes) -> Endpoint:
        """Where an address leads; only the loopback is there. Raises: ENETUNREACH."""
        return self.routed(address.parse(raw, self.family))

    def routed(self, endpoint: Endpoint, index: int = 0) -> Endpoint:
        """Where a unicast address leads, by an interface if `index` is not 0.

        Raises: ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT.
        """
        target = address.target_of(endpoint)
        broadcast = address.is_broadcast(target.ip)
        leaves = self.leaves(target)
        if not (leaves or self.is_local(target.ip)) or broadcast or (target.is_v4 and self.v6only):
            if not target.is_v4 and self.local.is_any and not self.stack.interfaces.has_ipv6:
                raise EADDRNOTAVAIL("no address to send from")  # looked for first
            raise ENETUNREACH("only the loopback is there")
        bound_to_v4 = self.family == AF_INET6 and self.local.is_v4 and not self.local.is_any
        if bound_to_v4 and not target.is_v4:
            raise EAFNOSUPPORT("bound to an IPv4 address")
        if leaves:
            self.check_way(target, index)
        return target

    def leaves(self, target: Endpoint) -> bool:
        """What is sent there goes by a link."""
        layer, ip = self.stack.ip, target.ip
        if not self.goes_out or layer is None:
            return False
        known = layer.known_to_leave()
        found = known.get(ip)
        if found is None:
            found = known[ip] = not (address.is_group(ip) or self.is_local(ip))
        return found

    def mtu_towards(self, target: Endpoint) -> int:
        """Bytes of a packet with its IP header. Raises: ENETUNREACH, EHOSTUNREACH."""
        if not self.leaves(target):
            return self.stack.interfaces.loopback.mtu_for(target.is_v4)
        return paths.path_of(self, target).mtu

    def check_way(self, target: Endpoint, index: int) -> None:
        """There is one by a link. Raises: ENETUNREACH, EHOSTUNREACH, EACCES."""
        if paths.path_of(self, target, index).is_broadcast and SO_BROADCAST not in self.options:
            raise EACCES("broadcast")

    def source_for(self, target: Endpoint, index: int = 0) -> Endpoint:
        """The unicast address that the other end sees, by an interface if `index` is not 0."""
        chosen = not (self.local.is_any or address.is_group(self.local.ip))
        if chosen and self.local.is_v4 == target.is_v4:
            return self.local
        if self.leaves(target):
            return Endpoint(paths.source_towards(self, target, index), self.local.port)
        if not target.is_v4:
            ip = address.LOOPBACK6 if address.is_multicast(target.ip) else target.ip
            return Endpoint(ip, self.local.port)
        route = self.stack.routes.lookup(target.ip[12:])
        source = route.source if route is not None else b""
        return Endpoint(MAPPED + source if source else address.LOOPBACK4, self.local.port)

    # --- MSG_ZEROCOPY: msg_zerocopy.rst

    def copied(self, sent: int) -> int:
        """The program hears at once that its bytes were copied, and may use its memory again."""
        self.copies += 1
        self.queue.notify(EPOLLERR)
        return sent

    @property
    def has_error_queue(self) -> bool:
        """There is something of that."""
        return self.copies != self.copies_told

    def receive_copied(self) -> Received:
        """MSG_ERRQUEUE: of all such sends in one. Raises: EAGAIN."""
        first, last = self.copies_told & U32, self.copies - 1 & U32
        if self.copies == self.copies_told:
            raise EAGAIN("the error queue is empty")
        self.copies_told = self.copies
        is_v4 = self.family == AF_INET
        body = struct.pack(
            "<IBBBBII", 0, abi.SO_EE_ORIGIN_ZEROCOPY, 0, abi.SO_EE_CODE_ZEROCOPY_COPIED, 0, first,
            last,
        ) + bytes(16 if is_v4 else SOCKADDR_IN6_SIZE)  # fmt: skip
        level, kind = (IPPROTO_IP, abi.IP_RECVERR) if is_v4 else (IPPROTO_IPV6, abi.IPV6_RECVERR)
        return Received(0, b"", abi.MSG_ERRQUEUE, Ancillary(records=[(level, kind, body)]))

    # --- options

    def value_size(self, caller: Caller, level: int, name: int, size: int) -> int:
        """How much of a value setsockopt(2) reads. Raises: ENOPROTOOPT for a level of IPv6 only."""
        if level == IPPROTO_IPV6 and self.family != AF_INET6:
            raise ENOPROTOOPT("an IPv4 socket")
        return super().value_size(caller, level, name, size)

    def option(
        self, caller: Caller, level: int, name: int, size: int
    ) -> bytes | Counted | Question:
        """getsockopt(2)."""
        if level == IPPROTO_IPV6 and self.family != AF_INET6:
            raise EOPNOTSUPP("an IPv4 socket")
        return super().option(caller, level, name, size)

    def no_setter(self, level: int, name: int, value: bytes) -> Errno:
        """The protocol looks at the length first."""
        if level in self.levels and len(value) < INT.size:
            return EINVAL("int expected")
        return super().no_setter(level, name, value)

    def no_getter(self, level: int, name: int) -> Errno:
        """inet_getsockopt() and inet6_getsockopt() differ in what they say of other levels."""
        known = level in (SOL_SOCKET, IPPROTO_IP) or level in self.levels
        if self.family == AF_INET and not known:
            return EOPNOTSUPP(f"level {level} option {name}")
        return super().no_getter(level, name)

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        if self.groups:
            multicast.leave_all(self)

    def forget_errors(self) -> None:
        """IP_RECVERR was turned off."""
