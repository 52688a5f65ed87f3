"""How much of everything a sandbox has: for leak checks, and for whoever wonders what it costs.

What programs made must be gone when they are. `objects` counts the Python objects of the Sentry's
own classes, by class; those of the start are left out (gc.freeze).
"""

from __future__ import annotations

import fcntl
import gc
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel

DESCRIPTORS: Final = 20_000
"""The host's limit, to which descriptors are looked for."""
OURS: Final = ("sentry.", "gofer.")


def counts(kernel: Kernel) -> dict[str, int]:
    """All by name. Takes long: garbage is collected first."""
    gc.collect()
    kernel.platform.ram.trim(keep=1 << 62)  # address spaces that have died
    ram, vfs, pids = kernel.platform.ram.counters(), kernel.vfs, kernel.pids
    budget = vfs.budget
    found = {
        "tasks": len(pids.tasks),
        "processes": len(pids.groups),
        "process_groups": len(pids.process_groups),
        "sessions": len(pids.sessions),
        "fibers": kernel.loop.fibers,
        "timers": kernel.loop.timers,
        "watches": kernel.loop.watches,
        "host_requests": len(vfs.host_io) if vfs.host_io is not None else 0,
        "descriptors": sum(1 for _ in _descriptors()),
        "epoll_items": vfs.epoll_items,
        "inotify_watches": vfs.inotify_watches,
        "inotify_instances": vfs.inotify_instances,
        "mappings": kernel.platform.ram.vmas,
    }
    numbers = ((name, getattr(budget, name)) for name in budget.__slots__)
    found |= {name: value for name, value in numbers if isinstance(value, int)}
    found |= {f"ram_{name}": value for name, value in ram._asdict().items()}
    objects = Counter(
        f"object {kind.__module__}.{kind.__qualname__}"
        for kind in map(type, gc.get_objects())
        if kind.__module__.startswith(OURS)
    )
    return found | dict(sorted(objects.items()))


def _descriptors() -> Iterator[int]:
    """Those of this process, found one by one: there is no /proc here."""
    for fd in range(DESCRIPTORS):
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            continue
        yield fd
