"""wait4(2) and waitid(2): what a parent learns of its children."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.signal import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    CLD_TRAPPED,
    SIGCHLD,
    SIGCONT,
)
from sentry.abi.wait import (
    __WALL,
    __WCLONE,
    __WNOTHREAD,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WSTOPPED,
    WUNTRACED,
)
from sentry.errors import ECHILD
from sentry.kernel.task_exit import is_held, reap
from sentry.wait.looks import Looks
from sentry.wait.queue import Entry
from sentry.wait.steps import Pace, Steps

if TYPE_CHECKING:
    from sentry.kernel.pids import PidNamespace
    from sentry.kernel.task import Task, Tie
    from sentry.kernel.thread_group import ThreadGroup, Usage

AT_A_TIME: Final = 64
"""Children between two looks at the clock."""
WAIT4_OPTIONS = WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL
WAITID_OPTIONS = (
    WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL
)


class Report(Struct, frozen=True):
    """A change of state of a child."""

    pid: int
    """As the waiting task has it."""
    uid: int
    code: int
    """CLD_*."""
    status: int
    """wait(2) status."""
    value: int
    """Exit code or signal (si_status)."""
    usage: "Usage"


def usage_of(group: ThreadGroup) -> Usage:
    """What a process and the children it waited for have used: RUSAGE_BOTH."""
    usage = group.usage()
    usage.add(group.reaped_usage)
    return usage


def _ended(pid: int, uid: int, status: int, usage: Usage) -> Report:
    code = CLD_EXITED if status & 0x7F == 0 else CLD_DUMPED if status & 0x80 else CLD_KILLED
    value = status >> 8 & 0xFF if code == CLD_EXITED else status & 0x7F
    return Report(pid, uid, code, status, value, usage)


def _report(pids: PidNamespace, group: ThreadGroup, options: int) -> Report | None:
    """What there is to tell of one child, consumed unless WNOWAIT."""
    if group.is_zombie:
        if not options & WEXITED or is_held(group):
            return None
        usage = usage_of(group)
        report = _ended(pids.of(group.tgid), group.uid, group.exit_status, usage)
        if not options & WNOWAIT:
            parent = group.parent
            reap(group, parent.reaped_usage if parent is not None else None)
        return report
    if group.stop_signal and not group.stop_reported and options & WSTOPPED:
        group.stop_reported = bool(not options & WNOWAIT)
        signo = group.stop_signal
        status, usage = signo << 8 | 0x7F, usage_of(group)
        return Report(pids.of(group.tgid), group.uid, CLD_STOPPED, status, signo, usage)
    if not group.continue_reported and options & WCONTINUED:
        group.continue_reported = bool(not options & WNOWAIT)
        usage = usage_of(group)
        number = pids.of(group.tgid)
        return Report(number, group.uid, CLD_CONTINUED, 0xFFFF, SIGCONT, usage)
    return None


def _traced_report(pids: PidNamespace, tracee: Tie, options: int) -> Report | None:
    """What there is to tell a tracer: its stops whatever the options, and the end of threads."""
    traced = tracee.task
    keep = options & WNOWAIT
    if _is_own_zombie(tracee):
        return _report(pids, traced.group, options)
    if tracee.dead:
        if not options & WEXITED:
            return None
        usage = tracee.usage or usage_of(traced.group)
        # the process's, if it has ended meanwhile: wait_task_zombie()
        status = traced.group.exit_status if traced.group.exiting else tracee.status
        report = _ended(pids.of(traced.tid), traced.creds.uid, status, usage)
        if not keep:
            tracee.waited_for()
        return report
    code = tracee.untold()
    if not code:
        return None
    if not keep:
        tracee.told()
    usage = usage_of(traced.group)
    number = pids.of(traced.tid)
    return Report(number, traced.creds.uid, CLD_TRAPPED, code << 8 | 0x7F, code, usage)


def _is_own_zombie(tracee: Tie) -> bool:
    """The tracee is a process that has ended, and its parent and its tracer are one."""
    group = tracee.task.group
    return group.leader is tracee.task and group.is_zombie and not is_held(group)


def _may_tell(child: ThreadGroup) -> bool:
    """A child that has nothing to tell now may have later: else it is as if it were not there.

    Of a zombie there is only its end, which a wait without WEXITED does not hear; one that its
    tracer has to take first counts: wait_consider_task(), kernel/exit.c.
    """
    return not child.is_zombie or is_held(child)


def _tracee_may_tell(tracee: Tie, options: int) -> bool:
    """The same of a tracee; a leader that ended before its threads waits for them."""
    if tracee.dead or _is_own_zombie(tracee):
        return False
    return not tracee.task.dead or bool(options & (WEXITED | WCONTINUED))


def _own(group: ThreadGroup, child: ThreadGroup | None) -> list[ThreadGroup]:
    """A process, if it is a child."""
    return [child] if child is not None and child in group.children else []


class _Thread:
    """A traced thread that is no leader, as a process id of wait(2) sees it."""

    __slots__ = ("process_group", "tgid")

    def __init__(self, task: Task) -> None:
        self.tgid = task.tid
        self.process_group = task.group.process_group


def wait(
    task: Task,
    matches: Callable[[Any], bool],
    options: int,
    find: Callable[[], ThreadGroup | None] | None = None,
) -> Any:
    """The next change of state of a matching child or tracee, or the sleep until there is one.

    It is a `Report`, or None with WNOHANG and none yet. `find` gives the only process that can
    match, so that nobody looks at thousands of others: do_wait_pid().

    A child that a thread of the caller's process traces is told of as a tracee, but for its end.
    Raises: ECHILD, Interrupted.
    """
    group = task.group

    def eligible(child: ThreadGroup) -> bool:
        if not matches(child):
            return False
        if options & __WNOTHREAD and child.parent_thread is not task:
            return False
        if options & __WALL:
            return True
        return (child.exit_signal != SIGCHLD) == bool(options & __WCLONE)

    def look() -> Steps[tuple[Report | None] | None]:
        """What the call gives; None: it has to wait."""
        found = False
        children = list(group.children) if find is None else _own(group, find())
        for number, child in enumerate(children, 1):
            if number % AT_A_TIME == 0:
                yield
            if child.parent is group and eligible(child):
                trace = child.leader.trace if child.leader is not None else None
                own = trace if trace is not None and trace.reports_to(group) else None
                asked = options if own is None else options & ~WSTOPPED
                if (report := _report(task.pids, child, asked)) is not None:
                    return (report,)
                found |= _may_tell(child) if own is None else _tracee_may_tell(own, options)
        tracers = (task,) if options & __WNOTHREAD else list(group.tasks)
        ties = [tie for tracer in tracers for tie in tracer.tracees]
        for number, tracee in enumerate(ties, 1):
            if number % AT_A_TIME == 0:
                yield
            traced = tracee.task
            as_seen = traced.group if traced.group.leader is traced else _Thread(traced)
            if traced.trace is not tracee or not matches(as_seen):
                continue
            if (report := _traced_report(task.pids, tracee, options)) is not None:
                return (report,)
            found |= _tracee_may_tell(tracee, options)
        if not found:
            raise ECHILD
        return (None,) if options & WNOHANG else None

    first, pace = look(), Pace()
    try:
        next(first)
        while not pace.over:
            next(first)
    except StopIteration as end:
        return end.value[0] if end.value else Waiting(group, None, look)
    return Waiting(group, first, look)


class Waiting(Looks):
    """The rest of a wait(2)."""

    __slots__ = ("_entry", "_queue")

    def __init__(
        self,
        group: ThreadGroup,
        first: Steps[Any] | None,
        look: Callable[[], Steps[tuple[Report | None] | None]],
    ) -> None:
        super().__init__(group.kernel.loop, first, look)
        self._queue = group.child_queue
        self._entry: Entry | None = None

    def register(self) -> None:
        """With the process's other threads that wait."""
        if self._entry is None:
            self._entry = self._queue.add(self.hear)

    def found(self, what: tuple[Report | None]) -> Report | None:
        """Something to tell, or nothing yet."""
        return what[0]

    def leave(self) -> None:
        """Off the queue."""
        super().leave()
        if self._entry is not None:
            self._queue.remove(self._entry)
