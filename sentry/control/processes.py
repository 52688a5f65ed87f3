"""A process as `ps` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentry.control.answers import ProcessInfo
    from sentry.kernel.pids import PidNamespace
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

COMMAND_SIZE = 512
"""Bytes of a command line."""


def describe(group: ThreadGroup, pids: PidNamespace, now_ns: int) -> ProcessInfo:
    """Of a process, alive or not yet waited for, by its numbers in a PID namespace."""
    from sentry.control.answers import ProcessInfo  # noqa: PLC0415  few ask

    task = group.tasks[0] if group.tasks else None
    state = "Z" if task is None else "T" if group.stopping else "S" if task.fiber else "R"
    usage = group.usage()
    terminal = group.terminal
    return ProcessInfo(
        pid=pids.of(group.tgid),
        ppid=pids.of(group.parent.tgid) if group.parent is not None else 0,
        uid=task.creds.uid if task is not None else group.last_uid,
        command=_command(group, task),
        state=state,
        cpu_ns=usage.user_ns + usage.sys_ns,
        age_ns=now_ns - group.start_ns,
        terminal=terminal.index if terminal is not None else -1,
        threads=len(group.tasks),
    )


def _command(group: ThreadGroup, task: Task | None) -> str:
    """As ps shows it: the arguments, or the name in brackets. No control characters get out."""
    if task is not None and group.argv:
        text = b" ".join(group.argv)[:COMMAND_SIZE].decode(errors="replace")
    else:
        name = task.comm.decode(errors="replace") if task is not None else "?"
        text = f"[{name}]" if task is not None else "[?] <defunct>"
    return "".join(c if c.isprintable() else "?" for c in text)
