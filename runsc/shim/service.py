"""The task service: what containerd asks of containers.

What is known is answered at once; what touches a sandbox, or may wait, is a worker's (`jobs`).
Source: containerd's api/runtime/task/v2/shim.proto and runtime/v2/runc/task/service.go.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from runsc import __version__
from runsc.shim import messages as m
from runsc.shim import options
from runsc.shim.copies import Copies
from runsc.shim.exits import Exits
from runsc.shim.loop import Loop, Promise, Timer, spawn
from runsc.shim.messages import TaskStatus
from runsc.shim.publisher import Publisher
from runsc.shim.server import Method
from runsc.shim.streams import Streams
from runsc.shim.tasks import Process, Task, Tasks
from runsc.shim.ttrpc import Code, Refused
from runsc.shim.workers import Job, Lost, Outcome, Workers
from sentry.protobuf import Message, decode

DRAIN_S = 2.0
"""So long the output of a process that has ended may be held open by others: as runc's shim."""
AGAIN_S = 1.0
"""Between two tries to end a container that cannot be ended yet."""
EMPTY = m.Empty()
DETAILS = "containerd.runc.v1.ProcessDetails"


class TaskService:
    """All methods; names in CamelCase are those of the protocol."""

    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        publisher: Publisher,
        namespace: str,
        prepared: Callable[[bytes], Promise[Outcome] | None],
    ) -> None:
        self.tasks = Tasks()
        self._loop, self._workers, self._publisher = loop, workers, publisher
        self._namespace = namespace
        self._prepared = prepared
        """A worker that waits for the first container, if there is one still."""
        self.options: m.Any | None = None
        """Of the shim: for containers that come without."""
        self.id = ""
        """Of the shim: its first container's."""
        self._is_over = False
        """That is gone for good; what is left of others is still to be deleted."""
        self.exits = Exits(loop, self.tasks, publisher)
        self.on_shutdown: Callable[[], None] = loop.stop

    def methods(self) -> Mapping[str, Method]:
        """By name."""
        return {
            "Checkpoint": Method(m.CheckpointTask, self.checkpoint),
            "CloseIO": Method(m.CloseIO, self.close_io),
            "Connect": Method(m.Named, self.connect),
            "Create": Method(m.CreateTask, self.create),
            "Delete": Method(m.Named, self.delete),
            "Exec": Method(m.ExecProcess, self.exec),
            "Kill": Method(m.Kill, self.kill),
            "Pause": Method(m.Named, self.pause),
            "Pids": Method(m.Named, self.pids),
            "ResizePty": Method(m.ResizePty, self.resize_pty),
            "Resume": Method(m.Named, self.resume),
            "Shutdown": Method(m.Shutdown, self.shutdown),
            "Start": Method(m.Named, self.start),
            "State": Method(m.Named, self.state),
            "Stats": Method(m.Named, self.stats),
            "Update": Method(m.Update, self.update),
            "Wait": Method(m.Named, self.wait),
        }

    async def _work(self, job: Callable[..., None], *arguments: Any) -> Outcome:
        made: Job = partial(job, *arguments)
        return await self._workers.start(made)

    # containers

    async def create(self, request: m.CreateTask) -> m.Pid:
        """Up to where its first process would run."""
        if request.id in self.tasks.by_id:
            raise Refused(Code.ALREADY_EXISTS, f"task {request.id}")
        given = options.configured(request.options, self.options)
        settings = options.read(given, self._namespace)
        streams = Streams(request.stdin, request.stdout, request.stderr, request.terminal)
        init = Process("", streams)
        init.busy = True
        task = self.tasks.by_id[request.id] = Task(request.id, request.bundle, settings, init)
        try:
            self._take(init, await self._create(task, request))
        except BaseException as error:
            if isinstance(error, Lost) or not isinstance(error, Refused):
                await self._forget(task)
            del self.tasks.by_id[request.id]
            init.failed()
            self.exits.settled(task, init)
            raise
        init.status = TaskStatus.CREATED
        io = m.TaskIO(request.stdin, request.stdout, request.stderr, request.terminal)
        self._publisher.publish(
            m.TaskCreate(
                request.id, request.bundle, request.rootfs, io, request.checkpoint, init.pid
            )
        )
        self.exits.settled(task, init)
        return m.Pid(init.pid)

    async def _create(self, task: Task, request: m.CreateTask) -> Outcome:
        from runsc.shim import jobs  # noqa: PLC0415  not before it is needed

        mounts = tuple(
            (each.type, each.source, each.target, tuple(each.options)) for each in request.rootfs
        )
        streams, settings = task.init.streams, task.settings
        job = jobs.Create(
            task.id, task.bundle, self._namespace, settings, streams, mounts, request.checkpoint
        )
        started = self._prepared(msgspec.msgpack.encode(job))
        if started is not None:
            return await started
        return await self._work(jobs.create, job)

    async def _forget(self, task: Task) -> None:
        """What a worker has left that was killed while it made it, or has made when the shim could
        not take its streams: containerd knows of no container that it would delete."""
        from runsc.shim import jobs  # noqa: PLC0415

        with suppress(Refused):
            await self._work(jobs.delete, task.settings, task.id, task.bundle)

    def _take(self, process: Process, outcome: Outcome) -> None:
        """Its pid and its streams, from the worker."""
        from runsc.shim import jobs  # noqa: PLC0415

        kept = msgspec.convert(outcome.value, jobs.Kept)
        if process.exec_id:
            process.pid, process.inner_pid = outcome.pid, kept.pid
        else:
            process.pid = kept.pid
        process.began = kept.began
        try:
            if len(outcome.fds) < len(kept.names):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            fds = dict(zip(kept.names, outcome.fds, strict=True))
            process.keep(Copies(self._loop, fds))
        except BaseException:  # no descriptor is left: these are the next ones
            for fd in outcome.fds:
                with suppress(OSError):
                    os.close(fd)
            raise

    async def start(self, request: m.Named) -> m.Pid:
        """Let a process run."""
        task = self.tasks.get(request.id)
        process = task.process(request.exec_id)
        if process.busy or process.status != TaskStatus.CREATED:
            word = process.status.name.lower()
            raise Refused(Code.FAILED_PRECONDITION, f"cannot start a {word} process")
        process.busy = True
        try:
            if request.exec_id:
                await self._start_exec(task, process)
            else:
                await self._start_init(task, process)
        finally:
            self.exits.settled(task, process)
        return m.Pid(process.pid)

    async def _start_init(self, task: Task, process: Process) -> None:
        from runsc.shim import jobs  # noqa: PLC0415

        process.open_input()
        await self._work(jobs.start, task.settings, task.id)
        process.status = TaskStatus.RUNNING
        self._publisher.publish(m.TaskStart(task.id, process.pid))
        self.exits.watch_memory(task, jobs.store_of(task.settings).path(task.id, "control.sock"))

    async def _start_exec(self, task: Task, process: Process) -> None:
        from runsc.shim import jobs  # noqa: PLC0415

        try:
            task.require_running("exec")
            job = jobs.Exec(
                task.id, self._namespace, task.settings, process.streams, process.spec
            )
            self._take(process, await self._work(jobs.add, job))
            process.open_input()
        except BaseException:
            if process.pid:  # it runs already, and nobody would hear of it
                target = task.id, process.inner_pid
                with suppress(Refused):
                    await self._work(jobs.kill, task.settings, target, signal.SIGKILL)
            self.exits.kill(process)
            process.failed()
            raise
        process.status = TaskStatus.RUNNING
        self._publisher.publish(m.TaskExecStarted(task.id, process.exec_id, process.pid))

    async def delete(self, request: m.Named) -> m.Deleted:
        """Forget a process that has ended, or a container that has ended or never ran."""
        task = self.tasks.get(request.id)
        process = task.process(request.exec_id)
        if process.busy or process.status in (TaskStatus.RUNNING, TaskStatus.PAUSED):
            word = "paused" if process.status == TaskStatus.PAUSED else "running"
            raise Refused(Code.FAILED_PRECONDITION, f"cannot delete a {word} process")
        if request.exec_id:
            await self._drained(process)
            task.execs.pop(request.exec_id, None)
        else:
            await self._delete(task)
            await self._drained(process)
        process.forget()
        at = m.timestamp(process.exited_at_ns)
        if not request.exec_id:
            self.tasks.by_id.pop(task.id, None)
            self._publisher.publish(
                m.TaskDelete(task.id, process.pid, process.exit_status, at)
            )
            if self._is_over and not self.tasks.by_id:
                self.on_shutdown()
        return m.Deleted(process.pid, process.exit_status, at)

    async def _delete(self, task: Task) -> None:
        from runsc.shim import jobs  # noqa: PLC0415

        await self._work(jobs.delete, task.settings, task.id, task.bundle)
        await task.init.exited
        for each in task.execs.values():
            each.forget()

    async def _drained(self, process: Process) -> None:
        if process.copies is None or process.copies.ended.settled:
            return
        timer = self._loop.after(DRAIN_S, process.copies.finish)
        await process.copies.ended
        timer.cancel()

    async def exec(self, request: m.ExecProcess) -> Message:
        """Remember a process, which `start` adds."""
        task = self.tasks.get(request.id)
        if not request.exec_id:
            raise Refused(Code.INVALID_ARGUMENT, "a process needs a name")
        if request.exec_id in task.execs:
            raise Refused(Code.ALREADY_EXISTS, f"id {request.exec_id}")
        task.require_running("exec")
        streams = Streams(request.stdin, request.stdout, request.stderr, request.terminal)
        spec = request.spec.value if request.spec is not None else b""
        process = task.execs[request.exec_id] = Process(request.exec_id, streams, spec)
        process.status = TaskStatus.CREATED
        self._publisher.publish(m.TaskExecAdded(task.id, request.exec_id))
        return EMPTY

    async def kill(self, request: m.Kill) -> Message:
        """Send a signal."""
        from runsc.shim import jobs  # noqa: PLC0415

        task = self.tasks.get(request.id)
        process = task.process(request.exec_id)
        if process.status == TaskStatus.STOPPED:
            raise Refused(Code.NOT_FOUND, "process already finished")
        if not process.pid:
            raise Refused(Code.FAILED_PRECONDITION, "process not created")
        pid = 0 if request.all and not request.exec_id else process.inner_pid
        await self._work(jobs.kill, task.settings, (task.id, pid), request.signal)
        return EMPTY

    def kill_later(self, task: Task, seconds: float) -> Timer:
        """SIGKILL for it when the time is over; again as long as there is nobody yet who could be
        killed, or no worker for it."""

        async def kill() -> None:
            try:
                await self.kill(m.Kill(task.id, signal=signal.SIGKILL))
            except Refused:
                if not task.init.exited.settled:
                    self.kill_later(task, AGAIN_S)

        return self._loop.after(seconds, lambda: spawn(kill()))

    async def pause(self, request: m.Named) -> Message:
        """Hold all processes of a container."""
        from runsc.shim import jobs  # noqa: PLC0415

        task = self.tasks.get(request.id)
        task.require_running("pause a task")
        await self._work(jobs.pause, task.settings, task.id)
        if task.init.status == TaskStatus.RUNNING:
            task.init.status = TaskStatus.PAUSED
        self._publisher.publish(m.TaskPaused(task.id))
        return EMPTY

    async def resume(self, request: m.Named) -> Message:
        """Let them go on."""
        from runsc.shim import jobs  # noqa: PLC0415

        task = self.tasks.get(request.id)
        if task.init.status != TaskStatus.PAUSED:
            word = task.init.status.name.lower()
            raise Refused(Code.FAILED_PRECONDITION, f"cannot resume a {word} container")
        await self._work(jobs.resume, task.settings, task.id)
        if task.init.status == TaskStatus.PAUSED:
            task.init.status = TaskStatus.RUNNING
        self._publisher.publish(m.TaskResumed(task.id))
        return EMPTY

    async def update(self, request: m.Update) -> Message:
        """Other limits."""
        from runsc.shim import jobs  # noqa: PLC0415

        task = self.tasks.get(request.id)
        resources = request.resources.value if request.resources is not None else b"{}"
        await self._work(jobs.update, task.settings, task.id, resources)
        return EMPTY

    async def stats(self, request: m.Named) -> m.Stats:
        """What a container uses."""
        from runsc.shim import jobs  # noqa: PLC0415

        task = self.tasks.get(request.id)
        name, data = (await self._work(jobs.stats, task.settings, task.id)).value
        return m.Stats(m.Any(name, data))

    async def checkpoint(self, request: m.CheckpointTask) -> Message:
        """Write its state into a folder; it goes on, unless it is to end then."""
        from runsc.shim import jobs  # noqa: PLC0415

        task = self.tasks.get(request.id)
        if task.init.status != TaskStatus.PAUSED:  # as clients of containerd have it before
            task.require_running("checkpoint a task")
        ends = False
        if request.options is not None and request.options.value:
            ends = decode(m.CheckpointOptions, request.options.value).exit
        await self._work(jobs.checkpoint, task.settings, task.id, request.path, ends)
        self._publisher.publish(m.TaskCheckpointed(task.id, request.path))
        return EMPTY

    # what the shim knows by itself

    async def state(self, request: m.Named) -> m.State:
        """Of a process."""
        task = self.tasks.get(request.id)
        process = task.process(request.exec_id)
        streams = process.streams
        return m.State(
            id=request.exec_id or task.id,
            bundle=task.bundle,
            pid=process.pid,
            status=int(process.status),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
            exit_status=process.exit_status,
            exited_at=m.timestamp(process.exited_at_ns),
            exec_id=request.exec_id,
        )

    async def pids(self, request: m.Named) -> m.Pids:
        """The processes of the host that stand for those of a container.

        The first one also when it has ended: a containerd that is started again takes a shim
        without processes for one that was left over, and how the container ended would be lost.
        """
        task = self.tasks.get(request.id)
        return m.Pids(
            [
                m.ProcessInfo(
                    each.pid,
                    m.packed(DETAILS, m.ProcessDetails(each.exec_id)) if each.exec_id else None,
                )
                for each in task.processes()
                if each.pid and (each.alive or each is task.init)
            ]
        )

    async def wait(self, request: m.Named) -> m.Exited:
        """The end of a process."""
        process = self.tasks.get(request.id).process(request.exec_id)
        await process.exited
        return m.Exited(process.exit_status, m.timestamp(process.exited_at_ns))

    async def resize_pty(self, request: m.ResizePty) -> Message:
        """A terminal has a new size; a process without one does not mind."""
        process = self.tasks.get(request.id).process(request.exec_id)
        process.resize(request.width, request.height)
        return EMPTY

    async def close_io(self, request: m.CloseIO) -> Message:
        """Nothing more is written to standard input."""
        process = self.tasks.get(request.id).process(request.exec_id)
        if request.stdin:
            process.close_input()
        return EMPTY

    async def connect(self, request: m.Named) -> m.Connected:
        """Who answers."""
        task = self.tasks.by_id.get(request.id)
        return m.Connected(os.getpid(), task.init.pid if task is not None else 0, __version__)

    async def shutdown(self, request: m.Shutdown) -> Message:
        """End the shim, if it has no container any more; of a pod, when it has none."""
        self._is_over |= request.id == self.id and self.id not in self.tasks.by_id
        if not self.tasks.by_id:
            self.on_shutdown()
        return EMPTY
