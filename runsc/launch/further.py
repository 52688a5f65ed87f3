"""Containers that belong to a sandbox which runs: made, and stayed with."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING

import msgspec

from runsc.containers import console, lifecycle, signals
from runsc.containers.processes import write_pid_file
from runsc.errors import RuntimeFailure
from runsc.launch import around, boot, stand_in
from runsc.launch.adding import Further
from runsc.launch.janitor import keep_clean
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.containers.state import State
    from runsc.launch.configure import Wishes
    from runsc.launch.joining import Joint
    from runsc.oci.convert import Container
    from runsc.options import Globals


def create(
    flags: Globals,
    store: Store,
    state: State,
    container: Container,
    wishes: Wishes,
    joint: Joint,
) -> None:
    """Make it; it waits for `start`, and outlives this process. Holds its lock.

    Raises: RuntimeFailure.
    """
    further = Further(flags, store, state, container, wishes, joint)
    further.bring_up()
    try:
        state.phase = "created"
        store.save(state)
        if wishes.pid_file is not None:
            write_pid_file(wishes.pid_file, state.pid)
    except BaseException:
        further.end()
        raise


def stay(
    flags: Globals,
    store: Store,
    state: State,
    container: Container,
    wishes: Wishes,
    joint: Joint,
    until_begun: ExitStack,
) -> int:
    """Make it, start it, and wait for its end. Gives its exit code. Holds it until it runs."""
    terminal = console.settings_kept(0) if container.process.terminal else nullcontext()
    relay = around.relay_for(container)
    if relay is not None:
        wishes = msgspec.structs.replace(wishes, wire=relay.slave)
    further = Further(flags, store, state, container, wishes, joint)
    with terminal as settings:
        further.bring_up()
        if relay is not None:
            relay.handed_over()
        try:
            wakeup = signals.catch(as_program=False)
            with keep_clean(store, state, flags.log, settings):
                state.phase = "running"
                store.save(state)
                if wishes.pid_file is not None:
                    write_pid_file(wishes.pid_file, state.pid)
                until_begun.close()
                lifecycle.before_start(store, state)
                lifecycle.ask(store, state, Request("start"))
                lifecycle.after_start(state)
                if wishes.when_there is not None:
                    wishes.when_there(state)
                assert further.standing is not None
                if relay is None:
                    return _wait(further.standing, wakeup, _forwarder(store, state))
                relay.start()
                code = _wait(further.standing, wakeup, _forwarder(store, state, relay.resize))
                relay.finish()
                return code
        finally:
            further.end()


def _forwarder(
    store: Store, state: State, resize: Callable[[], None] | None = None
) -> Callable[[int], None]:
    """Signals of this process for the container's first one. It may be gone; that is no error."""

    def forward(number: int) -> None:
        request = Request("kill", signal=number)
        if number == signal.SIGWINCH:
            if resize is not None:
                return resize()
            request = Request("resize")
        with suppress(RuntimeFailure):
            lifecycle.ask(store, state, request, lifecycle.KILL_ANSWER_S)

    return forward


def _wait(
    standing: stand_in.StandIn, wakeup: socket.socket, forward: Callable[[int], None]
) -> int:
    pidfd = os.pidfd_open(standing.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(wakeup.fileno(), select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wakeup.fileno() in ready:
                for number in wakeup.recv(64):
                    forward(number)
            if pidfd in ready:
                return boot.exit_code(standing.reap())
    finally:
        os.close(pidfd)
