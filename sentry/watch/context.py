"""Who and when: the context fields that any point can tell, as a session asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sentry.watch import reading
from sentry.watch.messages import ContextData, Credentials

if TYPE_CHECKING:
    from sentry.kernel.task import Task

Context = Callable[[Any], ContextData | None]

_SOURCES: Final = {
    "time": ("time_ns", "time_ns()"),
    "thread_id": ("thread_id", "task.tid"),
    "task_start_time": ("thread_start_time_ns", "task.start_ns + offset_ns"),
    "group_id": ("thread_group_id", "task.group.tgid"),
    "thread_group_start_time": (
        "thread_group_start_time_ns", "task.group.start_ns + offset_ns"
    ),
    "container_id": ("container_id", "task.group.container.id"),
    "credentials": ("credentials", "credentials(task)"),
    "cwd": ("cwd", "cwd(task)"),
    "process_name": ("process_name", "name(task.comm)"),
    "program": ("program", "program(task)"),
    "ancestry": ("ancestry", "ancestry(task)"),
}  # fmt: skip
FIELDS: Final = tuple(_SOURCES)
"""In gVisor's order; the last two are ours, and in JSON alone."""
MAX_ANCESTORS: Final = 16


@cache
def offset_ns() -> int:
    """From CLOCK_MONOTONIC to CLOCK_REALTIME, as it was at the first question: starts do not move.
    Not at the import, which may be hours ago (runsc/zygote)."""
    return time.time_ns() - time.monotonic_ns()


def credentials(task: Task) -> Credentials:
    """As the container numbers users."""
    creds = task.creds
    return Credentials(creds.uid, creds.euid, creds.suid, creds.gid, creds.egid, creds.sgid)


def program(task: Task) -> str:
    """The file that the process runs."""
    exe = task.group.exe
    return reading.place(task, exe) if exe is not None else ""


def ancestry(task: Task) -> list[str]:
    """Who has made the process, the nearest first: "NUMBER NAME"."""
    found: list[str] = []
    at = task.group.parent
    while at is not None and len(found) < MAX_ANCESTORS:
        name = reading.text(at.leader.comm) if at.leader is not None else ""
        found.append(f"{at.tgid} {name}")
        at = at.parent
    return found


def maker(fields: Collection[str]) -> Context:
    """Makes the context of a record for a task."""
    return _made(tuple(name for name in FIELDS if name in fields))


@cache
def _made(names: tuple[str, ...]) -> Context:
    if not names:
        return _nothing
    values = ", ".join("{}={}".format(*_SOURCES[name]) for name in names)
    scope: dict[str, Any] = {
        "ContextData": ContextData, "ancestry": ancestry, "credentials": credentials,
        "cwd": reading.cwd, "program": program,
        "name": reading.text, "offset_ns": offset_ns(),
        "time_ns": time.time_ns,
    }  # fmt: skip
    exec(f"def context(task):\n    return ContextData({values})", scope)
    made: Context = scope["context"]
    return made


def _nothing(_task: Any) -> None:
    return None
