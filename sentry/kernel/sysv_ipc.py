"""`IpcNamespace`: System V objects and the POSIX queues beside them: ipc_namespaces(7).

The first one is made when a task first needs it; `task.ipc` is None for those who live in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.fs.proc.sysctl import get_sysctl

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.vfs.mount import Mount

SERVICE = "ipc"


class IpcNamespace:
    """Segments, semaphores and queues, with the limits of /proc/sys/kernel.

    It goes with the last task in it: nothing here refers back to it.
    """

    __slots__ = (
        "__weakref__", "_budget", "charge", "mqueue", "next_ids", "owner", "queues", "segments",
        "semaphores",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, owner: UserNamespace | None = None) -> None:
        from sentry.kernel.sysv_msg import Queues  # noqa: PLC0415  few programs have any
        from sentry.kernel.sysv_sem import Semaphores  # noqa: PLC0415
        from sentry.kernel.sysv_shm import Segments  # noqa: PLC0415

        self.owner = owner
        self.charge: Charge | None = None
        def limits(name: str) -> tuple[int, ...]:
            """The numbers of a sysctl below kernel/; a negative one is 0."""
            return tuple(max(int(n), 0) for n in get_sysctl(kernel, f"kernel/{name}").split())

        def limit(name: str) -> int:
            return limits(name)[0]

        self._budget = kernel.vfs.budget
        self._budget.check_ipc_namespaces()
        self._budget.ipc_namespaces += 1
        self.segments = Segments(kernel.vfs, limit)
        self.semaphores = Semaphores(kernel.vfs.budget, limits)
        self.queues = Queues(kernel.vfs.budget, limit)
        self.next_ids: dict[str, int] = {}
        """kernel.msg_next_id and the like, by "msg", "sem", "shm"."""
        for table in (self.segments.ids, self.semaphores.ids, self.queues.ids):
            table.owner, table.next_ids = owner, self.next_ids
        self.mqueue: Mount | None = None
        """The mount of its POSIX queues, once there is one (sentry.fs.mqueue)."""

    def __del__(self) -> None:
        if not hasattr(self, "queues"):
            return
        for found in list(self.semaphores.ids.objects.values()):
            self.semaphores.remove(found)
        for queue in list(self.queues.ids.objects.values()):
            self.queues.remove(queue)
        self._budget.ipc_namespaces -= 1


def ipc_of(task: Task) -> IpcNamespace:
    """The namespace of a task, the first one made when it is first needed."""
    found = task.ipc
    if found is None:
        services = task.kernel.services
        found = services.get(SERVICE)
        if found is None:
            found = services[SERVICE] = IpcNamespace(task.kernel)
            found.next_ids.update(services.pop("ipc_first_next_ids", {}))
            show_tables(task.kernel)
    assert isinstance(found, IpcNamespace)
    return found


def show_tables(kernel: Kernel) -> None:
    """From now on there is something to see in /proc/sysvipc."""
    services = kernel.services
    services["ipc_next_ids"] = lambda reader: ipc_of(reader).next_ids
    services["sysvipc:shm"] = lambda reader: ipc_of(reader).segments.table(reader)
    services["sysvipc:sem"] = lambda reader: ipc_of(reader).semaphores.table(reader)
    services["sysvipc:msg"] = lambda reader: ipc_of(reader).queues.table(reader)


def new_namespace(
    kernel: Kernel, owner: UserNamespace | None, charge: Charge
) -> IpcNamespace:
    """CLONE_NEWIPC. Raises: ENOSPC."""
    made = IpcNamespace(kernel, owner)
    made.charge = charge
    show_tables(kernel)
    return made


def memory_moves(task: Task) -> None:
    """An address space is about to be copied or dropped on behalf of this task: fork, exit, exec.

    shm_lpid of the segments in it becomes its process.
    """
    found = task.ipc or task.kernel.services.get(SERVICE)
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
    found = task.ipc or task.kernel.services.get(SERVICE)
    if found is not None:
        found.segments.creator_exits(task)
    task.ipc = None
