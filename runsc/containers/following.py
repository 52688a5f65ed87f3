"""A session of points of one's own, for as long as somebody looks: `trace watch`, `report`."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from math import inf
from typing import NamedTuple

from runsc.containers import lifecycle, listener, signals
from runsc.containers.asking import LONGEST_S
from runsc.containers.container import Store
from runsc.containers.sampling import Sampler, kept
from runsc.containers.state import State
from runsc.containers.watching import MAGIC, framed, received
from runsc.errors import RuntimeFailure
from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.control.protocol import Request

WATCHED = (
    "container/start", "sentry/clone", "sentry/execve", "sentry/exit_notify_parent",
    "sentry/out_of_memory", "sentry/egress_denied", "sentry/egress_allowed", "sentry/dns_answer",
    "sentry/policy",
    "syscall/openat/exit", "syscall/open/exit",
    "syscall/connect/exit", "syscall/accept4/exit", "syscall/bind/exit",
)  # fmt: skip
"""What is listened to if nothing else is said."""
KEPT = (*WATCHED, "sentry/task_exit")
"""The same for a report: of a container's first process it is the end."""
LEFT = 10_000
"""Records that may wait to be told when it ends."""
CONTEXT = ("time", "thread_id", "group_id", "container_id", "process_name")


class Session(NamedTuple):
    """One that runs."""

    sock: socket.socket
    """Where the records come, over gVisor's wire."""
    stop: socket.socket
    """Where there is something to read once a signal has come."""


@contextmanager
def watched(store: Store, state: State, points: tuple[str, ...]) -> Iterator[Session]:
    """From now on signals are caught; with the block the session ends.

    Raises: RuntimeFailure, OSError.
    """
    named = tuple(TracePoint(name, (), CONTEXT) for name in points)
    name = f"watch-{os.getpid()}-{os.urandom(4).hex()}"  # a number may be another's, too
    session = TraceSession(
        name, named, (TraceSink("remote", has_fd=True),), ignore_missing=True,
        ends_with_listeners=True,
    )  # fmt: skip
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, signals.catch(as_program=False) as stop:
        try:
            request = Request("trace", session=session)
            reply = lifecycle.ask(store, state, request, fds=(theirs.fileno(),))
        finally:
            theirs.close()
        if reply.error:
            raise RuntimeFailure(f'{reply.error}: "{state.id}"')
        try:
            yield Session(ours, stop)
        finally:
            with suppress(RuntimeFailure, OSError):
                lifecycle.ask(store, state, Request("untrace", name=name))


def followed(
    store: Store, state: State, session: Session, *, sampled: bool, time_s: float = inf
) -> Generator[bytes, None, None]:
    """The records, to a signal, the end of the sandbox, or of the time. `sampled`: the sandbox's
    figures are among them. Raises: OSError, ValueError.
    """
    sampler = None
    try:
        if sampled:
            with suppress(OSError):
                path = store.path(state.id, "control.sock")
                sampler = Sampler(listener.connect(path))
        yield from _until(session, sampler, time_s)
    finally:
        if sampler is not None:
            sampler.close()


@contextmanager
def recording(path: str | None) -> Iterator[Callable[[bytes], object]]:
    """What writes messages into a file that nobody else reads, or nowhere. Raises: OSError."""
    if path is None:
        yield lambda _: None
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(MAGIC)
        yield lambda data: file.write(framed(data))


def _until(session: Session, sampler: Sampler | None, time_s: float) -> Iterator[bytes]:
    sock, stop = session.sock, session.stop.fileno()
    messages = received(sock)
    deadline = time.monotonic() + time_s
    poll = select.poll()
    poll.register(stop, select.POLLIN)
    poll.register(sock, select.POLLIN)
    if sampler is not None:
        poll.register(sampler, select.POLLIN)
    while True:
        until = min(deadline, sampler.due if sampler is not None else inf)
        left_s = max(0.0, until - time.monotonic())
        wait_ms = None if left_s == inf else min(left_s, LONGEST_S) * 1000
        ready = {fd for fd, _ in poll.poll(wait_ms)}
        if stop in ready or time.monotonic() >= deadline:
            sock.setblocking(False)
            with suppress(BlockingIOError):  # what has come before is told
                yield from islice(messages, LEFT)
            return
        if sampler is not None:
            sampler.tick()
            if sampler.fileno() in ready:
                yield from kept(sampler.hear())
            if sampler.is_over:
                poll.unregister(sampler)
                sampler = None
        if sock.fileno() in ready:
            data = next(messages, None)
            if data is None:
                return
            yield data
