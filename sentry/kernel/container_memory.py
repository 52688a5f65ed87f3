"""The limit of memory of a container that is one of several in a sandbox.

The sandbox's own limit is the size of its RAM file. A container beside others may have a lower one.
Nobody charges pages to it: what its processes have in memory, and what lies in the file systems in
memory that were made for it, is counted now and then while it might be more than the limit. If it
is, one of its processes is killed, as Linux does it for a cgroup. What it may have mapped at most
costs little to know: as long as that is below the limit nothing else is looked at.

What a container has beyond its limit for a hundredth of a second the sandbox has to have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.signal import SIGKILL
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import ThreadGroup

LOOK_NS: Final = 10_000_000
"""Between two looks while it runs."""
IDLE_NS: Final = 1_000_000_000
"""The same while it does not."""


class MemoryLimits:
    """The looks at all containers that have a limit."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._watched: dict[Container, int] = {}
        """The CPU time that each had at the last look."""
        kernel.platform.ram.commitment.on_much = self._look_soon

    def _look_soon(self) -> None:
        """Who is promised much may use it without an exit."""
        if self._kernel.further:
            self._kernel.loop.work_left = 1

    def look(self, exited: Sequence[Any]) -> None:
        """Called every so many exits, with the last ones."""
        if not self._kernel.further:
            return
        for context in exited:
            if context.owner is None:
                continue
            container = context.owner.group.container
            if container.memory_limit and container not in self._watched:
                self._watch(container)

    def _watch(self, container: Container) -> None:
        if not self._may_have_more(container):
            return
        self._watched[container] = -1
        self._look_at(container)

    def _look_at(self, container: Container) -> None:
        if not container.memory_limit or not self._may_have_more(container):
            self._watched.pop(container, None)
            return
        if (container.used_pages() + container.file_pages()) * PAGE_SIZE > container.memory_limit:
            self._kill(container)
        ran = container.cpu_ns()
        pause_ns = IDLE_NS if ran == self._watched[container] else LOOK_NS
        self._watched[container] = ran
        loop = self._kernel.loop
        loop.call_at(loop.now_ns() + pause_ns, lambda: self._look_at(container))

    def _may_have_more(self, container: Container) -> bool:
        pages = container.file_pages()
        for group in container.processes():
            pages += group.tasks[0].mm.map.total_pages if group.tasks else 0
        return pages * PAGE_SIZE > container.memory_limit

    def _kill(self, container: Container) -> None:
        """oom_badness(), mm/oom_kill.c, among its own; not while one of them dies."""
        groups = [group for group in container.processes() if group.tasks]
        if dying := [group for group in groups if group.exiting]:
            for group in dying:
                group.hurry()
            return
        total = container.memory_limit // PAGE_SIZE

        def badness(group: ThreadGroup) -> int:
            ran = sum(group.cpu_ns())
            pages = group.tasks[0].mm.resident.ram_pages(ran)
            return pages + group.oom_score_adj * total // 1000

        candidates = [group for group in groups if group.oom_score_adj > -1000]
        victim = max(reversed(candidates), key=badness, default=None)
        if victim is None:
            return
        number = container.pids.of(victim.tgid)
        self._kernel.log.write(f"Out of a container's memory: killed its process {number}\n")
        self._kernel.tell_out_of_memory(victim)
        victim.exit(SIGKILL)
        container.killed()
