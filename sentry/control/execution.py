"""`Execution`: a process that `exec` adds to a running container, and the client it belongs to.

The process is nobody's child, as one that entered a pid namespace from outside is. Its client is
told when it has started and when it has ended; when the client goes away first, the process gets
SIGKILL: on the host the client is what stands for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from sentry.abi.resource import RLIM_INFINITY, RLIM_NLIMITS
from sentry.abi.signal import SIGKILL, SIGWINCH
from sentry.boot import first_process
from sentry.config import Capabilities, ProcessConfig, StartError
from sentry.control import descriptors, syncing
from sentry.control.protocol import CONTAINER, DEFECT
from sentry.errors import EBUSY, EINVAL, Errno
from sentry.fs.host.file import HostInode
from sentry.kernel.job import Job
from sentry.kernel.signals import SigInfo
from sentry.kernel.task_clone import first_task
from sentry.kernel.task_signals import send_to_group
from sentry.kernel.work import WORK_PAUSE
from sentry.vfs.interface import Owner
from sentry.wait.again import again
from sentry.wait.fiber import Fiber, Killed, Mode
from sentry.wait.steps import at_once, driven

if TYPE_CHECKING:
    from sentry.config import JobLimits, JobUse
    from sentry.control.orders import ExecProcess
    from sentry.fs.devpts.console import Console
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

STOPPED = "cannot exec in a stopped container"
PAUSED = "cannot exec in a paused container (use --ignore-paused to override)"
CANNOT_START = "unable to start container process: "
MAX_SIGNAL = 64
STREAMS = 3


class Client(Protocol):
    """Who asked; told either `failed`, or `started` and later `ended`."""

    def failed(self, text: str) -> None: ...
    def started(self, pid: int) -> None: ...
    def ended(self, status: int, use: JobUse | None, exceeded: str) -> None: ...


class Execution:
    """One process with its client. The descriptors belong to it from the start."""

    def __init__(
        self,
        kernel: Kernel,
        container: Container,
        client: Client,
        fds: list[int],
        forget: Callable[[Execution], object],
        limits: JobLimits | None = None,
    ) -> None:
        """`limits`: of all that comes of it; None: nobody counts that."""
        self._kernel = kernel
        self._container = container
        self._client = client
        self._fds = fds
        self._forget = forget
        self._loading: Fiber | None = None
        self._group: ThreadGroup | None = None
        self._console: Console | None = None
        self._abandoned = False
        self._status: int | None = None
        self._job = Job(kernel, limits) if limits is not None else None
        self._use: JobUse | None = None
        self._streams: list[HostInode] = []
        """Its standard ones, where they are no terminal."""
        self._is_left = False
        """In a fork: nobody is its client."""

    @property
    def has_terminal(self) -> bool:
        """Its client's."""
        return self._console is not None

    @property
    def group(self) -> ThreadGroup | None:
        """None: it has not begun, or has ended."""
        return self._group

    def leave(self) -> None:
        """In a fork: its client is the parent's. One that has not begun does not."""
        self._is_left = True
        if self._group is None:
            self.abandon()

    def attach(self, client: Client, fds: list[int]) -> None:
        """In a fork: it has a client again, and its streams, those that are open yet, lead there.

        Raises: EBUSY, EINVAL; `fds` are closed.
        """
        try:
            if not self._is_left:
                raise EBUSY("it belongs to somebody")
            if len(fds) != STREAMS or len(self._streams) != STREAMS:
                raise EINVAL("standard input, output and error")
            for fd in fds:
                descriptors.check(fd)
            self._is_left, self._client = False, client
            for inode, fd in zip(self._streams, fds, strict=True):
                if inode.fd >= 0:
                    inode.lead_to(fd)
        finally:
            descriptors.close_all(fds)

    def start(self, process: ProcessConfig, profile: bytes) -> None:
        """Load the program and let it run, in a fiber of its own. Raises: Errno, nothing done."""
        try:
            self._check(process)
        except Errno:
            self._close()
            raise
        loading = self._load(process, profile)
        self._loading = self._kernel.loop.spawn(loading, "exec", self._loaded)

    def signal(self, number: int, everyone: bool) -> None:
        """Send it one, or its whole job; SIGWINCH also says that the host's terminal has a new
        size.

        Raises: EINVAL.
        """
        if not 0 < number <= MAX_SIGNAL:
            raise EINVAL(f"signal {number}")
        if self._console is not None and number == SIGWINCH:
            self._console.refresh_size()
        elif everyone and self._job is not None:
            self._job.signal(number)
        elif self._group is not None and self._group.tasks:
            send_to_group(self._group, SigInfo.kernel(number), force=True)

    def abandon(self) -> None:
        """The client is gone: so shall be the process."""
        self._abandoned = True
        if self._loading is not None:  # files may be of a server that answers nothing
            self._loading.interrupt(Killed(), Mode.KILLABLE)
        if self._job is not None:
            self._job.kill()
        elif self._group is not None and self._group.tasks:
            self._group.exit(SIGKILL)

    def finish(self) -> None:
        """The sandbox is over; what is still on the screen goes out first."""
        if self._status is None:
            return
        if self._console is not None:
            self._console.restore()
        self._over()

    # --- the start

    def _check(self, process: ProcessConfig) -> None:
        if len(self._fds) < (1 if process.terminal else 3):
            raise EINVAL("descriptors are missing")
        for fd in self._fds:
            descriptors.check(fd)
        if process.terminal and not os.isatty(self._fds[0]):
            raise EINVAL("provided file is not a console")
        if not process.args or any(b"\0" in text for text in (*process.args, *process.env)):
            raise EINVAL("args must not be empty, nor hold a NUL character")
        for limit in process.rlimits:
            if not 0 <= limit.resource < RLIM_NLIMITS:
                raise EINVAL(f"resource limit {limit.resource}")
            if not 0 <= min(limit.soft, limit.hard) <= max(limit.soft, limit.hard) <= RLIM_INFINITY:
                raise EINVAL(f"resource limit {limit.soft}, {limit.hard}")

    async def _load(self, process: ProcessConfig, profile: bytes) -> Task:
        init = self._container.init
        assert init is not None
        await self._container.ns.net.catch_up()
        task = await again(self._make_task, init, process)
        task.group.job = self._job
        try:
            if self._abandoned:  # in a fork the descriptors are the parent's client's
                raise StartError(STOPPED)
            self._give_files(task, process)
            loaded = await first_process.start_program(task, process)
            first_process.put_under_observation(task, profile, loaded)
            if self._abandoned or not init.tasks or init.exiting:
                raise StartError(STOPPED)
        except BaseException:
            first_process.undo(task)
            raise
        return task

    def _make_task(self, init: ThreadGroup, process: ProcessConfig) -> Task:
        if not init.tasks or init.exiting:
            raise StartError(STOPPED)
        ns = self._container.ns.but(mounts=init.tasks[0].ns.mounts)
        return first_process.make_task(self._kernel, process, self._container, ns)

    def _give_files(self, task: Task, process: ProcessConfig) -> None:
        fds, self._fds = self._fds, []
        owner = Owner(process.uid, process.gid)
        if not process.terminal:
            made = first_process.donate(task, fds, owner, closes=True)
            inodes = [each.inode for each in made[:STREAMS]]
            self._streams = [each for each in inodes if isinstance(each, HostInode)]
            return
        descriptors.close_all(fds[1:3])
        self._console = first_process.open_console(task, fds[0], owner)
        first_process.donate(task, fds[3:], owner, closes=True, first=3)

    def _loaded(self, task: Task | None, error: BaseException | None) -> None:
        self._loading = None
        if task is None:
            self._failed(error)
            return
        kernel = self._kernel
        container = self._container
        try:
            container.cgroup.check_new_members()
        except EBUSY:
            assert container.init is not None
            task.group.cgroup = container.init.cgroup  # as runc does where the top takes nobody
        first_task(kernel, task)
        self._group = task.group
        task.group.pid_queue.add(self._thread_gone)
        if self._job is not None:
            self._job.begin()
        self._client.started(container.pids.of(task.group.tgid))
        if container.stands or task.group.cgroup.freezing:
            task.work |= WORK_PAUSE
        task.finish()
        if self._abandoned or (self._job is not None and self._job.closed):
            self.abandon()

    def _failed(self, error: BaseException | None) -> None:
        self._close()
        if self._console is not None:
            self._console.close(lambda: None)
        self._forget(self)
        if isinstance(error, Killed) or (isinstance(error, StartError) and str(error) == STOPPED):
            self._client.failed(STOPPED)
        elif isinstance(error, StartError):
            self._client.failed(CANNOT_START + str(error))
        elif isinstance(error, Errno):
            self._client.failed(CANNOT_START + error.why())
        else:
            assert error is not None
            self._client.failed(CANNOT_START + DEFECT)
            self._kernel.log.bug("exec", error)

    def _close(self) -> None:
        fds, self._fds = self._fds, []
        descriptors.close_all(fds)

    # --- the end

    def _thread_gone(self, _events: int) -> None:
        group = self._group
        if group is None or group.tasks or self._status is not None:
            return
        self._status = group.exit_status
        if self._console is None:
            self._settle()
        else:
            self._console.close(self._settle)

    def _settle(self) -> None:
        """Who hears of the end finds on the host what the process has done to files."""
        self._console = None
        self._kernel.loop.spawn(self._end(), "exec", lambda _, error: self._settled(error))

    async def _end(self) -> None:
        job = self._job
        if job is not None:
            job.first_ended()
            if job.is_bounded or job.closed:
                job.kill()
                await job.ended()
            self._use = await driven(job.use())
        await syncing.settle(self._container)

    def _settled(self, error: BaseException | None) -> None:
        if error is not None:
            self._kernel.log.bug("exec", error)
        self._over()

    def _over(self) -> None:
        """The process has ended and everything it wrote is out. Once."""
        status, self._console = self._status, None
        if self._group is not None and status is not None:
            self._group = None
            self._forget(self)
            exceeded = ""
            if self._job is not None:
                self._use = self._use or at_once(self._job.use())  # the sandbox is over
                exceeded = self._job.exceeded or self._taken_along(status)
            self._client.ended(status, self._use, exceeded)

    def _taken_along(self, status: int) -> str:
        """`CONTAINER` if it was killed because that has ended."""
        init = self._container.init
        is_over = init is None or init.exiting or not init.tasks
        return CONTAINER if is_over and status == SIGKILL else ""


