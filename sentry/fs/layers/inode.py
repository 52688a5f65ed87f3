"""`LayeredInode`: a file of the merged tree. See README.md for what `upper` and `lowers` mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.fcntl import O_ACCMODE, O_RDONLY, O_WRONLY
from sentry.auth.permissions import MAY_READ, MAY_WRITE, check_chown, owner_or_capable
from sentry.errors import EPERM
from sentry.fs.layers.copyup import copied_up
from sentry.fs.layers.file import LayeredFile
from sentry.fs.layers.search import numbered
from sentry.vfs.interface import Attributes, Changes, Inode, Owner
from sentry.wait.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.fs.layers.directory import LayeredDirectory
    from sentry.fs.layers.filesystem import LayersFs
    from sentry.fs.layers.search import Found
    from sentry.fs.layers.stack import Stack
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location


class LayeredInode(Inode):
    """A file of any kind."""

    __slots__ = (
        "_dev", "copying", "gone", "lowers", "name", "parent", "sb", "upper",
    )  # fmt: skip

    def __init__(
        self, fs: LayersFs, found: Found, parent: LayeredDirectory | None, name: bytes
    ) -> None:
        self.upper = found.upper
        self.lowers = found.lowers
        base = self.base
        ino, self._dev = fs.stack.number(*numbered(found), is_dir=base.is_dir)
        told = base.known_attributes() or base
        mode = base.kind | told.mode & 0o7777
        super().__init__(fs, ino, mode, Owner(told.uid, told.gid))
        self.sb = fs
        self.rdev, self.acl = base.rdev, base.acl
        self.parent = parent
        self.name = name
        """Where a copy of it is put."""
        self.gone = False
        """That name was removed, and it had no other that is known."""
        self.copying = Lock()

    def __del__(self) -> None:
        self.sb.forget(self)
        if self.parent is not None:
            self.parent.forget(self.name, self)

    @property
    def base(self) -> Inode:
        """The file that is seen."""
        return self.upper if self.upper is not None else self.lowers[0][1]

    @property
    def stack(self) -> Stack:
        """Of its file system."""
        return self.sb.stack

    def copied(self) -> Inode:
        """Its file in the upper layer. Raises: NotNow, and as `copied_up`."""
        return copied_up(self)

    def copied_to(self, upper: Inode) -> None:
        """There is one from now on."""
        self.upper = upper
        self.acl = upper.acl
        self.sb.know(upper, self)

    def renumber(self) -> None:
        """It is one of several names no longer, but a file of its own."""
        upper = self.base
        self.ino, self._dev = self.sb.stack.number(upper.fs, upper.ino, is_dir=False)

    def _take(self, upper: Inode) -> None:
        self.mode, self.uid, self.gid = upper.mode, upper.uid, upper.gid
        self.acl = upper.acl

    # --- attributes

    @property
    def file_flags(self) -> int:  # type: ignore[override]
        """Immutable and append-only files are that here, too."""
        return self.base.file_flags

    def _shown(self, base: Attributes) -> Attributes:
        nlink = 1 if self.is_merged else base.nlink
        self.mode, self.uid, self.gid = self.kind | base.mode & 0o7777, base.uid, base.gid
        return base._replace(ino=self.ino, dev=self._dev, mode=self.mode, nlink=nlink)

    @property
    def is_merged(self) -> bool:
        """A directory of several layers, of which Linux does not count the links."""
        return self.is_dir and len(self.lowers) + (self.upper is not None) > 1

    def stat(self) -> Attributes:
        """Of the upper file, or the lower one."""
        return self._shown(self.base.stat())

    def known_attributes(self) -> Attributes | None:
        """The same, if nobody need be asked."""
        base = self.base.known_attributes()
        return self._shown(base) if base is not None else None

    def has_gone(self) -> bool:
        """Of a lower file that was removed nobody need know the attributes."""
        return self.gone or super().has_gone()

    def setattr(self, changes: Changes) -> None:
        """Copy up, then change; a truncation copies no more than stays."""
        upper = copied_up(self, changes.size)
        self._check_setattr(upper, changes)
        upper.setattr(changes)
        self._take(upper)

    def _check_setattr(self, upper: Inode, changes: Changes) -> None:
        """Whoever has mounted the overlay may do that, too: setattr_prepare()."""
        creds = self.sb.stack.creds
        if changes.uid is not None or changes.gid is not None:
            check_chown(creds, (upper.uid, upper.gid), changes.uid, changes.gid)
        times = changes.atime_ns is not None or changes.mtime_ns is not None
        owns = changes.mode is not None or (times and not changes.times_now)
        if owns and not owner_or_capable(creds, upper.uid):
            raise EPERM("of somebody else's file")
        if changes.size is not None:
            self.sb.stack.check(upper, MAY_WRITE)

    def access_acl(self) -> bytes | None:
        """Of the upper file, or the lower one."""
        self.acl = self.base.access_acl()
        return self.acl

    def default_acl(self) -> bytes | None:
        """The same."""
        return self.base.default_acl()

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        """Copy up, then set it."""
        upper = copied_up(self)
        self._check_setattr(upper, Changes(mode=mode if mode is not None else upper.mode & 0o7777))
        upper.set_acl(name, value, mode)
        self._take(upper)

    def accessed(self) -> None:
        """Lower layers keep their times."""
        if self.upper is not None:
            self.upper.accessed()

    def touched(self) -> None:
        """The content changed."""
        if self.upper is not None:
            self.upper.touched()

    # --- links

    @property
    def link_is_known(self) -> bool:  # type: ignore[override]
        """As it is there."""
        return self.base.link_is_known

    def readlink(self) -> bytes:
        """The text of a link."""
        return self.base.readlink()

    # --- extended attributes

    def getxattr(self, name: bytes) -> bytes:
        """The value."""
        return self.base.getxattr(self.sb.stack.stored(name))

    def listxattr(self) -> Sequence[bytes]:
        """All names but the overlay's own."""
        stack = self.sb.stack
        return [stack.told(name) for name in self.base.listxattr() if not stack.is_own(name)]

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        """Copy up and set it."""
        self._check_may_mark(name)
        copied_up(self).setxattr(self.sb.stack.stored(name), value, flags)

    def removexattr(self, name: bytes) -> None:
        """Copy up and remove it."""
        self._check_may_mark(name)
        if self.upper is None:
            self.getxattr(name)
        copied_up(self).removexattr(self.sb.stack.stored(name))

    def _check_may_mark(self, name: bytes) -> None:
        if not self.sb.stack.may_mark(name):
            raise EPERM("of who has mounted the overlay")

    def drop_file_caps(self) -> None:
        """What is not copied up has kept its owner and its bytes."""
        if self.upper is not None:
            self.upper.drop_file_caps()

    # --- opening

    def before_truncation(self) -> None:
        """Nothing of what it holds is copied."""
        copied_up(self, 0)

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """A regular file, which follows a copy-up; one that may be written to is copied up now."""
        access = flags & O_ACCMODE
        stack = self.sb.stack
        if access != O_WRONLY:
            stack.check(self.base, MAY_READ)
        if access != O_RDONLY:
            stack.check(copied_up(self), MAY_WRITE)
        file = LayeredFile(location, flags, self)
        file.open_real()
        return file
