"""Descriptors: dup, fcntl, flock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sentry.abi import fcntl as f
from sentry.abi.fcntl import O_ASYNC, RWH_WRITE_LIFE_EXTREME
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.auth.permissions import owner_or_capable
from sentry.errors import EAGAIN, EBADF, EINVAL, EOVERFLOW, EPERM
from sentry.fs.host.file import HostFile
from sentry.fs.pipe.file import PipeFile
from sentry.syscalls.files.notices import (
    get_owner,
    get_owner_ex,
    lease,
    notify,
    set_owner_ex,
    set_process_owner,
    set_signal,
)
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Int, RawFile, Size, UInt
from sentry.vfs.file import SETFL_MASK, FileDescription, Result
from sentry.vfs.interface import Inode
from sentry.vfs.leases import kind_of_lease
from sentry.vfs.locks import END, FileLocks, Request
from sentry.vfs.notices import set_async
from sentry.vfs.seals import add_seals, seals_of
from sentry.wait.sleep import continued

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.vfs.fd_table import FdTable


# --- dup


@syscall(32)
def sys_dup(task: Task, file: RawFile) -> int:
    """dup(2)."""
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE))


def replace(task: Task, old: int, new: int, flags: int) -> Result:
    """ksys_dup3(): a number beyond the limit, or an old one that is closed, is EBADF."""
    limit = task.rlimit(RLIMIT_NOFILE)
    if new >= limit:
        raise EBADF(f"fd {new}")
    file = task.files.get_raw(old)
    task.files.replace(task, new, file, limit, cloexec=bool(flags & f.O_CLOEXEC))
    return task.kernel.vfs.leftovers.awaited(new)


@syscall(33)
def sys_dup2(task: Task, old: UInt, new: UInt) -> Result:
    """dup2(2): on the same number it only checks it."""
    if old == new:
        task.files.get_raw(old)
        return old
    return replace(task, old, new, 0)


@syscall(292)
def sys_dup3(task: Task, old: UInt, new: UInt, flags: Int) -> Result:
    """dup3(2)."""
    if flags & ~f.O_CLOEXEC or old == new:
        raise EINVAL(f"{old} {new} {flags:#x}")
    return replace(task, old, new, flags)


# --- flock


def locks_of(task: Task, inode: Inode) -> FileLocks:
    """The locks of an inode, made when first needed."""
    if inode.locks is None:
        inode.locks = FileLocks(task.kernel.vfs.budget, inode.fs.dev, inode.ino)
    return inode.locks


@syscall(73)
def sys_flock(task: Task, fd: UInt, operation: UInt) -> Result:
    """flock(2)."""
    if operation & f.LOCK_MAND:
        return 0
    kind = operation & ~f.LOCK_NB
    if kind not in (f.LOCK_SH, f.LOCK_EX, f.LOCK_UN):
        raise EINVAL(f"operation {operation:#x}")
    file = task.files.get(fd)
    if kind != f.LOCK_UN and not (file.readable or file.writable):
        raise EBADF("not open for reading or writing")
    if (elsewhere := file.flocks()) is not None:
        exclusive = None if kind == f.LOCK_UN else kind == f.LOCK_EX
        return elsewhere.flock(task, file, exclusive, not operation & f.LOCK_NB)
    locks = locks_of(task, file.inode)
    if kind == f.LOCK_UN:
        locks.unflock(file)
        return 0
    exclusive, pid = kind == f.LOCK_EX, task.group.tgid
    try:
        return locks.flock(file, exclusive, pid)
    except EAGAIN:
        if operation & f.LOCK_NB:
            raise
    result: Result = locks.wait_flock(file, exclusive, pid)
    return result


# --- fcntl: descriptor and status flags


def dup_from(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_DUPFD, F_DUPFD_CLOEXEC come here with the flag in `fd`'s place."""
    limit = task.rlimit(RLIMIT_NOFILE)
    if argument >= limit:
        raise EINVAL(f"from {argument}")
    return task.files.install(file, limit, cloexec=bool(fd), lowest=argument)


