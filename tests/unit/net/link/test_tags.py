"""A tag more, or less, and the virtio header stays about the same packet."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.link import ethernet, vnet
from sentry.net.link.tags import tagged, untagged

TAG = struct.pack(">HH", 0x8100, 5)
FRAME = bytes(range(12)) + b"\x08\0" + bytes(40)
NEEDS_SUM = 1


def header(flags: int, size: int, start: int) -> bytes:
    return struct.pack("<BBHHHH", flags, 1, size, 1400, start, 16)


@pytest.mark.parametrize(("before", "after"), [
    (bytes(10), bytes(10)),
    (header(NEEDS_SUM, 54, 34), header(NEEDS_SUM, 58, 38)),
    (header(NEEDS_SUM, 0, 34), header(NEEDS_SUM, 0, 38)),
    (header(2, 54, 34), header(2, 54, 34)),
])  # fmt: skip
def test_tag_stands_behind_the_addresses(before: bytes, after: bytes) -> None:
    whole = tagged(before + FRAME, TAG)

    assert whole == after + FRAME[:12] + TAG + FRAME[12:]
    assert untagged(whole) == before + FRAME
    assert ethernet.tag_of(whole, vnet.SIZE) == (0x8100, 5)
    assert ethernet.tag_of(before + FRAME, vnet.SIZE) is None


def test_what_is_about_no_place_behind_the_tag_is_refused() -> None:
    assert tagged(header(NEEDS_SUM, 54, 0xFFFC) + FRAME, TAG) is None
    for size, start in ((54, 17), (54, 0), (3, 38)):
        assert untagged(header(NEEDS_SUM, size, start) + FRAME[:12] + TAG + FRAME[12:]) is None


@given(st.binary(min_size=10, max_size=10))
def test_any_header_is_moved_or_refused(head: bytes) -> None:
    untagged(head + FRAME[:12] + TAG + FRAME[12:])
    tagged(head + FRAME, TAG)


def test_behind_two_tags_is_looked() -> None:
    two, three = FRAME[:12] + TAG * 2 + FRAME[12:], FRAME[:12] + TAG * 3 + FRAME[12:]
    assert ethernet.behind_tags(FRAME) == (14, 0x800)
    assert ethernet.behind_tags(two) == (22, 0x800) and ethernet.link_size(two) == 22
    assert ethernet.behind_tags(three) == (22, 0x8100)
    assert ethernet.behind_tags(two[:17]) is None and ethernet.link_size(two[:17]) == 14
    assert ethernet.behind_tags(FRAME[:12] + b"\0\x50" + bytes(60)) is None
