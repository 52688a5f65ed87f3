"""The codec: what is encoded decodes to the same, and nothing else decodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gofer.p9 import codec
from gofer.p9.codec import MESSAGES, Message
from gofer.p9.extensions import Rwalkx
from gofer.p9.fields import U8, ProtocolError
from gofer.p9.messages import Tlcreate, Tread, Tversion, Twalk
from tests.unit.gofer.p9.strategies import messages


@given(messages(), st.integers(0, 0xFFFF))
def test_decode_of_encoded_message_gives_it_back(message: Message, tag: int) -> None:
    frame = message.encode(tag)
    assert int.from_bytes(frame[:4], "little") == len(frame)
    assert codec.decode(frame, 0, len(frame)) == (tag, message)


@given(messages(), st.data())
def test_decode_of_truncated_message_is_refused(message: Message, data: st.DataObject) -> None:
    frame = message.encode(1)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(ProtocolError):
        codec.decode(frame[:cut], 0, cut)


@given(messages(), st.binary(min_size=1, max_size=8))
def test_decode_with_bytes_after_the_end_is_refused(message: Message, extra: bytes) -> None:
    frame = message.encode(1) + extra
    with pytest.raises(ProtocolError):
        codec.decode(frame, 0, len(frame))


@given(st.binary(max_size=400))
def test_decode_of_any_bytes_gives_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        _, message = codec.decode(data, 0, len(data))
    except ProtocolError:
        return
    assert message.encode(0)[7:] == data[7:]


@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=400))
def test_decode_of_any_body_gives_a_message_or_a_protocol_error(kind: int, body: bytes) -> None:
    frame = b"\0\0\0\0" + bytes([kind]) + b"\0\0" + body
    try:
        _, message = codec.decode(frame, 0, len(frame))
    except ProtocolError:
        return
    assert message.encode(0)[7:] == body


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (Tversion(8192, b"9P2000.L"), "15000000640100002000000800395032303030 2e4c"),
        (Twalk(1, 2, [b"usr", b"lib"]), "1b0000006e010001000000020000000200030075737203006c6962"),
        (Tread(3, 4, 5), "17000000740100030000000400000000000000 05000000"),
        (
            Tlcreate(1, b"a", 0x41, 0o644, 7),
            "1a0000000e0100010000000100614100 0000a401000007000000",
        ),
    ],
)
def test_encode_of_a_known_message_gives_the_bytes_of_the_protocol(
    message: Message, frame: str
) -> None:
    assert message.encode(1).hex() == frame.replace(" ", "")


def test_decode_of_more_than_16_names_is_refused() -> None:
    frame = Twalk(1, 2, [b"x"] * 17).encode(1)
    with pytest.raises(ProtocolError):
        codec.decode(frame, 0, len(frame))


@pytest.mark.parametrize("message", [Tread(1 << 32, 0, 0), Twalk(-1, 0, [])])
def test_encode_of_a_value_that_does_not_fit_is_refused(message: Message) -> None:
    with pytest.raises(ProtocolError):
        message.encode(1)


def test_encode_of_a_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Twalk(1, 2, [b"x" * 65536]).encode(1)


def test_decode_reads_within_its_frame_only() -> None:
    first, second = Tread(1, 2, 3).encode(1), Tread(4, 5, 6).encode(2)
    both = first + second
    assert codec.decode(both, len(first), len(both)) == (2, Tread(4, 5, 6))
    with pytest.raises(ProtocolError):
        codec.decode(both, 0, len(first) - 1)


def test_messages_are_values() -> None:
    assert Rwalkx(0, 1, b"t", []) == Rwalkx(error=0, opened=1, target=b"t", blocks=[])
    assert Tread(1, 2, 3) != Tread(1, 2, 4)
    assert repr(Tread(1, 2, 3)) == "Tread(fid=1, offset=2, count=3)"


def test_the_class_of_a_message_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are more than a hundred of them, on the way of each start."""
    monkeypatch.setattr(codec, "MESSAGES", {})

    class Some(Message):
        a: U8

    assert codec.message(255)(Some) is Some
    assert {255: Some} == codec.MESSAGES
    assert (Some.__slots__, Some.fields, Some.type) == (("a",), {"a": "U8"}, 255)
    with pytest.raises(AssertionError):
        codec.message(255)(Some)


def test_compile_all_can_be_repeated() -> None:
    codec.compile_all()
    codec.compile_all()
    assert Tread(1, 2, 3).encode(1)
