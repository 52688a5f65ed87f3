"""Datagrams that come by a link, for sockets of every kind."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from msgspec.structs import replace

from sentry.abi import socket as abi
from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    SOCK_RAW,
    SOL_SOCKET,
)
from sentry.bpf.filter import PacketFilter
from sentry.errors import EHOSTUNREACH
from sentry.net.inet.leaving import Arrivals
from sentry.net.inet.raw import RawSocket
from sentry.net.inet.udp import UdpSocket
from sentry.net.inet.udp_options import COVERAGE
from sentry.net.inet.udplite import UdpLiteSocket
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Arrived
from sentry.net.sockfs import socket_location
from tests.unit.net.streams import Line, Streams, done, place
from tests.unit.net.wired import INDEX, SECOND_NS, hardware, ip4, ip6


@pytest.fixture
def line() -> Line:
    return Line(Streams(1), Streams(2))


def udp(host: Streams, port: int, device: int) -> Any:
    made = UdpSocket(socket_location(host.caller), AF_INET, IPPROTO_UDP, host.stack).incref()
    host.option(made, SOL_SOCKET, abi.SO_REUSEADDR, 1)
    done(made.bind(host.caller, place(bytes(4), port)))
    host.option(made, SOL_SOCKET, abi.SO_BINDTOIFINDEX, device)
    return made


def send(host: Streams, sock: Any, to: bytes) -> None:
    host.send(sock, b"x", target=sock.target(host.caller, to))


def heard(*socks: Any) -> list[bool]:
    return [bool(sock.poll() & EPOLLIN) for sock in socks]


def test_socket_of_an_interface_hears_what_comes_by_it(line: Line) -> None:
    left, right = line.hosts
    mine, other = udp(right, 9000, INDEX), udp(right, 9001, LOOPBACK_INDEX)
    sender = udp(left, 9002, 0)
    for port in (9000, 9001):
        send(left, sender, place(ip4(2), port))
    line.settle()
    assert heard(mine, other) == [True, False]
    near = udp(right, 9003, 0)
    send(right, near, place(ip4(2), 9001))
    assert heard(other) == [True]


def test_groups_and_raw_sockets_are_of_an_interface_too(line: Line) -> None:
    left, right = line.hosts
    mine, other = udp(right, 9000, INDEX), udp(right, 9000, LOOPBACK_INDEX)
    raw = []
    for device in (INDEX, LOOPBACK_INDEX):
        location = socket_location(right.caller)
        made = RawSocket(location, AF_INET, SOCK_RAW, IPPROTO_UDP, right.stack).incref()
        right.option(made, SOL_SOCKET, abi.SO_BINDTOIFINDEX, device)
        raw.append(made)
    sender = udp(left, 9002, 0)
    left.option(sender, SOL_SOCKET, abi.SO_BROADCAST, 1)
    send(left, sender, place(ip4(255), 9000))
    line.settle()
    while right.soon:  # a delivery to several sockets goes on in the next turn, when it takes long
        right.soon.pop(0)()
    assert heard(mine, other, *raw) == [True, False, True, False]


def test_socket_of_an_interface_hears_that_nobody_is_there(line: Line) -> None:
    left, _ = line.hosts
    sender = udp(left, 9002, INDEX)
    done(sender.connect(left.caller, place(ip4(77), 9000), True))
    left.option(sender, 0, abi.IP_RECVERR, 1)
    line.now_ns = time.monotonic_ns()
    left.send(sender, b"x")
    line.settle()
    line.wait(5 * SECOND_NS)
    assert sender.so_error == EHOSTUNREACH.number


def test_path_mtu_of_ipv6_is_that_of_the_link(line: Line) -> None:
    left, _ = line.hosts
    sock = UdpSocket(socket_location(left.caller), AF_INET6, IPPROTO_UDP, left.stack).incref()
    name = struct.pack("<H", AF_INET6) + struct.pack(">HI16sI", 9000, 0, ip6(2), 0)
    done(sock.connect(left.caller, name, True))
    told = sock.option(left.caller, IPPROTO_IPV6, abi.IPV6_PATHMTU, 32)
    assert told == bytes(28) + struct.pack("<I", left.stack.interfaces.by_index(INDEX).mtu)


# --- UDP-Lite


def lite(host: Streams, port: int) -> Any:
    made = UdpLiteSocket(socket_location(host.caller), AF_INET, host.stack).incref()
    done(made.bind(host.caller, place(bytes(4), port)))
    return made


@pytest.mark.parametrize("covered", [0, 8, 12])
def test_datagram_of_udplite_says_how_much_is_covered(line: Line, covered: int) -> None:
    left, right = line.hosts
    sender, receiver = lite(left, 9002), lite(right, 9000)
    left.option(sender, IPPROTO_UDPLITE, COVERAGE.UDPLITE_SEND_CSCOV, covered)
    left.send(sender, b"0123456789", target=sender.target(left.caller, place(ip4(2), 9000)))
    line.settle()
    (packet,) = receiver.packets
    assert (packet.data, packet.coverage) == (b"0123456789", covered)


def lite_packet(covered: int, data: bytes, total: int | None = None) -> Arrived:
    """To port 9000, with a right checksum if none is given."""
    head = (9002).to_bytes(2) + (9000).to_bytes(2) + covered.to_bytes(2)
    whole = head + bytes(2) + data
    before = pseudo_sum(ip4(1), ip4(2), IPPROTO_UDPLITE, len(whole))
    right = checksum(whole[: covered or len(whole)], before) or 0xFFFF
    payload = head + (right if total is None else total).to_bytes(2) + data
    return Arrived(
        IPPROTO_UDPLITE, ip4(1), ip4(2), memoryview(payload), 0, 64, INDEX, bytes(20)
    )


@pytest.mark.parametrize(("covered", "at", "is_taken"), [
    (0, 15, False), (12, 11, False), (12, 12, True), (8, 9, True),
])  # fmt: skip
def test_damage_counts_where_a_datagram_is_covered(
    line: Line, covered: int, at: int, is_taken: bool
) -> None:
    _, right = line.hosts
    receiver = lite(right, 9000)
    packet = lite_packet(covered, b"0123456789")
    spoiled = bytearray(packet.payload)
    spoiled[at] ^= 1
    packet.payload = memoryview(bytes(spoiled))
    assert Arrivals(right.stack).arrived(0, packet)
    assert heard(receiver) == [is_taken]
    assert right.stack.counters["UdpLite.InCsumErrors"] == (not is_taken)


@pytest.mark.parametrize("packet", [
    lite_packet(7, b""), lite_packet(9, b""), lite_packet(65535, b"data"), lite_packet(0, b"", 0),
], ids=["less_than_the_header", "more_than_there_is", "much_more", "no_checksum"])  # fmt: skip
def test_datagram_of_udplite_that_is_wrong_is_dropped(line: Line, packet: Arrived) -> None:
    _, right = line.hosts
    receiver = lite(right, 9000)
    assert Arrivals(right.stack).arrived(0, packet)
    assert heard(receiver) == [False]
    assert right.stack.counters["UdpLite.InErrors"] == 1


def test_datagram_of_udplite_shorter_than_its_header_is_dropped(line: Line) -> None:
    _, right = line.hosts
    packet = lite_packet(0, b"")
    packet.payload = packet.payload[:7]
    assert Arrivals(right.stack).arrived(0, packet)


# --- filters


def test_filter_is_told_of_the_interface_that_a_datagram_came_by(line: Line) -> None:
    """And what it cuts keeps it. BPF: ld #ifindex; ret a: so many bytes."""
    left, right = line.hosts
    sender, receiver = udp(left, 9002, 0), udp(right, 9000, 0)
    load = (0x20).to_bytes(2, "little") + bytes(2) + (0xFFFFF000 + 8).to_bytes(4, "little")
    receiver.filter = PacketFilter(load + (0x16).to_bytes(2, "little") + bytes(6))
    left.send(sender, b"0123456789", target=sender.target(left.caller, place(ip4(2), 9000)))
    line.settle()
    (packet,) = receiver.packets
    assert (len(packet.data), packet.index) == (max(0, INDEX - 8), INDEX)


