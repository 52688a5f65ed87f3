"""`FuseDirectory`: names, and their listing. fs/fuse/dir.c, fs/fuse/readdir.c."""

from __future__ import annotations

import time
from _weakref import ref
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import fuse as f
from sentry.abi.fcntl import O_NOCTTY, RENAME_EXCHANGE
from sentry.abi.fuse import (
    FUSE_CREATE,
    FUSE_DO_READDIRPLUS,
    FUSE_ENTRY_OUT,
    FUSE_FSYNCDIR,
    FUSE_HAS_IOCTL_DIR,
    FUSE_LINK,
    FUSE_LOOKUP,
    FUSE_MKDIR,
    FUSE_MKNOD,
    FUSE_OPEN_OUT,
    FUSE_READDIR,
    FUSE_READDIRPLUS,
    FUSE_READDIRPLUS_AUTO,
    FUSE_RENAME,
    FUSE_RENAME2,
    FUSE_RMDIR,
    FUSE_SYMLINK,
    FUSE_UNLINK,
)
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from sentry.errors import EINVAL, EIO, ENOENT, ENOMEM, ENOSYS, ENOTTY, EXDEV, Errno
from sentry.fs.fuse.handle import Handle, handle_of, open_handle
from sentry.fs.fuse.inode import FuseInode
from sentry.fs.fuse.regular import FuseRegular, sync_handle
from sentry.fs.fuse.requests import ioctl
from sentry.fs.fuse.wire import Listed, listing, until
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.dirents import as_old, dirent
from sentry.vfs.interface import ABSENT, Absent, Attributes, Inode, Owner

if TYPE_CHECKING:
    from sentry.fs.fuse.mounted import MountedFs
    from sentry.fs.fuse.request import Request
    from sentry.vfs.dirents import DirentSink
    from sentry.vfs.file import Caller, FileDescription, Result
    from sentry.vfs.location import Location

RENAME2_MINOR: Final = 23
MAX_LISTING: Final = 8 * PAGE_SIZE
"""Bytes that are asked for at once."""
CREATED: Final = FUSE_ENTRY_OUT.size + FUSE_OPEN_OUT.size


