"""`runsc trace procfs`: what /proc says of each process, for who begins to watch in the middle.

The fields are gVisor's (runsc/boot/procfs), without the mappings of memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sentry.abi.resource import RLIMIT_NOFILE
from sentry.control.answers import (
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
from sentry.vfs.mount import top
from sentry.vfs.paths import shown_path
from sentry.watch.context import offset_ns
from sentry.watch.reading import MAX_WORDS_SIZE, cwd, place, text, words

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

PIECE: Final = 8
"""So many processes are told at a time."""
PIECE_SIZE: Final = 1 << 20
"""Bytes of an answer with which no further process is told: a program says how long its texts are,
and one answer must fit into a line of the protocol."""
MAX_FILES: Final = 1024
"""Of a process."""
MAX_FILES_SIZE: Final = 1 << 16
"""Bytes of their paths together."""


def after(kernel: Kernel, pid: int) -> Procfs:
    """Some processes of higher numbers; `more` says whether there are others."""
    pids = sorted(each for each, group in kernel.pids.groups.items() if each > pid and group.tasks)
    found: list[ProcfsProcess] = []
    size = 0
    for each in pids[:PIECE]:
        found.append(_of(kernel.pids.groups[each]))
        size += len(msgspec.json.encode(found[-1]))
        if size >= PIECE_SIZE:
            break
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
        clone_ts=group.start_ns + offset_ns(),
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
    root = top(task.ns.mounts.mounts.root.location)
    left = MAX_FILES_SIZE
    for fd in list(task.files)[:MAX_FILES]:
        file = task.files.get_raw(fd)
        path = shown_path(file.location, root)
        left -= len(path)
        if left < 0:
            break
        found.append(ProcfsFile(fd, text(path), file.inode.mode))
    return found
