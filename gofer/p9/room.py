"""How many changes a file system certainly has room for, by what statfs(2) says of it."""

from __future__ import annotations

from typing import Final

BLOCKS_EACH: Final = 2
"""A name may need a block in its directory, and what it names one, too."""
RESERVE: Final = 100
"""One part of so many stays free: others write, too."""
MOST: Final = 1 << 32


def room_for(blocks: int, available: int, files: int, files_free: int) -> int:
    """Changes, at most `MOST`. `blocks`, `files`: 0 where there is no bound."""
    room = MOST
    if blocks:
        room = min(room, (available - blocks // RESERVE) // BLOCKS_EACH)
    if files:
        room = min(room, files_free - files // RESERVE)
    return max(room, 0)
