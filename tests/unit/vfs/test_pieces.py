"""Long transfers: every piece is short, and what is told is what was moved."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.errors import EIO
from sentry.mm.buffers import KernelDest, UserDest
from sentry.vfs.pieces import PIECE, in_pieces, is_long
from sentry.wait.again import NotNow


def long_dest(count: int, segments: int = 1) -> UserDest:
    """User memory, which nobody touches here."""
    memory: Any = None
    part = count // segments
    return UserDest(memory, [(n * part * 2, part) for n in range(segments)], count, count)


def drain(rest: Any) -> Any:
    """The result of a coroutine whose sleeps end at once."""
    woken = None
    while True:
        try:
            rest.send(woken)
        except StopIteration as end:
            return end.value
        woken = True


def test_only_much_memory_of_programs_is_long() -> None:
    assert is_long(long_dest(PIECE + 1))
    assert not is_long(long_dest(PIECE))
    assert not is_long(KernelDest(8 * PIECE))


@pytest.mark.parametrize("segments", [1, 1024])
def test_pieces_are_bounded_and_cover_everything(segments: int) -> None:
    asked: list[tuple[int, int]] = []
    dest = long_dest(4 * PIECE, segments)

    def move(part: Any, at: int) -> int:
        asked.append((at, part.count))
        assert sum(length for _, length in part.segments) == part.count
        return int(part.count)

    assert drain(in_pieces(move, dest, 100)) == 4 * PIECE
    assert asked == [(100 + n * PIECE, PIECE) for n in range(4)]
    assert not dest.count


def test_a_short_piece_is_the_last() -> None:
    moves = iter([PIECE, 10])
    assert drain(in_pieces(lambda part, at: next(moves), long_dest(4 * PIECE), 0)) == PIECE + 10


def test_an_error_counts_only_before_the_first_byte() -> None:
    def fail(part: Any, at: int) -> int:
        if at >= PIECE:
            raise EIO("later")
        return int(part.count)

    assert drain(in_pieces(fail, long_dest(2 * PIECE), 0)) == PIECE
    with pytest.raises(EIO):
        drain(in_pieces(fail, long_dest(2 * PIECE), PIECE))


def test_a_piece_that_has_to_wait_is_made_again_as_a_whole() -> None:
    tries: list[int] = []

    async def nothing() -> None:
        """There is no need to wait long."""

    def move(part: Any, at: int) -> int:
        tries.append(at)
        if len(tries) == 2:
            part.skip(7)
            raise NotNow(nothing)
        return int(part.count)

    assert drain(in_pieces(move, long_dest(2 * PIECE), 0)) == 2 * PIECE
    assert tries == [0, PIECE, PIECE]
