"""The same frames to the host's kernel and to the Sentry's stack, which has the same addresses.

Both are host 1 of `wired`; what they answer has to be the same but for what each chooses:
identifications, flow labels, options (Linux sends back some that came), and who is asked for by ARP
or NDP.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runsc import host
from runsc.launch import packet_sockets
from sentry.abi.socket import IPPROTO_ICMPV6
from sentry.net.inet.leaving import Arrivals
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.ipv6 import Fragment
from sentry.net.link import arp, ethernet, ndp
from sentry.net.link.arp import REPLY, REQUEST, ArpPacket
from sentry.net.stack import Stack
from tests.namespaces import Namespace
from tests.unit.net.wired import SECOND_NS, Host, hardware, ip4, ip6, local6

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
QUIET = {
    "ipv4/icmp_ratelimit": "0", "ipv4/icmp_msgs_per_sec": "100000", "ipv6/icmp/ratelimit": "0",
    "ipv4/icmp_msgs_burst": "100000", "ipv6/conf/eth0/accept_ra": "0",
    "ipv6/conf/eth0/router_solicitations": "0", "ipv4/ip_forward": "0",
    "ipv6/conf/all/forwarding": "0",
}  # fmt: skip
UDP, TEST, HOP, ROUTING, FRAGMENT, NONE, OPTIONS = 17, 253, 0, 43, 44, 59, 60
MARK = b"that was all"
PAD = b"\x01\x04\0\0\0\0"


class Pair:
    """A kernel and a stack, and who talks to both."""

    def __init__(self) -> None:
        self.linux, self.peer = Namespace(), Namespace()
        to = f"/proc/{os.getpid()}/fd/{self.peer.fd}"
        self.linux.ip(f"link add eth0 type veth peer name eth0 netns {to}")
        own = hardware(1).hex(":")
        self.linux.ip(
            f"link set eth0 address {own}", "link set lo up",
            "addr add 10.0.0.1/24 broadcast 10.0.0.255 dev eth0",
            "addr add fd00::1/64 dev eth0 nodad", "link set eth0 addrgenmode none",
            "link set eth0 up", "addr add fe80::1/64 dev eth0 nodad",
        )  # fmt: skip
        for number, ip in ((2, "10.0.0.2"), (2, "fd00::2"), (2, "fe80::2")):
            address = hardware(number).hex(":")
            self.linux.ip(f"neigh replace {ip} lladdr {address} dev eth0 nud permanent")
        self.linux.run(self._quiet)
        self.peer.run(lambda: self._set("ipv6/conf/all/disable_ipv6", "1"))
        other = hardware(2).hex(":")
        self.peer.ip(f"link set eth0 address {other} arp off", "link set eth0 up")
        self.sock = self.peer.run(self._packet_socket)

    @staticmethod
    def _set(name: str, value: str) -> None:
        with open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)

    def _quiet(self) -> None:
        for name, value in QUIET.items():
            self._set(name, value)

    @staticmethod
    def _packet_socket() -> socket.socket:
        made, *others = packet_sockets.make()
        for each in others:
            each.close()
        host.bind(made.fileno(), packet_sockets.address_of(socket.if_nametoindex("eth0")))
        made.settimeout(5)
        return made

    def of_linux(self, frames: list[bytes]) -> list[bytes]:
        """What the kernel answers: all up to that to a ping that ends it."""
        for frame in [*frames, echo4(MARK)]:
            self.sock.send(bytes(10) + frame)
        heard: list[bytes] = []
        while not (heard and MARK in heard[-1]):
            heard.append(self.sock.recv(1 << 17)[10:])
        return heard[:-1]

    def of_stack(self, frames: list[bytes]) -> list[bytes]:
        """What the Sentry's answers."""
        made = Host(1)
        made.link.neighbours4.set_static(ip4(2), hardware(2))
        for ip in (ip6(2), local6(2)):
            made.link.neighbours6.set_static(ip, hardware(2))
        made.layer.limit4.allows = made.layer.limit6.allows = lambda *_: True  # type: ignore[method-assign]
        for is_v4 in (True, False):
            made.layer.handlers[is_v4, UDP] = Arrivals(Stack(None, {}))
        for frame in frames:
            made.link.received(SECOND_NS, bytes(10) + frame)
        return made.frames()

    def check(self, *frames: bytes) -> list[bytes]:
        """The same from both; what it is."""
        wanted = [plain(each) for each in self.of_linux(list(frames))]
        found = [plain(each) for each in self.of_stack(list(frames))]
        wanted = [each for each in wanted if each]
        found = [each for each in found if each]
        assert [each.hex() for each in found] == [each.hex() for each in wanted]
        return found

    def close(self) -> None:
        self.sock.close()
        for each in (self.linux, self.peer):
            os.close(each.fd)


