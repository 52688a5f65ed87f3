"""What is printed of a container: its state, its processes, how it ended."""

from __future__ import annotations

import os
import time

from runsc import as_json
from runsc.containers.processes import STOPPED
from runsc.containers.state import State, status
from runsc.log import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sentry.control.answers import ProcessInfo

HEADER = "UID          PID    PPID  C STIME TTY          TIME CMD"


def row(state: State, owner: str) -> dict[str, Any]:
    """What is true now of a container on disk, with the names and the order of runc's JSON."""
    word = status(state)
    made = {
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": 0 if word == STOPPED else state.pid,
        "status": word,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
    }
    if state.annotations:
        made["annotations"] = state.annotations
    made["owner"] = owner
    return made


def state(found: State) -> str:
    """That as runc's `state` prints it."""
    return _laid_out(row(found, ""), "\n")


def _laid_out(value: Any, newline: str) -> str:
    """JSON with two blanks for each level."""
    if not isinstance(value, dict):
        return as_json.dumps(value).decode()
    deeper = newline + "  "
    fields = [
        f"{deeper}{as_json.quoted(name)}: {_laid_out(each, deeper)}" for name, each in value.items()
    ]
    return "{" + ",".join(fields) + newline + "}"


def processes(found: Sequence[ProcessInfo]) -> str:
    """A table as `ps -ef` has it."""
    now_s = time.time()
    return "\n".join([HEADER, *(_line(process, now_s) for process in found)]) + "\n"


def _line(process: ProcessInfo, now_s: float) -> str:
    """One process; user and numbers are the container's."""
    seconds = process.cpu_ns // 10**9
    hours, minutes = seconds // 3600, seconds // 60 % 60
    percent = min(99, process.cpu_ns * 100 // max(process.age_ns, 1))
    started = time.localtime(now_s - process.age_ns / 1e9)
    today = time.localtime(now_s)[:3] == started[:3]
    terminal = f"pts/{process.terminal}" if process.terminal >= 0 else "?"
    command = printable(process.command).replace("\n", "?").replace("\t", " ")  # as ps(1)
    return (
        f"{process.uid:<8} {process.pid:>7} {process.ppid:>7} {percent:>2} "
        f"{time.strftime('%H:%M' if today else '%b%d', started)} {terminal:<8} "
        f"{hours:02}:{minutes:02}:{seconds % 60:02} {command}"
    )


def ended(container_id: str, status: int) -> str:
    """How a process did, by a status of wait(2): names of gVisor's JSON."""
    code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return as_json.dumps({"id": container_id, "exitStatus": code}).decode() + "\n"
