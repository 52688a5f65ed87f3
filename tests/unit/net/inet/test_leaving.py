"""Datagrams that come by a link, for sockets of every kind."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sentry.abi import socket as abi
from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import AF_INET, IPPROTO_UDP, SOCK_RAW, SOL_SOCKET
from sentry.errors import EHOSTUNREACH
from sentry.net.inet.raw import RawSocket
from sentry.net.inet.udp import UdpSocket
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.sockfs import socket_location
from tests.unit.net.streams import Line, Streams, done, place
from tests.unit.net.wired import INDEX, SECOND_NS, ip4


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
