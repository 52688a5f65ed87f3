"""What is to be sent, against a plain string of bytes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.tcp.send_buffer import BLOCK, SMALL, SendBuffer

SIZES = st.integers(1, 40) | st.sampled_from([SMALL - 1, SMALL, BLOCK, BLOCK + 1, 50_000])
STEPS = st.lists(
    st.tuples(st.just("append"), SIZES) | st.tuples(st.just("acknowledge"), st.floats(0, 1)),
    max_size=20,
)


@given(STEPS, st.floats(0, 1), st.floats(0, 1))
def test_as_a_string(steps: list, first: float, last: float) -> None:  # type: ignore[type-arg]
    start = 1000
    made, whole = SendBuffer(start), b""
    kept: list[tuple[bytes, list[memoryview]]] = []
    chance = random.Random(7)
    for kind, what in steps:
        if kind == "append":
            data = chance.randbytes(what)
            made.append(memoryview(data))
            whole += data
        else:
            made.acknowledge(made.start + int(len(made) * what))
        assert made.end == start + len(whole)
        if len(made):
            expected = whole[made.start - start :]
            slices = made.slices(made.start, len(made))
            assert b"".join(slices) == expected
            kept.append((expected, slices))
    for expected, slices in kept:  # what was handed out never changes
        assert b"".join(slices) == expected
    if len(made):
        at = made.start + int(first * (len(made) - 1))
        size = max(int(last * (made.end - at)), 1)
        assert b"".join(made.slices(at, size)) == whole[at - start : at - start + size]


def test_large_write_is_not_copied() -> None:
    made, data = SendBuffer(0), bytes(1 << 20)
    made.append(memoryview(data))

    assert made.slices(5, 1000)[0].obj is data


def test_many_small_writes_are_few_pieces() -> None:
    made = SendBuffer(0)
    for _ in range(5000):
        made.append(memoryview(b"x"))

    assert len(made.slices(0, 5000)) == 1
