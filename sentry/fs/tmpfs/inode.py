"""Inodes of file systems in memory: what all kinds have, symbolic links and special files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sentry.abi.fcntl import FS_NOATIME_FL
from sentry.abi.xattr import XATTR_CREATE, XATTR_REPLACE
from sentry.ahead import mypyc_attr
from sentry.auth.acl import ACCESS, DEFAULT, NAMES, inherited, is_mode, with_mode
from sentry.errors import EEXIST, EFBIG, EINVAL, ENODATA, ENOSPC
from sentry.vfs.interface import Attributes, Changes, Inode, Owner

if TYPE_CHECKING:
    from sentry.fs.tmpfs.filesystem import TmpFs

CAPABILITY: Final = b"security.capability"
DAY_NS: Final = 86_400 * 10**9
SHORT_LINK: Final = 128
"""Bytes of a symbolic link, with its NUL, that lie in the inode: SHORT_SYMLINK_LEN."""
XATTR_TOTAL: Final = 64 << 10
"""Bytes of extended attributes that one inode may hold."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TmpInode(Inode):
    """A file in memory: attributes, times, extended attributes."""

    __slots__ = (
        "atime_ns", "btime_ns", "ctime_ns", "file_flags", "known", "mtime_ns", "nlink", "sb",
        "xattrs",
    )  # fmt: skip

    def __init__(self, fs: TmpFs, mode: int, owner: Owner) -> None:
        super().__init__(fs, fs.new_ino(), mode, owner)
        self.sb = fs
        self.nlink = 1
        self.file_flags = 0  # type: ignore[misc]
        self.xattrs: dict[bytes, bytes] | None = None
        self.known: Attributes | None = None
        """The attributes as they were last asked for."""
        self.atime_ns = self.mtime_ns = self.ctime_ns = self.btime_ns = fs.now_ns()
        fs.inodes += 1
        fs.budget.inodes += 1

    def __del__(self) -> None:
        budget = self.sb.budget
        self.sb.inodes -= 1
        budget.inodes -= 1
        if self.xattrs:
            budget.small_bytes -= sum(len(k) + len(v) for k, v in self.xattrs.items())

    # --- attributes

    def size_of(self) -> tuple[int, int]:
        """Size in bytes, and in blocks of 512."""
        return 0, 0

    def stat(self) -> Attributes:
        """Everything is in memory."""
        size, blocks = self.size_of()
        now = (
            self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, size, blocks, 4096,
            self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns, None,
        )  # fmt: skip
        known = self.known
        if known is not None and known.__eq__(now):  # `==` would make mypy think it is `now`
            return known
        self.known = known = Attributes._make(now)
        return known

    def setattr(self, changes: Changes) -> None:
        """Take the changes."""
        if changes.size is not None:
            self.resize(changes.size)
        now = self.fs.now_ns()
        if changes.mode is not None:
            self.mode = self.mode & ~0o7777 | changes.mode
            if self.acl is not None:
                self.setxattr(ACCESS, with_mode(self.acl, changes.mode), 0)
        if changes.uid is not None:
            self.uid = changes.uid
        if changes.gid is not None:
            self.gid = changes.gid
        if changes.atime_ns is not None:
            self.atime_ns = now if changes.times_now else changes.atime_ns
        if changes.mtime_ns is not None:
            self.mtime_ns = now if changes.times_now else changes.mtime_ns
        self.ctime_ns = now

    def resize(self, size: int) -> None:
        """truncate(2)."""
        raise EINVAL("not a regular file")

    def accessed(self) -> None:
        """relatime: only what says something new, or is a day old."""
        if self.file_flags & FS_NOATIME_FL:
            return
        now, atime = self.fs.now_ns(), self.atime_ns
        if atime <= self.mtime_ns or atime <= self.ctime_ns or now - atime >= DAY_NS:
            self.atime_ns = now

    def touched(self) -> None:
        """The content changed."""
        self.mtime_ns = self.ctime_ns = self.fs.now_ns()

    def set_file_flags(self, flags: int) -> None:
        """Take them."""
        self.file_flags = flags  # type: ignore[misc]
        self.ctime_ns = self.fs.now_ns()

    # --- extended attributes

    def getxattr(self, name: bytes) -> bytes:
        """The value."""
        value = (self.xattrs or {}).get(name)
        if value is None:
            raise ENODATA(f"{name!r}")
        return value

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        """Set it."""
        held = self.xattrs if self.xattrs is not None else {}
        if flags & XATTR_CREATE and name in held:
            raise EEXIST(f"{name!r}")
        if flags & XATTR_REPLACE and name not in held:
            raise ENODATA(f"{name!r}")
        others = sum(len(k) + len(v) for k, v in held.items() if k != name)
        if others + len(name) + len(value) > XATTR_TOTAL:
            raise ENOSPC("too many extended attributes")
        old = held.get(name)
        more = len(name) + len(value) - (len(name) + len(old) if old is not None else 0)
        self.sb.budget.check_small(more)
        self.sb.budget.small_bytes += more
        held[name] = value
        self.xattrs = held
        if name == ACCESS:
            self.acl = value
        self.ctime_ns = self.fs.now_ns()

    def listxattr(self) -> Sequence[bytes]:
        """All names, those of lists first: simple_xattr_list()."""
        held = self.xattrs or {}
        lists = [name for name in NAMES if name in held]
        return (*lists, *(name for name in held if name not in NAMES))

    def removexattr(self, name: bytes) -> None:
        """Remove it."""
        if not self.xattrs or name not in self.xattrs:
            raise ENODATA(f"{name!r}")
        self.sb.budget.small_bytes -= len(name) + len(self.xattrs.pop(name))
        if name == ACCESS:
            self.acl = None
        self.ctime_ns = self.fs.now_ns()

    def default_acl(self) -> bytes | None:
        """Of a directory."""
        return None if self.xattrs is None else self.xattrs.get(DEFAULT)

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        """simple_set_acl()."""
        if value and not (name == ACCESS and is_mode(value)):
            self.setxattr(name, value, 0)
        elif self.xattrs and name in self.xattrs:
            self.removexattr(name)
        if mode is not None:
            self.mode = self.mode & ~0o7777 | mode
        self.ctime_ns = self.fs.now_ns()

    def inherit(self, default: bytes | None) -> None:
        """It is made in a directory with this default list: simple_acl_create(). Raises: ENOSPC."""
        if default is None:
            return
        access, self.mode = inherited(default, self.mode)
        if access:
            self.setxattr(ACCESS, access, 0)
        if self.is_dir:
            self.setxattr(DEFAULT, default, 0)

    def drop_file_caps(self) -> None:
        """Take them away, if there are any."""
        if self.xattrs and CAPABILITY in self.xattrs:
            self.removexattr(CAPABILITY)


class TmpLink(TmpInode):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, fs: TmpFs, target: bytes, owner: Owner) -> None:
        super().__init__(fs, 0o120777, owner)
        self.target = target
        fs.budget.small_bytes += len(target)
        fs.pages += self.pages

    def __del__(self) -> None:
        self.sb.budget.small_bytes -= len(self.target)
        self.sb.pages -= self.pages
        super().__del__()

    @property
    def pages(self) -> int:
        """What it counts in the file system."""
        return int(len(self.target) >= SHORT_LINK)

    def size_of(self) -> tuple[int, int]:
        """The length of the text."""
        return len(self.target), self.pages * 8

    def readlink(self) -> bytes:
        """The text."""
        return self.target


class TmpSpecial(TmpInode):
    """A FIFO, a socket or a device."""

    __slots__ = ()

    def __init__(self, fs: TmpFs, mode: int, rdev: int, owner: Owner) -> None:
        super().__init__(fs, mode, owner)
        self.rdev = rdev


def check_size(size: int) -> None:
    """Raises: EFBIG beyond the largest offset."""
    if size > (1 << 63) - 1:
        raise EFBIG(f"{size}")


