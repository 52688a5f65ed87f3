"""futex(2), futex_waitv(2), set_robust_list(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from sentry.abi import futex as abi
from sentry.abi.futex import (
    FUTEX2_PRIVATE,
    FUTEX2_SIZE_U32,
    FUTEX_CLOCK_REALTIME,
    FUTEX_CMP_REQUEUE,
    FUTEX_CMP_REQUEUE_PI,
    FUTEX_LOCK_PI,
    FUTEX_LOCK_PI2,
    FUTEX_PRIVATE_FLAG,
    FUTEX_REQUEUE,
    FUTEX_TRYLOCK_PI,
    FUTEX_UNLOCK_PI,
    FUTEX_WAIT,
    FUTEX_WAIT_BITSET,
    FUTEX_WAIT_REQUEUE_PI,
    FUTEX_WAITV,
    FUTEX_WAITV_MAX,
    FUTEX_WAKE,
    FUTEX_WAKE_BITSET,
    FUTEX_WAKE_OP,
    ROBUST_LIST_HEAD,
)
from sentry.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME, TIMESPEC
from sentry.errors import EAGAIN, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH
from sentry.kernel import access, futex, futex_pi
from sentry.kernel.clocks import NS, to_monotonic
from sentry.kernel.futex_table import MATCH_ANY
from sentry.kernel.task import Task
from sentry.kernel.time_namespace import to_host_ns
from sentry.syscalls.args import unsigned
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Pid, Size, UInt
from sentry.vfs.file import Result
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from sentry.syscalls.args import Show

OPERATIONS = {
    v: n
    for n, v in vars(abi).items()
    if n.startswith("FUTEX_") and not n.endswith("_PRIVATE") and isinstance(v, int)
    and n.removeprefix("FUTEX_").startswith(("WA", "RE", "CMP_", "LOCK", "UN", "TRY"))
    and v < 16
}  # fmt: skip


def _show_operation() -> Show:
    def show(_: Task, raw: int) -> str:
        command = raw & 0x7F
        name = OPERATIONS.get(command, f"{command:#x}")
        private = "_PRIVATE" if raw & FUTEX_PRIVATE_FLAG else ""
        clock = "|FUTEX_CLOCK_REALTIME" if raw & FUTEX_CLOCK_REALTIME else ""
        return name + private + clock

    return show


Operation = Annotated[int, unsigned(32, _show_operation())]

WITH_TIMEOUT = {
    FUTEX_WAIT, FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI,
}  # fmt: skip
WITH_CLOCK = {FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_LOCK_PI2}


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _deadline(task: Task, addr: int, command: int, realtime: bool) -> int:
    """The timeout of an operation as CLOCK_MONOTONIC. EFAULT, EINVAL."""
    sec, nsec = TIMESPEC.unpack(task.mm.read(addr, TIMESPEC.size))
    if sec < 0 or not 0 <= nsec < NS:
        raise EINVAL("timeout")
    time_ns = sec * NS + nsec
    if command == FUTEX_WAIT:
        time_ns += task.kernel.clock.now_ns()
    elif realtime or command == FUTEX_LOCK_PI:
        return to_monotonic(task.kernel.clock, CLOCK_REALTIME, time_ns)
    else:
        time_ns = to_host_ns(task, CLOCK_MONOTONIC, time_ns)
    return to_monotonic(task.kernel.clock, CLOCK_MONOTONIC, time_ns)


@syscall(202)
def sys_futex(
    task: Task, addr: Addr, op: Operation, value: UInt, timeout: Addr, addr2: Addr, value3: UInt
) -> Any:
    """futex(2)."""
    private = bool(op & FUTEX_PRIVATE_FLAG)
    command = op & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    if command == FUTEX_WAKE and not op & FUTEX_CLOCK_REALTIME:
        return futex.wake(task, addr, _signed(value), private=private)
    deadline_ns = None
    if timeout and command in WITH_TIMEOUT:
        deadline_ns = _deadline(task, timeout, command, bool(op & FUTEX_CLOCK_REALTIME))
    if op & FUTEX_CLOCK_REALTIME and command not in WITH_CLOCK:
        raise ENOSYS("FUTEX_CLOCK_REALTIME")
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET):
        bitset = MATCH_ANY if command == FUTEX_WAIT else value3
        if not bitset:
            raise EINVAL("bitset")
        if command == FUTEX_WAKE_BITSET:
            return futex.wake(task, addr, _signed(value), private=private, bitset=bitset)
        return futex.wait(task, addr, value, private, deadline_ns, bitset)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        expected = value3 if command == FUTEX_CMP_REQUEUE else None
        return _requeue(task, (addr, addr2), (_signed(value), _signed(timeout)), private, expected)
    if command == FUTEX_WAKE_OP:
        counts = (_signed(value), _signed(timeout))
        return futex.wake_op(task, addr, addr2, private, counts, value3)
    return _locks(task, command, (addr, addr2), private, (value, timeout, value3), deadline_ns)


def _requeue(
    task: Task, words: tuple[int, int], counts: tuple[int, int], private: bool, expected: int | None
) -> Result:
    if min(counts) < 0:
        raise EINVAL("counts")
    source, target = (futex.key_of(task, addr, private) for addr in words)
    if expected is not None and task.mm.load_u32(words[0]) != expected:
        raise EAGAIN("value changed")
    return in_steps(task.kernel.futexes.requeue(source, target, *counts))


def _locks(
    task: Task,
    command: int,
    words: tuple[int, int],
    private: bool,
    values: tuple[int, int, int],
    deadline_ns: int | None,
) -> Any:
    """The operations on futexes with an owner."""
    value, move, value3 = values
    addr = words[0]
    if command in (FUTEX_LOCK_PI, FUTEX_LOCK_PI2):
        return futex_pi.lock(task, addr, private, deadline_ns)
    if command == FUTEX_TRYLOCK_PI:
        return futex_pi.lock(task, addr, private, None, try_only=True)
    if command == FUTEX_UNLOCK_PI:
        return futex_pi.unlock(task, addr, private)
    if command == FUTEX_WAIT_REQUEUE_PI:
        return futex_pi.wait_requeue(task, words, value, private, deadline_ns, MATCH_ANY)
    if command == FUTEX_CMP_REQUEUE_PI:
        counts = (_signed(value), _signed(move))
        return futex_pi.cmp_requeue(task, words, counts, private, value3)
    raise ENOSYS(f"futex operation {command}")


@syscall(449)
def sys_futex_waitv(
    task: Task, waiters: Addr, count: UInt, flags: UInt, timeout: Addr, clock: Int
) -> Any:
    """futex_waitv(2)."""
    if flags or not 1 <= count <= FUTEX_WAITV_MAX or not waiters:
        raise EINVAL("arguments")
    deadline_ns = _absolute(task, timeout, clock) if timeout else None
    words = []
    for entry in FUTEX_WAITV.unpack_all(task.mm.read(waiters, count * FUTEX_WAITV.size)):
        _check_flags(entry.flags)
        if entry.reserved or entry.val >> 32:
            raise EINVAL("struct futex_waitv")
        words.append((entry.uaddr, entry.val, bool(entry.flags & FUTEX2_PRIVATE)))
    return futex.wait_any(task, words, deadline_ns)


def _absolute(task: Task, timeout: int, clock: int) -> int:
    """A timeout on one of the two clocks of futex2. EINVAL, EFAULT."""
    if clock not in (CLOCK_MONOTONIC, CLOCK_REALTIME):
        raise EINVAL(f"clock {clock}")
    sec, nsec = TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size))
    if sec < 0 or not 0 <= nsec < NS:
        raise EINVAL("timeout")
    return to_monotonic(task.kernel.clock, clock, to_host_ns(task, clock, sec * NS + nsec))


def _check_flags(flags: int) -> None:
    if flags & ~(FUTEX2_PRIVATE | FUTEX2_SIZE_U32) or flags & 3 != FUTEX2_SIZE_U32:
        raise EINVAL(f"futex2 flags {flags:#x}")


@syscall(454)
def sys_futex_wake(task: Task, addr: Addr, mask: Size, count: Int, flags: UInt) -> Result:
    """futex_wake(2), Linux 6.7."""
    _check_flags(flags)
    if not mask or mask >> 32:
        raise EINVAL("mask")
    if not count:
        return 0
    return futex.wake(task, addr, count, private=bool(flags & FUTEX2_PRIVATE), bitset=mask)


@syscall(455)
def sys_futex_wait(
    task: Task, addr: Addr, value: Size, mask: Size, flags: UInt, timeout: Addr, clock: Int
) -> Any:
    """futex_wait(2), Linux 6.7."""
    _check_flags(flags)
    if not mask or (mask | value) >> 32:
        raise EINVAL("mask")
    deadline_ns = _absolute(task, timeout, clock) if timeout else None
    return futex.wait(task, addr, value, bool(flags & FUTEX2_PRIVATE), deadline_ns, mask)


@syscall(456)
def sys_futex_requeue(task: Task, waiters: Addr, flags: UInt, wake: Int, move: Int) -> Result:
    """futex_requeue(2), Linux 6.7: FUTEX_CMP_REQUEUE from the first to the second of two words."""
    if flags or not waiters:
        raise EINVAL("arguments")
    both = list(FUTEX_WAITV.unpack_all(task.mm.read(waiters, 2 * FUTEX_WAITV.size)))
    for entry in both:
        _check_flags(entry.flags)
        if entry.reserved or entry.val >> 32:
            raise EINVAL("struct futex_waitv")
    if min(wake, move) < 0:
        raise EINVAL("counts")
    source, target = (
        futex.key_of(task, entry.uaddr, bool(entry.flags & FUTEX2_PRIVATE)) for entry in both
    )
    if task.mm.load_u32(both[0].uaddr) != both[0].val:
        raise EAGAIN("value changed")
    return in_steps(task.kernel.futexes.requeue(source, target, wake, move))


@syscall(273)
def sys_set_robust_list(task: Task, head: Addr, size: Size) -> None:
    """set_robust_list(2)."""
    if size != ROBUST_LIST_HEAD.size:
        raise EINVAL("size")
    task.robust_list = head


@syscall(274)
def sys_get_robust_list(task: Task, pid: Pid, head: Addr, size: Addr) -> None:
    """get_robust_list(2)."""
    target = task if pid == 0 else task.pids.task_or_zombie(pid)
    if target is None:
        raise ESRCH(f"thread {pid}")
    if not access.may_access(task, target, real=True):
        raise EPERM(f"thread {pid}")
    if not head or not size:
        raise EFAULT("null")
    task.mm.write(size, ROBUST_LIST_HEAD.size.to_bytes(8, "little"))
    task.mm.write(head, target.robust_list.to_bytes(8, "little"))
