"""Messages of neighbour discovery."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.link import ndp
from sentry.net.link.ndp import Neighbour, Redirect, Router
from tests.unit.net.wired import hardware, ip6, local6

HEAD = bytes(4)
"""Type, code, checksum."""


def test_solicitation_and_advertisement_are_parsed_as_built() -> None:
    asked = HEAD + ndp.build_solicitation(ip6(2), hardware(1))
    assert ndp.parse_neighbour(asked, ndp.SOLICITATION) == Neighbour(ip6(2), hardware(1))
    told = HEAD + ndp.build_advertisement(ip6(2), hardware(2), is_solicited=True)
    expected = Neighbour(ip6(2), hardware(2), False, True, True)
    assert ndp.parse_neighbour(told, ndp.ADVERTISEMENT) == expected


def test_option_without_a_size_or_cut_makes_the_message_none() -> None:
    asked = HEAD + ndp.build_solicitation(ip6(2), b"")
    for wrong in (b"\x01\x00" + bytes(6), b"\x01\x02" + bytes(6), b"\x01"):
        assert ndp.parse_neighbour(asked + wrong, ndp.SOLICITATION) is None
    many = b"\x0e\x01" + bytes(6)
    assert ndp.parse_neighbour(asked + many * 63, ndp.SOLICITATION) is not None
    assert ndp.parse_neighbour(asked + many * 65, ndp.SOLICITATION) is None


def test_group_is_no_neighbour() -> None:
    asked = HEAD + ndp.build_solicitation(b"\xff" + bytes(15), b"")
    assert ndp.parse_neighbour(asked, ndp.SOLICITATION) is None


def test_router_says_what_it_says() -> None:
    data = (
        HEAD + bytes([64, 0]) + (1800).to_bytes(2) + (30_000).to_bytes(4) + (1000).to_bytes(4)
        + b"\x01\x01" + hardware(9) + b"\x05\x01\0\0" + (1400).to_bytes(4)
    )  # fmt: skip
    assert ndp.parse_router(data) == Router(30_000, hardware(9), 1400, 1800)
    assert ndp.parse_router(data[:16]) == Router(30_000, b"", 0, 1800)


def test_router_says_which_addresses_are_on_the_link() -> None:
    times = (7200).to_bytes(4) + (3600).to_bytes(4) + bytes(4)
    good = b"\x03\x04\x40\xc0" + times + ip6(0)
    flags = b"\x03\x04\x30\x80" + times + ip6(9)
    long = b"\x03\x04\x81\xc0" + times + ip6(0)
    short = b"\x03\x03\x40\xc0" + times + ip6(0)[:8]
    found = ndp.parse_router(HEAD + bytes(12) + good + flags + long + short)
    assert found is not None
    assert found.prefixes == (
        ndp.Prefix(ip6(0), 64, True, True, 7200, 3600),
        ndp.Prefix(ip6(9), 48, True, False, 7200, 3600),
    )


def test_redirect_names_both_addresses() -> None:
    data = HEAD + bytes(4) + local6(3) + ip6(8) + b"\x02\x01" + hardware(3)
    assert ndp.parse_redirect(data) == Redirect(local6(3), ip6(8), hardware(3))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    ndp.parse_neighbour(data, ndp.SOLICITATION)
    ndp.parse_neighbour(data, ndp.ADVERTISEMENT)
    ndp.parse_router(data)
    ndp.parse_redirect(data)
