"""Memory: the calls of mmap(2) and its relatives, over sentry.mm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from sentry.abi import mman
from sentry.abi.capability import CAP_IPC_LOCK, CAP_SYS_NICE
from sentry.abi.fcntl import FS_APPEND_FL
from sentry.abi.mman import MAP_ANONYMOUS, MAP_LOCKED, MAP_SHARED
from sentry.abi.personality import READ_IMPLIES_EXEC
from sentry.errors import EACCES, EFAULT, EINVAL, ENOMEM, EPERM, ESRCH, Errno
from sentry.kernel import access
from sentry.kernel.task import Task
from sentry.mm.advice import madvise, mincore, msync
from sentry.mm.backing import HostBacking
from sentry.mm.heap import brk
from sentry.mm.layout import TASK_END
from sentry.mm.locking import mlock, mlockall, munlock, munlockall
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect, mseal
from sentry.mm.remap import mremap, remap_file_pages
from sentry.syscalls.args import show_choice, show_flags, signed, unsigned
from sentry.syscalls.memory.stores import sent_when_unmapped
from sentry.syscalls.processes.pidfd import group_of
from sentry.syscalls.registry import absent, syscall
from sentry.syscalls.types import Addr, Fd, Int, Offset, Size, UserOut
from sentry.vfs.file import FileDescription, Result
from sentry.wait.again import again
from sentry.wait.steps import Pace, Steps, at_once, in_steps

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sentry.mm.address_map import AddressMap
    from sentry.mm.backing import MappedFile
    from sentry.mm.manager import MemoryManager
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
MINCORE_STEP = 256 << 20
"""Bytes that mincore(2) looks at before it copies the answer out."""


def implied(task: Task, prot: int) -> int:
    """personality(2): with READ_IMPLIES_EXEC, what can be read can be executed."""
    executable = prot & mman.PROT_READ and task.group.personality & READ_IMPLIES_EXEC
    return prot | mman.PROT_EXEC if executable else prot


@syscall(9)
def sys_mmap(
    task: Task, addr: Addr, length: Size, prot: Prot, flags: MapFlags, fd: Fd, offset: Offset
) -> Result:
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
    mapped = mmap.steps(task.mm.map, addr, length, prot, flags & 0xFFFFFFFF, file, offset)
    if file is not None:
        file.check_mapping(offset, length)
        mapped = used_by(mapped, file)
    return in_steps(mapped, task.mm.map.lock)


def used_by(mapped: Steps[int], file: FileDescription) -> Steps[int]:
    """mmap(2) of a file: it counts as an access."""
    with file.held():
        where = yield from mapped
        file.was_mapped()
    return where


@syscall(11)
def sys_munmap(task: Task, addr: Addr, length: Size) -> Result:
    """munmap(2)."""
    if task.kernel.vfs.tracked:
        return sent_when_unmapped(task, addr, length)
    return in_steps(munmap.steps(task.mm.map, addr, length), task.mm.map.lock)


@syscall(10)
def sys_mprotect(task: Task, addr: Addr, length: Size, prot: Prot) -> Result:
    """mprotect(2)."""
    prot = implied(task, prot) if task.group.personality else prot
    return in_steps(mprotect.steps(task.mm.map, addr, length, prot), task.mm.map.lock)


@syscall(12)
def sys_brk(task: Task, addr: Addr) -> Result:
    """brk(2): the break as it is afterwards."""
    return in_steps(brk.steps(task.mm.map, addr), task.mm.map.lock)


@syscall(25)
def sys_mremap(
    task: Task, old: Addr, old_size: Size, new_size: Size, flags: Size, new: Addr
) -> Result:
    """mremap(2)."""
    moved = mremap.steps(task.mm.map, old, old_size, new_size, flags, new)
    return in_steps(moved, task.mm.map.lock)


@syscall(28)
def sys_madvise(task: Task, addr: Addr, length: Size, advice: Advice) -> Result:
    """madvise(2)."""
    return in_steps(madvise.steps(task.mm.map, addr, length, advice), task.mm.map.lock)


@syscall(440, partial="on the caller's own process and on others; no remote hints are kept")
def sys_process_madvise(
    task: Task, pidfd: Fd, vector: Addr, count: Size, advice: Advice, flags: Int
) -> Result:
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
    return in_steps(advise_all(target.mm, ranges, advice), target.mm.map.lock)


def advise_all(mm: MemoryManager, ranges: list[tuple[int, int]], advice: int) -> Steps[int]:
    """madvise(2) of one range after the other; what was done before an error counts."""
    done = 0
    failure: Exception | None = None
    rest = mm.share().releasing()
    try:
        try:
            for base, size in ranges:
                yield from madvise.steps(mm.map, base, size, advice)
                done += size
        except Exception as error:
            failure = None if done and isinstance(error, Errno) else error
        yield from rest
    finally:
        at_once(rest)  # where nobody goes on: then nothing may be yielded
    if failure is not None:
        raise failure
    return done


@syscall(26)
def sys_msync(task: Task, addr: Addr, length: Size, flags: Int) -> Result:
    """msync(2)."""
    files: dict[Any, MappedFile] = {}
    amap, io = task.mm.map, task.kernel.vfs.host_io
    looked = in_steps(_to_sync(msync.steps(amap, addr, length, flags), files), amap.lock)
    if not isinstance(looked, int):
        return _sync_later(looked, io, files)
    return sync_all(io, files) if files else 0


def _to_sync(steps: Steps[dict[Any, MappedFile]], files: dict[Any, MappedFile]) -> Steps[None]:
    found = yield from steps
    files.update(found)


async def _sync_later(
    looked: Coroutine[Any, Any, int], io: HostIO | None, files: dict[Any, MappedFile]
) -> int:
    await looked
    return await sync_all(io, files)


async def sync_all(io: HostIO | None, files: dict[Any, MappedFile]) -> int:
    """Wait until the host's disk, or a server, has what was stored into these files."""
    held = [file.incref() for file in files.values()]
    try:
        for backing, mapped in files.items():
            if isinstance(backing, HostBacking):
                await again(mapped.settle)
                if io is not None:
                    await io.at(backing.device).sync(backing.fd)
            else:
                file: Any = mapped
                await again(file.sync, False)
    finally:
        for file in held:
            file.decref()
    return 0