# --- ways that are kept


def towards(host: Streams, family: int) -> Any:
    """A socket that is connected to the other host, whose hardware address is known."""
    ip = ip4(2) if family == AF_INET else ip6(2)
    host.link.neighbours(ip).set_static(ip, hardware(2))
    sock = UdpSocket(socket_location(host.caller), family, IPPROTO_UDP, host.stack).incref()
    done(sock.connect(host.caller, place(ip, 9000), True))
    return sock


def gone(host: Streams, sock: Any, data: bytes) -> tuple[list[bytes], dict[str, int]]:
    """The frames of a datagram, and what was counted."""
    before = dict(host.stack.counters)
    host.send(sock, data)
    counted = {name: count - before.get(name, 0) for name, count in host.stack.counters.items()}
    return host.link.take_outgoing(64, 1 << 20), counted


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
@pytest.mark.parametrize("data", [b"", b"odd", b"x" * 1448])
def test_datagram_by_a_way_that_is_kept_is_that_of_the_long_way(
    line: Line, family: int, data: bytes
) -> None:
    left, _ = line.hosts
    sock = towards(left, family)
    left.option(sock, 0, abi.IP_TOS, 0x48)
    left.option(sock, 0, abi.IP_TTL, 9)
    ways = left.layer.ways
    long = gone(left, sock, data)
    assert len(long[0]) == 1 and len(ways._all) == 1
    assert gone(left, sock, data) == long
    ways.clear()
    assert gone(left, sock, data) == long


def test_datagram_goes_the_long_way_where_it_does_not_fit_or_may_be_cut(line: Line) -> None:
    left, _ = line.hosts
    sock = towards(left, AF_INET)
    gone(left, sock, b"first")
    assert len(gone(left, sock, bytes(1473))[0]) == 2
    left.option(sock, 0, abi.IP_MTU_DISCOVER, abi.IP_PMTUDISC_DONT)
    (frame,), _ = gone(left, sock, b"may be cut")
    assert frame[30:32] == b"\0\0"  # no DF


@pytest.mark.parametrize("is_told", [False, True])
def test_target_that_has_become_ours_is_no_more_sent_away(line: Line, is_told: bool) -> None:
    """Of what a program changes the layer is told; of the host's an interface takes another's
    place."""
    left, _ = line.hosts
    sock = towards(left, AF_INET)
    assert sock.leaves(sock.remote)
    own = left.stack.interfaces.by_index(INDEX)
    own.addresses.append(replace(own.of_family(AF_INET)[0], ip=ip4(2)))
    if is_told:
        left.layer.outdate(left.routes)
    else:
        left.stack.interfaces.insert(own)
    assert not sock.leaves(sock.remote)
