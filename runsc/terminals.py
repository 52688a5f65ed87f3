"""What a program has shown at a terminal, for who has the other side of it."""

from __future__ import annotations

import os


def shown(master: int, size: int) -> bytes:
    """read(2) of a pseudo-terminal's master, or of a pipe; nothing at the end. Raises:
    BlockingIOError.

    EIO, which is a terminal's end, is believed when it comes twice: Linux looks for output, and
    then whether the other side is closed (n_tty_read(), drivers/tty/n_tty.c), so what was written
    between these two is there only for who reads again.
    """
    for _ in range(2):
        try:
            return os.read(master, size)
        except BlockingIOError:
            raise
        except OSError:
            continue
    return b""
