"""The standard streams of our own processes."""

from __future__ import annotations

import os


def open_standard_streams() -> None:
    """A caller may have closed 0, 1 or 2; nothing else must land on these numbers."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
