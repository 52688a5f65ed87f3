"""Blocks of LZ4, against another implementation, in pieces of any size; and what is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.platform import lz4
from sentry.platform.lz4 import Lz4
from tests.unit.fs.erofs.lz4 import packed, sequence, unpacked

QUICKLY = settings(deadline=None, database=None)


def through(data: bytes, size: int) -> bytes | None:
    """What it unpacks to; None: it is no such block."""
    unpacking = Lz4(data, size)
    try:
        while not unpacking.step():
            continue
    except ValueError:
        return None
    return unpacking.result()


TEXTS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"a", b"ab", b"abc" * 9, bytes(70), b"\0\1"]), max_size=90).map(
        b"".join
    ),
)


@QUICKLY
@given(TEXTS, st.integers(1, 40))
def test_what_was_packed_comes_back_in_pieces_of_any_size(text: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lz4, "PIECE", piece)
        assert through(packed(text), len(text)) == text


@QUICKLY
@given(TEXTS, st.integers(0, 400))
def test_less_may_be_wanted_and_more_is_an_error(text: bytes, size: int) -> None:
    wanted = text[:size] if size <= len(text) else None
    assert through(packed(text), size) == wanted


@QUICKLY
@given(st.binary(max_size=60), st.integers(1, 3000), st.integers(1, 100))
def test_any_bytes_are_taken_or_refused_as_they_should_be(
    data: bytes, size: int, piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lz4, "PIECE", piece)
        assert through(data, size) == unpacked(data, size)


@QUICKLY
@given(TEXTS, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_spoiled_block_is_taken_or_refused_as_it_should_be(
    text: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(packed(text))
    for at, value in changes:
        data[at % len(data)] = value
    assert through(bytes(data), len(text)) == unpacked(bytes(data), len(text))


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 40])
def test_match_repeats_itself(distance: int) -> None:
    seed = bytes(range(distance))
    data = sequence(seed, distance, 1000) + sequence(b"12345")
    assert through(data, distance + 1005) == (seed * 1001)[: distance + 1000] + b"12345"


def test_much_takes_steps() -> None:
    size = 5 * lz4.PIECE + 1
    data = sequence(b"x", 1, size)
    unpacking = Lz4(data, size)
    steps = 1
    while not unpacking.step():
        steps += 1
    assert steps == 6
    assert unpacking.result() == b"x" * size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        sequence(b"abcd", 5, 8),
        sequence(b"abcd", 0, 8)[:5] + b"\0\0",
        b"\xf0" + b"\xff" * 50,
        b"\x1fa\x01",
        b"\x1fa\x01\x00" + b"\xff" * 9,
    ],
    ids=["nothing", "too far back", "no distance", "endless literals", "cut", "endless match"],
)
def test_what_is_no_block_is_refused(data: bytes) -> None:
    assert through(data, 1 << 12) is None


def test_random_bytes_never_reach_beyond_what_there_is_room_for() -> None:
    chance = random.Random(1)
    for _ in range(300):
        data = chance.randbytes(chance.randrange(200))
        size = chance.randrange(1, 5000)
        assert through(data, size) == unpacked(data, size)
