"""`Others`: what the other containers of a sandbox hold. None of it is in a snapshot of one.

What a container has together with another one cannot be cut in two: connections of TCP are reset
then, as those that leave the sandbox are, all else is refused by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from sentry.errors import Errno
from sentry.fs.pipe.file import PipeFile
from sentry.mm.ramfile import RamFile
from sentry.net.inet.tcp import TcpSocket
from sentry.net.unix import UnixSocket

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel, Namespaces
    from sentry.kernel.task import Task
    from sentry.wait.steps import Pace

Kind = Literal["ipc", "net", "pid", "uts"]
SHARED: Final[dict[str, Kind]] = {
    "ipc": "ipc", "net": "net", "pids_for_children": "pid", "uts": "uts",
}  # fmt: skip
"""Fields of `Namespaces` that containers may have together, and what /proc/PID/ns calls them."""


class Others:
    """Of the containers beside one. Preconditions: all tasks of the sandbox stand still."""

    def __init__(self, kernel: Kernel, container: Container) -> None:
        every = (kernel.container, *kernel.further)
        self._containers = [each for each in every if each is not container]
        self._held: dict[int, Any] = {}
        """Open files, pipes, tables of descriptors, files in RAM that are mapped shared,
        namespaces, by their identities: held, so that no two have one."""
        for each in self._containers:
            self._hold_namespaces(each.ns)
        self.shared: list[Kind] = [
            name for field, name in SHARED.items()
            if any(getattr(container.ns, field) is getattr(each.ns, field)
                   for each in self._containers)
        ]  # fmt: skip
        """Kinds of namespaces that are the container's and another one's, too."""

    def __bool__(self) -> bool:
        """There are some."""
        return bool(self._containers)

    def has(self, thing: object) -> bool:
        """Another container holds it."""
        return id(thing) in self._held

    async def look(self, pace: Pace) -> None:
        """At all that they have."""
        for container in self._containers:
            for group in container.processes():
                for task in list(group.tasks):
                    await self._task(task, pace)

    def _hold(self, thing: object) -> bool:
        """False: it is known."""
        if id(thing) in self._held:
            return False
        self._held[id(thing)] = thing
        return True

    def _hold_namespaces(self, ns: Namespaces) -> None:
        for name in ns.__struct_fields__:
            self._hold(getattr(ns, name))
        self._hold(ns.mounts.mounts)
        if ns.net._stack is not None:
            self._hold(ns.net._stack)

    async def _task(self, task: Task, pace: Pace) -> None:
        self._hold_namespaces(task.ns)
        table = task.files
        for fd in table if self._hold(table) else ():
            try:
                await self._file(table.get_raw(fd), pace)
            except Errno:  # a task that was killed closes its files
                continue
        vmas = task.mm.map.vmas if self._hold(task.mm) else ()
        for vma in list(vmas):
            if vma.shared and isinstance(vma.backing, RamFile):
                self._hold(vma.backing)
            await pace.rest()

    async def _file(self, file: Any, pace: Pace) -> None:
        """With what waits in its queues."""
        found = [file]
        while found:
            file = found.pop()
            if self._hold(file):
                found += _behind(file)
            await pace.rest()


def _behind(file: Any) -> list[Any]:
    """What an open file leads to that nobody else may have."""
    if isinstance(file, PipeFile):
        return [file.pipe]
    if isinstance(file, UnixSocket):
        return [*(each for sent in file.segments for each in sent.files), *file.pending]
    if isinstance(file, TcpSocket):
        return [*file._accepted, *file._deferred]
    return []
