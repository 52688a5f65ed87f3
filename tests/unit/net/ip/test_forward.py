"""A router: the same frames to the host's kernel and to the Sentry's stack, and the same come out.

Both have a link to 10.0.0.0/24 and fd00::/64, by which all comes, and one to 10.0.1.0/24 and
fd01::/64 with a smaller MTU, behind which there is 10.0.2.0/24 and fd02::/64.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest

from sentry.abi.netlink import (
    ARPHRD_ETHER,
    IFF_LOWER_UP,
    IFF_RUNNING,
    IFF_UP,
    RT_SCOPE_UNIVERSE,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
)
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    ETH_P_ALL,
    PACKET_IGNORE_OUTGOING,
    PACKET_VNET_HDR,
    SOL_PACKET,
)
from sentry.net.interfaces import Address, Interface
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.ipv6 import Fragment
from sentry.net.ip.limits import SECOND_NS, SILENCE_NS, RedirectLimit
from sentry.net.link import ethernet
from sentry.net.link.link import EthernetLink
from sentry.net.routes import Route
from sentry.net.rules import Rule
from tests.namespaces import Namespace
from tests.unit.net.ip.test_against_linux import QUIET
from tests.unit.net.wired import INDEX, Host, hardware, ip4, ip6, local6

MTU, OTHER = 1400, INDEX + 1
NEAR = range(2, 9)
"""10.0.0.number of who sends: each is told of few errors."""
TCP, UDP, TEST, HOP, FRAGMENT = 6, 17, 253, 0, 44
MARK = b"that was all"
ROUTER = {**QUIET, "ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
NEEDS_SUM, GSO_TCP4, GSO_TCP6, GSO_UDP = 1, 1, 4, 5


def far4(net: int, number: int = 2) -> bytes:
    """10.0.net.number."""
    return bytes((10, 0, net, number))


def far6(net: int, number: int = 2) -> bytes:
    """fd00 + net::number."""
    return bytes((0xFD, net)) + bytes(13) + bytes([number])


class Linux:
    """The kernel, and who talks to it at both links."""

    def __init__(self) -> None:
        self.router, self.peer = Namespace(), Namespace()
        to = f"/proc/{os.getpid()}/fd/{self.peer.fd}"
        self.router.run(lambda: _set(ROUTER, "eth0"))
        for name, own, mtu in (("eth0", 1, 1500), ("eth1", 11, MTU)):
            self.router.ip(
                f"link add {name} mtu {mtu} type veth peer name {name} mtu 1500 netns {to}",
                f"link set {name} address {hardware(own).hex(':')} addrgenmode none",
                f"link set {name} up", f"addr add fe80::{own}/64 dev {name} nodad",
            )  # fmt: skip
        self.router.run(lambda: _set({"ipv6/conf/eth1/router_solicitations": "0"}))
        self.router.ip(
            "link set lo up", "addr add 10.0.0.1/24 broadcast 10.0.0.255 dev eth0",
            "addr add fd00::1/64 dev eth0 nodad", "addr add 10.0.1.1/24 dev eth1",
            "addr add fd01::1/64 dev eth1 nodad", "route add 10.0.2.0/24 via 10.0.1.2",
            "-6 route add fd02::/64 via fd01::2", "route add 10.0.3.0/24 via 10.0.0.9",
            "-6 route add fd03::/64 via fe80::9 dev eth0",
            "route add prohibit 10.0.4.0/24", "-6 route add prohibit fd04::/64",
            "route add unreachable 10.0.5.0/24", "-6 route add unreachable fd05::/64",
            "route add blackhole 10.0.6.0/24", "-6 route add blackhole fd06::/64",
            "route add throw 10.0.8.0/24", "route add 10.0.10.0/24 via inet6 fd01::2 dev eth1",
            "route add 10.0.7.0/24 via 10.0.1.2 table 100", "rule add from 10.0.0.4 lookup 100",
        )  # fmt: skip
        for name, number, *ips in (
            ("eth0", 2, *(f"10.0.0.{each}" for each in NEAR), "fd00::2", "fe80::2"),
            ("eth0", 9, "10.0.0.9", "fe80::9"),
            ("eth1", 12, "10.0.1.2", "fd01::2"),
        ):  # fmt: skip
            for ip in ips:
                address = hardware(number).hex(":")
                self.router.ip(f"neigh replace {ip} lladdr {address} dev {name} nud permanent")
        self.peer.run(lambda: _set({"ipv6/conf/all/disable_ipv6": "1"}))
        for name in ("eth0", "eth1"):
            self.peer.ip(f"link set {name} arp off promisc on", f"link set {name} up")
        self.near, self.far = (
            self.peer.run(lambda name=name: _packet_socket(name)) for name in ("eth0", "eth1")
        )
        self.far.setblocking(False)

    def answers(self, frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """What comes out of either link."""
        link = ethernet.build(hardware(1), hardware(2), 0x800)
        body = b"\x08\0\0\0\0\1\0\2" + MARK
        body = body[:2] + checksum(body).to_bytes(2) + body[4:]
        header = ipv4.Header(20, 20 + len(body), 0, 7, 0, 64, 1, ip4(2), ip4(1))
        for frame in [*frames, bytes(10) + link + ipv4.build(header) + body]:
            self.near.send(frame)
        near: list[bytes] = []
        while not (near and near[-1].endswith(MARK)):
            near.append(self.near.recv(1 << 17))
        far: list[bytes] = []
        while True:
            try:
                far.append(self.far.recv(1 << 17))
            except BlockingIOError:
                return near[:-1], far

    def close(self) -> None:
        for sock in (self.near, self.far):
            sock.close()
        for each in (self.router, self.peer):
            os.close(each.fd)


def _set(values: dict[str, str], skipped: str = "") -> None:
    for name, value in values.items():
        if not skipped or skipped not in name:
            with open(f"/proc/sys/net/{name}", "w") as file:
                file.write(value)


def _packet_socket(name: str) -> socket.socket:
    """One that hears what is for anybody."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    for option in (PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING):
        made.setsockopt(SOL_PACKET, option, 1)
    made.bind((name, ETH_P_ALL))
    made.settimeout(5)
    return made


