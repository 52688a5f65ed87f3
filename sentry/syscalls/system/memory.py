"""Memory of other processes: process_vm_readv(2), kcmp(2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.kcmp import (
    KCMP_EPOLL_TFD,
    KCMP_FILE,
    KCMP_FILES,
    KCMP_FS,
    KCMP_IO,
    KCMP_SIGHAND,
    KCMP_SYSVSEM,
    KCMP_VM,
)
from sentry.abi.limits import UIO_MAXIOV
from sentry.auth.ptrace import may_access, may_attach
from sentry.errors import EBADF, EFAULT, EINVAL, ENOENT, EPERM, ESRCH
from sentry.fs.epoll.file import EpollFile
from sentry.kernel.task import Task
from sentry.mm.layout import TASK_END
from sentry.mm.vma import VmFlag
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Pid, Size
from sentry.vfs.file import Result
from sentry.wait.again import again
from sentry.wait.fiber import Mode, park
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.mm.manager import MemoryManager

    Piece = tuple[int, int, int]
    """Address here, address there, bytes."""

CHUNK: Final = 65536
STEP_PIECES: Final = 16
"""Pieces that are copied before others have their turn: a mebibyte at most."""


def read_vector(task: Task, addr: int, count: int) -> list[tuple[int, int]]:
    """A struct iovec array. EINVAL for too many, or a length that is negative."""
    if count > UIO_MAXIOV:
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
        part = min(a_left, b_left, CHUNK)
        yield a, b, part
        a, b, a_left, b_left = a + part, b + part, a_left - part, b_left - part


def other_memory(task: Task, pid: int) -> Any:
    """The address space of a process that the caller may attach to. ESRCH, EPERM."""
    target = task.pids.task(pid)
    if target is None or target.dead:
        raise ESRCH(f"pid {pid}")
    if not may_attach(task, target, real=True):
        raise EPERM(f"memory of {pid}")
    return target.mm


def accessible(mm: MemoryManager, addr: int, count: int, write: bool) -> int:
    """How many bytes from there another process may have. Raises: NeedsFault."""
    if not 0 <= addr < TASK_END:
        return 0
    count = min(count, TASK_END - addr)
    for vma in mm.map.vmas.overlapping(addr, addr + count):
        if vma.flags & VmFlag.SECRET:
            count = max(0, vma.start - addr)
            break
    return mm.accessible(addr, count, write)


class Transfer:
    """Bytes on their way between the caller's memory and another."""

    __slots__ = ("_left", "_mine", "_next", "_theirs", "_write", "done", "over")

    def __init__(
        self, mine: MemoryManager, theirs: MemoryManager, left: Iterator[Piece], write: bool
    ) -> None:
        self._mine = mine
        self._theirs = theirs
        self._write = write
        self._left = left
        self._next = next(left, None)
        self.done = 0
        self.over = self._next is None

    def step(self) -> None:
        """The next piece, up to the first byte that cannot be accessed. Raises: NeedsFault."""
        assert self._next is not None
        mine, theirs, count = self._next
        good = accessible(self._theirs, theirs, count, self._write)
        good = self._mine.accessible(mine, good, not self._write) if good else 0
        try:
            if self._write:
                self._theirs.write(theirs, self._mine.read(mine, good))
            else:
                self._mine.write(mine, self._theirs.read(theirs, good))
        except EFAULT:  # what a file had there is gone
            good = 0
        self.done += good
        self._next = next(self._left, None) if good == count else None
        self.over = self._next is None

    def result(self) -> int:
        """Bytes. Raises: EFAULT if there are none."""
        if not self.done:
            raise EFAULT("nothing could be accessed")
        return self.done


async def finish(transfer: Transfer, mm: MemoryManager) -> int:
    """The rest, with others in between; the other process may end meanwhile."""
    mm.share()
    try:
        while not transfer.over:
            await park(Mode.KILLABLE, 0)  # let others run
            for _ in range(STEP_PIECES):
                if not transfer.over:
                    await again(transfer.step)
    finally:
        await driven(mm.releasing())
    return transfer.result()


