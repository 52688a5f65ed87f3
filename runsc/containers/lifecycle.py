"""What happens to a container that is there: started, signalled, destroyed, swept up.

`launch` makes it. Everything here works from the state on disk and the control socket.
"""

from __future__ import annotations

import math
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from runsc.containers import listener
from runsc.containers.container import State, Store, status
from runsc.containers.processes import STOPPED, start_time
from runsc.errors import NoContainer, NotRunning, RuntimeFailure
from sentry.control.protocol import Reply, Request

if TYPE_CHECKING:
    from runsc.oci.hooks import StateDocument

Warn = Callable[[str], None]

ANSWER_S = 30.0
"""How long a sandbox may take to answer; it may have to be read back from swap."""
KILL_ANSWER_S = 2.0
"""The same for SIGKILL, which comes from the host afterwards."""
END_MS = 10_000
"""How long a killed process may take to be gone."""


def document(state: State, word: str) -> StateDocument:
    """What a hook reads."""
    from runsc.oci.hooks import StateDocument  # noqa: PLC0415  few containers have hooks

    return StateDocument(
        state.oci_version, state.id, word, state.bundle, state.pid, state.annotations
    )


def ask(
    store: Store,
    state: State,
    request: Request,
    patience_s: float = ANSWER_S,
    fds: Sequence[int] = (),
) -> Reply:
    """A question to the sandbox, with these descriptors.

    Raises: NotRunning, RuntimeFailure when it does not answer.
    """
    try:
        return listener.ask(store.path(state.id, "control.sock"), request, patience_s, fds)
    except TimeoutError:
        raise RuntimeFailure(f'the sandbox of container "{state.id}" does not answer') from None
    except (OSError, ValueError):
        raise NotRunning(state.id) from None


def wait(store: Store, container_id: str, pid: int) -> int:
    """The wait(2) status of a process of the container, once it has ended.

    SIGKILL if the sandbox is killed meanwhile: nobody is left then who could tell.
    Raises: RuntimeFailure.
    """
    state = store.load(container_id)
    require_running(state)
    try:
        sock = listener.connect(store.path(container_id, "control.sock"))
    except OSError:
        raise NotRunning(container_id) from None
    with sock:
        try:
            reply = listener.ask_over(sock, Request("wait", pid=pid), math.inf)
        except (OSError, ValueError):
            return signal.SIGKILL
    if reply.error:
        raise RuntimeFailure(f"waiting for process {pid} of \"{container_id}\": {reply.error}")
    return reply.wait_status


def require_running(state: State) -> None:
    """Raises: NotRunning."""
    if status(state) == STOPPED:
        raise NotRunning(state.id)


def start(store: Store, container_id: str) -> None:
    """Let the first process of a created container run. Raises: RuntimeFailure."""
    with store.held(container_id) as state:
        match status(state):
            case "created":
                pass
            case "stopped":
                raise RuntimeFailure(f'cannot start a container that has stopped: "{container_id}"')
            case "running":
                raise RuntimeFailure(f'cannot start an already running container: "{container_id}"')
            case word:
                raise RuntimeFailure(f'cannot start a container that is {word}: "{container_id}"')
        before_start(store, state)
        reply = ask(store, state, Request("start"))
        state.phase = "running"
        store.save(state)
        if reply.error:
            raise RuntimeFailure(reply.error)
        after_start(state)


def before_start(store: Store, state: State) -> None:
    """The startContainer hooks. Raises: RuntimeFailure; then the container has been ended."""
    if state.hooks is None or not state.hooks.start_container:
        return
    from runsc.containers import start_hooks  # noqa: PLC0415  few containers have hooks

    try:
        start_hooks.run(store, state)
    except BaseException:
        for pidfd in _kill(state):
            _await_end(pidfd)
        raise


def after_start(state: State) -> None:
    """The poststart hooks. Raises: RuntimeFailure; then, as with runc, the container has ended."""
    if state.hooks is None:
        return
    from runsc.oci import hooks  # noqa: PLC0415  few containers have hooks

    try:
        hooks.run(state.hooks, hooks.Phase.POSTSTART, document(state, "running"))
    except BaseException:
        for pidfd in _kill(state):
            _await_end(pidfd)
        raise


