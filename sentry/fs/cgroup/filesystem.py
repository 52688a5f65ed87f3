"""`CgroupFs`: /sys/fs/cgroup of version 2 with one cgroup, the container's.

Language run-times size themselves by these files (memory.max, cpu.max, pids.max). What they say is
what counts inside: the guest's memory, the Sentry's limit of tasks. Nothing can be changed and no
cgroup can be made below: Documentation/admin-guide/cgroup-v2.rst with controllers that nobody has
delegated. As in a cgroup namespace, the container's cgroup is the top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import CGROUP2_SUPER_MAGIC
from sentry.fs.pseudo.cpu import cpu_list
from sentry.fs.pseudo.memory import memory_of
from sentry.fs.pseudo.nodes import TableDirectory, TextNode
from sentry.fs.pseudo.table import TableFs
from sentry.vfs.interface import Inode

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
Show = Callable[[Any], str]
"""The text of a file; the argument is the kernel."""
MAX: Final = "max\n"


def _limit(value: int) -> str:
    return f"{value}\n" if value else MAX


def _processes(kernel: Kernel) -> str:
    groups = kernel.pids.groups.items()
    return "".join(f"{tgid}\n" for tgid, group in sorted(groups) if group.tasks)


def _threads(kernel: Kernel) -> str:
    return "".join(f"{tid}\n" for tid in sorted(kernel.pids.tasks))


def _in_use(kernel: Kernel) -> int:
    memory = memory_of(kernel)
    return memory.total - memory.free


def _memory_stat(kernel: Kernel) -> str:
    memory = memory_of(kernel)
    used = memory.total - memory.free
    rows = {
        "anon": max(0, used - memory.shared - memory.tables),
        "file": memory.shared,
        "kernel": memory.tables,
        "pagetables": memory.tables,
        "shmem": memory.shared,
        "inactive_anon": 0,
        "active_anon": 0,
        "inactive_file": 0,
        "active_file": 0,
        "unevictable": 0,
    }
    return "".join(f"{name} {value}\n" for name, value in rows.items())


def _memory_events(kernel: Kernel) -> str:
    kills = kernel.counters.oom_kills
    return f"low 0\nhigh 0\nmax {kills}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n"


def _cpu_max(kernel: Kernel) -> str:
    quota, period = kernel.services.cpu_quota
    return f"{quota or 'max'} {period}\n"


def _cpu_stat(kernel: Kernel) -> str:
    user, system = kernel.gone_usage.user_ns, kernel.gone_usage.sys_ns
    for group in kernel.pids.groups.values():
        for usage in (group.dead_usage, group.reaped_usage):
            user, system = user + usage.user_ns, system + usage.sys_ns
    for task in kernel.pids.tasks.values():
        user, system = user + task.ctx.cpu_time_ns(), system + task.sys_time_ns
    rows = {
        "usage_usec": (user + system) // 1000,
        "user_usec": user // 1000,
        "system_usec": system // 1000,
    }
    return "".join(f"{name} {value}\n" for name, value in rows.items())


FILES: Final[Mapping[str, Show]] = {
    "cgroup.controllers": lambda _: "cpuset cpu memory pids\n",
    "cgroup.events": lambda _: "populated 1\nfrozen 0\n",
    "cgroup.freeze": lambda _: "0\n",
    "cgroup.max.depth": lambda _: MAX,
    "cgroup.max.descendants": lambda _: MAX,
    "cgroup.procs": _processes,
    "cgroup.stat": lambda _: "nr_descendants 0\nnr_dying_descendants 0\n",
    "cgroup.subtree_control": lambda _: "",
    "cgroup.threads": _threads,
    "cgroup.type": lambda _: "domain\n",
    "cpu.idle": lambda _: "0\n",
    "cpu.max": _cpu_max,
    "cpu.stat": _cpu_stat,
    "cpu.weight": lambda _: "100\n",
    "cpu.weight.nice": lambda _: "0\n",
    "cpuset.cpus": lambda kernel: f"{cpu_list(kernel.cpus)}\n",
    "cpuset.cpus.effective": lambda kernel: f"{cpu_list(kernel.cpus)}\n",
    "cpuset.mems": lambda _: "0\n",
    "cpuset.mems.effective": lambda _: "0\n",
    "memory.current": lambda kernel: f"{_in_use(kernel)}\n",
    "memory.events": _memory_events,
    "memory.high": lambda _: MAX,
    "memory.low": lambda _: "0\n",
    "memory.max": lambda kernel: f"{memory_of(kernel).total}\n",
    "memory.min": lambda _: "0\n",
    "memory.oom.group": lambda _: "0\n",
    "memory.stat": _memory_stat,
    "memory.swap.current": lambda _: "0\n",
    "memory.swap.max": lambda _: "0\n",
    "pids.current": lambda kernel: f"{kernel.pids.count()}\n",
    "pids.max": lambda kernel: _limit(kernel.pids.limit),
}
"""Name → text, in cgroup-v2.rst's words."""


class CgroupFs(TableFs):
    """One mounted /sys/fs/cgroup."""

    name = "cgroup2"
    magic = CGROUP2_SUPER_MAGIC

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel.vfs.new_dev(), kernel.vfs.now_ns)

        def text(show: Show) -> Callable[[], TextNode]:
            return lambda: TextNode(self, 0o444, lambda _: show(kernel))

        table = {name.encode(): text(show) for name, show in FILES.items()}
        self._root = TableDirectory(self, dict(table))
        self._root.ino = self.root_ino

    @property
    def root(self) -> Inode:
        """The container's cgroup."""
        return self._root


def mount_cgroup(caller: Any, source: bytes, flags: int, data: bytes) -> CgroupFs:
    """mount(2) of type cgroup2, and the bundle's mount of type cgroup: vfs.types."""
    fs = CgroupFs(caller.kernel)
    fs.source = source.decode(errors="replace") or "cgroup"
    return fs