class Router(Host):
    """The stack."""

    def __init__(self) -> None:
        super().__init__(1)
        flags = IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        scope = RT_SCOPE_UNIVERSE
        other = Interface(OTHER, "eth1", ARPHRD_ETHER, flags, MTU, hardware(11))
        other.addresses = [
            Address(AF_INET, far4(1, 1), 24, scope, "eth1", far4(1, 255)),
            Address(AF_INET6, far6(1, 1), 64, scope),
            Address(AF_INET6, local6(11), 64, 253),
        ]
        self.interfaces.insert(other)
        self.far = EthernetLink(OTHER, hardware(11), self.layer, 0x80008000)
        self.layer.links[OTHER] = self.far
        self.routes.added += [
            Route(AF_INET, far4(2, 0), 24, OTHER, gateway=far4(1)),
            Route(AF_INET6, far6(2, 0), 64, OTHER, gateway=far6(1)),
            Route(AF_INET, far4(3, 0), 24, INDEX, gateway=ip4(9)),
            Route(AF_INET6, far6(3, 0), 64, INDEX, gateway=local6(9)),
            Route(AF_INET, far4(7, 0), 24, OTHER, 100, gateway=far4(1)),
            Route(AF_INET, far4(8, 0), 24, 0, kind=RTN_THROW),
            Route(AF_INET, far4(10, 0), 24, OTHER, gateway=far6(1)),
        ]
        for net, kind in ((4, RTN_PROHIBIT), (5, RTN_UNREACHABLE), (6, RTN_BLACKHOLE)):
            self.routes.added.append(Route(AF_INET, far4(net, 0), 24, 0, kind=kind))
            self.routes.added.append(Route(AF_INET6, far6(net, 0), 64, 0, kind=kind))
        rule = Rule(AF_INET, 32765, 100, source=ip4(4), source_length=32)
        self.layer.fib.rules.add(rule)
        self.refresh()
        self.sysctls |= {"net/ipv4/conf/all/forwarding": "1", "net/ipv6/conf/all/forwarding": "1"}
        for link, number, *ips in (
            (self.link, 2, *map(ip4, NEAR), ip6(2), local6(2)),
            (self.link, 9, ip4(9), local6(9)),
            (self.far, 12, far4(1), far6(1)),
        ):  # fmt: skip
            for ip in ips:
                link.neighbours(ip).set_static(ip, hardware(number))
        self.layer.limit4.allows = self.layer.limit6.allows = lambda *_: True  # type: ignore[method-assign]

    def answers(self, frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        for frame in frames:
            self.link.received(SECOND_NS, frame)
        return self.link.take_outgoing(10_000, 1 << 30), self.far.take_outgoing(10_000, 1 << 30)


def plain(frame: bytes) -> bytes:
    """Without what each may choose: the virtio header's size of headers, numbers of answers."""
    flags, kind, _, size, start, offset = struct.unpack("<BBHHHH", frame[:10])
    about = struct.pack("<BBHHH", flags & NEEDS_SUM, kind, size, start, offset)
    data = bytearray(frame[10:])
    if ethernet.is_group(data):
        return b""
    if data[12:14] == b"\x08\0" and data[23] == 1 and data[26:30] in (ip4(1), far4(1, 1)):
        data[18:20] = data[24:26] = bytes(2)
    if data[12:14] == b"\x86\xdd" and data[20] == 58 and data[54] in range(1, 5):
        data[14:18] = bytes(4)
    return about + bytes(data)


@pytest.fixture(scope="module")
def linux() -> Iterator[Linux]:
    made = Linux()
    yield made
    made.close()


def four(
    data: bytes, protocol: int = TEST, to: bytes = far4(1), *, options: bytes = b"",
    fragment: int = 0, ttl: int = 64, source: bytes = ip4(2), whom: bytes = hardware(1),
    left: bytes = bytes(10),
) -> bytes:  # fmt: skip
    size = 20 + len(options)
    header = ipv4.Header(size, size + len(data), 3, 7, fragment, ttl, protocol, source, to)
    return left + ethernet.build(whom, hardware(2), 0x800) + ipv4.build(header, options) + data


def six(
    data: bytes, following: int = TEST, to: bytes = far6(1), *, hops: int = 64,
    source: bytes = ip6(2), whom: bytes = hardware(1), left: bytes = bytes(10),
) -> bytes:  # fmt: skip
    header = ipv6.Header(3, 77, len(data), following, hops, source, to)
    return left + ethernet.build(whom, hardware(2), 0x86DD) + ipv6.build(header) + data


def tcp(size: int, ends: tuple[bytes, bytes]) -> bytes:
    """A segment whose sum is that of the pseudo header."""
    before = pseudo_sum(*ends, TCP, 20 + size)
    return struct.pack(">HHIIBBHHH", 9, 80, 1, 2, 0x50, 0x10, 99, before, 0) + b"t" * size


def udp(size: int, ends: tuple[bytes, bytes], *, sum_is_left: bool = False) -> bytes:
    before = pseudo_sum(*ends, UDP, 8 + size)
    head = struct.pack(">HHHH", 9, 53, 8 + size, before if sum_is_left else 0)
    if sum_is_left:
        return head + b"u" * size
    total = checksum(head + b"u" * size, before) or 0xFFFF
    return head[:6] + total.to_bytes(2) + b"u" * size


def left(ip_size: int, at: int, kind: int = 0, size: int = 0, header: int = 0) -> bytes:
    return struct.pack("<BBHHHH", NEEDS_SUM, kind, header, size, 14 + ip_size, at)


ENDS4, ENDS6 = (ip4(2), far4(1)), (ip6(2), far6(1))
DF, MORE = 0x4000, 0x2000
NOOP, COPIED, PLAIN = b"\x01", b"\x82\x04ab", b"\x1e\x04cd"
CASES: dict[str, tuple[int, int, list[bytes]]] = {
    # Linux counts "nowhere" for each sender, and forgets what it saved up with every other error
    "to a neighbour": (0, 1, [four(b"x" * 100)]),
    "to who is behind a router": (0, 1, [four(b"x", to=far4(2, 7))]),
    "of UDP": (0, 1, [four(udp(30, ENDS4), UDP)]),
    "with options": (0, 1, [four(b"x", options=NOOP * 4)]),
    "with a last hop": (1, 0, [four(b"x" * 100, ttl=1)]),
    "with no hop": (1, 0, [four(b"x" * 100, ttl=0)]),
    "nowhere": (1, 0, [four(b"x" * 100, to=b"\x0b\0\0\1", source=ip4(3))]),
    "to a group": (0, 0, [four(b"x", to=b"\xef\0\0\1")]),
    "to nobody": (1, 0, [four(b"x", to=b"\xf0\0\0\1", source=ip4(4))]),
    "to the loopback": (0, 0, [four(b"x", to=b"\x7f\0\0\1")]),
    "from the loopback": (0, 0, [four(b"x", source=b"\x7f\0\0\1")]),
    "from our other address": (0, 0, [four(b"x", source=far4(1, 1))]),
    "from a group": (0, 0, [four(b"x", source=b"\xe0\0\0\1")]),
    "for another machine": (0, 0, [four(b"x", whom=hardware(7))]),
    "in a frame for all": (0, 0, [four(b"x", whom=ethernet.BROADCAST)]),
    "from a stranger": (0, 1, [four(b"x", source=b"\x0b\0\0\1")]),
    "that is too large": (1, 0, [four(b"x" * 1400, fragment=DF)]),
    "that is cut": (0, 2, [four(b"x" * 1400)]),
    "that just fits": (0, 1, [four(b"x" * 1380, fragment=DF)]),
    "that is cut with options": (0, 2, [four(b"x" * 1400, options=COPIED + PLAIN + NOOP * 4)]),
    "first fragment that is cut": (0, 2, [four(b"x" * 1400, fragment=MORE)]),
    "last fragment that is cut": (0, 2, [four(b"x" * 1400, fragment=100)]),
    "back to where it came from": (1, 1, [four(b"x", to=far4(3, 7))]),
    "back, of a stranger": (0, 1, [four(b"x", to=far4(3, 7), source=b"\x0b\0\0\1")]),
    "prohibited": (1, 0, [four(b"x", to=far4(4), source=ip4(5))]),
    "unreachable": (1, 0, [four(b"x", to=far4(5), source=ip4(6))]),
    "to a black hole": (0, 0, [four(b"x", to=far4(6))]),
    "to what its table does not tell": (1, 0, [four(b"x", to=far4(8), source=ip4(7))]),
    "by a rule": (0, 1, [four(b"x", to=far4(7), source=ip4(4))]),
    "by no rule": (1, 0, [four(b"x", to=far4(7), source=ip4(8))]),
    "by a router of IPv6": (0, 1, [four(b"x", to=far4(10))]),
    "whose sum is left": (0, 1, [
        four(tcp(100, ENDS4), TCP, left=left(20, 16)),
    ]),
    "whose sum is left, and is cut": (0, 2, [
        four(udp(1400, ENDS4, sum_is_left=True), UDP, left=left(20, 6))]),
    "of many segments": (0, 1, [
        four(tcp(9000, ENDS4), TCP, fragment=DF, left=left(20, 16, GSO_TCP4, 1300, 54))]),
    "of many segments, too large": (1, 0, [
        four(tcp(9000, ENDS4), TCP, fragment=DF, left=left(20, 16, GSO_TCP4, 1400, 54))]),
    "to a neighbour, six": (0, 1, [six(b"x" * 100)]),
    "to who is behind a router, six": (0, 1, [six(b"x", to=far6(2, 7))]),
    "with a last hop, six": (1, 0, [six(b"x" * 100, hops=1)]),
    "nowhere, six": (1, 0, [six(b"x" * 100, to=far6(9))]),
    "prohibited, six": (1, 0, [six(b"x", to=far6(4))]),
    "unreachable, six": (1, 0, [six(b"x", to=far6(5))]),
    "to a black hole, six": (0, 0, [six(b"x", to=far6(6))]),
    "to a group, six": (0, 0, [six(b"x", to=b"\xff\x0e" + bytes(13) + b"\1")]),
    "by link, six": (1, 0, [six(b"x", source=local6(2))]),
    "in a frame for all, six": (0, 0, [six(b"x", whom=ethernet.BROADCAST)]),
    "from nobody, six": (0, 0, [six(b"x", source=ipv6.ANY)]),
    "that is too large, six": (1, 0, [six(b"x" * 1400)]),
    "fragment, six": (0, 1, [
        six(ipv6.build_fragment(Fragment(TEST, 80, True, 7)) + b"x" * 16, FRAGMENT)]),
    "with options, six": (0, 1, [six(bytes([TEST, 0, 1, 4, 0, 0, 0, 0]) + b"x", HOP)]),
    "with an option of nobody, six": (1, 0, [
        six(bytes([TEST, 0, 0x9E, 4, 0, 0, 0, 0]) + b"x", HOP)]),
    "of many segments, six": (0, 1, [
        six(tcp(9000, ENDS6), TCP, left=left(40, 16, GSO_TCP6, 1300, 74))]),
}  # fmt: skip


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("name", CASES)
def test_packet_goes_where_linux_sends_it(linux: Linux, name: str) -> None:
    near_count, far_count, frames = CASES[name]

    wanted = [[plain(each) for each in side if plain(each)] for side in linux.answers(frames)]
    found = [[plain(each) for each in side if plain(each)] for side in Router().answers(frames)]

    assert [[each.hex() for each in side] for side in found] == [
        [each.hex() for each in side] for side in wanted
    ]
    counts = [near_count, far_count]
    assert [len(side) for side in found] in (counts, [sum(counts), 0])


def test_stack_that_is_no_router_sends_nothing_on() -> None:
    router = Router()
    router.sysctls.clear()

    assert router.answers([four(b"x"), six(b"x")]) == ([], [])


@pytest.mark.parametrize(("ip_size", "at", "kind", "size"), [
    (0, 16, 0, 0), (20, 2000, 0, 0), (20, 16, GSO_TCP4, 1300), (20, 6, GSO_TCP4, 1300),
    (24, 16, GSO_TCP4, 1300), (0xFFF0, 16, 0, 0),
])  # fmt: skip
def test_what_is_left_to_do_of_another_packet_is_not_done(
    ip_size: int, at: int, kind: int, size: int
) -> None:
    """Whoever made the frame may be an attacker; a TCP header that ends behind the packet, too."""
    head = bytearray(tcp(100, ENDS4))
    head[12] = 0xF0
    frame = four(bytes(head[:40]), TCP, left=left(ip_size, at, kind, size, 54))

    assert Router().answers([frame]) == ([], [])


def test_router_says_that_it_is_one_and_hears_what_is_for_routers() -> None:
    router = Router()
    keeper = router.keep(TEST)
    asked = ipv6.solicited_node(ip6(1))
    body = b"\x87\0\0\0" + bytes(4) + ip6(1) + b"\x01\x01" + hardware(2)
    total = checksum(body, pseudo_sum(ip6(2), asked, 58, len(body)))
    body = body[:2] + total.to_bytes(2) + body[4:]

    [answer], _ = router.answers([six(body, 58, asked, hops=255)])
    router.answers([six(b"x", to=ipv6.ALL_ROUTERS)])

    assert answer[10 + 54 : 10 + 59] == b"\x88\0" + answer[66:68] + b"\xe0"
    assert len(keeper.packets) == 1


def test_redirects_to_who_heeds_none_become_rare_and_end() -> None:
    limit, told = RedirectLimit(), []
    for ms in range(20_000):
        if limit.allows(ms * 1_000_000, ip4(2)):
            told.append(ms)

    assert len(told) == 9
    for number, (before, after) in enumerate(pairwise(told), 1):
        assert after - before > 20 << number
    assert not limit.allows(30 * SECOND_NS, ip4(2))
    assert limit.allows(30 * SECOND_NS + SILENCE_NS + 1, ip4(2))
