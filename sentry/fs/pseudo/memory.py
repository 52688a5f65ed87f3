"""How much memory the sandbox has: what /proc/meminfo and sysinfo(2) say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel


class Memory(NamedTuple):
    """Sizes in bytes."""

    total: int
    """The sandbox's limit."""
    free: int
    shared: int
    """Files in RAM: tmpfs, memfds, shared anonymous memory."""
    tables: int
    """Page tables."""
    promised: int
    """Private writable mappings: Committed_AS."""
    promisable: int
    """CommitLimit."""


def memory_of(kernel: Kernel) -> Memory:
    """As the RAM file and its counters have it now."""
    ram = kernel.platform.ram
    total, counters = ram.limit, ram.counters()
    used = min(ram.populated(), (counters.frames + counters.kernel_frames) * PAGE_SIZE)
    return Memory(
        total,
        max(0, total - used),
        min(ram.file_pages * PAGE_SIZE, used),
        counters.tables * PAGE_SIZE,
        ram.commitment.pages * PAGE_SIZE,
        ram.commitment.limit(total) * PAGE_SIZE,
    )