def last_of_each(env: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Of variables that are named twice the last one counts, as with runc."""
    return tuple({each.partition(b"=")[0]: each for each in env}.values())


def merge(base: ProcessConfig, request: ExecProcess) -> ProcessConfig:
    """The container's own process, but for what the request says otherwise."""

    def given(value: Any, default: Any) -> Any:
        return default if value is None else value

    caps = given(request.capabilities, base.capabilities)
    added = request.extra_capabilities
    if added:
        caps = Capabilities(
            caps.bounding | added, caps.effective | added, caps.inheritable,
            caps.permitted | added, caps.ambient,
        )  # fmt: skip
    return replace(
        base,
        args=request.args,
        env=last_of_each((*given(request.env, base.env), *request.extra_env)),
        cwd=request.cwd or base.cwd,
        uid=given(request.uid, base.uid),
        gid=given(request.gid, base.gid),
        additional_gids=(
            *given(request.additional_gids, base.additional_gids), *request.extra_gids,
        ),
        umask=given(request.umask, base.umask),
        capabilities=caps,
        rlimits=request.rlimits or base.rlimits,
        no_new_privileges=given(request.no_new_privileges, base.no_new_privileges),
        oom_score_adj=given(request.oom_score_adj, base.oom_score_adj),
        scheduler=given(request.scheduler, base.scheduler),
        io_priority=given(request.io_priority, base.io_priority),
        terminal=request.terminal,
        console_size=None,
    )  # fmt: skip
