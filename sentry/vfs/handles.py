"""File handles: what name_to_handle_at(2) gives and fanotify(7) tells. fs/fhandle.c.

A handle is an inode number, which means a file as long as that is among the `MOST` that were asked
for, or told, last: the sandbox remembers those, while they have a name or are open.
"""

from __future__ import annotations

import struct
from _weakref import ref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.vfs.dentry import Dentry, DentryCache
    from sentry.vfs.interface import Inode

MOST: Final = 4096
"""Files that are remembered."""
KIND: Final = 1
"""handle_type: FILEID_INO32_GEN, as tmpfs has it."""
HEADER: Final = struct.Struct("<Ii")
"""struct file_handle: handle_bytes, handle_type."""
HANDLE: Final = struct.Struct("<IQ")
"""Generation, which stays 0, and inode number."""


def handle_of(inode: Inode) -> bytes:
    """struct file_handle."""
    return HEADER.pack(HANDLE.size, KIND) + HANDLE.pack(0, inode.ino)


def remember(cache: DentryCache, dentry: Dentry) -> None:
    """Its handle has been given to somebody."""
    files = cache.handles
    key = dentry.inode.fs.dev, dentry.inode.ino
    files[key] = ref(dentry) if dentry.inode.has_gone() else dentry
    files.move_to_end(key)
    if len(files) > MOST:
        files.popitem(last=False)


def remembered(cache: DentryCache, dev: int, ino: int) -> Dentry | None:
    """Whose handle has been given out."""
    held = cache.handles.get((dev, ino))
    return held() if isinstance(held, ref) else held
