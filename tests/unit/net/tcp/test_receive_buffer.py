"""What arrives out of turn, twice and in parts is the stream in the end."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.tcp.receive_buffer import MAX_EARLY, ReceiveBuffer, owned

LENGTH = 200
PIECE = st.tuples(st.integers(0, LENGTH - 1), st.integers(1, 4) | st.integers(1, 60))


@given(st.lists(PIECE, max_size=40), st.integers(0, 30))
def test_pieces_in_any_order_are_the_stream(pieces: list[tuple[int, int]], read: int) -> None:
    stream = random.Random(3).randbytes(LENGTH)
    made, there, got = ReceiveBuffer(0), set[int](), b""
    for start, size in pieces:
        end = min(start + size, LENGTH)
        payload = memoryview(stream)[start:end]
        there |= set(range(start, end))
        if end <= made.next:
            continue
        if start > made.next:
            assert made.insert(start, payload)
        else:
            made.append(payload[made.next - start :])
        expected = next((at for at in range(LENGTH + 1) if at not in there), LENGTH)
        assert made.next == expected
        got += b"".join(made.take(read))
        early = {at for block in made.sacks() for at in range(*block)}
        assert early <= there and not early & set(range(expected))
        assert made.early.total == len({at for at in there if at > expected})
    got += b"".join(made.take(LENGTH))
    assert got == stream[: made.next] and made.queued == 0 and made.read == made.next


def test_piece_may_cover_several_that_came_early() -> None:
    made = ReceiveBuffer(0)
    for at in (10, 14, 18):
        made.insert(at, memoryview(b"xy"))
    made.append(memoryview(bytes(17)))

    assert (made.next, made.sacks()) == (17, [(18, 20)])
    made.append(memoryview(b"."))
    assert b"".join(made.take(100)) == bytes(17) + b".xy"


def test_last_change_is_told_first() -> None:
    made = ReceiveBuffer(0)
    for at in (10, 30, 50, 70, 90, 30):
        made.insert(at, memoryview(b"12345"))

    assert made.sacks() == [(30, 35), (90, 95), (70, 75), (50, 55)]


def test_number_of_early_pieces_is_bounded() -> None:
    made = ReceiveBuffer(0)
    taken = sum(made.insert(at, memoryview(b"x")) for at in range(2, 4 * MAX_EARLY, 2))

    assert taken == MAX_EARLY
    assert made.insert(2, memoryview(bytes(5000)))  # it takes the place of all of them
    assert len(made.early) == 1


def test_peek_leaves_what_it_tells() -> None:
    made = ReceiveBuffer(0)
    made.append(memoryview(b"small"))
    made.append(memoryview(bytes(4000)))

    assert b"".join(made.peek(6, 3)) == b"ll" + bytes(4)
    assert made.queued == 4005
    assert b"".join(made.take(5)) == b"small"


def test_peek_stays_true_when_more_comes() -> None:
    made = ReceiveBuffer(0)
    made.append(memoryview(b"one"))
    peeked = made.peek(10)
    made.append(memoryview(b"two"))

    assert b"".join(peeked) == b"one"
    assert b"".join(made.take(10)) == b"onetwo"


def test_small_piece_does_not_hold_a_large_packet() -> None:
    packet = bytes(60_000)

    assert memoryview(owned(memoryview(packet)[:10_000]).obj).nbytes == 10_000
    assert owned(memoryview(packet)[100:]).obj is packet


def test_clear_forgets_all() -> None:
    made = ReceiveBuffer(0)
    made.append(memoryview(b"abc"))
    made.insert(10, memoryview(b"def"))
    made.clear()

    assert (made.queued, made.sacks(), made.take(10), made.read) == (0, [], [], 3)


def test_rest_of_a_piece_holds_little_more_than_itself() -> None:
    made = ReceiveBuffer(0)
    whole = bytes(range(256)) * 400
    made.append(memoryview(whole))
    got = b""
    while made.queued:
        got += b"".join(made.take(3000))
        for piece in made.peek(1 << 20):
            assert memoryview(piece.obj).nbytes <= 2 * len(piece)
    assert got == whole
