"""Segments from and to bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.tcp import segment
from sentry.net.tcp.segment import ACK, FIN, PSH, SYN, URG, header, options_of, parse, unwrap


def built(flags: int, options: bytes, data: bytes = b"") -> bytes:
    options += bytes(-len(options) % 4)
    return header((1, 2), 3, 4, flags, 5, options, 6) + data


def test_header_comes_back_as_it_was() -> None:
    seg = parse(header((40000, 80), 1 << 32, 0xFFFFFFFF, PSH | URG | ACK, 65535, b"", 9) + b"data")

    assert seg is not None
    assert (seg.source_port, seg.destination_port) == (40000, 80)
    assert (seg.seq, seg.ack, seg.window, seg.urgent) == (0, 0xFFFFFFFF, 65535, 9)
    assert (seg.flags, bytes(seg.payload)) == (PSH | URG | ACK, b"data")


def test_payload_is_no_copy() -> None:
    whole = built(ACK, b"", bytes(5000))
    seg = parse(whole)

    assert seg is not None and seg.payload.obj is whole


@pytest.mark.parametrize("data", [b"", bytes(19), bytes(12) + b"\x40" + bytes(7),
                                  bytes(12) + b"\x60" + bytes(10)])  # fmt: skip
def test_what_has_no_header_is_none(data: bytes) -> None:
    assert parse(data) is None


def test_options_of_a_syn_come_back() -> None:
    seg = parse(built(SYN, segment.syn_options(1460, 7, True, (11, 12))))

    assert seg is not None
    assert (seg.mss, seg.window_scale, seg.sack_permitted, seg.stamps) == (1460, 7, True, (11, 12))


def test_options_of_a_syn_without_any_but_the_mss() -> None:
    options = segment.syn_options(1460, None, False, None)

    assert options == b"\x02\x04\x05\xb4"


def test_three_blocks_fit_beside_timestamps_and_four_without() -> None:
    blocks = [(10, 20), (30, 40), (50, 60), (70, 80), (90, 95)]
    with_stamps = parse(built(ACK, options_of((1, 2), blocks)))
    without = parse(built(ACK, options_of(None, blocks)))

    assert with_stamps is not None and without is not None
    assert with_stamps.sacks == tuple(blocks[:3])
    assert without.sacks == tuple(blocks[:4])


@pytest.mark.parametrize(
    "options",
    [
        b"\x01\x02\x04\x05",  # longer than what is there
        b"\x02\x01\x05\xb4",  # a length of less than two
        b"\x02\x00",
        b"\x02\x03\x05\x00",  # a length that is not the option's
        b"\x00\x02\x04\x05\xb4",  # behind the end
        b"\x02\x04\x00\x00",  # an MSS of 0
    ],
)
def test_malformed_option_says_nothing(options: bytes) -> None:
    seg = parse(built(SYN, options))

    assert seg is not None and seg.mss == 0


def test_unknown_option_is_skipped() -> None:
    seg = parse(built(SYN, b"\xfe\x06abcd\x01\x02\x04\x05\xb4"))

    assert seg is not None and seg.mss == 1460


def test_scale_of_more_than_14_is_14() -> None:
    seg = parse(built(SYN, b"\x03\x03\xff"))

    assert seg is not None and seg.window_scale == 14


def test_mss_and_scale_are_a_syns_alone() -> None:
    seg = parse(built(ACK, segment.syn_options(1460, 7, True, (1, 2))))

    assert seg is not None
    assert (seg.mss, seg.window_scale, seg.sack_permitted, seg.stamps) == (0, None, False, (1, 2))


def test_syn_and_fin_take_a_number_each() -> None:
    seg = parse(built(SYN | FIN, b"", b"abc"))

    assert seg is not None and seg.length == 5


@given(st.integers(0, 1 << 40), st.integers(-(1 << 31), (1 << 31) - 1))
def test_number_is_the_closest_place(near: int, distance: int) -> None:
    assert unwrap((near + distance) & 0xFFFFFFFF, near) == near + distance


@given(st.binary(max_size=100) | st.builds(built, st.integers(0, 255), st.binary(max_size=40)))
def test_any_bytes_are_a_segment_or_none(data: bytes) -> None:
    seg = parse(data)

    assert seg is None or len(seg.payload) <= len(data) - 20
