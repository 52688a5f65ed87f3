"""Opening and closing files: open, openat2, creat, close, close_range."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import (
    AT_FDCWD,
    CLOSE_RANGE_CLOEXEC,
    CLOSE_RANGE_UNSHARE,
    O_CLOEXEC,
    O_CREAT,
    O_TRUNC,
    O_WRONLY,
    OPEN_HOW,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import E2BIG, EAGAIN, EINVAL
from sentry.syscalls.args import UserPath
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, DirFd, Mode, OpenFlags, PathAddr, Size, UInt
from sentry.vfs.file import Result
from sentry.vfs.open import O_CREAT_TRUNC_TMPFILE, OpenHow, open_path
from sentry.wait.again import CURRENT, again
from sentry.wait.steps import Steps, in_steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task

RESOLVE_FLAGS = (
    RESOLVE_BENEATH
    | RESOLVE_CACHED
    | RESOLVE_IN_ROOT
    | RESOLVE_NO_MAGICLINKS
    | RESOLVE_NO_SYMLINKS
    | RESOLVE_NO_XDEV
)


def open_fd(task: Task, dirfd: int, path: UserPath, how: OpenHow) -> int:
    """do_sys_openat2(): the flags are checked; then the name, a free number, and the file."""
    name = path.read()
    limit = task.rlimit(RLIMIT_NOFILE)
    if CURRENT.call is None:
        task.files.free_from(0, limit)
    file = open_path(task, dirfd, name, how)
    try:
        return task.files.install(file, limit, cloexec=bool(how.flags & O_CLOEXEC))
    except BaseException:
        file.incref().decref()
        raise


@syscall(2)
def sys_open(task: Task, path: PathAddr, flags: OpenFlags, mode: Mode) -> int:
    """open(2)."""
    return open_fd(task, AT_FDCWD, path, OpenHow.old(flags, mode))


@syscall(257)
def sys_openat(
    task: Task, dirfd: DirFd, path: PathAddr, flags: OpenFlags, mode: Mode
) -> int:
    """openat(2)."""
    return open_fd(task, dirfd, path, OpenHow.old(flags, mode))


@syscall(85)
def sys_creat(task: Task, path: PathAddr, mode: Mode) -> int:
    """creat(2)."""
    return open_fd(task, AT_FDCWD, path, OpenHow.old(O_CREAT | O_WRONLY | O_TRUNC, mode))


@syscall(437)
def sys_openat2(
    task: Task, dirfd: DirFd, path: PathAddr, how: Addr, size: Size
) -> int:
    """openat2(2): unknown flags fail. The struct may be longer if the rest is zero."""
    if size < OPEN_HOW.size:
        raise EINVAL(f"size {size}")
    if size > 4096:
        raise E2BIG(f"size {size}")
    raw = task.mm.read(how, size)
    if any(raw[OPEN_HOW.size :]):
        raise E2BIG("unknown fields are set")
    asked = OPEN_HOW.unpack(raw)
    if asked.flags >> 32:
        raise EINVAL(f"flags {asked.flags:#x}")
    if asked.resolve & ~RESOLVE_FLAGS:
        raise EINVAL(f"resolve {asked.resolve:#x}")
    if asked.resolve & RESOLVE_BENEATH and asked.resolve & RESOLVE_IN_ROOT:
        raise EINVAL("RESOLVE_BENEATH and RESOLVE_IN_ROOT")
    checked = OpenHow.strict(asked.flags, asked.mode, asked.resolve)
    if asked.resolve & RESOLVE_CACHED and checked.flags & O_CREAT_TRUNC_TMPFILE:
        raise EAGAIN("RESOLVE_CACHED changes nothing")
    return open_fd(task, dirfd, path, checked)


@syscall(3)
def sys_close(task: Task, fd: UInt) -> Result:
    """close(2)."""
    file = task.files.close(task, fd)
    if file.lingers:
        return file.linger_on(task)
    del file  # what only it had ends now, and is waited for
    return task.kernel.vfs.leftovers.awaited()


@syscall(436)
def sys_close_range(task: Task, first: UInt, last: UInt, flags: UInt) -> Result:
    """close_range(2)."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC):
        raise EINVAL(f"flags {flags:#x}")
    if first > last:
        raise EINVAL(f"{first} > {last}")
    if flags & CLOSE_RANGE_UNSHARE and task.files.users > 1:
        task.files.check_copy()
    rest = in_steps(_close_range(task, first, last, flags))
    return task.kernel.vfs.leftovers.awaited(rest) if isinstance(rest, int) else _closed(task, rest)


def _close_range(task: Task, first: int, last: int, flags: int) -> Steps[None]:
    if flags & CLOSE_RANGE_UNSHARE and task.files.users > 1:
        yield from task.unshare_files()
    if flags & CLOSE_RANGE_CLOEXEC:
        task.files.mark_range(first, last)
    else:
        yield from task.files.close_range(task, first, last)


async def _closed(task: Task, rest: Coroutine[Any, Any, int]) -> int:
    await rest
    return await again(task.kernel.vfs.leftovers.awaited)
