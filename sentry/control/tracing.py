"""Who listens to what happens in a sandbox that runs: `runsc trace create`, `delete`, `list`.

Descriptors that lead to listeners come with the request; they were connected outside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sentry.control.answers import TraceState, TraceTold
from sentry.control.descriptors import check, close_all, keeps_messages_apart
from sentry.control.observing import declarations
from sentry.control.protocol import DEFECT
from sentry.errors import EBUSY, EINVAL, Errno
from sentry.kernel.identity import child_identity, hears_fast_calls
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.config import TraceSession
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.watch.session import Watch

Done = Callable[[str], object]
"""Hears that it is done, or why not."""


def create(
    kernel: Kernel, session: TraceSession, fds: list[int], done: Done, *, force: bool
) -> None:
    """Begin a session. Raises: EBUSY, EEXIST, EINVAL, ENOSPC; `fds` belong to it from now on."""
    try:
        _check(session, fds)
        watch = _watch(kernel)
        watch.check(session, force=force)
        if watch.is_changing:
            raise EBUSY("somebody else is changing that just now")
    except Errno:
        close_all(fds)
        raise
    watch.is_changing = True

    def ended(_: object, error: BaseException | None) -> None:
        watch.is_changing = False
        if error is not None:
            close_all(fds)
        if error is not None and not isinstance(error, Errno):
            kernel.log.bug("trace", error)
            done(DEFECT)
        else:
            if error is None and session.ends_with_listeners:
                _end_with_listeners(kernel, watch, session.name)
            done(str(error) if error is not None else "")

    kernel.loop.spawn(driven(_create(kernel, watch, session, fds)), "trace", ended)


def _create(
    kernel: Kernel, watch: Watch, session: TraceSession, fds: list[int]
) -> Steps[None]:
    yield from declarations()
    yield from watch.create(session, fds)
    if hears_fast_calls():
        yield from every_task(kernel)


def _end_with_listeners(kernel: Kernel, watch: Watch, name: str) -> None:
    """A command that was killed cannot end the session that it has begun."""
    session = watch.sessions.get(name)
    if session is None:
        return

    def gone() -> None:
        if watch.sessions.get(name) is session and all(sink.is_gone for sink in session.sinks):
            delete(kernel, name)

    for sink in session.sinks:
        sink.when_gone(partial(kernel.loop.call_soon, gone))
    gone()


def delete(kernel: Kernel, name: str) -> None:
    """End a session. Raises: ENOENT."""
    fast = hears_fast_calls()
    _watch(kernel).delete(name)
    if fast and not hears_fast_calls():
        kernel.loop.spawn(driven(every_task(kernel)), "trace", lambda _result, _error: None)


def every_task(kernel: Kernel) -> Steps[None]:
    """The entry code answers what it may for each of them from now on; new ones are so already."""
    tasks: dict[int, Task] = kernel.pids.tasks
    for tid in list(tasks):
        task = tasks.get(tid)
        if task is not None and not task.dead:
            child_identity(task)
        yield


def sessions(kernel: Kernel) -> list[TraceState]:
    """Those that there are."""
    if kernel.watch is None:
        return []
    return [
        TraceState(
            session.name,
            [TraceTold(sink.name, sink.taken, sink.dropped) for sink in session.sinks],
        )
        for session in _watch(kernel).sessions.values()
    ]


def _watch(kernel: Kernel) -> Watch:
    if kernel.watch is None:
        from sentry.watch.session import Watch  # noqa: PLC0415  few are watched

        kernel.watch = Watch(kernel)
        egress: Any = kernel.first.net.stack.egress
        if egress is not None:
            kernel.watch.hear_egress(egress)
    return cast("Watch", kernel.watch)


def _check(session: TraceSession, fds: list[int]) -> None:
    """Each sink that has a descriptor has one of the right kind. Raises: EINVAL."""
    wanted = [sink for sink in session.sinks if sink.has_fd]
    if len(wanted) != len(fds):
        raise EINVAL("one descriptor for each sink that has one")
    for sink, fd in zip(wanted, fds, strict=True):
        check(fd)
        if sink.name == "null":
            raise EINVAL("a null sink has no descriptor")
        if sink.name == "remote" and not keeps_messages_apart(fd):
            raise EINVAL("a remote sink is a Unix socket of packets")

