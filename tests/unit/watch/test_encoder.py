"""The flat encoders give what the general one does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.protobuf import Message, decode, encode, fields
from sentry.watch import messages as m
from sentry.watch.encoder import encoder, varint

KINDS = [
    kind
    for kind in vars(m).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]


def _values(kind: type[Message]) -> st.SearchStrategy[Any]:
    made: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields(kind):
        if issubclass(field.kind, Message):
            one: st.SearchStrategy[Any] = st.none() | _values(field.kind)
        elif field.kind is bool:
            one = st.booleans()
        elif field.kind is int:
            low, high = (-(1 << 63), (1 << 63) - 1) if field.signed else (0, (1 << 64) - 1)
            one = st.integers(low, high)
        else:
            one = st.binary(max_size=150) if field.kind is bytes else st.text(max_size=150)
        made[field.name] = st.lists(one, max_size=3) if field.repeated else one
    return st.builds(kind, **made)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_every_message_is_written_as_by_the_general_encoder(kind: Any, data: Any) -> None:
    message = data.draw(_values(kind))
    written = encoder(kind)(message)
    assert written == encode(message)
    assert decode(kind, written) == message


def test_a_field_without_a_number_stays_here() -> None:
    assert encoder(m.Connect)(m.Connect(peer="somebody")) == b""


@given(st.integers(0, (1 << 64) - 1))
def test_a_number_ends_with_its_highest_group(value: int) -> None:
    data = varint(value)
    assert all(byte & 0x80 for byte in data[:-1])
    assert not data[-1] & 0x80
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data)) == value


def test_numbers_of_fields_are_used_once() -> None:
    for kind in KINDS:
        numbers = [field.number for field in fields(kind)]
        assert len(numbers) == len(set(numbers)), kind

