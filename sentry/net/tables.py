"""/proc/net: the tables of sockets, interfaces and routes as text. proc_net(5).

`shown` gives them to the proc file system, which has the heads (sentry.fs.proc.net).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.netlink import RT_TABLE_LOCAL, RTN_LOCAL
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    BPF_TCP_CLOSE,
    BPF_TCP_ESTABLISHED,
    BPF_TCP_LISTEN,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    SS_CONNECTED,
    SS_UNCONNECTED,
)
from sentry.net.counters import netstat, snmp, snmp6
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.inet.raw import RawSocket
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.udp import UdpSocket
from sentry.net.interfaces import mask_of
from sentry.net.netlink.socket import NetlinkSocket
from sentry.net.packet_socket import PacketSocket
from sentry.net.unix import UnixSocket

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.time_wait import Remains
    from sentry.net.socket import Socket
    from sentry.net.stack import Stack

TCP_WIDTH: Final = 149
UDP_WIDTH: Final = 127
USER_HZ: Final = 100
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


def all_of(stack: Stack, kind: type[Socket]) -> list[Any]:
    """The open sockets of a class, oldest first."""
    found = [sock for sock in stack.sockets if isinstance(sock, kind)]
    return sorted(found, key=lambda sock: sock.inode.ino)


def tcp_sockets(stack: Stack, family: int) -> list[TcpSocket]:
    """Those that have a port, also those that wait for accept."""
    found = [
        sock
        for sock in stack.ports_of(IPPROTO_TCP).everybody()
        if isinstance(sock, TcpSocket) and sock.family == family and sock.state != BPF_TCP_CLOSE
    ]
    return sorted(found, key=lambda sock: (sock.state != BPF_TCP_LISTEN, sock.inode.ino))


def _tcp(stack: Stack, family: int) -> str:
    lines = []
    for number, sock in enumerate(tcp_sockets(stack, family)):
        waiting, unsent = sock.queues()
        unsent = 0 if sock.listening else unsent
        line = (
            f"{number:4}: {place(sock.local, family)} {place(sock.remote, family)} "
            f"{sock.state:02X} {unsent:08X}:{waiting:08X} 00:00000000 00000000 "
            f"{sock.inode.uid:5} {0:8} {sock.inode.ino if sock.refs else 0} 1 "
            f"{sock.inode.ino:016x} 100 0 0 10 0"
        )
        lines.append(line.ljust(TCP_WIDTH) if family == AF_INET else line)
    return _joined(lines + _ended(stack, family, len(lines)))


def _ended(stack: Stack, family: int, first: int) -> list[str]:
    """Connections that have no socket any more: get_timewait4_sock()."""
    lines = []
    now_ns = time.monotonic_ns()
    for number, one in enumerate(ended_of(stack, family), first):
        ticks = max(0, one.expires_ns - now_ns) * USER_HZ // 10**9
        line = (
            f"{number:4}: {place(one.local, family)} {place(one.remote, family)} {one.state:02X} "
            f"{0:08X}:{0:08X} 03:{ticks:08X} 00000000 {0:5} {0:8} 0 3 {0:016x}"
        )
        lines.append(line.ljust(TCP_WIDTH) if family == AF_INET else line)
    return lines


def ended_of(stack: Stack, family: int) -> list[Remains]:
    """What TIME_WAIT holds of one family."""
    return [one for one in stack.ports_of(IPPROTO_TCP).ended if one.family == family]


def udp_sockets(stack: Stack, family: int, protocol: int) -> list[UdpSocket]:
    """Those of UDP or of UDP-Lite that have a port."""
    return [
        sock
        for sock in all_of(stack, UdpSocket)
        if sock.family == family and sock.protocol == protocol and sock.local.port
    ]


def _datagrams(stack: Stack, family: int, socks: Iterable[InetSocket], width: int) -> str:
    lines = []
    for sock in socks:
        if sock.family != family:
            continue
        state = BPF_TCP_ESTABLISHED if sock.remote is not None else BPF_TCP_CLOSE
        line = (
            f"{sock.local.port:{width}}: {place(sock.local, family)} {place(sock.remote, family)} "
            f"{state:02X} {0:08X}:{sock.charged():08X} 00:00000000 00000000 "
            f"{sock.inode.uid:5} {0:8} {sock.inode.ino} 2 {sock.inode.ino:016x} 0"
        )
        lines.append(line.ljust(UDP_WIDTH) if family == AF_INET else line)
    return _joined(lines)


def _udp(stack: Stack, family: int, protocol: int = IPPROTO_UDP) -> str:
    return _datagrams(stack, family, udp_sockets(stack, family, protocol), 5)


def _raw(stack: Stack, family: int) -> str:
    known = (TcpSocket, UdpSocket)
    socks = [s for s in all_of(stack, InetSocket) if not isinstance(s, known)]
    return _datagrams(stack, family, socks, 4)


def _unix(stack: Stack) -> str:
    lines = []
    for sock in all_of(stack, UnixSocket):
        flags = ACCEPTS if sock.listening else 0
        state = SS_CONNECTED if sock.peer is not None else SS_UNCONNECTED
        line = (
            f"{sock.inode.ino:016x}: {sock.refs + 1:08X} {0:08X} {flags:08X} "
            f"{sock.kind:04X} {state:02X} {sock.inode.ino:5}"
        )
        if sock.name:
            shown = sock.name if sock.name[0] == 0 else sock.name.rstrip(b"\0")
            line += " " + shown.replace(b"\0", b"@").decode("utf-8", "surrogateescape")
        lines.append(line)
    return _joined(lines)


def _netlink(stack: Stack) -> str:
    lines = []
    for sock in all_of(stack, NetlinkSocket):
        groups = sum(1 << (group - 1) for group in sock.groups if group <= 32)
        lines.append(
            f"{sock.inode.ino:016x} {sock.protocol:<3} {sock.port:<10} {groups:08x} {0:<8} {0:<8} "
            f"{0:<5} {sock.refs + 1:<8} {0:<8} {sock.inode.ino:<8}"
        )
    return _joined(lines)


def _dev(stack: Stack) -> str:
    lines = []
    for link in stack.interfaces:
        packets, octets = link.received
        half = f" {packets:7} {0:4} {0:4} {0:4} {0:5} "
        lines.append(f"{link.name:>6}: {octets:7}{half}{0:10} {0:9} {octets:8}{half}{0:7} {0:10}")
    return _joined(lines)


def _route(stack: Stack) -> str:
    lines = []
    for route in stack.routes:
        if route.family != AF_INET or route.table == RT_TABLE_LOCAL:
            continue
        flags = 1 | (2 if route.gateway else 0) | (4 if route.length == 32 else 0)
        name = stack.interfaces.by_index(route.index).name if route.index else "*"
        lines.append(
            f"{name}\t{words(route.destination)}\t{words(route.gateway or bytes(4))}\t{flags:04X}"
            f"\t0\t0\t{route.metric}\t{words(mask_of(route.length, 4))}\t0\t0\t0".ljust(UDP_WIDTH)
        )
    return _joined(lines)


def _route6(stack: Stack) -> str:
    lines = []
    for route in stack.routes:
        if route.family != AF_INET6:
            continue
        flags = 0x80200001 if route.kind == RTN_LOCAL else 1 | (2 if route.gateway else 0)
        name = stack.interfaces.by_index(route.index).name
        lines.append(
            f"{route.destination.hex()} {route.length:02x} {bytes(16).hex()} 00 "
            f"{(route.gateway or bytes(16)).hex()} {route.metric:08x} {1:08x} {0:08x} "
            f"{flags:08x} {name:>8}"
        )
    return _joined(lines)


def _addresses6(stack: Stack) -> str:
    lines = [
        f"{own.ip.hex()} {link.index:02x} {own.prefix:02x} "
        f"{0x10 if own.scope == 254 else 0x20 if own.scope == 253 else 0:02x} "
        f"{own.flags & 0xFF:02x} {link.name:>8}"
        for link in stack.interfaces
        for own in link.of_family(AF_INET6)
    ]
    return _joined(lines)


def _sockstat(stack: Stack) -> str:
    tcp = len(tcp_sockets(stack, AF_INET))
    udp, lite = (
        len(udp_sockets(stack, AF_INET, protocol)) for protocol in (IPPROTO_UDP, IPPROTO_UDPLITE)
    )
    ended = sum(len(ended_of(stack, family)) for family in (AF_INET, AF_INET6))
    return (
        f"sockets: used {len(stack.sockets)}\n"
        f"TCP: inuse {tcp} orphan 0 tw {ended} alloc {tcp} mem 0\n"
        f"UDP: inuse {udp} mem 0\nUDPLITE: inuse {lite}\n"
        f"RAW: inuse {_raw_count(stack, AF_INET)}\nFRAG: inuse 0 memory 0\n"
    )


def _sockstat6(stack: Stack) -> str:
    tcp = len(tcp_sockets(stack, AF_INET6))
    udp, lite = (
        len(udp_sockets(stack, AF_INET6, protocol)) for protocol in (IPPROTO_UDP, IPPROTO_UDPLITE)
    )
    return (
        f"TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse {lite}\n"
        f"RAW6: inuse {_raw_count(stack, AF_INET6)}\n"
        "FRAG6: inuse 0 memory 0\n"
    )


def _raw_count(stack: Stack, family: int) -> int:
    socks = all_of(stack, RawSocket)
    return sum(1 for sock in socks if sock.family == family and not sock.is_ping)


def _protocols(stack: Stack) -> str:
    head = (
        "protocol  size sockets  memory press maxhdr  slab module     "
        "cl co di ac io in de sh ss gs se re bi br ha uh gp em\n"
    )
    all_yes = "  ".join("y" * 18)
    known = (
        ("UNIX-STREAM", UnixSocket, 0), ("NETLINK", NetlinkSocket, 0),
        ("TCPv6", TcpSocket, AF_INET6), ("TCP", TcpSocket, AF_INET),
        ("UDPv6", UdpSocket, AF_INET6), ("UDP", UdpSocket, AF_INET),
    )  # fmt: skip
    lines = []
    for name, kind, family in known:
        count = sum(1 for s in all_of(stack, kind) if family in (0, s.family))
        lines.append(
            f"{name:<9} {1024:4} {count:6}  {-1:6}   NI  {0:6}   yes  kernel      {all_yes}"
        )
    return head + _joined(lines)


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _packet(stack: Stack) -> str:
    lines = []
    for sock in all_of(stack, PacketSocket):
        ethertype, index, waiting = sock.shown()
        lines.append(
            f"{sock.inode.ino:016x} {3:<6} {sock.kind:<4} {ethertype:04x} {index:<5} 1 "
            f"{waiting:<6} {sock.inode.uid:<6} {sock.inode.ino:<6}"
        )
    return _joined(lines)


TABLES: Final[dict[str, Callable[[Stack], str]]] = {
    "dev": _dev,
    "if_inet6": _addresses6,
    "ipv6_route": _route6,
    "netlink": _netlink,
    "netstat": netstat,
    "packet": _packet,
    "protocols": _protocols,
    "raw": lambda stack: _raw(stack, AF_INET),
    "raw6": lambda stack: _raw(stack, AF_INET6),
    "route": _route,
    "snmp": snmp,
    "snmp6": snmp6,
    "sockstat": _sockstat,
    "sockstat6": _sockstat6,
    "tcp": lambda stack: _tcp(stack, AF_INET),
    "tcp6": lambda stack: _tcp(stack, AF_INET6),
    "udp": lambda stack: _udp(stack, AF_INET),
    "udp6": lambda stack: _udp(stack, AF_INET6),
    "udplite": lambda stack: _udp(stack, AF_INET, IPPROTO_UDPLITE),
    "udplite6": lambda stack: _udp(stack, AF_INET6, IPPROTO_UDPLITE),
    "unix": _unix,
}


def attributes(link: Any) -> dict[str, str]:
    """The files of /sys/class/net/NAME."""

    def mac(raw: bytes) -> str:
        return ":".join(f"{byte:02x}" for byte in raw)

    return {
        "address": mac(link.hardware), "addr_assign_type": "0", "addr_len": "6",
        "broadcast": mac(link.hardware_broadcast), "carrier": str(int(link.is_up)),
        "carrier_changes": "0", "dev_id": "0x0", "dev_port": "0", "dormant": "0",
        "flags": f"{link.flags & 0xFFFF & ~0x40:#x}", "group": "0", "ifalias": "",
        "ifindex": str(link.index), "iflink": str(link.index), "link_mode": "0",
        "mtu": str(link.mtu), "operstate": "unknown" if link.is_loopback else "up",
        "proto_down": "0", "tx_queue_len": str(link.queue_length), "type": str(link.kind),
        "uevent": f"INTERFACE={link.name}\nIFINDEX={link.index}",
    }  # fmt: skip
