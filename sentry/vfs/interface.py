"""What a file system is to the rest of the Sentry: `FileSystem`, `Inode` and their values.

A file system subclasses `FileSystem` and `Inode` and overrides what it can do; what it leaves alone
fails with the errno Linux gives for a missing operation. It imports no other file system. All that
is the same for all file systems happens above it, in this room: path walk, permission checks,
read-only mounts, umask, set-group-id directories, sticky directories, name lengths, locks, inotify,
the rules of O_APPEND and RLIMIT_FSIZE. An inode may take its arguments as checked.

All operations are plain functions. One that has to wait for somebody raises NotNow and is called
again (sentry/wait/again.py); a file system in memory never does. `lookup_cached` alone asks nobody.
While a name of a directory is made, removed or moved, the caller holds `lock` of that directory,
and what was done before a sleep is not done again after it.

An inode is one object for as long as anybody holds it: two lookups of the same file (hard links,
too) give the same object, because locks, FIFOs, bound sockets and inotify watches hang on it.
"""

from __future__ import annotations

import stat as modes
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from msgspec import Struct

from sentry.abi.layout import Record
from sentry.abi.limits import NAME_MAX
from sentry.ahead import Referable, mypyc_attr
from sentry.errors import EACCES, EINVAL, ENODEV, ENOTDIR, ENOTTY, EOPNOTSUPP, EPERM
from sentry.vfs.dirents import Dirents
from sentry.wait.lock import Lock

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.location import Location
    from sentry.vfs.locks import FileLocks
    from sentry.vfs.marks import Marks
    from sentry.vfs.watches import Watches


class Absent:
    """The type of ABSENT."""

    __slots__ = ()


ABSENT: Final = Absent()
"""What `lookup_cached` says of a name that is known not to exist."""


class Attributes(Record):
    """What stat(2) and statx(2) show of an inode; times are CLOCK_REALTIME in ns."""

    ino: int
    mode: int
    """Type and permissions."""
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    """In units of 512 bytes."""
    block_size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None = None
    dev: int | None = None
    """st_dev, where it is not that of the file system (overlay)."""


