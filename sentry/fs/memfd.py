"""memfd_create(2), memfd_secret(2): files of the kernel's own tmpfs, with a label for a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sentry.abi.fcntl import O_LARGEFILE, O_RDWR
from sentry.abi.mount import MS_STRICTATIME
from sentry.abi.stat import SECRETMEM_MAGIC
from sentry.errors import EINVAL, ENXIO, EOPNOTSUPP, ESPIPE
from sentry.fs.tmpfs.file import TmpFile, TmpOpenFile
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, Dest, Result, Source
    from sentry.vfs.interface import Changes, Owner
    from sentry.vfs.mount import Mount
    from sentry.vfs.vfs import Vfs

SERVICE = "shm_mnt"


def internal_mount(vfs: Vfs, kind: type[TmpFs] = TmpFs) -> Mount:
    """The mount that memfds and System V segments live on, made when first needed."""
    service = SERVICE if kind is TmpFs else kind.name
    mount = vfs.internal.get(service)
    if mount is None:
        mount = vfs.internal[service] = vfs.new_mount(kind.make(vfs), MS_STRICTATIME)
    return mount


class MemFdFile(TmpOpenFile):
    """An open file of memfd_create(2)."""

    __slots__ = ()
    can_direct: ClassVar = False


class SecretFile(TmpOpenFile):
    """An open file of memfd_secret(2): it is mapped, never read. mm/secretmem.c."""

    __slots__ = ()
    secret: ClassVar = True
    """What the mappings are told."""
    seekable: ClassVar = False
    has_read: ClassVar = False
    has_write: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    can_direct: ClassVar = False

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """Not possible."""
        raise EINVAL("no read")

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """Not possible."""
        raise EINVAL("no write")

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """Not possible."""
        raise ESPIPE("no positions")

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """Not possible."""
        raise ESPIPE("no positions")

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """Not possible."""
        raise ESPIPE("no positions")

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        """Not possible."""
        raise EOPNOTSUPP("no fallocate")


class SecretFs(TmpFs):
    """Where such files live."""

    name = "secretmem"
    magic = SECRETMEM_MAGIC
    has_flags: ClassVar = False
    has_handles: ClassVar = False
    posix_acls = False
    uuid = b""


class SecretInode(TmpFile):
    """Its size is set once."""

    __slots__ = ()

    def setattr(self, changes: Changes) -> None:
        """secretmem_setattr(). Raises: EINVAL."""
        if changes.size is not None and self.data is not None and self.data.size:
            raise EINVAL("has its size already")
        super().setattr(changes)

    def open(self, location: Location, flags: int, caller: Caller) -> TmpOpenFile:
        """By /proc/PID/fd: no_open()."""
        raise ENXIO("not to be opened again")


def memfd(vfs: Vfs, label: bytes, owner: Owner, mode: int, seals: int) -> MemFdFile:
    """An open file without a name."""
    mount = internal_mount(vfs)
    fs = mount.fs
    assert isinstance(fs, TmpFs)
    fs.check_inodes()
    inode = TmpFile(fs, mode, owner)
    inode.seals = seals  # type: ignore[misc]
    return MemFdFile(_nameless(mount, b"/memfd:" + label, inode), O_RDWR)


def secret(vfs: Vfs, owner: Owner) -> SecretFile:
    """An open file whose memory nobody reads but through a mapping."""
    mount = internal_mount(vfs, SecretFs)
    fs = mount.fs
    assert isinstance(fs, TmpFs)
    fs.check_inodes()
    inode = SecretInode(fs, 0o600, owner)
    location = _nameless(mount, b"/secretmem", inode)
    inode.nlink = 1
    return SecretFile(location, O_RDWR | O_LARGEFILE)


def _nameless(mount: Mount, label: bytes, inode: TmpFile) -> Location:
    inode.nlink = 0
    dentry = Dentry(None, label, inode)
    dentry.unlinked = True
    return Location(mount, dentry)
