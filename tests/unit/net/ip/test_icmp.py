"""ICMP: whom errors are for, and what a redirect is believed for."""

from __future__ import annotations

import pytest

from sentry.errors import ECONNREFUSED, EHOSTUNREACH, EPROTO
from sentry.net.ip import ipv4
from sentry.net.ip.checksum import checksum
from sentry.net.ip.ipv4 import Header
from tests.unit.net.wired import Host, Keeper, hardware, ip4

TEST = 253
ROUTER, OTHER = ip4(2), ip4(3)
FAR = bytes([8, 8, 8, 8])


@pytest.fixture
def host() -> Host:
    made = Host(1)
    made.route_all(ROUTER)
    return made


def quoted(target: bytes = FAR, source: bytes = ip4(1)) -> bytes:
    return ipv4.build(Header(20, 400, 0, 7, 0, 64, TEST, source, target)) + b"12345678"


def message(kind: int, code: int, rest: bytes, inner: bytes, sender: bytes = ROUTER) -> bytes:
    body = bytes([kind, code, 0, 0]) + rest + inner
    body = body[:2] + checksum(body).to_bytes(2) + body[4:]
    head = ipv4.build(Header(20, 20 + len(body), 0, 9, 0, 64, 1, sender, ip4(1)))
    return hardware(1) + hardware(2) + b"\x08\0" + head + body


@pytest.mark.parametrize(("kind", "code", "rest", "number", "is_fatal", "info"), [
    (3, 3, bytes(4), ECONNREFUSED.number, True, 0),
    (3, 1, bytes(4), EHOSTUNREACH.number, False, 0),
    (3, 99, bytes(4), EHOSTUNREACH.number, True, 0),
    (11, 0, bytes(4), EHOSTUNREACH.number, False, 0),
    (12, 0, b"\x09\0\0\0", EPROTO.number, True, 9),
])  # fmt: skip
def test_error_is_told_to_the_protocol_that_it_quotes(
    host: Host, kind: int, code: int, rest: bytes, number: int, is_fatal: bool, info: int
) -> None:
    kept = host.keep(TEST)
    host.hear(message(kind, code, rest, quoted()))
    (found,) = kept.failures
    assert (found.number, found.is_fatal, found.info) == (number, is_fatal, info)
    assert (found.target, found.offender, found.quoted) == (FAR, ROUTER, b"12345678")


def nobody_hears(host: Host, kept: Keeper, frame: bytes) -> None:
    host.hear(frame)
    assert not kept.failures


def test_error_that_cannot_be_about_a_packet_of_ours_is_dropped(host: Host) -> None:
    kept = host.keep(TEST)
    nobody_hears(host, kept, message(3, 3, bytes(4), quoted(source=ip4(7))))
    nobody_hears(host, kept, message(3, 3, bytes(4), quoted()[:27]))
    nobody_hears(host, kept, message(4, 0, bytes(4), quoted()))
    right = message(3, 3, bytes(4), quoted())
    nobody_hears(host, kept, right[:-1] + b"x")
    assert host.layer.counters["Icmp.InCsumErrors"] == 1


def test_redirect_is_believed_from_the_router_in_use_to_another_on_the_link(host: Host) -> None:
    for sender, gateway in ((OTHER, OTHER), (ROUTER, bytes([9, 9, 9, 9])), (ROUTER, ip4(1))):
        host.hear(message(5, 1, gateway, quoted(), sender))
        assert host.layer.path(0, FAR).next_hop == ROUTER
    host.hear(message(5, 1, OTHER, quoted()))
    assert host.layer.path(0, FAR).next_hop == OTHER
    assert host.layer.path(0, bytes([8, 8, 8, 9])).next_hop == ROUTER
    host.refresh()
    assert host.layer.path(0, FAR).next_hop == ROUTER


def test_redirect_is_not_believed_where_it_is_turned_off(host: Host) -> None:
    host.sysctls["net/ipv4/conf/all/accept_redirects"] = "0"
    host.hear(message(5, 1, OTHER, quoted()))
    assert host.layer.path(0, FAR).next_hop == ROUTER


def test_time_stamp_is_answered(host: Host) -> None:
    host.link.neighbours4.set_static(ROUTER, hardware(2))
    host.layer.wall_ms = lambda: 86_400_000 + 5
    host.hear(message(13, 0, b"\0\1\0\2", bytes(range(12))))
    (reply,) = host.frames()
    assert reply[34] == 14
    assert reply[38:] == b"\0\1\0\2" + bytes(range(4)) + (5).to_bytes(4) * 2  # others are ours
