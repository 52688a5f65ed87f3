"""Copy-up: a lower file gets attributes, and bytes, of its own in memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_RDONLY
from sentry.errors import ENODATA, ENOMEM, ENOSPC, EOPNOTSUPP
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.inode import TmpInode, TmpLink, TmpSpecial
from sentry.mm.buffers import KernelDest
from sentry.vfs.dentry import Dentry
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Attributes, Inode, Owner
from sentry.vfs.location import Location
from sentry.wait.again import again, begun
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.overlay.inode import OverlayInode

PIECE: Final = 1 << 18


def copied_up(inode: OverlayInode, limit: int | None = None) -> TmpInode:
    """The upper inode, made if there is none: all bytes, or the first `limit` of them.

    Raises: ENOSPC, EIO, and then nothing has changed; NotNow.
    """
    return inode.upper or begun((inode, copied_up), partial(_copy_up, inode, limit))


async def _copy_up(inode: OverlayInode, limit: int | None) -> TmpInode:
    async with inode.copying:
        if inode.upper is not None:
            return inode.upper
        lower = inode.lower
        assert lower is not None
        upper = await _twin(inode, lower)
        if isinstance(upper, TmpFile) and limit != 0:
            await _copy_bytes(inode, lower, upper, limit)
        attributes: Attributes = await again(lower.stat)
        upper.nlink = attributes.nlink
        upper.atime_ns, upper.mtime_ns = attributes.atime_ns, attributes.mtime_ns
        upper.ctime_ns = attributes.ctime_ns
        upper.ino = inode.ino
        inode.upper, inode.acl = upper, upper.acl
        links = inode.links  # below 0 if a name was removed, perhaps meanwhile
        lost = links < 0 and not inode.is_dir and attributes.nlink + links <= 0
        if not (lost or inode.removed):
            inode.sb.keep(inode)
        return upper


async def _twin(inode: OverlayInode, lower: Inode) -> TmpInode:
    """An inode of the same kind with the same attributes."""
    fs = inode.sb.upper
    fs.check_inodes()
    owner = Owner(lower.uid, lower.gid)
    twin: TmpInode
    if lower.is_regular:
        twin = TmpFile(fs, lower.mode & 0o7777, owner)
    elif lower.is_dir:
        twin = TmpDirectory(fs, lower.mode & 0o7777, owner)
    elif lower.is_symlink:
        twin = TmpLink(fs, await again(lower.readlink), owner)
    else:
        twin = TmpSpecial(fs, lower.mode, lower.rdev, owner)
    try:
        for name in await again(lower.listxattr):
            try:
                value = await again(lower.getxattr, name)
            except ENODATA:
                continue
            twin.setxattr(name, value, 0)
    except EOPNOTSUPP:
        pass
    return twin


async def _copy_bytes(inode: OverlayInode, lower: Inode, upper: TmpFile, limit: int | None) -> None:
    mount = inode.sb.lower
    place = Location(mount, Dentry(None, b"", lower))
    nobody: Any = None
    file: FileDescription = await again(lower.open, place, O_RDONLY, nobody)
    file.incref()
    try:
        await copy_data(file, upper, limit)
    finally:
        file.decref()


async def copy_data(file: FileDescription, upper: TmpFile, limit: int | None) -> None:
    """Read the lower file from its start to its end (or `limit`) into frames."""
    nobody: Any = None
    data, at, pace = upper.bytes(), 0, Pace()
    while limit is None or at < limit:
        dest = KernelDest(PIECE if limit is None else min(PIECE, limit - at))
        got = await again(file.read_at, nobody, dest, at)
        if not got:
            break
        try:
            if upper.room(at, got) < got or data.write(at, dest.data[:got]) < got:
                raise ENOSPC("the upper layer is full")
        except ENOMEM as error:
            raise ENOSPC(str(error)) from error
        at += got
        await pace.rest()
