"""ioctl(2): what works on every descriptor; the rest is the file's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_RAWIO
from sentry.abi.fcntl import O_ACCMODE, O_NONBLOCK
from sentry.abi.ioctl import (
    FIBMAP,
    FICLONE,
    FICLONERANGE,
    FIGETBSZ,
    FIOASYNC,
    FIOCLEX,
    FIONBIO,
    FIONCLEX,
    FIONREAD,
    FIOQSIZE,
)
from sentry.errors import EBADF, EINVAL, ENOTTY, EOPNOTSUPP, EPERM
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, UInt
from sentry.vfs.file import SETFL_MASK, FileDescription, Result
from sentry.vfs.notices import O_ASYNC, set_async

if TYPE_CHECKING:
    from sentry.kernel.task import Task


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


@syscall(16)
def sys_ioctl(task: Task, fd: UInt, request: UInt, argument: Addr) -> Result:
    """ioctl(2)."""
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
    if inode.is_regular and request in (FIONREAD, FIOQSIZE):
        return file_size(task, file, request, argument)
    if request == FIGETBSZ:
        task.mm.write(argument, struct.pack("<i", 4096))
        return 0
    if request == FIBMAP and inode.is_regular:
        if not task.creds.has(CAP_SYS_RAWIO):
            raise EPERM("CAP_SYS_RAWIO")
        raise EINVAL("no blocks")
    if request in (FICLONE, FICLONERANGE):
        if not file.flags & O_ACCMODE:
            raise EBADF("not open for writing")
        raise EOPNOTSUPP("no reflinks")
    return file.ioctl(task, request, argument)


async def file_size(task: Task, file: FileDescription, request: int, argument: int) -> int:
    """FIONREAD: bytes up to the end; FIOQSIZE: the size."""
    size = (await file.stat()).size
    if request == FIONREAD:
        task.mm.write(argument, struct.pack("<I", (size - file.position) & 0xFFFFFFFF))
    else:
        task.mm.write(argument, struct.pack("<q", size))
    return 0
