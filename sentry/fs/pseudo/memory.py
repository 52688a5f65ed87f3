"""How much memory a container has: what /proc/meminfo and sysinfo(2) say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.layout import Record
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel


class Memory(Record):
    """Sizes in bytes."""

    total: int
    """The limit."""
    free: int
    shared: int
    """Files in RAM: tmpfs, memfds, shared anonymous memory."""
    tables: int
    """Page tables."""
    promised: int
    """Private writable mappings: Committed_AS."""
    promisable: int
    """CommitLimit."""


def memory_of(kernel: Kernel, container: Any = None) -> Memory:
    """As the RAM file and its counters have it now.

    Of a container (sentry.kernel.container) among others: what its processes have, and its limit.
    """
    found = _of_sandbox(kernel)
    if container is None or not (container.memory_limit or kernel.further):
        return found
    total = min(container.memory_limit or found.total, found.total)
    files = container.file_pages() * PAGE_SIZE
    used = min(container.used_pages() * PAGE_SIZE + files, total)
    free = min(found.free, total - used)
    return found._replace(total=total, free=free, shared=min(files, used), tables=0)


def _of_sandbox(kernel: Kernel) -> Memory:
    ram = kernel.platform.ram
    total, counters = ram.limit, ram.counters()
    given = ram.populated() + ram.inherited
    used = min(given, (counters.frames + counters.kernel_frames) * PAGE_SIZE)
    return Memory(
        total,
        max(0, total - used),
        min(ram.file_pages * PAGE_SIZE, used),
        counters.tables * PAGE_SIZE,
        ram.commitment.pages * PAGE_SIZE,
        ram.commitment.limit(total) * PAGE_SIZE,
    )
