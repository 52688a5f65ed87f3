"""ioctl(2): what works on every descriptor; the rest is the file's."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_RAWIO
from sentry.abi.fcntl import O_ASYNC, O_NONBLOCK
from sentry.abi.ioctl import FIBMAP, FIONREAD, FIOQSIZE
from sentry.errors import EINVAL, EISDIR, ENOMEM, ENOTTY, EOPNOTSUPP, EPERM, EXDEV
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, UInt
from sentry.vfs.file import SETFL_MASK, FileDescription, Result, check_ends
from sentry.vfs.flags import FLAG_REQUESTS, flags_ioctl
from sentry.vfs.notices import set_async
from sentry.vfs.requests import Requests

if TYPE_CHECKING:
    from sentry.kernel.task import Task

DEDUPE_HEADER: Final = 24
"""Bytes of struct file_dedupe_range,"""
DEDUPE_INFO: Final = 32
"""and of each struct file_dedupe_range_info behind it."""


EVERY: Final = Requests()
"""do_vfs_ioctl(): what works on every descriptor. Handlers get the descriptor's number, too."""


@EVERY.handles("FIOCLEX")
def close_on_exec(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Set FD_CLOEXEC."""
    task.files.set_close_on_exec(fd, True)


@EVERY.handles("FIONCLEX")
def keep_on_exec(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Clear FD_CLOEXEC."""
    task.files.set_close_on_exec(fd, False)


@EVERY.handles("FIONBIO")
def set_nonblock(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """An int that says on or off."""
    on = any(task.mm.read(argument, 4))
    flags = file.flags | O_NONBLOCK if on else file.flags & ~O_NONBLOCK
    file.set_flags(task, flags & SETFL_MASK)


@EVERY.handles("FIOASYNC")
def set_async_flag(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """The same. Raises: ENOTTY for a file that cannot do it."""
    on = any(task.mm.read(argument, 4))
    if on != bool(file.flags & O_ASYNC):
        if not file.can_async:
            raise ENOTTY("no O_ASYNC")
        set_async(task, file, fd, on=on)


@EVERY.handles("FIGETBSZ")
def block_size(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """4096 everywhere."""
    task.mm.write(argument, struct.pack("<i", 4096))


@EVERY.handles("FIFREEZE", partial="no file system can be frozen: EOPNOTSUPP")
def freeze(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Raises: EPERM, EOPNOTSUPP."""
    if not task.creds.has(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    raise EOPNOTSUPP("cannot be frozen")


@EVERY.handles("FITHAW", partial="no file system can be frozen: EINVAL")
def thaw(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Raises: EPERM, EINVAL."""
    if not task.creds.has(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    raise EINVAL("not frozen")


@EVERY.handles("FS_IOC_FIEMAP", partial="no extents: EOPNOTSUPP")
def extents(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Raises: EOPNOTSUPP."""
    raise EOPNOTSUPP("no extents")


@EVERY.handles("FICLONERANGE", partial="no file system shares blocks: EOPNOTSUPP")
def clone_range(task: Task, target: FileDescription, fd: int, argument: int) -> None:
    """The first word of struct file_clone_range is the source."""
    clone(task, target, fd, struct.unpack("<qQQQ", task.mm.read(argument, 32))[0])


@EVERY.handles("FICLONE", partial="no file system shares blocks: EOPNOTSUPP")
def clone(task: Task, target: FileDescription, fd: int, argument: int) -> None:
    """do_clone_file_range()."""
    source = task.files.get(argument & 0xFFFFFFFF)
    if source.inode.fs is not target.inode.fs:
        raise EXDEV("another file system")
    check_ends(source, target)
    raise EOPNOTSUPP("no reflinks")


@EVERY.handles("FIDEDUPERANGE", partial="no file system shares blocks: EOPNOTSUPP")
def dedupe(task: Task, source: FileDescription, fd: int, argument: int) -> None:
    """vfs_dedupe_file_range(), as far as a file system without it lets it come."""
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


@EVERY.handles("FIBMAP", partial="no blocks: EINVAL")
def block_number(task: Task, file: FileDescription, fd: int, argument: int) -> Result:
    """Of regular files. Raises: EPERM, EFAULT, EINVAL."""
    if not file.inode.is_regular:
        return file.ioctl(task, FIBMAP, argument)
    if not task.creds.has(CAP_SYS_RAWIO):
        raise EPERM("CAP_SYS_RAWIO")
    task.mm.read(argument, 4)
    raise EINVAL("no blocks")


@EVERY.handles("FS_IOC_GETFSUUID")
def file_system_id(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Raises: ENOTTY where the file system has none."""
    uuid = file.inode.fs.uuid
    if not uuid:
        raise ENOTTY("the file system has none")
    task.mm.write(argument, bytes([len(uuid)]) + uuid)


@EVERY.handles("FS_IOC_GETFSSYSFSPATH", partial="no file system has a place in /sys: ENOTTY")
def sysfs_path(task: Task, file: FileDescription, fd: int, argument: int) -> None:
    """Raises: ENOTTY."""
    raise ENOTTY("not in /sys")


def inode_flags(
    request: int, task: Task, file: FileDescription, fd: int, argument: int
) -> Result:
    """FS_IOC_GETFLAGS and its relatives, where the file system has flags."""
    inode = file.inode
    if inode.fs.has_flags and (inode.is_regular or inode.is_dir):
        return flags_ioctl(task, file.location, request, argument)
    return file.ioctl(task, request, argument)


for _name, _request in FLAG_REQUESTS.items():
    EVERY.row(_name, partial(inode_flags, _request))


@EVERY.handles("FIONREAD")
def unread(task: Task, file: FileDescription, fd: int, argument: int) -> Result:
    """Of a regular file, what is left up to its end."""
    if file.inode.is_regular:
        return file_size(task, file, FIONREAD, argument)
    return file.ioctl(task, FIONREAD, argument)


@EVERY.handles("FIOQSIZE")
def disk_size(task: Task, file: FileDescription, fd: int, argument: int) -> Result:
    """Raises: ENOTTY for what is neither a file nor a directory."""
    if not (file.inode.is_regular or file.inode.is_dir):
        raise ENOTTY("no size")
    return file_size(task, file, FIOQSIZE, argument)


@syscall(16)
def sys_ioctl(task: Task, fd: UInt, request: UInt, argument: Addr) -> Result | None:
    """ioctl(2): do_vfs_ioctl(), then the file's own."""
    file = task.files.get(fd)
    row = EVERY.get(request)
    if row is None:
        return file.ioctl(task, request, argument)
    result: Result | None = row.handler(task, file, fd, argument)
    return result


def file_size(task: Task, file: FileDescription, request: int, argument: int) -> int:
    """FIONREAD: bytes up to the end; FIOQSIZE: bytes on the disk."""
    attributes = file.stat()
    if request == FIONREAD:
        left = attributes.size - file.position
        task.mm.write(argument, struct.pack("<I", left & 0xFFFFFFFF))
    else:
        task.mm.write(argument, struct.pack("<q", attributes.blocks * 512))
    return 0
