"""wait4(2) and waitid(2): what a parent learns of its children."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentry.abi.signal import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
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
from sentry.errors import EAGAIN, ECHILD
from sentry.kernel.task_exit import reap
from sentry.kernel.thread_group import Usage
from sentry.wait.queue import until

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

WAIT4_OPTIONS = WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL
WAITID_OPTIONS = (
    WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL
)


@dataclass(frozen=True, slots=True)
class Report:
    """A change of state of a child."""

    pid: int
    uid: int
    code: int
    """CLD_*."""
    status: int
    """wait(2) status."""
    value: int
    """Exit code or signal (si_status)."""
    usage: Usage


def usage_of(group: ThreadGroup) -> Usage:
    """What a process and the children it waited for have used."""
    usage = Usage()
    usage.add(group.dead_usage)
    usage.add(group.reaped_usage)
    return usage


def uid_of(group: ThreadGroup) -> int:
    """The real user of a process, also of a zombie."""
    return group.tasks[0].creds.uid if group.tasks else group.last_uid


def _report(group: ThreadGroup, options: int) -> Report | None:
    """What there is to tell of one child, consumed unless WNOWAIT."""
    if group.is_zombie and options & WEXITED:
        status = group.exit_status
        code = CLD_EXITED if status & 0x7F == 0 else CLD_DUMPED if status & 0x80 else CLD_KILLED
        value = status >> 8 & 0xFF if code == CLD_EXITED else status & 0x7F
        report = Report(group.tgid, uid_of(group), code, status, value, usage_of(group))
        if not options & WNOWAIT:
            reap(group)
        return report
    if group.stop_signal and not group.stop_reported and options & WSTOPPED:
        group.stop_reported = bool(not options & WNOWAIT)
        signo = group.stop_signal
        return Report(
            group.tgid, uid_of(group), CLD_STOPPED, signo << 8 | 0x7F, signo, usage_of(group)
        )
    if not group.continue_reported and options & WCONTINUED:
        group.continue_reported = bool(not options & WNOWAIT)
        return Report(group.tgid, uid_of(group), CLD_CONTINUED, 0xFFFF, SIGCONT, usage_of(group))
    return None


async def wait(task: Task, matches: Callable[[ThreadGroup], bool], options: int) -> Report | None:
    """The next change of state of a matching child; None with WNOHANG and none yet.

    Raises: ECHILD, Interrupted.
    """
    group = task.group

    def eligible(child: ThreadGroup) -> bool:
        if not matches(child):
            return False
        if options & __WALL:
            return True
        return (child.exit_signal != SIGCHLD) == bool(options & __WCLONE)

    def attempt() -> Report | None:
        found = False
        for child in list(group.children):
            if eligible(child):
                found = True
                if (report := _report(child, options)) is not None:
                    return report
        if not found:
            raise ECHILD
        if options & WNOHANG:
            return None
        raise EAGAIN

    return await until(attempt, [group.child_queue])
