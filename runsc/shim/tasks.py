"""The containers of this shim and their processes, as it remembers them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from runsc.shim.copies import Copies
from runsc.shim.loop import Promise
from runsc.shim.messages import TaskStatus
from runsc.shim.options import Settings
from runsc.shim.streams import Streams
from runsc.shim.ttrpc import Code, Refused

KILLED = 128 + 9
FAILED = 255


class Process:
    """The first process of a container, or one that `exec` adds."""

    def __init__(self, exec_id: str, streams: Streams, spec: bytes = b"") -> None:
        self.exec_id = exec_id
        self.streams = streams
        self.spec = spec
        """Of `exec`: OCI's process as JSON."""
        self.pid = 0
        """On the host."""
        self.began = 0
        """When that started (`processes.began`): tells it from an earlier one with its number."""
        self.inner_pid = 1
        """As the container numbers it."""
        self.status = TaskStatus.UNKNOWN
        self.busy = False
        """It is being created or started: its end is told after that."""
        self.exit_status = 0
        self.exited_at_ns = 0
        self.copies: Copies | None = None
        """Once it has been created."""
        self._size: tuple[int, int] | None = None
        self._input_closed = False
        self.exited: Promise[None] = Promise()

    @property
    def alive(self) -> bool:
        """It has a process on the host, or will have."""
        return self.busy or self.status in (
            TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED
        )  # fmt: skip

    def keep(self, copies: Copies) -> None:
        """Its streams are there; what has been asked of them before is done now."""
        self.copies = copies
        if self._size is not None:
            self.resize(*self._size)

    def open_input(self) -> None:
        """It is being started: whoever asked for that knows of it, and may end its input."""
        if self.copies is None:
            return
        self.copies.open_input(self.streams.stdin)
        if self._input_closed:
            self.copies.close_input()

    def resize(self, width: int, height: int) -> None:
        """Its terminal, if it has one, has a new size."""
        self._size = (width, height)
        if self.copies is not None:
            with suppress(OSError):
                self.copies.resize(width, height)

    def close_input(self) -> None:
        """Nothing more is written to its standard input, which it may still be given."""
        self._input_closed = True
        if self.copies is not None:
            self.copies.close_input()

    def ended(self, code: int) -> None:
        """Remember how; who waits goes on."""
        self.status = TaskStatus.STOPPED
        self.exit_status = code
        self.exited_at_ns = time.time_ns()
        if self.copies is not None:
            self.copies.process_ended()
        self.exited.keep(None)

    def failed(self) -> None:
        """There will be none; who waits goes on."""
        self.status = TaskStatus.STOPPED
        self.exit_status = FAILED
        self.exited.keep(None)

    def forget(self) -> None:
        """Close what is open for it."""
        if self.copies is not None:
            self.copies.process_ended()
            self.copies.finish()


class Task:
    """A container."""

    def __init__(self, container_id: str, bundle: str, settings: Settings, init: Process) -> None:
        self.id = container_id
        self.bundle = bundle
        self.settings = settings
        self.init = init
        self.execs: dict[str, Process] = {}
        self.exit_code: int | None = None
        """Of the first process, where the end of the others is waited for."""
        self.oom_kills = 0
        """So many have been told."""

    def process(self, exec_id: str) -> Process:
        """Raises: Refused."""
        if not exec_id:
            return self.init
        found = self.execs.get(exec_id)
        if found is None:
            raise Refused(Code.NOT_FOUND, f"process does not exist {exec_id}")
        return found

    def processes(self) -> Iterator[Process]:
        """The first one is first."""
        yield self.init
        yield from self.execs.values()

    def require_running(self, what: str) -> None:
        """Raises: Refused."""
        word = self.init.status.name.lower()
        if self.init.status != TaskStatus.RUNNING:
            raise Refused(Code.FAILED_PRECONDITION, f"cannot {what} in a {word} state")


class Tasks:
    """All of them."""

    def __init__(self) -> None:
        self.by_id: dict[str, Task] = {}

    def get(self, container_id: str) -> Task:
        """Raises: Refused."""
        found = self.by_id.get(container_id)
        if found is None:
            raise Refused(Code.NOT_FOUND, "container not created")
        return found

    @property
    def busy(self) -> bool:
        """Something is being created or started."""
        return any(each.busy for task in self.by_id.values() for each in task.processes())

    def of_pid(self, pid: int) -> tuple[Task, Process] | None:
        """Whose process of the host this is."""
        for task in self.by_id.values():
            for process in task.processes():
                if process.pid == pid and process.status != TaskStatus.STOPPED:
                    return task, process
        return None
