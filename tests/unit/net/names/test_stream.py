"""Messages over a stream, however its bytes come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.names.stream import MAX_HELD, Messages, framed


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 700))
def test_messages_come_out_as_they_went_in(messages: list[bytes], piece: int) -> None:
    stream = b"".join(map(framed, messages))
    reader, found = Messages(), []
    for at in range(0, len(stream), piece):
        reader.feed(stream[at : at + piece])
        while (message := reader.next()) is not None:
            found.append(message)

    assert found == messages
    assert reader.room == MAX_HELD


def test_largest_message_has_room() -> None:
    reader = Messages()
    largest = framed(bytes(65535))
    reader.feed(largest[:-1])
    assert (reader.next(), reader.room) == (None, 1)
    reader.feed(largest[-1:])
    assert reader.next() == bytes(65535)
