"""How much memory the sandbox has: what /proc/meminfo and sysinfo(2) say."""

from __future__ import annotations

from typing import Any, NamedTuple

from sentry.platform.constants import PAGE_SIZE

DEFAULT_LIMIT = 1 << 30


class Memory(NamedTuple):
    """Sizes in bytes."""

    total: int
    """The sandbox's limit: services["memory_limit"]."""
    free: int
    shared: int
    """Files in RAM: tmpfs, memfds, shared anonymous memory (services["ram_file_pages"])."""
    tables: int
    """Page tables."""
    promised: int = 0
    """Private writable mappings: Committed_AS."""
    promisable: int = 0
    """CommitLimit."""


def memory_of(kernel: Any) -> Memory:
    """As the RAM file (services["ram"]) and its counters have it now."""
    services = kernel.services
    total = services.get("memory_limit") or DEFAULT_LIMIT
    ram = services.get("ram")
    if ram is None:
        return Memory(total, total, 0, 0)
    counters = ram.counters()
    used = min(ram.populated(), (counters.frames + counters.kernel_frames) * PAGE_SIZE)
    pages = services.get("ram_file_pages")
    shared = pages() * PAGE_SIZE if pages is not None else 0
    return Memory(
        total,
        max(0, total - used),
        min(shared, used),
        counters.tables * PAGE_SIZE,
        ram.commitment.pages * PAGE_SIZE,
        ram.commitment.limit(total) * PAGE_SIZE,
    )
