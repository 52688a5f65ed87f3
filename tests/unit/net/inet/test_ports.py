"""Ports that are looked for, when there are few."""

from __future__ import annotations

import pytest

from sentry.abi.socket import AF_INET, BPF_TCP_FIN_WAIT2, SO_REUSEADDR
from sentry.errors import EADDRINUSE, EADDRNOTAVAIL
from sentry.net.inet.address import LOOPBACK4, Endpoint
from sentry.net.inet.ports import Ports
from sentry.net.inet.time_wait import Remains

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
        self.owner_uid = 0
        self.port_range = (100, 102)


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

    assert list(ports.holders(listener.local)) == [listener]
    assert ports.at(listener.local.port) == list(ports.everybody()) == [listener, accepted]
    ports.release(listener)
    assert list(ports.everybody()) == [accepted] and len(ports) == 1
    assert bound(ports, stream=True).local.port != accepted.local.port
    ports.check_listen(accepted)  # it has been disconnected, and is a listener itself now
    assert list(ports.holders(accepted.local)) == [accepted]
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
