"""What looks at the calls of programs that run already: `runsc debug --strace`, `--log-level`.

An observer is put on every task, and on those that will be (`Kernel.start_observers`; children have
it from their parents). There may be thousands, so that goes in steps, over and over until no task
is left without. A call that began before is not shown.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.control.descriptors import MEMORY_DEVICES, check, close_all
from sentry.control.protocol import DEFECT
from sentry.errors import EBUSY, EINVAL, Errno
from sentry.kernel.identity import child_identity
from sentry.log import LogSink
from sentry.syscalls import index
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.control.orders import Trace
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Observer, Task

NULL: Final = 3
"""/dev/null's minor number: null(4)."""
NO_LOG: Final = "the sandbox was started without a log: name a file with --strace-log"
NO_DEBUG_LOG: Final = "the sandbox was started without a log: see --debug-log of `create` and `run`"
Done = Callable[[str], object]
"""Hears that it is done, or why not."""


class Observing:
    """Puts observers on and takes them off; one thing at a time."""

    def __init__(self, kernel: Kernel, log_fd: int, strace_fd: int) -> None:
        self._kernel = kernel
        self._log_fd = log_fd
        self._strace_fd = strace_fd
        self._busy = False
        self._own_fd = -1
        """Where the trace goes, if that came with a request."""

    def strace(self, trace: Trace, fds: list[int], done: Done) -> None:
        """Trace from now on (instead of what was traced before), or no more.

        Raises: EBUSY, EINVAL; `fds` are closed.
        """
        try:
            self._claim()
            for fd in fds:
                check(fd)
            if len(fds) > trace.on:
                raise EINVAL("one descriptor, to write to")
            if trace.on and not fds and self._strace_fd < 0 and _is_null(self._log_fd):
                raise EINVAL(NO_LOG)
        except Errno:
            close_all(fds)
            raise
        self._run(self._strace(trace, fds), done)

    def debug(self, *, on: bool, done: Done) -> None:
        """Count from now on what programs do not get, or tell it and count no more.

        Raises: EBUSY, EINVAL.
        """
        self._claim()
        if on and _is_null(self._log_fd):
            raise EINVAL(NO_DEBUG_LOG)
        self._run(self._debug(on=on), done)

    def _claim(self) -> None:
        if self._busy:
            raise EBUSY("somebody else is changing that just now")

    def _run(self, steps: Steps[None], done: Done) -> None:
        self._busy = True

        def ended(_: object, error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                self._kernel.log.bug("observing", error)
            done(DEFECT if error is not None else "")

        self._kernel.loop.spawn(driven(steps), "observing", ended)

    # --- strace

    def _strace(self, trace: Trace, fds: list[int]) -> Steps[None]:
        yield from self._take_off("Strace")
        if self._own_fd >= 0:
            self._kernel.loop.watch(self._own_fd, 0)
            close_all([self._own_fd])
        self._own_fd = -1
        if not trace.on:
            return
        yield from declarations()
        from sentry.syscalls.strace.families import NAMES, chosen  # noqa: PLC0415
        from sentry.syscalls.strace.log import Options, Strace  # noqa: PLC0415

        yield
        calls = chosen(trace.calls)
        if trace.others:
            calls = NAMES - calls
        self._own_fd = fds[0] if fds else -1
        plain = self._strace_fd if self._strace_fd >= 0 else self._log_fd
        loop = self._kernel.loop
        sink = LogSink(self._own_fd if fds else plain, loop)
        yield from self._put_on(Strace(sink, loop, Options(calls, times=True, limit=trace.limit)))

    # --- what programs do not get

    def _debug(self, *, on: bool) -> Steps[None]:
        yield from self._take_off("Refused")
        if not on:
            return
        yield from declarations()
        from sentry.syscalls.refused import Refused  # noqa: PLC0415

        yield
        yield from self._put_on(Refused(self._kernel.log.tell))

    # --- all tasks

    def _put_on(self, observer: Observer) -> Steps[None]:
        self._kernel.start_observers.append(observer)

        def put(task: Task) -> bool:
            if task.dead or observer in task.observers:
                return False
            task.observers.insert(0, observer)
            child_identity(task)
            return True

        yield from self._all(put)

    def _take_off(self, kind: str) -> Steps[None]:
        observers = self._kernel.start_observers
        found = [each for each in observers if type(each).__name__ == kind]
        for observer in found:
            observers.remove(observer)
            yield from self._all(partial(_without, observer))
            observer.flush()

    def _all(self, act: Callable[[Task], bool]) -> Steps[None]:
        """Until it has nothing more to do with any task."""
        tasks, changed = self._kernel.pids.tasks, True
        while changed:
            changed = False
            for tid in list(tasks):
                task = tasks.get(tid)
                if task is not None and act(task):
                    changed = True
                yield


def _without(observer: Observer, task: Task) -> bool:
    if observer not in task.observers:
        return False
    task.observers.remove(observer)
    if not task.dead:
        child_identity(task)
    return True


def declarations() -> Steps[None]:
    """Every declaration is imported: families of calls are made of them, and lines."""
    for module in index.MODULES:
        importlib.import_module(f"sentry.syscalls.{module}")
        yield


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
    return stat.S_ISCHR(status.st_mode) and numbers == (MEMORY_DEVICES, NULL)
