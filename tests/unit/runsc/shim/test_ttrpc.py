"""Frames of ttrpc: cut out of a stream in any pieces, and those that are too long."""

from __future__ import annotations

import pytest

from runsc.shim import messages, ttrpc
from runsc.shim.ttrpc import Frame, Reader
from sentry.protobuf import decode


def test_a_frame_has_length_stream_type_and_flags() -> None:
    assert ttrpc.frame(3, ttrpc.REQUEST, b"ab").hex() == "0000000200000003" "0100" "6162"


@pytest.mark.parametrize("size", [1, 3, 11, 1000])
def test_frames_are_read_in_any_pieces(size: int) -> None:
    stream = ttrpc.frame(1, ttrpc.REQUEST, b"one") + ttrpc.frame(3, ttrpc.REQUEST, b"")
    reader, found = Reader(), []

    for place in range(0, len(stream), size):
        found += reader.feed(stream[place : place + size])

    assert found == [Frame(1, ttrpc.REQUEST, b"one"), Frame(3, ttrpc.REQUEST, b"")]


@pytest.mark.parametrize("size", [1 << 16, 1 << 23])
def test_a_frame_that_is_too_long_is_read_past(size: int) -> None:
    length = ttrpc.MOST + 1
    stream = ttrpc.frame(1, ttrpc.REQUEST, bytes(length)) + ttrpc.frame(3, ttrpc.REQUEST, b"next")
    reader, found = Reader(), []

    for place in range(0, len(stream), size):
        found += reader.feed(stream[place : place + size])

    assert found == [
        Frame(1, ttrpc.REQUEST, b"", length),
        Frame(3, ttrpc.REQUEST, b"next"),
    ]


def test_one_of_the_greatest_length_is_read() -> None:
    [frame] = Reader().feed(ttrpc.frame(1, ttrpc.REQUEST, bytes(ttrpc.MOST)))

    assert len(frame.data) == ttrpc.MOST


def test_an_error_has_a_code_and_a_text() -> None:
    [frame] = Reader().feed(ttrpc.error(5, ttrpc.Code.NOT_FOUND, "none"))

    assert (frame.stream, frame.kind) == (5, ttrpc.RESPONSE)
    assert decode(messages.Response, frame.data).status == messages.Status(5, "none")


def test_an_answer_that_is_too_long_is_an_error() -> None:
    [frame] = Reader().feed(ttrpc.answer(5, messages.Any("x", bytes(ttrpc.MOST))))

    status = decode(messages.Response, frame.data).status
    assert status is not None and status.code == ttrpc.Code.RESOURCE_EXHAUSTED
