"""Ports that are looked for, when there are few; who gets datagrams for one."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.socket import (
    AF_INET,
    AF_UNSPEC,
    BPF_TCP_FIN_WAIT2,
    MSG_DONTWAIT,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOL_SOCKET,
)
from sentry.errors import EADDRINUSE, EADDRNOTAVAIL
from sentry.net.inet.address import LOOPBACK4, Endpoint
from sentry.net.inet.ports import Ports
from sentry.net.inet.time_wait import Remains
from tests.world import Program, World

HOME = Endpoint(LOOPBACK4, 0)
A, B = Endpoint(LOOPBACK4, 1), Endpoint(LOOPBACK4, 2)


class Sock:
    """What has a port."""

    def __init__(self) -> None:
        self.family = AF_INET
        self.local = HOME
        self.remote: Endpoint | None = None
        self.options = {SO_REUSEADDR}
        self.v6only = self.shares_port = self.listening = False
        self.owner_uid = self.device = 0
        self.port_range = (100, 102)
        self.reserved_ports = b""


def bound(ports: Ports, *, stream: bool) -> Sock:
    sock = Sock()
    sock.local = ports.claim(sock, HOME, stream=stream)
    return sock


def connected(ports: Ports, target: Endpoint) -> Sock:
    sock = Sock()
    sock.local = ports.claim_to_connect(sock, target)
    sock.remote = target
    return sock


def test_connections_of_a_listener_keep_its_port_and_are_not_looked_through() -> None:
    ports = Ports()
    listener, accepted = bound(ports, stream=True), Sock()
    accepted.local, accepted.remote = listener.local, A

    ports.adopt(accepted)

    assert list(ports._bound[listener.local.port]) == [listener]
    assert ports.at(listener.local.port) == list(ports.everybody()) == [listener, accepted]
    ports.release(listener)
    assert list(ports.everybody()) == [accepted] and len(ports) == 1
    assert bound(ports, stream=True).local.port != accepted.local.port
    ports.check_listen(accepted)  # it has been disconnected, and is a listener itself now
    assert list(ports._bound[accepted.local.port]) == [accepted]
    ports.release(accepted)
    assert ports.at(accepted.local.port) == []


def test_a_stream_gets_no_port_that_another_one_has() -> None:
    ports = Ports()
    assert {bound(ports, stream=True).local.port for _ in range(3)} == {100, 101, 102}
    with pytest.raises(EADDRINUSE):
        bound(ports, stream=True)
    with pytest.raises(EADDRNOTAVAIL):
        connected(ports, A)


def test_datagram_sockets_share_with_so_reuseaddr() -> None:
    ports = Ports()
    for _ in range(5):
        assert bound(ports, stream=False).local.port in range(100, 103)


def test_connections_to_different_places_share() -> None:
    ports = Ports()
    for target in (A, B):
        assert {connected(ports, target).local.port for _ in range(3)} == {100, 101, 102}
        with pytest.raises(EADDRNOTAVAIL):
            connected(ports, target)


def test_who_connects_meets_itself_only_where_no_other_port_is_left() -> None:
    for _ in range(20):
        ports = Ports()
        target = Endpoint(LOOPBACK4, 101)
        assert {connected(ports, target).local.port for _ in range(2)} == {100, 102}
        assert connected(ports, target).local == target


def test_an_ended_connection_holds_the_way_to_its_place() -> None:
    ports = Ports()
    for _ in range(3):
        one = connected(ports, A)
        ports.release(one)
        ports.ended.add(
            Remains(
                one.local, A, AF_INET, one.options, False, 0, BPF_TCP_FIN_WAIT2, 0, one.shares_port
            ),
            60,
        )
    with pytest.raises(EADDRNOTAVAIL):
        connected(ports, A)
    assert connected(ports, B).local.port in range(100, 103)


def address(port: int, host: int, family: int = AF_INET) -> bytes:
    return struct.pack("<H", family) + struct.pack(">HI8x", port, host)


ANY, HERE, OTHER = 0, 0x7F000001, 0x7F000002


class Receivers:
    """UDP sockets that share a port."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._sender = self.bound(ANY, 5000, SO_REUSEADDR)
        self._room = program.buffer(8)
        self.all: list[int] = []

    def bound(self, host: int, port: int = 4000, option: int = SO_REUSEPORT) -> int:
        ok = self._program.ok
        fd = ok("socket", AF_INET, SOCK_DGRAM, 0)
        ok("setsockopt", fd, SOL_SOCKET, option, struct.pack("<i", 1), 4)
        ok("bind", fd, address(port, host), 16)
        return fd

    def add(self, host: int) -> int:
        self.all.append(self.bound(host))
        return self.all[-1]

    def of(self, host: int) -> list[int]:
        """Who gets a datagram."""
        ok, call = self._program.ok, self._program.call
        ok("sendto", self._sender, b"x", 1, 0, address(4000, host), 16)
        receive = ("recvfrom", self._room, 8, MSG_DONTWAIT, 0, 0)
        return [fd for fd in self.all if call(receive[0], fd, *receive[1:]) == 1]


def test_who_gets_a_datagram_follows_every_change() -> None:
    with World() as world:
        program = world.program()
        receivers = Receivers(program)
        wild = receivers.add(ANY)
        assert receivers.of(HERE) == receivers.of(OTHER) == [wild]
        exact = receivers.add(HERE)
        assert (receivers.of(HERE), receivers.of(OTHER)) == ([exact], [wild])
        connected = receivers.add(ANY)
        program.ok("connect", connected, address(5000, HERE), 16)
        assert receivers.of(HERE) == [connected]
        program.ok("connect", connected, address(5001, HERE), 16)
        assert receivers.of(HERE) == [exact]
        program.ok("connect", connected, address(0, 0, AF_UNSPEC), 16)
        assert receivers.of(HERE) == [exact]
        assert receivers.of(OTHER)[0] in (wild, connected)
        program.ok("close", exact)
        program.ok("close", wild)
        receivers.all = [connected]
        assert receivers.of(HERE) == receivers.of(OTHER) == [connected]
        program.ok("close", connected)
        receivers.all = []
        assert receivers.of(HERE) == []
        assert receivers.of(ANY | HERE) == []


def test_who_shares_an_address_with_so_reuseaddr_is_not_compared() -> None:
    ports = Ports()
    here = Endpoint(LOOPBACK4, 100)
    for _ in range(3):
        ports.claim(Sock(), here, stream=False)
    strict = Sock()
    strict.options = set()
    with pytest.raises(EADDRINUSE):
        ports.claim(strict, here, stream=False)


@pytest.mark.parametrize("before", [True, False])
def test_so_reuseaddr_counts_as_it_is_now(before: bool) -> None:
    """Whatever it was when the socket was bound."""
    with World() as world:
        program = world.program()
        first, second, third = (program.ok("socket", AF_INET, SOCK_DGRAM, 0) for _ in range(3))

        def share(fd: int, value: bool) -> None:
            number = struct.pack("<i", value)
            program.ok("setsockopt", fd, SOL_SOCKET, SO_REUSEADDR, number, 4)

        share(first, before)
        share(second, True)
        share(third, True)
        program.ok("bind", first, address(4000, HERE), 16)
        share(first, not before)
        error = program.call("bind", second, address(4000, HERE), 16)
        assert error == (-EADDRINUSE.number if before else 0)
        share(first, True)
        program.ok("bind", second if before else third, address(4000, HERE), 16)
