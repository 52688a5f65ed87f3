"""System V semaphores: semget(2), semop(2), semctl(2)."""

from __future__ import annotations

from array import array
from typing import Annotated, Any

from sentry.abi import sysvipc
from sentry.abi.limits import INT_MAX
from sentry.abi.sysvipc import (
    GETALL,
    GETNCNT,
    GETPID,
    GETVAL,
    GETZCNT,
    IPC_INFO,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    SEM_INFO,
    SEM_STAT,
    SEM_STAT_ANY,
    SEM_UNDO,
    SEMAEM,
    SEMBUF,
    SEMID_DS,
    SEMINFO,
    SEMMAP,
    SEMMNU,
    SEMUME,
    SEMUSZ,
    SEMVMX,
    SETALL,
    SETVAL,
)
from sentry.abi.time import TIMESPEC
from sentry.clock import MAX_NS
from sentry.errors import E2BIG, EFBIG, EINVAL, ERANGE
from sentry.kernel.clocks import NS
from sentry.kernel.sysv_ids import READ, WRITE, check_owner, check_permission, now
from sentry.kernel.sysv_ipc import ipc_of, undo_list
from sentry.kernel.sysv_sem import (
    MNI,
    MNS,
    MSL,
    OPM,
    Semaphores,
    SemaphoreSet,
    SemaphoreSleep,
    WouldBlock,
)
from sentry.kernel.task import Task
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, UInt
from sentry.vfs.file import Result
from sentry.wait.steps import in_steps

MAX_OPERATIONS = 4096
"""Ceiling of the operations in one call, whatever kernel.sem says."""
COMMANDS = {
    n: v
    for n, v in vars(sysvipc).items()
    if n in ("IPC_RMID", "IPC_SET", "IPC_STAT", "IPC_INFO", "SEM_STAT", "SEM_INFO", "SEM_STAT_ANY")
    or n.startswith(("GETA", "GETN", "GETP", "GETV", "GETZ", "SETA", "SETV"))
}
Command = Annotated[int, signed(32, show_choice(COMMANDS))]
ONE = (GETVAL, GETPID, GETNCNT, GETZCNT)


@syscall(64)
def sys_semget(task: Task, key: Int, count: Int, flags: Int) -> int:
    """semget(2)."""
    return ipc_of(task).semaphores.get(task, key, count, flags)


@syscall(65)
def sys_semop(task: Task, number: Int, operations: Addr, count: UInt) -> Any:
    """semop(2)."""
    return _operate(task, number, operations, count, None)


@syscall(220)
def sys_semtimedop(task: Task, number: Int, operations: Addr, count: UInt, timeout: Addr) -> Any:
    """semtimedop(2)."""
    if not timeout:
        return _operate(task, number, operations, count, None)
    return _operate(
        task, number, operations, count, TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size))
    )


def _operate(
    task: Task, number: int, addr: int, count: int, timeout: tuple[int, int] | None
) -> Any:
    """__do_semtimedop(), with its order of checks."""
    semaphores = ipc_of(task).semaphores
    if count > min(semaphores.limits[OPM], MAX_OPERATIONS):
        raise E2BIG(f"{count} operations")
    data = task.mm.read(addr, count * SEMBUF.size)
    if count < 1 or number < 0:
        raise EINVAL("nothing to do")
    deadline_ns = None
    if timeout is not None:
        sec, nsec = timeout
        if sec < 0 or not 0 <= nsec < NS:
            raise EINVAL("timeout")
        deadline_ns = min(task.kernel.clock.now_ns() + sec * NS + nsec, MAX_NS)
    operations = [(op.sem_num, op.sem_op, op.sem_flg) for op in SEMBUF.unpack_all(data)]
    found = semaphores.ids.find(number)
    if max(op[0] for op in operations) >= len(found.values):
        raise EFBIG("no such semaphore")
    check_permission(task.creds, found, WRITE if any(op[1] for op in operations) else READ)
    undo = undo_list(task) if any(op[2] & SEM_UNDO for op in operations) else None
    pid = task.group.tgid
    try:
        return in_steps(found.attempt(operations, undo, pid), found.lock)
    except WouldBlock as stop:
        return SemaphoreSleep(found, operations, undo, pid, (stop.index, deadline_ns))


