"""`TableFs`: what /proc and /sys have in common as file systems."""

from __future__ import annotations

import zlib

from sentry.errors import EACCES, EPERM, Errno
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import StatFs


class TableFs(FileSystem):
    """A file system of generated files."""

    can_sync = False
    block_size = 4096
    root_ino = 1
    cannot_create: type[Errno] = EPERM
    """What an attempt to make a name gives."""
    cannot_create_file: type[Errno] = EACCES
    """The same by open(2): lookup_open()."""

    @staticmethod
    def child_ino(parent: int, name: bytes) -> int:
        """The inode number of a name: the same whenever the inode is made again."""
        return zlib.crc32(name, parent & 0xFFFFFFFF) | 1 << 32

    def statfs(self) -> StatFs:
        """Nothing is stored."""
        return StatFs(self.magic, 4096, 0, 0, 0, 0)
