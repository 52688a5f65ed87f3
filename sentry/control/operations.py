"""What the control server may do to a kernel: `control.server.Controlled` over kernel objects."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sentry.abi.signal import SIGKILL
from sentry.control.counts import counts
from sentry.control.descriptors import close_all
from sentry.control.execution import PAUSED, STOPPED, Client, Execution, merge
from sentry.control.protocol import (
    ExecProcess,
    ProcessInfo,
    Profile,
    Request,
    Stacks,
    Stats,
    Trace,
)
from sentry.errors import EBUSY, EINVAL, ESRCH, Errno
from sentry.fs.devpts.terminal import Terminal
from sentry.fs.pseudo.memory import memory_of
from sentry.kernel import pause
from sentry.kernel.signals import IGNORED_BY_DEFAULT, STOPPING, SigInfo
from sentry.kernel.task_signals import send_to_group
from sentry.kernel.thread_group import Usage

if TYPE_CHECKING:
    from sentry.config import SandboxConfig
    from sentry.control.forwarding import Forward
    from sentry.control.observing import Observing
    from sentry.control.profile import Profiler
    from sentry.control.reading import Reading
    from sentry.control.waiting import OomWait, Wait
    from sentry.control.watchdog import Watchdog
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

MAX_PROFILE_NS = 3600 * 10**9
Told = Callable[[str], object]
"""Hears later that it is done (""), or what failed."""
COMMAND_SIZE = 512
"""Bytes of a command line that `ps` shows."""


class Operations:
    """What there is to do to the sandbox's container."""

    def __init__(self, kernel: Kernel, config: SandboxConfig, watchdog: Watchdog) -> None:
        self._kernel = kernel
        self._config = config
        self._watchdog = watchdog
        self._executions: set[Execution] = set()
        self._waits: set[Wait] = set()
        self._observing: Observing | None = None
        self._start: Callable[[], None] | None = None
        self._profiler: Profiler | None = None

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
            init.exit(SIGKILL)

    def control_resize(self) -> None:
        """Nothing to do where there is no terminal of ours."""
        console = self._kernel.services.console
        if console is not None:
            console.refresh_size()

    def control_update(self, request: Request) -> None:
        """Tasks count from now on; what is there stays. Memory is never more than at the start.

        Of the CPU only what programs are told changes: the rest is done.
        """
        kernel = self._kernel
        if request.pids_limit is not None:
            kernel.pids.limit = max(0, request.pids_limit)
        if request.memory_limit is not None:
            kernel.platform.ram.limit_to(request.memory_limit)
        quota, period = kernel.services.cpu_quota
        if request.cpu_quota is not None:
            quota = max(0, request.cpu_quota)
        kernel.services.cpu_quota = quota, request.cpu_period or period
        kernel.services.cpu_weight = request.cpu_weight or kernel.services.cpu_weight

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
        execution = Execution(self._kernel, client, fds, self._forget)
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

    def _forget(self, execution: Execution) -> None:
        self._executions.discard(execution)

    def finish(self) -> None:
        """The sandbox is over: what processes of `exec` have on their screens goes out."""
        for execution in list(self._executions):
            execution.finish()
        for wait in list(self._waits):
            wait.finish(self._kernel.init, self._kernel.exit_status or 0)

    def control_wait(self, pid: int, done: Callable[[int], object]) -> Wait:
        """Tell the wait(2) status of a process once it has ended. Raises: ESRCH."""
        from sentry.control.waiting import Wait  # noqa: PLC0415  few ask

        wait = Wait(self._kernel, pid, done, self._waits.discard)
        self._waits.add(wait)
        return wait

    def control_forward(self, port: int, fds: list[int], told: Told) -> Forward:
        """Connect to a port inside; `fds` are the ways in and out. Raises: EINVAL."""
        from sentry.control.forwarding import Forward  # noqa: PLC0415  few ask

        return Forward(self._kernel, fds, port, told)

    def control_read(self, request: Request, fds: list[int], told: Told) -> Reading:
        """Read a file of the container into a pipe. Raises: EINVAL, ESRCH."""
        from sentry.control.reading import Reading  # noqa: PLC0415  few ask

        return Reading(self._kernel, fds, request.path, request.size, told)

    def control_oom(self, known: int, done: Callable[[], None]) -> OomWait:
        """Tell when more than so many processes have been killed because memory ran out."""
        from sentry.control.waiting import OomWait  # noqa: PLC0415  few ask

        return OomWait(self._kernel, known, done)

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """A signal from outside: no permission check, and init has no protection from it."""
        if not 0 <= signal <= 64:
            raise EINVAL(f"signal {signal}")
        if self._start is not None and signal and _ends_by_default(signal):
            self._kernel.finish(signal)  # it has no handlers yet, and no vCPU
            return
        pids = self._kernel.pids
        if everyone:
            targets = list(pids.groups.values())
        elif pid < 0:
            process_group = pids.process_groups.get(-pid)
            targets = list(process_group.members) if process_group is not None else []
        else:
            targets = [group for group in [pids.groups.get(pid)] if group is not None]
        alive = [group for group in targets if group.tasks]
        if not alive:
            raise ESRCH("process already finished")
        for group in alive:
            if signal:
                send_to_group(group, SigInfo.kernel(signal), force=True)

    def control_processes(self) -> list[ProcessInfo]:
        """All processes, zombies too, by pid."""
        now_ns = time.monotonic_ns()
        groups = sorted(self._kernel.pids.groups.items())
        return [_describe(group, now_ns) for _, group in groups]

    def control_stats(self) -> Stats:
        """Times of the living, of who was waited for, and of who was not."""
        kernel = self._kernel
        total = Usage()
        total.add(kernel.gone_usage)
        for group in kernel.pids.groups.values():
            total.add(_usage(group))
            total.add(group.reaped_usage)
        memory = memory_of(kernel)
        return Stats(
            user_ns=total.user_ns,
            system_ns=total.sys_ns,
            memory=memory.total - memory.free,
            memory_limit=memory.total,
            shared=memory.shared,
            oom_kills=kernel.counters.oom_kills,
            tasks=len(kernel.pids.tasks),
            tasks_limit=kernel.pids.limit,
        )

    def control_counts(self) -> dict[str, int]:
        """How much of everything there is."""
        return counts(self._kernel)

    def control_strace(self, trace: Trace, fds: list[int], done: Callable[[str], object]) -> None:
        """Write calls from now on, or no more. Raises: EBUSY, EINVAL; `fds` are closed."""
        self._observers().strace(trace, fds, done)

    def control_log(self, debug: bool, done: Callable[[str], object]) -> None:
        """Count what programs do not get, or tell it and count no more. Raises: EBUSY, EINVAL."""
        self._observers().debug(on=debug, done=done)

    def _observers(self) -> Observing:
        if self._observing is None:
            from sentry.control.observing import Observing  # noqa: PLC0415  few ask

            config = self._config
            self._observing = Observing(self._kernel, config.log_fd, config.strace_fd)
        return self._observing

    def control_stacks(self, after: int) -> Stacks:
        """Some tasks after that one, or (-1) coroutines and threads of the kernel."""
        from sentry.control import stacks  # noqa: PLC0415  few ask

        if after < 0:
            return stacks.of_kernel(self._kernel)
        return stacks.tasks_after(self._kernel, after)

    def control_profile(self, time_ns: int, done: Callable[[Profile], object]) -> None:
        """Measure for so long. Raises: EBUSY if somebody does already, EINVAL."""
        if self._profiler is not None:
            raise EBUSY("it is being profiled already")
        if not 0 < time_ns <= MAX_PROFILE_NS:
            raise EINVAL(f"a profile of {time_ns} ns")
        from sentry.control.profile import Profiler  # noqa: PLC0415

        self._profiler = Profiler(self._kernel)

        def finish() -> None:
            profiler, self._profiler = self._profiler, None
            if profiler is not None:
                long_steps = self._watchdog.long_steps()
                done(msgspec.structs.replace(profiler.stop(), long_steps=long_steps))

        self._kernel.loop.call_at(time.monotonic_ns() + time_ns, finish)

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


def _usage(group: ThreadGroup) -> Usage:
    """Of all its threads, dead and alive."""
    usage = Usage()
    usage.add(group.dead_usage)
    for task in group.tasks:
        usage.count(task)
    return usage


def _describe(group: ThreadGroup, now_ns: int) -> ProcessInfo:
    task = group.tasks[0] if group.tasks else None
    state = "Z" if task is None else "T" if group.stopping else "S" if task.fiber else "R"
    usage = _usage(group)
    terminal = group.terminal
    return ProcessInfo(
        pid=group.tgid,
        ppid=group.parent.tgid if group.parent is not None else 0,
        uid=task.creds.uid if task is not None else group.last_uid,
        command=_command(group, task),
        state=state,
        cpu_ns=usage.user_ns + usage.sys_ns,
        age_ns=now_ns - group.start_ns,
        terminal=terminal.index if isinstance(terminal, Terminal) else -1,
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
