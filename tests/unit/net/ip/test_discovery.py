"""Neighbour discovery on a wire."""

from __future__ import annotations

import pytest

from sentry.abi.netlink import NUD_DELAY, NUD_REACHABLE, NUD_STALE
from sentry.net.ip import ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.ipv6 import Header
from sentry.net.link import ndp
from tests.unit.net.wired import SECOND_NS, Host, hardware, ip6, local6


@pytest.fixture
def host() -> Host:
    return Host(1)


def message(
    kind: int, body: bytes, source: bytes, target: bytes = ip6(1), hops: int = 255
) -> bytes:
    plain = bytes([kind, 0, 0, 0]) + body
    total = checksum(plain, pseudo_sum(source, target, 58, len(plain)))
    plain = plain[:2] + total.to_bytes(2) + plain[4:]
    head = ipv6.build(Header(0, 0, len(plain), 58, hops, source, target))
    to = b"\x33\x33" + target[12:] if target[0] == 0xFF else hardware(1)
    return to + hardware(2) + b"\x86\xdd" + head + plain


def replies(host: Host) -> list[tuple[bytes, bytes, ndp.Neighbour | None]]:
    """(link address, target, what it says) of advertisements."""
    return [
        (each[:6], each[38:54], ndp.parse_neighbour(each[54:], each[54]))
        for each in host.frames() if each[54] == ndp.ADVERTISEMENT
    ]  # fmt: skip


def test_solicitation_is_answered_and_who_asks_is_known(host: Host) -> None:
    body = ndp.build_solicitation(ip6(1), hardware(2))
    host.hear(message(ndp.SOLICITATION, body, ip6(2), ipv6.solicited_node(ip6(1))))
    told = ndp.Neighbour(ip6(1), hardware(1), False, True, True)
    assert replies(host) == [(hardware(2), ip6(2), told)]
    known = host.link.neighbours6.get(ip6(2))
    assert known is not None and (known.hardware, known.state) == (hardware(2), NUD_DELAY)


def test_who_looks_whether_our_address_is_free_is_told_before_all(host: Host) -> None:
    body = ndp.build_solicitation(ip6(1), b"")
    host.hear(message(ndp.SOLICITATION, body, bytes(16), ipv6.solicited_node(ip6(1))))
    told = ndp.Neighbour(ip6(1), hardware(1), False, False, True)
    assert replies(host) == [(b"\x33\x33\0\0\0\x01", ipv6.ALL_NODES, told)]


def test_what_has_passed_a_router_or_is_for_others_is_dropped(host: Host) -> None:
    group = ipv6.solicited_node(ip6(1))
    body = ndp.build_solicitation(ip6(1), hardware(2))
    host.hear(message(ndp.SOLICITATION, body, ip6(2), group, hops=254))
    host.hear(message(ndp.SOLICITATION, ndp.build_solicitation(ip6(9), hardware(2)), ip6(2)))
    host.hear(message(ndp.SOLICITATION, body, bytes(16), group))
    host.hear(message(ndp.SOLICITATION, body + b"\x01", ip6(2), group))
    wrong = message(ndp.SOLICITATION, body, ip6(2), group)
    host.hear(wrong[:-1] + b"\xff")
    assert not replies(host) and not len(host.link.neighbours6)


def test_advertisement_is_believed_of_who_is_known(host: Host) -> None:
    told = ndp.build_advertisement(ip6(2), hardware(2), is_solicited=True)
    host.hear(message(ndp.ADVERTISEMENT, told, ip6(2)))
    assert not len(host.link.neighbours6)
    host.link.neighbours6.set_static(ip6(2), hardware(7), NUD_STALE)
    host.hear(message(ndp.ADVERTISEMENT, told, ip6(2)))
    known = host.link.neighbours6.get(ip6(2))
    assert known is not None and (known.hardware, known.state) == (hardware(2), NUD_REACHABLE)
    no_override = bytes([0x40, 0, 0, 0]) + told[4:-6] + hardware(9)
    host.hear(message(ndp.ADVERTISEMENT, no_override, ip6(2)))
    assert (known.hardware, known.state) == (hardware(2), NUD_STALE)


def test_router_says_how_large_packets_are_and_how_long_neighbours_are_believed(host: Host) -> None:
    body = bytes(4) + (60_000).to_bytes(4) + bytes(4) + b"\x01\x01" + hardware(2)
    body += b"\x05\x01\0\0" + (1400).to_bytes(4)
    host.hear(message(ndp.ROUTER_ADVERTISEMENT, body, ip6(2), ipv6.ALL_NODES))
    host.sysctls["net/ipv6/conf/eth0/accept_ra"] = "0"
    host.hear(message(ndp.ROUTER_ADVERTISEMENT, body, local6(2), ipv6.ALL_NODES))
    assert host.layer.path(0, ip6(9)).mtu == 1500 and not len(host.link.neighbours6)
    del host.sysctls["net/ipv6/conf/eth0/accept_ra"]
    host.hear(message(ndp.ROUTER_ADVERTISEMENT, body, local6(2), ipv6.ALL_NODES))
    assert host.layer.path(0, ip6(9)).mtu == 1400
    assert host.link.neighbours6.reachable_ns == 60 * SECOND_NS
    known = host.link.neighbours6.get(local6(2))
    assert known is not None and known.hardware == hardware(2)


def test_redirect_is_believed_from_the_router_in_use(host: Host) -> None:
    far = b"\x20\x01" + bytes(14)
    host.route_all(local6(2))
    body = bytes(4) + local6(3) + far + b"\x02\x01" + hardware(3)
    host.hear(message(ndp.REDIRECT, body, local6(4)))
    host.hear(message(ndp.REDIRECT, body, ip6(2)))
    assert host.layer.path(0, far).next_hop == local6(2)
    host.hear(message(ndp.REDIRECT, body, local6(2)))
    assert host.layer.path(0, far).next_hop == local6(3)
    known = host.link.neighbours6.get(local6(3))
    assert known is not None and known.hardware == hardware(3)
