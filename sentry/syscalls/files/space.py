"""Room on disk and what has reached it: fallocate, fsync, sync, fadvise, readahead."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.fcntl import (
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_ZERO_RANGE,
    FS_IMMUTABLE_FL,
    POSIX_FADV_NOREUSE,
)
from sentry.abi.inotify import IN_MODIFY
from sentry.abi.stat import S_IFIFO
from sentry.auth.permissions import drop_set_id
from sentry.errors import (
    EBADF,
    EFBIG,
    EINVAL,
    EISDIR,
    ENODEV,
    EOPNOTSUPP,
    EPERM,
    ESPIPE,
    ETXTBSY,
    Errno,
)
from sentry.suppress import suppress
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import File, Int, Offset, RawFile, Size, UInt, UserIn, UserOut
from sentry.vfs.flags import check_append_only
from sentry.vfs.interface import Changes
from sentry.vfs.watches import tell

if TYPE_CHECKING:
    from sentry.kernel.task import Task

FALLOCATE_MODES = (
    FALLOC_FL_KEEP_SIZE
    | FALLOC_FL_PUNCH_HOLE
    | FALLOC_FL_COLLAPSE_RANGE
    | FALLOC_FL_ZERO_RANGE
    | FALLOC_FL_INSERT_RANGE
    | FALLOC_FL_UNSHARE_RANGE
)


@syscall(285)
def sys_fallocate(
    task: Task, file: File, mode: Int, offset: Offset, length: Offset
) -> None:
    """fallocate(2): vfs_fallocate()."""
    if offset < 0 or length <= 0:
        raise EINVAL(f"{offset} {length}")
    if mode & ~FALLOCATE_MODES:
        raise EOPNOTSUPP(f"mode {mode:#x}")
    punch, zero = mode & FALLOC_FL_PUNCH_HOLE, mode & FALLOC_FL_ZERO_RANGE
    if punch and zero:
        raise EOPNOTSUPP("PUNCH_HOLE and ZERO_RANGE")
    if punch and not mode & FALLOC_FL_KEEP_SIZE:
        raise EOPNOTSUPP("PUNCH_HOLE without KEEP_SIZE")
    for alone in (FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE):
        if mode & alone and mode & ~alone:
            raise EOPNOTSUPP(f"mode {mode:#x}")
    if mode & FALLOC_FL_UNSHARE_RANGE and mode & ~(FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE):
        raise EOPNOTSUPP(f"mode {mode:#x}")
    if not file.writable:
        raise EBADF("not open for writing")
    inode = file.inode
    if inode.file_flags & FS_IMMUTABLE_FL:
        raise EPERM("immutable")
    if mode & ~FALLOC_FL_KEEP_SIZE:
        check_append_only(inode)
    if inode.write_count < 0:
        raise ETXTBSY("a program is running from it")
    if inode.kind == S_IFIFO:
        raise ESPIPE("a pipe")
    if inode.is_dir:
        raise EISDIR("a directory")
    if not inode.is_regular:
        raise ENODEV("not a regular file")
    if offset + length > (1 << 63) - 1:
        raise EFBIG("beyond the largest offset")
    with inode.lock:
        file.allocate(task, mode, offset, length)
        bits = drop_set_id(task.creds, inode.mode, inode.gid)
        if bits is not None:
            inode.setattr(Changes(mode=bits))
    if inode.fs.watched:
        tell(file.location, IN_MODIFY)


@syscall(74)
def sys_fsync(task: Task, file: File) -> None:
    """fsync(2)."""
    file.sync(False)


@syscall(75)
def sys_fdatasync(task: Task, file: File) -> None:
    """fdatasync(2)."""
    file.sync(True)


@syscall(162)
def sys_sync(task: Task) -> None:
    """sync(2): nobody is told what went wrong."""
    for fs in {id(m.fs): m.fs for m in task.mounts}.values():
        with suppress(Errno):
            fs.sync()


@syscall(306)
def sys_syncfs(task: Task, file: File) -> None:
    """syncfs(2)."""
    file.inode.fs.sync()
    file.tell_refused()


@syscall(277)
def sys_sync_file_range(
    task: Task, file: File, offset: Offset, length: Offset, flags: UInt
) -> None:
    """sync_file_range(2)."""
    if flags & ~7 or offset < 0 or length < 0 or offset + length > (1 << 63) - 1:
        raise EINVAL(f"{offset} {length} {flags:#x}")
    if not (file.inode.is_regular or file.inode.is_dir or file.inode.is_symlink):
        raise ESPIPE("no file with pages")
    if flags:
        with suppress(EINVAL):  # no file system behind it
            file.sync(True)


@syscall(221)
def sys_fadvise64(task: Task, file: File, offset: Offset, length: Offset, advice: Int) -> None:
    """posix_fadvise(2): there is nothing to do, but to check."""
    if file.inode.kind == S_IFIFO:
        raise ESPIPE("a pipe")
    if length < 0 or not 0 <= advice <= POSIX_FADV_NOREUSE:
        raise EINVAL(f"{length} {advice}")


@syscall(187)
def sys_readahead(task: Task, file: RawFile, offset: Offset, count: Size) -> None:
    """readahead(2): what is needed is read when it is needed."""
    if not file.readable:
        raise EBADF("not open for reading")
    if not file.inode.is_regular or count >> 63:
        raise EINVAL("not a regular file, or less than nothing")


@syscall(451)
def sys_cachestat(task: Task, fd: UInt, extent: UserIn, result: UserOut, flags: UInt) -> None:
    """cachestat(2): all of a file is in memory, and nothing of it is dirty."""
    file = task.files.get(fd)
    start, length = struct.unpack("<QQ", extent.get(16))
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    pages = 0
    if file.inode.is_regular:
        last = (max((file.stat()).size, 1) - 1) >> 12
        first = start >> 12
        end = (start + length - 1) >> 12 if length else last
        empty = not (file.stat()).size
        pages = 0 if empty else max(0, min(end, last) - first + 1)
    result.put(struct.pack("<5Q", pages, 0, 0, 0, 0))
