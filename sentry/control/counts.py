"""How much of everything a sandbox has: for leak checks, and for whoever wonders what it costs.

What programs made must be gone when they are. `objects` counts the Python objects of the Sentry's
own classes, by class; those of the start are left out (gc.freeze).
"""

from __future__ import annotations

import gc
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel

DESCRIPTORS: Final = 20_000
"""The host's limit, to which descriptors are looked for."""
KINDS: Final = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFCHR: "device", stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket", stat.S_IFBLK: "block", stat.S_IFLNK: "link", 0: "anonymous",
}  # fmt: skip
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
        "host_requests": len(vfs.host_io.threads) if vfs.host_io is not None else 0,
        "epoll_items": vfs.epoll_items,
        "polled": vfs.polled,
        "inotify_watches": vfs.inotify_watches,
        "inotify_instances": vfs.inotify_instances,
        "fanotify_marks": vfs.fanotify.marks,
        "fanotify_groups": vfs.fanotify.groups,
        "fanotify_events": vfs.fanotify.events,
        "mappings": kernel.platform.ram.vmas,
        "bugs": kernel.log.bugs,
        "messages_left_out": kernel.log.left_out,
    }
    numbers = ((name, getattr(budget, name)) for name in dir(budget) if not name.startswith("_"))
    found |= {name: value for name, value in numbers if isinstance(value, int)}
    found |= {f"ram_{name}": value for name, value in ram._asdict().items()}
    return found | _descriptors(kernel) | dict(sorted(_objects().items()))


def _objects() -> Counter[str]:
    """Those of our classes. A class of mypyc's own has a descriptor as its `__module__`."""
    found: Counter[str] = Counter()
    for kind, count in Counter(map(type, gc.get_objects())).items():
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name.startswith(OURS):
            found[f"object {name}"] += count
    return found


def _descriptors(kernel: Kernel) -> dict[str, int]:
    """Those of this process by kind, found one by one: there is no /proc here.

    Donated ones that are only kept for the next open are no regular files here, but "kept".
    """
    found = Counter(dict.fromkeys(KINDS.values(), 0))
    for fd in range(DESCRIPTORS):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            continue
        found[KINDS[stat.S_IFMT(mode)]] += 1
    kept = kernel.services.handles.kept
    found[KINDS[stat.S_IFREG]] -= kept
    return {"descriptors_kept": kept} | {f"descriptors_{kind}": n for kind, n in found.items()}
