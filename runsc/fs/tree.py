"""A `FileSystem` behind 9P."""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Final, cast

from gofer.p9 import constants as c
from gofer.p9.attributes import NO_ACL, NO_DEFAULT_ACL, Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import (
    Rcreatex,
    Rgetxattrx,
    Rinheritx,
    Rmakex,
    Rreaddirx,
    Rrenamex,
    Rsetattrx,
    Rsyncx,
    Rwalkx,
    Tcreatex,
    Tgetxattrx,
    Tinheritx,
    Tmakex,
    Treaddirx,
    Trenamex,
    Tsetattrx,
    Tsyncx,
    Twalkx,
)
from gofer.p9.messages import (
    Rfsync,
    Rread,
    Rstatfs,
    Runlinkat,
    Rwrite,
    Tfsync,
    Tread,
    Tstatfs,
    Tunlinkat,
    Twrite,
)
from runsc.fs.filesystem import BLOCK, FileSystem, Stat, names_of
from runsc.fs.service import Service, code, result
from sentry.abi.fcntl import RENAME_NOREPLACE

DEVICE: Final = 1
FS_TYPE: Final = 0x01021997
"""V9FS_MAGIC."""
ROOT_NUMBER: Final = 1
MAX_MOVED: Final = 1 << 16
MAX_LISTINGS: Final = 64
"""Directories that are being read; of more the first is listed again."""
_COOKIE = struct.Struct("<QH")
HIDDEN: Final = ".runsc-removed-"
"""What is removed while it is open has a name of this kind until it is closed, as with NFS."""


@dataclass(slots=True)
class Node:
    """What a fid stands for."""

    path: str
    is_open: bool = False
    listing: list[str] | None = None
    """Of a directory that is being read."""


class Numbers:
    """Inode numbers: of the parent's and the name, but for what was renamed."""

    def __init__(self) -> None:
        self._moved: dict[str, int] = {}

    def of(self, path: str) -> int:
        """The number of a path."""
        number, at = ROOT_NUMBER, ""
        for name in path.split("/")[1:] if path != "/" else ():
            at = f"{at}/{name}"
            number = self._moved.get(at) or _hashed(number, name)
        return number

    def rename(self, old: str, new: str) -> None:
        """What had a name has another; what gets the old one is something else."""
        number = self.of(old)
        below = f"{old}/"
        for path in [each for each in self._moved if each.startswith(below)]:
            self._moved[new + path[len(old) :]] = self._moved.pop(path)
        while len(self._moved) > MAX_MOVED:
            del self._moved[next(iter(self._moved))]
        self._moved[new] = number
        self._moved[old] = int.from_bytes(os.urandom(7), "little") | 1