def plain(frame: bytes) -> bytes:
    """An answer without what each may choose; empty for what is no answer."""
    if frame[12:14] == b"\x08\0":
        head, data = frame[14:34], frame[14 + (frame[14] & 15) * 4 :]
        return frame[:14] + head[1:2] + head[6:10] + head[12:] + data if head[9] == 1 else b""
    if frame[12:14] == b"\x86\xdd":
        if frame[20] == IPPROTO_ICMPV6 and frame[54] in (
            ndp.SOLICITATION, ndp.ROUTER_SOLICITATION, 143,
        ):  # fmt: skip
            return b""
        return frame[:14] + frame[18:] if frame[20] == IPPROTO_ICMPV6 else b""
    return b"" if frame[20:22] == b"\0\x01" else frame[:42]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def four(
    data: bytes, protocol: int = TEST, options: bytes = b"", fragment: int = 0, to: bytes = ip4(1),
    source: bytes = ip4(2), tos: int = 0, identification: int = 7,
) -> bytes:  # fmt: skip
    size = 20 + len(options)
    header = ipv4.Header(
        size, size + len(data), tos, identification, fragment, 64, protocol, source, to
    )
    link = ethernet.build(hardware(1), hardware(2), 0x800)
    return link + ipv4.build(header, options) + data


def icmp4(kind: int, code: int, rest: bytes) -> bytes:
    body = bytes([kind, code, 0, 0]) + rest
    return body[:2] + checksum(body).to_bytes(2) + body[4:]


def echo4(data: bytes, **how: object) -> bytes:
    return four(icmp4(8, 0, b"\0\1\0\2" + data), 1, **how)  # type: ignore[arg-type]


def six(
    following: int, data: bytes, to: bytes = ip6(1), source: bytes = ip6(2), hops: int = 64
) -> bytes:
    header = ipv6.Header(0, 0, len(data), following, hops, source, to)
    link = ethernet.group_address(to) or hardware(1)
    return ethernet.build(link, hardware(2), 0x86DD) + ipv6.build(header) + data


def icmp6(kind: int, code: int, rest: bytes, to: bytes = ip6(1), source: bytes = ip6(2)) -> bytes:
    body = bytes([kind, code, 0, 0]) + rest
    total = checksum(body, pseudo_sum(source, to, 58, len(body)))
    return body[:2] + total.to_bytes(2) + body[4:]


def udp(port: int, data: bytes, ends: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">HHHH", 9, port, 8 + len(data), 0)
    total = checksum(head + data, pseudo_sum(*ends, UDP, 8 + len(data))) or 0xFFFF
    return head[:6] + total.to_bytes(2) + data


def fragment6(offset: int, data: bytes, following: int = TEST, *, more: bool = False) -> bytes:
    return six(FRAGMENT, ipv6.build_fragment(Fragment(following, offset, more, 7)) + data)


