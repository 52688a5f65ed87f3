"""What a task is doing, in the letters of ps(1)."""

from __future__ import annotations

from array import array
from collections.abc import Generator
from typing import Any, Final

from sentry.wait.fiber import Mode

NAMES: Final = {
    "R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "t": "tracing stop",
    "Z": "zombie", "X": "dead",
}  # fmt: skip
FEW: Final = 64
"""Threads that are looked at between two looks at the time."""
TICK_NS: Final = 10_000_000
"""USER_HZ is 100."""


def state(task: Any) -> str:
    """One letter: get_task_state(), fs/proc/array.c."""
    if task.dead:
        return "Z"
    if task.trace is not None and task.trace.stop is not None:
        return "t"
    if task.stopped:
        return "T"
    fiber = task.fiber
    if fiber is None or not fiber.parked:
        return "R"
    return "S" if fiber.mode == Mode.INTERRUPTIBLE else "D"


def cpu_ns(task: Any) -> tuple[int, int]:
    """User and system time of a thread."""
    return (0 if task.dead else task.ctx.cpu_time_ns()), task.sys_time_ns


def group_cpu_ns(group: Any) -> Generator[bytes, None, tuple[int, int]]:
    """User and system time of a process, its dead threads included: each thread once, also those
    that die meanwhile. thread_group_cputime_adjusted()."""
    usage, tasks = group.dead_usage, list(group.tasks)
    user, system = array("q"), array("q")
    for number, task in enumerate(tasks, 1):
        u, s = cpu_ns(task)
        user.append(u)
        system.append(s)
        if number % FEW == 0:
            yield b""
    for at, task in enumerate(tasks):
        if task.dead:
            user[at] = system[at] = 0
    return usage.user_ns + sum(user), usage.sys_ns + sum(system)


def escaped(comm: bytes) -> str:
    """A name on a line of its own: newline and backslash as in C."""
    return comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").decode("utf-8", "surrogateescape")


def offset_of(task: Any) -> int:
    """What the reader's time namespace adds to CLOCK_BOOTTIME."""
    return int(task.ns.time.boottime_ns)
