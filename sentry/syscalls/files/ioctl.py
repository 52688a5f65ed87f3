"""ioctl(2): what works on every descriptor; the rest is the file's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_RAWIO
from sentry.abi.fcntl import O_ASYNC, O_NONBLOCK
from sentry.abi.ioctl import (
    FIBMAP,
    FICLONE,
    FICLONERANGE,
    FIDEDUPERANGE,
    FIFREEZE,
    FIGETBSZ,
    FIOASYNC,
    FIOCLEX,
    FIONBIO,
    FIONCLEX,
    FIONREAD,
    FIOQSIZE,
    FITHAW,
    FS_IOC_FIEMAP,
    FS_IOC_GETFSSYSFSPATH,
    FS_IOC_GETFSUUID,
)
from sentry.errors import EINVAL, EISDIR, ENOMEM, ENOTTY, EOPNOTSUPP, EPERM, EXDEV
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, UInt
from sentry.vfs.file import SETFL_MASK, FileDescription, Result, check_ends
from sentry.vfs.flags import REQUESTS, flags_ioctl
from sentry.vfs.notices import set_async

if TYPE_CHECKING:
    from sentry.kernel.task import Task

DEDUPE_HEADER: Final = 24
"""Bytes of struct file_dedupe_range,"""
DEDUPE_INFO: Final = 32
"""and of each struct file_dedupe_range_info behind it."""


def set_status_flag(task: Task, file: FileDescription, flag: int, argument: int) -> int:
    """FIONBIO: an int that says on or off."""
    on = any(task.mm.read(argument, 4))
    flags = file.flags | flag if on else file.flags & ~flag
    file.set_flags(task, flags & SETFL_MASK)
    return 0


def set_async_flag(task: Task, file: FileDescription, fd: int, argument: int) -> int:
    """FIOASYNC. Raises: ENOTTY for a file that cannot do it."""
    on = any(task.mm.read(argument, 4))
    if on != bool(file.flags & O_ASYNC):
        if not file.can_async:
            raise ENOTTY("no O_ASYNC")
        set_async(task, file, fd, on=on)
    return 0


def freeze(task: Task, request: int) -> int:
    """FIFREEZE, FITHAW: no file system here can be frozen. Raises: EPERM, EOPNOTSUPP, EINVAL."""
    if not task.creds.has(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    if request == FIFREEZE:
        raise EOPNOTSUPP("cannot be frozen")
    raise EINVAL("not frozen")


def clone_from(task: Task, target: FileDescription, request: int, argument: int) -> int:
    """FICLONE, FICLONERANGE: do_clone_file_range(). No file system here shares blocks."""
    number = argument
    if request == FICLONERANGE:
        number = struct.unpack("<qQQQ", task.mm.read(argument, 32))[0]
    source = task.files.get(number & 0xFFFFFFFF)
    if source.inode.fs is not target.inode.fs:
        raise EXDEV("another file system")
    check_ends(source, target)
    raise EOPNOTSUPP("no reflinks")


def dedupe(task: Task, source: FileDescription, argument: int) -> int:
    """FIDEDUPERANGE: vfs_dedupe_file_range(), as far as a file system without it lets it come."""
    header = struct.unpack("<QQHHI", task.mm.read(argument, DEDUPE_HEADER))
    if DEDUPE_HEADER + header[2] * DEDUPE_INFO > PAGE_SIZE:
        raise ENOMEM("more than a page of ranges")
    task.mm.read(argument, DEDUPE_HEADER + header[2] * DEDUPE_INFO)
    if not source.readable:
        raise EINVAL("not open for reading")
    if header[3] or header[4]:
        raise EINVAL("reserved fields")
    if source.inode.is_dir:
        raise EISDIR("a directory")
    if not source.inode.is_regular:
        raise EINVAL("not a regular file")
    raise EOPNOTSUPP("no shared blocks")


def block_number(task: Task, argument: int) -> int:
    """FIBMAP. Raises: EPERM, EFAULT, EINVAL."""
    if not task.creds.has(CAP_SYS_RAWIO):
        raise EPERM("CAP_SYS_RAWIO")
    task.mm.read(argument, 4)
    raise EINVAL("no blocks")


def file_system_id(task: Task, file: FileDescription, request: int, argument: int) -> int:
    """FS_IOC_GETFSUUID; no file system has a place in /sys. Raises: ENOTTY."""
    uuid = file.inode.fs.uuid
    if not uuid or request == FS_IOC_GETFSSYSFSPATH:
        raise ENOTTY("the file system has none")
    task.mm.write(argument, bytes([len(uuid)]) + uuid)
    return 0


@syscall(16)
def sys_ioctl(task: Task, fd: UInt, request: UInt, argument: Addr) -> Result:
    """ioctl(2): do_vfs_ioctl(), then the file's own."""
    file = task.files.get(fd)
    if request == FIOCLEX:
        task.files.set_close_on_exec(fd, True)
        return 0
    if request == FIONCLEX:
        task.files.set_close_on_exec(fd, False)
        return 0
    if request == FIONBIO:
        return set_status_flag(task, file, O_NONBLOCK, argument)
    if request == FIOASYNC:
        return set_async_flag(task, file, fd, argument)
    inode = file.inode
    if request == FIOQSIZE:
        if not (inode.is_regular or inode.is_dir):
            raise ENOTTY("no size")
        return file_size(task, file, request, argument)
    if request == FIGETBSZ:
        task.mm.write(argument, struct.pack("<i", 4096))
        return 0
    if request in (FIFREEZE, FITHAW):
        return freeze(task, request)
    if request in (FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH):
        return file_system_id(task, file, request, argument)
    if request == FS_IOC_FIEMAP:
        raise EOPNOTSUPP("no extents")
    if request in (FICLONE, FICLONERANGE):
        return clone_from(task, file, request, argument)
    if request == FIDEDUPERANGE:
        return dedupe(task, file, argument)
    if request in REQUESTS and inode.fs.has_flags and (inode.is_regular or inode.is_dir):
        return flags_ioctl(task, file.location, request, argument)
    if inode.is_regular and request == FIBMAP:
        return block_number(task, argument)
    if inode.is_regular and request == FIONREAD:
        return file_size(task, file, request, argument)
    return file.ioctl(task, request, argument)


def file_size(task: Task, file: FileDescription, request: int, argument: int) -> int:
    """FIONREAD: bytes up to the end; FIOQSIZE: bytes on the disk."""
    attributes = file.stat()
    if request == FIONREAD:
        left = attributes.size - file.position
        task.mm.write(argument, struct.pack("<I", left & 0xFFFFFFFF))
    else:
        task.mm.write(argument, struct.pack("<q", attributes.blocks * 512))
    return 0
