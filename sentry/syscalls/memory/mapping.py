"""Memory: the calls of mmap(2) and its relatives, over sentry.mm."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from sentry.abi import mman
from sentry.abi.capability import CAP_IPC_LOCK, CAP_SYS_NICE
from sentry.abi.fcntl import FS_APPEND_FL
from sentry.abi.mman import MAP_ANONYMOUS, MAP_LOCKED, MAP_SHARED
from sentry.abi.personality import READ_IMPLIES_EXEC
from sentry.errors import EACCES, EFAULT, EINVAL, ENOMEM, EPERM, ESRCH, Errno
from sentry.kernel import access
from sentry.kernel.task import Task
from sentry.mm.advice import madvise, mincore, msync
from sentry.mm.heap import brk
from sentry.mm.layout import TASK_END
from sentry.mm.locking import mlock, mlockall, munlock, munlockall
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect, mseal
from sentry.mm.remap import mremap, remap_file_pages
from sentry.syscalls.args import show_choice, show_flags, signed, unsigned
from sentry.syscalls.processes.pidfd import group_of
from sentry.syscalls.registry import absent, syscall
from sentry.syscalls.types import Addr, Fd, Int, Offset, Size, UserOut
from sentry.vfs.file import Result

if TYPE_CHECKING:
    from sentry.platform.host_io import HostIO

ALL = {n: v for n, v in vars(mman).items() if isinstance(v, int)}
Prot = Annotated[
    int,
    unsigned(
        64,
        show_flags(
            {n: v for n, v in ALL.items() if n.startswith("PROT_") and n != "PROT_NONE"},
            "PROT_NONE",
        ),
    ),
]
MapFlags = Annotated[
    int,
    unsigned(
        64,
        show_flags(
            {
                n: v
                for n, v in ALL.items()
                if n.startswith("MAP_")
                and n not in ("MAP_TYPE", "MAP_FILE", "MAP_SHARED_VALIDATE", "MAP_UNINITIALIZED")
                and not n.startswith(("MAP_HUGE_", "MAP_DROPPABLE"))
            }
        ),
    ),
]
Advice = Annotated[
    int, signed(32, show_choice({n: v for n, v in ALL.items() if n.startswith("MADV_")}))
]

WRITE_EXEC = mman.PROT_WRITE | mman.PROT_EXEC
MINCORE_STEP = 1 << 30
"""Bytes that mincore(2) looks at before it copies the answer out."""


def implied(task: Task, prot: int) -> int:
    """personality(2): with READ_IMPLIES_EXEC, what can be read can be executed."""
    executable = prot & mman.PROT_READ and task.group.personality & READ_IMPLIES_EXEC
    return prot | mman.PROT_EXEC if executable else prot


@syscall(9)
def sys_mmap(
    task: Task, addr: Addr, length: Size, prot: Prot, flags: MapFlags, fd: Fd, offset: Offset
) -> int:
    """mmap(2)."""
    offset &= 0xFFFFFFFFFFFFFFFF
    if offset & 0xFFF:
        raise EINVAL("offset")
    file = None
    if not flags & MAP_ANONYMOUS:
        file = task.files.get(fd & 0xFFFFFFFF)
        if file.writable and file.inode.file_flags & FS_APPEND_FL and flags & MAP_SHARED:
            raise EACCES("append-only")
    if flags & MAP_LOCKED:
        judge_locks(task)
    if task.mm.map.mdwe and prot & WRITE_EXEC == WRITE_EXEC:
        raise EACCES("PR_SET_MDWE")
    if task.group.personality and not (file is not None and file.no_exec):
        prot = implied(task, prot)
    where = mmap(task.mm.map, addr, length, prot, flags & 0xFFFFFFFF, file, offset)
    if file is not None:
        file.was_mapped()
    return where


@syscall(11)
def sys_munmap(task: Task, addr: Addr, length: Size) -> None:
    """munmap(2)."""
    munmap(task.mm.map, addr, length)


@syscall(10)
def sys_mprotect(task: Task, addr: Addr, length: Size, prot: Prot) -> None:
    """mprotect(2)."""
    mprotect(task.mm.map, addr, length, implied(task, prot) if task.group.personality else prot)


@syscall(12)
def sys_brk(task: Task, addr: Addr) -> int:
    """brk(2): the break as it is afterwards."""
    return brk(task.mm.map, addr)


@syscall(25)
def sys_mremap(
    task: Task, old: Addr, old_size: Size, new_size: Size, flags: Size, new: Addr
) -> int:
    """mremap(2)."""
    return mremap(task.mm.map, old, old_size, new_size, flags, new)


@syscall(28)
def sys_madvise(task: Task, addr: Addr, length: Size, advice: Advice) -> None:
    """madvise(2)."""
    madvise(task.mm.map, addr, length, advice)


@syscall(440, partial="on the caller's own process and on others; no remote hints are kept")
def sys_process_madvise(
    task: Task, pidfd: Fd, vector: Addr, count: Size, advice: Advice, flags: Int
) -> int:
    """process_madvise(2)."""
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    ranges = task.mm.read_iov(vector, count)
    target = group_of(task, pidfd).leader
    if target is None or target.dead:
        raise ESRCH("the process is gone")
    if advice not in (mman.MADV_COLD, mman.MADV_PAGEOUT, mman.MADV_WILLNEED, mman.MADV_COLLAPSE):
        raise EINVAL(f"advice {advice}")
    access.check_read(task, target)
    if not task.creds.has(CAP_SYS_NICE):
        raise EPERM("CAP_SYS_NICE")
    done = 0
    try:
        for base, size in ranges:
            madvise(target.mm.map, base, size, advice)
            done += size
    except Errno:
        if not done:
            raise
    return done


@syscall(26)
def sys_msync(task: Task, addr: Addr, length: Size, flags: Int) -> Result:
    """msync(2)."""
    files = msync(task.mm.map, addr, length, flags)
    io = task.kernel.vfs.host_io
    return sync_all(io, [backing.fd for backing in files]) if files and io is not None else 0


async def sync_all(io: HostIO, fds: list[int]) -> int:
    """Wait until the host's disk has what was stored into these files."""
    own = [os.dup(fd) for fd in fds]
    try:
        for fd in own:
            await io.sync(fd)
    finally:
        for fd in own:
            io.close_fd(fd)
    return 0


