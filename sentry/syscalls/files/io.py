"""Reading, writing, positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import (
    FS_APPEND_FL,
    RWF_APPEND,
    RWF_ATOMIC,
    RWF_HIPRI,
    RWF_NOAPPEND,
    RWF_NOWAIT,
    RWF_SUPPORTED,
    SEEK_MAX,
)
from sentry.errors import EBADF, EFAULT, EINVAL, EOPNOTSUPP, EPERM, ESPIPE
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import (
    Addr,
    Fd,
    File,
    Offset,
    OutAddr,
    Readable,
    Size,
    UInt,
    UserIn,
    UserOut,
    Writable,
)
from sentry.vfs.file import FileDescription, Result

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def check_area(offset: int, count: int) -> None:
    """rw_verify_area(). Raises: EINVAL for a negative offset, or one that wraps."""
    if offset < 0 or offset + count > (1 << 63) - 1:
        raise EINVAL(f"offset {offset}")


@syscall(0, counts="r")
def sys_read(task: Task, file: Readable, buf: OutAddr, count: Size) -> Result:
    """read(2)."""
    if count >> 47:
        check_count(count)
    return file.read(task, task.mm.buffer_out(buf, count))


@syscall(1, counts="w")
def sys_write(task: Task, file: Writable, buf: Addr, count: Size) -> Result:
    """write(2)."""
    if count >> 47:
        check_count(count)
    return file.write(task, task.mm.buffer_in(buf, count))


def check_count(count: int) -> None:
    """Raises: EFAULT for a length that reaches beyond any memory."""
    if count >> 47:
        raise EFAULT(f"count {count:#x}")


def to_read(task: Task, fd: int, offset: int) -> FileDescription:
    """The file of a pread: EINVAL, EBADF, ESPIPE, EBADF, EINVAL, as ksys_pread64()."""
    if offset < 0:
        raise EINVAL(f"offset {offset}")
    file = task.files.get(fd & 0xFFFFFFFF)
    if not file.can_pread:
        raise ESPIPE("no positions")
    if not file.readable:
        raise EBADF(f"fd {fd} is not open for reading")
    if not file.has_read:
        raise EINVAL("no read")
    return file


def to_write(task: Task, fd: int, offset: int) -> FileDescription:
    """The file of a pwrite, as `to_read`."""
    if offset < 0:
        raise EINVAL(f"offset {offset}")
    file = task.files.get(fd & 0xFFFFFFFF)
    if not file.can_pwrite:
        raise ESPIPE("no positions")
    if not file.writable:
        raise EBADF(f"fd {fd} is not open for writing")
    if not file.has_write:
        raise EINVAL("no write")
    return file


@syscall(17, counts="r")
def sys_pread64(task: Task, fd: Fd, buf: OutAddr, count: Size, offset: Offset) -> Result:
    """pread(2)."""
    file = to_read(task, fd, offset)
    if count >> 47 or offset >> 62:
        check_count(count)
        check_area(offset, count)
    return file.read_at(task, task.mm.buffer_out(buf, count), offset)


@syscall(18, counts="w")
def sys_pwrite64(task: Task, fd: Fd, buf: Addr, count: Size, offset: Offset) -> Result:
    """pwrite(2)."""
    file = to_write(task, fd, offset)
    if count >> 47 or offset >> 62:
        check_count(count)
        check_area(offset, count)
    return file.write_at(task, task.mm.buffer_in(buf, count), offset)


@syscall(19, counts="r")
def sys_readv(task: Task, file: Readable, vector: UserOut, count: Size) -> Result:
    """readv(2)."""
    return read_iov(task, file, vector, count, 0)


@syscall(20, counts="w")
def sys_writev(task: Task, file: Writable, vector: UserIn, count: Size) -> Result:
    """writev(2)."""
    return write_iov(task, file, vector, count, 0)


def take_iov(vector: Any, count: int) -> Any:
    """The buffer behind a struct iovec array. Raises: EINVAL beyond UIO_MAXIOV, EFAULT."""
    count &= 0xFFFFFFFF
    if count > 1024:
        raise EINVAL(f"{count} vectors")
    return vector.take_iov(count)


def read_iov(task: Task, file: FileDescription, vector: Any, count: int, flags: int) -> Result:
    """vfs_readv() at the position: a vector of no bytes asks the file nothing."""
    if not file.has_read:
        raise EINVAL("no read")
    dest = take_iov(vector, count)
    if not dest.wanted:
        return 0
    return file.read(task, dest, check_rwf(flags, file, file.read_flags) if flags else 0)


def write_iov(task: Task, file: FileDescription, vector: Any, count: int, flags: int) -> Result:
    """vfs_writev() at the position."""
    if not file.has_write:
        raise EINVAL("no write")
    source = take_iov(vector, count)
    if not source.wanted:
        return 0
    return file.write(task, source, check_rwf(flags, file, file.write_flags) if flags else 0)


@syscall(295, counts="r")
def sys_preadv(
    task: Task, fd: Fd, vector: UserOut, count: Size, low: Size, high: Size
) -> Result:
    """preadv(2). The offset comes in two halves; on x86-64 the first is all of it."""
    return read_iov_at(task, fd, vector, count, (signed(low), 0))


def read_iov_at(
    task: Task, fd: int, vector: Any, count: int, how: tuple[int, int]
) -> Result:
    """do_preadv(); `how` is the offset and RWF_ flags."""
    offset, flags = how
    file = to_read(task, fd, offset)
    dest = take_iov(vector, count)
    if not dest.wanted:
        return 0
    check_area(offset, dest.wanted)
    return file.read_at(task, dest, offset, check_rwf(flags, file, file.read_flags) if flags else 0)


@syscall(296, counts="w")
def sys_pwritev(
    task: Task, fd: Fd, vector: UserIn, count: Size, low: Size, high: Size
) -> Result:
    """pwritev(2)."""
    return write_iov_at(task, fd, vector, count, (signed(low), 0))


def write_iov_at(
    task: Task, fd: int, vector: Any, count: int, how: tuple[int, int]
) -> Result:
    """do_pwritev(); `how` is the offset and RWF_ flags."""
    offset, flags = how
    file = to_write(task, fd, offset)
    source = take_iov(vector, count)
    if not source.wanted:
        return 0
    check_area(offset, source.wanted)
    rwf = check_rwf(flags, file, file.write_flags) if flags else 0
    return file.write_at(task, source, offset, rwf)


def signed(value: int) -> int:
    """An unsigned 64-bit number as loff_t."""
    return (value ^ (1 << 63)) - (1 << 63)


def check_rwf(flags: int, file: FileDescription, taken: bool) -> int:
    """kiocb_set_rw_flags(); `taken`: the file takes flags at all. Raises: EOPNOTSUPP, EINVAL."""
    supported = RWF_SUPPORTED & ~RWF_ATOMIC if taken else RWF_HIPRI
    if flags & ~supported or (flags & RWF_NOWAIT and not file.nowait):
        raise EOPNOTSUPP(f"flags {flags:#x}")
    if flags & RWF_APPEND and flags & RWF_NOAPPEND:
        raise EINVAL("RWF_APPEND and RWF_NOAPPEND")
    if flags & RWF_NOAPPEND and file.inode.file_flags & FS_APPEND_FL:
        raise EPERM("append-only")
    return flags


@syscall(327, counts="r")
def sys_preadv2(
    task: Task, fd: Fd, vector: UserOut, count: Size, low: Size, high: Size, flags: UInt
) -> Result:
    """preadv2(2): an offset of -1 is the position."""
    if signed(low) == -1:
        return read_iov(task, task.files.readable(fd & 0xFFFFFFFF), vector, count, flags)
    return read_iov_at(task, fd, vector, count, (signed(low), flags))


@syscall(328, counts="w")
def sys_pwritev2(
    task: Task, fd: Fd, vector: UserIn, count: Size, low: Size, high: Size, flags: UInt
) -> Result:
    """pwritev2(2): an offset of -1 is the position."""
    if signed(low) == -1:
        return write_iov(task, task.files.writable(fd & 0xFFFFFFFF), vector, count, flags)
    return write_iov_at(task, fd, vector, count, (signed(low), flags))


@syscall(8)
def sys_lseek(task: Task, file: File, offset: Offset, whence: UInt) -> Result:
    """lseek(2)."""
    if whence > SEEK_MAX:
        raise EINVAL(f"whence {whence}")
    return file.seek(task, offset, whence)
