"""A mark of fanotify(7): which events, and which not. fs/notify/fanotify/fanotify_user.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sentry.abi.fanotify import (
    FAN_ACCESS,
    FAN_ATTRIB,
    FAN_CLOSE_NOWRITE,
    FAN_CLOSE_WRITE,
    FAN_DELETE_SELF,
    FAN_EVENT_ON_CHILD,
    FAN_FS_ERROR,
    FAN_MARK_EVICTABLE,
    FAN_MARK_IGNORE,
    FAN_MARK_IGNORED_MASK,
    FAN_MARK_IGNORED_SURV_MODIFY,
    FAN_MODIFY,
    FAN_MOVE_SELF,
    FAN_ONDIR,
    FAN_OPEN,
    FAN_OPEN_EXEC,
)
from sentry.errors import EEXIST
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.handles import HANDLE, KIND, handle_of
from sentry.vfs.interface import Inode
from sentry.vfs.marks import DIRENT_EVENTS, ON_PARENT
from sentry.vfs.mount import Mount

Holder = Inode | Mount | FileSystem
"""What a mark hangs on."""
IGNORING: Final = FAN_MARK_IGNORE | FAN_MARK_IGNORED_MASK
PATH_EVENTS: Final = (
    FAN_ACCESS | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE | FAN_OPEN | FAN_OPEN_EXEC
)
"""Those for which a file can be opened: FANOTIFY_FD_EVENTS."""
EVENTS: Final = (
    PATH_EVENTS | DIRENT_EVENTS | FAN_ATTRIB | FAN_MOVE_SELF | FAN_DELETE_SELF | FAN_FS_ERROR
)
"""All that can be asked for."""


class FanotifyMark:
    """A group's mark of an inode, a mount or a file system."""

    __slots__ = ("_drop", "fs", "holder", "how", "ignored", "mask")

    def __init__(
        self, drop: Callable[[FanotifyMark], None], holder: Holder, fs: FileSystem
    ) -> None:
        self._drop = drop
        self.holder = holder
        self.fs = fs
        self.mask = 0
        self.ignored = 0
        self.how = 0
        """FAN_MARK_EVICTABLE, FAN_MARK_IGNORE, FAN_MARK_IGNORED_SURV_MODIFY."""

    def unmounted(self) -> None:
        """What it hangs on is gone."""
        self._drop(self)

    @property
    def _ignored_flags(self) -> int:
        """What it ignores, as FAN_MARK_IGNORE says it: fsnotify_ignore_mask()."""
        if self.how & FAN_MARK_IGNORE:
            return self.ignored
        return self.ignored & ~FAN_EVENT_ON_CHILD | FAN_ONDIR | self.mask & FAN_EVENT_ON_CHILD

    def watches_children(self) -> bool:
        """It is about what is in a directory, too."""
        return bool((self.mask | self._ignored_flags) & FAN_EVENT_ON_CHILD)

    def ignores(self, kind: int, on_dir: int) -> int:
        """Events that nobody is to hear of: fsnotify_effective_ignore_mask()."""
        if not self.ignored & EVENTS:
            return 0
        if not on_dir and kind != ON_PARENT:
            return self.ignored & EVENTS
        flags = self._ignored_flags
        return flags & EVENTS if applies(flags, kind, on_dir) else 0

    def add(self, mask: int, how: int) -> None:
        """fanotify_mark_add_to_mask(), fanotify_may_update_existing_mark(). Raises: EEXIST."""
        if how & FAN_MARK_EVICTABLE and not self.how & FAN_MARK_EVICTABLE:
            raise EEXIST("the mark pins its inode")
        if how & FAN_MARK_IGNORED_MASK and self.how & FAN_MARK_IGNORE:
            raise EEXIST("FAN_MARK_IGNORE was used")
        survives = how & FAN_MARK_IGNORED_SURV_MODIFY
        if how & FAN_MARK_IGNORE and not survives and self.how & FAN_MARK_IGNORED_SURV_MODIFY:
            raise EEXIST("what is ignored stays so")
        if how & IGNORING:
            self.ignored |= mask
            self.how |= how & (FAN_MARK_IGNORE | FAN_MARK_IGNORED_SURV_MODIFY)
        else:
            self.mask |= mask
        if not how & FAN_MARK_EVICTABLE:
            self.how &= ~FAN_MARK_EVICTABLE

    def shown(self) -> str:
        """A line of fdinfo: fanotify_fdinfo()."""
        masks = f"mflags:{self.how:x} mask:{self.mask:x} ignored_mask:{self.ignored:x}"
        holder = self.holder
        if isinstance(holder, Mount):
            return f"fanotify mnt_id:{holder.id:x} {masks}\n"
        if isinstance(holder, FileSystem):
            return f"fanotify sdev:{holder.dev:x} {masks}\n"
        raw = handle_of(holder)[-HANDLE.size :].hex()
        handle = f"fhandle-bytes:{HANDLE.size:x} fhandle-type:{KIND:x} f_handle:{raw}"
        return f"fanotify ino:{holder.ino:x} sdev:{self.fs.dev:x} {masks} {handle}\n"


def applies(mask: int, kind: int, on_dir: int) -> bool:
    """fsnotify_mask_applicable()."""
    if on_dir and not mask & FAN_ONDIR:
        return False
    return kind != ON_PARENT or bool(mask & FAN_EVENT_ON_CHILD)
