"""What the control server may do to a kernel: `control.server.Controlled` over kernel objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.abi.signal import SIGKILL
from sentry.control.descriptors import close_all
from sentry.control.execution import PAUSED, STOPPED, Client, Execution, merge
from sentry.control.protocol import ExecProcess, ProcessInfo
from sentry.errors import EBUSY, EINVAL, ESRCH, Errno
from sentry.kernel import pause
from sentry.kernel.signals import IGNORED_BY_DEFAULT, STOPPING, SigInfo
from sentry.kernel.task_exit import exit_group
from sentry.kernel.task_signals import send_to_group

if TYPE_CHECKING:
    from sentry.config import SandboxConfig
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import ThreadGroup


class Operations:
    """What there is to do to the sandbox's container."""

    def __init__(self, kernel: Kernel, config: SandboxConfig) -> None:
        self._kernel = kernel
        self._config = config
        self._executions: set[Execution] = set()
        self._start: Callable[[], None] | None = None

    def await_start(self, start: Callable[[], None]) -> None:
        """The first process is there and does not run before `control_start`."""
        self._start = start

    def control_start(self) -> None:
        """Once. Raises: EBUSY."""
        start, self._start = self._start, None
        if start is None:
            raise EBUSY("cannot start an already running container")
        start()

    def end(self) -> None:
        """The container is over, whatever it does: SIGKILL to its first process."""
        init = self._kernel.init
        if self._start is not None or init is None or not init.tasks:
            self._kernel.finish(SIGKILL)
        else:
            exit_group(init, SIGKILL)

    def control_resize(self) -> None:
        """Nothing to do where there is no terminal of ours."""
        console = self._kernel.services.get("console")
        if console is not None:
            console.refresh_size()

    def control_update(self, pids_limit: int | None, memory_limit: int | None) -> None:
        """Tasks count from now on; what is there stays. Memory is never more than at the start."""
        services = self._kernel.services
        if pids_limit is not None:
            self._kernel.pids.limit = max(0, pids_limit)
        if memory_limit is not None:
            first = services.setdefault("memory_at_start", services["memory_limit"])
            services["memory_limit"] = min(first, memory_limit)
            self._kernel.platform.ram.commit_limit = services["memory_limit"]

    def control_exec(self, request: ExecProcess, fds: list[int], client: Client) -> Execution:
        """Add a process; it starts in its own time. Raises: EBUSY, ESRCH, EINVAL; `fds` are closed.

        Its end, and why it did not start, `client` hears later.
        """
        init = self._kernel.init
        try:
            if init is None or not init.tasks or init.exiting:
                raise ESRCH(STOPPED)
            if self._kernel.paused and not request.ignore_paused:
                raise EBUSY(PAUSED)
        except Errno:
            close_all(fds)
            raise
        execution = Execution(self._kernel, client, fds, self._executions.discard)
        self._executions.add(execution)
        try:
            execution.start(merge(self._config.process, request), self._config.seccomp)
        except Errno:
            self._executions.discard(execution)
            raise
        return execution

    def control_pause(self, done: Callable[[], object]) -> None:
        """No program runs any more; `done` once that is so. Raises: EBUSY if they are paused."""
        if self._kernel.paused:
            raise EBUSY("container not running")
        pause.pause(self._kernel, done)

    def control_resume(self) -> None:
        """They go on. Raises: EBUSY if they were not paused."""
        if not self._kernel.paused:
            raise EBUSY("container not paused")
        pause.resume(self._kernel)

    def finish(self) -> None:
        """The sandbox is over: what processes of `exec` have on their screens goes out."""
        for execution in list(self._executions):
            execution.finish()

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """A signal from outside: no permission check, and init has no protection from it."""
        if not 0 <= signal <= 64:
            raise EINVAL(f"signal {signal}")
        if self._start is not None and signal and _ends_by_default(signal):
            self._kernel.finish(signal)  # it has no handlers yet, and no vCPU
            return
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
        if init is None or self._start is not None:
            return "paused" if self._kernel.paused else "created"
        if not init.tasks:
            return "stopped"
        return "paused" if self._kernel.paused else "running"


def _ends_by_default(signal: int) -> bool:
    return not (IGNORED_BY_DEFAULT | STOPPING) >> (signal - 1) & 1


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
