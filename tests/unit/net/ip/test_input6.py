"""IPv6 packets with extension headers and fragments, as a link brings them."""

from __future__ import annotations

import pytest

from sentry.net.ip import ipv6
from sentry.net.ip.ipv6 import Fragment, Header
from tests.unit.net.wired import Host, hardware, ip6

TEST = 253
LINK = hardware(1) + hardware(2) + b"\x86\xdd"
HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60


@pytest.fixture
def host() -> Host:
    made = Host(1)
    made.link.neighbours6.set_static(ip6(2), hardware(2))
    return made


def packet(following: int, rest: bytes, target: bytes = ip6(1)) -> bytes:
    header = Header(0, 0, len(rest), following, 64, ip6(2), target)
    return LINK + ipv6.build(header) + rest


def fragment(offset: int, data: bytes, *, more: bool, following: int = TEST) -> bytes:
    return packet(FRAGMENT, ipv6.build_fragment(Fragment(following, offset, more, 7)) + data)


def complaints(host: Host) -> list[tuple[int, int, int]]:
    """(type, code, pointer) of ICMPv6."""
    return [
        (each[54], each[55], int.from_bytes(each[58:62])) for each in host.frames()
        if each[20] == 58
    ]  # fmt: skip


def test_extension_headers_are_passed_over(host: Host) -> None:
    kept = host.keep(TEST)
    pad = b"\x01\x04\0\0\0\0"
    host.hear(packet(HOP, bytes([OPTIONS, 0]) + pad + bytes([TEST, 0]) + pad + b"data"))
    assert bytes(kept.packets[0].payload) == b"data" and len(kept.packets[0].head) == 56


def test_unknown_option_and_protocol_are_parameter_problems(host: Host) -> None:
    host.hear(packet(OPTIONS, bytes([TEST, 0, 0x9E, 4, 0, 0, 0, 0])))
    host.hear(packet(OPTIONS, bytes([TEST, 0, 1, 4, 0, 0, 0, 0])))
    host.hear(packet(ROUTING, bytes([TEST, 0, 0, 1, 0, 0, 0, 0])))
    assert complaints(host) == [(4, 2, 42), (4, 1, 40), (4, 0, 42)]


def test_no_next_header_is_dropped_without_a_word(host: Host) -> None:
    host.hear(packet(59, b"what follows"))
    assert not complaints(host)


def test_fragments_become_a_packet_and_one_alone_is_one(host: Host) -> None:
    kept = host.keep(TEST)
    host.hear(fragment(8, b"end", more=False))
    host.hear(fragment(0, b"12345678", more=True))
    host.hear(fragment(0, b"whole", more=False))
    assert [bytes(each.payload) for each in kept.packets] == [b"12345678end", b"whole"]
    assert ipv6.parse(kept.packets[0].head + b"12345678end") is not None


def test_fragment_within_a_fragment_is_dropped(host: Host) -> None:
    kept = host.keep(TEST)
    inner = ipv6.build_fragment(Fragment(TEST, 0, False, 9))
    host.hear(fragment(0, inner + b"x", more=False, following=FRAGMENT))
    assert not kept.packets and not complaints(host)


def test_first_fragment_without_the_transport_is_a_parameter_problem(host: Host) -> None:
    host.hear(fragment(0, bytes(8), more=True, following=6))
    assert complaints(host) == [(4, 3, 0)] and not len(host.layer.fragments6)


def test_fragment_that_is_odd_or_too_far_is_a_parameter_problem(host: Host) -> None:
    host.hear(fragment(8, bytes(9), more=True))
    host.hear(fragment(65528, bytes(16), more=False))
    assert complaints(host) == [(4, 0, 4), (4, 0, 42)]


def test_packet_for_a_group_is_taken_by_its_members_alone(host: Host) -> None:
    kept = host.keep(TEST)
    for group in (ipv6.ALL_NODES, ipv6.solicited_node(ip6(1)), ipv6.solicited_node(ip6(9))):
        frame = packet(TEST, b"x", group)
        host.hear(b"\x33\x33" + group[12:] + frame[6:])
    assert [each.is_group for each in kept.packets] == [True, True]
