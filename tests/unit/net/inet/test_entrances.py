"""What processes of the host reach in a container's own namespace: places, and connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_TCP, SO_REUSEPORT, SOL_SOCKET
from sentry.errors import EADDRINUSE, EAGAIN, ECONNREFUSED, ENFILE
from sentry.net.inet.entrances import Entrances
from sentry.net.inet.entrant import Entrant
from sentry.vfs import budget
from tests.unit.net.streams import Streams, done, place, receive

ANY4, ANY6 = place(bytes(4), 80), place(bytes(16), 80)
LOCAL = bytes((127, 0, 0, 1))


class Process:
    """In place of the network process."""

    def __init__(self) -> None:
        self.on_connection: Any = None
        self.open: dict[int, tuple[bytes, bool]] = {}
        self.taken: list[bytes] = []
        """Addresses that somebody of the host has."""
        self.asked = 0

    async def listen(self, number: int, address: bytes, *, v6only: bool) -> None:
        self.asked += 1
        if address in self.taken:
            raise EADDRINUSE
        self.open[number] = address, v6only

    async def close_port(self, number: int) -> None:
        del self.open[number]


class Entered(Streams):
    """A host whose programs listen."""

    def __init__(self) -> None:
        super().__init__(1)
        self.sysctls["net/ipv4/ip_unprivileged_port_start"] = "0"
        self.watched: dict[int, int] = {}
        self.loop = self.caller.kernel.loop
        self.loop.watch = self.watch
        self.loop.spawn = self.spawn
        self.process = Process()

    def watch(self, fd: int, events: int, _callback: Any = None) -> None:
        self.watched[fd] = events

    def spawn(self, coro: Any, _name: str, ended: Any) -> None:
        with pytest.raises(StopIteration):
            coro.send(None)
        ended(None, None)

    def turn(self) -> None:
        """What was to be done soon, and what that brings."""
        while self.soon:
            some, self.soon[:] = list(self.soon), []
            for each in some:
                each()

    def entrances(self) -> Entrances:
        process: Any = self.process
        return Entrances(self.stack, process, self.loop)

    @property
    def places(self) -> list[tuple[bytes, bool]]:
        return sorted(self.process.open.values())


@pytest.fixture
def host() -> Entered:
    return Entered()


def test_places_are_those_where_programs_listen(host: Entered) -> None:
    first = host.listen(80)
    host.entrances()
    assert host.places == [(ANY4, False)]
    second = host.listen(81, ip=LOCAL)
    third = host.listen(82, AF_INET6)
    assert [each for each, _ in host.places] == sorted(
        [ANY4, place(LOCAL, 81), place(bytes(16), 82)]
    )
    for each in (first, second, third):
        each.decref()
    assert not host.places


def test_who_shares_a_place_has_one_until_the_last_has_gone(host: Entered) -> None:
    host.entrances()
    socks = [host.socket() for _ in range(2)]
    for sock in socks:
        host.option(sock, SOL_SOCKET, SO_REUSEPORT, 1)
        done(sock.bind(host.caller, ANY4))
        sock.listen(host.caller, 8)
    assert host.process.asked == 1
    socks[0].decref()
    assert host.places == [(ANY4, False)]
    socks[1].decref()
    assert not host.places


def test_place_that_the_host_has_itself_is_left_alone(host: Entered) -> None:
    host.entrances()
    host.process.taken.append(ANY4)
    sock = host.listen(80)
    assert not host.places and host.process.asked == 1
    host.listen(81)
    assert host.process.asked == 2
    sock.decref()
    host.process.taken.clear()
    host.listen(80)
    assert host.process.asked == 3 and (ANY4, False) in host.places


def test_connection_for_nobody_is_closed(host: Entered) -> None:
    host.entrances()
    reader, writer = os.pipe()
    host.process.on_connection(77, writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


class Outside:
    """A process of the host that has connected to `port`, and the descriptor that was accepted."""

    def __init__(self) -> None:
        self.server = socket.create_server((socket.inet_ntoa(LOCAL), 0))
        self.port = self.server.getsockname()[1]
        self.sock = socket.create_connection(self.server.getsockname())
        self.sock.settimeout(20)

    def fd(self) -> int:
        return self.server.accept()[0].detach()

    def close(self) -> None:
        self.sock.close()
        self.server.close()


@pytest.fixture
def outside() -> Iterator[Outside]:
    made = Outside()
    yield made
    made.close()


class Joined:
    """Both, as one connection."""

    def __init__(self, host: Entered, outside: Outside) -> None:
        self.gone: list[Entrant] = []
        self.host, self.outside = host, outside
        self.listener = host.listen(outside.port)
        self.fd = outside.fd()
        self.entrant = Entrant(host.stack, self.fd, host.loop, self.gone.append)
        host.turn()
        self.inside = host.accept(self.listener)

    def came(self) -> None:
        """The host has something to say."""
        self.entrant._look(EPOLLIN)
        self.host.turn()


@pytest.fixture
def joined(host: Entered, outside: Outside) -> Iterator[Joined]:
    made = Joined(host, outside)
    yield made
    made.entrant.close()


def test_bytes_go_both_ways_and_each_end_by_itself(joined: Joined) -> None:
    sock, inside, host = joined.outside.sock, joined.inside, joined.host
    assert host.watched[joined.fd] == EPOLLIN
    sock.sendall(b"hello")
    joined.came()
    assert receive(inside) == b"hello"
    sock.shutdown(socket.SHUT_WR)
    joined.came()
    assert receive(inside) == b"" and host.watched[joined.fd] == 0
    host.send(inside, b"still here")
    host.turn()
    assert sock.recv(100) == b"still here"
    assert host.stack.kernel.vfs.budget.host_descriptors == 1
    inside.decref()
    host.turn()
    assert sock.recv(100) == b"" and joined.gone == [joined.entrant]
    assert host.stack.kernel.vfs.budget.host_descriptors == 0


def test_what_nobody_takes_waits_and_nothing_spins(joined: Joined) -> None:
    sock, inside, host = joined.outside.sock, joined.inside, joined.host
    sock.setblocking(False)
    sent = 0
    while host.watched[joined.fd]:
        try:
            sent += sock.send(bytes(1 << 20))
        except BlockingIOError:
            joined.came()
    assert not host.soon
    got = 0
    while got < sent:
        with suppress(EAGAIN):  # it is on its way
            got += len(receive(inside))
        host.turn()
        if host.watched[joined.fd] == EPOLLIN:
            joined.came()
    assert got == sent


def test_program_that_takes_nothing_more_has_its_last_word(joined: Joined) -> None:
    sock, inside, host = joined.outside.sock, joined.inside, joined.host
    host.send(inside, b"bye")
    inside.decref()
    host.turn()
    assert sock.recv(100) == b"bye"
    assert sock.recv(100) == b""


def test_who_is_connected_to_nobody_any_more_keeps_no_place(joined: Joined) -> None:
    """However long it keeps its own end."""
    joined.inside.decref()
    joined.host.turn()
    assert joined.outside.sock.recv(100) == b""
    assert joined.gone == [joined.entrant]


def test_reset_of_the_host_is_the_programs(joined: Joined) -> None:
    sock, inside, host = joined.outside.sock, joined.inside, joined.host
    host.send(inside, b"unread")
    host.turn()
    sock.close()  # with what it has not read: a reset
    joined.came()
    assert joined.gone == [joined.entrant]
    assert receive(inside) == b""


def test_nobody_is_reached_where_nobody_listens_or_too_many_wait(
    host: Entered, outside: Outside
) -> None:
    fd = outside.fd()
    with pytest.raises(ECONNREFUSED):
        Entrant(host.stack, fd, host.loop, lambda _: None)
    host.listen(outside.port, AF_INET, 0)
    first = Entrant(host.stack, fd, host.loop, lambda _: None)
    host.turn()
    other = socket.create_connection(outside.server.getsockname())
    second = outside.fd()
    with pytest.raises(ECONNREFUSED):
        Entrant(host.stack, second, host.loop, lambda _: None)
    os.close(second)
    other.close()
    first.close()


def test_where_no_file_can_be_made_nothing_of_a_connection_stays(
    host: Entered, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.listen(outside.port)
    fd, ports = outside.fd(), host.stack.ports_of(IPPROTO_TCP)
    before = list(ports.everybody())
    counted = host.stack.kernel.vfs.budget
    monkeypatch.setattr(budget, "MAX_FILES", counted.anonymous + counted.files + 1)
    with pytest.raises(ENFILE):
        Entrant(host.stack, fd, host.loop, lambda _: None)
    assert list(ports.everybody()) == before and not counted.host_descriptors
    os.close(fd)
