"""memfd_create(2): a file of the kernel's own tmpfs, with a label for a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.fcntl import O_RDWR
from sentry.fs.tmpfs.file import TmpFile, TmpOpenFile
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.dentry import Dentry, Location

if TYPE_CHECKING:
    from sentry.vfs.interface import Owner
    from sentry.vfs.mounts import Mount
    from sentry.vfs.vfs import Vfs

SERVICE = "shm_mnt"


def internal_mount(vfs: Vfs) -> Mount:
    """The mount that memfds and System V segments live on, made when first needed."""
    mount = vfs.internal.get(SERVICE)
    if mount is None:
        mount = vfs.internal[SERVICE] = vfs.new_mount(TmpFs.make(vfs))
    return mount


def memfd(vfs: Vfs, label: bytes, owner: Owner, mode: int, seals: int) -> TmpOpenFile:
    """An open file without a name."""
    mount = internal_mount(vfs)
    fs = mount.fs
    assert isinstance(fs, TmpFs)
    fs.check_inodes()
    inode = TmpFile(fs, mode, owner)
    inode.nlink = 0
    inode.seals = seals
    dentry = Dentry(None, b"/memfd:" + label, inode)
    dentry.unlinked = True
    return TmpOpenFile(Location(mount, dentry), O_RDWR)
