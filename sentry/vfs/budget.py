"""`Budget`: what the files of a sandbox may cost the Sentry itself, all file systems together.

Bytes of files lie in RAM frames and count against the memory limit. What is counted here are the
objects around them, which a program can make in any number if nobody says stop.
"""

from __future__ import annotations

from typing import Final

from sentry.errors import ENFILE, ENOLCK, ENOSPC

MAX_INODES: Final = 524_288
"""Inodes in memory of all tmpfs and overlays (about 1 KiB each)."""
MAX_SMALL_BYTES: Final = 64 << 20
"""Texts of symbolic links and extended attributes."""
MAX_ANONYMOUS: Final = 100_000
"""Files without a name (pipes, sockets, eventfds…) that are open; Linux's fs.file-max."""
MAX_LOCKS: Final = 262_144
"""Record locks."""
MAX_MOUNTS: Final = 20_000
"""Mounts of all namespaces."""


class Budget:
    """The counts."""

    __slots__ = ("anonymous", "inodes", "locks", "mounts", "small_bytes")

    def __init__(self) -> None:
        self.anonymous = self.inodes = self.locks = self.mounts = self.small_bytes = 0

    def check_inode(self) -> None:
        """One more inode in memory. Raises: ENOSPC."""
        if self.inodes >= MAX_INODES or self.small_bytes >= MAX_SMALL_BYTES:
            raise ENOSPC("the ceiling of inodes in memory")

    def check_small(self, more: int) -> None:
        """So many bytes of attributes. Raises: ENOSPC."""
        if self.small_bytes + more > MAX_SMALL_BYTES:
            raise ENOSPC("the ceiling of extended attributes")

    def check_anonymous(self) -> None:
        """One more file without a name. Raises: ENFILE."""
        if self.anonymous >= MAX_ANONYMOUS:
            raise ENFILE("the ceiling of open files")

    def check_locks(self, more: int) -> None:
        """So many more record locks. Raises: ENOLCK."""
        if more > 0 and self.locks + more > MAX_LOCKS:
            raise ENOLCK("the ceiling of record locks")

    def check_mounts(self, more: int) -> None:
        """So many more mounts. Raises: ENOSPC."""
        if self.mounts + more > MAX_MOUNTS:
            raise ENOSPC("the ceiling of mounts")
