"""`ReadAhead`: what an open file has read beyond what it was asked for.

Who reads a file from its start to its end, a little at a time, asks the server for much at a time.
What lies here is what Linux's page cache would show: it holds until the file is known to have
changed (`FuseRegular.version`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentry.fs.fuse.regular import FuseRegular


class ReadAhead:
    """Of one open file."""

    __slots__ = ("_data", "_file", "_offset", "_version", "following")

    def __init__(self, file: FuseRegular) -> None:
        self._file = file
        self._data = b""
        self._offset = self._version = 0
        self.following = 0
        """Where the last read ended."""

    def find(self, offset: int, count: int) -> bytes:
        """What is here of these bytes, from the first on."""
        if not self._data:
            return b""
        if self._version != self._file.version:
            self.drop_ahead()
        at = offset - self._offset
        return self._data[at : at + count] if at >= 0 else b""

    def keep(self, offset: int, data: bytes, version: int) -> None:
        """So much was read; `version` is that of the file when it was asked for."""
        if version != self._file.version:
            return
        self._offset, self._data, self._version = offset, data, version
        self._file.sb.vfs.fuse.keeps(self)

    def drop_ahead(self) -> None:
        """Give the memory back."""
        self._data = b""
        self._file.sb.vfs.fuse.lets_go(self)
