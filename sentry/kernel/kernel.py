"""One running kernel: the machine, the loop, the processes, and what is global to a sandbox."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from sentry.errors import EFAULT, ENOMEM
from sentry.kernel.container import Container
from sentry.kernel.crowds import Crowds
from sentry.kernel.futex_table import FutexTable
from sentry.kernel.pids import Pids
from sentry.kernel.services import Services
from sentry.kernel.thread_group import ThreadGroup
from sentry.loop import Loop
from sentry.wait.fiber import Fiber, Mode, park, this_fiber

if TYPE_CHECKING:
    from sentry.kernel.ipc_namespace import IpcNamespace
    from sentry.kernel.nsproxy import CgroupNamespace, TimeNamespace, Uts
    from sentry.kernel.pids import PidNamespace
    from sentry.kernel.task import Observer, Task
    from sentry.kernel.watching import Deciding, Watching
    from sentry.net.namespace import NetNamespace
    from sentry.platform.interface import Platform
    from sentry.vfs.mounts import HeldMounts
    from sentry.vfs.vfs import Vfs

MAX_TASKS = 32768
"""Ceiling of tasks in one sandbox."""
OOM_PAUSE_NS: Final = 1_000_000
"""How long a task without memory waits for a dying process to give its own back."""
TRIM_HELPS: Final = 1 << 20
TRIM_AGAIN_NS: Final = 1_000_000_000
"""Giving back less than so many bytes does not help twice in so short a time."""


class Log(Protocol):
    """Where the kernel's own messages go; never blocks."""

    bugs: int
    left_out: int

    def write(self, text: str) -> None: ...
    def tell(self, report: str) -> None: ...
    def bug(self, what: object, error: BaseException) -> None: ...
    def finish(self) -> None: ...


class Standstill(Protocol):
    """That all tasks of a container stand, for a snapshot (standing.py)."""

    def passes(self, task: Task) -> bool: ...
    def stood(self, task: Task) -> None: ...
    def ended(self) -> None: ...
    def is_of(self, container: Container) -> bool: ...


class Meter(Protocol):
    """What a profile counts one kind of work with."""

    count: int

    def add(self, ns: int) -> None: ...


class Counters:
    """What happened so far, for the profile and for leak checks."""

    __slots__ = ("faults", "unknown_calls")

    def __init__(self) -> None:
        self.faults = 0
        self.unknown_calls: Counter[int] = Counter()

    def unknown(self, number: int) -> None:
        """A call that has no handler was made."""
        self.unknown_calls[number & 0xFFFF] += 1


class Namespaces(Struct, frozen=True):
    """Where a task is, as one value that tasks share: struct nsproxy. namespaces(7).

    The namespace of users is part of the credentials, that of its own numbers (`Task.pids`) is the
    process's for good.
    """

    cgroup: "CgroupNamespace"
    ipc: "IpcNamespace"
    mounts: "HeldMounts"
    net: "NetNamespace"
    pids_for_children: "PidNamespace"
    time: "TimeNamespace"
    time_for_children: "TimeNamespace"
    uts: "Uts"

    def but(self, **others: Any) -> Namespaces:
        """The same with other ones in some places."""
        return replace(self, **others)