class Changes(Struct):
    """What setattr changes; None leaves alone. `mode` are the bits below 07777; times in ns."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    times_now: bool = False
    """The times are "now" (a server may take its own clock)."""


class Owner(Record):
    """Who a new inode belongs to."""

    uid: int
    gid: int


class DirEntry(Record):
    """One name of a directory listing; `kind` is S_IFMT bits of the mode, 0 if unknown."""

    name: bytes
    ino: int
    kind: int


class StatFs(Record):
    """What statfs(2) shows; sizes in blocks of `block_size`."""

    magic: int
    block_size: int
    blocks: int
    blocks_free: int
    files: int
    files_free: int
    name_max: int = NAME_MAX


@mypyc_attr(allow_interpreted_subclasses=True)
class Inode(Referable):
    """A file of any kind. `mode`, `uid`, `gid` are always there, for the permission checks."""

    namespace: ClassVar[Any] = None
    """What it stands for, if it is a file of /proc/PID/ns."""
    seals: ClassVar[int] = 0
    can_seal: ClassVar = False
    """F_ADD_SEALS works on it: `seals` are F_SEAL_*."""
    __slots__ = (
        "acl",
        "bound",
        "fifo",
        "fs",
        "gid",
        "ino",
        "is_dir",
        "is_regular",
        "is_symlink",
        "kind",
        "linkable",
        "lock",
        "locks",
        "marks",
        "mode",
        "open_count",
        "packed",
        "rdev",
        "read_count",
        "uid",
        "watches",
        "write_count",
        "write_hint",
    )

    def __init__(self, fs: FileSystem, ino: int, mode: int, owner: Owner) -> None:
        self.fs = fs
        self.ino = ino
        self.mode = mode
        self.kind = kind = mode & 0o170000
        """S_IFMT bits, which never change."""
        self.is_dir = kind == modes.S_IFDIR
        self.is_regular = kind == modes.S_IFREG
        self.is_symlink = kind == modes.S_IFLNK
        """A symbolic link, magic ones too."""
        self.uid, self.gid = owner
        self.acl: bytes | None = None
        """None: it has no access control list for sure; else `access_acl` says."""
        self.rdev = 0
        self.lock = Lock()
        """Linux's i_rwsem: held around changes of a directory, sleeping appends, truncations."""
        self.packed: tuple[Attributes, bytes] | None = None
        """struct stat of these attributes: sentry.vfs.statbuf."""
        self.locks: FileLocks | None = None
        """fcntl and flock locks, made when first needed."""
        self.watches: Watches | None = None
        """inotify watches."""
        self.marks: Marks | None = None
        """fanotify's."""
        self.fifo: Any = None
        """The pipe behind a FIFO while it is open."""
        self.bound: Any = None
        """The socket bound to this name (AF_UNIX)."""
        self.write_count = 0
        """i_writecount: descriptions open for writing; negative while programs run from it."""
        self.linkable = False
        """Made by O_TMPFILE, and may still get a name: I_LINKABLE."""
        self.open_count = 0
        """Descriptions of it, O_PATH ones too: while there are any, the inode is not gone."""
        self.read_count = 0
        """i_readcount: descriptions open for reading alone, for leases."""
        self.write_hint = 0
        """RWH_WRITE_LIFE_*: F_SET_RW_HINT."""

    # --- attributes

    def stat(self) -> Attributes:
        """The attributes. Those of a file without content, by default."""
        return Attributes(
            self.ino, self.mode, 1, self.uid, self.gid, self.rdev, 0, 0, 4096, 0, 0, 0
        )

    def known_attributes(self) -> Attributes | None:
        """`stat` if nobody need be asked."""
        return self.stat()

    def has_gone(self) -> bool:
        """It has no name any more, as far as one can tell without asking anybody."""
        attributes = self.known_attributes()
        return attributes is not None and not attributes.nlink

    def stat_walked(self, asked: bool) -> Attributes:
        """`stat` right after a walk that ended here; `asked`: with a `lookup` of this name."""
        return self.stat()

    def owner_for(self, caller: Caller, attributes: Attributes) -> Owner:
        """Who somebody of another user namespace is told that it belongs to."""
        return Owner(attributes.uid, attributes.gid)

    own_rights: ClassVar = False
    """`check_rights` says who may do what, not the mode."""

    server_decides: ClassVar = False
    """Who may change its attributes is a server's business."""

    def check_rights(self, creds: Credentials, mask: int) -> None:
        """inode_permission(), where that is the file system's; `mask` are MAY_*. Raises: EACCES."""

    def access_acl(self) -> bytes | None:
        """The access control list (sentry.auth.acl), where the mode does not say all. NotNow."""
        return self.acl

    def default_acl(self) -> bytes | None:
        """Of a directory: what is made in it inherits that, and no umask counts. NotNow."""
        return None

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        """Set the list `name`, which is valid; empty: take it away. `mode`: the permission bits
        that an access list says. One that says no more is not kept."""
        raise EOPNOTSUPP("no access control lists")

    def belongs_to(self, caller: Caller) -> bool:
        """A directory of the caller itself, which it may search and read whatever the mode says."""
        return False

    def setattr(self, changes: Changes) -> None:
        """chmod, chown, utimensat, truncate: rights are checked, set-id bits decided by the caller.

        Sets ctime; a change of size sets mtime. Raises: EPERM by default; what has no name (pipes,
        sockets, eventfds) takes modes and owners: simple_setattr().
        """
        if not self.fs.nameless:
            raise EPERM(f"{self.fs.name}: attributes cannot be changed")
        if changes.size is not None:
            raise EINVAL("no size")
        if changes.mode is not None:
            self.mode = self.mode & ~0o7777 | changes.mode
        self.uid = self.uid if changes.uid is None else changes.uid
        self.gid = self.gid if changes.gid is None else changes.gid

    def before_truncation(self) -> None:
        """It is about to be opened, and emptied then. Raises: NotNow, and as a change of it."""

    def accessed(self) -> None:
        """A read happened and the mount keeps access times (relatime is the inode's to apply)."""

    def touched(self) -> None:
        """The content changed, by what does not tell the inode of it."""

    # --- walking

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:
        """The child `name`: an inode, ABSENT, or None when `lookup` must be asked."""
        return None

    def name_cached(self, name: bytes) -> Inode | Absent | None:
        """`lookup_cached` for `child_to_remove`: other attributes may be old ones."""
        return self.lookup_cached(name)

    def lookup(self, name: bytes, opens: bool = False) -> Inode | Absent:
        """The child `name`, asked for. An `ABSENT` is a value here, not an error.

        `opens`: it is opened to be read next, as far as one knows.
        """
        found = self.lookup_cached(name)
        if found is None:
            raise ENOTDIR(f"ino {self.ino}")
        return found

    def lookup_for(self, caller: Caller, name: bytes, opens: bool = False) -> Inode | Absent:
        """`lookup`, where a name is there for some and not for others (/proc/sys/net)."""
        return self.lookup(name, opens)

    link_is_known: ClassVar = True
    """`readlink` makes no request."""

    def readlink(self) -> bytes:
        """readlink(2): the text of the link. Not called for magic links."""
        raise EINVAL("not a symbolic link")

    def readlink_for(self, caller: Caller) -> bytes | None:
        """The text of a link that depends on who reads it (/proc/self, magic links); else None."""
        return None

    def follow(self, caller: Caller) -> Location | None:
        """A magic link (/proc/self/exe) jumps there; None for a link that is text."""
        return None

    def entries(self) -> Iterable[DirEntry]:
        """The names of now of a directory but `.` and `..`, in an order that stays as it is.

        Made as they are asked for: one that is removed before that need not be among them.
        """
        raise ENOTDIR(f"ino {self.ino}")

    def dirents(self) -> Dirents:
        """The same for getdents64(2)."""
        return Dirents(self.entries())

    # --- names; the caller holds self.lock, and knows that `name` is free (or what it holds)

    def check_room(self, caller: Caller) -> None:
        """A file is to be made in this directory and opened. Raises: ENFILE, before it is made."""

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        """Make a regular file. `mode` are permission bits."""
        raise EACCES(f"{self.fs.name}: cannot create")

    def may_be_made(self, name: bytes) -> bool:
        """Whether who is to make a name need not look for it first: it is not known, making it
        costs no more and fails if it is there (EEXIST), and who may make names is certain."""
        return False

    def create_to_open(self, name: bytes, mode: int, owner: Owner, flags: int) -> Inode:
        """The same for open(2) with these flags, which goes on to open it."""
        return self.create(name, mode, owner)

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        """Make a directory."""
        raise EPERM(f"{self.fs.name}: cannot create")

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        """Make a FIFO, socket or device; `mode` has the type."""
        raise EPERM(f"{self.fs.name}: cannot create")

    def bind(self, name: bytes, kind: int, mode: int, owner: Owner) -> Inode:
        """Make the name of a socket of type `kind`, of which the file system may have a part."""
        return self.mknod(name, mode, 0, owner)

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        """Make a symbolic link."""
        raise EPERM(f"{self.fs.name}: cannot create")

    def link(self, name: bytes, target: Inode) -> None:
        """Make a hard link to `target`, of the same file system."""
        raise EPERM(f"{self.fs.name}: cannot link")

    def tmpfile(self, mode: int, owner: Owner, linkable: bool) -> Inode:
        """O_TMPFILE: a regular file without a name; `linkable` unless O_EXCL."""
        raise EOPNOTSUPP(f"{self.fs.name}: no O_TMPFILE")

    def unlink(self, name: bytes, child: Inode) -> None:
        """Remove the name of something that is no directory."""
        raise EPERM(f"{self.fs.name}: cannot unlink")

    def rmdir(self, name: bytes, child: Inode) -> None:
        """Remove an empty directory. Raises: ENOTEMPTY."""
        raise EPERM(f"{self.fs.name}: cannot rmdir")

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        """renameat2(2) within the file system; `flags` RENAME_EXCHANGE, RENAME_WHITEOUT.

        RENAME_NOREPLACE and the type rules (EISDIR, ENOTDIR, loops) are done; ENOTEMPTY of a
        replaced directory is the file system's. Both directories are locked.
        """
        raise EPERM(f"{self.fs.name}: cannot rename")

    # --- extended attributes; names are checked, `trusted.` and `security.` rights too

    def getxattr(self, name: bytes) -> bytes:
        """The value. Raises: ENODATA."""
        raise EOPNOTSUPP("no extended attributes")

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        """Set it; XATTR_CREATE (EEXIST), XATTR_REPLACE (ENODATA). Raises: ENOSPC."""
        raise EOPNOTSUPP("no extended attributes")

    def listxattr(self) -> Sequence[bytes]:
        """All names."""
        return ()

    def removexattr(self, name: bytes) -> None:
        """Remove it. Raises: ENODATA."""
        raise EOPNOTSUPP("no extended attributes")

    def drop_file_caps(self) -> None:
        """The file has another owner, or other bytes: security.capability is gone.

        security_inode_killpriv(). A file system in memory calls it where bytes are changed; what
        lies on the host has lost it by the host's own doing.
        """

    # --- opening

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """A description of a regular file or directory, or of what only this file system knows.

        FIFOs, sockets and devices are opened by the room above through the inode's `mode` and
        `rdev`, unless `opens_itself`. Rights are checked; O_TRUNC follows as a setattr. `flags` are
        those of open(2). Directories return `vfs.directory.DirectoryFile` (made from `entries`),
        regular files a subclass of `vfs.regular.RegularFile`.
        """
        raise ENODEV(f"{self.fs.name}: cannot open")

    bindable: ClassVar = False
    """mount(2) takes it although no directory holds it (namespaces, pidfds)."""

    file_flags: ClassVar[int] = 0
    """FS_*_FL, as chattr(1) sets them."""

    def set_file_flags(self, flags: int) -> None:
        """FS_IOC_SETFLAGS; the flags are checked."""
        raise ENOTTY("no flags")

    immutable: ClassVar[bool] = False
    """Nobody may write it: EPERM, before any rights are looked at."""
    def take_served(self) -> Any:
        """After `bind`, once: the host's part of that name. Of most there is none."""
        return None

    is_service: ClassVar = False
    """Of a socket without a program's bound to it: a service of the host may listen there."""
    opens_itself: ClassVar = False
    """The type bits do not decide how it is opened (host descriptors, entries of /proc)."""