def get_fd_flags(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_GETFD."""
    return f.FD_CLOEXEC if task.files.close_on_exec_of(fd) else 0


def set_fd_flags(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_SETFD."""
    task.files.set_close_on_exec(fd, bool(argument & f.FD_CLOEXEC))
    return 0


def get_status(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_GETFL."""
    return file.flags


def set_status(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_SETFL: setfl(), fs/fcntl.c."""
    inode = file.inode
    if file.flags & ~argument & f.O_APPEND and inode.file_flags & f.FS_APPEND_FL:
        raise EPERM("append only")
    if argument & f.O_NOATIME and not file.flags & f.O_NOATIME:
        creds = task.creds
        if not owner_or_capable(creds, inode.uid):
            raise EPERM("O_NOATIME")
    if argument & f.O_DIRECT and not file.can_direct:
        raise EINVAL("no O_DIRECT")
    if (argument ^ file.flags) & O_ASYNC and file.can_async:
        set_async(task, file, fd, on=bool(argument & O_ASYNC))
    file.set_flags(task, argument & SETFL_MASK)
    return 0


# --- fcntl: record locks


def read_lock(
    task: Task, file: FileDescription, addr: int, owner: object
) -> tuple[f.Flock, Request]:
    """struct flock as a range: flock_to_posix_lock(). Raises: EINVAL, EOVERFLOW."""
    asked = f.FLOCK.unpack(task.mm.read(addr, f.FLOCK.size))
    if asked.l_whence == f.SEEK_SET:
        start = 0
    elif asked.l_whence == f.SEEK_CUR:
        start = file.position
    elif asked.l_whence == f.SEEK_END:
        known = file.inode.known_attributes()
        start = known.size if known is not None else 0
    else:
        raise EINVAL(f"whence {asked.l_whence}")
    if asked.l_start > END - start:
        raise EOVERFLOW("start")
    start += asked.l_start
    if start < 0:
        raise EINVAL("a negative start")
    if asked.l_len > 0:
        if asked.l_len - 1 > END - start:
            raise EOVERFLOW("length")
        end = start + asked.l_len - 1
    elif asked.l_len < 0:
        start, end = start + asked.l_len, start - 1
        if start < 0:
            raise EINVAL("a negative start")
    else:
        end = END
    if asked.l_type not in (f.F_RDLCK, f.F_WRLCK, f.F_UNLCK):
        raise EINVAL(f"type {asked.l_type}")
    exclusive = None if asked.l_type == f.F_UNLCK else asked.l_type == f.F_WRLCK
    pid = -1 if owner is file else task.group.tgid
    return asked, Request(owner, pid, exclusive, start, end)


def shown_pid(task: Task, pid: int) -> int:
    """locks_translate_pid(): -1 of a description, 0 from outside."""
    return pid if pid == -1 else task.pids.of(pid)


def get_lock(task: Task, file: FileDescription, addr: int, ofd: bool) -> int:
    """F_GETLK, F_OFD_GETLK."""
    asked, request = read_lock(task, file, addr, file if ofd else task.files)
    if ofd and asked.l_pid:
        raise EINVAL("l_pid must be 0")
    if request.exclusive is None and not ofd:
        raise EINVAL("F_UNLCK")
    locks = file.inode.locks
    found = None
    if (elsewhere := file.record_locks()) is not None:
        found = elsewhere.get(task, request)
    elif locks is not None:
        found = locks.own(request) if request.exclusive is None else locks.conflict(request)
    if found is None:
        kind, rest = f.F_UNLCK, (asked.l_whence, asked.l_start, asked.l_len, asked.l_pid)
    else:
        kind = f.F_WRLCK if found.exclusive else f.F_RDLCK
        length = 0 if found.end == END else found.end - found.start + 1
        rest = (f.SEEK_SET, found.start, length, shown_pid(task, found.pid))
    task.mm.write(addr, f.FLOCK.pack(kind, *rest))
    return 0


def set_lock(
    task: Task, file: FileDescription, addr: int, ofd: bool, waits: int | None = None
) -> Result:
    """F_SETLK and F_OFD_SETLK; `waits`: the descriptor, of F_SETLKW and F_OFD_SETLKW."""
    asked, request = read_lock(task, file, addr, file if ofd else task.files)
    if request.exclusive is False and not file.readable:
        raise EBADF("not open for reading")
    if request.exclusive is True and not file.writable:
        raise EBADF("not open for writing")
    if ofd and asked.l_pid:
        raise EINVAL("l_pid must be 0")
    if (elsewhere := file.record_locks()) is not None:
        return elsewhere.set(task, request, waits is not None)
    locks = locks_of(task, file.inode)
    try:
        locks.set(request)
        return 0
    except EAGAIN:
        if waits is None:
            raise
    rest: Result = locks.wait_set(request, file, task.kernel.vfs.waits_for, not ofd)
    if ofd:
        return rest
    end = partial(check_still_open, task.files, waits, file, partial(unlock, locks, request))
    result: Result = continued(rest, end)
    return result


def unlock(locks: FileLocks, asked: Request) -> None:
    """Give back what was asked for."""
    locks.set(Request(asked.owner, asked.pid, None, asked.start, asked.end))


def check_still_open(
    table: FdTable, fd: int, file: FileDescription, undo: Callable[[], None], result: int
) -> int:
    """A lock that comes after its descriptor was closed would stay for ever: fcntl_setlk().

    Raises: EBADF.
    """
    try:
        if table.get_raw(fd) is not file:
            raise EBADF(f"fd {fd} is another file")
    except EBADF:
        undo()
        raise
    return result


# --- fcntl: pipes, seals, hints


def set_pipe_size(task: Task, file: FileDescription, argument: int) -> int:
    """F_SETPIPE_SZ. Pipes of the host stay as they are, which Linux says with EPERM, too."""
    if isinstance(file, HostFile) and file.pipe_size():
        raise EPERM("a pipe of the host")
    if not isinstance(file, PipeFile):
        raise EBADF("not a pipe")
    return file.pipe.resize(task, argument & 0xFFFFFFFF)


def get_pipe_size(task: Task, file: FileDescription, argument: int) -> int:
    """F_GETPIPE_SZ."""
    if isinstance(file, HostFile):
        return file.pipe_size()
    if not isinstance(file, PipeFile):
        raise EBADF("not a pipe")
    return file.pipe.capacity


def rw_hint(task: Task, file: FileDescription, argument: int) -> int:
    """F_GET_RW_HINT: 0 is RWH_WRITE_LIFE_NOT_SET."""
    task.mm.write(argument, file.inode.write_hint.to_bytes(8, "little"))
    return 0


def owner_uids(task: Task, file: FileDescription, argument: int) -> int:
    """F_GETOWNER_UIDS: who set the owner, really and effectively."""
    uids = (task.creds.shown_uid(uid) for uid in file.owner_ids)
    task.mm.write(argument, b"".join(uid.to_bytes(4, "little") for uid in uids))
    return 0


def set_rw_hint(task: Task, file: FileDescription, argument: int) -> int:
    """F_SET_RW_HINT: how long what is written will live; remembered with the inode."""
    hint = int.from_bytes(task.mm.read(argument, 8), "little")
    if hint > RWH_WRITE_LIFE_EXTREME:
        raise EINVAL("hint")
    if not owner_or_capable(task.creds, file.inode.uid):
        raise EPERM("somebody else's file")
    file.inode.write_hint = hint
    return 0


def same_file(task: Task, file: FileDescription, argument: int) -> int:
    """F_DUPFD_QUERY: do both descriptors share a description?"""
    return int(task.files.get_raw(argument & 0xFFFFFFFF) is file)


def do_add_seals(task: Task, file: FileDescription, argument: int) -> int:
    """F_ADD_SEALS."""
    with file.inode.lock:  # a hole that is being made is made before
        add_seals(file, argument & 0xFFFFFFFF)
    return 0


ON_FD: dict[int, Callable[[Any, int, FileDescription, int], int]] = {
    f.F_DUPFD: lambda task, _, file, arg: dup_from(task, 0, file, arg),
    f.F_DUPFD_CLOEXEC: lambda task, _, file, arg: dup_from(task, 1, file, arg),
    f.F_GETFD: get_fd_flags,
    f.F_SETFD: set_fd_flags,
    f.F_GETFL: get_status,
}
"""Those that work on O_PATH descriptors, too."""

ON_FILE: dict[int, Callable[[Any, FileDescription, int], Result]] = {
    f.F_GETLK: lambda task, file, arg: get_lock(task, file, arg, False),
    f.F_SETLK: lambda task, file, arg: set_lock(task, file, arg, False),
    f.F_OFD_GETLK: lambda task, file, arg: get_lock(task, file, arg, True),
    f.F_OFD_SETLK: lambda task, file, arg: set_lock(task, file, arg, True),
    f.F_SETOWN: set_process_owner,
    f.F_GETOWN: get_owner,
    f.F_SETOWN_EX: set_owner_ex,
    f.F_GETOWN_EX: get_owner_ex,
    f.F_SETSIG: set_signal,
    f.F_GETSIG: lambda _, file, __: file.owner_signal,
    f.F_GETOWNER_UIDS: owner_uids,
    f.F_SETPIPE_SZ: set_pipe_size,
    f.F_GETPIPE_SZ: get_pipe_size,
    f.F_GETLEASE: lambda _, file, __: kind_of_lease(file),
    f.F_ADD_SEALS: do_add_seals,
    f.F_GET_SEALS: lambda _, file, __: seals_of(file),
    f.F_GET_RW_HINT: rw_hint,
    f.F_SET_RW_HINT: set_rw_hint,
    f.F_DUPFD_QUERY: same_file,
    f.F_CREATED_QUERY: lambda _, file, __: int(file.created),
}

WITH_NUMBER: dict[int, Callable[[Any, int, FileDescription, int], Result]] = {
    f.F_SETLKW: lambda task, fd, file, arg: set_lock(task, file, arg, False, fd),
    f.F_OFD_SETLKW: lambda task, fd, file, arg: set_lock(task, file, arg, True, fd),
    f.F_SETFL: set_status,
    f.F_SETLEASE: lease,
    f.F_NOTIFY: notify,
}
"""Those that remember the descriptor, for the signals they will send, or to look at it again."""


@syscall(72)
def sys_fcntl(task: Task, fd: UInt, command: UInt, argument: Size) -> Result:
    """fcntl(2)."""
    file = task.files.get_raw(fd)
    on_fd = ON_FD.get(command)
    if on_fd is not None:
        return on_fd(task, fd, file, argument)
    if file.flags & f.O_PATH and command not in (f.F_DUPFD_QUERY, f.F_CREATED_QUERY):
        raise EBADF("an O_PATH descriptor")
    by_number = WITH_NUMBER.get(command)
    if by_number is not None:
        return by_number(task, fd, file, argument)
    on_file = ON_FILE.get(command)
    if on_file is None:
        raise EINVAL(f"command {command}")
    return on_file(task, file, argument)
