"""`FuseInode`: what all kinds of files of a server have in common. fs/fuse/dir.c.

A node is known by its number for as long as anybody holds the inode; `nlookup` counts how often the
server has told of it, so that it can be told to forget as much.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi import fuse as f
from sentry.abi.fuse import (
    FUSE_ACCESS,
    FUSE_ATTR,
    FUSE_ATTR_OUT,
    FUSE_CACHE_SYMLINKS,
    FUSE_GETATTR,
    FUSE_GETXATTR,
    FUSE_LISTXATTR,
    FUSE_READLINK,
    FUSE_REMOVEXATTR,
    FUSE_SETATTR,
    FUSE_SETXATTR,
)
from sentry.abi.xattr import XATTR_SIZE_MAX
from sentry.auth.permissions import MAY_ACCESS, MAY_ALL, MAY_CHDIR, MAY_EXEC, may_access
from sentry.auth.userns import NO_ID
from sentry.errors import EACCES, EIO, ENOENT, ENOSYS, EOPNOTSUPP, EOVERFLOW
from sentry.fs.fuse.wire import attributes_of, checked, split_time, until
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.interface import Attributes, Changes, Inode, Owner
from sentry.wait.again import NotNow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sentry.auth.credentials import Credentials
    from sentry.fs.fuse.handle import Handle
    from sentry.fs.fuse.mounted import MountedFs
    from sentry.fs.fuse.request import Request

SEARCH_BIT: Final = 0o001


class FuseInode(Inode):
    """A file of any kind."""

    __slots__ = (
        "attributes", "expires_ns", "generation", "gone", "is_bad", "nlookup",
        "nodeid", "sb", "target",
    )  # fmt: skip
    own_rights: ClassVar = True

    def __init__(
        self, fs: MountedFs, nodeid: int, generation: int, attributes: Attributes
    ) -> None:
        super().__init__(fs, attributes.ino, attributes.mode, Owner(attributes.uid, attributes.gid))
        self.sb = fs
        self.nodeid = nodeid
        self.generation = generation
        self.nlookup = 1
        self.gone = False
        self.is_bad = False
        """The server has made something else of it."""
        self.target: bytes | None = None
        """The text of a link, where the server lets it be kept."""
        self.expires_ns = 0
        """Until when the attributes hold."""
        self.attributes = attributes
        self._show()

    def __del__(self) -> None:
        self.sb.gone(self)

    def _show(self) -> None:
        """The attributes, as checks of rights see them.

        A directory's mode lacks a bit: a walk looks at rights of those alone whose search is not
        everybody's, and here it always has to (`own_rights`).
        """
        attributes = self.attributes
        mode = attributes.mode
        self.mode = mode & ~SEARCH_BIT if self.is_dir else mode
        self.uid, self.gid = attributes.uid, attributes.gid
        self.rdev = attributes.rdev
        self.ino = attributes.ino

    # --- attributes

    def is_another(self, generation: int, attributes: Attributes) -> bool:
        """The server uses the number for a new file: fuse_stale_inode()."""
        return generation != self.generation or attributes.mode & 0o170000 != self.kind

    def seen(self, attributes: Attributes, expires_ns: int) -> None:
        """The server says that these are the attributes. Preconditions: of the same type."""
        self.attributes, self.expires_ns = attributes, expires_ns
        self._show()

    def make_bad(self) -> None:
        """Nothing can be done with it any more: fuse_make_bad()."""
        self.is_bad = True
        self.expire()

    def expire(self) -> None:
        """They are old."""
        self.expires_ns = 0

    def lost_name(self) -> None:
        """One of its names is gone."""
        left = 0 if self.is_dir else max(self.attributes.nlink - 1, 0)
        self.attributes = self.attributes._replace(nlink=left)
        self.gone = not left
        self.expire()

    def has_gone(self) -> bool:
        return self.gone

    def known_attributes(self) -> Attributes | None:
        current = time.monotonic_ns() < self.expires_ns and not self.is_bad
        return self.attributes if current else None

    def stat(self) -> Attributes:
        self.sb.check_allowed()
        return self.getattr(None)

    def getattr(self, handle: Handle | None) -> Attributes:
        """The attributes, asked for if they are old."""
        known = self.known_attributes()
        if known is not None:
            return known
        flags, fh = (0, 0) if handle is None else (f.FUSE_GETATTR_FH, handle.fh)
        body = f.FUSE_GETATTR_IN.pack(flags, 0, fh)
        request = self.ask((self, FUSE_GETATTR), FUSE_GETATTR, body, FUSE_ATTR_OUT.size)
        request.once(self._answered)
        return self.attributes

    def _answered(self, data: bytes) -> None:
        """struct fuse_attr_out. Raises: EIO."""
        out = FUSE_ATTR_OUT.unpack(data)
        attr = checked(FUSE_ATTR.unpack(data, FUSE_ATTR_OUT.size - FUSE_ATTR.size))
        if attr.mode & 0o170000 != self.kind:
            self.make_bad()
            raise EIO("a file of another type")
        ns = self.sb.connection.user_ns
        expires_ns = until(time.monotonic_ns(), out.attr_valid, out.attr_valid_nsec)
        self.seen(attributes_of(attr, ns, self.attributes.block_size), expires_ns)

    def setattr(self, changes: Changes) -> None:
        self.sb.check_allowed()
        valid, fh = 0, 0
        handle: Handle | None = None
        if changes.mode is not None:
            valid |= f.FATTR_MODE
        if changes.uid is not None:
            valid |= f.FATTR_UID
        if changes.gid is not None:
            valid |= f.FATTR_GID
        if changes.size is not None:
            valid |= f.FATTR_SIZE
            handle = self.writer()
            if handle is not None:
                valid |= f.FATTR_FH
                fh = handle.fh
        if changes.atime_ns is not None:
            valid |= f.FATTR_ATIME | (f.FATTR_ATIME_NOW if changes.times_now else 0)
        if changes.mtime_ns is not None:
            valid |= f.FATTR_MTIME | (f.FATTR_MTIME_NOW if changes.times_now else 0)
        if not valid:
            return
        uid, gid = self.ids_there(changes.uid or 0, changes.gid or 0)
        atime, mtime = split_time(changes.atime_ns or 0), split_time(changes.mtime_ns or 0)
        mode = self.kind | (changes.mode or 0)
        body = f.FUSE_SETATTR_IN.pack(
            valid, 0, fh, changes.size or 0, 0, atime[0], mtime[0], 0, atime[1], mtime[1], 0, mode,
            0, uid, gid, 0,
        )  # fmt: skip
        try:
            request = self.ask((self, FUSE_SETATTR), FUSE_SETATTR, body, FUSE_ATTR_OUT.size)
        except NotNow as need:
            if handle is not None and handle not in need.call.held:
                handle.hold()
                need.call.hold(handle)
            raise
        request.once(self._answered)

    def writer(self) -> Handle | None:
        """An open file through which the size can be set."""
        return None

    def ids_there(self, uid: int, gid: int) -> tuple[int, int]:
        """Owners as the server's namespace has them. Raises: EOVERFLOW."""
        ns = self.sb.connection.user_ns
        if ns is None:
            return uid, gid
        uid, gid = ns.uid_map.from_kernel(uid), ns.gid_map.from_kernel(gid)
        if NO_ID in (uid, gid):
            raise EOVERFLOW("an owner that is not mapped there")
        return uid, gid

    # --- rights

    def check_rights(self, creds: Credentials, mask: int) -> None:
        """fuse_permission(): `mask` are MAY_* bits. Raises: EACCES, NotNow."""
        fs = self.sb
        if not fs.allows(creds):
            raise EACCES("the file system is another user's")
        if fs.options.default_permissions:
            if self.known_attributes() is None:
                self.getattr(None)
            bits = mask & MAY_ALL
            if not may_access(creds, self.attributes.mode, self.uid, self.gid, bits):
                raise EACCES(f"mode {self.attributes.mode:o} denies {bits}")
        elif mask & (MAY_ACCESS | MAY_CHDIR):
            self._ask_access(mask & MAY_ALL)
        elif mask & MAY_EXEC and self.is_regular and not self._is_program():
            raise EACCES("no x bit")

    def _is_program(self) -> bool:
        """Somebody may execute it."""
        return bool(self.attributes.mode & 0o111 or self.getattr(None).mode & 0o111)

    @property
    def server_decides(self) -> bool:  # type: ignore[override]
        return not self.sb.options.default_permissions

    def _ask_access(self, mask: int) -> None:
        if FUSE_ACCESS in self.sb.connection.lacks:
            return
        body = f.FUSE_ACCESS_IN.pack(mask, 0)
        try:
            self.ask((self, FUSE_ACCESS, mask), FUSE_ACCESS, body).once(_nothing)
        except ENOSYS:
            self.sb.connection.lacks.add(FUSE_ACCESS)

    # --- links

    @property
    def link_is_known(self) -> bool:  # type: ignore[override]
        return self.target is not None

    def readlink(self) -> bytes:
        if self.target is not None:
            return self.target
        if not self.is_symlink:
            return super().readlink()
        request = self.ask(
            (self, FUSE_READLINK), FUSE_READLINK, b"", PAGE_SIZE - 1, is_variable=True
        )
        text: bytes = request.once(_text)
        if self.sb.connection.flags & FUSE_CACHE_SYMLINKS:
            self.target = text
        return text

    # --- extended attributes

    def getxattr(self, name: bytes) -> bytes:
        body = f.FUSE_GETXATTR_IN.pack(XATTR_SIZE_MAX, 0) + name + b"\0"
        return self._xattr(FUSE_GETXATTR, name, body, XATTR_SIZE_MAX)

    def listxattr(self) -> Sequence[bytes]:
        body = f.FUSE_GETXATTR_IN.pack(XATTR_SIZE_MAX, 0)
        try:
            data = self._xattr(FUSE_LISTXATTR, b"", body, XATTR_SIZE_MAX)
        except EOPNOTSUPP:
            if FUSE_LISTXATTR in self.sb.connection.lacks:
                return ()
            raise
        names = data.split(b"\0")
        if names.pop() or b"" in names:
            raise EIO("an impossible list of names")
        return names

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        head = f.FUSE_SETXATTR_IN.pack(len(value), flags, 0, 0)[:8]
        self._xattr(FUSE_SETXATTR, name, head + name + b"\0" + value, 0)
        self.expire()

    def removexattr(self, name: bytes) -> None:
        self._xattr(FUSE_REMOVEXATTR, name, name + b"\0", 0)
        self.expire()

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        """fuse_set_acl()."""
        if value:
            self.setxattr(name, value, 0)
        else:
            self.removexattr(name)

    def _xattr(self, opcode: int, name: bytes, body: bytes, most: int) -> bytes:
        """Raises: EOPNOTSUPP where the server has none."""
        self.sb.check_allowed()
        lacks = self.sb.connection.lacks
        if opcode in lacks:
            raise EOPNOTSUPP("the server has no extended attributes")
        try:
            request = self.ask((self, opcode, name), opcode, body, most, is_variable=most > 0)
            answer: bytes = request.once(bytes)
        except ENOSYS:
            lacks.add(opcode)
            raise EOPNOTSUPP("the server has no extended attributes") from None
        return answer

    # --- asking

    def ask(
        self,
        key: Hashable,
        opcode: int,
        body: bytes,
        size: int = 0,
        *,
        is_variable: bool = False,
        undo: Callable[[bytes], object] | None = None,
    ) -> Request:
        """A request about this node. Raises: as `MountedFs.ask`; EIO."""
        if self.is_bad:
            raise EIO(f"node {self.nodeid} was something else")
        return self.sb.ask(
            key, opcode, self.nodeid, body, size, is_variable=is_variable, undo=undo
        )


def _nothing(data: bytes) -> None:
    """An answer without a body."""


def _text(data: bytes) -> bytes:
    """The text of a link. Raises: ENOENT for an empty one."""
    text = data.split(b"\0", 1)[0]
    if not text:
        raise ENOENT("an empty link")
    return text
