"""Process ids: who has which number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import EAGAIN

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup

PID_MAX = 4194304
RESERVED_PIDS = 300


class Pids:
    """Numbers of tasks, processes, groups and sessions; free is what none of them has."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self.limit = 0
        """Tasks that the container may have (linux.resources.pids.limit); 0: not limited."""
        self._last = 0
        self.tasks: dict[int, Task] = {}
        self.groups: dict[int, ThreadGroup] = {}
        """By tgid, zombies too."""
        self.process_groups: dict[int, ProcessGroup] = {}
        self.sessions: dict[int, Session] = {}

    @property
    def last(self) -> int:
        """The number given out last."""
        return self._last

    def count(self) -> int:
        """Tasks, with zombies: what Linux's pids controller counts."""
        return len(self.tasks) + sum(not group.tasks for group in self.groups.values())

    def is_taken(self, pid: int) -> bool:
        """A task, a process, a group or a session has this number."""
        return (
            pid in self.tasks
            or pid in self.groups
            or pid in self.process_groups
            or pid in self.sessions
        )

    def allocate(self, wanted: int = 0) -> int:
        """The next free number, as Linux cycles through them; or `wanted`, which is free.

        Raises: EAGAIN at the ceiling of tasks, and at the container's limit.
        """
        if self.limit and self.count() >= self.limit:
            raise EAGAIN(f"the container may have {self.limit} tasks")
        if (
            len(self.tasks) + len(self.groups) >= self._ceiling * 2
            or len(self.tasks) >= self._ceiling
        ):
            raise EAGAIN("too many tasks")
        if wanted:
            return wanted
        pid = self._last
        while True:
            pid = pid + 1 if pid + 1 < PID_MAX else RESERVED_PIDS
            if not self.is_taken(pid):
                self._last = pid
                return pid

    def forget_if_empty(self, group: ProcessGroup) -> None:
        """Drop a process group without members, and its session after the last group."""
        if group.members:
            return
        self.process_groups.pop(group.pgid, None)
        group.session.groups.discard(group)
        if group.session.foreground is group:
            group.session.foreground = None
        if not group.session.groups:
            self.sessions.pop(group.session.sid, None)
