"""The Sentry's own memory counts against the limit, too.

Programs' pages lie in the RAM file, whose size is the limit. But every task, open file, filter,
name or timer is also an object of this process, and a program that makes enough of them would take
memory that it was not given. Most kinds have a ceiling; this is the bound on all together, as the
kernel memory that Linux charges to a cgroup: when what has been allocated since the start and the
pages of RAM exceed the limit, who took most is killed.

Nobody counts objects. What has been allocated is looked at every few exits; once it has grown, it
is looked at after each of the next exits, and what they add is charged to who made them. As the
other half of the exits goes unseen, a charge counts twice.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.signal import SIGKILL
from sentry.loop import WORK
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.memory import trim_heap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import Session, ThreadGroup

MIN_STEP: Final = 2 << 20
MAX_STEP: Final = 16 << 20
"""Bytes, an eighth of the limit between these, that are nobody's: what the dead leave in the
allocator of Python is used again, not given back."""
GROWTH: Final = 32 << 10
"""So much in WORK exits, and the next ones are looked at one by one."""
WATCH_NS: Final = 10_000_000
"""Between looks that no exit causes: programs fill pages that they were promised without one."""


class OwnMemory:
    """The looks. `statm` is /proc/self/statm, opened while there was a /proc."""

    def __init__(self, kernel: Kernel, statm: int) -> None:
        self._kernel = kernel
        self._statm = statm
        self._start = self._last = self._private()
        self._singly = 0
        """So many more exits are looked at one by one."""
        self._quiet = 0
        """The sum up to which nothing more is done for now."""
        self._killed = False
        self._watching = False

    def _private(self) -> int:
        """Bytes of this process that no file is behind."""
        _, resident, shared, *_ = os.pread(self._statm, 256, 0).split()
        return (int(resident) - int(shared)) * PAGE_SIZE

    @property
    def used(self) -> int:
        """Bytes allocated since the start, as of the last look."""
        return max(0, self._last - self._start)

    def _beside_ram(self) -> int:
        """The same without what may be copies of RAM that counts already."""
        return max(0, self.used - self._kernel.platform.ram.template)

    def again(self) -> None:
        """In a forked process: count from here, by its own file under the number of `statm`."""
        self._start = self._last = self._private()

    def look(self, exited: Sequence[Any]) -> None:
        """Called every so many exits, with the last ones."""
        now = self._private()
        grown, self._last = now - self._last, now
        if self._singly > 0:
            self._singly -= len(exited)
            if grown > 0:
                for context in exited:
                    context.owner.group.own_bytes += 2 * grown // len(exited)
        if grown >= GROWTH:  # and as long as it goes on like this
            self._singly = WORK
        if self._singly > 0:
            self._kernel.loop.work_left = 1
        self._bound()

    def _watch(self) -> None:
        self._watching = False
        self._last = self._private()
        self._bound()

    def _bound(self) -> None:
        """Keep the sum below the limit and a step."""
        kernel = self._kernel
        ram = kernel.platform.ram
        limit = ram.limit
        step = min(max(limit >> 3, MIN_STEP), MAX_STEP)
        if self._beside_ram() < step:  # the file alone keeps the limit
            return
        if self._killed and not kernel.hurry_dying():
            self._killed, self._quiet = False, 0
        if self._beside_ram() + ram.populated() >= max(limit, self._quiet):
            total = self._trimmed()
            if self._beside_ram() >= step and total >= limit:
                gc.collect()
                total = self._trimmed()
            self._quiet = total + step
            if self._beside_ram() >= step and total >= limit:
                self._kill()
        if not self._watching and self._beside_ram() + ram.promised > limit:
            self._watching = True
            kernel.loop.call_at(kernel.loop.now_ns() + WATCH_NS, self._watch)

    def _trimmed(self) -> int:
        """The sum, without what nobody uses."""
        ram = self._kernel.platform.ram
        trim_heap()
        ram.trim()
        self._last = self._private()
        return self._beside_ram() + ram.populated()

    def _kill(self) -> None:
        """Of the session that has most: what was forked dies together, but if one process has half.

        A first process dies alone or not at all, for its container ends with it.
        """
        kernel = self._kernel
        costs = {
            group: _cost(group)
            for group in kernel.pids.groups.values()
            if group.tasks and not group.exiting and group.oom_score_adj > -1000
        }
        sessions: dict[Session, list[ThreadGroup]] = {}
        for group in costs:
            sessions.setdefault(group.session, []).append(group)

        def of_all(groups: list[ThreadGroup]) -> int:
            return sum(costs[group] for group in groups)

        victims = max(sessions.values(), key=of_all, default=[])
        worst = max(victims, key=costs.__getitem__, default=None)
        if worst is not None and 2 * costs[worst] >= of_all(victims):
            victims = [worst]
        else:
            victims = [group for group in victims if group is not group.container.init]
        self._killed = bool(victims)
        for group in victims:
            kernel.log.write(f"Out of kernel memory: killed process {group.tgid}\n")
            kernel.tell_out_of_memory(group)
            group.exit(SIGKILL)
            group.container.killed()


OBJECT_BYTES: Final = 256


def _cost(group: ThreadGroup) -> int:
    """About how many bytes a process has taken: its pages, what was charged, what is to be seen."""
    task = group.tasks[0]
    ran = sum(group.cpu_ns())
    pages = task.mm.resident.ram_pages(ran)
    objects = 40 * len(group.tasks) + 4 * len(task.files) + len(task.mm.map.vmas)
    return group.own_bytes + OBJECT_BYTES * objects + pages * PAGE_SIZE
