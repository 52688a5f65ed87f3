"""Memory of other processes, and the one memory node: process_vm_readv(2), get_mempolicy(2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from sentry.auth.ptrace import may_access
from sentry.errors import EFAULT, EINVAL, EPERM, ESRCH
from sentry.kernel.task import Task
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Pid, Size, UInt

if TYPE_CHECKING:
    from collections.abc import Iterator

IOV_MAX = 1024
CHUNK = 65536
MAX_COPY = 16 << 20
"""Bytes that one call moves: more would keep others waiting; a short count says so."""
MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL = range(5)
MPOL_WEIGHTED_INTERLEAVE = 6
MPOL_F_NODE, MPOL_F_ADDR, MPOL_F_MEMS_ALLOWED = 1, 2, 4
MPOL_MODE_FLAGS = 0xE000
MPOL_MF_VALID = 7
MAX_NODES = 1024
GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: an odd multiplier that mixes."""


def read_vector(task: Task, addr: int, count: int) -> list[tuple[int, int]]:
    """A struct iovec array. EINVAL for too many, or a length that is negative."""
    if count > IOV_MAX:
        raise EINVAL(f"{count} pieces")
    if not count:
        return []
    vector = list(struct.iter_unpack("<QQ", task.mm.read(addr, count * 16)))
    if any(length >= 1 << 63 for _, length in vector):
        raise EINVAL("negative length")
    return vector


