"""Rings of frames, over plain bytes: what lies where, and what a program may say in them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.socket import (
    TP_STATUS_AVAILABLE,
    TP_STATUS_LOSING,
    TP_STATUS_SEND_REQUEST,
    TP_STATUS_USER,
    TP_STATUS_VLAN_VALID,
    TP_STATUS_WRONG_FORMAT,
)
from sentry.errors import EINVAL, EMSGSIZE, ENOMEM
from sentry.net.packet_ring import V1, V2, V3, FrameRing, SendRing, Shape, Shown, check, parse

STAMP_NS = 1_700_000_000_123_456_789
ADDRESS = bytes(range(20))
BOTH = pytest.mark.parametrize("version", [V1, V2])
STATUS_AT = {V1: 0, V2: 0, V3: 20}
SIZE_AT = {V1: 8, V2: 4, V3: 16}


class Bytes(bytearray):
    """Memory of a ring."""

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self[offset : offset + count])

    def write(self, offset: int, data: bytes) -> int:
        assert offset + len(data) <= len(self)
        self[offset : offset + len(data)] = data
        return len(data)

    def word(self, offset: int) -> int:
        return int.from_bytes(self[offset : offset + 4], "little")


def shape(version: int, **others: int) -> Shape:
    made = Shape(version, 0, False, 4096, 2, 2048, 4)
    return made._replace(**others)


def shown(data: bytes, link_header: int = 14, tag: tuple[int, int] = (0, 0)) -> Shown:
    return Shown(data, len(data), link_header, ADDRESS, STAMP_NS, tag)


@BOTH
def test_packet_lies_behind_its_header_and_address(version: int) -> None:
    memory = Bytes(8192)
    ring = FrameRing(memory, shape(version))
    assert not ring.is_ready
    assert ring.put(shown(b"l" * 14 + b"data", tag=(0x8100, 5)), is_losing=True)
    assert ring.is_ready and not ring.waits
    status = memory.word(0)
    assert status & TP_STATUS_USER and status & TP_STATUS_LOSING and status & TP_STATUS_VLAN_VALID
    start = 8 if version == V1 else 4
    size, kept, mac, network = struct.unpack_from("<IIHH", memory, start)
    assert (size, kept, network - mac) == (18, 18, 14) and network % 16 == 0
    assert memory[mac : mac + 18] == b"l" * 14 + b"data"
    assert memory[32:52] == ADDRESS
    seconds, rest = struct.unpack_from("<II", memory, start + 12)
    assert (seconds, rest) == (1_700_000_000, 123_456 if version == V1 else 123_456_789)


@BOTH
def test_full_ring_takes_no_more_until_the_first_frame_is_back(version: int) -> None:
    memory = Bytes(8192)
    ring = FrameRing(memory, shape(version))
    assert [ring.put(shown(b"x" * 20), is_losing=False) for _ in range(5)] == [True] * 4 + [False]
    memory[2048] = 0  # the second one is not the next
    assert not ring.put(shown(b"x" * 20), is_losing=False)
    memory[0] = 0
    assert ring.put(shown(b"y" * 20), is_losing=False)
    assert memory.word(0) & TP_STATUS_USER


@pytest.mark.parametrize("size", [3000, 1 << 16])
@pytest.mark.parametrize("reserve", [0, 1800, 2048, 70_000])
def test_what_does_not_fit_is_cut_at_the_end_of_its_frame(size: int, reserve: int) -> None:
    memory = Bytes(8192)
    ring = FrameRing(memory, shape(V2, reserve=reserve))
    taken = ring.put(shown(b"x" * size), is_losing=False)
    assert taken == (reserve < 65_000)
    assert not any(memory[2048:])
    if taken:
        assert memory.word(4) == size and memory.word(8) == max(2048 - (80 + reserve - 14), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"block_size": 0}, {"block_size": 1 << 31}, {"block_size": 4100}, {"frame_size": 2056},
        {"frame_size": 48}, {"frame_size": 8192}, {"frames": 5}, {"reserve": 2000},
        {"version": V3, "private": 4000},
    ],
)  # fmt: skip
def test_shape_that_cannot_be_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(EINVAL):
        check(shape(V2)._replace(**change), 1 << 20, sends=False)


def test_ring_has_a_ceiling_and_its_request_a_size() -> None:
    check(shape(V2), 8192, sends=True)
    with pytest.raises(ENOMEM):
        check(shape(V2), 8191, sends=True)
    with pytest.raises(EINVAL):
        check(shape(V3, timeout_ms=1), 8192, sends=True)
    assert parse(bytes(16), V2) == (0, 0, 0, 0) and len(parse(bytes(28), V3)) == 7
    for version, size in ((V2, 15), (V3, 27)):
        with pytest.raises(EINVAL):
            parse(bytes(size), version)


def requested(
    version: int, size: int, start: int = 4096
) -> tuple[Bytes, Callable[[int], SendRing]]:
    memory = Bytes(3 * 4096)
    struct.pack_into("<I", memory, start + SIZE_AT[version], size)
    struct.pack_into("<I", memory, start + STATUS_AT[version], TP_STATUS_SEND_REQUEST)
    data = start + (48 if version == V3 else 32)
    memory[data : data + 5] = b"hello"
    return memory, lambda at: SendRing(memory, at, shape(version))


@pytest.mark.parametrize("version", [V1, V2, V3])
def test_what_is_to_be_sent_is_taken_in_order(version: int) -> None:
    memory, ring_at = requested(version, 5)
    ring = ring_at(4096)
    assert ring.take(1500, has_offset=False) == b"hello"
    ring.went()
    assert memory.word(4096 + STATUS_AT[version]) == TP_STATUS_AVAILABLE
    assert ring.take(1500, has_offset=False) is None


@pytest.mark.parametrize("version", [V1, V2, V3])
@pytest.mark.parametrize("size", [1501, 2048, 0xFFFFFFFF])
def test_size_that_a_program_invents_reaches_no_further_than_its_frame(
    version: int, size: int
) -> None:
    memory, ring_at = requested(version, size)
    ring = ring_at(4096)
    with pytest.raises(EMSGSIZE):
        ring.take(1500, has_offset=False)
    ring.is_wrong()
    assert memory.word(4096 + STATUS_AT[version]) == TP_STATUS_WRONG_FORMAT


def test_offset_lies_within_the_frame() -> None:
    memory, ring_at = requested(V2, 5)
    ring = ring_at(4096)
    for offset, is_right in ((31, False), (32, True), (2043, True), (2044, False), (65535, False)):
        struct.pack_into("<H", memory, 4096 + 12, offset)
        if is_right:
            assert ring.take(1500, has_offset=True) == memory.read(4096 + offset, 5)
            continue
        with pytest.raises(EINVAL):
            ring.take(1500, has_offset=True)
