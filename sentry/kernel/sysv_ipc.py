"""`IpcNamespace`: the System V objects of a sandbox. There is one; tasks find it by `ipc_of`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.fs.proc.sysctl import get_sysctl
from sentry.kernel.sysv_msg import Queues
from sentry.kernel.sysv_sem import Semaphores
from sentry.kernel.sysv_shm import Segments

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

SERVICE = "ipc"


class IpcNamespace:
    """Segments, semaphores and queues, with the limits of /proc/sys/kernel."""

    __slots__ = ("kernel", "queues", "segments", "semaphores")

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.segments = Segments(kernel.vfs, self.limit)
        self.semaphores = Semaphores(kernel.vfs.budget, self.limits)
        self.queues = Queues(kernel.vfs.budget, self.limit)
        kernel.services["sysvipc:shm"] = self.segments.table
        kernel.services["sysvipc:sem"] = self.semaphores.table
        kernel.services["sysvipc:msg"] = self.queues.table

    def limits(self, name: str) -> tuple[int, ...]:
        """The numbers of a sysctl below kernel/; a negative one is 0."""
        return tuple(max(int(n), 0) for n in get_sysctl(self.kernel, f"kernel/{name}").split())

    def limit(self, name: str) -> int:
        """The number of a sysctl below kernel/."""
        return self.limits(name)[0]


def ipc_of(task: Task) -> IpcNamespace:
    """The namespace of a task, made when first needed."""
    services = task.kernel.services
    found = services.get(SERVICE)
    if found is None:
        found = services[SERVICE] = IpcNamespace(task.kernel)
    assert isinstance(found, IpcNamespace)
    return found


def memory_moves(task: Task) -> None:
    """An address space is about to be copied or dropped on behalf of this task: fork, exit, exec.

    shm_lpid of the segments in it becomes its process.
    """
    found = task.kernel.services.get(SERVICE)
    if found is not None:
        found.segments.actor = task.group.tgid


def leave_semaphores(task: Task) -> None:
    """exit_sem(), also unshare(CLONE_SYSVSEM): SEM_UNDO is done, if nobody shares the list."""
    undo, task.sem_undo = task.sem_undo, None
    if undo is not None:
        undo.leave(task.group.tgid)


def task_exits(task: Task) -> None:
    """exit_sem() and exit_shm(): what a task gives back when it ends."""
    leave_semaphores(task)
    found = task.kernel.services.get(SERVICE)
    if found is not None:
        found.segments.creator_exits(task)
