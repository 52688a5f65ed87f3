"""NUMA policies on a machine of one node: get_mempolicy(2), mbind(2), move_pages(2) and relatives.

A policy is kept and shown; where memory comes from does not depend on it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_NICE
from sentry.abi.mempolicy import (
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_F_ADDR,
    MPOL_F_MEMS_ALLOWED,
    MPOL_F_NODE,
    MPOL_F_NUMA_BALANCING,
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_INTERLEAVE,
    MPOL_LOCAL,
    MPOL_MF_MOVE,
    MPOL_MF_MOVE_ALL,
    MPOL_MF_VALID,
    MPOL_MODE_FLAGS,
    MPOL_PREFERRED,
    MPOL_PREFERRED_MANY,
    MPOL_WEIGHTED_INTERLEAVE,
)
from sentry.auth.ptrace import may_access
from sentry.errors import (
    EFAULT,
    EINVAL,
    ENODEV,
    ENOENT,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Pid, Size, UInt
from sentry.vfs.file import Result
from sentry.wait.steps import Steps, in_steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.mm.address_map import AddressMap
    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma

MAX_NODES: Final = 1024
SOME_PAGES: Final = 16
"""Pages of which it tells at a time: DO_PAGES_STAT_CHUNK_NR."""
Policy = tuple[int, int]
"""(mode with its flags, mask of nodes)."""
DEFAULT: Final[Policy] = (MPOL_DEFAULT, 0)


def read_nodes(task: Task, mask: int, bits: int) -> int:
    """get_nodes(): a mask of nodes; `bits` is one more than the highest. EINVAL, EFAULT."""
    bits -= 1
    if not mask or not bits:
        return 0
    if not 0 < bits <= 4096 * 8:
        raise EINVAL(f"{bits} nodes")
    found = int.from_bytes(task.mm.read(mask, (bits + 63) // 64 * 8), "little")
    found &= (1 << bits) - 1
    if found >> MAX_NODES:
        raise EINVAL("more nodes than there can be")
    return found


def check_policy(task: Task, mode: int, mask: int, bits: int) -> Policy:
    """sanitize_mpol_flags(), mpol_new(), mpol_set_nodemask(): only node 0 is there. EINVAL."""
    kind, flags = mode & ~MPOL_MODE_FLAGS, mode & MPOL_MODE_FLAGS
    if kind > MPOL_WEIGHTED_INTERLEAVE or mode >> 16:
        raise EINVAL(f"mode {mode:#x}")
    if flags & MPOL_F_STATIC_NODES and flags & MPOL_F_RELATIVE_NODES:
        raise EINVAL("static and relative nodes")
    if flags & MPOL_F_NUMA_BALANCING and kind not in (MPOL_BIND, MPOL_PREFERRED_MANY):
        raise EINVAL("balancing")
    nodes = read_nodes(task, mask, bits)
    if kind == MPOL_DEFAULT:
        if nodes:
            raise EINVAL("nodes for a policy without")
        return DEFAULT
    if kind == MPOL_LOCAL:
        if nodes or flags:
            raise EINVAL("nodes for a policy without")
        return kind, 0
    if kind == MPOL_PREFERRED and not nodes:
        if flags & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES):
            raise EINVAL("no nodes")
        return MPOL_LOCAL, 0
    if not nodes or (not nodes & 1 and not flags & MPOL_F_RELATIVE_NODES):
        raise EINVAL(f"nodes {nodes:#x}")
    return mode, 1


@syscall(239)
def sys_get_mempolicy(
    task: Task, mode: Addr, mask: Addr, bits: Size, addr: Addr, flags: Size
) -> None:
    """get_mempolicy(2)."""
    if mask and bits < 1:
        raise EINVAL(f"{bits} nodes")
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED):
        raise EINVAL(f"flags {flags:#x}")
    shown, nodes = task.policy or DEFAULT
    if flags & MPOL_F_MEMS_ALLOWED:
        if flags & (MPOL_F_NODE | MPOL_F_ADDR):
            raise EINVAL("MPOL_F_MEMS_ALLOWED with others")
        shown, nodes = 0, 1
    elif flags & MPOL_F_ADDR:
        task.mm.map.lock.check()
        vma = task.mm.map.vmas.find(addr)
        if vma is None:
            raise EFAULT(f"{addr:#x}")
        shown, nodes = vma.policy or DEFAULT
        if flags & MPOL_F_NODE:
            shown = 0
    elif addr:
        raise EINVAL("address without MPOL_F_ADDR")
    elif flags & MPOL_F_NODE:
        if shown & ~MPOL_MODE_FLAGS not in (MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE):
            raise EINVAL("not interleaved")
        shown = 0
    if mode:
        task.mm.write(mode, struct.pack("<i", shown))
    if mask:
        size = (bits + 62) // 64 * 8
        if size > 4096:
            raise EINVAL(f"{bits} nodes")
        task.mm.write(mask, nodes.to_bytes(max(size, 8), "little")[:size])


@syscall(238)
def sys_set_mempolicy(task: Task, mode: Int, mask: Addr, bits: Size) -> None:
    """set_mempolicy(2)."""
    policy = check_policy(task, mode & 0xFFFFFFFF, mask, bits)
    if policy == DEFAULT:
        task.policy = None
    else:
        task.policy = policy


def page_range(start: int, length: int) -> int:
    """The end of a range in whole pages. Raises: EINVAL."""
    end = start + ((length + 4095 & ~4095) & 0xFFFFFFFFFFFFFFFF)
    if start & 4095 or end >= 1 << 64:
        raise EINVAL(f"range {start:#x} {length:#x}")
    return end


@syscall(237)
def sys_mbind(
    task: Task, addr: Addr, length: Size, mode: Size, mask: Addr, bits: Size, flags: UInt
) -> Result:
    """mbind(2): do_mbind()."""
    policy = check_policy(task, mode & 0xFFFFFFFF, mask, bits)
    if flags & ~MPOL_MF_VALID:
        raise EINVAL(f"flags {flags:#x}")
    if flags & MPOL_MF_MOVE_ALL and not task.creds.has(CAP_SYS_NICE):
        raise EPERM("MPOL_MF_MOVE_ALL")
    end = page_range(addr, length)
    if end == addr:
        return 0
    return in_steps(bound(task.mm.map, addr, end, policy), task.mm.map.lock)


def bound(amap: AddressMap, start: int, end: int, policy: Policy) -> Steps[None]:
    """One mapping after the other; holes are for MPOL_DEFAULT alone. Raises: EFAULT, ENOMEM."""
    at = start
    for _, low, high in amap.parts(start, end):
        if low > at and policy != DEFAULT:
            raise EFAULT(f"{at:#x}")
        at = high
        yield
    if at == start or (at < end and policy != DEFAULT):
        raise EFAULT(f"{at:#x}")
    kept = None if policy == DEFAULT else policy

    def change(vma: Vma) -> None:
        vma.policy = kept

    at = start  # what was changed may be one with the next mapping, which ends behind `end`
    while at < end and (found := amap.vmas.after(at)) is not None and found.start < end:
        low, at = max(found.start, at), min(found.end, end)
        yield from amap.changing(low, at, change)


@syscall(450)
def sys_set_mempolicy_home_node(
    task: Task, start: Addr, length: Size, node: Size, flags: Size
) -> Result:
    """set_mempolicy_home_node(2): checked; there is but one node to call home."""
    if start & 4095 or flags or node:
        raise EINVAL("start, flags or node")
    return in_steps(_check_home(task.mm.map, start, page_range(start, length)), task.mm.map.lock)


def _check_home(amap: AddressMap, start: int, end: int) -> Steps[None]:
    found = False
    for vma, _, _ in amap.parts(start, end):
        yield
        if vma.policy is None:
            continue
        if vma.policy[0] & ~MPOL_MODE_FLAGS not in (MPOL_BIND, MPOL_PREFERRED_MANY):
            raise EOPNOTSUPP("a policy without a home")
        found = True
    if not found and end > start:
        raise ENOENT("no policy")


def memory_of(task: Task, pid: int) -> Any:
    """find_mm_struct(). Raises: ESRCH, EPERM, EINVAL."""
    if pid == 0:
        return task.mm
    target = task.pids.task_or_zombie(pid)
    if target is None:
        raise ESRCH(f"pid {pid}")
    if target.group is not task.group and not may_access(
        task.creds, target, real=True
    ):
        raise EPERM(f"memory of {pid}")
    if target.dead:
        raise EINVAL(f"{pid} has ended")
    return target.mm


@syscall(256)
def sys_migrate_pages(task: Task, pid: Pid, bits: Size, old: Addr, new: Addr) -> int:
    """migrate_pages(2): all pages are on node 0 and stay there."""
    read_nodes(task, old, bits)
    wanted = read_nodes(task, new, bits)
    memory_of(task, pid)
    if wanted & ~1 and not task.creds.has(CAP_SYS_NICE):
        raise EPERM("nodes that the process may not use")
    if not wanted & 1:
        raise EINVAL("no such node")
    return 0


@syscall(279)
def sys_move_pages(
    task: Task, pid: Pid, count: Size, pages: Addr, nodes: Addr, status: Addr, flags: Int
) -> Result:
    """move_pages(2): says where pages are (node 0), and moves none."""
    if flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise EINVAL(f"flags {flags:#x}")
    if flags & MPOL_MF_MOVE_ALL and not task.creds.has(CAP_SYS_NICE):
        raise EPERM("MPOL_MF_MOVE_ALL")
    return in_steps(places(task.mm, memory_of(task, pid), count, (pages, nodes, status)))


def places(
    mine: MemoryManager, theirs: MemoryManager, count: int, where: tuple[int, int, int]
) -> Steps[int]:
    """Some pages after the other; the process may end meanwhile. Raises: EFAULT, ENODEV."""
    pages, nodes, status = where
    theirs.share()
    try:
        for first in range(0, count, SOME_PAGES):
            some = min(SOME_PAGES, count - first)
            addresses = struct.unpack(f"<{some}Q", mine.read(pages + 8 * first, 8 * some))
            if nodes and any(mine.read(nodes + 4 * first, 4 * some)):
                raise ENODEV("another node")
            found = struct.pack(f"<{some}i", *(where_is(theirs, address) for address in addresses))
            mine.write(status + 4 * first, found)
            yield
    finally:
        theirs.release()
    return 0


def where_is(mm: MemoryManager, address: int) -> int:
    """Node 0, -EFAULT where nothing is mapped, -ENOENT where no page is."""
    if mm.map.vmas.find(address) is None:
        return -EFAULT.number
    return 0 if mm.space.resident(address & ~4095, 1)[0] & 1 else -ENOENT.number