def pieces(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> Iterator[tuple[int, int, int]]:
    """(address in `first`, address in `second`, bytes) until one of them is used up."""
    left, right = iter(first), iter(second)
    a = b = a_left = b_left = 0
    while True:
        try:
            while not a_left:
                a, a_left = next(left)
            while not b_left:
                b, b_left = next(right)
        except StopIteration:
            return
        part = min(a_left, b_left, CHUNK, 4096 - (b & 4095))
        yield a, b, part
        a, b, a_left, b_left = a + part, b + part, a_left - part, b_left - part


def other_memory(task: Task, pid: int) -> Any:
    """The address space of a process that the caller may attach to. ESRCH, EPERM."""
    target = task.kernel.pids.tasks.get(pid)
    if target is None or target.dead:
        raise ESRCH(f"pid {pid}")
    if target.group is not task.group and not may_access(
        task.creds, target.creds, target.group.dumpable, real=True
    ):
        raise EPERM(f"memory of {pid}")
    return target.mm


def transfer(
    task: Task, pid: int, vectors: tuple[int, int, int, int], flags: int, write: bool
) -> int:
    """process_vm_rw(): up to the first page that cannot be accessed, EFAULT if it is the first."""
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    local = read_vector(task, vectors[0], vectors[1])
    remote = read_vector(task, vectors[2], vectors[3])
    if not local or not remote:
        return 0
    mm = other_memory(task, pid)
    done = 0
    for mine, theirs, count in pieces(local, remote):
        if done >= MAX_COPY:
            break
        try:
            if write:
                mm.write(theirs, task.mm.read(mine, count))
            else:
                task.mm.write(mine, mm.read(theirs, count))
        except EFAULT:
            if not done:
                raise
            break
        done += count
    return done


@syscall(310, partial="at most 16 MiB a call")
def sys_process_vm_readv(
    task: Task, pid: Pid, local: Addr, locals: Size, remote: Addr, remotes: Size, flags: Size
) -> int:
    """process_vm_readv(2)."""
    return transfer(task, pid, (local, locals, remote, remotes), flags, False)


@syscall(311, partial="at most 16 MiB a call")
def sys_process_vm_writev(
    task: Task, pid: Pid, local: Addr, locals: Size, remote: Addr, remotes: Size, flags: Size
) -> int:
    """process_vm_writev(2)."""
    return transfer(task, pid, (local, locals, remote, remotes), flags, True)


def read_nodes(task: Task, mask: int, bits: int) -> int:
    """get_nodes(): a mask of nodes; `bits` is one more than the highest."""
    bits -= 1
    if not mask or bits <= 0:
        return 0
    if bits > 4096 * 8:
        raise EINVAL(f"{bits} nodes")
    return int.from_bytes(task.mm.read(mask, (bits + 63) // 64 * 8), "little") & (1 << bits) - 1


def check_policy(task: Task, mode: int, mask: int, bits: int) -> None:
    """Only node 0 is there; what a policy asks for, it has. EINVAL, EFAULT."""
    kind = mode & ~MPOL_MODE_FLAGS
    nodes = read_nodes(task, mask, bits)
    if kind > MPOL_WEIGHTED_INTERLEAVE or mode >> 16:
        raise EINVAL(f"mode {mode:#x}")
    if kind in (MPOL_DEFAULT, MPOL_LOCAL):
        if nodes:
            raise EINVAL("nodes for a policy without")
    elif not nodes & 1 and (kind != MPOL_PREFERRED or nodes):
        raise EINVAL(f"nodes {nodes:#x}")


@syscall(239, partial="the policy is always MPOL_DEFAULT: there is one node")
def sys_get_mempolicy(
    task: Task, mode: Addr, mask: Addr, bits: Size, addr: Addr, flags: Size
) -> None:
    """get_mempolicy(2)."""
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED):
        raise EINVAL(f"flags {flags:#x}")
    if mask and bits < 1:
        raise EINVAL(f"{bits} nodes")
    if flags & MPOL_F_MEMS_ALLOWED and flags & (MPOL_F_NODE | MPOL_F_ADDR):
        raise EINVAL("MPOL_F_MEMS_ALLOWED with others")
    if flags & MPOL_F_ADDR:
        if task.mm.vmas.find(addr) is None:
            raise EFAULT(f"{addr:#x}")
    elif addr or flags & MPOL_F_NODE:
        raise EINVAL("address without MPOL_F_ADDR")
    if mode:
        task.mm.write(mode, struct.pack("<i", MPOL_DEFAULT))
    if mask:
        found = 1 if flags & MPOL_F_MEMS_ALLOWED else 0
        task.mm.write(mask, found.to_bytes((min(bits, MAX_NODES) + 63) // 64 * 8, "little"))


@syscall(238, partial="checked and forgotten: there is one node")
def sys_set_mempolicy(task: Task, mode: Int, mask: Addr, bits: Size) -> None:
    """set_mempolicy(2)."""
    check_policy(task, mode & 0xFFFFFFFF, mask, bits)


@syscall(237, partial="checked and forgotten: there is one node")
def sys_mbind(
    task: Task, addr: Addr, length: Size, mode: Size, mask: Addr, bits: Size, flags: UInt
) -> None:
    """mbind(2)."""
    check_policy(task, mode & 0xFFFFFFFF, mask, bits)
    if flags & ~MPOL_MF_VALID or addr & 4095:
        raise EINVAL(f"flags {flags:#x} address {addr:#x}")
    end = addr + (length + 4095 & ~4095)
    if end < addr:
        raise EINVAL("length")
    while addr < end:
        vma = task.mm.vmas.find(addr)
        if vma is None:
            raise EFAULT(f"{addr:#x}")
        addr = vma.end


@syscall(312)
def sys_kcmp(task: Task, pid1: Pid, pid2: Pid, kind: Int, index1: Size, index2: Size) -> int:
    """kcmp(2): 0 for the same object, 1 or 2 for an order. EBADF, EINVAL, EPERM, ESRCH."""
    tasks = []
    for pid in (pid1, pid2):
        target = task.kernel.pids.tasks.get(pid)
        if target is None or target.dead:
            raise ESRCH(f"pid {pid}")
        tasks.append(target)
    for target in tasks:
        if target.group is not task.group and not may_access(
            task.creds, target.creds, target.group.dumpable, real=True
        ):
            raise EPERM(f"process {target.tid}")
    one, two = tasks
    # KCMP_FILE, _VM, _FILES, _FS, _SIGHAND
    if kind == 0:
        a: object = one.files.get_raw(index1 & 0xFFFFFFFF)
        b: object = two.files.get_raw(index2 & 0xFFFFFFFF)
    elif 1 <= kind <= 4:
        a, b = (
            {1: t.mm, 2: t.files, 3: t.fs, 4: t.group.actions}[kind] for t in (one, two)
        )
    else:
        raise EINVAL(f"kind {kind}")
    if a is b:
        return 0
    # an order that says nothing of where the objects are
    return 1 if id(a) * GOLDEN % (1 << 64) < id(b) * GOLDEN % (1 << 64) else 2
