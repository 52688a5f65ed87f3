"""Long reads and writes, piece by piece, with others in between.

A piece is small enough that a step of the kernel thread stays below a millisecond also where the
host has to give memory for every page of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from sentry.errors import Errno
from sentry.mm.buffers import UserBuffer
from sentry.vfs.file import Dest, Source
from sentry.wait.again import again
from sentry.wait.fiber import Interrupted, Mode
from sentry.wait.steps import Pace

Buffer = TypeVar("Buffer", Dest, Source)
PIECE: Final = 256 << 10


def is_long(buffer: Dest | Source) -> bool:
    """Whether it is done in pieces: what others hand over is short already."""
    return buffer.count > PIECE and isinstance(buffer, UserBuffer)


async def in_pieces(
    move: Callable[[Buffer, int], int], buffer: Buffer, at: int, mode: Mode = Mode.KILLABLE
) -> int:
    """Call `move(buffer, offset)` for one piece after the other, up to one that is cut short.

    Raises: what `move` raises, and what the mode allows, if nothing was done before.
    """
    assert isinstance(buffer, UserBuffer)
    pace, done = Pace(), 0

    def next_piece() -> int:
        return move(buffer.part(min(buffer.count, PIECE)), at + done)

    try:
        while buffer.count:
            some = min(buffer.count, PIECE)
            n = await again(next_piece)
            buffer.skip(n)
            done += n
            if n < some:
                break
            await pace.rest(mode)
    except (Errno, Interrupted):
        if not done:
            raise
    return done
