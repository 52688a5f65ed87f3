"""Datagrams between ends that are known go straight from frames to whoever has the port then."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi import socket as abi
from sentry.abi.poll import EPOLLERR, EPOLLIN
from sentry.abi.socket import AF_INET, AF_INET6, ETH_P_IP, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP
from sentry.net.inet.udp import UdpSocket
from sentry.net.inet.udp_early import MOST
from sentry.net.ip import ipv4
from sentry.net.link import ethernet
from sentry.net.sockfs import socket_location
from tests.unit.net.streams import ByUplink, Streams, done, place, receive
from tests.unit.net.wired import hardware, ip4, ip6

FAMILIES = pytest.mark.parametrize("family", [AF_INET, AF_INET6])
PORT = 5300
CHECKED = bytes([2]) + bytes(9)


@pytest.fixture
def line() -> Iterator[ByUplink]:
    made = ByUplink(Streams(1), Streams(2))
    yield made
    made.close()


def socket(host: Any, family: int, port: int = 0) -> Any:
    """A datagram socket, bound."""
    made = UdpSocket(socket_location(host.caller), family, IPPROTO_UDP, host.stack).incref()
    done(made.bind(host.caller, place(bytes(4 if family == AF_INET else 16), port)))
    return made


def of(host: Any, family: int, port: int = PORT) -> bytes:
    """Its address."""
    return place((ip4 if family == AF_INET else ip6)(host.number), port)


def send(line: ByUplink, sock: Any, data: bytes, to: bytes) -> None:
    left = line.hosts[0]
    left.send(sock, data, target=sock.target(left.caller, to))
    line.settle()


@FAMILIES
def test_known_ends_go_the_short_way_and_count(line: ByUplink, family: int) -> None:
    left, right = line.hosts
    asks, hears = socket(left, family), socket(right, family, PORT)
    level, name = (IPPROTO_IP, abi.IP_RECVTOS) if family == AF_INET else (
        IPPROTO_IPV6, abi.IPV6_RECVTCLASS)  # fmt: skip
    right.option(hears, level, name, 1)
    send(line, asks, b"first", of(right, family))
    assert receive(hears) == b"first"
    assert len(right.link.early) == 1
    counters, row = right.stack.counters, "Ip." if family == AF_INET else "Ip6"
    before = dict(counters)
    right.layer.arrived = None  # the long way
    for data in (b"", b"second"):
        send(line, asks, data, of(right, family))
    assert hears.available() == 0
    assert receive(hears) == b""
    assert receive(hears) == b"second"
    octets = "IpExt.InOctets" if family == AF_INET else "Ip6InOctets"
    for name, count in (
        (f"{row}InReceives", 2), (f"{row}InDelivers", 2), ("Udp.InDatagrams", 2),
        (octets, 2 * (28 if family == AF_INET else 48) + len(b"second")),
    ):  # fmt: skip
        assert counters[name] - before[name] == count


def test_who_has_the_port_is_asked_each_time(line: ByUplink) -> None:
    left, right = line.hosts
    asks, hears = socket(left, AF_INET, 4000), socket(right, AF_INET, PORT)
    done(asks.connect(left.caller, of(right, AF_INET), True))
    send(line, asks, b"1", of(right, AF_INET))
    assert receive(hears) == b"1"
    right.option(hears, abi.SOL_SOCKET, abi.SO_REUSEADDR, 1)
    other = UdpSocket(socket_location(right.caller), AF_INET, IPPROTO_UDP, right.stack).incref()
    right.option(other, abi.SOL_SOCKET, abi.SO_REUSEADDR, 1)
    done(other.bind(right.caller, place(bytes(4), PORT)))
    done(other.connect(right.caller, of(left, AF_INET, 4000), True))
    send(line, asks, b"2", of(right, AF_INET))
    assert receive(other) == b"2" and not hears.poll() & EPOLLIN
    for each in (other, hears):
        each.decref()
    send(line, asks, b"3", of(right, AF_INET))
    assert asks.poll() & EPOLLERR  # the port is unreachable


def test_what_is_for_all_is_not_for_one(line: ByUplink) -> None:
    left, right = line.hosts
    asks, hears = socket(left, AF_INET), socket(right, AF_INET, PORT)
    left.option(asks, abi.SOL_SOCKET, abi.SO_BROADCAST, 1)
    send(line, asks, b"all", place(ip4(255), PORT))
    assert receive(hears) == b"all" and not right.link.early


def test_only_so_many_ends_are_known(line: ByUplink) -> None:
    left, right = line.hosts
    hears = socket(right, AF_INET, PORT)
    for _ in range(MOST + 10):
        asks = socket(left, AF_INET)
        send(line, asks, b"x", of(right, AF_INET))
        assert receive(hears) == b"x"
        asks.decref()
    assert len(right.link.early) == MOST


def test_route_localnet_is_heeded_for_each_packet(line: ByUplink) -> None:
    right = line.hosts[1]
    hears = socket(right, AF_INET, PORT)
    size = 20 + 8 + 1
    ip = ipv4.build(ipv4.Header(20, size, 0, 0, 0, 64, IPPROTO_UDP, ip4(1), b"\x7f\0\0\1"))
    udp = struct.pack(">HHHH", 4000, PORT, 9, 7) + b"x"
    frame = CHECKED + ethernet.build(hardware(2), hardware(1), ETH_P_IP) + ip + udp
    for value in (1, 1, 0):
        right.sysctls["net/ipv4/conf/all/route_localnet"] = str(value)
        line.bring(right, frame)
        assert bool(hears.poll() & EPOLLIN) == bool(value)
        if value:
            assert receive(hears) == b"x"
