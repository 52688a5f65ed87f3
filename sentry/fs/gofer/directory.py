"""`GoferDirectory`: making, moving and removing names; opening directories.

What is known of the names is in `directory_cache`; every change here is told to it.
"""

from __future__ import annotations

import stat as modes
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.constants import AT_REMOVEDIR, NOFID, NOOPEN, OPENED_DONATED
from gofer.p9.extensions import (
    Rcreatex,
    Rlinkx,
    Rmakex,
    Rwalkx,
    Tcreatex,
    Tlinkx,
    Tmakex,
    Trenamex,
    Twalkx,
)
from gofer.p9.messages import Tunlinkat
from sentry.abi.fcntl import O_EXCL, O_RDWR, RENAME_EXCHANGE, RENAME_NOREPLACE
from sentry.abi.inotify import IN_CREATE, IN_DELETE
from sentry.errors import EINVAL, EXDEV
from sentry.fs.gofer.changes import OwnChange, made, removed
from sentry.fs.gofer.directory_cache import DirectoryCache
from sentry.fs.gofer.inode import GoferInode, close_quietly
from sentry.fs.gofer.regular import GoferRegular
from sentry.fs.gofer.session import expect
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.interface import Inode, Owner

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sentry.fs.gofer.requests import Pending
    from sentry.vfs.dentry import Location
    from sentry.vfs.file import Caller, FileDescription


class Keeper(NamedTuple):
    """A fid on its way to a file that loses its name."""

    pending: Pending
    child: GoferRegular
    fid: int


