"""What a control server may do to a container: `control.controlled.Controlled` over kernel objects.

What is about the sandbox, and the same for all of them, is in `oversight.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sentry.abi.signal import SIGKILL
from sentry.control.descriptors import close_all
from sentry.control.orders import ExecProcess, FileOrder, ForkOrder
from sentry.control.oversight import Bringing, Oversight, Shared, Told
from sentry.control.processes import describe
from sentry.control.protocol import DEFECT, Reply, Request
from sentry.errors import EBUSY, EINVAL, EOPNOTSUPP, ESRCH, Errno
from sentry.fs.pseudo.memory import memory_of
from sentry.kernel import pause
from sentry.kernel.signals import IGNORED_BY_DEFAULT, STOPPING, SigInfo
from sentry.kernel.task_signals import send_to_group
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.config import ContainerConfig, FurtherConfig
    from sentry.control.answers import ProcessInfo, Stats
    from sentry.control.checkpointing import Checkpointing
    from sentry.control.execution import Client, Execution
    from sentry.control.files import Filing
    from sentry.control.forwarding import Forward
    from sentry.control.orders import ServeOrder
    from sentry.control.reading import Reading
    from sentry.control.serving import Serving
    from sentry.control.waiting import OomWait, Wait
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.loop import Timer

MAX_EXPIRY_NS = 10**18
"""30 years."""


class Operations(Oversight):
    """What there is to do to a container."""

    def __init__(
        self, kernel: Kernel, container: Container, config: ContainerConfig, shared: Shared
    ) -> None:
        super().__init__(kernel, container, shared)
        self._config = config
        self._executions: set[Execution] = set()
        self._waits: set[Wait] = set()
        self._start: Callable[[], None] | None = None
        self._is_starting = False
        self._expiry: tuple[int, Timer] | None = None
        """When the container ends (CLOCK_MONOTONIC), and what does that."""

    def await_start(self, start: Callable[[], None]) -> None:
        """The first process is there and does not run before `control_start`."""
        self._start = start

    @property
    def waits_for_start(self) -> bool:
        """The first process has not run."""
        return self._start is not None

    @property
    def _begins(self) -> bool:
        """Who started it has been told that it runs; what was restored stands still until then."""
        return self._is_starting and self._start is not None

    def control_start(self) -> None:
        """Once; it sees what has been plugged into its network by now. Raises: EBUSY."""
        if self._start is None or self._is_starting:
            raise EBUSY("cannot start an already running container")
        self._is_starting = True
        network = self._container.ns.net
        if network.is_followed:
            self._kernel.loop.spawn(network.catch_up(), "start", self._caught_up)
        else:
            self._caught_up(None, None)

    def _caught_up(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self._kernel.log.bug("start", error)
        start, self._start = self._start, None
        if start is not None:  # nobody has ended it meanwhile
            start()

    def end(self) -> None:
        """The container is over, whatever it does: SIGKILL to its first process."""
        init = self._container.init
        if self._start is not None:
            self._end_unstarted(SIGKILL)
        elif init is not None and init.tasks:
            init.exit(SIGKILL)
        elif self._container is self._kernel.container:
            self._kernel.finish(SIGKILL)

    def control_expire(self, time_ns: int) -> None:
        """It ends in so long, or (0) not for that. Raises: EINVAL."""
        if not 0 <= time_ns <= MAX_EXPIRY_NS:
            raise EINVAL(f"an end in {time_ns} ns")
        expiry, self._expiry = self._expiry, None
        if expiry is not None:
            expiry[1].cancel()
        if time_ns:
            loop = self._kernel.loop
            when = loop.now_ns() + time_ns
            self._expiry = when, loop.call_at(when, self.end)

    def control_expires_ns(self) -> int:
        """How long it is until then; 0: nobody has asked for it."""
        return max(1, self._expiry[0] - self._kernel.loop.now_ns()) if self._expiry else 0

    def _end_unstarted(self, signal: int) -> None:
        """The first process has no handlers yet, and no vCPU."""
        start, self._start = self._start, None
        if self._container is self._kernel.container:
            self._start = start
            self._kernel.finish(signal)
            return
        init = self._container.init
        assert init is not None
        init.exit(signal)

    def control_resize(self) -> None:
        """Nothing to do where there is no terminal of ours."""
        console = self._container.console
        if console is not None:
            console.refresh_size()

    def control_update(self, request: Request) -> None:
        """Tasks count from now on; what is there stays. Memory is never more than at the start.

        Of the CPU only what programs are told changes: the rest is done.
        """
        container = self._container
        if request.pids_limit is not None:
            container.pids_limit = max(0, request.pids_limit)
        if request.memory_limit is not None:
            if container is self._kernel.container:
                self._kernel.platform.ram.limit_to(request.memory_limit)
            else:
                container.memory_limit = max(0, request.memory_limit)
        quota, period = container.cpu_quota
        if request.cpu_quota is not None:
            quota = max(0, request.cpu_quota)
        container.cpu_quota = quota, request.cpu_period or period
        container.cpu_weight = request.cpu_weight or container.cpu_weight

    def control_create(self, config: FurtherConfig, fds: list[int], told: Told) -> Bringing:
        """Add a container. Raises: EINVAL, EEXIST; `fds` are closed."""
        return self._shared.add(config, fds, told)

    def control_exec(self, request: ExecProcess, fds: list[int], client: Client) -> Execution:
        """Add a process; it starts in its own time. Raises: EBUSY, ESRCH, EINVAL; `fds` are closed.

        Its end, and why it did not start, `client` hears later.
        """
        from sentry.control.execution import (  # noqa: PLC0415  many containers have none
            PAUSED,
            STOPPED,
            Execution,
            merge,
        )

        init = self._container.init
        try:
            if init is None or not init.tasks or init.exiting:
                raise ESRCH(STOPPED)
            if self._container.paused and not (self._begins or request.ignore_paused):
                raise EBUSY(PAUSED)
        except Errno:
            close_all(fds)
            raise
        execution = Execution(
            self._kernel, self._container, client, fds, self._forget, request.job
        )
        self._executions.add(execution)
        try:
            execution.start(merge(self._config.process, request), self._config.seccomp)
        except Errno:
            self._executions.discard(execution)
            raise
        return execution

    @property
    def has_terminals(self) -> bool:
        """A process of `exec` has its client's."""
        return any(each.has_terminal for each in self._executions)

    def leave_executions(self) -> None:
        """In a fork: their clients are the parent's."""
        for execution in self._executions:
            execution.leave()

    def control_attach(self, pid: int, fds: list[int], client: Client) -> Execution:
        """In a fork: `client` is that of a process of the parent's `exec`, with these streams.

        Raises: ESRCH, EBUSY, EINVAL; the descriptors are closed.
        """
        group = self._process(pid)
        found = [each for each in self._executions if group is not None and each.group is group]
        if not found:
            close_all(fds)
            raise ESRCH("no process of `exec` that runs has this number")
        found[0].attach(client, fds)
        return found[0]

    def control_pause(self, done: Callable[[], object]) -> None:
        """No program runs any more; `done` once that is so. Raises: EBUSY if they are paused."""
        if self._container.paused:
            raise EBUSY("container not running")
        pause.pause(self._container, lambda: self._settle(done))

    def _settle(self, done: Callable[[], object]) -> None:
        """What they have done to files is seen outside, too."""
        from sentry.control import syncing  # noqa: PLC0415  few ask

        def ended(_: object, error: BaseException | None) -> None:
            if error is not None:
                self._kernel.log.bug("pause", error)
            done()

        self._kernel.loop.spawn(syncing.settle(self._container), "pause", ended)

    def control_sync(self, told: Told) -> None:
        """All that they have done to files is on the host's disk. `told`: "", or what failed."""
        from sentry.control import syncing  # noqa: PLC0415  few ask

        self._carry_out("sync", syncing.sync(self._container), told)

    def control_share(self, told: Told) -> None:
        """What they do to files of the root is on the host at once, from now on: the same."""
        from sentry.control import syncing  # noqa: PLC0415  few ask

        self._carry_out("share", syncing.share(self._container), told)

    def _carry_out(self, name: str, work: Coroutine[Any, Any, None], told: Told) -> None:
        def ended(_: object, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, Errno):
                self._kernel.log.bug(name, error)
            if error is None:
                told("")
            else:
                told(error.why() if isinstance(error, Errno) else DEFECT)

        self._kernel.loop.spawn(work, name, ended)

    def control_resume(self) -> None:
        """They go on. Raises: EBUSY if they were not paused."""
        if not self._container.paused:
            raise EBUSY("container not paused")
        if self._shared.forks is not None and self._shared.forks.stands:
            raise EOPNOTSUPP("a template stands still")
        standing = self._kernel.standing
        if standing is not None and standing.is_of(self._container):
            raise EBUSY("a snapshot is being made")
        pause.resume(self._container)

    def _forget(self, execution: Execution) -> None:
        self._executions.discard(execution)

    def finish(self, status: int) -> None:
        """The container is over: what processes of `exec` have on their screens goes out."""
        for execution in list(self._executions):
            execution.finish()
        for wait in list(self._waits):
            wait.finish(self._container.init, status)
        self.control_expire(0)

    def control_wait(self, pid: int, done: Callable[[int], object]) -> Wait:
        """Tell the wait(2) status of a process once it has ended. Raises: ESRCH."""
        from sentry.control.waiting import Wait  # noqa: PLC0415  few ask

        group = self._process(pid)
        if group is None:
            raise ESRCH("no such process")
        wait = Wait(group, done, self._waits.discard)
        self._waits.add(wait)
        return wait

    def control_forward(self, port: int, fds: list[int], told: Told) -> Forward:
        """Connect to a port inside; `fds` are the ways in and out. Raises: EINVAL."""
        from sentry.control.forwarding import Forward  # noqa: PLC0415  few ask

        return Forward(self._kernel, self._container, fds, port, told)

    def control_read(self, request: Request, fds: list[int], told: Told) -> Reading:
        """Read a file of the container into a pipe. Raises: EINVAL, ESRCH."""
        from sentry.control.reading import Reading  # noqa: PLC0415  few ask

        asked = request.path, request.size
        return Reading(self._kernel, self._container, fds, asked, told)

    def control_file(
        self, order: FileOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Filing:
        """Do something with files of the container. Raises: EINVAL, ESRCH; `fds` are closed."""
        from sentry.control.files import Filing  # noqa: PLC0415  few ask

        return Filing(self._kernel, self._container, fds, order, told)

    def control_checkpoint(
        self, parent: str, fds: list[int], told: Callable[[Reply], object]
    ) -> Checkpointing:
        """Write a snapshot. Raises: EBUSY, EINVAL, EOPNOTSUPP; `fds` are closed."""
        from sentry.control.checkpointing import Checkpointing  # noqa: PLC0415  few ask

        if self._start is not None:
            close_all(fds)
            raise EBUSY("cannot checkpoint: it is not started")
        return Checkpointing(self._kernel, self._container, fds, parent, told)

    def control_oom(self, known: int, done: Callable[[], None]) -> OomWait:
        """Tell when more than so many processes have been killed because memory ran out."""
        from sentry.control.waiting import OomWait  # noqa: PLC0415  few ask

        return OomWait(self._kernel, self._container, known, done)

    def control_fork(self, asked: ForkOrder | None, fds: list[int], told: Told) -> None:
        """Make another sandbox of this one. Raises: EOPNOTSUPP, EBUSY; `fds` are closed."""
        forks = self._shared.forks
        if forks is None:
            close_all(fds)
            raise EOPNOTSUPP("the sandbox was not started with --forkable")
        forks.ask(asked, fds, told)

    def control_succeed(self, fds: list[int], told: Told) -> None:
        """Another process goes on in its place. Raises: EOPNOTSUPP, EBUSY, EINVAL; `fds` are
        closed."""
        forks = self._shared.forks
        if forks is None:
            close_all(fds)
            raise EOPNOTSUPP("the sandbox was not started with --forkable")
        forks.give_way(fds, told)

    def look_again(self) -> None:
        """In a fork: the watchdog has no clock any more. Raises: OSError."""
        self._shared.watchdog.again()

    def _processes(self) -> list[ThreadGroup]:
        """All of the container, zombies too, by number."""
        groups = sorted(self._kernel.pids.groups.items())
        return [group for _, group in groups if group.container is self._container]

    def _process(self, pid: int) -> ThreadGroup | None:
        """One of them; 1 is the first one, whatever its number is."""
        if pid == 1:
            return self._container.init
        group = self._container.pids.group(pid)
        return group if group is not None and group.container is self._container else None

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """A signal from outside: no permission check, and init has no protection from it."""
        if not 0 <= signal <= 64:
            raise EINVAL(f"signal {signal}")
        if self._start is not None and signal and _ends_by_default(signal):
            self._end_unstarted(signal)
            return
        if everyone:
            targets = self._processes()
        elif pid < 0:
            process_group = self._container.pids.process_group(-pid)
            targets = list(process_group.members) if process_group is not None else []
        else:
            targets = [group for group in [self._process(pid)] if group is not None]
        alive = [group for group in targets if group.tasks]
        if not alive:
            raise ESRCH("process already finished")
        for group in alive:
            if signal:
                send_to_group(group, SigInfo.kernel(signal), force=True)

    def control_processes(self, told: Callable[[list[ProcessInfo]], object]) -> None:
        """Tell all processes, zombies too, by pid."""

        def done(found: list[ProcessInfo] | None, error: BaseException | None) -> None:
            if error is not None:
                self._kernel.log.bug("ps", error)
            told(found or [])

        self._kernel.loop.spawn(driven(self._described()), "ps", done)

    def _described(self) -> Steps[list[ProcessInfo]]:
        now_ns, found = self._kernel.clock.now_ns(), []
        for group in self._processes():
            found.append(describe(group, self._container.pids, now_ns))
            yield
        return found

    def control_stats(self) -> Stats:
        """Times of the living, and of who is gone."""
        from sentry.control.answers import Stats  # noqa: PLC0415  few ask

        container = self._container
        user_ns, system_ns = container.cgroup.gone_user_ns, container.cgroup.gone_sys_ns
        tasks = 0
        for group in container.processes():
            more_user_ns, more_system_ns = group.cpu_ns()
            user_ns, system_ns = user_ns + more_user_ns, system_ns + more_system_ns
            tasks += len(group.tasks)
        memory = memory_of(self._kernel, container)
        return Stats(
            user_ns=user_ns,
            system_ns=system_ns,
            memory=memory.total - memory.free,
            memory_limit=memory.total,
            shared=memory.shared,
            oom_kills=container.oom_kills,
            tasks=tasks,
            tasks_limit=container.pids_limit,
        )

    def control_serve(
        self, order: ServeOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Serving:
        """What is served from outside comes, or goes. Raises: EBUSY, EINVAL, ESRCH; `fds` are
        closed."""
        from sentry.control.serving import Serving  # noqa: PLC0415  few ask

        if self._start is not None:
            close_all(fds)
            raise EBUSY("the container has not been started")
        return Serving(self._kernel, self._container, fds, order, told)

    def control_status(self) -> str:
        """OCI's words."""
        init, paused = self._container.init, self._container.paused
        if self._begins and init is not None:
            return "running"
        if init is None or self._start is not None:
            return "paused" if paused else "created"
        if not init.tasks:
            return "stopped"
        return "paused" if paused else "running"


def _ends_by_default(signal: int) -> bool:
    return not (IGNORED_BY_DEFAULT | STOPPING) >> (signal - 1) & 1
