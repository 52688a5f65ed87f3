"""What goes by a way that is kept is, to the byte, what goes the long way; and when it is kept."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.netlink import IFF_UP
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_TCP
from sentry.net.inet.tcp_link import CHECKSUM_AT, send_by
from sentry.net.ip.seam import Path
from sentry.net.ip.way import Way, way_by
from sentry.net.tcp.segment import ACK, CWR, PSH, Outgoing, header
from tests.unit.net.streams import Line, Streams, receive
from tests.unit.net.wired import INDEX, hardware, ip4, ip6

FAMILIES = pytest.mark.parametrize("family", [AF_INET, AF_INET6])
STAMPS = bytes([1, 1, 8, 10]) + bytes(range(8))


class Known:
    """A host with a way to another one."""

    def __init__(self, family: int) -> None:
        self.line = Line(Streams(1), Streams(2))
        _, self.client, self.server = self.line.connected(family)
        self.host = self.line.hosts[0]
        self.engine = self.client.engine
        self.layer, self.link = self.host.layer, self.host.link

    def short(self, made: Outgoing, tos: int = 0, ttl: int = 64) -> list[bytes] | None:
        """What goes by the way that is kept; None: nothing does."""
        ways = list(self.layer.ways._all.values())
        is_gone = any(send_by(way, self.line.now_ns, self.layer, made, (tos, ttl)) for way in ways)
        frames: list[bytes] = self.link.take_outgoing(64, 1 << 20)
        assert is_gone == bool(frames)
        return frames if is_gone else None

    def long(self, made: Outgoing, tos: int = 0, ttl: int = 64) -> list[bytes]:
        """And the other one."""
        flow = self.engine.connection.flow
        self.layer.ways.clear()
        assert self.host.tcp.transmit(self.line.now_ns, flow, made, tos=tos, ttl=ttl) is not None
        frames: list[bytes] = self.link.take_outgoing(64, 1 << 20)
        return frames

def made(flags: int = ACK, payload: bytes = b"", gso: int = 0, ecn: int = 0) -> Outgoing:
    head = header((4000, 8080), 0xFFFFFFF0, 7, flags, 99, STAMPS)
    return Outgoing(head, [memoryview(payload)] if payload else (), gso, ecn)


@FAMILIES
def test_frames_are_those_of_the_long_way(family: int) -> None:
    known = Known(family)
    counters = known.host.stack.counters
    segments = [
        made(), made(ACK | PSH, b"odd"), made(ecn=2), made(ACK | PSH, b"x" * 1400),
        made(ACK, b"y" * 60000, gso=1448), made(ACK | CWR, b"z" * 2897, gso=1448, ecn=2),
    ]  # fmt: skip
    for each in segments:
        for tos, ttl in ((0, 64), (0xFF, 1), (0x28, 255)):
            before = dict(counters)
            short = known.short(each, tos, ttl)
            counted = {name: count - before.get(name, 0) for name, count in counters.items()}
            before = dict(counters)
            assert short == known.long(each, tos, ttl)
            for name, count in counters.items():
                if not name.startswith("Tcp"):  # counted by who sends
                    assert count - before.get(name, 0) == counted[name], name


def test_what_does_not_fit_goes_the_long_way() -> None:
    known = Known(AF_INET)
    assert known.short(made(payload=b"x" * 1449)) is None
    assert len(known.long(made(payload=b"x" * 1449))) == 2


CHANGES: dict[str, Callable[[Known], Any]] = {
    "routes": lambda known: known.host.refresh(),
    "outdated": lambda known: known.layer.outdate(known.host.routes),
    "mtu": lambda known: setattr(known.host.interface, "mtu", 1400),
    "filter": lambda known: setattr(known.layer, "filter", SimpleNamespace()),
    "gate": lambda known: setattr(known.layer, "gate", SimpleNamespace()),
    "down": lambda known: known.host.interface.set_flags(0, IFF_UP),
    "gone": lambda known: known.layer.links.pop(INDEX),
    "narrow": lambda known: known.layer.learn_mtu(known.line.now_ns, ip4(2), 600),
    "router": lambda known: known.layer.exceptions.learn_gateway(ip4(2), ip4(9)),
    "nobody": lambda known: known.link.neighbours4.drop(ip4(2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_way_is_not_taken_when_something_has_changed(change: str) -> None:
    known = Known(AF_INET)
    assert known.short(made()) is not None
    CHANGES[change](known)
    assert known.short(made()) is None


@pytest.mark.parametrize("change", ["routes", "outdated"])
def test_link_that_is_no_more_is_not_kept(change: str) -> None:
    """With all that waits in it: thousands may come and go."""
    known = Known(AF_INET)
    assert known.layer.ways._all
    CHANGES[change](known)
    assert not known.layer.ways._all


def test_neighbour_that_may_have_gone_is_asked_for() -> None:
    known = Known(AF_INET)
    neighbours = known.link.neighbours4
    known.line.wait(neighbours.reachable_ns + 60 * 10**9)
    assert known.short(made()) is None
    known.host.send(known.client, b"still there")
    known.line.settle()
    assert receive(known.server) == b"still there" and known.short(made()) is not None


@FAMILIES
def test_other_hardware_addresses_are_taken_over(family: int) -> None:
    known = Known(family)
    assert known.short(made()) is not None
    ip = ip4(2) if family == AF_INET else ip6(2)
    known.link.neighbours(ip).set_static(ip, hardware(8))
    known.link.hardware = hardware(7)
    frames = known.short(made())
    assert frames == known.long(made())
    assert frames is not None and frames[0][10:22] == hardware(8) + hardware(7)


def test_way_is_kept_only_where_nothing_else_has_to_be_asked() -> None:
    known = Known(AF_INET)
    now_ns = known.line.now_ns

    def kept(path: Path, target: bytes) -> Way | None:
        return way_by(known.layer, now_ns, path, (ip4(1), target), IPPROTO_TCP, CHECKSUM_AT)

    path = known.layer.path(now_ns, ip4(2))
    assert kept(path, ip4(2)) is not None
    assert kept(path, ip4(1)) is None
    assert kept(path._replace(is_broadcast=True), ip4(2)) is None
    assert kept(path._replace(next_hop=b"\xe0\0\0\x09"), b"\xe0\0\0\x09") is None
    known.link.asks = False
    assert kept(path, ip4(2)) is None
