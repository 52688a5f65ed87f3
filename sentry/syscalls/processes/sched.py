"""Scheduling attributes: policies, affinity, nice values, I/O priorities; getcpu(2)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Annotated

from sentry.abi import ioprio
from sentry.abi import sched as abi
from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_NICE
from sentry.abi.resource import PRIO_PGRP, PRIO_PROCESS, PRIO_USER
from sentry.abi.sched import (
    SCHED_ATTR,
    SCHED_ATTR_SIZE_VER0,
    SCHED_ATTR_SIZE_VER1,
    SCHED_DEADLINE,
    SCHED_FLAG_ALL,
    SCHED_FLAG_KEEP_PARAMS,
    SCHED_FLAG_KEEP_POLICY,
    SCHED_FLAG_RESET_ON_FORK,
    SCHED_FLAG_UTIL_CLAMP,
    SCHED_RESET_ON_FORK,
    SCHED_RR,
)
from sentry.auth.userns import NO_ID, kernel_id
from sentry.errors import E2BIG, EACCES, EINVAL, EOPNOTSUPP, EPERM, ESRCH
from sentry.kernel import sched
from sentry.kernel.clocks import NS
from sentry.kernel.task import Task
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Pid, TimespecOut, UInt
from sentry.vfs.file import Result
from sentry.wait.steps import Steps, in_steps

Policy = Annotated[
    int,
    signed(
        32,
        show_choice(
            {n: v for n, v in vars(abi).items() if n.startswith("SCHED_") and v in range(8)
             and not n.startswith("SCHED_FLAG")}
        ),
    ),
]  # fmt: skip

Targets = Iterator[Task | None]
RR_INTERVAL_NS = 100_000_000
SLICE_NS = 3_000_000
"""What sched_rr_get_interval(2) says of fair tasks: base_slice of one CPU."""


def _find(task: Task, pid: int) -> Task:
    if pid < 0:
        raise EINVAL(f"pid {pid}")
    return _find_any(task, pid)


def _find_any(task: Task, pid: int) -> Task:
    """The affinity calls look a negative pid up, too. ESRCH."""
    target = task if pid == 0 else task.pids.task_or_zombie(pid)
    if target is None:
        raise ESRCH(f"thread {pid}")
    return target


@syscall(24)
def sys_sched_yield(task: Task) -> None:
    """sched_yield(2): the host schedules; others get the vCPU when there are too few."""


@syscall(145)
def sys_sched_getscheduler(task: Task, pid: Pid) -> int:
    """sched_getscheduler(2)."""
    found = sched.of(_find(task, pid))
    return found.policy | (SCHED_RESET_ON_FORK if found.reset_on_fork else 0)


@syscall(144)
def sys_sched_setscheduler(task: Task, pid: Pid, policy: Policy, param: Addr) -> None:
    """sched_setscheduler(2)."""
    if policy < 0 or not param or pid < 0:
        raise EINVAL("arguments")
    priority = _read_priority(task, param)
    target = _find(task, pid)
    reset = bool(policy & SCHED_RESET_ON_FORK)
    wanted = sched.Wanted(policy & ~SCHED_RESET_ON_FORK, priority, reset_on_fork=reset)
    sched.set_policy(task, target, wanted)


def _read_priority(task: Task, param: int) -> int:
    return int.from_bytes(task.mm.read(param, 4), "little", signed=True)


@syscall(142)
def sys_sched_setparam(task: Task, pid: Pid, param: Addr) -> None:
    """sched_setparam(2)."""
    if not param or pid < 0:
        raise EINVAL("arguments")
    priority = _read_priority(task, param)
    target = _find(task, pid)
    old = sched.of(target)
    sched.set_policy(
        task, target, sched.Wanted(old.policy, priority, reset_on_fork=old.reset_on_fork)
    )


@syscall(143)
def sys_sched_getparam(task: Task, pid: Pid, param: Addr) -> None:
    """sched_getparam(2)."""
    if not param or pid < 0:
        raise EINVAL("arguments")
    task.mm.write(param, sched.of(_find(task, pid)).priority.to_bytes(4, "little"))


@syscall(146)
def sys_sched_get_priority_max(task: Task, policy: Policy) -> int:
    """sched_get_priority_max(2)."""
    return sched.priority_range(policy)[1]


@syscall(147)
def sys_sched_get_priority_min(task: Task, policy: Policy) -> int:
    """sched_get_priority_min(2)."""
    return sched.priority_range(policy)[0]


@syscall(148)
def sys_sched_rr_get_interval(task: Task, pid: Pid, result: TimespecOut) -> None:
    """sched_rr_get_interval(2)."""
    found = sched.of(_find(task, pid))
    interval = RR_INTERVAL_NS if found.policy == SCHED_RR else SLICE_NS
    result.put(*divmod(0 if found.policy == abi.SCHED_FIFO else interval, NS))


# sched_setattr -----------------------------------------------------------------------------------


@syscall(314)
def sys_sched_setattr(task: Task, pid: Pid, attr: Addr, flags: UInt) -> None:
    """sched_setattr(2)."""
    if not attr or pid < 0 or flags:
        raise EINVAL("arguments")
    a = _read_attr(task, attr)
    if a.sched_policy >> 31:
        raise EINVAL("policy")
    target = _find(task, pid)
    old = sched.of(target)
    policy, reset = a.sched_policy, bool(a.sched_flags & SCHED_FLAG_RESET_ON_FORK)
    if a.sched_flags & SCHED_FLAG_KEEP_POLICY:
        policy, reset = old.policy, old.reset_on_fork
    if a.sched_flags & ~SCHED_FLAG_ALL:
        raise EINVAL("sched_flags")
    priority, nice = a.sched_priority, min(max(a.sched_nice, sched.MIN_NICE), sched.MAX_NICE)
    deadline = (a.sched_runtime, a.sched_deadline, a.sched_period)
    if a.sched_flags & SCHED_FLAG_KEEP_PARAMS:  # of the policy that it has: get_params()
        if old.policy in sched.FAIR:
            nice = old.nice
        else:
            priority = old.priority
        if old.policy == SCHED_DEADLINE:
            deadline = old.deadline
    if policy != SCHED_DEADLINE:
        deadline = (0, 0, 0)
    if a.sched_flags & SCHED_FLAG_UTIL_CLAMP:
        raise EOPNOTSUPP("utilization clamps")
    sched.set_policy(task, target, sched.Wanted(policy, priority, nice, reset, deadline))


def _read_attr(task: Task, addr: int) -> abi.SchedAttr:
    """sched_copy_attr(): 0 is the first size; what is unknown must be 0, else E2BIG."""
    size = int.from_bytes(task.mm.read(addr, 4), "little") or SCHED_ATTR_SIZE_VER0
    if not SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE:
        _write_size(task, addr)
    data = task.mm.read(addr, size)
    if any(data[SCHED_ATTR.size :]):
        _write_size(task, addr)
    (flags,) = struct.unpack_from("<Q", data, 8)
    if flags & SCHED_FLAG_UTIL_CLAMP and size < SCHED_ATTR_SIZE_VER1:
        raise EINVAL("clamps without room for them")
    return SCHED_ATTR.unpack(data[: SCHED_ATTR.size].ljust(SCHED_ATTR.size, b"\0"))


def _write_size(task: Task, addr: int) -> None:
    task.mm.write(addr, SCHED_ATTR.size.to_bytes(4, "little"))
    raise E2BIG("struct sched_attr")


@syscall(315)
def sys_sched_getattr(task: Task, pid: Pid, attr: Addr, size: UInt, flags: UInt) -> None:
    """sched_getattr(2)."""
    if not attr or pid < 0 or flags or not SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE:
        raise EINVAL("arguments")
    s = sched.of(_find(task, pid))
    length = min(size, SCHED_ATTR.size)
    reset = SCHED_FLAG_RESET_ON_FORK if s.reset_on_fork else 0
    fair = s.policy in sched.FAIR
    times = (SLICE_NS, 0, 0) if fair else s.deadline
    data = SCHED_ATTR.pack(
        length, s.policy, reset, s.nice if fair else 0, s.priority, *times, 0, 1024
    )
    task.mm.write(attr, data[:length])


# Affinity ----------------------------------------------------------------------------------------


def _all_cpus(task: Task) -> int:
    return (1 << task.kernel.cpus) - 1


def _mask_size(task: Task) -> int:
    """Bytes of the kernel's cpumask, in longs."""
    return (task.kernel.cpus + 63) // 64 * 8


