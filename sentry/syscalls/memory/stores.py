"""Stores into mappings of files on a server: who unmaps them, or ends, waits until they are sent.

fuse_vma_close(), fs/fuse/file.c; v9fs_mmap_vm_close(), fs/9p/vfs_file.c. Who is killed does not
wait: what is left is sent behind.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sentry.errors import Errno
from sentry.mm.advice import stored_elsewhere
from sentry.mm.layout import TASK_END
from sentry.mm.mapping import munmap
from sentry.suppress import suppress
from sentry.wait.again import again, kept, settled
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.task import Task
    from sentry.mm.backing import MappedFile
    from sentry.vfs.file import Result


def sent_at_the_end(task: Task) -> None:
    """Of a task with which its address space ends. Raises: NotNow."""
    if kept(sent_at_the_end) is None:
        if not task.kernel.vfs.tracked:
            return
        files = list(stored_elsewhere(task.mm.map, 0, TASK_END).values())
        if files:
            settled(sent_at_the_end, partial(_sent, files))


def sent_when_unmapped(task: Task, addr: int, length: int) -> Result:
    """munmap(2), then they are sent."""
    amap = task.mm.map
    unmap = partial(in_steps, munmap.steps(amap, addr, length), amap.lock)
    files = stored_elsewhere(amap, addr, min(addr + length, TASK_END))
    return _sent(list(files.values()), unmap) if files else unmap()


async def _sent(files: list[MappedFile], unmap: Callable[[], Result] | None = None) -> int:
    held: list[Any] = [file.incref() for file in files]
    try:
        result = 0 if unmap is None else await again(unmap)
        for file in files:
            with suppress(Errno):
                await again(file.settle)
        return result
    finally:
        for file in held:
            file.decref()
