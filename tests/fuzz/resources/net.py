"""Sockets, what is queued in them, addresses, routes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sentry.abi.netlink import (
    FR_ACT_TO_TBL,
    FRA_FWMARK,
    FRA_PRIORITY,
    IFA_LOCAL,
    IFF_UP,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_VLAN_ID,
    NDA_LLADDR,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NTF_MASTER,
    NUD_NOARP,
    RTA_DST,
    RTA_OIF,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)  # fmt: skip
from sentry.abi.socket import (
    AF_BRIDGE,
    AF_INET,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    PACKET_FANOUT,
    PACKET_FANOUT_LB,
    PACKET_RX_RING,
    PACKET_TX_RING,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_PACKET,
)  # fmt: skip
from sentry.errors import ECONNREFUSED
from tests.fuzz.scaling import Bench, Resource
from tests.unit.net.brokered import POLICY, Brokered

LOOPBACK = 1


def inet_at(port: int, host: int = 0x7F000001) -> bytes:
    return struct.pack("<H", AF_INET) + struct.pack(">HI", port, host) + bytes(8)


def _unix(name: bytes) -> bytes:
    return struct.pack("<H", AF_UNIX) + b"\0" + name


def open_socket(b: Bench, family: int, kind: int, protocol: int = 0) -> int:
    return b.ok("socket", family, kind | SOCK_NONBLOCK, protocol)


def udp_ports(b: Bench) -> None:
    """Bound to ports that the kernel chooses, then to given ones."""
    made = b.each("create", lambda _: open_socket(b, AF_INET, SOCK_DGRAM))
    b.each("bind to any", lambda i: b.ok("bind", made[i], inet_at(0), 16))
    b.read_all("read /proc/net/udp", b"/proc/net/udp")
    b.each("close", lambda i: b.ok("close", made[i]))
    made = [open_socket(b, AF_INET, SOCK_DGRAM) for _ in range(b.n)]
    b.each("bind", lambda i: b.ok("bind", made[i], inet_at(2000 + i), 16))
    b.each("send to each", lambda i: b.ok("sendto", made[0], b"x", 1, 0, inet_at(2000 + i), 16))
    room = b.program.buffer(8)
    b.each("receive", lambda i: b.ok("recvfrom", made[i], room, 8, 0, 0, 0))
    b.each("connect", lambda i: b.ok("connect", made[i], inet_at(2000), 16))
    b.read_all("read /proc/net/udp again", b"/proc/net/udp")


def one_port(b: Bench) -> None:
    """Shared by many sockets (SO_REUSEPORT)."""
    made = [open_socket(b, AF_INET, SOCK_DGRAM) for _ in range(b.n)]
    yes = struct.pack("<i", 1)
    for fd in made:
        b.ok("setsockopt", fd, 1, 15, yes, 4)
    b.each("bind", lambda i: b.ok("bind", made[i], inet_at(2000), 16))
    sender = open_socket(b, AF_INET, SOCK_DGRAM)
    b.each("send", lambda _: b.ok("sendto", sender, b"x", 1, 0, inet_at(2000), 16))
    b.each("close", lambda i: b.ok("close", made[i]))


def tcp_connections(b: Bench) -> None:
    """To one listener."""
    listener = open_socket(b, AF_INET, SOCK_STREAM)
    b.ok("bind", listener, inet_at(2000), 16)
    b.ok("listen", listener, 4096)
    made = [open_socket(b, AF_INET, SOCK_STREAM) for _ in range(b.n)]

    def connect(i: int) -> None:
        b.program.call("connect", made[i], inet_at(2000), 16)
        b.world.settle()

    b.each("connect", connect)
    came = b.each("accept", lambda _: b.ok("accept4", listener, 0, 0, 0))
    b.each("send", lambda i: b.ok("sendto", made[i], b"x", 1, 0, 0, 0))
    b.read_all("read /proc/net/tcp", b"/proc/net/tcp")
    b.each("close", lambda i: (b.ok("close", made[i]), b.ok("close", came[i]), b.world.settle()))


def tcp_backlog(b: Bench) -> None:
    """Connections that nobody accepts, then their listener closed."""
    listener = open_socket(b, AF_INET, SOCK_STREAM)
    b.ok("bind", listener, inet_at(2000), 16)
    b.ok("listen", listener, 4096)
    made = [open_socket(b, AF_INET, SOCK_STREAM) for _ in range(b.n)]
    for fd in made:
        b.program.call("connect", fd, inet_at(2000), 16)
        b.world.settle()
    with b.measure("close the listener"):
        b.ok("close", listener)
        b.world.settle()
    b.each("close", lambda i: b.ok("close", made[i]))


def multicast(b: Bench) -> None:
    """Memberships: groups of one socket, and many sockets in one group."""
    one = open_socket(b, AF_INET, SOCK_DGRAM)
    few = min(b.n, 20)
    group = [struct.pack(">II", 0xEF000001 + i, 0x7F000001) for i in range(b.n)]
    b.each("join", lambda i: i >= few or b.ok("setsockopt", one, 0, 35, group[i], 8))
    made = [open_socket(b, AF_INET, SOCK_DGRAM) for _ in range(b.n)]
    yes = struct.pack("<i", 1)
    for fd in made:
        b.ok("setsockopt", fd, 1, 2, yes, 4)
        b.ok("bind", fd, inet_at(2000, 0), 16)
    b.each("join one group", lambda i: b.ok("setsockopt", made[i], 0, 35, group[0], 8))
    b.ok("setsockopt", one, 0, 32, struct.pack(">I", 0x7F000001), 4)
    with b.measure("send to the group"):
        b.program.call("sendto", one, b"x", 1, 0, inet_at(2000, 0xEF000001), 16)
        b.world.settle()
    b.each("close", lambda i: b.ok("close", made[i]))


def packet_sockets(b: Bench) -> None:
    """That all hear what is sent."""
    made = b.each("create", lambda _: open_socket(b, AF_PACKET, SOCK_RAW, 0x0300))
    sender = open_socket(b, AF_INET, SOCK_DGRAM)
    with b.measure("send"):
        b.ok("sendto", sender, b"x", 1, 0, inet_at(9), 16)
    b.read_all("read /proc/net/packet", b"/proc/net/packet")
    b.each("close", lambda i: b.ok("close", made[i]))


def packet_fanout(b: Bench) -> None:
    """Of which one hears what is sent."""
    made = b.each("create", lambda _: open_socket(b, AF_PACKET, SOCK_RAW, 0x0300))
    group = struct.pack("<HHI", 7, PACKET_FANOUT_LB, b.n)
    b.each("join", lambda i: b.ok("setsockopt", made[i], SOL_PACKET, PACKET_FANOUT, group, 8))
    sender = open_socket(b, AF_INET, SOCK_DGRAM)
    with b.measure("send"):
        b.ok("sendto", sender, b"x", 1, 0, inet_at(9), 16)
    b.each("close", lambda i: b.ok("close", made[i]))


def packet_rings(b: Bench) -> None:
    """Of many packets, to be received and to be sent."""
    fd, sender = open_socket(b, AF_PACKET, SOCK_RAW, 0x0300), open_socket(b, AF_INET, SOCK_DGRAM)
    ring = struct.pack("<IIII", 4096, b.n, 4096, b.n)
    for kind in (PACKET_RX_RING, PACKET_TX_RING):
        b.ok("setsockopt", fd, SOL_PACKET, kind, ring, 16)
    b.each("send", lambda _: b.ok("sendto", sender, b"x", 1, 0, inet_at(9), 16))
    b.ok("setsockopt", fd, SOL_PACKET, PACKET_RX_RING, bytes(16), 16)
    b.ok("close", fd)


def unix_names(b: Bench) -> None:
    """Of datagram sockets."""
    made = b.each("create", lambda _: open_socket(b, AF_UNIX, SOCK_DGRAM))
    b.each("bind", lambda i: b.ok("bind", made[i], _unix(b"n%06d" % i), 10))
    b.each("send", lambda i: b.ok("sendto", made[i], b"x", 1, 0, _unix(b"n%06d" % i), 10))
    b.read_all("read /proc/net/unix", b"/proc/net/unix")
    b.each("close", lambda i: b.ok("close", made[i]))
    made = [open_socket(b, AF_UNIX, SOCK_DGRAM) for _ in range(b.n)]
    b.each("bind to any", lambda i: b.ok("bind", made[i], struct.pack("<H", AF_UNIX), 2))


def unix_pairs(b: Bench) -> None:
    """Streams with something in them."""
    made = b.each("create", lambda _: b.pair("socketpair", AF_UNIX, SOCK_STREAM, 0))
    b.each("send", lambda i: b.ok("sendto", made[i][0], b"x", 1, 0, 0, 0))
    b.each("close", lambda i: (b.ok("close", made[i][0]), b.ok("close", made[i][1])))


def unix_queue(b: Bench) -> None:
    """Datagrams from many senders, connected to one receiver."""
    receiver = open_socket(b, AF_UNIX, SOCK_DGRAM)
    b.ok("bind", receiver, _unix(b"receiver"), 11)
    made = [open_socket(b, AF_UNIX, SOCK_DGRAM) for _ in range(b.n)]
    b.each("connect", lambda i: b.ok("connect", made[i], _unix(b"receiver"), 11))
    room = b.program.buffer(8)

    def through(i: int) -> None:
        b.ok("sendto", made[i], b"x", 1, 0, 0, 0)
        b.ok("recvfrom", receiver, room, 8, 0, 0, 0)

    b.each("send and receive", through)
    with b.measure("close the receiver"):
        b.ok("close", receiver)
    b.each("close", lambda i: b.ok("close", made[i]))


def in_flight(b: Bench) -> None:
    """Descriptors of sockets, sent and not received."""
    one, _other = b.pair("socketpair", AF_UNIX, SOCK_DGRAM, 0)
    made = [b.pair("socketpair", AF_UNIX, SOCK_DGRAM, 0) for _ in range(b.n)]
    data = b.program.place(b"x")
    iov = b.program.place(struct.pack("<QQ", data, 1))

    def send(i: int) -> int:
        control = b.program.place(struct.pack("<Qiii", 20, 1, 1, made[i][0]) + bytes(4))
        message = struct.pack("<QIxxxxQQQQi", 0, 0, iov, 1, control, 24, 0)
        return b.ok("sendmsg", made[i - 1][1] if i else one, b.program.place(message + bytes(4)), 0)

    b.each("send", send)
    b.each("close what was sent", lambda i: b.ok("close", made[i][0]))
    b.each("close the rest", lambda i: b.ok("close", made[i][1]))
    b.world.settle()


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


NEW = NLM_F_CREATE | NLM_F_EXCL


def _link(name: bytes, index: int = 0) -> bytes:
    """struct ifinfomsg, and of which interface it is."""
    return struct.pack("<BxHiII", 0, 0, index, 0, 0) + _attribute(IFLA_IFNAME, name)


def _kind(kind: bytes) -> bytes:
    return _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, kind))


class _Rtnetlink:
    """A socket, and requests with their answers."""

    def __init__(self, b: Bench) -> None:
        self._b = b
        self._fd = b.ok("socket", AF_NETLINK, SOCK_RAW, 0)
        self._room = b.program.buffer(65536)

    def ask(self, kind: int, flags: int, body: bytes) -> None:
        """A request that is acknowledged."""
        self._send(kind, flags | NLM_F_ACK, body)
        _, error = next(self._answers())
        assert error == 0, error

    def dump(self, kind: int, body: bytes) -> None:
        """A request with many answers, to their end."""
        self._send(kind, NLM_F_DUMP, body)
        while all(found != 3 for found, _ in self._answers()):
            pass

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        head = struct.pack("<IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, 1, 0)
        self._b.ok("sendto", self._fd, head + body, len(head) + len(body), 0, 0, 0)

    def _answers(self) -> Iterator[tuple[int, int]]:
        size = self._b.ok("recvfrom", self._fd, self._room, 65536, 0, 0, 0)
        data = self._b.program.read(self._room, size)
        while data:
            length, kind = struct.unpack_from("<IH", data)
            yield kind, struct.unpack_from("<i", data, 16)[0]
            data = data[length + 3 & ~3 :]


def addresses(b: Bench) -> None:
    """Of the loopback interface."""
    link = _Rtnetlink(b)

    def body(i: int) -> bytes:
        address = struct.pack(">I", 0x0A000001 + 256 * i)
        return struct.pack("<BBBBI", AF_INET, 24, 0, 0, LOOPBACK) + _attribute(IFA_LOCAL, address)

    b.each("add", lambda i: link.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body(i)))
    with b.measure("dump"):
        link.dump(RTM_GETADDR, struct.pack("<BBBBI", AF_INET, 0, 0, 0, 0))
    made = [open_socket(b, AF_INET, SOCK_DGRAM) for _ in range(b.n)]
    b.each("bind to each", lambda i: b.ok("bind", made[i], inet_at(2000, 0x0A000001 + 256 * i), 16))
    b.each("connect", lambda i: b.ok("connect", made[i], inet_at(9, 0x0A000001 + 256 * i), 16))
    b.read_all("read fib_trie", b"/proc/net/fib_trie")
    b.each("remove", lambda i: link.ask(RTM_DELADDR, 0, body(i)))


def routes(b: Bench) -> None:
    """Through the loopback interface."""
    link = _Rtnetlink(b)

    def body(i: int) -> bytes:
        target = _attribute(RTA_DST, struct.pack(">I", 0x0A000000 + 256 * i))
        way = _attribute(RTA_OIF, struct.pack("<I", LOOPBACK))
        return struct.pack("<8BI", AF_INET, 24, 0, 0, 254, 3, 253, 1, 0) + target + way

    b.each("add", lambda i: link.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body(i)))
    with b.measure("dump"):
        link.dump(RTM_GETROUTE, struct.pack("<8BI", AF_INET, *[0] * 8))
    made = [open_socket(b, AF_INET, SOCK_DGRAM) for _ in range(b.n)]
    b.each("connect", lambda i: b.program.call("connect", made[i], inet_at(9, 0x0A000001 + 256 * i),
                                               16))  # fmt: skip
    b.read_all("read /proc/net/route", b"/proc/net/route")
    b.each("remove", lambda i: link.ask(RTM_DELROUTE, 0, body(i)))


def interfaces(b: Bench) -> None:
    """Of the kind dummy."""
    link, most = _Rtnetlink(b), 250  # of a stack

    def named(i: int) -> bytes:
        return _link(b"d%d" % i)

    b.each("make", lambda i: i >= most or link.ask(RTM_NEWLINK, NEW, named(i) + _kind(b"dummy")))
    with b.measure("dump"):
        link.dump(RTM_GETLINK, bytes(16))
    b.read_all("read /proc/net/dev", b"/proc/net/dev")
    b.each("delete", lambda i: i >= most or link.ask(RTM_DELLINK, 0, named(i)))


def bridge_ports(b: Bench) -> None:
    """Ends of veths."""
    link, most, bridge = _Rtnetlink(b), 120, 7777  # pairs of a stack
    link.ask(RTM_NEWLINK, NEW, _link(b"br", bridge) + _kind(b"bridge"))

    def plug(i: int, master: int) -> None:
        wanted = _attribute(IFLA_MASTER, struct.pack("<I", master))
        if i < most:
            link.ask(RTM_NEWLINK, 0, _link(b"v%d" % i) + wanted)

    for i in range(min(b.n, most)):
        link.ask(RTM_NEWLINK, NEW, _link(b"v%d" % i) + _kind(b"veth"))
    b.each("plug", lambda i: plug(i, bridge))
    b.each("unplug", lambda i: plug(i, 0))
    for i in range(min(b.n, most)):
        plug(i, bridge)
    with b.measure("delete the bridge"):
        link.ask(RTM_DELLINK, 0, _link(b"br"))


def vlans(b: Bench) -> None:
    """Of one interface, that go up and down with it."""
    link, most, below = _Rtnetlink(b), 120, 7777  # of an interface
    link.ask(RTM_NEWLINK, NEW, _link(b"d", below) + _kind(b"dummy"))

    def body(i: int) -> bytes:
        number = _attribute(IFLA_VLAN_ID, struct.pack("<H", 1 + i))
        info = _attribute(IFLA_INFO_KIND, b"vlan") + _attribute(IFLA_INFO_DATA, number)
        by = _attribute(IFLA_LINK, struct.pack("<I", below))
        return _link(b"v%d" % i) + by + _attribute(IFLA_LINKINFO, info)

    def turn(flags: int) -> None:
        link.ask(RTM_NEWLINK, 0, struct.pack("<BxHiII", 0, 0, below, flags, IFF_UP))

    b.each("make", lambda i: i >= most or link.ask(RTM_NEWLINK, NEW, body(i)))
    with b.measure("turn on"):
        turn(IFF_UP)
    with b.measure("turn off"):
        turn(0)
    b.read_all("read vlan/config", b"/proc/net/vlan/config")
    with b.measure("delete what is below"):
        link.ask(RTM_DELLINK, 0, _link(b"d"))


def forwarding(b: Bench) -> None:
    """Who is set behind a port of a bridge."""
    link, bridge, port = _Rtnetlink(b), 7777, 7778
    link.ask(RTM_NEWLINK, NEW, _link(b"br", bridge) + _kind(b"bridge"))
    link.ask(RTM_NEWLINK, NEW, _link(b"d", port) + _kind(b"dummy"))
    link.ask(RTM_NEWLINK, 0, _link(b"d", port) + _attribute(IFLA_MASTER, struct.pack("<I", bridge)))

    def body(i: int) -> bytes:
        head = struct.pack("<BxxxiHBB", AF_BRIDGE, port, NUD_NOARP, NTF_MASTER, 0)
        return head + _attribute(NDA_LLADDR, b"\x02" + i.to_bytes(5))

    b.each("add", lambda i: link.ask(RTM_NEWNEIGH, NEW, body(i)))
    with b.measure("dump"):
        link.dump(RTM_GETNEIGH, struct.pack("<BxxxiHBB", AF_BRIDGE, 0, 0, 0, 0))
    b.each("remove", lambda i: i % 2 or link.ask(RTM_DELNEIGH, 0, body(i)))
    with b.measure("take the port away"):
        link.ask(RTM_NEWLINK, 0, _link(b"d", port) + _attribute(IFLA_MASTER, bytes(4)))
    link.ask(RTM_DELLINK, 0, _link(b"d"))
    link.ask(RTM_DELLINK, 0, _link(b"br"))


def routing_rules(b: Bench) -> None:
    """By mark."""
    link, most = _Rtnetlink(b), 250  # of a family

    def body(i: int) -> bytes:
        head = struct.pack("<8BI", AF_INET, 0, 0, 0, 100, 0, 0, FR_ACT_TO_TBL, 0)
        mark = _attribute(FRA_FWMARK, struct.pack("<I", 1 + i))
        return head + _attribute(FRA_PRIORITY, struct.pack("<I", 1 + i)) + mark

    b.each("add", lambda i: i >= most or link.ask(RTM_NEWRULE, NEW, body(i)))
    with b.measure("dump"):
        link.dump(RTM_GETRULE, struct.pack("<8BI", AF_INET, *[0] * 8))
    b.each("remove", lambda i: i >= most or link.ask(RTM_DELRULE, 0, body(i)))


def brokered(b: Bench) -> None:
    """Connections that a broker has, and a policy that ends them."""
    one = Brokered(b.world)
    sockets = [open_socket(b, AF_INET, SOCK_STREAM) for _ in range(b.n)]

    def connect(i: int) -> None:
        b.program.call("connect", sockets[i], inet_at(443, 0xCB007105), 16)
        b.world.settle()

    b.each("connect", connect)
    b.each("send", lambda i: (b.ok("sendto", sockets[i], b"x", 1, 0, 0, 0), b.world.settle()))
    b.each("hear", lambda i: (one.dialed.ends[i].send(b"y"), b.world.settle()))
    with b.measure("change the policy"):
        one.change("")
    b.each("close", lambda i: b.ok("close", sockets[i]))
    one.change(POLICY)

    def refuse(_: int) -> None:
        one.dialed.errors.append(ECONNREFUSED("test"))
        one.refused()

    b.each("be refused", refuse)
    one.end()


RESOURCES: tuple[Resource, ...] = (
    udp_ports, one_port, tcp_connections, tcp_backlog, multicast, packet_sockets,
    packet_fanout, packet_rings, unix_names, unix_pairs, unix_queue, in_flight, addresses, routes,
    interfaces, bridge_ports, vlans, forwarding, routing_rules, brokered,
)  # fmt: skip
