"""/proc/net: the tables of sockets, interfaces and routes as text. proc_net(5).

`TABLES` and `OF_USERS` have them for the proc file system, which has the heads
(sentry.fs.proc.net): lines, empty ones among them, so that others may run after each socket that
was looked at.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.netlink import (
    ARPHRD_ETHER,
    ATF_COM,
    ATF_PERM,
    NUD_PERMANENT,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_UNREACHABLE,
)
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    BPF_TCP_CLOSE,
    BPF_TCP_ESTABLISHED,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    RTF_REJECT,
    SS_CONNECTED,
    SS_UNCONNECTED,
)
from sentry.auth.userns import shown_uid
from sentry.net.counters import netstat, snmp, snmp6
from sentry.net.fib_trie import fib_trie
from sentry.net.group_tables import dev_mcast, igmp, igmp6
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.inet.raw import RawSocket
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.udp import UdpSocket
from sentry.net.interfaces import mask_of
from sentry.net.link.neighbours import VALID
from sentry.net.netfilter.listing import followed, matches_known, table_names, targets_known
from sentry.net.netlink.neighbours import tables
from sentry.net.netlink.notices import (
    OPER_DOWN,
    OPER_LOWERLAYERDOWN,
    OPER_UNKNOWN,
    OPER_UP,
    oper_state,
)
from sentry.net.netlink.socket import NetlinkSocket
from sentry.net.packet_socket import PacketSocket
from sentry.net.unix import UnixSocket

if TYPE_CHECKING:
    from sentry.auth.userns import UserNamespace
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.time_wait import Remains
    from sentry.net.routes import Route
    from sentry.net.socket import Socket
    from sentry.net.stack import Stack

    Users = UserNamespace | None

TCP_WIDTH: Final = 149
UDP_WIDTH: Final = 127
USER_HZ: Final = 100
Lines = Iterator[str]
ACCEPTS: Final = 0x10000
"""__SO_ACCEPTCON."""


def words(ip: bytes) -> str:
    """An address as Linux prints it: 32-bit words in the order of the machine."""
    return "".join(f"{int.from_bytes(ip[i : i + 4], 'little'):08X}" for i in range(0, len(ip), 4))


def place(endpoint: Endpoint | None, family: int) -> str:
    """ADDRESS:PORT of one family."""
    size = 4 if family == AF_INET else 16
    if endpoint is None:
        return f"{words(bytes(size))}:0000"
    return f"{words(endpoint.ip[-size:])}:{endpoint.port:04X}"


def open_sockets(stack: Stack) -> Iterator[Any]:
    """Those that are open, oldest first, without those that are closed meanwhile."""
    return (sock for sock in list(stack.sockets) if sock in stack.sockets)


def _of(stack: Stack, kind: type[Socket], line: Callable[[Any], str]) -> Lines:
    """A line for each open socket of a class."""
    for sock in open_sockets(stack):
        yield line(sock) if isinstance(sock, kind) else ""


def is_tcp(sock: Any, family: int) -> bool:
    """It has a port, also while it waits for accept, and is shown."""
    shown = isinstance(sock, TcpSocket) and sock.has_port
    return shown and sock.family == family and sock.state != BPF_TCP_CLOSE


def _tcp(stack: Stack, users: Users, family: int) -> Lines:
    ports, number = stack.ports_of(IPPROTO_TCP), 0
    for listening in (True, False):
        for sock in ports.everybody():
            shown = is_tcp(sock, family) and sock.listening == listening
            yield _tcp_line(number, sock, users, family) if shown else ""
            number += shown
    for after, one in enumerate(ended_of(stack, family)):
        yield _ended_line(number + after, one, family)


def _tcp_line(number: int, sock: Any, users: Users, family: int) -> str:
    waiting, unsent = sock.queues()
    unsent = 0 if sock.listening else unsent
    line = (
        f"{number:4}: {place(sock.local, family)} {place(sock.remote, family)} "
        f"{sock.state:02X} {unsent:08X}:{waiting:08X} 00:00000000 00000000 "
        f"{shown_uid(users, sock.inode.uid):5} {0:8} {sock.inode.ino if sock.refs else 0} 1 "
        f"{sock.inode.ino:016x} 100 0 0 10 0"
    )
    return _line(line, TCP_WIDTH, family)


def _ended_line(number: int, one: Remains, family: int) -> str:
    """A connection that has no socket any more: get_timewait4_sock()."""
    ticks = max(0, one.expires_ns - time.monotonic_ns()) * USER_HZ // 10**9
    line = (
        f"{number:4}: {place(one.local, family)} {place(one.remote, family)} {one.state:02X} "
        f"{0:08X}:{0:08X} 03:{ticks:08X} 00000000 {0:5} {0:8} 0 3 {0:016x}"
    )
    return _line(line, TCP_WIDTH, family)


def _line(text: str, width: int, family: int) -> str:
    """Those of IPv4 have one length."""
    return f"{text:{width}}\n" if family == AF_INET else f"{text}\n"


def ended_of(stack: Stack, family: int) -> Iterator[Remains]:
    """What TIME_WAIT holds of one family."""
    return (one for one in stack.ports_of(IPPROTO_TCP).ended if one.family == family)


def is_udp(sock: Any, family: int, protocol: int) -> bool:
    """One of UDP or of UDP-Lite that has a port."""
    shown = isinstance(sock, UdpSocket) and sock.family == family
    return shown and sock.protocol == protocol and bool(sock.local.port)


def _datagram_line(sock: Any, users: Users, width: int) -> str:
    family = sock.family
    state = BPF_TCP_ESTABLISHED if sock.remote is not None else BPF_TCP_CLOSE
    line = (
        f"{sock.local.port:{width}}: {place(sock.local, family)} {place(sock.remote, family)} "
        f"{state:02X} {0:08X}:{sock.charged():08X} 00:00000000 00000000 "
        f"{shown_uid(users, sock.inode.uid):5} {0:8} {sock.inode.ino} 2 {sock.inode.ino:016x} "
        f"{sock.drops}"
    )
    return _line(line, UDP_WIDTH, family)


def _udp(stack: Stack, users: Users, family: int, protocol: int = IPPROTO_UDP) -> Lines:
    for sock in open_sockets(stack):
        yield _datagram_line(sock, users, 5) if is_udp(sock, family, protocol) else ""


def _raw(stack: Stack, users: Users, family: int) -> Lines:
    known = (TcpSocket, UdpSocket)
    for sock in open_sockets(stack):
        shown = isinstance(sock, InetSocket) and not isinstance(sock, known)
        yield _datagram_line(sock, users, 4) if shown and sock.family == family else ""


def _unix_line(sock: UnixSocket) -> str:
    flags = ACCEPTS if sock.listening else 0
    state = SS_CONNECTED if sock.peer is not None else SS_UNCONNECTED
    line = (
        f"{sock.inode.ino:016x}: {sock.refs + 1:08X} {0:08X} {flags:08X} "
        f"{sock.kind:04X} {state:02X} {sock.inode.ino:5}"
    )
    if sock.name:
        shown = sock.name if sock.name[0] == 0 else sock.name.rstrip(b"\0")
        line += " " + shown.replace(b"\0", b"@").decode("utf-8", "surrogateescape")
    return f"{line}\n"


def _netlink_line(sock: NetlinkSocket) -> str:
    groups = sum(1 << (group - 1) for group in sock.groups if group <= 32)
    return (
        f"{sock.inode.ino:016x} {sock.protocol:<3} {sock.port:<10} {groups:08x} {0:<8} {0:<8} "
        f"{0:<5} {sock.refs + 1:<8} {0:<8} {sock.inode.ino:<8}\n"
    )


def _dev(stack: Stack) -> Lines:
    for link in stack.interfaces.those_still_there():
        (packets, octets), (out, octets_out) = link.received, link.sent or link.received
        drops = f"{0:4} {0:4} {0:4} {0:5}"
        drops_out = f"{0:4} {link.dropped:4} {0:4} {0:5}"
        yield (
            f"{link.name:>6}: {octets:7} {packets:7} {drops} {0:10} {0:9} "
            f"{octets_out:8} {out:7} {drops_out} {0:7} {0:10}\n"
        )


def _name(stack: Stack, route: Route) -> str:
    """Of the interface; it may have gone meanwhile."""
    return next((link.name for link in stack.interfaces if link.index == route.index), "*")


def _route(stack: Stack) -> Lines:
    for route in stack.routes.in_order():
        if route.family != AF_INET or route.table != RT_TABLE_MAIN:
            continue
        gateway = route.gateway if len(route.gateway) == 4 else b""
        flags = 1 | (2 if gateway else 0) | (4 if route.length == 32 else 0)
        flags |= RTF_REJECT if route.kind in (RTN_UNREACHABLE, RTN_PROHIBIT) else 0
        line = (
            f"{_name(stack, route)}\t{words(route.destination)}\t"
            f"{words(gateway or bytes(4))}\t{flags:04X}"
            f"\t0\t0\t{route.metric}\t{words(mask_of(route.length, 4))}\t0\t0\t0"
        )
        yield f"{line:{UDP_WIDTH}}\n"


def _arp(stack: Stack) -> Lines:
    for index, family, table in tables(stack):
        interface = stack.interfaces.get(index)
        if interface is None or family != AF_INET:
            continue
        for who in list(table):
            flags = ATF_COM if who.state & VALID else 0
            flags |= ATF_PERM if who.state & NUD_PERMANENT else 0
            hardware = (who.hardware if flags else b"").ljust(6, b"\0").hex(":")
            ip = socket.inet_ntoa(who.ip)
            yield (
                f"{ip:<16} 0x{ARPHRD_ETHER:<10x}0x{flags:<10x}{hardware}     *        "
                f"{interface.name}\n"
            )


def _route6(stack: Stack) -> Lines:
    for route in stack.routes.in_order():
        if route.family != AF_INET6:
            continue
        flags = 0x80200001 if route.kind == RTN_LOCAL else 1 | (2 if route.gateway else 0)
        yield (
            f"{route.destination.hex()} {route.length:02x} {bytes(16).hex()} 00 "
            f"{(route.gateway or bytes(16)).hex()} {route.metric:08x} {1:08x} {0:08x} "
            f"{flags:08x} {_name(stack, route):>8}\n"
        )


def _addresses6(stack: Stack) -> Lines:
    for link in stack.interfaces.those_still_there():
        for own in link.of_family(AF_INET6):
            scope = 0x10 if own.scope == 254 else 0x20 if own.scope == 253 else 0
            yield (
                f"{own.ip.hex()} {link.index:02x} {own.prefix:02x} {scope:02x} "
                f"{own.flags & 0xFF:02x} {link.name:>8}\n"
            )


def _sockstat(stack: Stack) -> Lines:
    count = yield from _counted(stack, AF_INET)
    orphans, pages = (0, 0) if stack.tcp is None else stack.tcp.totals()
    yield (
        f"sockets: used {len(stack.sockets)}\n"
        f"TCP: inuse {count['tcp']} orphan {orphans} tw {count['ended']} alloc {count['tcp']} "
        f"mem {pages}\n"
        f"UDP: inuse {count['udp']} mem 0\nUDPLITE: inuse {count['udplite']}\n"
        f"RAW: inuse {count['raw']}\nFRAG: inuse 0 memory 0\n"
    )


def _sockstat6(stack: Stack) -> Lines:
    count = yield from _counted(stack, AF_INET6)
    yield (
        f"TCP6: inuse {count['tcp']}\nUDP6: inuse {count['udp']}\n"
        f"UDPLITE6: inuse {count['udplite']}\nRAW6: inuse {count['raw']}\n"
        "FRAG6: inuse 0 memory 0\n"
    )


def _counted(stack: Stack, family: int) -> Generator[str, None, Counter[str]]:
    """How many sockets of a family there are of each protocol."""
    count: Counter[str] = Counter()
    for sock in stack.ports_of(IPPROTO_TCP).everybody():
        count["tcp"] += is_tcp(sock, family)
        yield ""
    for _ in stack.ports_of(IPPROTO_TCP).ended:
        count["ended"] += 1
        yield ""
    for sock in open_sockets(stack):
        count["udp"] += is_udp(sock, family, IPPROTO_UDP)
        count["udplite"] += is_udp(sock, family, IPPROTO_UDPLITE)
        count["raw"] += isinstance(sock, RawSocket) and sock.family == family and not sock.is_ping
        yield ""
    return count


def _protocols(stack: Stack) -> Lines:
    known = (
        ("UNIX-STREAM", UnixSocket, 0), ("NETLINK", NetlinkSocket, 0),
        ("TCPv6", TcpSocket, AF_INET6), ("TCP", TcpSocket, AF_INET),
        ("UDPv6", UdpSocket, AF_INET6), ("UDP", UdpSocket, AF_INET),
    )  # fmt: skip
    count: Counter[str] = Counter()
    for sock in open_sockets(stack):
        for name, kind, family in known:
            count[name] += isinstance(sock, kind) and family in (0, sock.family)
        yield ""
    yield (
        "protocol  size sockets  memory press maxhdr  slab module     "
        "cl co di ac io in de sh ss gs se re bi br ha uh gp em\n"
    )
    all_yes = "  ".join("y" * 18)
    for name, _, _ in known:
        yield (
            f"{name:<9} {1024:4} {count[name]:6}  {-1:6}   NI  {0:6}   yes  kernel      "
            f"{all_yes}\n"
        )


def _packet_line(sock: PacketSocket, users: Users) -> str:
    ethertype, index, waiting = sock.shown()
    return (
        f"{sock.inode.ino:016x} {3:<6} {sock.kind:<4} {ethertype:04x} {index:<5} 1 "
        f"{waiting:<6} {shown_uid(users, sock.inode.uid):<6} {sock.inode.ino:<6}\n"
    )


TABLES: Final[dict[str, Callable[[Stack], Lines]]] = {
    "arp": _arp,
    "dev": _dev,
    "dev_mcast": dev_mcast,
    "fib_trie": fib_trie,
    "if_inet6": _addresses6,
    "igmp": igmp,
    "igmp6": igmp6,
    "ip6_tables_matches": lambda stack: matches_known(is_v4=False),
    "ip6_tables_names": lambda stack: table_names(stack, is_v4=False),
    "ip6_tables_targets": lambda stack: targets_known(is_v4=False),
    "ip_tables_matches": lambda stack: matches_known(is_v4=True),
    "ip_tables_names": lambda stack: table_names(stack, is_v4=True),
    "ip_tables_targets": lambda stack: targets_known(is_v4=True),
    "ipv6_route": _route6,
    "netlink": lambda stack: _of(stack, NetlinkSocket, _netlink_line),
    "netstat": netstat,
    "nf_conntrack": followed,
    "protocols": _protocols,
    "route": _route,
    "snmp": snmp,
    "snmp6": snmp6,
    "sockstat": _sockstat,
    "sockstat6": _sockstat6,
    "unix": lambda stack: _of(stack, UnixSocket, _unix_line),
}

OF_USERS: Final[dict[str, Callable[[Stack, Users], Lines]]] = {
    "packet": lambda stack, users: _of(stack, PacketSocket, partial(_packet_line, users=users)),
    "raw": lambda stack, users: _raw(stack, users, AF_INET),
    "raw6": lambda stack, users: _raw(stack, users, AF_INET6),
    "tcp": lambda stack, users: _tcp(stack, users, AF_INET),
    "tcp6": lambda stack, users: _tcp(stack, users, AF_INET6),
    "udp": lambda stack, users: _udp(stack, users, AF_INET),
    "udp6": lambda stack, users: _udp(stack, users, AF_INET6),
    "udplite": lambda stack, users: _udp(stack, users, AF_INET, IPPROTO_UDPLITE),
    "udplite6": lambda stack, users: _udp(stack, users, AF_INET6, IPPROTO_UDPLITE),
}
"""Those that tell whose sockets they are, as a user namespace shows it: seq_user_ns()."""

OF_INTERFACES: Final = frozenset({
    "dev", "dev_mcast", "fib_trie", "if_inet6", "igmp", "igmp6", "ipv6_route", "route",
})  # fmt: skip
"""Those that the host may change."""


OPER_STATES: Final = {
    OPER_UNKNOWN: "unknown", OPER_DOWN: "down", OPER_LOWERLAYERDOWN: "lowerlayerdown",
    OPER_UP: "up",
}  # fmt: skip


def attributes(link: Any) -> dict[str, str]:
    """The files of /sys/class/net/NAME; of the counters those that are not always 0."""

    def mac(raw: bytes) -> str:
        return ":".join(f"{byte:02x}" for byte in raw)

    received, sent = link.received, link.sent or link.received
    has_carrier = link.is_up and link.has_carrier
    state = "unknown" if link.is_loopback else "up"
    if link.driver is not None:
        state = OPER_STATES[oper_state(link)]
    return {
        "address": mac(link.hardware), "addr_assign_type": "0",
        "addr_len": str(len(link.hardware)),
        "broadcast": mac(link.hardware_broadcast), "carrier": str(int(has_carrier)),
        "carrier_changes": "0", "dev_id": "0x0", "dev_port": "0", "dormant": "0",
        "flags": f"{link.flags & 0xFFFF & ~0x40:#x}", "group": "0", "ifalias": "",
        "ifindex": str(link.index), "iflink": str(link.index), "link_mode": "0",
        "mtu": str(link.mtu), "operstate": state,
        "proto_down": "0", "tx_queue_len": str(link.queue_length), "type": str(link.kind),
        "uevent": f"INTERFACE={link.name}\nIFINDEX={link.index}",
        "statistics/rx_packets": str(received[0]), "statistics/rx_bytes": str(received[1]),
        "statistics/tx_packets": str(sent[0]), "statistics/tx_bytes": str(sent[1]),
        "statistics/tx_dropped": str(link.dropped),
        **({} if link.driver is None else link.driver.attributes()),
    }  # fmt: skip