@syscall(27)
def sys_mincore(task: Task, addr: Addr, length: Size, vector: UserOut) -> None:
    """mincore(2): the vector is looked at before the mappings are."""
    if addr & 4095:
        raise EINVAL("address")
    if addr > TASK_END or length > TASK_END - addr:
        raise ENOMEM("range")
    if vector.addr > TASK_END - ((length + 4095) >> 12):
        raise EFAULT(f"{vector.addr:#x}")
    mm, done = task.mm, 0
    while done < length:  # one mapping after the other: what comes before a hole is told
        vma = mm.map.vmas.find(addr + done)
        if vma is None:
            raise ENOMEM("a hole")
        part = min(MINCORE_STEP, length - done, vma.end - addr - done)
        vector.put(mincore(mm.map, addr + done, part), done >> 12)
        done += part


def judge_locks(task: Task) -> None:
    """CAP_IPC_LOCK lifts RLIMIT_MEMLOCK: can_do_mlock()."""
    task.mm.map.ipc_lock = task.creds.has(CAP_IPC_LOCK)


@syscall(149)
def sys_mlock(task: Task, addr: Addr, length: Size) -> None:
    """mlock(2)."""
    judge_locks(task)
    mlock(task.mm.map, addr, length)


@syscall(325)
def sys_mlock2(task: Task, addr: Addr, length: Size, flags: Int) -> None:
    """mlock2(2)."""
    judge_locks(task)
    mlock(task.mm.map, addr, length, flags)


@syscall(150)
def sys_munlock(task: Task, addr: Addr, length: Size) -> None:
    """munlock(2)."""
    munlock(task.mm.map, addr, length)


@syscall(151)
def sys_mlockall(task: Task, flags: Int) -> None:
    """mlockall(2)."""
    judge_locks(task)
    mlockall(task.mm.map, flags)


@syscall(152)
def sys_munlockall(task: Task) -> None:
    """munlockall(2)."""
    munlockall(task.mm.map)


@syscall(216)
def sys_remap_file_pages(
    task: Task, start: Addr, size: Size, prot: Prot, page: Size, flags: Size
) -> None:
    """remap_file_pages(2): since Linux 4.0 it makes a mapping of its own; flags are ignored."""
    remap_file_pages(task.mm.map, start, size, prot, page)


@syscall(462)
def sys_mseal(task: Task, addr: Addr, length: Size, flags: Size) -> None:
    """mseal(2)."""
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    mseal(task.mm.map, addr, length)


@syscall(330, partial="no protection keys, as on a CPU without them")
def sys_pkey_alloc(task: Task, flags: Size, rights: Size) -> None:
    """pkey_alloc(2)."""
    raise EINVAL("no protection keys")


@syscall(331, partial="no protection keys, as on a CPU without them")
def sys_pkey_free(task: Task, key: Int) -> None:
    """pkey_free(2)."""
    raise EINVAL("no protection keys")


@syscall(329, partial="no protection keys: only the key -1, as on a CPU without them")
def sys_pkey_mprotect(task: Task, addr: Addr, length: Size, prot: Prot, key: Int) -> None:
    """pkey_mprotect(2)."""
    mprotect(task.mm.map, addr, length, prot, key)


absent(323, "no user-level fault handling")  # userfaultfd
absent(453, "no shadow stacks")  # map_shadow_stack
