"""The mount option tmpcopyup: a new tmpfs starts with what was below its mount point.

runc's and crun's, not Linux's; podman uses it for the tmpfs mounts of a read-only container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import O_RDONLY
from sentry.fs.overlay.copyup import copy_data
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.vfs.dentry import Dentry
from sentry.vfs.interface import Absent, Inode, Owner
from sentry.vfs.location import Location
from sentry.vfs.walk import child_of
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.vfs.mount import Mount


async def copy_tree(mount: Mount, source: Inode, into: TmpDirectory) -> None:
    """Copy what is in a directory, without what is mounted there. Raises: ENOSPC, EIO."""
    pending = [(source, into)]
    while pending:
        directory, target = pending.pop()
        for entry in await again(directory.entries):
            child: Inode | Absent = await again(child_of, directory, entry.name)
            if isinstance(child, Absent):
                continue
            made = await _copy(mount, child, target, entry.name)
            if made is not None:
                pending.append((child, made))


async def _copy(
    mount: Mount, child: Inode, target: TmpDirectory, name: bytes
) -> TmpDirectory | None:
    """One entry; a directory is given back, to be filled."""
    owner = Owner(child.uid, child.gid)
    if child.is_dir:
        return await again(target.mkdir, name, child.mode & 0o7777, owner)
    if child.is_symlink:
        await again(target.symlink, name, await again(child.readlink), owner)
    elif child.is_regular:
        made = await again(target.create, name, child.mode & 0o7777, owner)
        nobody: Any = None
        place = Location(mount, Dentry(None, name, child))
        file = (await again(child.open, place, O_RDONLY, nobody)).incref()
        try:
            await copy_data(file, made, None)
        finally:
            file.decref()
    else:
        await again(target.mknod, name, child.mode, child.rdev, owner)
    return None