def _hashed(parent: int, name: str) -> int:
    digest = blake2b(os.fsencode(name), digest_size=7, key=parent.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little") | 1


class Tree(Service):
    """One session with a file system."""

    attachment = b"fs"
    kinds: ClassVar = {
        Twalkx: "walk", Tcreatex: "create", Tmakex: "make", Treaddirx: "list_", Tread: "read",
        Twrite: "write", Tsetattrx: "set_attributes", Trenamex: "rename", Tunlinkat: "unlink",
        Tfsync: "fsync", Tsyncx: "sync", Tstatfs: "statfs", Tinheritx: "inherit",
        Tgetxattrx: "attribute",
    }  # fmt: skip
    beside = (Tread, Twrite, Tfsync)

    def __init__(self, served: FileSystem) -> None:
        super().__init__()
        self._fs = served
        self._numbers = Numbers()
        self._listed: dict[int, Node] = {}
        """Directories that are being read, by identity."""
        self._hidden = 0

    def root(self) -> Node:
        return Node("/")

    async def clunk(self, what: Node | None) -> None:
        if what is None or not what.is_open:
            return
        what.is_open = False
        await result(self._fs.closed(what.path))
        if HIDDEN in what.path and not self._in_use(what.path):
            await result(self._fs.remove(what.path))

    def _in_use(self, path: str) -> bool:
        """Somebody has it open."""
        return any(node.is_open and node.path == path for node in self.fids.values())

    def _path(self, fid: int, name: bytes) -> str:
        """Of a name in the directory of a fid; none: the fid's own. Raises: OSError."""
        path: str = self.fid(fid).path
        return _below(path, name) if name else path

    async def _block(self, path: str) -> bytes:
        found = await result(self._fs.stat(path))
        if not isinstance(found, Stat):
            raise TypeError(f"stat({path!r}) gave {found!r}, no Stat")
        return self._packed(path, found).pack()

    def _packed(self, path: str, found: Stat) -> Attributes:
        mtime_ns = found.mtime_ns
        return Attributes(
            found.mode, found.uid, found.gid, found.links, DEVICE,
            found.number or self._numbers.of(path), 0, found.size, -(-found.size // 512),
            found.atime_ns or mtime_ns, mtime_ns, found.ctime_ns or mtime_ns, 0, BLOCK,
            NO_ACL | NO_DEFAULT_ACL,
        )  # fmt: skip

    # --- names

    async def walk(self, _tag: int, asked: Twalkx) -> Message:
        """Twalkx."""
        path = self.fid(asked.fid).path
        blocks, target = [], b""
        try:
            if not asked.names:
                blocks.append(await self._block(path))
            for name in asked.names:
                path = _below(path, name)
                blocks.append(await self._block(path))
            mode = Attributes.unpack(blocks[-1]).mode
            if stat.S_ISLNK(mode):
                target = os.fsencode(await result(self._fs.read_link(path)))
            opened = await self._opened(asked, path, mode)
        except OSError as error:
            return Rwalkx(code(error), c.OPENED_NO, b"", blocks)
        if asked.newfid != c.NOFID:
            self.bind(asked.newfid, Node(path, bool(opened)))
        return Rwalkx(0, opened, target, blocks)

    async def _opened(self, asked: Twalkx, path: str, mode: int) -> int:
        if asked.flags == c.NOOPEN or asked.newfid == c.NOFID or not stat.S_ISREG(mode):
            return c.OPENED_NO
        await result(self._fs.opened(path, bool(asked.flags & os.O_ACCMODE)))
        return c.OPENED_FID

    async def create(self, _tag: int, asked: Tcreatex) -> Message:
        """Tcreatex."""
        path = self._path(asked.fid, asked.name)
        await result(self._fs.create(path, asked.mode & 0o7777, asked.uid, asked.gid))
        if asked.newfid != c.NOFID:
            await result(self._fs.opened(path, True))
            self.bind(asked.newfid, Node(path, True))
        opened = c.OPENED_NO if asked.newfid == c.NOFID else c.OPENED_FID
        return Rcreatex(opened, 1, await self._block(path))

    async def make(self, _tag: int, asked: Tmakex) -> Message:
        """Tmakex."""
        path, mode = self._path(asked.fid, asked.name), asked.mode & 0o7777
        if stat.S_ISDIR(asked.mode):
            await result(self._fs.make_folder(path, mode, asked.uid, asked.gid))
        elif stat.S_ISLNK(asked.mode):
            target = os.fsdecode(asked.target)
            await result(self._fs.make_link(path, target, asked.uid, asked.gid))
        elif stat.S_ISREG(asked.mode):
            await result(self._fs.create(path, mode, asked.uid, asked.gid))
        else:
            raise OSError(errno.EPERM, "no devices, FIFOs or sockets")
        return Rmakex(await self._block(path))

    async def list_(self, _tag: int, asked: Treaddirx) -> Message:
        """Treaddirx: a listing is made at its beginning."""
        node = self.fid(asked.fid)
        if node.listing is None or not asked.offset:
            found = names_of(await result(self._fs.list(node.path)))
            node.listing = [name for name in found if not name.startswith(HIDDEN)]
            self._listed[id(node)] = node
            if len(self._listed) > MAX_LISTINGS:
                self._listed.pop(next(iter(self._listed))).listing = None
        data, limit = bytearray(), min(asked.count, c.MSIZE_MAX) - c.IO_HEADER_SIZE
        for at in range(asked.offset, len(node.listing)):
            name = os.fsencode(node.listing[at])
            if len(data) + c.NAME_MAX + 128 > limit:
                break
            try:
                block = await self._block(_below(node.path, name))
            except OSError:
                continue  # it has gone meanwhile
            data += block + _COOKIE.pack(at + 1, len(name)) + name
        if not data:
            node.listing = None
            self._listed.pop(id(node), None)
        return Rreaddirx(bytes(data))

    async def unlink(self, _tag: int, asked: Tunlinkat) -> Message:
        """Tunlinkat."""
        path = self._path(asked.dirfd, asked.name)
        if asked.flags & c.AT_REMOVEDIR:
            await result(self._fs.remove_folder(path))
        elif self._in_use(path):
            self._hidden += 1
            hidden = f"{path.rpartition('/')[0]}/{HIDDEN}{self._hidden}"
            await self._moved(path, hidden)
        else:
            await result(self._fs.remove(path))
        return Runlinkat()

    async def rename(self, _tag: int, asked: Trenamex) -> Message:
        """Trenamex."""
        old = self._path(asked.olddirfid, asked.oldname)
        new = self._path(asked.newdirfid, asked.newname)
        if asked.flags & ~RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, "no exchange")
        if asked.flags and await self._exists(new):
            raise OSError(errno.EEXIST, "it is there")
        if self._in_use(new):
            self._hidden += 1
            await self._moved(new, f"{new.rpartition('/')[0]}/{HIDDEN}{self._hidden}")
        await self._moved(old, new)
        return Rrenamex()

    async def _moved(self, old: str, new: str) -> None:
        await result(self._fs.rename(old, new))
        self._numbers.rename(old, new)
        for node in self.fids.values():
            if node.path == old or node.path.startswith(f"{old}/"):
                node.path = new + node.path[len(old) :]

    async def _exists(self, path: str) -> bool:
        try:
            await result(self._fs.stat(path))
        except FileNotFoundError:
            return False
        return True

    # --- data and attributes

    async def read(self, _tag: int, asked: Tread) -> Message:
        """Tread."""
        size = min(asked.count, c.MSIZE_MAX - c.IO_HEADER_SIZE)
        data = await result(self._fs.read(self.fid(asked.fid).path, asked.offset, size))
        return Rread(bytes(data)[:size])

    async def write(self, _tag: int, asked: Twrite) -> Message:
        """Twrite."""
        path, data = self.fid(asked.fid).path, bytes(asked.data)
        taken = await result(self._fs.write(path, asked.offset, data))
        return Rwrite(len(data) if taken is None else max(0, min(int(taken), len(data))))

    async def set_attributes(self, _tag: int, asked: Tsetattrx) -> Message:
        """Tsetattrx."""
        path, valid, fs = self._path(asked.fid, asked.name), asked.valid, self._fs
        if valid & c.SETATTR_MODE:
            await result(fs.set_mode(path, asked.mode & 0o7777))
        if valid & (c.SETATTR_UID | c.SETATTR_GID):
            uid = asked.uid if valid & c.SETATTR_UID else None
            await result(fs.set_owner(path, uid, asked.gid if valid & c.SETATTR_GID else None))
        if valid & c.SETATTR_SIZE:
            await result(fs.truncate(path, asked.size))
        if valid & (c.SETATTR_ATIME | c.SETATTR_MTIME):
            atime_ns = asked.atime_ns if valid & c.SETATTR_ATIME else None
            mtime_ns = asked.mtime_ns if valid & c.SETATTR_MTIME else None
            await result(fs.set_times(path, atime_ns, mtime_ns))
        return Rsetattrx(await self._block(path))

    async def attribute(self, _tag: int, asked: Tgetxattrx) -> Message:
        """Tgetxattrx: there are none."""
        self._path(asked.fid, asked.name)
        if asked.attr:
            raise OSError(errno.ENODATA, "no such attribute")
        return Rgetxattrx(b"")

    async def inherit(self, _tag: int, _asked: Tinheritx) -> Message:
        """Tinheritx."""
        return Rinheritx(0)

    async def fsync(self, _tag: int, asked: Tfsync) -> Message:
        """Tfsync."""
        await result(self._fs.sync(self.fid(asked.fid).path))
        return Rfsync()

    async def sync(self, _tag: int, asked: Tsyncx) -> Message:
        """Tsyncx."""
        await result(self._fs.sync("/"))
        return Rsyncx()

    async def statfs(self, _tag: int, _asked: Tstatfs) -> Message:
        """Tstatfs."""
        total, free = cast("tuple[Any, Any]", await result(self._fs.room()))
        blocks, room = int(total) // BLOCK, int(free) // BLOCK
        return Rstatfs(FS_TYPE, BLOCK, blocks, room, room, 0, 0, 0, c.NAME_MAX)


def _below(path: str, name: bytes) -> str:
    """Raises: OSError for what is no name."""
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise OSError(errno.EINVAL, "no name")
    if name.startswith(HIDDEN.encode()):
        raise OSError(errno.ENOENT, "a name that is not shown is nobody's")
    if len(name) > c.NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, "a long name")
    return f"{path.rstrip('/')}/{os.fsdecode(name)}"