class FuseDirectory(FuseInode):
    """A directory."""

    __slots__ = ("_place", "names")

    def __init__(
        self, fs: MountedFs, nodeid: int, generation: int, attributes: Attributes
    ) -> None:
        super().__init__(fs, nodeid, generation, attributes)
        self.names: dict[bytes, tuple[ref[FuseInode] | None, int]] = {}
        """What a name means (None: nothing), and until when."""
        self._place: tuple[ref[FuseDirectory], bytes] | None = None

    def put_at(self, directory: FuseDirectory, name: bytes) -> None:
        """That is where it is now."""
        self._place = ref(directory), name

    def is_at(self, directory: FuseDirectory, name: bytes) -> bool:
        """Whether it is there."""
        return self._place == (ref(directory), name)

    # --- walking

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:
        known = self.names.get(name)
        if known is None or time.monotonic_ns() >= known[1]:
            return None
        found = known[0]
        return ABSENT if found is None else found()

    def remember(self, name: bytes, inode: FuseInode | None, until_ns: int) -> None:
        """The server has told what a name means."""
        if not until_ns:
            self.names.pop(name, None)
            return
        if name not in self.names:
            self.sb.vfs.fuse.count_name()
        self.names[name] = (None if inode is None else ref(inode), until_ns)

    def lookup(self, name: bytes, opens: bool = False) -> Inode | Absent:
        request = self.ask(
            (self, FUSE_LOOKUP, name), FUSE_LOOKUP, name + b"\0", FUSE_ENTRY_OUT.size,
            undo=self.sb.forget_entry,
        )  # fmt: skip
        found: Inode | Absent
        try:
            found = request.once(partial(self._found, name))
        except ENOENT:
            self.names.pop(name, None)
            return ABSENT
        return found

    def _found(self, name: bytes, data: bytes) -> FuseInode | Absent:
        entry = FUSE_ENTRY_OUT.unpack(data)
        if not entry.nodeid:
            now_ns = time.monotonic_ns()
            self.remember(name, None, until(now_ns, entry.entry_valid, entry.entry_valid_nsec))
            return ABSENT
        inode: FuseInode
        inode, expires_ns = self.sb.inode_of(self, name, data)
        self.remember(name, inode, expires_ns)
        return inode

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        return FuseDirectoryFile(location, flags, open_handle(self, flags))

    # --- names

    def _make(self, opcode: int, name: bytes, body: bytes, kind: int) -> FuseInode:
        request = self.ask(
            (self, opcode, name), opcode, body, FUSE_ENTRY_OUT.size, undo=self.sb.forget_entry
        )
        made: FuseInode = request.once(partial(self._made, name, kind))
        return made

    def _made(self, name: bytes, kind: int, data: bytes) -> FuseInode:
        """create_new_entry(). Raises: EIO, also for none."""
        self.expire()
        self.names.pop(name, None)
        inode: FuseInode
        try:
            inode, expires_ns = self.sb.inode_of(self, name, data, 0, kind)
        except ENOENT:
            raise EIO("made, and not there") from None
        self.remember(name, inode, expires_ns)
        return inode

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        return self.mknod(name, S_IFREG | mode, 0, owner)

    def create_to_open(self, name: bytes, mode: int, owner: Owner, flags: int) -> Inode:
        lacks = self.sb.connection.lacks
        if FUSE_CREATE in lacks:
            return self.create(name, mode, owner)
        head = f.FUSE_CREATE_IN.pack(flags & ~O_NOCTTY, S_IFREG | mode, self.sb.umask, 0)
        body = head + name + b"\0"
        undo = partial(self._uncreate, name, flags)
        try:
            request = self.ask(
                (self, FUSE_CREATE, name), FUSE_CREATE, body, CREATED, undo=undo
            )
            made: Inode = request.once(partial(self._created, name, flags))
        except ENOSYS:
            lacks.add(FUSE_CREATE)
            return self.create(name, mode, owner)
        return made

    def _created(self, name: bytes, flags: int, data: bytes) -> FuseInode:
        inode = self._made(name, S_IFREG, data)
        assert isinstance(inode, FuseRegular)
        inode.made(handle_of(inode, flags, data, FUSE_ENTRY_OUT.size))
        return inode

    def _uncreate(self, name: bytes, flags: int, data: bytes) -> None:
        """Nobody comes for a file that was made: it stays, and is closed."""
        try:
            inode, _ = self.sb.inode_of(self, name, data, 0, S_IFREG)
        except Errno:
            return
        handle_of(inode, flags, data, FUSE_ENTRY_OUT.size).release()

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        body = f.FUSE_MKDIR_IN.pack(S_IFDIR | mode, self.sb.umask) + name + b"\0"
        return self._make(FUSE_MKDIR, name, body, S_IFDIR)

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        body = f.FUSE_MKNOD_IN.pack(mode, rdev, self.sb.umask, 0) + name + b"\0"
        return self._make(FUSE_MKNOD, name, body, mode & S_IFMT)

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        return self._make(FUSE_SYMLINK, name, name + b"\0" + target + b"\0", S_IFLNK)

    def link(self, name: bytes, target: Inode) -> None:
        if not isinstance(target, FuseInode) or target.fs is not self.fs:
            raise EXDEV("a file of another file system")
        body = f.FUSE_LINK_IN.pack(target.nodeid) + name + b"\0"
        self._make(FUSE_LINK, name, body, target.kind)
        target.expire()

    def unlink(self, name: bytes, child: Inode) -> None:
        self._remove(FUSE_UNLINK, name, child)

    def rmdir(self, name: bytes, child: Inode) -> None:
        self._remove(FUSE_RMDIR, name, child)

    def _remove(self, opcode: int, name: bytes, child: Inode) -> None:
        request = self.ask((self, opcode, name), opcode, name + b"\0")
        request.once(partial(self._removed, name, child))

    def _removed(self, name: bytes, child: Inode, data: bytes) -> None:
        self.names.pop(name, None)
        self.expire()
        if isinstance(child, FuseInode):
            child.lost_name()

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        if not isinstance(new_dir, FuseDirectory):
            raise EXDEV("a directory of another file system")
        connection = self.sb.connection
        if flags and (FUSE_RENAME2 in connection.lacks or connection.minor < RENAME2_MINOR):
            raise EINVAL("the server knows no flags")
        opcode = FUSE_RENAME2 if flags else FUSE_RENAME
        head = (
            f.FUSE_RENAME2_IN.pack(new_dir.nodeid, flags, 0)
            if flags
            else f.FUSE_RENAME_IN.pack(new_dir.nodeid)
        )
        body = head + name + b"\0" + new_name + b"\0"
        try:
            request = self.ask((self, opcode, name), opcode, body)
            request.once(partial(self._renamed, (name, child), (new_dir, new_name), flags))
        except ENOSYS:
            if not flags:
                raise
            connection.lacks.add(FUSE_RENAME2)
            raise EINVAL("the server knows no flags") from None

    def _renamed(
        self, source: tuple[bytes, Inode], target: tuple[FuseDirectory, bytes], flags: int,
        data: bytes,
    ) -> None:
        (name, child), (new_dir, new_name) = source, target
        known = new_dir.names.pop(new_name, None)
        self.names.pop(name, None)
        for each in (self, new_dir, child):
            if isinstance(each, FuseInode):
                each.expire()
        if isinstance(child, FuseDirectory):
            child.put_at(new_dir, new_name)
        replaced = known[0]() if known is not None and known[0] is not None else None
        if replaced is not None:
            if flags & RENAME_EXCHANGE:
                replaced.expire()
                if isinstance(replaced, FuseDirectory):
                    replaced.put_at(self, name)
            elif replaced is not child:
                replaced.lost_name()



