"""`rollback`: a fork of a template goes on in the place of the container that it is a template of.

The container's name, its state on disk and who waits for its end stay what they are; what changes
is who listens at its control socket. The first process of a sandbox cannot end before all its forks
have (`sentry.fork.succession`): it stays, and hears of the next successor at a socket of another
name. A fork is ended.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from runsc.containers import lifecycle, listener
from runsc.containers.state import ORIGIN, TEMPLATE
from runsc.errors import NotRunning, RuntimeFailure
from runsc.launch import forked_networks
from runsc.launch.forking import Fork, Origin, Supply
from sentry.control.orders import ForkOrder
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.containers.state import State

HEARD: Final = "control.sock"
NEXT: Final = "next.sock"
FIRST: Final = "first.sock"
"""Where the first process of a sandbox hears once another one has its place."""
GIVES_WAY_S: Final = 30.0
"""More than it may take until another one is gone."""


def roll_back(
    store: Store, container_id: str, template: Origin, supply: Supply | None = None
) -> State:
    """The container goes on from where it was when the template was made of it. Its state.

    `supply`: of files for its memory.

    Raises: RuntimeFailure. Until its own process gives way, to one whose machine is made, nothing
    has happened to the container; what goes wrong afterwards ends it.
    """
    with store.held(container_id) as state:
        lifecycle.require_running(state)
        annotations = template.state.annotations
        if annotations.get(TEMPLATE) != "true" or annotations.get(ORIGIN) != container_id:
            raise RuntimeFailure(f'"{template.state.id}" is no template of "{container_id}"')
        now = lifecycle.ask(store, state, Request("decided"))
        if now.decided is None:
            raise RuntimeFailure(now.error or "the sandbox does not say what was decided about it")
        is_fork = ORIGIN in state.annotations
        take_place = _from_fork if is_fork else _from_first
        order = ForkOrder(
            expires_ns=now.expires_ns, forkable=True, succeeds=not is_fork, decided=now.decided
        )
        with ExitStack() as closing:
            place, theirs = (closing.enter_context(sock) for sock in socket.socketpair())
            own = store.load(container_id)
            own.pid = own.pid_start = 0  # it has no process yet
            made = Fork(own, lambda: take_place(store, state, made, theirs), "made")
            made.network, made.lasts = forked_networks.of(state), True
            closing.callback(made.close)
            with suppress(FileNotFoundError):  # of a command that was killed
                os.unlink(store.path(container_id, NEXT))
            try:
                more = () if is_fork else (place.fileno(),)
                template.make([made], order, NEXT, more, supply or Supply(huge=True))
            except BaseException:
                made.end()
                with suppress(FileNotFoundError):
                    os.unlink(store.path(container_id, NEXT))
                raise
        if state.paused:
            state.paused = False
            store.save(state)
        return state


def _from_first(store: Store, state: State, _: Fork, theirs: socket.socket) -> None:
    """The first process of the sandbox, which follows whoever has the other end from now on."""
    first = store.path(state.id, FIRST)
    heard = store.path(state.id, HEARD)
    at = first if os.path.exists(first) else heard
    try:
        reply = listener.ask(at, Request("succeed"), GIVES_WAY_S, (theirs.fileno(),))
    except TimeoutError:
        raise RuntimeFailure(f'the sandbox of "{state.id}" does not give way') from None
    except (OSError, ValueError):
        raise NotRunning(state.id) from None
    if reply.error:
        raise RuntimeFailure(reply.error)
    theirs.close()
    if at == heard:
        os.rename(heard, first)
    os.rename(store.path(state.id, NEXT), heard)


def _from_fork(store: Store, state: State, made: Fork, _: socket.socket) -> None:
    """A fork, which ends."""
    lifecycle.end_processes(state)
    os.rename(store.path(state.id, NEXT), store.path(state.id, HEARD))
    state.pid = state.sentry_pid = made.state.pid
    state.pid_start = state.sentry_start = made.state.pid_start
    store.save(state)
