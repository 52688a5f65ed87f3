"""IPv6 headers, and the way over extension headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.ip import ipv6
from sentry.net.ip.ipv6 import DROPPED, Fragment, Header, Walk
from tests.unit.net.wired import ip6

HEADER = Header(8, 5, 3, 17, 64, ip6(1), ip6(2))
HOP, ROUTING, FRAGMENT, NONE, OPTIONS = 0, 43, 44, 59, 60
PAD = b"\x01\x04\0\0\0\0"


def test_header_is_parsed_as_built() -> None:
    assert ipv6.parse(ipv6.build(HEADER) + b"abcd") == HEADER
    fragment = Fragment(17, 1448, True, 0xABCDEF)
    assert ipv6.parse_fragment(b"x" + ipv6.build_fragment(fragment), 1) == fragment


@pytest.mark.parametrize("wrong", [
    {"source": b"\xff\x02" + bytes(14)}, {"source": ipv6.LOOPBACK}, {"target": ipv6.LOOPBACK},
    {"target": bytes(16)}, {"target": b"\xff\x01" + bytes(14)}, {"payload": 5},
], ids=str)  # fmt: skip
def test_header_that_cannot_come_by_a_link_is_none(wrong: dict[str, bytes]) -> None:
    assert ipv6.parse(ipv6.build(HEADER._replace(**wrong)) + b"abcd") is None  # type: ignore[arg-type]
    assert ipv6.parse(b"\x45" + ipv6.build(HEADER)[1:] + b"abcd") is None


def walk(following: int, rest: bytes, *, is_group: bool = False) -> Walk:
    return ipv6.walk(ipv6.build(HEADER) + rest, following, is_group)


@pytest.mark.parametrize(("following", "rest", "found"), [
    (17, b"", Walk(17, 40, 6)),
    (HOP, bytes([17, 0]) + PAD, Walk(17, 48, 40)),
    (OPTIONS, bytes([6, 0]) + PAD, Walk(6, 48, 40)),
    (HOP, bytes([OPTIONS, 0]) + PAD + bytes([17, 0]) + PAD, Walk(17, 56, 48)),
    (OPTIONS, bytes([HOP, 0]) + PAD + bytes([17, 0]) + PAD, Walk(problem=1, pointer=40)),
    (HOP, bytes([17, 0, 5, 2, 0, 0, 1, 0]), Walk(17, 48, 40)),
    (HOP, bytes([17, 1]) + PAD, DROPPED),
    (HOP, b"\x11", DROPPED),
    (HOP, bytes([17, 0, 1, 5, 0, 0, 0, 0]), DROPPED),
    (HOP, bytes([17, 0, 1, 4, 0, 0, 1, 0]), DROPPED),
    (HOP, bytes([17, 1, 1, 4, 0, 0, 0, 0, 1, 6]) + bytes(6), DROPPED),
    (OPTIONS, bytes([17, 0, 0x1E, 4, 0, 0, 0, 0]), Walk(17, 48, 40)),
    (OPTIONS, bytes([17, 0, 0x5E, 4, 0, 0, 0, 0]), DROPPED),
    (OPTIONS, bytes([17, 0, 0x9E, 4, 0, 0, 0, 0]), Walk(problem=2, pointer=42)),
    (OPTIONS, bytes([17, 0, 0xDE, 4, 0, 0, 0, 0]), Walk(problem=2, pointer=42)),
    (ROUTING, bytes([17, 0, 0, 0, 0, 0, 0, 0]), Walk(17, 48, 40)),
    (ROUTING, bytes([17, 0, 0, 1, 0, 0, 0, 0]), Walk(problem=0, pointer=42)),
    (ROUTING, bytes([17, 0, 3, 0, 0, 0, 0, 0]), DROPPED),
    (ROUTING, bytes([17, 0, 4, 1, 0, 0, 0, 0]), DROPPED),
    (FRAGMENT, bytes(8), Walk(FRAGMENT, 40, 6)),
    (FRAGMENT, bytes(7), DROPPED),
    (NONE, b"", Walk(NONE, 40, 6)),
], ids=str)  # fmt: skip
def test_extension_headers_lead_to_the_transport_or_are_wrong(
    following: int, rest: bytes, found: Walk
) -> None:
    assert walk(following, rest) == found


def test_unknown_option_of_a_packet_to_a_group_is_complained_about_or_not() -> None:
    assert walk(OPTIONS, bytes([17, 0, 0xDE, 4, 0, 0, 0, 0]), is_group=True) == DROPPED
    assert walk(OPTIONS, bytes([17, 0, 0x9E, 4, 0, 0, 0, 0]), is_group=True).problem == 2


def test_number_of_options_is_bounded_padding_apart() -> None:
    assert walk(OPTIONS, bytes([17, 2, 0, 0]) + (b"\x1e\0" * 8).ljust(20, b"\0")[:20]) != DROPPED
    assert walk(OPTIONS, bytes([17, 2, 0, 0]) + b"\x1e\0" * 9 + b"\0\0") == DROPPED


def test_number_of_headers_is_bounded() -> None:
    one = bytes([OPTIONS, 0]) + PAD
    assert walk(OPTIONS, one * (ipv6.MAX_HEADERS - 2) + bytes([17, 0]) + PAD).protocol == 17
    assert walk(OPTIONS, one * 200) == DROPPED


@given(st.sampled_from([HOP, ROUTING, FRAGMENT, OPTIONS]), st.binary(max_size=300), st.booleans())
def test_any_bytes_are_walked_over(following: int, rest: bytes, is_group: bool) -> None:
    found = walk(following, rest, is_group=is_group)
    assert found.is_dropped or found.problem >= 0 or found.at <= 40 + len(rest)


def test_solicited_node_is_made_of_the_last_three_bytes() -> None:
    assert ipv6.solicited_node(ip6(7)).hex() == "ff0200000000000000000001ff000007"
