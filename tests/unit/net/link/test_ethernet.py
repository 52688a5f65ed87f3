"""Link headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.link import ethernet
from sentry.net.link.ethernet import Frame

A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


def test_header_is_parsed_as_it_was_built() -> None:
    data = b"before" + ethernet.build(A, B, 0x800) + b"packet"
    assert ethernet.parse(data, 6) == Frame(A, B, 0x800, 20)


def test_tag_without_a_vlan_is_passed_over_and_one_with_a_vlan_is_refused() -> None:
    for kind in (b"\x81\0", b"\x88\xa8"):
        assert ethernet.parse(A + B + kind + b"\xe0\0\x08\0") == Frame(A, B, 0x800, 18)
        assert ethernet.parse(A + B + kind + b"\xe0\1\x08\0") is None
        assert ethernet.parse(A + B + kind + b"\xe0\0\x08") is None


def test_length_in_place_of_a_type_is_refused() -> None:
    assert ethernet.parse(A + B + b"\x05\xff" + bytes(50)) is None
    assert ethernet.parse(A + B + b"\x06\0") is not None


def test_groups_have_addresses_of_their_own() -> None:
    assert ethernet.group_address(b"\xe0\x81\x02\x03") == b"\x01\0\x5e\x01\x02\x03"
    assert ethernet.group_address(b"\xff\x02" + bytes(10) + b"abcd") == b"33abcd"
    assert ethernet.group_address(b"\xff" * 4) == ethernet.BROADCAST
    assert ethernet.group_address(b"\xfe" * 16) == ethernet.group_address(b"\xff\0\0\1") == b""


def test_usable_is_what_somebody_may_have() -> None:
    assert ethernet.is_usable(A)
    for wrong in (bytes(6), ethernet.BROADCAST, b"\x01" + bytes(5), A[:5], A + b"x"):
        assert not ethernet.is_usable(wrong)


@given(st.binary(max_size=30), st.integers(0, 31))
def test_any_bytes_are_a_header_or_none(data: bytes, at: int) -> None:
    found = ethernet.parse(data, at)
    assert found is None or at + 14 <= found.start <= len(data)
