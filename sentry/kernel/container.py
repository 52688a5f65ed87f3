"""`Container`: what each container of a sandbox has for itself, beside its namespaces.

The sandbox begins with one (`Kernel.container`) and ends with it; further ones are made by
`sentry.boot.further` and end alone. Which container a process belongs to its cgroup says: the top
of the tree that it is in, which it cannot leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sentry.abi.signal import SIGKILL
from sentry.errors import EAGAIN
from sentry.kernel.cgroup import Cgroup
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.fs.devpts.console import Console
    from sentry.fs.tmpfs.filesystem import TmpFs
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.mount import Stand

Process = Any
"""A ThreadGroup, which knows this module, as do the next two."""
Namespaces = Any
PidNamespace = Any


class Container:
    """One of them."""

    __slots__ = (
        "cgroup", "console", "copied", "cpu_quota", "cpu_weight", "ending", "first_mounts", "id",
        "in_memory", "init", "memory_limit", "ns", "on_end", "oom_group", "oom_kills", "oom_queue",
        "paused", "pids_limit", "root", "throttled", "unstarted",
    )  # fmt: skip

    ns: Namespaces
    """Where its first process begins; filled in boot."""

    def __init__(self) -> None:
        self.cgroup = Cgroup(None, b"")
        """The top of its tree of control groups."""
        self.cgroup.container = self
        self.id = ""
        """As its engine calls it."""
        self.init: Process | None = None
        """Its first process. That of the sandbox is process 1 of the first PID namespace."""
        self.root: FileSystem | None = None
        """That of its root directory, wherever programs have mounted it since; filled in boot."""
        self.console: Console | None = None
        """The terminal that was donated, where process.terminal asks for one."""
        self.paused = False
        """No task of it runs: see sentry/kernel/pause.py."""
        self.copied = False
        """No task of it runs for a moment: a fork of the sandbox is made."""
        self.throttled = False
        """It has used its CPU time: see sentry/kernel/container_cpu.py."""
        self.unstarted = False
        """Its first process stands before its first instruction."""
        self.oom_group = False
        """memory.oom.group: where memory runs out, the first process and all others are killed."""
        self.oom_kills = 0
        self.oom_queue = WaitQueue()
        """Told of each."""
        self.pids_limit = 0
        """Tasks that it may have (linux.resources.pids.limit); 0: not limited."""
        self.memory_limit = 0
        """Bytes that it may have of the sandbox's memory; 0: all of it."""
        self.first_mounts: dict[int, Stand] = {}
        """Those that its bundle asks for, by their ids, as they were when it began."""
        self.in_memory: list[TmpFs] = []
        """File systems in memory that were made for it."""
        self.cpu_quota: tuple[int, int] = (0, 100_000)
        """Microseconds in a period, and the period; 0: not limited. Of the first container it is
        the host's affair."""
        self.cpu_weight = 100
        """Its share beside others, 1 to 10,000; the host's affair."""
        self.ending = False
        """Its first process has ended, or is to: nobody else comes."""
        self.on_end: Callable[[int], object] | None = None
        """Hears once, with the first process's status, that nobody is left. None: it is the first
        container, whose end `Kernel.finish` tells."""

    @property
    def pids(self) -> PidNamespace:
        """The PID namespace in which its processes are numbered."""
        return self.ns.pids_for_children

    @property
    def stands(self) -> bool:
        """No task of it may run."""
        return self.paused or self.copied or self.throttled

    def holds(self, group: Process) -> bool:
        """No task of this process may run."""
        return self.stands or (self.unstarted and group is self.init)

    def processes(self) -> list[Process]:
        """All that live."""
        return [group for at in self.cgroup.down() for group in at.members]

    def used_pages(self) -> int:
        """Of RAM, that its processes have in memory."""
        total = 0
        for group in self.processes():
            ran = sum(group.cpu_ns())
            total += group.tasks[0].mm.resident.ram_pages(ran) if group.tasks else 0
        return total

    def file_pages(self) -> int:
        """Of RAM, that files have which are in memory for it."""
        return sum(fs.pages for fs in self.in_memory)

    def cpu_ns(self) -> int:
        """CPU time of its processes, also of those that are gone."""
        total = self.cgroup.gone_user_ns + self.cgroup.gone_sys_ns
        return total + sum(sum(group.cpu_ns()) for group in self.processes())

    def check_task(self) -> None:
        """There may be one more. Raises: EAGAIN."""
        if self.pids_limit and self.cgroup.charged >= self.pids_limit:
            raise EAGAIN(f"the container may have {self.pids_limit} tasks")

    def killed(self, count: int = 1) -> None:
        """So many processes were killed because memory ran out; with `oom_group` so are all:
        mem_cgroup_get_oom_group(), mm/memcontrol.c."""
        self.oom_kills += count
        if not count:
            return
        self.oom_queue.notify()
        if self.oom_group and self.init is not None and not self.init.exiting:
            self.init.exit(SIGKILL)