@syscall(203)
def sys_sched_setaffinity(task: Task, pid: Pid, size: UInt, mask: Addr) -> None:
    """sched_setaffinity(2): kept, and reported by sched_getaffinity."""
    wanted = int.from_bytes(task.mm.read(mask, min(size, _mask_size(task))), "little")
    target = _find_any(task, pid)
    capable = task.creds.has_in(target.creds.user_ns, CAP_SYS_NICE)
    if not (capable or sched.may_change(task, target)):
        raise EPERM(f"thread {pid}")
    sched.check_capabilities(task, target)
    wanted &= _all_cpus(task)
    if not wanted:
        raise EINVAL("no such CPU")
    sched.change(target, affinity=wanted)


@syscall(204)
def sys_sched_getaffinity(task: Task, pid: Pid, size: UInt, mask: Addr) -> int:
    """sched_getaffinity(2): gives how many bytes were written."""
    if (size * 8 & 0xFFFFFFFF) < task.kernel.cpus or size & 7:  # an unsigned int, as there
        raise EINVAL(f"mask of {size} bytes")
    affinity = sched.of(_find_any(task, pid)).affinity
    length = min(size, _mask_size(task))
    found = _all_cpus(task) if affinity is None else affinity
    task.mm.write(mask, found.to_bytes(length, "little"))
    return length