def kill(store: Store, container_id: str, number: int, everyone: bool, pid: int = 1) -> None:
    """Send a signal to a process, usually the first, or to all. Raises: RuntimeFailure."""
    state = store.load(container_id)
    if everyone and status(state) == STOPPED:
        return
    require_running(state)
    request = Request("kill", signal=number, pid=pid, all=everyone)
    if number != signal.SIGKILL or pid != 1:
        reply = ask(store, state, request)
        if reply.error:
            raise RuntimeFailure(f'{reply.error}: "{container_id}"')
        return
    try:
        if not ask(store, state, request, KILL_ANSWER_S).error:
            return
    except RuntimeFailure:  # it hangs, or is just ending
        pass
    for pidfd in _kill(state):
        os.close(pidfd)


def pause(store: Store, container_id: str) -> None:
    """Hold all processes. Raises: RuntimeFailure."""
    with store.held(container_id) as state:
        if status(state) not in ("created", "running"):
            raise NotRunning(container_id)
        _settle(store, state, Request("pause"), paused=True)


def resume(store: Store, container_id: str) -> None:
    """Let them go on. Raises: RuntimeFailure."""
    with store.held(container_id) as state:
        if status(state) != "paused":
            raise RuntimeFailure(f'container not paused: "{container_id}"')
        _settle(store, state, Request("resume"), paused=False)


def _settle(store: Store, state: State, request: Request, *, paused: bool) -> None:
    """The sandbox knows what is true: it may be so already, and the state only not say it."""
    reply = ask(store, state, request)
    if reply.error:
        word = ask(store, state, Request("state")).status
        if (word == "paused") != paused:
            raise RuntimeFailure(f'{reply.error}: "{state.id}"')
    state.paused = paused
    store.save(state)


def destroy(store: Store, state: State, warn: Warn) -> None:
    """End a container and remove everything that is known of it; what is gone is no error.

    Raises: RuntimeFailure when something stays: then the state stays too.
    """
    victims = _kill(state)
    cgroup = None
    if state.cgroups.directories:
        from runsc.cgroups.recorded import of  # noqa: PLC0415  few containers have one

        cgroup = of(state.cgroups)
        cgroup.kill()
    for pidfd in victims:
        _await_end(pidfd)
    if cgroup is not None:
        cgroup.delete()
    store.remove(state.id)
    if state.hooks is not None:
        from runsc.oci import hooks  # noqa: PLC0415

        state.pid = 0
        hooks.run_all(state.hooks, hooks.Phase.POSTSTOP, document(state, STOPPED), warn)


def delete(store: Store, container_id: str, force: bool, warn: Warn) -> None:
    """`delete`: what has stopped or never started; with `force` whatever there is."""
    try:
        with store.held(container_id) as state:
            word = status(state)
            if not force and word not in (STOPPED, "created"):
                raise RuntimeFailure(
                    f'cannot delete container "{container_id}" that is not stopped: {word}'
                )
            destroy(store, state, warn)
    except NoContainer:
        if not force:
            raise
        store.forget_remains(container_id)


def sweep(store: Store, warn: Warn) -> None:
    """Destroy what a killed `run` left behind: nobody else will."""
    for state in store.all():
        alive = start_time(state.creator_pid) == state.creator_start != 0
        if state.foreground and not alive:
            with suppress(RuntimeFailure):
                destroy(store, state, warn)


def _kill(state: State) -> list[int]:
    """All its processes; pidfds of those that there are."""
    processes = (
        (state.sentry_pid, state.sentry_start),
        (state.gofer_pid, state.gofer_start),
        (state.pid, state.pid_start),
    )
    found = [_signal(pid, start, signal.SIGKILL) for pid, start in processes if pid]
    return [pidfd for pidfd in found if pidfd >= 0]


def _signal(pid: int, started: int, number: int) -> int:
    """Signal a process if it is still that one. Gives a pidfd to wait on, -1 if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    if start_time(pid) != started or not started:
        os.close(pidfd)
        return -1
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
    return pidfd


def _await_end(pidfd: int) -> None:
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(END_MS):
            raise RuntimeFailure("container init still running")
    finally:
        os.close(pidfd)
