"""The Sentry's own memory counts against the limit, too.

Programs' pages lie in the RAM file, whose size is the limit. But every task, open file, name or
timer is also an object of this process, and a program that makes enough of them would take memory
that it was not given. Most kinds have a ceiling; this is the bound on all together,
as the kernel memory that Linux charges to a cgroup: when what has been allocated since the start
and the pages of RAM exceed the limit, a session is killed, the one with most objects.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Final

from sentry.abi.signal import SIGKILL
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.memory import trim_heap

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import Session, ThreadGroup

MIN_STEP: Final = 2 << 20
MAX_STEP: Final = 16 << 20
"""Bytes, an eighth of the limit between these, that must have been allocated since the last look
with consequences: what the dead leave in the allocator of Python is used again, not given back."""


class OwnMemory:
    """The look. `statm` is /proc/self/statm, opened while there was a /proc."""

    def __init__(self, kernel: Kernel, statm: int) -> None:
        self._kernel = kernel
        self._statm = statm
        self._start = self._floor = self._private()

    def _private(self) -> int:
        """Bytes of this process that no file is behind."""
        _, resident, shared, *_ = os.pread(self._statm, 256, 0).split()
        return (int(resident) - int(shared)) * PAGE_SIZE

    @property
    def used(self) -> int:
        """Bytes allocated since the start."""
        return max(0, self._private() - self._start)

    def check(self) -> None:
        """Called every so many system calls."""
        kernel = self._kernel
        now = self._private()
        limit = kernel.platform.ram.limit
        step = min(max(limit >> 3, MIN_STEP), MAX_STEP)
        if now < self._floor + step or now - self._start + kernel.platform.ram.populated() < limit:
            return
        gc.collect()
        trim_heap()
        self._floor = self._private()
        if self._floor - self._start + kernel.platform.ram.populated() < limit:
            return
        if not any(group.exiting and group.tasks for group in kernel.pids.groups.values()):
            self._kill()

    def _kill(self) -> None:
        kernel = self._kernel
        sessions: dict[Session, list[ThreadGroup]] = {}
        for group in kernel.pids.groups.values():
            if group.tasks and group.oom_score_adj > -1000 and group is not kernel.init:
                sessions.setdefault(group.session, []).append(group)
        if not sessions and kernel.init is not None and kernel.init.tasks:
            sessions[kernel.init.session] = [kernel.init]
        victims = max(sessions.values(), key=lambda groups: sum(map(_objects, groups)), default=[])
        kernel.counters.oom_kills += bool(victims)
        for group in victims:
            kernel.log.write(f"Out of kernel memory: killed process {group.tgid}\n")
            group.exit(SIGKILL)


def _objects(group: ThreadGroup) -> int:
    """About how many a process has."""
    task = group.tasks[0]
    return 40 * len(group.tasks) + 4 * len(task.files) + len(task.mm.map.vmas)
