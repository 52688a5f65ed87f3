"""System V shared memory: shmget(2), shmat(2), shmctl(2)."""

from __future__ import annotations

from typing import Annotated

from sentry.abi import mman
from sentry.abi.limits import INT_MAX
from sentry.abi.mman import (
    SHM_INFO,
    SHM_LIMITS,
    SHM_LOCK,
    SHM_STAT,
    SHM_STAT_ANY,
    SHM_UNLOCK,
    SHM_USAGE,
    SHMID_DS,
)
from sentry.abi.sysvipc import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT
from sentry.errors import EINVAL
from sentry.kernel.sysv_ids import READ, check_owner, check_permission, now
from sentry.kernel.sysv_ipc import ipc_of
from sentry.kernel.sysv_shm import Segment, Segments
from sentry.kernel.task import Task
from sentry.syscalls.args import show_choice, show_flags, signed
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Size
from sentry.vfs.file import Result
from sentry.wait.steps import in_steps

UINT64 = (1 << 64) - 1
Command = Annotated[
    int,
    signed(
        32,
        show_choice({
            "IPC_RMID": IPC_RMID, "IPC_SET": IPC_SET, "IPC_STAT": IPC_STAT, "IPC_INFO": IPC_INFO,
            "SHM_LOCK": SHM_LOCK, "SHM_UNLOCK": SHM_UNLOCK, "SHM_STAT": SHM_STAT,
            "SHM_INFO": SHM_INFO, "SHM_STAT_ANY": SHM_STAT_ANY,
        }),
    ),
]  # fmt: skip
AttachFlags = Annotated[
    int,
    signed(
        32,
        show_flags({
            n: getattr(mman, n) for n in ("SHM_RDONLY", "SHM_RND", "SHM_REMAP", "SHM_EXEC")
        }),
    ),
]  # fmt: skip


@syscall(29)
def sys_shmget(task: Task, key: Int, size: Size, flags: Int) -> int:
    """shmget(2)."""
    return ipc_of(task).segments.get(task, key, size, flags)


@syscall(30)
def sys_shmat(task: Task, number: Int, addr: Addr, flags: AttachFlags) -> Result:
    """shmat(2)."""
    segments = ipc_of(task).segments
    return in_steps(segments.attach(task, number, addr, flags), task.mm.map.lock)


@syscall(67)
def sys_shmdt(task: Task, addr: Addr) -> Result:
    """shmdt(2)."""
    return in_steps(ipc_of(task).segments.detach(task, addr), task.mm.map.lock)


@syscall(31)
def sys_shmctl(task: Task, number: Int, command: Command, buf: Addr) -> int | None:
    """shmctl(2): ksys_shmctl(). The INFO commands give the highest index, SHM_STAT the id."""
    if command < 0 or number < 0:
        raise EINVAL("negative")
    segments = ipc_of(task).segments
    if command in (IPC_INFO, SHM_INFO):
        data = _limits(segments) if command == IPC_INFO else _usage(segments)
        task.mm.write(buf, data)
        return segments.ids.highest
    if command in (IPC_STAT, SHM_STAT, SHM_STAT_ANY):
        find = segments.ids.find if command == IPC_STAT else segments.ids.at
        segment = find(number)
        if command != SHM_STAT_ANY:
            check_permission(task.creds, segment, READ)
        task.mm.write(buf, _status(task, segment))
        return 0 if command == IPC_STAT else segment.id
    if command == IPC_SET:
        new = SHMID_DS.unpack(task.mm.read(buf, SHMID_DS.size))
        segment = segments.ids.find(number)
        check_owner(task.creds, segment)
        segment.set_owner(task.creds, new.shm_perm_uid, new.shm_perm_gid, new.shm_perm_mode)
        segment.ctime = now()
    elif command == IPC_RMID:
        segment = segments.ids.find(number)
        check_owner(task.creds, segment)
        segments.remove(segment)
    elif command in (SHM_LOCK, SHM_UNLOCK):
        segments.lock(task, segments.ids.find(number), command)
    else:
        raise EINVAL(f"command {command}")
    return None


def _limits(segments: Segments) -> bytes:
    most = min(segments.limit("shmmni"), INT_MAX)
    size, pages = (min(segments.limit(name), UINT64) for name in ("shmmax", "shmall"))
    return SHM_LIMITS.pack(size, 1, most, most, pages, 0, 0, 0, 0)


def _usage(segments: Segments) -> bytes:
    resident = sum(s.resident for s in segments.ids.objects.values())
    return SHM_USAGE.pack(len(segments.ids), segments.total_pages, resident, 0, 0, 0)


def _status(reader: Task, s: Segment) -> bytes:
    return SHMID_DS.pack(
        *s.perm(reader.creds), s.size, s.atime, s.dtime, s.ctime,
        reader.pids.of(s.cpid), reader.pids.of(s.lpid), s.nattch, 0, 0
    )
