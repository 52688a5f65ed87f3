"""What a frame left to do is believed only if it is about the packet in it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.ip.left import checked
from sentry.net.link import ethernet, vnet
from sentry.net.link.segments import finished
from sentry.net.link.tags import tagged
from tests.unit.net.ip.test_forward import (
    ENDS4,
    ENDS6,
    FRAGMENT,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    MORE,
    NEEDS_SUM,
    TCP,
    UDP,
    four,
    left,
    six,
    tcp,
    udp,
)
from tests.unit.net.wired import hardware

HEADERS = st.builds(
    lambda *fields: struct.pack("<BBHHHH", *fields),
    st.integers(0, 3), st.sampled_from([0, 1, 3, 4, 5, 0x81]), st.integers(0, 200),
    st.integers(0, 3000), st.integers(0, 200), st.integers(0, 40),
)  # fmt: skip
PACKETS = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([
        four(tcp(3000, ENDS4), TCP)[24:], six(tcp(3000, ENDS6), TCP)[24:],
        four(udp(50, ENDS4), UDP)[24:], four(tcp(100, ENDS4), TCP, fragment=MORE)[24:],
        six(b"x" * 30, FRAGMENT)[24:],
    ]),
)  # fmt: skip
KINDS = st.sampled_from([0x800, 0x86DD, 0x806, 0x8100, 9])


@pytest.mark.parametrize("frame", [
    four(b"x"),
    four(tcp(100, ENDS4), TCP, left=left(20, 16)),
    four(udp(100, ENDS4, sum_is_left=True), UDP, left=left(20, 6)),
    four(tcp(9000, ENDS4), TCP, left=left(20, 16, GSO_TCP4, 1400, 54)),
    six(tcp(9000, ENDS6), TCP, left=left(40, 16, GSO_TCP6, 1400, 74)),
    four(b"x", left=b"\x02" + bytes(9)),
])  # fmt: skip
def test_what_is_right_stays(frame: bytes) -> None:
    assert checked(frame) is frame


@pytest.mark.parametrize("frame", [
    four(tcp(100, ENDS4), TCP, left=left(20, 16)),
    four(tcp(9000, ENDS4), TCP, left=left(20, 16, GSO_TCP4, 1400, 54)),
    six(tcp(9000, ENDS6), TCP, left=left(40, 16, GSO_TCP6, 1400, 74)),
])  # fmt: skip
@pytest.mark.parametrize("number", [0, 5])
def test_tag_before_it_stays_and_whoever_does_the_rest_counts_it(frame: bytes, number: int) -> None:
    tag = b"\x81\0" + number.to_bytes(2)
    whole = tagged(frame, tag)
    assert whole is not None and checked(whole) is whole

    size = ethernet.link_size(whole, vnet.SIZE)
    expected = list(finished(frame, ethernet.HEADER_SIZE, cuts=True))
    made = list(finished(whole, size, cuts=True))
    assert made == [tagged(each, tag) for each in expected]


def test_size_of_headers_is_made_right() -> None:
    frame = four(tcp(9000, ENDS4), TCP, left=left(20, 16, GSO_TCP4, 1400, 9))

    assert checked(frame) == four(tcp(9000, ENDS4), TCP, left=left(20, 16, GSO_TCP4, 1400, 54))


@pytest.mark.parametrize("header", [
    left(24, 16), left(20, 2000), left(20, 6, GSO_TCP4, 1400), left(20, 16, GSO_UDP, 1400),
    struct.pack("<BBHHHH", 0, GSO_TCP4, 54, 1400, 0, 0),
])  # fmt: skip
def test_what_is_of_another_packet_is_refused(header: bytes) -> None:
    whole = four(tcp(100, ENDS4), TCP, fragment=MORE if header[1] == GSO_UDP else 0, left=header)
    expected = None if header != left(24, 16) else whole

    assert checked(whole) == expected


@given(HEADERS, KINDS, PACKETS, st.booleans())
def test_whoever_does_the_rest_meets_nothing_odd(
    header: bytes, kind: int, packet: bytes, cuts: bool
) -> None:
    whole = header + ethernet.build(hardware(1), hardware(2), kind) + packet
    frame = checked(whole)

    if frame is not None:
        made = list(finished(frame, ethernet.link_size(frame, vnet.SIZE), cuts=cuts))
        assert all(len(each) >= vnet.SIZE for each in made)
        assert not cuts or not any(each[0] & NEEDS_SUM and not each[1] for each in made)
