"""Which modules are compiled ahead: those that most system calls run through.

A compiled class may have subclasses that are not, if it says so (`sentry.ahead.mypyc_attr`), but no
compiled one comes after an interpreted one again. What its class attributes are is seen of
interpreted subclasses only if they are a ClassVar.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = (
    "sentry/auth", "sentry/fs/epoll", "sentry/fs/gofer", "sentry/fs/host", "sentry/fs/overlay",
    "sentry/fs/pipe", "sentry/fs/tmpfs", "sentry/kernel", "sentry/mm", "sentry/syscalls/clocks",
    "sentry/syscalls/credentials", "sentry/syscalls/files", "sentry/syscalls/memory",
    "sentry/syscalls/processes", "sentry/syscalls/signals", "sentry/vfs", "sentry/wait",
)  # fmt: skip
SINGLE = (
    "sentry/fs/eventfd.py", "sentry/fs/inotify.py", "sentry/fs/kernel.py", "sentry/fs/pidfd.py",
    "sentry/fs/signalfd.py", "sentry/fs/timerfd.py", "sentry/loop.py",
)  # fmt: skip
LEFT_OUT = {
    # file systems: class attributes that some of them set on themselves
    "sentry/fs/gofer/attachment", "sentry/fs/gofer/filesystem", "sentry/fs/overlay/filesystem",
    "sentry/fs/tmpfs/filesystem", "sentry/vfs/filesystem",
    # structs with default factories, and a dictionary with a type variable
    "sentry/vfs/leases", "sentry/vfs/locks", "sentry/vfs/rows",
    # a named tuple whose fields are compiled classes that come later
    "sentry/vfs/location",
    # exceptions
    "sentry/mm/errors",
    # seldom
    "sentry/kernel/access", "sentry/kernel/accounting", "sentry/kernel/accounting_file",
    "sentry/kernel/aio", "sentry/kernel/cgroup", "sentry/kernel/collector",
    "sentry/kernel/container", "sentry/kernel/container_cpu", "sentry/kernel/container_memory",
    "sentry/kernel/core_dump", "sentry/kernel/core_file", "sentry/kernel/key_table",
    "sentry/kernel/keyrings", "sentry/kernel/keys", "sentry/kernel/own_memory",
    "sentry/kernel/services", "sentry/kernel/system_log", "sentry/kernel/sysv_ids",
    "sentry/kernel/sysv_ipc", "sentry/kernel/sysv_msg", "sentry/kernel/sysv_sem",
    "sentry/kernel/sysv_shm", "sentry/kernel/sysv_undo", "sentry/kernel/time_namespace",
}  # fmt: skip


def modules() -> list[str]:
    """Their paths below the root, in order."""
    found = set(SINGLE)
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            name = str(path.relative_to(ROOT))
            if path.name != "__init__.py" and name.removesuffix(".py") not in LEFT_OUT:
                found.add(name)
    return sorted(found)