class Kernel:
    """The state that all tasks share. Made by sentry.boot; everything runs on the loop's thread."""

    def __init__(
        self,
        platform: Platform,
        loop: Loop,
        log: Log,
        calls: list[Callable[..., Any] | None],
        uts: Uts,
        vfs: Vfs,
        cpus: int = 1,
    ) -> None:
        self.platform = platform
        self.loop = loop
        self.clock = loop.programs
        """The time that programs see."""
        self.log = log
        self.calls = calls
        """Handlers by number, decoders included: `sentry.syscalls.registry.CALLS`."""
        self.uts = uts
        """The first UTS namespace."""
        self.vfs = vfs
        self.cpus = cpus
        """CPUs that programs are shown."""
        self.pids = Pids(MAX_TASKS)
        self.futexes = FutexTable()
        self.crowds = Crowds(loop)
        vfs.until = self.crowds.until
        self.counters = Counters()
        self.boot_ns = time.monotonic_ns()
        self.start_observers: list[Observer] = []
        """Observers that every new task gets (strace)."""
        self.services = Services()
        self.watch: Watching | None = None
        """Who is told what happens (sentry.watch)."""
        self.policy: Deciding | None = None
        """Who decides on calls (sentry.policy), once there was somebody."""
        self.fault_meter: Meter | None = None
        """Who measures page faults (sentry.control.profile)."""
        self.container = Container()
        """The first one, which the sandbox ends with."""
        self.further: list[Container] = []
        """Those beside it."""
        self.held: set[Task] = set()
        """Tasks that stand still because their container is paused, or their cgroup frozen."""
        self.standing: Standstill | None = None
        """Who has all tasks of a container stand still, for a snapshot."""
        self.remembered: Any = None
        """What the last snapshot has of memory: sentry.state.pages.Remembered."""
        self.cgroups = self.container.cgroup
        """The top of the first container's cgroups."""
        self._made_room_for: Fiber | None = None
        """The last call that met the limit: what was given back did not last if it comes again."""
        self._trimmed_ns = 0
        self.exit_status: int | None = None
        """wait(2) status of the first process once the sandbox is over."""

    @property
    def first(self) -> Namespaces:
        """Those of the sandbox itself: init_nsproxy."""
        found: Namespaces = self.container.ns
        return found

    @first.setter
    def first(self, namespaces: Namespaces) -> None:
        self.container.ns = namespaces

    @property
    def init(self) -> ThreadGroup | None:
        """The sandbox's first process."""
        return self.pids.init

    @init.setter
    def init(self, group: ThreadGroup | None) -> None:
        self.pids.init = self.container.init = group

    async def make_room(self) -> None:
        """RAM has reached its limit in the middle of a system call, which is then made again.

        Raises: EFAULT if nobody may be killed.
        """
        fiber = await this_fiber()
        again, self._made_room_for = fiber is self._made_room_for, fiber
        if not self.out_of_memory(None, trim=not again):
            raise EFAULT("the memory limit is reached")
        await park(Mode.KILLABLE, self.loop.now_ns() + OOM_PAUSE_NS)

    async def make_frames(self) -> None:
        """`make_room` for what is no access to user memory. Raises: ENOMEM."""
        try:
            await self.make_room()
        except EFAULT as error:
            raise ENOMEM(str(error)) from None

    def hurry_dying(self) -> bool:
        """SIGKILL for all that end already; whether there is one."""
        dying = [group for group in self.pids.groups.values() if group.exiting and group.tasks]
        for group in dying:
            group.hurry()
        return bool(dying)

    def out_of_memory(self, task: Task | None, *, trim: bool = True) -> bool:
        """RAM has reached its limit: kill who holds most, as oom_score_adj says, `task` at last.

        First (`trim`) give back what free frames still hold; if that helps, or if somebody is
        dying already or the pages of a file are going, nobody dies. False: there is no room, and
        nobody to kill.
        """
        ram = self.platform.ram
        if self.hurry_dying() or ram.leaving:
            return True
        if trim:
            before = ram.populated()
            ram.trim()
            given = before - ram.populated()  # a hole in a huge page gives the host nothing back
            now_ns, last_ns = self.loop.now_ns(), self._trimmed_ns
            self._trimmed_ns = now_ns
            if given >= TRIM_HELPS or (given > 0 and now_ns - last_ns > TRIM_AGAIN_NS):
                return True
        victim = self._worst()
        if victim is None and task is not None:
            victim = task.group
        if victim is None:
            return False
        comm = victim.tasks[0].comm.decode(errors="replace") if victim.tasks else ""
        self.log.write(
            f"Out of memory: killed process {victim.tgid} ({comm})\n"
        )
        self.tell_out_of_memory(victim)
        victim.exit(9)
        victim.container.killed()
        return True

    def tell_out_of_memory(self, victim: ThreadGroup) -> None:
        """Memory has run out, and it is about to be killed for that."""
        if self.watch is not None and victim.tasks:
            self.watch.out_of_memory(victim)

    def _worst(self) -> ThreadGroup | None:
        """Whose end gives most back, of equals the youngest: oom_evaluate_task(), mm/oom_kill.c.

        Pages of files are not ours. One pass, since there may be very many of them.
        """
        total = self.platform.ram.limit >> 12
        worst, found = 0, None
        for group in self.pids.groups.values():
            tasks, adjusted = group.tasks, group.oom_score_adj
            if group.exiting or not tasks or tasks[0].dead or adjusted <= -1000:
                continue
            ran = group.account.cpu_time_ns() + group.used.sys_ns
            badness = tasks[0].mm.resident.ram_pages(ran) + adjusted * total // 1000
            if found is None or badness >= worst:
                worst, found = badness, group
        return found

    def finish(self, status: int) -> None:
        """The first process has ended: the sandbox is over."""
        if self.exit_status is None:
            self.exit_status = status
            self.loop.stop()
