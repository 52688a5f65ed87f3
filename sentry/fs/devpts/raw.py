"""The settings of a host's terminal that is the wire behind one of ours: cfmakeraw(3)."""

from __future__ import annotations

import termios
from typing import Any


def raw(settings: list[Any]) -> list[Any]:
    """What tcgetattr gives, changed such that all that is typed comes through as it is."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, keys = settings
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
        | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    keys = list(keys)
    keys[termios.VMIN], keys[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, keys]
