"""`runsc trace procfs`: what /proc says of each process, for who begins to watch in the middle.

The fields are gVisor's (runsc/boot/procfs), without the mappings of memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.resource import RLIMIT_NOFILE
from sentry.control.protocol import (
    Procfs,
    ProcfsCgroup,
    ProcfsFile,
    ProcfsIds,
    ProcfsLimit,
    ProcfsProcess,
    ProcfsStat,
    ProcfsStatus,
)
from sentry.syscalls.show import peek
from sentry.watch.context import OFFSET_NS
from sentry.watch.reading import MAX_WORDS_SIZE, cwd, place, text, words

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

PIECE: Final = 8
"""So many processes are told at a time."""
MAX_FILES: Final = 1024
"""Of a process."""


def after(kernel: Kernel, pid: int) -> Procfs:
    """Some processes of higher numbers; `more` says whether there are others."""
    pids = sorted(each for each, group in kernel.pids.groups.items() if each > pid and group.tasks)
    found = [_of(kernel.pids.groups[each]) for each in pids[:PIECE]]
    return Procfs(found, more=len(pids) > len(found))


def _of(group: ThreadGroup) -> ProcfsProcess:
    task = group.tasks[0]
    creds = task.creds
    resident = task.mm.resident.ram_pages(sum(group.cpu_ns())) * 4
    limits = group.limits
    files = ProcfsLimit(limits.soft(RLIMIT_NOFILE), limits.hard(RLIMIT_NOFILE))
    return ProcfsProcess(
        exe=place(task, group.exe) if group.exe is not None else "",
        args=words(list(group.argv)),
        env=_environment(task),
        cwd=cwd(task),
        fdlist=_files(task),
        clone_ts=group.start_ns + OFFSET_NS,
        root=place(task, task.fs.root),
        limits={"RLIMIT_NOFILE": files},
        cgroup=[ProcfsCgroup(0, "", group.cgroup.path_from(group.container.cgroup))],
        status=ProcfsStatus(
            text(task.comm), group.tgid, group.parent.tgid if group.parent is not None else 0,
            ProcfsIds(creds.uid, creds.euid, creds.suid),
            ProcfsIds(creds.gid, creds.egid, creds.sgid),
            task.mm.map.total_pages * 4, resident,
        ),
        stat=ProcfsStat(group.process_group.pgid, group.session.sid),
    )  # fmt: skip


def _environment(task: Task) -> list[str]:
    layout = task.mm.map.layout
    size = min(layout.env_end - layout.env_start, MAX_WORDS_SIZE)
    data = peek(task, layout.env_start, size) if size > 0 else None
    return words((data or b"").rstrip(b"\0").split(b"\0")) if data else []


def _files(task: Task) -> list[ProcfsFile]:
    found = []
    for fd in list(task.files)[:MAX_FILES]:
        file = task.files.get_raw(fd)
        found.append(ProcfsFile(fd, place(task, file.location), file.inode.mode))
    return found
