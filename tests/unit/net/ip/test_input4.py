"""IPv4 packets with options and fragments, as a link brings them."""

from __future__ import annotations

import pytest

from sentry.net.ip import ipv4
from sentry.net.ip.ipv4 import Header
from tests.unit.net.wired import SECOND_NS, Host, hardware, ip4

TEST = 253
LINK = hardware(1) + hardware(2) + b"\x08\0"


@pytest.fixture
def host() -> Host:
    made = Host(1)
    made.link.neighbours4.set_static(ip4(2), hardware(2))
    return made


def packet(data: bytes, options: bytes = b"", fragment: int = 0, tos: int = 0) -> bytes:
    size = 20 + len(options)
    header = Header(size, size + len(data), tos, 7, fragment, 64, TEST, ip4(2), ip4(1))
    return LINK + ipv4.build(header, options) + data


def complaints(host: Host) -> list[tuple[int, int, int]]:
    """(type, code, the byte behind the checksum) of ICMP."""
    return [(each[34], each[35], each[38]) for each in host.frames() if each[23] == 1]


def test_padding_of_the_link_is_cut_off(host: Host) -> None:
    kept = host.keep(TEST)
    host.hear(packet(b"data") + bytes(30))
    assert bytes(kept.packets[0].payload) == b"data"


def test_wrong_option_is_a_parameter_problem_and_a_source_route_is_dropped(host: Host) -> None:
    kept = host.keep(TEST)
    host.hear(packet(b"a", b"\x07\x01\0\0"))
    host.hear(packet(b"b", b"\x83\x03\x04\0"))
    host.hear(packet(b"c", b"\x94\x04\0\0"))
    assert complaints(host) == [(12, 0, 20)]
    assert [bytes(each.payload) for each in kept.packets] == [b"c"]


def test_fragments_become_a_packet_with_a_header_of_its_own(host: Host) -> None:
    kept = host.keep(TEST)
    host.hear(packet(b"end", fragment=1, tos=3))
    host.hear(packet(b"12345678", b"\x94\x04\0\0", ipv4.MORE_FRAGMENTS, 2))
    (found,) = kept.packets
    assert bytes(found.payload) == b"12345678end" and found.tos == 3
    header = ipv4.parse(found.head + bytes(found.payload))
    assert header is not None and (header.size, header.fragment) == (24, 0)


def test_packet_that_does_not_become_whole_is_told_to_its_sender(host: Host) -> None:
    host.hear(packet(b"12345678", fragment=ipv4.MORE_FRAGMENTS), SECOND_NS)
    host.hear(packet(bytes(8), fragment=ipv4.MORE_FRAGMENTS | 1), SECOND_NS)
    assert host.layer.timer() == 31 * SECOND_NS
    host.layer.timeout(31 * SECOND_NS)
    assert complaints(host) == [(11, 1, 0)]
    assert host.layer.counters["Ip.ReasmTimeout"] == 1 and host.layer.timer() is None


def test_nothing_is_said_about_errors_groups_and_frames_to_all(host: Host) -> None:
    whole = packet(b"12345678")
    header = Header(20, 28, 0, 7, 0, 64, 1, ip4(2), ip4(1))
    host.hear(LINK + ipv4.build(header) + b"\x03\x09\0\0\0\0\0\0")
    host.hear(b"\xff" * 6 + whole[6:])
    assert not complaints(host)
    host.hear(whole)
    assert complaints(host) == [(3, 2, 0)]


def test_complaints_to_one_are_few(host: Host) -> None:
    for _ in range(20):
        host.hear(packet(b"12345678"), SECOND_NS)
    assert len(complaints(host)) == 6
    assert host.layer.counters["Icmp.OutRateLimitHost"] == 14
