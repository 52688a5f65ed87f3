"""What TCP and UDP sockets share: addresses, binding, options of IPPROTO_IP and IPPROTO_IPV6."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_NET_RAW
from sentry.abi.ioctl import FIONREAD, TIOCOUTQ
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    BPF_TCP_CLOSE,
    BPF_TCP_ESTABLISHED,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SOCK_RAW,
)
from sentry.errors import (
    EACCES,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EINVAL,
    ENETUNREACH,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
)
from sentry.net.inet import address, addrform, ip_options, multicast
from sentry.net.inet.address import ANY4, ANY6, MAPPED, Endpoint
from sentry.net.socket import Socket
from sentry.net.sysctls import ephemeral_ports, first_unprivileged_port
from sentry.vfs.file import Caller

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location

SOCKADDR_IN6_SIZE: Final = 28
MAX_IP_OPTIONS: Final = 40
LOOPBACK_MTU: Final = 65536
KNOWN6: Final = frozenset({IPV6_V6ONLY, abi.IPV6_MULTICAST_IF, abi.IPV6_ADDRFORM})
"""Options of IPPROTO_IPV6 that are in no table."""
INET_ECN_MASK: Final = 3
PATHMTU_SIZE: Final = 32


class InetSocket(Socket):
    """A socket with an IP address and a port."""

    __slots__ = (
        "_bound_ip",
        "_bound_port",
        "_has_port",
        "groups",
        "ip_options",
        "ipv6_options",
        "local",
        "multicast_address",
        "multicast_index",
        "owner_uid",
        "ports",
        "remote",
        "shares_port",
        "v6only",
    )

    stream = False

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack, uid: int
    ) -> None:
        super().__init__(location, family, kind, protocol, stack)
        self.ports = stack.ports_of(protocol)
        self.local: Endpoint = Endpoint(ANY4 if family == AF_INET else ANY6, 0)
        self.remote: Endpoint | None = None
        self.v6only = False
        self.owner_uid = uid
        self.ip_options = {name: one.default for name, one in ip_options.IP.items()}
        if family == AF_INET6:
            self.ip_options[abi.IP_MULTICAST_ALL] = 0
        self.ipv6_options = {name: one.default for name, one in ip_options.IPV6.items()}
        self.groups: list[tuple[bytes, int]] = []
        """Multicast groups: (address, interface)."""
        self.multicast_index = 0
        self.multicast_address = bytes(4)
        self._has_port = self.shares_port = False
        self._bound_ip = self._bound_port = False
        """Which part of the local address the program chose: SOCK_BINDADDR_LOCK, _BINDPORT_LOCK."""

    # --- addresses

    def local_address(self) -> bytes:
        """getsockname(2)."""
        return address.pack(self.local, self.family)

    async def bind(self, caller: Caller, raw: bytes) -> None:
        """bind(2): an address of the loopback, or the wildcard."""
        wanted = address.parse(raw, self.family)
        if self._has_port:
            raise EINVAL("bound already")
        if address.needs_scope(wanted.ip) and not self.device_of(raw):
            raise EINVAL("an address of which link?")
        if address.is_multicast(wanted.ip):
            if self.stream and not wanted.is_v4:
                raise EINVAL("multicast")
        elif not (self.is_local(wanted.ip) or address.is_broadcast(wanted.ip) or self._free_bind()):
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
            self._has_port = True
            self._bound_port = bool(wanted.port)
        if self._bound_ip and not wanted.is_v4:
            self.v6only = True

    def forget_remote(self) -> None:
        """Not connected any more: what the program did not choose of its address is free again."""
        self.remote = None
        ip = self.local.ip
        if not self._bound_ip:
            ip = ANY4 if self.family == AF_INET else ANY6
        if self._bound_port:
            self.local = Endpoint(ip, self.local.port)
            return
        self.drop_port()
        self.local = Endpoint(ip, 0)

    def _free_bind(self) -> bool:
        """IP_FREEBIND, IP_TRANSPARENT: any address will do."""
        options = (abi.IP_FREEBIND, abi.IP_TRANSPARENT)
        return any(self.ip_options[name] for name in options) or bool(
            self.ipv6_options[abi.IPV6_FREEBIND]
        )

    def device_of(self, raw: bytes) -> int:
        """The interface that an address names (sin6_scope_id), or that the socket is bound to."""
        bound = self.numbers.get(abi.SO_BINDTOIFINDEX, 0)
        if bound or len(raw) < SOCKADDR_IN6_SIZE or raw[:2] != struct.pack("<H", AF_INET6):
            return bound
        return int(struct.unpack_from("<I", raw, 24)[0])

    def is_local(self, ip: bytes) -> bool:
        """An address of ours, or a wildcard."""
        if ip in (ANY4, ANY6):
            return True
        return self.stack.interfaces.is_local(ip[12:] if ip[:12] == MAPPED else ip)

    def own_ioctl(self, caller: Caller, request: int, argument: int) -> int | None:
        """SIOCINQ, SIOCOUTQ, SIOCATMARK."""
        if request == FIONREAD:
            value = self.available()
        elif request == TIOCOUTQ or (request == abi.SIOCOUTQNSD and self.stream):
            value = self.unsent()
        elif request == abi.SIOCATMARK and self.stream:
            value = self.at_mark()
        else:
            return None
        caller.mm.write(argument, struct.pack("<i", value))
        return 0

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

    def need_port(self) -> None:
        """An ephemeral port, if there is none yet."""
        if not self._has_port:
            self.local = self.ports.claim(self, Endpoint(self.local.ip, 0), stream=self.stream)
            self._has_port = True

    def drop_port(self) -> None:
        """Give the port back."""
        if self._has_port:
            self.ports.release(self)
            self._has_port = self.shares_port = False

    def route(self, raw: bytes) -> Endpoint:
        """Where an address leads; only the loopback is there. Raises: ENETUNREACH."""
        return self.routed(address.parse(raw, self.family))

    def routed(self, endpoint: Endpoint) -> Endpoint:
        """Where a unicast address leads. Raises: ENETUNREACH, EAFNOSUPPORT."""
        target = address.target_of(endpoint)
        broadcast = address.is_broadcast(target.ip)
        if not self.is_local(target.ip) or broadcast or (target.is_v4 and self.v6only):
            raise ENETUNREACH("only the loopback is there")
        bound_to_v4 = self.family == AF_INET6 and self.local.is_v4 and not self.local.is_any
        if bound_to_v4 and not target.is_v4:
            raise EAFNOSUPPORT("bound to an IPv4 address")
        return target

    def source_for(self, target: Endpoint) -> Endpoint:
        """The address that the other end sees: a unicast one."""
        chosen = not (self.local.is_any or is_group(self.local.ip))
        if chosen and self.local.is_v4 == target.is_v4:
            return self.local
        if not target.is_v4:
            ip = address.LOOPBACK6 if address.is_multicast(target.ip) else target.ip
            return Endpoint(ip, self.local.port)
        route = self.stack.routes.lookup(target.ip[12:])
        source = route.source if route is not None else b""
        return Endpoint(MAPPED + source if source else address.LOOPBACK4, self.local.port)

    # --- options

    def set_family_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """IPPROTO_IP, IPPROTO_IPV6, then the protocol's own."""
        if level == IPPROTO_IPV6 and self.family != AF_INET6:
            raise ENOPROTOOPT("an IPv4 socket")
        if level not in (IPPROTO_IP, IPPROTO_IPV6):
            self.set_protocol_option(level, name, value)
            return
        if self.stream and (refusal := ip_options.NO_STREAM.get((level, name))) is not None:
            raise refusal("a stream")
        if multicast.is_membership(level, name):
            multicast.change(self, level, name, value)
        elif (level, name) == (IPPROTO_IP, abi.IP_MULTICAST_IF):
            multicast.set_interface(self, value)
        elif (level, name) == (IPPROTO_IP, abi.IP_OPTIONS):
            if len(value) > MAX_IP_OPTIONS:
                raise EINVAL("options")
        elif (level, name) == (IPPROTO_IPV6, abi.IPV6_MULTICAST_IF):
            index = self._int_value(level, name, value)
            if index:
                self.stack.interfaces.by_index(index)
            self.multicast_index = index
        elif (level, name) == (IPPROTO_IPV6, IPV6_V6ONLY):
            wanted = bool(self._int_value(level, name, value))
            if self._has_port:
                raise EINVAL("bound already")
            self.v6only = wanted
        elif (level, name) == (IPPROTO_IPV6, abi.IPV6_PKTINFO):
            self._set_sticky(value)
        elif (level, name) == (IPPROTO_IPV6, abi.IPV6_ADDRFORM):
            addrform.change(self, self._int_value(level, name, value))
        else:
            self._set_number(caller, level, name, self._int_value(level, name, value))

    def _set_sticky(self, value: bytes) -> None:
        """IPV6_PKTINFO: the interface and the address of all that is sent."""
        if len(value) < 20:
            raise EINVAL("struct in6_pktinfo")

    @staticmethod
    def _int_value(level: int, name: int, value: bytes) -> int:
        """The int that an option is given as; IPv4 ones may be one byte. Raises: EINVAL."""
        if level == IPPROTO_IP:
            known = name in ip_options.IP or (level, name) in ip_options.REFUSED
            if not value and not known:
                raise ENOPROTOOPT(f"option {name}")
            if not value and name in ip_options.EMPTY_MEANS_0:
                return 0
            if (level, name) in ip_options.INT_EXACTLY and len(value) != 4:
                raise EINVAL("int expected")
            return int_value(value)
        if (level, name) in ip_options.INT_EXACTLY and len(value) != 4:
            raise EINVAL("int expected")
        if len(value) >= 4:
            return int(struct.unpack_from("<i", value)[0])
        if name in ip_options.SHORT_MEANS_0:
            return 0
        if name in ip_options.IPV6 or name in KNOWN6 or (level, name) in ip_options.REFUSED:
            raise EINVAL("int expected")
        raise ENOPROTOOPT(f"option {name}")

    def _set_number(self, caller: Caller, level: int, name: int, number: int) -> None:
        table, values = (
            (ip_options.IP, self.ip_options)
            if level == IPPROTO_IP
            else (ip_options.IPV6, self.ipv6_options)
        )
        refused = ip_options.REFUSED.get((level, name))
        if refused is not None:
            refused(number)
        if name not in table:
            raise ENOPROTOOPT(f"level {level} option {name}")
        if (level, name) in ip_options.NEEDS_RAW and number:
            rights, owner = caller.creds, self.stack.owner
            if not (rights.has_in(owner, CAP_NET_RAW) or rights.has_in(owner, CAP_NET_ADMIN)):
                raise EPERM("CAP_NET_ADMIN")
        number = table[name].check(number)
        if self.stream and (level, name) in ip_options.WITH_ECN:
            number &= ~INET_ECN_MASK
        values[name] = number
        if not number and (level, name) in ip_options.RECVERR:
            self.forget_errors()

    def forget_errors(self) -> None:
        """IP_RECVERR was turned off."""

    def family_option(self, caller: Caller, level: int, name: int, size: int) -> bytes:
        """The value of an option."""
        if level == IPPROTO_IPV6 and self.family == AF_INET6:
            known: dict[int, int] = self.ipv6_options
            special = self._option6(name, size)
        elif level == IPPROTO_IP:
            known = self.ip_options
            special = self._option4(name, size)
        elif level == IPPROTO_IPV6:
            raise EOPNOTSUPP("an IPv4 socket")
        else:
            return self.protocol_option(level, name)[:size]
        if special is not None:
            return special[:size]
        if name not in known:
            raise ENOPROTOOPT(f"level {level} option {name}")
        return shown_number(level, known[name], size)

    def _option4(self, name: int, size: int) -> bytes | None:
        if name == abi.IP_MTU:
            if self.remote is None:
                raise ENOTCONN("no destination")
            return struct.pack("<i", LOOPBACK_MTU)
        if name == abi.IP_MULTICAST_IF:
            return self.multicast_address
        if name == abi.IP_OPTIONS:
            return b""
        if name == abi.IP_PROTOCOL:
            return shown_number(IPPROTO_IP, self.protocol if self.kind == SOCK_RAW else 0, size)
        if name == abi.IP_PKTOPTIONS and self.stream:
            return b""
        return None

    def _option6(self, name: int, size: int) -> bytes | None:
        if name == IPV6_V6ONLY:
            return struct.pack("<i", int(self.v6only))
        if name == abi.IPV6_ADDRFORM:
            return struct.pack("<i", addrform.value(self))
        if name == abi.IPV6_MULTICAST_IF:
            return struct.pack("<i", self.multicast_index)
        if name == abi.IPV6_MTU:
            if self.remote is None:
                raise ENOTCONN("no destination")
            return struct.pack("<i", LOOPBACK_MTU)
        if name in (abi.IPV6_HOPOPTS, abi.IPV6_DSTOPTS, abi.IPV6_RTHDR, abi.IPV6_RTHDRDSTOPTS):
            return b""
        if name == abi.IPV6_PATHMTU:
            if size < PATHMTU_SIZE:
                raise EINVAL("struct ip6_mtuinfo")
            if self.remote is None:
                raise ENOTCONN("no destination")
            return bytes(28) + struct.pack("<I", LOOPBACK_MTU)
        return None

    def set_protocol_option(self, level: int, name: int, value: bytes) -> None:
        """The protocol's own."""
        raise ENOPROTOOPT(f"level {level} option {name}")

    def protocol_option(self, level: int, name: int) -> bytes:
        """The protocol's own."""
        raise EOPNOTSUPP(f"level {level} option {name}")


def is_group(ip: bytes) -> bool:
    """An address that is nobody's own: multicast, broadcast."""
    return address.is_multicast(ip) or address.is_broadcast(ip)


def shown_number(level: int, number: int, size: int) -> bytes:
    """An int, at most `size` bytes of it; a small one of IPPROTO_IP may be one byte."""
    if level == IPPROTO_IP and 0 < size < 4 and 0 <= number <= 255:
        return bytes([number])
    return struct.pack("<i", number)[:size]


def int_value(value: bytes) -> int:
    """An option given as an int, or as one byte."""
    if len(value) >= 4:
        return int(struct.unpack_from("<i", value)[0])
    if value:
        return value[0]
    raise EINVAL("an option needs a value")