def move(
    task: Task, pid: int, vectors: tuple[int, int, int, int], flags: int, write: bool
) -> Result:
    """process_vm_rw(): up to the first byte that cannot be accessed, EFAULT if it is the first."""
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    local = task.mm.read_iov(vectors[0], vectors[1])
    if not any(length for _, length in local):
        return 0
    remote = read_vector(task, vectors[2], vectors[3])
    if not any(length for _, length in remote):
        return 0
    mm = other_memory(task, pid)
    transfer = Transfer(task.mm, mm, pieces(local, remote), write)
    for _ in range(STEP_PIECES):
        transfer.step()
        if transfer.over:
            return transfer.result()
    return finish(transfer, mm)


@syscall(310)
def sys_process_vm_readv(
    task: Task, pid: Pid, local: Addr, locals: Size, remote: Addr, remotes: Size, flags: Size
) -> Result:
    """process_vm_readv(2)."""
    return move(task, pid, (local, locals, remote, remotes), flags, False)


@syscall(311)
def sys_process_vm_writev(
    task: Task, pid: Pid, local: Addr, locals: Size, remote: Addr, remotes: Size, flags: Size
) -> Result:
    """process_vm_writev(2)."""
    return move(task, pid, (local, locals, remote, remotes), flags, True)


SHARED_OF: dict[int, Callable[[Task], object]] = {
    KCMP_VM: lambda task: task.mm,
    KCMP_FILES: lambda task: task.files,
    KCMP_FS: lambda task: task.fs,
    KCMP_SIGHAND: lambda task: task.group.actions,
    KCMP_IO: lambda task: None,  # no task has a context of block I/O
    KCMP_SYSVSEM: lambda task: task.sem_undo,
}


def file_of(target: Task, fd: int) -> Any:
    """get_file_raw_ptr(): who has ended has none. Raises: EBADF."""
    if target.dead:
        raise EBADF(f"task {target.tid} has ended")
    return target.files.get_raw(fd & 0xFFFFFFFF)


def watched_file(target: Task, slot: tuple[int, int, int]) -> object:
    """KCMP_EPOLL_TFD: struct kcmp_epoll_slot {efd, tfd, toff}; `toff` picks one of equal numbers.

    Raises: EBADF, EINVAL, ENOENT.
    """
    efd, tfd, number = slot
    epoll = file_of(target, efd)
    if not isinstance(epoll, EpollFile):
        raise EINVAL("not an epoll descriptor")
    found = epoll.watched(tfd)
    if number >= len(found):
        raise ENOENT(f"{tfd} is not watched")
    return found[number]


@syscall(312)
def sys_kcmp(task: Task, pid1: Pid, pid2: Pid, kind: Int, index1: Size, index2: Size) -> int:
    """kcmp(2): 0 for the same object, 1 or 2 for an order. EBADF, EINVAL, EPERM, ESRCH."""
    tasks = []
    for pid in (pid1, pid2):
        target = task.pids.task_or_zombie(pid)
        if target is None:
            raise ESRCH(f"pid {pid}")
        tasks.append(target)
    for target in tasks:
        if target.group is not task.group and not may_access(
            task.creds, target, real=True
        ):
            raise EPERM(f"process {target.tid}")
    one, two = tasks
    a: object
    b: object
    if kind == KCMP_FILE:
        a, b = file_of(one, index1), file_of(two, index2)
    elif kind == KCMP_EPOLL_TFD:
        slot = struct.unpack("<III", task.mm.read(index2, 12))
        a, b = file_of(one, index1), watched_file(two, slot)
    elif kind in SHARED_OF:
        a, b = (
            None if target.dead and kind != KCMP_SIGHAND else SHARED_OF[kind](target)
            for target in tasks
        )
    else:
        raise EINVAL(f"kind {kind}")
    if a is b:
        return 0
    mask, factor = task.kernel.services.kcmp_secret
    a_key, b_key = ((id(one) ^ mask) * (factor | 1) % (1 << 64) for one in (a, b))
    return 1 if a_key < b_key else 2
