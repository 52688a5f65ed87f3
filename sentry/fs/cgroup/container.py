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
Show = Callable[[Any], str]
"""The text of a file; the argument is the kernel."""
MAX: Final = "max\n"
TOP_CONTROLLERS: Final = ("cpuset", "cpu", "memory", "pids")
"""Those whose limits hold for the container."""


def _limit(value: int) -> str:
    return f"{value}\n" if value else MAX


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
    groups = kills if kernel.oom_group else 0
    return (
        f"low 0\nhigh 0\nmax {kills}\noom {kills}\noom_kill {kills}\noom_group_kill {groups}\n"
    )


def _cpu_max(kernel: Kernel) -> str:
    quota, period = kernel.services.cpu_quota
    return f"{quota or 'max'} {period}\n"


def _weight_nice(kernel: Kernel) -> str:
    """The nice value whose weight is nearest; each is 1.25 of the next (sched_prio_to_weight)."""
    weight = kernel.services.cpu_weight
    return f"{min(range(-20, 20), key=lambda nice: abs(100 / 1.25**nice - weight))}\n"


CONTAINER: Final[Mapping[str, Show]] = {
    "cpu.idle": lambda _: "0\n",
    "cpu.max": _cpu_max,
    "cpu.weight": lambda kernel: f"{kernel.services.cpu_weight}\n",
    "cpu.weight.nice": _weight_nice,
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
    "memory.oom.group": lambda kernel: f"{int(kernel.oom_group)}\n",
    "memory.stat": _memory_stat,
    "memory.swap.current": lambda _: "0\n",
    "memory.swap.max": lambda _: "0\n",
    "pids.current": lambda kernel: f"{kernel.pids.count()}\n",
    "pids.max": lambda kernel: _limit(kernel.pids.limit),
}
"""Name → text, in cgroup-v2.rst's words."""
