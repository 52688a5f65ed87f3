"""IPv4 headers and options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.ip import ipv4
from sentry.net.ip.ipv4 import Header, Options
from tests.unit.net.wired import ip4

HEADER = Header(20, 25, 8, 77, ipv4.DONT_FRAGMENT, 9, 253, ip4(1), ip4(2))


def test_header_is_parsed_as_built() -> None:
    data = ipv4.build(HEADER) + b"12345"
    assert ipv4.parse(data) == ipv4.parse_quoted(data) == HEADER
    with_options = HEADER._replace(size=24, total=29)
    assert ipv4.parse(ipv4.build(with_options, b"\x01\x01\x01\x00") + b"12345") == with_options


@pytest.mark.parametrize("wrong", [
    b"\x55", b"\x44", b"\x4f", b"\x45\0\0\x13", b"\x45\0\0\x1a", b"\x45\x01",
], ids=["version", "short", "long", "total below the header", "cut", "sum"])  # fmt: skip
def test_header_that_cannot_be_is_none(wrong: bytes) -> None:
    data = ipv4.build(HEADER) + b"12345"
    assert ipv4.parse(wrong + data[len(wrong) :]) is None
    assert ipv4.parse(data[:19]) is None


@pytest.mark.parametrize(("options", "found"), [
    (b"\x01\x01\x01\x00", Options(end=3)),
    (b"\x00\xff\xff\xff", Options(end=0)),
    (b"\x94\x04\0\0", Options()),
    (b"\x94\x03\0\0", Options(21)),
    (b"\x82\x0b" + bytes(9) + b"\x01", Options()),
    (b"\x01\x01\x01\x82", Options(23)),
    (b"\x82\x00\0\0", Options(20)),
    (b"\x82\x05\0\0", Options(20)),
    (b"\x07\x07\x04\0\0\0\0\0", Options(end=7)),
    (b"\x07\x07\x03\0\0\0\0\0", Options(22)),
    (b"\x07\x06\x04\0\0\0\0\0", Options(22)),
    (b"\x07\x03\x04\x07\x03\x04\0\0", Options(23)),
    (b"\x83\x07\x04\x0a\0\0\x05\0", Options(-1, True, 7)),
    (b"\x89\x03\x04\0", Options(-1, True, 3)),
    (b"\x89\x03\x04\x83\x03\x04\0\0", Options(23)),
    (b"\x44\x04\x05\0", Options()),
    (b"\x44\x04\x04\0", Options(22)),
], ids=lambda each: each.hex() if isinstance(each, bytes) else str(each.wrong_at))  # fmt: skip
def test_options_are_right_or_wrong_at_a_place(options: bytes, found: Options) -> None:
    assert ipv4.check_options(options) == found


@given(st.binary(max_size=40))
def test_any_options_are_checked(options: bytes) -> None:
    assert ipv4.check_options(options).wrong_at < 20 + len(options)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_header_or_none(data: bytes) -> None:
    found = ipv4.parse_quoted(data)
    assert found is None or 20 <= found.size <= len(data)
