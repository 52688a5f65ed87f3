"""`Job`: a process of `exec` and all that comes of it, counted and bounded together.

Who is forked belongs to its parent's job, and nobody leaves one: unlike a control group, which
programs with the rights for it make, move between and change, it shows nowhere inside. A limit that
is exceeded ends all of it. What Linux calls ru_maxrss, wchar and pids.current is counted as there.

Nobody looks at a job without limits. CPU time is looked at when it may be used up at the earliest;
memory and bytes each hundredth of a second while it runs: it may have what it takes in that time
beyond its limit, but not beyond the container's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.abi.signal import SIGKILL
from sentry.config import JobLimits, JobUse
from sentry.errors import EAGAIN
from sentry.kernel.signals import SigInfo
from sentry.kernel.task_signals import send_to_group
from sentry.kernel.thread_group import Usage
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.fiber import Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.loop import Timer

LOOK_NS: Final = 10_000_000
"""Between two looks while it runs."""
IDLE_NS: Final = 100_000_000
"""The same while it does not."""
SHORTEST_NS: Final = 1_000_000
"""Between two looks at CPU time alone."""
WALL: Final = "wall"
CPU: Final = "cpu"
MEMORY: Final = "memory"
PROCESSES: Final = "processes"
WRITTEN: Final = "written"
EGRESS: Final = "egress"
"""The limits, as `exceeded` names them."""
LOOK: Final = "look"
"""A timer, as WALL is one."""


class Job:
    """One of them."""

    __slots__ = (
        "_kernel", "_limits", "_peak_bytes", "_peak_tasks", "_queue", "_ran_ns", "_resident",
        "_tasks", "_timers", "closed", "exceeded", "gone", "members", "sent",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, limits: JobLimits) -> None:
        self._kernel = kernel
        self._limits = limits
        self._tasks = self._peak_tasks = self._peak_bytes = 0
        self._resident = 0
        """Bytes of RAM that its processes had at the last look, without files that they map."""
        self._ran_ns = -1
        """CPU time at the last look."""
        self._timers: dict[str, Timer] = {}
        self._queue = WaitQueue()
        """Told when nobody is left."""
        self.members: dict[ThreadGroup, None] = {}
        """Processes that have a living thread."""
        self.gone = Usage()
        """What those have used that are gone."""
        self.sent = 0
        self.closed = False
        """It is to end: nobody is born any more."""
        self.exceeded = ""
        """The limit that has ended it."""

    @property
    def is_bounded(self) -> bool:
        """It has limits that hold for all of it: so nothing of it outlasts its first process."""
        limits = self._limits
        return bool(
            limits.cpu_ns or limits.memory or limits.tasks or limits.written or limits.sent
        )

    # --- members

    def check_birth(self) -> None:
        """There may be one more task. Raises: EAGAIN; beyond the limit all of the job ends."""
        if self.closed:
            raise EAGAIN("the job ends")
        if self._limits.tasks and self._tasks >= self._limits.tasks:
            self._exceed(PROCESSES)
            raise EAGAIN(f"the job may have {self._limits.tasks} tasks")

    def born(self, group: ThreadGroup) -> None:
        """A thread was made, the first or a further one of a process that is here."""
        self._tasks += 1
        self._peak_tasks = max(self._peak_tasks, self._tasks)
        self.members[group] = None

    def thread_ends(self, group: ThreadGroup) -> None:
        """A thread of a process that is here is gone; the last one stays as a zombie."""
        if group.tasks:
            self._tasks -= 1
            return
        self.gone.add(group.usage())
        self.members.pop(group, None)
        if not self.members:
            self._queue.notify()

    def reaped(self) -> None:
        """A zombie is gone."""
        self._tasks -= 1

    # --- what it uses

    def use(self) -> Steps[JobUse]:
        """What it has used so far: a piece for each process."""
        total, pages = Usage(), 0
        seen: set[int] = set()
        total.add(self.gone)
        for group in list(self.members):
            if not group.tasks:  # it has gone meanwhile: `gone` has it, for the next look
                continue
            total.add(group.usage())
            for task in group.tasks:
                total.count_bytes(task)
            mm = group.tasks[0].mm
            if id(mm) not in seen:  # vfork(2) and the like
                seen.add(id(mm))
                pages += mm.resident.ram_pages(sum(group.cpu_ns()))
            yield
        self._resident = pages * PAGE_SIZE
        self._peak_bytes = max(self._peak_bytes, self._resident, total.maxrss * 1024)
        return JobUse(
            user_ns=total.user_ns,
            system_ns=total.sys_ns,
            memory=self._peak_bytes,
            tasks=self._peak_tasks,
            read=total.rchar,
            written=total.wchar,
            sent=self.sent,
        )

    # --- limits

    def begin(self) -> None:
        """The first process runs: the time goes from now on."""
        if self.closed:
            return
        if self._limits.wall_ns:
            self._call_in(self._limits.wall_ns, WALL, partial(self._exceed, WALL))
        if self._is_watched or self._limits.cpu_ns:
            self._arm(0)

    def first_ended(self) -> None:
        """The first process has: the time is over that it had."""
        timer = self._timers.pop(WALL, None)
        if timer is not None:
            timer.cancel()

    def kill(self) -> None:
        """SIGKILL for all, and whoever is about to be born is not."""
        self.closed = True
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            timer.cancel()
        self._kernel.loop.call_for_each(list(self.members), _end)

    def signal(self, number: int) -> None:
        """A signal for all; from outside, so nobody is asked. SIGKILL ends the job."""
        if number == SIGKILL:
            self.kill()
        else:
            self._kernel.loop.call_for_each(list(self.members), partial(_send, number))

    async def ended(self) -> None:
        """Until nobody is left."""

        def attempt() -> None:
            if self.members:
                raise EAGAIN("somebody is left")

        await until(attempt, (self._queue,), mode=Mode.UNINTERRUPTIBLE)

    @property
    def _is_watched(self) -> bool:
        """There is a limit that may be reached without CPU time that counts."""
        return bool(self._limits.memory or self._limits.written or self._limits.sent)

    def _call_in(self, ns: int, name: str, callback: Callable[[], None]) -> None:
        loop = self._kernel.loop
        self._timers[name] = loop.call_at(loop.now_ns() + ns, callback)

    def _arm(self, ran_ns: int) -> None:
        limits, is_idle = self._limits, ran_ns == self._ran_ns
        pause_ns = IDLE_NS if is_idle else LOOK_NS
        if limits.cpu_ns:
            left_ns = (limits.cpu_ns - ran_ns) // self._kernel.cpus
            left_ns = max(left_ns, IDLE_NS if is_idle else SHORTEST_NS)
            pause_ns = min(pause_ns, left_ns) if self._is_watched else left_ns
        self._ran_ns = ran_ns
        self._call_in(pause_ns, LOOK, self._look)

    def _look(self) -> None:
        self._timers.pop(LOOK, None)
        self._kernel.loop.spawn(driven(self.use()), "job", self._looked)

    def _looked(self, use: JobUse | None, error: BaseException | None) -> None:
        if error is not None or use is None:
            self._kernel.log.bug("job", error or RuntimeError("no use"))
            return
        if self.closed or not self.members:
            return
        limits, ran_ns = self._limits, use.user_ns + use.system_ns
        beyond = (
            (CPU, ran_ns, limits.cpu_ns),
            (MEMORY, self._resident, limits.memory),
            (WRITTEN, use.written, limits.written),
            (EGRESS, use.sent, limits.sent),
        )
        for name, used, most in beyond:
            if most and used > most:
                self._exceed(name)
                return
        self._arm(ran_ns)

    def _exceed(self, name: str) -> None:
        """It may be in the middle of a call of one of them."""
        self._timers.pop(name, None)
        if not self.closed:
            self.exceeded, self.closed = name, True
            self._kernel.loop.call_soon(self.kill)


def _end(group: ThreadGroup) -> None:
    group.exit(SIGKILL)


def _send(number: int, group: ThreadGroup) -> None:
    if group.tasks:
        send_to_group(group, SigInfo.kernel(number), force=True)
