"""Flags of inodes, as chattr(1) sets them: ioctl_iflags(2), mm/shmem.c, fs/file_attr.c.

FS_IMMUTABLE_FL and FS_APPEND_FL are kept by the checks that call `check_unsettable` and the like;
FS_NOATIME_FL by the file system; FS_NODUMP_FL only says something to dump(8).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_LINUX_IMMUTABLE
from sentry.abi.fcntl import FS_APPEND_FL, FS_IMMUTABLE_FL, FS_NOATIME_FL, FS_NODUMP_FL
from sentry.abi.ioctl import (
    FS_IOC_FSGETXATTR,
    FS_IOC_FSSETXATTR,
    FS_IOC_GETFLAGS,
    FS_IOC_SETFLAGS,
)
from sentry.auth.permissions import owner_or_capable
from sentry.errors import EOPNOTSUPP, EPERM

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, Result
    from sentry.vfs.interface import Inode
    from sentry.vfs.location import Location

FIXED: Final = FS_IMMUTABLE_FL | FS_APPEND_FL
MODIFIABLE: Final = FIXED | FS_NODUMP_FL | FS_NOATIME_FL
FLAG_REQUESTS: Final = {
    "FS_IOC_GETFLAGS": FS_IOC_GETFLAGS,
    "FS_IOC_SETFLAGS": FS_IOC_SETFLAGS,
    "FS_IOC_FSGETXATTR": FS_IOC_FSGETXATTR,
    "FS_IOC_FSSETXATTR": FS_IOC_FSSETXATTR,
}
FSXATTR_SIZE: Final = 28
XFLAGS: Final = (
    (FS_IMMUTABLE_FL, 0x08),
    (FS_APPEND_FL, 0x10),
    (FS_NOATIME_FL, 0x40),
    (FS_NODUMP_FL, 0x80),
)
"""fsx_xflags of struct fsxattr."""
XFLAGS_KNOWN: Final = sum(xflag for _, xflag in XFLAGS)


def check_fixed(inode: Inode) -> None:
    """Mode, owner, times, names and attributes of such a file stay. Raises: EPERM."""
    if inode.file_flags & FIXED:
        raise EPERM("immutable or append-only")


def check_append_only(inode: Inode) -> None:
    """What is written stays. Raises: EPERM."""
    if inode.file_flags & FS_APPEND_FL:
        raise EPERM("append-only")


def flags_ioctl(caller: Caller, location: Location, request: int, argument: int) -> Result:
    """FS_IOC_GETFLAGS and its relatives on a file or directory.

    Raises: EFAULT, EROFS, EPERM, EOPNOTSUPP for a flag or field that cannot be set.
    """
    inode = location.dentry.inode
    flags = inode.file_flags
    if request == FS_IOC_GETFLAGS:
        caller.mm.write(argument, struct.pack("<I", flags))
        return 0
    if request == FS_IOC_FSGETXATTR:
        shown = sum(xflag for flag, xflag in XFLAGS if flags & flag)
        caller.mm.write(argument, struct.pack("<I", shown).ljust(FSXATTR_SIZE, b"\0"))
        return 0
    if request == FS_IOC_SETFLAGS:
        (wanted,) = struct.unpack("<I", caller.mm.read(argument, 4))
    else:
        xflags, *others = struct.unpack_from("<5I", caller.mm.read(argument, FSXATTR_SIZE))
        wanted = sum(flag for flag, xflag in XFLAGS if xflags & xflag)
        if xflags & ~XFLAGS_KNOWN or any((others[0], *others[2:])):
            wanted |= ~MODIFIABLE
    location.mount.check_writable()
    if not owner_or_capable(caller.creds, inode.uid):
        raise EPERM("somebody else's file")
    if (wanted ^ flags) & FIXED and not caller.creds.has(CAP_LINUX_IMMUTABLE):
        raise EPERM("needs CAP_LINUX_IMMUTABLE")
    if wanted & ~MODIFIABLE:
        raise EOPNOTSUPP(f"flags {wanted:#x}")
    return _set(inode, wanted)


def _set(inode: Inode, flags: int) -> int:
    with inode.lock:
        inode.set_file_flags(flags)
    return 0
