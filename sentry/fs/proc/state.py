"""What a task is doing, in the letters of ps(1)."""

from __future__ import annotations

from typing import Any, Final

from sentry.wait.fiber import Mode

NAMES: Final = {
    "R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "t": "tracing stop",
    "Z": "zombie", "X": "dead",
}  # fmt: skip
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


def escaped(comm: bytes) -> str:
    """A name on a line of its own: newline and backslash as in C."""
    return comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").decode("utf-8", "surrogateescape")


def offset_of(task: Any) -> int:
    """What the reader's time namespace adds to CLOCK_BOOTTIME."""
    return int(task.ns.time.boottime_ns)
