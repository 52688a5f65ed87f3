"""`IpcNamespace`: System V objects and the POSIX queues beside them: ipc_namespaces(7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.fs.kernel import Kernel
    from sentry.kernel.sysv_ids import Caller
    from sentry.kernel.sysv_msg import Queues
    from sentry.kernel.sysv_sem import Semaphores
    from sentry.kernel.sysv_shm import Segments
    from sentry.vfs.mount import Mount


class IpcObjects:
    """Segments, semaphores and queues, with the limits of /proc/sys/kernel."""

    __slots__ = ("_let_go", "queues", "segments", "semaphores")

    def __init__(self, kernel: Kernel, of: IpcNamespace) -> None:
        from sentry.fs.proc.sysctl import of_ipc  # noqa: PLC0415  few programs have any
        from sentry.kernel.sysv_msg import Queues  # noqa: PLC0415
        from sentry.kernel.sysv_sem import Semaphores  # noqa: PLC0415
        from sentry.kernel.sysv_shm import Segments  # noqa: PLC0415

        written = of.sysctls

        def limits(name: str) -> tuple[int, ...]:
            """The numbers of a sysctl below kernel/; a negative one is 0."""
            return tuple(max(int(n), 0) for n in of_ipc(written, f"kernel/{name}").split())

        def limit(name: str) -> int:
            return limits(name)[0]

        self._let_go: Callable[..., None] = kernel.vfs.leftovers.begin
        self.segments: Segments = Segments(kernel.vfs, limit)
        self.semaphores: Semaphores = Semaphores(kernel.vfs.budget, limits)
        self.queues: Queues = Queues(kernel.vfs.budget, limit, self._let_go)
        for table in (self.segments.ids, self.semaphores.ids, self.queues.ids):
            table.owner, table.next_ids = of.owner, of.next_ids

    def table(self, name: str, reader: Caller) -> Iterator[str]:
        """The lines of /proc/sysvipc/NAME."""
        if name == "shm":
            return self.segments.table(reader)
        return (self.semaphores if name == "sem" else self.queues).table(reader)

    def __del__(self) -> None:
        sets, queues = self.semaphores, self.queues
        self._let_go(sets.ids.objects.values(), lambda found: at_once(sets.remove(found)))
        self._let_go(queues.ids.objects.values(), queues.remove)


class IpcNamespace:
    """It goes with the last task in it: nothing here refers back to it."""

    __slots__ = ("_kernel", "charge", "made", "mqueue", "next_ids", "owner", "sysctls")

    def __init__(
        self,
        kernel: Kernel,
        owner: UserNamespace | None = None,
        charge: Charge | None = None,
        sysctls: dict[str, str] | None = None,
    ) -> None:
        self._kernel = kernel
        self.owner = owner
        self.charge = charge
        self.sysctls = {} if sysctls is None else sysctls
        """What was written of its values below /proc/sys, by path."""
        self.made: IpcObjects | None = None
        """The objects, once there has been one."""
        self.next_ids: dict[str, int] = {}
        """kernel.msg_next_id and the like, by "msg", "sem", "shm"."""
        self.mqueue: Mount | None = None
        """The mount of its POSIX queues, once there is one (sentry.fs.mqueue)."""
        kernel.vfs.budget.ipc_namespaces += 1

    def __del__(self) -> None:
        self._kernel.vfs.budget.ipc_namespaces -= 1

    def written(self) -> dict[str, str]:
        """`sysctls` and `next_ids`, by path."""
        found = dict(self.sysctls)
        for kind, number in self.next_ids.items():
            found[f"kernel/{kind}_next_id"] = str(number)
        return found

    @property
    def objects(self) -> IpcObjects:
        """The objects, made when first needed."""
        if self.made is None:
            self.made = IpcObjects(self._kernel, self)
        return self.made
