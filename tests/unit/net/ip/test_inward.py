"""Packets of a host for itself come in later, some in a turn, and not too many wait."""

from __future__ import annotations

import pytest

from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.ip.inward import BATCH, MOST_PACKETS
from sentry.net.ip.seam import Arrived, Outgoing
from tests.unit.net.wired import Host, ip4, ip6

PROTOCOL = 253


@pytest.fixture
def host() -> Host:
    return Host(1)


@pytest.mark.parametrize("own", [ip4(1), ip6(1)])
def test_packet_for_us_comes_in_and_goes_by_no_link(host: Host, own: bytes) -> None:
    kept = host.keep(PROTOCOL)
    path = host.layer.send(0, Outgoing(own, PROTOCOL, (b"some", b"data"), own, ttl=7))
    assert path.interface == LOOPBACK_INDEX
    assert not kept.packets
    host.layer.inward.go_on(0)
    (packet,) = kept.packets
    assert (packet.source, packet.target, bytes(packet.payload)) == (own, own, b"somedata")
    assert (packet.ttl, packet.index) == (7, LOOPBACK_INDEX)
    assert not host.frames()


def test_port_that_nobody_has_is_told_to_us(host: Host) -> None:
    kept = host.keep(PROTOCOL, takes=False)
    host.layer.send(0, Outgoing(ip4(1), PROTOCOL, (bytes(8),), ip4(1)))
    for _ in range(2):
        host.layer.inward.go_on(0)
    (failure,) = kept.failures
    assert (failure.source, failure.target, failure.offender) == (ip4(1),) * 3
    assert not host.frames()


def test_some_come_in_each_turn(host: Host) -> None:
    kept, turns = host.keep(PROTOCOL), []
    host.layer.inward.soon = lambda: turns.append(len(kept.packets))
    for _ in range(BATCH + 1):
        host.layer.send(0, Outgoing(ip4(1), PROTOCOL, (b"x",), ip4(1)))
    assert turns == [0]
    host.layer.inward.go_on(0)
    assert len(kept.packets) == BATCH
    assert turns == [0, BATCH]
    host.layer.inward.go_on(0)
    assert len(kept.packets) == BATCH + 1
    assert len(turns) == 2


def test_more_than_may_wait_are_lost(host: Host) -> None:
    kept = host.keep(PROTOCOL)
    for _ in range(MOST_PACKETS + 3):
        host.layer.send(0, Outgoing(ip4(1), PROTOCOL, (b"x",), ip4(1)))
    assert host.layer.counters["Ip.OutDiscards"] == 3
    while len(kept.packets) < MOST_PACKETS:
        host.layer.inward.go_on(0)


class Gate:
    """It lets nothing come."""

    def leaving(self, now_ns: int, out: Outgoing, source: bytes) -> bool:
        raise AssertionError("nothing leaves")

    def frame(self, now_ns: int, frame: bytes, sender: object) -> None:
        raise AssertionError("nothing leaves")

    def arriving(self, now_ns: int, packet: Arrived) -> bool:
        return False


def test_who_judges_what_leaves_and_comes_is_not_asked(host: Host) -> None:
    kept = host.keep(PROTOCOL)
    host.layer.gate = Gate()
    host.layer.send(0, Outgoing(ip4(1), PROTOCOL, (b"x",), ip4(1)))
    host.layer.inward.go_on(0)
    assert len(kept.packets) == 1
