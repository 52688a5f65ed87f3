"""Files that are made without a name: pipe, eventfd, memfd_create."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.eventfd import EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE
from sentry.abi.fcntl import (
    F_SEAL_EXEC,
    F_SEAL_SEAL,
    O_CLOEXEC,
    O_DIRECT,
    O_LARGEFILE,
    O_NONBLOCK,
    O_RDWR,
)
from sentry.abi.mman import (
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    MFD_EXEC,
    MFD_HUGE_MASK,
    MFD_HUGE_SHIFT,
    MFD_HUGETLB,
    MFD_NOEXEC_SEAL,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import EFAULT, EINVAL, ENODEV, ENOPKG
from sentry.fs.eventfd import EventFile
from sentry.fs.memfd import memfd, secret
from sentry.fs.pipe.file import new_pipe
from sentry.mm.mapping import HUGE_SIZES
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, UInt
from sentry.vfs.interface import Owner

if TYPE_CHECKING:
    from sentry.kernel.task import Task

NOTIFICATION_PIPE = 128
"""O_NOTIFICATION_PIPE: not built into this kernel (ENOPKG in Linux then)."""
MEMFD_NAME_MAX = 249


def pipe(task: Task, where: int, flags: int) -> None:
    """do_pipe2(): the address is checked before anything is made."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT | NOTIFICATION_PIPE):
        raise EINVAL(f"flags {flags:#x}")
    if flags & NOTIFICATION_PIPE:
        raise ENOPKG("no watch queues")
    limit, cloexec = task.rlimit(RLIMIT_NOFILE), bool(flags & O_CLOEXEC)
    creds, files = task.creds, task.files
    ends = new_pipe(task.kernel.vfs, creds, flags & ~O_CLOEXEC)
    fds: list[int] = []
    try:
        fds.extend(files.install(end, limit, cloexec=cloexec) for end in ends)
        task.mm.write(where, struct.pack("<ii", *fds))
    except BaseException:
        for fd in fds:
            files.close(task, fd)
        raise


@syscall(22)
def sys_pipe(task: Task, fds: Addr) -> None:
    """pipe(2)."""
    pipe(task, fds, 0)


@syscall(293)
def sys_pipe2(task: Task, fds: Addr, flags: Int) -> None:
    """pipe2(2)."""
    pipe(task, fds, flags)


def eventfd(task: Task, count: int, flags: int) -> int:
    """do_eventfd()."""
    if flags & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE):
        raise EINVAL(f"flags {flags:#x}")
    return task.files.install(
        EventFile(task.kernel.vfs, count, flags),
        task.rlimit(RLIMIT_NOFILE),
        cloexec=bool(flags & EFD_CLOEXEC),
    )


@syscall(284)
def sys_eventfd(task: Task, count: UInt) -> int:
    """eventfd(2)."""
    return eventfd(task, count, 0)


@syscall(290)
def sys_eventfd2(task: Task, count: UInt, flags: Int) -> int:
    """eventfd2(2)."""
    return eventfd(task, count, flags)


@syscall(447)
def sys_memfd_secret(task: Task, flags: UInt) -> int:
    """memfd_secret(2): memory that only mappings of this file show."""
    if flags & ~O_CLOEXEC:
        raise EINVAL(f"flags {flags:#x}")
    creds = task.creds
    file = secret(task.kernel.vfs, Owner(creds.fsuid, creds.fsgid))
    limit = task.rlimit(RLIMIT_NOFILE)
    return task.files.install(file, limit, cloexec=bool(flags & O_CLOEXEC))


@syscall(319)
def sys_memfd_create(task: Task, name: Addr, flags: UInt) -> int:
    """memfd_create(2). Huge pages of a size that exists are taken as a wish."""
    huge = 0
    if flags & MFD_HUGETLB:
        huge = flags >> MFD_HUGE_SHIFT & MFD_HUGE_MASK
        flags &= ~(MFD_HUGE_MASK << MFD_HUGE_SHIFT | MFD_HUGETLB)
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC | MFD_NOEXEC_SEAL):
        raise EINVAL(f"flags {flags:#x}")
    if flags & MFD_EXEC and flags & MFD_NOEXEC_SEAL:
        raise EINVAL("MFD_EXEC and MFD_NOEXEC_SEAL")
    if not name:
        raise EFAULT("null")
    label = task.mm.read_cstr(name, MEMFD_NAME_MAX + 1, EINVAL)
    if huge not in HUGE_SIZES:
        raise ENODEV(f"no huge pages of 1 << {huge} bytes")
    creds = task.creds
    seals = F_SEAL_SEAL
    mode = 0o777
    if flags & MFD_NOEXEC_SEAL:
        mode, seals = 0o666, F_SEAL_EXEC
    elif flags & MFD_ALLOW_SEALING:
        seals = 0
    file = memfd(task.kernel.vfs, label, Owner(creds.fsuid, creds.fsgid), mode, seals)
    file.flags = O_RDWR | O_LARGEFILE
    return task.files.install(
        file, task.rlimit(RLIMIT_NOFILE), cloexec=bool(flags & MFD_CLOEXEC)
    )
