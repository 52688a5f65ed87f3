"""Processes of the host that end, and in which order that is told.

The end of a process is told after its start, and that of a container's first process after all
others: containerd, and those behind it, count on both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from signal import SIGKILL

from runsc.containers.processes import began
from runsc.shim.loop import Loop
from runsc.shim.messages import TaskExit, TaskOOM, TaskStatus, timestamp
from runsc.shim.oom import Watch
from runsc.shim.publisher import Publisher
from runsc.shim.tasks import Process, Task, Tasks

GRACE_S = 2.0
"""How long what `exec` has added may outlive a container's first process."""


def exit_code(status: int) -> int:
    """Of wait(2)'s: 128 + n for a death by signal n."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Exits:
    """What has ended."""

    def __init__(self, loop: Loop, tasks: Tasks, publisher: Publisher) -> None:
        self._loop, self._tasks, self._publisher = loop, tasks, publisher
        self._strays: dict[int, tuple[int, int]] = {}
        """pid → when it started, and status, while something is being started: it may be of that.
        Of several that have had a number the last one is."""
        self._watches: dict[str, Watch] = {}

    def reaped(self, pid: int, status: int) -> None:
        """A child of the shim has ended, and has its number still."""
        found = self._tasks.of_pid(pid)
        if found is not None and not found[1].busy:
            self._ended(*found, exit_code(status))
        elif self._tasks.busy:
            self._strays[pid] = (began(pid), status)

    def settled(self, task: Task, process: Process) -> None:
        """It has been created, or started, or that has failed: if it has ended it is told now."""
        process.busy = False
        if process.pid and self._has_ended(process):
            _, status = self._strays.pop(process.pid)
            self._ended(task, process, exit_code(status))
        elif task.exit_code is not None:
            self._init_may_end(task)
        if not self._tasks.busy:  # their numbers may be others' from now on
            self._strays.clear()

    def kill(self, process: Process) -> None:
        """One that is being started, and is not wanted any more, if it has not ended."""
        if process.pid and not self._has_ended(process):
            os.kill(process.pid, SIGKILL)

    def _has_ended(self, process: Process) -> bool:
        """Whether it was that, and not an earlier one with its number."""
        found = self._strays.get(process.pid)
        return found is not None and process.began in (0, found[0])

    def _ended(self, task: Task, process: Process, code: int) -> None:
        if process.status == TaskStatus.STOPPED:
            return
        if process is task.init:
            task.exit_code = code
            self._init_may_end(task)
            return
        process.ended(code)
        self._tell(task, process)
        if task.exit_code is not None:
            self._init_may_end(task)

    def _init_may_end(self, task: Task) -> None:
        if task.init.status == TaskStatus.STOPPED or task.exit_code is None:
            return
        late = [each for each in task.execs.values() if each.busy or _runs(each)]
        if late:
            self._loop.after(GRACE_S, lambda: self._kill(late))
            return
        self._tell_of_memory(task)
        task.init.ended(task.exit_code)
        self._tell(task, task.init)

    def _kill(self, processes: list[Process]) -> None:
        for each in processes:
            if _runs(each) and not each.busy:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, SIGKILL)

    def _tell(self, task: Task, process: Process) -> None:
        at = timestamp(process.exited_at_ns)
        name = process.exec_id or task.id
        self._publisher.publish(TaskExit(task.id, name, process.pid, process.exit_status, at))

    # memory that has run out

    def watch_memory(self, task: Task, path: str) -> None:
        """Tell of programs that are killed for it, from now on."""
        with suppress(OSError):
            self._watches[task.id] = Watch(self._loop, path, lambda: self._ran_out(task))

    def _ran_out(self, task: Task) -> None:
        task.oom_kills += 1
        self._publisher.publish(TaskOOM(task.id))

    def _tell_of_memory(self, task: Task) -> None:
        watch = self._watches.pop(task.id, None)
        if watch is None:
            return
        watch.finish()
        if not task.oom_kills:
            from runsc.shim.jobs import host_kills  # noqa: PLC0415  a file or two of /sys

            with suppress(Exception):
                if host_kills(task.settings, task.id):
                    self._ran_out(task)


def _runs(process: Process) -> bool:
    return process.status == TaskStatus.RUNNING