@syscall(27)
def sys_mincore(task: Task, addr: Addr, length: Size, vector: UserOut) -> Result:
    """mincore(2): the vector is looked at before the mappings are."""
    if addr & 4095:
        raise EINVAL("address")
    if addr > TASK_END or length > TASK_END - addr:
        raise ENOMEM("range")
    if vector.addr > TASK_END - ((length + 4095) >> 12):
        raise EFAULT(f"{vector.addr:#x}")
    amap, pace, done = task.mm.map, Pace(), 0
    while done < length:
        if pace.over:
            return look_on(amap, (addr, length), vector, done)
        done += look(amap, (addr, length), vector, done)
    return 0


def look(amap: AddressMap, where: tuple[int, int], vector: Any, done: int) -> int:
    """Tell of a part of one mapping: what comes before a hole is told. Its bytes."""
    amap.lock.check()
    addr, length = where
    vma = amap.vmas.find(addr + done)
    if vma is None:
        raise ENOMEM("a hole")
    part = min(MINCORE_STEP, length - done, vma.end - addr - done)
    vector.put(mincore(amap, addr + done, part), done >> 12)
    return part


async def look_on(amap: AddressMap, where: tuple[int, int], vector: Any, done: int) -> int:
    """The rest of a long mincore(2), with others in between, also such as map something."""
    pace = Pace()
    while done < where[1]:
        await pace.rest()
        done += await again(look, amap, where, vector, done)
    return 0


def judge_locks(task: Task) -> None:
    """CAP_IPC_LOCK lifts RLIMIT_MEMLOCK: can_do_mlock()."""
    task.mm.map.ipc_lock = task.creds.has(CAP_IPC_LOCK)


@syscall(149)
def sys_mlock(task: Task, addr: Addr, length: Size) -> Result:
    """mlock(2)."""
    judge_locks(task)
    return in_steps(mlock.steps(task.mm.map, addr, length), task.mm.map.lock)


@syscall(325)
def sys_mlock2(task: Task, addr: Addr, length: Size, flags: Int) -> Result:
    """mlock2(2)."""
    judge_locks(task)
    return in_steps(mlock.steps(task.mm.map, addr, length, flags), task.mm.map.lock)


@syscall(150)
def sys_munlock(task: Task, addr: Addr, length: Size) -> Result:
    """munlock(2)."""
    return in_steps(munlock.steps(task.mm.map, addr, length), task.mm.map.lock)


@syscall(151)
def sys_mlockall(task: Task, flags: Int) -> Result:
    """mlockall(2)."""
    judge_locks(task)
    return in_steps(mlockall.steps(task.mm.map, flags), task.mm.map.lock)


@syscall(152)
def sys_munlockall(task: Task) -> Result:
    """munlockall(2)."""
    return in_steps(munlockall.steps(task.mm.map), task.mm.map.lock)


@syscall(216)
def sys_remap_file_pages(
    task: Task, start: Addr, size: Size, prot: Prot, page: Size, flags: Size
) -> Result:
    """remap_file_pages(2): since Linux 4.0 it makes a mapping of its own; flags are ignored."""
    mapped = remap_file_pages.steps(task.mm.map, start, size, prot, page)
    return in_steps(mapped, task.mm.map.lock)


@syscall(462)
def sys_mseal(task: Task, addr: Addr, length: Size, flags: Size) -> Result:
    """mseal(2)."""
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    return in_steps(mseal.steps(task.mm.map, addr, length), task.mm.map.lock)


@syscall(330, partial="no protection keys, as on a CPU without them")
def sys_pkey_alloc(task: Task, flags: Size, rights: Size) -> None:
    """pkey_alloc(2)."""
    raise EINVAL("no protection keys")


@syscall(331, partial="no protection keys, as on a CPU without them")
def sys_pkey_free(task: Task, key: Int) -> None:
    """pkey_free(2)."""
    raise EINVAL("no protection keys")


@syscall(329, partial="no protection keys: only the key -1, as on a CPU without them")
def sys_pkey_mprotect(task: Task, addr: Addr, length: Size, prot: Prot, key: Int) -> Result:
    """pkey_mprotect(2)."""
    return in_steps(mprotect.steps(task.mm.map, addr, length, prot, key), task.mm.map.lock)


absent(323, "no user-level fault handling")  # userfaultfd
absent(453, "no shadow stacks")  # map_shadow_stack