@syscall(66)
def sys_semctl(task: Task, number: Int, index: Int, command: Command, value: Addr) -> Result:
    """semctl(2): ksys_semctl(). `value` is union semun: an int for SETVAL, else a pointer."""
    if number < 0:
        raise EINVAL("negative")
    semaphores = ipc_of(task).semaphores
    if command in (IPC_INFO, SEM_INFO):
        task.mm.write(value, _info(semaphores, command))
        return semaphores.ids.highest
    if command in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        found = (semaphores.ids.find if command == IPC_STAT else semaphores.ids.at)(number)
        if command != SEM_STAT_ANY:
            check_permission(task.creds, found, READ)
        count = len(found.values)
        data = SEMID_DS.pack(*found.perm(task.creds), found.otime, 0, found.ctime, 0, count, 0, 0)
        task.mm.write(value, data)
        return 0 if command == IPC_STAT else found.id
    if command == SETVAL:
        return _set_value(task, semaphores, number, index, value)
    if command in (GETALL, SETALL):
        return _all(task, semaphores.ids.find(number), command, value)
    if command in ONE:
        return _one(task, semaphores.ids.find(number), command, index)
    if command == IPC_SET:
        new = SEMID_DS.unpack(task.mm.read(value, SEMID_DS.size))
        found = semaphores.ids.find(number)
        check_owner(task.creds, found)
        found.set_owner(task.creds, new.sem_perm_uid, new.sem_perm_gid, new.sem_perm_mode)
        found.ctime = now()
        return 0
    if command == IPC_RMID:
        found = semaphores.ids.find(number)
        check_owner(task.creds, found)
        return in_steps(semaphores.remove(found), found.lock)
    raise EINVAL(f"command {command}")


def _set_value(task: Task, semaphores: Semaphores, number: int, index: int, raw: int) -> Result:
    """semctl_setval(): the value is checked before anything else."""
    value = ((raw & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    if not 0 <= value <= SEMVMX:
        raise ERANGE(f"value {value}")
    found = semaphores.ids.find(number)
    if not 0 <= index < len(found.values):
        raise EINVAL(f"semaphore {index}")
    check_permission(task.creds, found, WRITE)
    return in_steps(found.set_value(index, value, task.group.tgid), found.lock)


def _all(task: Task, found: SemaphoreSet, command: int, addr: int) -> Result:
    check_permission(task.creds, found, WRITE if command == SETALL else READ)
    if command == GETALL:
        task.mm.write(addr, found.values.tobytes())
        return 0
    values = array("H", task.mm.read(addr, 2 * len(found.values)))
    if max(values) > SEMVMX:
        raise ERANGE("value")
    return in_steps(found.set_all(values, task.group.tgid), found.lock)


def _one(task: Task, found: SemaphoreSet, command: int, index: int) -> int:
    check_permission(task.creds, found, READ)
    if not 0 <= index < len(found.values):
        raise EINVAL(f"semaphore {index}")
    if command == GETVAL:
        return found.values[index]
    if command == GETPID:
        return task.pids.of(found.pids[index])
    return found.waiting(index, command == GETZCNT)


def _info(semaphores: Semaphores, command: int) -> bytes:
    limits = [min(n, INT_MAX) for n in semaphores.limits]
    size, most = SEMUSZ, SEMAEM
    if command == SEM_INFO:
        size, most = len(semaphores.ids), semaphores.used
    return SEMINFO.pack(
        SEMMAP, limits[MNI], limits[MNS], SEMMNU, limits[MSL], limits[OPM], SEMUME, size,
        SEMVMX, most,
    )  # fmt: skip
