"""`OverlayInode`: a file of the merged tree. See README.md for what `upper` and `lower` mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_WHITEOUT
from sentry.errors import ENOENT, ENOTEMPTY
from sentry.fs.overlay.copyup import copied_up
from sentry.fs.overlay.file import OverlayFile
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.inode import TmpInode, TmpLink, TmpSpecial
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.dirents import Dirents
from sentry.vfs.interface import (
    ABSENT,
    Absent,
    Attributes,
    Changes,
    DirEntry,
    Inode,
    Owner,
)
from sentry.wait.lock import Lock

if TYPE_CHECKING:
    from sentry.fs.overlay.filesystem import OverlayFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location

    Changed = dict[bytes, "OverlayInode | Absent"]


class OverlayInode(Inode):
    """A file of any kind."""

    __slots__ = (
        "_dirents", "above", "called", "changed", "copying", "file_flags",
        "links", "lower", "removed", "sb", "upper",
    )  # fmt: skip

    def __init__(self, fs: OverlayFs, upper: TmpInode | None, lower: Inode | None) -> None:
        base = upper or lower
        assert base is not None
        ino = lower.ino if lower is not None else fs.new_ino()
        super().__init__(fs, ino, base.mode, Owner(base.uid, base.gid))
        self.sb = fs
        self.rdev, self.acl = base.rdev, base.acl
        self.file_flags = base.file_flags  # type: ignore[misc]
        self.upper = upper
        self.lower = lower
        self.above: OverlayInode | None = None
        """The lower directory that it was found in first, whatever its place is now; None: the root
        and what was made here."""
        self.called = b""
        """Its name there."""
        self.changed: Changed | None = None
        """Of a directory: names that differ from the lower one."""
        self.links = 0
        """Links (of a directory: subdirectories) made here, less those removed."""
        self.removed = False
        """A directory that rmdir took away."""
        self.copying = Lock()
        self._dirents: tuple[Dirents | None, Dirents] | None = None
        """What was below, and what came of it, until a name changes."""
        if upper is not None:
            upper.ino = ino

    def __del__(self) -> None:
        if self.lower is not None:
            self.sb.unwrap(self.lower)

    def set_file_flags(self, flags: int) -> None:
        """Copy up, then change."""
        upper = copied_up(self)
        upper.set_file_flags(flags)
        self.file_flags = flags  # type: ignore[misc]

    # --- attributes

    def _shown(self, base: Attributes) -> Attributes:
        # not below none, whatever has become of the lower file, or an image says
        nlink = 0 if self.removed else max(0, base.nlink + self.links)
        if base.nlink == nlink and base.ino == self.ino and base.dev is None:
            return base
        return base._replace(ino=self.ino, nlink=nlink, dev=None)

    def stat(self) -> Attributes:
        """Of the upper inode, or the lower one."""
        return self._shown((self.upper or self._below()).stat())

    def known_attributes(self) -> Attributes | None:
        """The same, if nobody need be asked."""
        base = (self.upper or self._below()).known_attributes()
        return self._shown(base) if base is not None else None

    def has_gone(self) -> bool:
        """Of a lower directory that was removed nobody need know the attributes."""
        return self.removed or super().has_gone()

    def setattr(self, changes: Changes) -> None:
        """Copy up, then change; a truncation copies no more than stays."""
        upper = copied_up(self, changes.size)
        upper.setattr(changes)
        self.mode, self.uid, self.gid = upper.mode, upper.uid, upper.gid
        self.acl = upper.acl

    def access_acl(self) -> bytes | None:
        """Of the upper inode, or the lower one."""
        self.acl = (self.upper or self._below()).access_acl()
        return self.acl

    def default_acl(self) -> bytes | None:
        """The same."""
        return (self.upper or self._below()).default_acl()

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        """Copy up, then set it."""
        upper = copied_up(self)
        upper.set_acl(name, value, mode)
        self.mode, self.acl = upper.mode, upper.acl

    def accessed(self) -> None:
        """The lower tree keeps its times."""
        if self.upper is not None:
            self.upper.accessed()

    def touched(self) -> None:
        """A directory's names changed: a lower one gets attributes of its own for the new times."""
        self._dirents = None
        if self.upper is not None:
            self.upper.touched()

    def _change_names(self) -> Changed:
        if self.removed:
            raise ENOENT("the directory has been removed")
        if self.upper is None:
            copied_up(self, 0)
        if self.changed is None:
            self.changed = {}
        return self.changed

    # --- walking

    def lookup_cached(self, name: bytes) -> OverlayInode | Absent | None:
        """Our own differences first, then the lower directory."""
        if self.changed is not None:
            own = self.changed.get(name)
            if own is not None:
                return own
        if self.lower is None:
            return ABSENT
        found = self.lower.lookup_cached(name)
        if found is None or isinstance(found, Absent):
            return found
        return self.sb.wrap(found, self, name)

    def lookup(self, name: bytes, opens: bool = False) -> OverlayInode | Absent:
        """The same, asked for."""
        known = self.lookup_cached(name)
        if known is not None:
            return known
        found = self._below().lookup(name, opens)
        return found if isinstance(found, Absent) else self.sb.wrap(found, self, name)

    @property
    def link_is_known(self) -> bool:  # type: ignore[override]
        """As it is below."""
        return (self.upper or self._below()).link_is_known

    def readlink(self) -> bytes:
        """The text of a link."""
        return (self.upper or self._below()).readlink()

    def _below(self) -> Inode:
        assert self.lower is not None
        return self.lower

    def entries(self) -> Iterator[DirEntry]:
        """The lower names that still hold, then ours."""
        below = self.lower.entries() if self.lower is not None else ()
        if not self.changed:
            return iter(below)
        return self._merged(below, self.changed, dict.fromkeys(self.changed))

    def _merged(
        self, below: Iterable[DirEntry], now: Changed, then: dict[bytes, None]
    ) -> Iterator[DirEntry]:
        """Of the names of then those that are there now."""
        for entry in below:
            if entry.name not in then and now.get(entry.name) is not ABSENT:
                yield entry
        for name in then:
            inode = now.get(name, ABSENT)
            if not isinstance(inode, Absent):
                yield DirEntry(name, inode.ino, inode.kind)

    @property
    def is_empty(self) -> bool:
        """A directory without names."""
        return next(self.entries(), None) is None

    def dirents(self) -> Dirents:
        """The same."""
        below = self.lower.dirents() if self.lower is not None else None
        if below is not None and not self.changed:
            return below
        known = self._dirents
        if known is None or known[0] is not below:
            known = self._dirents = below, Dirents(self.entries(), names=len(self.changed or ()))
        return known[1]

    # --- names

    def _add(self, name: bytes, upper: TmpInode) -> OverlayInode:
        if not upper.is_symlink:
            upper.inherit(self.default_acl())
        changed = self._change_names()
        inode = OverlayInode(self.sb, upper, None)
        changed[name] = inode
        if inode.is_dir:
            self.links += 1
        self.touched()
        return inode

    def create(self, name: bytes, mode: int, owner: Owner) -> OverlayInode:
        """A regular file in memory."""
        self.sb.upper.check_inodes()
        return self._add(name, TmpFile(self.sb.upper, mode, owner))

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> OverlayInode:
        """A directory in memory; it hides nothing, because nothing of that name is there."""
        self.sb.upper.check_inodes()
        return self._add(name, TmpDirectory(self.sb.upper, mode, owner))

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> OverlayInode:
        """A special file."""
        self.sb.upper.check_inodes()
        return self._add(name, TmpSpecial(self.sb.upper, mode, rdev, owner))

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> OverlayInode:
        """A symbolic link."""
        self.sb.upper.check_inodes()
        self.sb.upper.check_link(target)
        return self._add(name, TmpLink(self.sb.upper, target, owner))

    def tmpfile(self, mode: int, owner: Owner, linkable: bool) -> OverlayInode:
        """O_TMPFILE."""
        if self.removed:
            raise ENOENT("the directory has been removed")
        self.sb.upper.check_inodes()
        upper = TmpFile(self.sb.upper, mode, owner)
        upper.inherit(self.default_acl())
        upper.nlink = 0
        return OverlayInode(self.sb, upper, None)

    def link(self, name: bytes, target: Inode) -> None:
        """One more name; the bytes stay where they are."""
        assert isinstance(target, OverlayInode)
        changed = self._change_names()
        upper = copied_up(target)
        upper.ctime_ns = self.fs.now_ns()
        changed[name] = target
        target.links += 1
        self.touched()

    def _hide(self, changed: Changed, name: bytes) -> None:
        """The name is free from now on."""
        if self.lower is None:
            changed.pop(name, None)
        else:
            changed[name] = ABSENT

    def unlink(self, name: bytes, child: Inode) -> None:
        """Remove a name."""
        assert isinstance(child, OverlayInode)
        changed = self._change_names()
        child.lost_name()
        self._hide(changed, name)
        self.touched()

    def lost_name(self) -> None:
        """One link less."""
        base = self.upper.nlink if self.upper is not None else self._below().stat().nlink
        left = base + self.links - 1
        self.links -= 1
        if left <= 0:
            self.sb.drop(self)
        else:
            self.sb.keep(self)
        if self.upper is not None:
            self.upper.ctime_ns = self.fs.now_ns()

    def rmdir(self, name: bytes, child: Inode) -> None:
        """Remove an empty directory."""
        assert isinstance(child, OverlayInode)
        if not child.is_empty:
            raise ENOTEMPTY(f"{name!r}")
        changed = self._change_names()
        self._hide(changed, name)
        self._forget_directory(child)
        self.touched()

    def _forget_directory(self, child: OverlayInode) -> None:
        child.removed = True
        self.links -= 1
        self.sb.drop(child)

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        """Move, exchange, or leave a whiteout device."""
        assert isinstance(new_dir, OverlayInode)
        assert isinstance(child, OverlayInode)
        victim = new_dir.lookup(new_name)
        replaced = victim if not flags & RENAME_EXCHANGE else ABSENT
        if isinstance(replaced, OverlayInode) and replaced.is_dir and not replaced.is_empty:
            raise ENOTEMPTY(f"{new_name!r}")
        if child.upper is None:
            copied_up(child, 0 if child.is_dir else None)
        source, target = self._change_names(), new_dir._change_names()
        self.sb.keep(child)
        if flags & RENAME_EXCHANGE:
            assert isinstance(victim, OverlayInode)
            self.sb.keep(victim)
            source[name], target[new_name] = victim, child
            moved = int(child.is_dir) - int(victim.is_dir)
            self.links -= moved
            new_dir.links += moved
        else:
            if isinstance(victim, OverlayInode):
                if victim.is_dir:
                    new_dir._forget_directory(victim)
                else:
                    victim.lost_name()
            self._hide(source, name)
            if flags & RENAME_WHITEOUT:
                device = TmpSpecial(self.sb.upper, 0o020000, 0, Owner(0, 0))
                source[name] = OverlayInode(self.sb, device, None)
            target[new_name] = child
            if child.is_dir:
                self.links -= 1
                new_dir.links += 1
        self.touched()
        new_dir.touched()
        if child.upper is not None:
            child.upper.ctime_ns = self.fs.now_ns()

    # --- extended attributes

    def getxattr(self, name: bytes) -> bytes:
        """The value."""
        return (self.upper or self._below()).getxattr(name)

    def listxattr(self) -> Sequence[bytes]:
        """All names."""
        return (self.upper or self._below()).listxattr()

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        """Copy up and set it."""
        upper = copied_up(self)
        upper.setxattr(name, value, flags)

    def removexattr(self, name: bytes) -> None:
        """Copy up and remove it."""
        self.getxattr(name)
        upper = copied_up(self)
        upper.removexattr(name)

    def drop_file_caps(self) -> None:
        """What is not copied up has kept its owner and its bytes."""
        if self.upper is not None:
            self.upper.drop_file_caps()

    # --- opening

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """A directory of the merged names, or a file that follows a copy-up."""
        if self.is_dir:
            return DirectoryFile(location, flags)
        file = OverlayFile(location, flags)
        if self.upper is None:
            file.open_lower(caller)
        return file
