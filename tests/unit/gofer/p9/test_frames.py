"""Frames out of a stream, however it was cut."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gofer.p9.codec import Message
from gofer.p9.constants import MSIZE_MAX
from gofer.p9.fields import ProtocolError
from gofer.p9.frames import FrameReader
from gofer.p9.messages import Tread
from tests.unit.gofer.p9.strategies import messages


@given(st.lists(messages(), max_size=5), st.lists(st.integers(1, 50), max_size=200))
def test_feed_in_any_pieces_gives_all_messages_in_order(
    sent: list[Message], cuts: list[int]
) -> None:
    stream = b"".join(message.encode(tag) for tag, message in enumerate(sent))
    reader = FrameReader(MSIZE_MAX)
    got: list[tuple[int, Message]] = []
    for size in [*cuts, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        if piece:
            got += reader.feed(piece)
    assert got == list(enumerate(sent))
    assert reader.pending == 0


@pytest.mark.parametrize("size", [0, 6, 4097, 0xFFFFFFFF])
def test_feed_of_an_impossible_size_is_refused_before_the_frame_is_complete(size: int) -> None:
    with pytest.raises(ProtocolError):
        FrameReader(4096).feed(size.to_bytes(4, "little") + b"\x74\0\0")


def test_feed_of_single_bytes_holds_no_more_than_they_are() -> None:
    reader = FrameReader(1 << 20)
    frame = ((1 << 18) + 7).to_bytes(4, "little") + b"\x74\0\0" + bytes(1 << 18)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for at in range(len(frame) - 1):
        reader.feed(frame[at : at + 1])
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2 * len(frame)


def test_feed_of_a_partial_frame_waits() -> None:
    reader = FrameReader(4096)
    frame = Tread(1, 2, 3).encode(9)
    assert reader.feed(frame[:3]) == []
    assert reader.feed(frame[3:-1]) == []
    assert reader.feed(frame[-1:]) == [(9, Tread(1, 2, 3))]
