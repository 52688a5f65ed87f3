"""What the container's own cgroup shows beside the files of all, from the kernel's numbers.

Language run-times size themselves by these files (memory.max, cpu.max, pids.max). What they say is
what counts inside: the guest's memory, the Sentry's limit of tasks, the quota that the host
enforces on the sandbox. They are not to be changed from inside, as in a delegated cgroup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sentry.fs.pseudo.cpu import cpu_list
from sentry.fs.pseudo.memory import memory_of

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
Container = Any
"""sentry.kernel.container.Container"""
Show = Callable[[Any, Container], str]
"""The text of a file; the arguments are the kernel and the container."""
MAX: Final = "max\n"
TOP_CONTROLLERS: Final = ("cpuset", "cpu", "memory", "pids")
"""Those whose limits hold for the container."""


def _limit(value: int) -> str:
    return f"{value}\n" if value else MAX


def _memory_stat(kernel: Kernel, container: Container) -> str:
    memory = memory_of(kernel, container)
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


def _memory_current(kernel: Kernel, container: Container) -> str:
    memory = memory_of(kernel, container)
    return f"{memory.total - memory.free}\n"


def _memory_events(_: Kernel, container: Container) -> str:
    kills = container.oom_kills
    groups = kills if container.oom_group else 0
    return (
        f"low 0\nhigh 0\nmax {kills}\noom {kills}\noom_kill {kills}\noom_group_kill {groups}\n"
    )


def _cpu_max(_: Kernel, container: Container) -> str:
    quota, period = container.cpu_quota
    return f"{quota or 'max'} {period}\n"


def _weight_nice(_: Kernel, container: Container) -> str:
    """The nice value whose weight is nearest; each is 1.25 of the next (sched_prio_to_weight)."""
    weight = container.cpu_weight
    return f"{min(range(-20, 20), key=lambda nice: abs(100 / 1.25**nice - weight))}\n"


CONTAINER: Final[Mapping[str, Show]] = {
    "cpu.idle": lambda _, __: "0\n",
    "cpu.max": _cpu_max,
    "cpu.weight": lambda _, container: f"{container.cpu_weight}\n",
    "cpu.weight.nice": _weight_nice,
    "cpuset.cpus": lambda kernel, _: f"{cpu_list(kernel.cpus)}\n",
    "cpuset.cpus.effective": lambda kernel, _: f"{cpu_list(kernel.cpus)}\n",
    "cpuset.mems": lambda _, __: "0\n",
    "cpuset.mems.effective": lambda _, __: "0\n",
    "memory.current": _memory_current,
    "memory.events": _memory_events,
    "memory.high": lambda _, __: MAX,
    "memory.low": lambda _, __: "0\n",
    "memory.max": lambda kernel, container: f"{memory_of(kernel, container).total}\n",
    "memory.min": lambda _, __: "0\n",
    "memory.oom.group": lambda _, container: f"{int(container.oom_group)}\n",
    "memory.stat": _memory_stat,
    "memory.swap.current": lambda _, __: "0\n",
    "memory.swap.max": lambda _, __: "0\n",
    "pids.current": lambda _, container: f"{container.cgroup.charged}\n",
    "pids.max": lambda _, container: _limit(container.pids_limit),
}
"""Name → text, in cgroup-v2.rst's words."""
