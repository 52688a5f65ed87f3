"""What the control server may do to a kernel: `control.server.Controlled` over kernel objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.control.protocol import ProcessInfo
from sentry.errors import EINVAL, ESRCH
from sentry.kernel.signals import SigInfo
from sentry.kernel.task_signals import send_to_group

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import ThreadGroup


class Operations:
    """kill, ps, state of the sandbox's container."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """A signal from outside: no permission check, and init has no protection from it."""
        if not 0 <= signal <= 64:
            raise EINVAL(f"signal {signal}")
        groups = self._kernel.pids.groups
        targets = list(groups.values()) if everyone else [g for g in [groups.get(pid)] if g]
        alive = [group for group in targets if group.tasks]
        if not alive:
            raise ESRCH("process already finished")
        for group in alive:
            if signal:
                send_to_group(group, SigInfo.kernel(signal), force=True)

    def control_processes(self) -> list[ProcessInfo]:
        """All processes, zombies too, by pid."""
        return [_describe(group) for _, group in sorted(self._kernel.pids.groups.items())]

    def control_status(self) -> str:
        """OCI's words."""
        init = self._kernel.init
        if init is None:
            return "created"
        return "running" if init.tasks else "stopped"


def _describe(group: ThreadGroup) -> ProcessInfo:
    task = group.tasks[0] if group.tasks else None
    state = "Z" if task is None else "T" if group.stopping else "S" if task.fiber else "R"
    return ProcessInfo(
        pid=group.tgid,
        ppid=group.parent.tgid if group.parent is not None else 0,
        uid=task.creds.uid if task is not None else group.last_uid,
        command=task.comm.decode(errors="replace") if task is not None else "",
        state=state,
        cpu_ns=group.dead_usage.user_ns + sum(t.ctx.cpu_time_ns() for t in group.tasks),
    )
