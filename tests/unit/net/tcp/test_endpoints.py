"""Whom segments are for, and whole connections between two hosts."""

from __future__ import annotations

import pytest

from sentry.errors import EADDRNOTAVAIL
from sentry.net.inet.address import ANY4, ANY6, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.segment import ACK, RST, SYN, Arrived, parse
from tests.unit.net.tcp.pair import LEFT, MTU, RIGHT, SECOND, Pair, read, shared


def test_connection_is_made_used_and_over() -> None:
    pair = Pair().connect()
    data = bytes(range(256)) * 2000
    assert pair.pump(data) == data

    pair.left.close(pair.now)
    pair.run(1)
    assert pair.accepted.eof
    pair.accepted.close(pair.now)
    pair.run(1)

    assert not pair.sides[0].endpoints.connections and not pair.sides[1].endpoints.connections
    assert len(pair.sides[0].endpoints.time_wait) == 1
    pair.run(61)
    assert not pair.deadlines() and not pair.sides[0].endpoints.time_wait
    assert pair.sides[0].shared.counters["Tcp.CurrEstab"] == 0


def test_half_close_lets_the_other_way_go_on() -> None:
    pair = Pair().connect()
    pair.left.shutdown(pair.now, 1)
    pair.run(0.1)
    pair.accepted.send(pair.now, b"still here")
    pair.run(0.1)

    assert read(pair.left, pair.now) == b"still here" and pair.accepted.eof


def test_closed_port_is_reset() -> None:
    pair = Pair()
    seg = Arrived(5, 81, 7, 0, SYN, 100, 0, memoryview(b""))
    flow = Flow(Endpoint(RIGHT.ip, 81), Endpoint(LEFT.ip, 5))

    ((_, made),) = pair.sides[1].endpoints.segment(pair.now, flow, seg, MTU)

    answer = parse(made.header)
    assert answer is not None and answer.flags == RST | ACK


def test_listener_of_an_address_comes_before_that_of_all() -> None:
    endpoints = Pair().sides[0].endpoints
    made = {ip: Listener(endpoints.shared, 1) for ip in (LEFT.ip, ANY4, ANY6)}
    for ip in (ANY6, ANY4, LEFT.ip):
        endpoints.listeners[Endpoint(ip, 5)] = made[ip]
        assert endpoints.listener_for(Flow(Endpoint(LEFT.ip, 5), RIGHT)) is made[ip]

    assert endpoints.listener_for(Flow(Endpoint(b"\x20" + bytes(15), 5), RIGHT)) is made[ANY6]
    assert endpoints.listener_for(Flow(Endpoint(LEFT.ip, 6), RIGHT)) is None


def test_two_connections_between_the_same_two_are_one_too_many() -> None:
    pair = Pair().connect()
    again = Connection(pair.left.flow, pair.sides[0].shared, MTU)

    with pytest.raises(EADDRNOTAVAIL):
        pair.sides[0].endpoints.connect(pair.now, again)


def test_time_wait_gives_way_to_a_new_connection_from_there() -> None:
    pair = Pair().connect()
    pair.accepted.close(pair.now)
    pair.run(0.1)
    pair.left.close(pair.now)
    pair.run(2)
    assert len(pair.sides[1].endpoints.time_wait) == 1
    old = pair.left.iss

    pair.right = None
    pair.left = Connection(pair.left.flow, pair.sides[0].shared, MTU)
    pair.connect()

    assert pair.left.connected and pair.accepted.connected
    assert len(pair.sides[1].endpoints.time_wait) == 0 and pair.left.iss != old


def test_connect_from_time_wait_of_our_own_goes_on_beyond_it() -> None:
    pair = Pair(left=shared(b"L" * 16, tcp_tw_reuse=1)).connect()
    pair.left.close(pair.now)
    pair.run(0.1)
    pair.accepted.close(pair.now)
    pair.run(2)
    end = pair.left.snd_nxt
    pair.right = None
    pair.left = Connection(pair.left.flow, pair.sides[0].shared, MTU)
    pair.connect()

    assert pair.left.connected
    assert pair.left.iss == (end + 65537) & 0xFFFFFFFF


def test_reset_of_one_end_is_heard_by_the_other() -> None:
    pair = Pair().connect()
    pair.left.abort(pair.now)
    pair.run(1)

    assert pair.accepted.error and not pair.deadlines()


def test_silent_end_is_given_up() -> None:
    pair = Pair().connect()
    pair.filters = [lambda delay, seg: [], None]
    pair.left.send(pair.now, b"x")
    pair.run(1000)

    assert pair.left.error and pair.left.is_over
    assert pair.now > 1000 * SECOND


def test_orphans_beyond_the_ceiling_are_reset() -> None:
    for ceiling, is_left in ((1, True), (0, False)):
        pair = Pair(left=shared(b"L" * 16, tcp_max_orphans=ceiling)).connect()
        pair.filters = [lambda delay, seg: [], None]
        pair.left.send(pair.now, b"x")
        pair.left.close(pair.now)
        pair.flush()

        assert bool(pair.sides[0].endpoints.orphans) is is_left is not pair.left.is_over
        pair.run(400)
        assert not pair.sides[0].endpoints.orphans and pair.left.is_over