@syscall(309)
def sys_getcpu(task: Task, cpu: Addr, node: Addr, cache: Addr) -> None:
    """getcpu(2): the first CPU that the task may run on; there is one node."""
    affinity = sched.of(task).affinity or 1
    number = (affinity & -affinity).bit_length() - 1
    if cpu:
        task.mm.write(cpu, number.to_bytes(4, "little"))
    if node:
        task.mm.write(node, bytes(4))


# Nice values and I/O priorities ------------------------------------------------------------------


def _targets(task: Task, process: bool, group: bool, who: int) -> Targets:
    """The threads that (PRIO_PROCESS | PRIO_PGRP | PRIO_USER, who) means; None is another one."""
    pids, creds = task.pids, task.creds
    if process:
        target = task if who == 0 else pids.task_or_zombie(who)
        if target is not None:
            yield target
        return
    uid = None
    if group:
        found = task.group.process_group if who == 0 else pids.process_group(who)
        groups = list(found.members) if found is not None else []
    else:
        uid = kernel_id(creds.user_ns, who & NO_ID) if who else creds.uid
        groups = pids.members() if uid != NO_ID else []
    for each in groups:
        for thread in list(each.all_tasks()):
            yield thread if uid is None or thread.creds.uid == uid else None


def _best(
    targets: Targets, value_of: Callable[[Task], int], better: Callable[[int, int], int]
) -> Steps[int]:
    """Of all that there are. Raises: ESRCH."""
    best: int | None = None
    for target in targets:
        if target is not None:
            value = value_of(target)
            best = value if best is None else better(best, value)
        yield
    if best is None:
        raise ESRCH("nobody")
    return best


@syscall(140)
def sys_getpriority(task: Task, which: Int, who: Int) -> Result:
    """getpriority(2): the raw call gives 20 - nice."""
    if which not in (PRIO_PROCESS, PRIO_PGRP, PRIO_USER):
        raise EINVAL(f"which {which}")
    targets = _targets(task, which == PRIO_PROCESS, which == PRIO_PGRP, who)
    return in_steps(_best(targets, lambda target: 20 - sched.of(target).nice, max))


