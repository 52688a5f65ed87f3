"""Sums in C against those of `wire.checksum`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.inet import wire
from sentry.net.ip.checksum import checksum, partial_sum, pseudo_sum

DATA = st.binary(max_size=200)


@given(DATA)
def test_checksum_is_that_of_words_in_python(data: bytes) -> None:
    assert checksum(data) == checksum(memoryview(data)) == wire.checksum(data)


@given(st.binary(max_size=50).map(lambda data: data + data), DATA)
def test_what_is_in_front_counts(front: bytes, data: bytes) -> None:
    assert checksum(data, partial_sum(front)) == wire.checksum(front + data)


def test_all_ones_and_large_buffers() -> None:
    assert partial_sum(b"\xff" * 65535) == 0xFF00
    assert partial_sum(b"\xff" * 65536) == 0xFFFF
    assert checksum(b"") == 0xFFFF


def test_pseudo_header_of_either_family() -> None:
    four = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    assert pseudo_sum(*four, 17, 9) == partial_sum(four[0] + four[1] + b"\0\x11\0\x09")
    six = bytes(range(16)), bytes(range(16, 32))
    assert pseudo_sum(*six, 17, 9) == partial_sum(six[0] + six[1] + b"\0\0\0\x09\0\0\0\x11")