class GoferDirectory(DirectoryCache):
    """A directory of the host."""

    __slots__ = ()

    async def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        return GoferDirectoryFile(location, flags)

    # --- names

    async def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        request = _creation(await self.directory_fid(), name, mode, owner)
        with self.changing(IN_CREATE, name):
            pending = self.fs.session.send(request)
            await self.fs.session.wait(pending)
            return self._created(name, pending)

    def create_now(
        self, name: bytes, mode: int, owner: Owner
    ) -> Inode | Coroutine[Any, Any, Inode] | None:
        if self.fid < 0:
            return None
        self.fs.fids.used(self)
        request = _creation(self.fid, name, mode, owner)
        change = self.changing(IN_CREATE, name)
        try:
            pending = self.fs.session.ask(request)
            if not pending.done:
                return self._create_later(name, pending, change)
            inode = self._created(name, pending)
        except BaseException:
            change.failed()
            raise
        change.done()
        return inode

    async def _create_later(self, name: bytes, pending: Pending, change: OwnChange) -> Inode:
        async with self.lock:  # which is free, so this does not wait
            with change:
                await self.fs.session.wait_asleep(pending)
                return self._created(name, pending)

    def _created(self, name: bytes, pending: Pending) -> Inode:
        """The inode of a file that was made. Raises: why it was not."""
        reply = expect(pending.result(), Rcreatex)
        fd = pending.take_fd()
        try:
            inode = self.fs.inode_of(reply.block, self, name)
            self.added(name, inode)
        except BaseException:
            close_quietly(fd)
            raise
        if isinstance(inode, GoferRegular) and reply.opened == OPENED_DONATED:
            inode.created(fd)
        else:
            close_quietly(fd)
        return inode

    async def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        return await self._make(name, b"", modes.S_IFDIR | mode & 0o7777, owner)

    async def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        return await self._make(name, b"", mode, owner)

    async def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        inode = await self._make(name, target, modes.S_IFLNK | 0o777, owner)
        inode.target = target
        return inode

    async def _make(self, name: bytes, target: bytes, mode: int, owner: Owner) -> GoferInode:
        fid = await self.directory_fid()
        request = Tmakex(fid, name, target, mode, owner.uid, owner.gid)
        with self.changing(made(mode), name):
            reply = expect(await self.fs.session.call(request), Rmakex)
            inode = self.fs.inode_of(reply.block, self, name)
            self.added(name, inode)
        return inode

    async def link(self, name: bytes, target: Inode) -> None:
        if not isinstance(target, GoferInode) or target.fs is not self.fs:
            raise EXDEV("a file of another file system")
        to = await self.directory_fid()
        fid, old = await target.reach()
        target.changed()
        with self.changing(IN_CREATE, name):
            reply = expect(await self.fs.session.call(Tlinkx(fid, old, to, name)), Rlinkx)
            target.seen(WireAttributes.unpack(reply.block))
            self.added(name, target)

    async def unlink(self, name: bytes, child: Inode) -> None:
        await self._remove(name, child, 0)

    def unlink_now(
        self, name: bytes, child: Inode
    ) -> bool | Coroutine[Any, Any, None]:
        if self.fid < 0 or _needs_keeper(child):
            return False
        self.fs.fids.used(self)
        change = self.changing(IN_DELETE, name)
        try:
            pending = self.fs.session.ask(Tunlinkat(self.fid, name, 0))
            if not pending.done:
                return self._unlink_later(name, child, pending, change)
            pending.result()
            self.removed(name)
        except BaseException:
            change.failed()
            raise
        change.done()
        if isinstance(child, GoferInode):
            child.lost_name()
        return True

    async def _unlink_later(
        self, name: bytes, child: Inode, pending: Pending, change: OwnChange
    ) -> None:
        async with self.lock:
            with change:
                await self.fs.session.wait_asleep(pending)
                self.removed(name)
            if isinstance(child, GoferInode):
                child.lost_name()

    async def rmdir(self, name: bytes, child: Inode) -> None:
        await self._remove(name, child, AT_REMOVEDIR)

    async def _remove(self, name: bytes, child: Inode, flags: int) -> None:
        fid = await self.directory_fid()
        with self.changing(removed(child.mode), name):
            keeper = self._keep(fid, name, child)
            try:
                await self.fs.session.call(Tunlinkat(fid, name, flags))
            finally:
                await self._kept(keeper)
            self.removed(name)
        if isinstance(child, GoferInode):
            child.lost_name()

    async def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        if not isinstance(new_dir, GoferDirectory) or not isinstance(child, GoferInode):
            raise EXDEV("a directory of another file system")
        if flags & ~(RENAME_EXCHANGE | RENAME_NOREPLACE):
            raise EINVAL("no whiteouts here")
        fid, to = await self.directory_fid(), await new_dir.directory_fid()
        other = new_dir.known(new_name)
        keeper = None
        if other is not None and not flags:
            keeper = new_dir._keep(to, new_name, other)
        try:
            await self.fs.session.call(Trenamex(fid, name, to, new_name, flags))
        finally:
            await self._kept(keeper)
        if other is child:
            return  # two names of one file: rename(2) does nothing
        if flags & RENAME_EXCHANGE:
            self.removed(name)
            if other is not None:
                self.added(name, other)
                other.changed()
            else:
                self.names.pop(name, None)
                self.drop_listing()
        else:
            self.removed(name)
            if other is not None:
                other.lost_name()
        new_dir.added(new_name, child)
        child.changed()

    def _keep(self, fid: int, name: bytes, child: Inode) -> Keeper | None:
        """Bind a fid to an open file that is about to lose this name."""
        if not _needs_keeper(child):
            return None
        bound = self.fs.session.new_fid()
        pending = self.fs.session.send(Twalkx(fid, bound, NOOPEN, 0, [name]))
        return Keeper(pending, child, bound)

    async def _kept(self, keeper: Keeper | None) -> None:
        if keeper is None:
            return
        pending, child, bound = keeper
        session = self.fs.session
        reply = expect(await session.wait(pending), Rwalkx)
        if reply.error:
            session.free_fid(bound)
            return
        wire = WireAttributes.unpack(reply.blocks[-1])
        if (wire.dev, wire.ino) != child.key or child.fid >= 0:
            session.clunk(bound)
        else:
            child.fid = bound


def _creation(fid: int, name: bytes, mode: int, owner: Owner) -> Tcreatex:
    return Tcreatex(fid, NOFID, name, O_RDWR | O_EXCL, 1, mode, owner.uid, owner.gid)


def _needs_keeper(child: Inode) -> TypeGuard[GoferRegular]:
    """It is open, and will be asked for by no name."""
    return isinstance(child, GoferRegular) and child.fid < 0 and child.in_use


class GoferDirectoryFile(DirectoryFile):
    """An open directory."""

    __slots__ = ()

    async def sync(self, data_only: bool) -> None:
        inode = self.inode
        assert isinstance(inode, GoferInode)
        await inode.sync(data_only)