@syscall(141)
def sys_setpriority(task: Task, which: Int, who: Int, nice: Int) -> Result:
    """setpriority(2)."""
    if which not in (PRIO_PROCESS, PRIO_PGRP, PRIO_USER):
        raise EINVAL(f"which {which}")
    targets = _targets(task, which == PRIO_PROCESS, which == PRIO_PGRP, who)
    return in_steps(_renice(task, targets, min(max(nice, sched.MIN_NICE), sched.MAX_NICE)))


def _renice(task: Task, targets: Targets, nice: int) -> Steps[None]:
    failed: Exception | None = ESRCH("nobody")
    for target in targets:
        yield
        if target is None:
            continue
        mine, theirs = task.creds, target.creds
        owner = mine.euid in (theirs.uid, theirs.euid) or mine.has_in(
            theirs.user_ns, CAP_SYS_NICE
        )
        if not owner:
            failed = EPERM("another user's")
        elif nice < sched.of(target).nice and not sched.may_nice(task, target, nice):
            failed = EACCES("RLIMIT_NICE")
        elif sched.outranked(task, target):
            failed = EPERM("has more capabilities")
        else:
            sched.change(target, nice=nice)
            if isinstance(failed, ESRCH):
                failed = None
    if failed is not None:
        raise failed


def _io_targets(task: Task, which: int, who: int) -> Targets:
    if which not in (ioprio.IOPRIO_WHO_PROCESS, ioprio.IOPRIO_WHO_PGRP, ioprio.IOPRIO_WHO_USER):
        raise EINVAL(f"which {which}")
    one, group = which == ioprio.IOPRIO_WHO_PROCESS, which == ioprio.IOPRIO_WHO_PGRP
    return _targets(task, one, group, who)


@syscall(251)
def sys_ioprio_set(task: Task, which: Int, who: Int, value: Int) -> Result:
    """ioprio_set(2)."""
    value &= 0xFFFF
    kind, level = value >> 13 & 7, value & 7
    creds = task.creds
    if kind == ioprio.IOPRIO_CLASS_RT and not (creds.has(CAP_SYS_NICE) or creds.has(CAP_SYS_ADMIN)):
        raise EPERM("real-time class")
    if kind > ioprio.IOPRIO_CLASS_IDLE or (kind == ioprio.IOPRIO_CLASS_NONE and level):
        raise EINVAL(f"priority {value:#x}")
    return in_steps(_change_ioprio(task, _io_targets(task, which, who), value))


def _change_ioprio(task: Task, targets: Targets, value: int) -> Steps[None]:
    creds, nobody = task.creds, True
    for target in targets:
        yield
        if target is None:
            continue
        nobody = False
        if target.creds.uid not in (creds.euid, creds.uid) and not creds.has(CAP_SYS_NICE):
            raise EPERM("another user's")
        sched.check_capabilities(task, target)
        if not target.dead:  # who has ended has none any more
            sched.change(target, ioprio=value)
    if nobody:
        raise ESRCH("nobody")


@syscall(252)
def sys_ioprio_get(task: Task, which: Int, who: Int) -> Result:
    """ioprio_get(2): the best of them; one without its own counts as what its nice gives.

    Of a single process it is what was set: get_task_raw_ioprio(), block/ioprio.c.
    """
    targets = _io_targets(task, which, who)
    return in_steps(_best(targets, lambda target: _shown(target, which), min))


def _shown(target: Task, which: int) -> int:
    s = sched.of(target)
    value = 0 if target.dead else s.ioprio
    if which != ioprio.IOPRIO_WHO_PROCESS and not value:
        value = ioprio.IOPRIO_CLASS_BE << ioprio.IOPRIO_CLASS_SHIFT | (s.nice + 20) // 5
    return value