ENDS4, ENDS6 = (ip4(2), ip4(1)), (ip6(2), ip6(1))
LARGE = bytes(range(256)) * 5
CASES: dict[str, tuple[int, list[bytes]]] = {
    "echo": (1, [echo4(b"x" * 100)]),
    "echo of an odd size and a tos": (1, [echo4(b"xyz", tos=0x28)]),
    "echo with no data": (1, [echo4(b"")]),
    "echo with a wrong sum": (0, [four(icmp4(8, 0, bytes(4))[:-1] + b"x", 1)]),
    "echo cut": (0, [four(icmp4(8, 0, bytes(3)), 1)]),
    "echo to all": (0, [echo4(b"x", to=ip4(255))]),
    "echo from nobody": (0, [echo4(b"x", source=bytes(4))]),
    "echo from the loopback": (0, [echo4(b"x", source=b"\x7f\0\0\1")]),
    "echo from ourselves": (0, [echo4(b"x", source=ip4(1))]),
    "echo from a group": (0, [echo4(b"x", source=b"\xe0\0\0\1")]),
    "echo to the loopback": (0, [echo4(b"x", to=b"\x7f\0\0\1")]),
    "echo to another": (0, [echo4(b"x", to=ip4(9))]),
    "time stamp, cut": (0, [four(icmp4(13, 0, bytes(7)), 1)]),
    "unknown type": (0, [four(icmp4(40, 0, bytes(4)), 1)]),
    "protocol of nobody": (1, [four(b"12345678")]),
    "protocol of nobody, large": (1, [four(LARGE)]),
    "protocol of nobody, with a tos": (1, [four(b"12345678", tos=0x1B)]),
    "protocol of nobody, later fragment": (0, [four(b"12345678", fragment=3)]),
    "port of nobody": (1, [four(udp(77, b"data", ENDS4), UDP)]),
    "port of nobody, no sum": (1, [four(udp(77, b"data", ENDS4)[:6] + bytes(2) + b"data", UDP)]),
    "port of nobody, wrong sum": (0, [four(udp(77, b"data", ENDS4)[:-1] + b"x", UDP)]),
    "port of nobody, cut": (0, [four(udp(77, b"data", ENDS4)[:-1], UDP)]),
    "options that do nothing": (1, [four(b"12345678", options=b"\x01\x01\x01\0")]),
    "router alert": (1, [four(b"12345678", options=b"\x94\x04\0\0")]),
    "option that is cut": (1, [four(b"12345678", options=b"\x07\x0f\x04\0")]),
    "option without a size": (1, [four(b"12345678", options=b"\x07\0\0\0")]),
    "option at the end": (1, [four(b"12345678", options=b"\x01\x01\x01\x07")]),
    "record route, wrong pointer": (1, [four(b"12345678", options=b"\x07\x07\x03\0\0\0\0\0")]),
    "record route, no room": (1, [four(b"12345678", options=b"\x07\x06\x04\0\0\0\0\0")]),
    "record route twice": (1, [four(b"12345678", options=b"\x07\x03\x04\x07\x03\x04\0\0")]),
    "two source routes": (1, [four(b"12345678", options=b"\x83\x03\x04\x89\x03\x04\0\0")]),
    "source route": (0, [four(b"12345678", options=b"\x83\x07\x04\x0a\0\0\x05\0")]),
    "time stamps, wrong pointer": (1, [four(b"12345678", options=b"\x44\x08\x04\0\0\0\0\0")]),
    "fragments": (1, [
        four(icmp4(8, 0, b"\0\1\0\2" + LARGE)[800:], 1, fragment=100),
        four(icmp4(8, 0, b"\0\1\0\2" + LARGE)[:800], 1, fragment=0x2000),
    ]),
    "fragments, twice the same": (1, [
        four(icmp4(8, 0, LARGE[:20])[:16], 1, fragment=0x2000),
        four(icmp4(8, 0, LARGE[:20])[:16], 1, fragment=0x2000),
        four(icmp4(8, 0, LARGE[:20])[16:], 1, fragment=2),
    ]),
    "fragments that overlap": (0, [
        four(icmp4(8, 0, bytes(36))[:24], 1, fragment=0x2000, identification=8),
        four(icmp4(8, 0, bytes(36))[16:], 1, fragment=2, identification=8),
        four(icmp4(8, 0, bytes(36))[24:], 1, fragment=3, identification=8),
    ]),
    "fragments, some with ECN": (0, [
        four(icmp4(8, 0, bytes(20))[:16], 1, fragment=0x2000, tos=1, identification=9),
        four(icmp4(8, 0, bytes(20))[16:], 1, fragment=2, tos=0, identification=9),
    ]),
    "error about an error": (0, [four(icmp4(3, 1, bytes(4) + b"x" * 28), 1)]),
    "echo, six": (1, [six(58, icmp6(128, 0, b"\0\1\0\2data"))]),
    "echo, six, wrong sum": (0, [six(58, icmp6(128, 0, b"\0\1\0\2data")[:-1] + b"x")]),
    "echo, six, from the loopback": (0, [
        six(58, icmp6(128, 0, bytes(4), source=ipv6.LOOPBACK), source=ipv6.LOOPBACK)]),
    "echo, six, from a group": (0, [
        six(58, icmp6(128, 0, bytes(4), source=ipv6.ALL_NODES), source=ipv6.ALL_NODES)]),
    "echo, six, by link": (1, [
        six(58, icmp6(128, 0, bytes(4), local6(1), local6(2)), local6(1), local6(2))]),
    "echo, six, with options": (1, [
        six(HOP, bytes([OPTIONS, 0]) + PAD + bytes([58, 0]) + PAD + icmp6(128, 0, bytes(4)))]),
    "port of nobody, six": (1, [six(UDP, udp(77, b"data", ENDS6))]),
    "port of nobody, six, no sum": (0, [
        six(UDP, udp(77, b"data", ENDS6)[:6] + bytes(2) + b"data")]),
    "port of nobody, six, large": (1, [six(UDP, udp(77, LARGE, ENDS6))]),
    "header of nobody": (1, [six(TEST, b"12345678")]),
    "header of nobody behind options": (1, [six(OPTIONS, bytes([TEST, 0]) + PAD + b"12345678")]),
    "no header": (0, [six(NONE, b"12345678")]),
    "hop-by-hop not first": (1, [
        six(OPTIONS, bytes([HOP, 0]) + PAD + bytes([58, 0]) + PAD + icmp6(128, 0, bytes(4)))]),
    "option to be passed over": (1, [
        six(OPTIONS, bytes([58, 0, 0x1E, 4, 0, 0, 0, 0]) + icmp6(128, 0, bytes(4)))]),
    "option to be dropped for": (0, [
        six(OPTIONS, bytes([58, 0, 0x5E, 4, 0, 0, 0, 0]) + icmp6(128, 0, bytes(4)))]),
    "option to be complained about": (1, [
        six(OPTIONS, bytes([58, 0, 0x9E, 4, 0, 0, 0, 0]) + icmp6(128, 0, bytes(4)))]),
    "option that is cut, six": (0, [six(OPTIONS, bytes([58, 0, 0x1E, 9, 0, 0, 0, 0]))]),
    "padding that is none": (0, [
        six(OPTIONS, bytes([58, 0, 1, 4, 0, 0, 0, 1]) + icmp6(128, 0, bytes(4)))]),
    "eight options": (1, [six(
        OPTIONS, bytes([58, 2]) + b"\x1e\0" * 8 + b"\x01\x04\0\0\0\0" + icmp6(128, 0, bytes(4)))]),
    "nine options": (0, [six(
        OPTIONS, bytes([58, 2]) + b"\x1e\0" * 9 + b"\x01\x02\0\0" + icmp6(128, 0, bytes(4)))]),
    "options that are cut": (0, [six(OPTIONS, bytes([58, 3]) + PAD)]),
    "route with nothing left": (1, [
        six(ROUTING, bytes([58, 0, 0, 0, 0, 0, 0, 0]) + icmp6(128, 0, bytes(4)))]),
    "route with something left": (1, [
        six(ROUTING, bytes([58, 0, 0, 1, 0, 0, 0, 0]) + icmp6(128, 0, bytes(4)))]),
    "unknown route with something left": (1, [
        six(ROUTING, bytes([58, 0, 99, 1, 0, 0, 0, 0]) + icmp6(128, 0, bytes(4)))]),
    "one fragment alone": (1, [fragment6(0, icmp6(128, 0, bytes(4)), 58)]),
    "fragments, six": (1, [
        fragment6(16, icmp6(128, 0, bytes(20))[16:], 58),
        fragment6(0, icmp6(128, 0, bytes(20))[:16], 58, more=True),
    ]),
    "odd fragment, six": (1, [fragment6(8, bytes(9), more=True)]),
    "fragment too far, six": (1, [fragment6(65528, bytes(16))]),
    "first fragment without a transport": (1, [fragment6(0, bytes(8), 6, more=True)]),
    "who has our address": (1, [
        ethernet.build(ethernet.BROADCAST, hardware(2), 0x806)
        + arp.build(ArpPacket(REQUEST, hardware(2), ip4(2), bytes(6), ip4(1)))]),
    "who has our address, nobody asks": (1, [
        ethernet.build(ethernet.BROADCAST, hardware(2), 0x806)
        + arp.build(ArpPacket(REQUEST, hardware(2), bytes(4), bytes(6), ip4(1)))]),
    "who has another address": (0, [
        ethernet.build(ethernet.BROADCAST, hardware(2), 0x806)
        + arp.build(ArpPacket(REQUEST, hardware(2), ip4(2), bytes(6), ip4(9)))]),
    "answer that nobody wanted": (0, [
        ethernet.build(hardware(1), hardware(2), 0x806)
        + arp.build(ArpPacket(REPLY, hardware(2), ip4(2), hardware(1), ip4(1)))]),
    "solicitation": (1, [six(58, icmp6(
        135, 0, ndp.build_solicitation(ip6(1), hardware(2)), ipv6.solicited_node(ip6(1)),
    ), ipv6.solicited_node(ip6(1)), hops=255)]),
    "solicitation from afar": (0, [six(58, icmp6(
        135, 0, ndp.build_solicitation(ip6(1), hardware(2)), ipv6.solicited_node(ip6(1)),
    ), ipv6.solicited_node(ip6(1)), hops=254)]),
    "solicitation for another": (0, [six(58, icmp6(
        135, 0, ndp.build_solicitation(ip6(9), hardware(2))), hops=255)]),
    "is our address free": (1, [six(58, icmp6(
        135, 0, ndp.build_solicitation(ip6(1), b""), ipv6.solicited_node(ip6(1)), bytes(16),
    ), ipv6.solicited_node(ip6(1)), bytes(16), 255)]),
}  # fmt: skip
"""How many answers there are, and to what."""


@pytest.mark.parametrize("case", CASES)
def test_frames_get_the_answers_that_linux_gives(pair: Pair, case: str) -> None:
    count, frames = CASES[case]
    assert len(pair.check(*frames)) == count


@given(options=st.binary(max_size=40).map(lambda data: data[: len(data) // 4 * 4]))
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
def test_any_options_of_ipv4_get_the_answers_that_linux_gives(pair: Pair, options: bytes) -> None:
    pair.check(four(b"12345678", options=options))


@given(
    following=st.sampled_from([HOP, ROUTING, OPTIONS]),
    first=st.sampled_from([58, 59, HOP, ROUTING, OPTIONS, TEST]),
    size=st.integers(0, 2),
    body=st.binary(min_size=6, max_size=30),
)
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
def test_any_extension_header_gets_the_answers_that_linux_gives(
    pair: Pair, following: int, first: int, size: int, body: bytes
) -> None:
    pair.check(six(following, bytes([first, size]) + body + icmp6(128, 0, b"\0\1\0\2data")))