class FuseDirectoryFile(DirectoryFile):
    """An open directory: what is read is what the server gives at that position."""

    __slots__ = ("_held", "handle")

    def __init__(self, location: Location, flags: int, handle: Handle) -> None:
        super().__init__(location, flags)
        self.handle = handle
        self._held: list[FuseInode] = []
        """The nodes of the last answer, for who asks for their attributes next."""

    def release(self) -> None:
        self._held = []
        self.handle.release()
        super().release()

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        if not self.handle.inode.sb.connection.flags & FUSE_HAS_IOCTL_DIR:
            raise ENOTTY("not of directories")
        return ioctl(self.handle, caller, request, argument)

    def sync(self, data_only: bool) -> None:
        sync_handle(self.handle, FUSE_FSYNCDIR, data_only)

    def entries(self, caller: Caller, dest: DirentSink) -> int:
        """getdents64(2): what there is in one answer, at most."""
        if self.location.dentry.unlinked:
            raise ENOENT("the directory has been removed")
        # What fits there fits here: what an entry costs is no less. Of a small buffer the rest is
        # asked for once more, as in Linux.
        found = self._ask(max(PAGE_SIZE, min(dest.count, MAX_LISTING)))
        records = bytearray()
        for listed in found:
            record = dirent((listed.name, listed.ino, listed.kind), listed.following)
            if len(records) + len(record) > dest.count:
                break
            records += record
            self.position = listed.following
        if not records and found:
            raise EINVAL("the buffer is too small for one entry")
        dest.data = bytes(as_old(records) if dest.old else records)
        return len(dest.data)

    def _ask(self, size: int) -> list[Listed]:
        handle = self.handle
        inode: Any = handle.inode
        flags = inode.fs.connection.flags
        plus = flags & FUSE_DO_READDIRPLUS and (
            not self.position or not flags & FUSE_READDIRPLUS_AUTO
        )
        opcode = FUSE_READDIRPLUS if plus else FUSE_READDIR
        offset = self.position & (1 << 64) - 1
        body = f.FUSE_READ_IN.pack(handle.fh, offset, size, 0, 0, self.flags, 0)
        request: Request = inode.ask(
            (self, opcode, offset), opcode, body, size, is_variable=True
        )
        listed: list[Listed] = request.once(partial(self._take, bool(plus)))
        return list(listed)

    def _take(self, plus: bool, data: bytes) -> list[Listed]:
        directory: Any = self.inode
        found: list[Listed] = []
        held: list[FuseInode] = []
        for listed in listing(data, plus):
            found.append(listed)
            if plus and listed.name not in (b".", b".."):
                self._link(directory, listed, data, held)
        self._held = held
        return found

    @staticmethod
    def _link(
        directory: FuseDirectory, listed: Listed, data: bytes, held: list[FuseInode]
    ) -> None:
        """fuse_direntplus_link(): what is wrong with it costs the attributes, not the name."""
        try:
            inode, expires_ns = directory.sb.inode_of(directory, listed.name, data, listed.entry)
        except (EIO, ENOENT, ENOMEM):
            return
        directory.remember(listed.name, inode, expires_ns)
        held.append(inode)
