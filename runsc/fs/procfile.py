"""`ProcFile`: what a program derives from to serve a file in /proc."""

from __future__ import annotations

import errno
import os
from typing import Any


class ProcFile:
    """A text that is made when it is read. With `AsyncSandbox` both may be coroutine functions."""

    mode = 0o444
    """Its permissions; with 0o200 it can be written."""

    def show(self) -> Any:
        """The text, or bytes, 128 KiB at most."""
        return ""

    def store(self, data: bytes) -> Any:
        """What a write(2) has brought."""
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
