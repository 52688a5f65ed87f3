"""`fork`: sandboxes that are copies of one that runs, with names of their own.

Each gets a state on disk, a control socket and an empty file for its memory here; its process is
made by the Sentry that it is a copy of (sentry.fork), in that one's namespaces. So it ends with it,
and has no stand-in and no Gofer of its own.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from runsc import host
from runsc.containers import asking, lifecycle
from runsc.containers.container import Store
from runsc.containers.listener import listen, send
from runsc.containers.processes import start_time
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from runsc.launch.configure import log_fd
from sentry.abi import mount
from sentry.abi.sched import CLONE_NEWNS
from sentry.control.protocol import (
    Event,
    ForkOrder,
    LineBuffer,
    Reply,
    Request,
    decode,
)

if TYPE_CHECKING:
    from runsc.options import Globals

ORIGIN: Final = "dev.runsc.fork-of"
"""Annotation of a fork: the container that it is a copy of."""
MAX_AT_ONCE: Final = 64
"""So many are asked for before the first is waited for."""
READY_S: Final = 30.0
UCRED: Final = struct.Struct("=iii")


class Fork:
    """One, from this side."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.report, self._theirs = socket.socketpair()
        self.report.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._lines = LineBuffer()
        self.events: set[str] = set()
        self.failure = ""

    def given(self) -> int:
        """The end that the child gets."""
        return self._theirs.fileno()

    def handed_over(self) -> None:
        self._theirs.close()

    def hear(self) -> None:
        """What the child says. Raises: RuntimeFailure when it has ended, or failed."""
        try:
            data, ancillary, _, _ = self.report.recvmsg(1 << 16, socket.CMSG_SPACE(UCRED.size))
            for line in self._lines.feed(data):
                event = decode(line, Event)
                self.events.add(event.event)
                if event.event == "error":
                    self.failure = event.message[:4096]
        except (OSError, ValueError):
            data, ancillary = b"", []
        if not data or self.failure:
            why = self.failure or "its process has ended"
            raise RuntimeFailure(f'cannot make "{self.state.id}": {why}')
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, _, _ = UCRED.unpack(payload[: UCRED.size])
                self.state.pid = self.state.sentry_pid = pid
                self.state.pid_start = self.state.sentry_start = start_time(pid)

    def go(self) -> None:
        """It counts its memory by a file that only we can open, which says "go". If it has ended,
        that is heard next."""
        with suppress(OSError), open(f"/proc/{self.state.pid}/statm", "rb", buffering=0) as file:
            socket.send_fds(self.report, [b"\0"], [file.fileno()])

    def close(self) -> None:
        self.report.close()
        self._theirs.close()

    def end(self) -> None:
        """Whatever it does."""
        if self.state.pid_start and start_time(self.state.pid) == self.state.pid_start:
            with suppress(ProcessLookupError):
                os.kill(self.state.pid, signal.SIGKILL)


def fork(
    flags: Globals, origin_id: str, names: Sequence[str], order: ForkOrder = ForkOrder(),  # noqa: B008  it is frozen
    *, foreground: bool = False,
) -> list[State]:  # fmt: skip
    """Make these; all of them or, with what went wrong, none. `foreground`: they are deleted when
    this process is no more.

    Raises: RuntimeFailure.
    """
    store = flags.store()
    origin = store.load(origin_id)
    lifecycle.require_running(origin)
    made: list[Fork] = []
    try:
        for first in range(0, len(names), MAX_AT_ONCE):
            some = names[first : first + MAX_AT_ONCE]
            _make_some(flags, origin, some, order, made, foreground)
    except BaseException:
        for each in made:
            each.end()
            with suppress(RuntimeFailure):
                lifecycle.destroy(store, each.state, flags.log.warning)
        raise
    finally:
        for each in made:
            each.close()
    return [each.state for each in made]


def _make_some(
    flags: Globals, origin: State, names: Sequence[str], order: ForkOrder, made: list[Fork],
    foreground: bool,
) -> None:  # fmt: skip
    store = flags.store()
    order = msgspec.structs.replace(order, own_log=flags.debug_log is not None)
    stats = lifecycle.ask(store, origin, Request("stats")).stats
    if stats is None:
        raise RuntimeFailure("the sandbox does not say how much memory it has")
    with ExitStack() as until_sent:
        files = memory_files(len(names), stats.memory_limit)
        for fd in files:
            until_sent.callback(os.close, fd)
        log, null = log_fd(flags, True), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        silent = os.pipe2(os.O_CLOEXEC)
        for fd in (log, null, *silent):
            until_sent.callback(os.close, fd)
        try:
            sock = socket.socket(fileno=asking.connect(store.path(origin.id, "control.sock")).detach())
        except OSError:
            raise RuntimeFailure(f'container "{origin.id}" is not running') from None
        until_sent.enter_context(sock)
        some = []
        for name, ram in zip(names, files, strict=True):
            state = _new_state(origin, name, foreground)
            store.create(state)
            each = Fork(state)
            made.append(each)
            some.append(each)
            with listen(store.path(name, "control.sock")) as listener:
                given = (ram, listener.fileno(), each.given(), log, null, *silent)
                send(sock, Request("fork", fork=order), given)
            each.handed_over()
        _bring_up(store, some, sock)


def _bring_up(store: Store, some: list[Fork], sock: socket.socket) -> None:
    """Until all say that they are ready. Raises: RuntimeFailure."""
    deadline = monotonic() + READY_S
    waiting = {each.report.fileno(): each for each in some}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    refusals = LineBuffer()
    poll.register(sock, select.POLLIN)
    while waiting:
        left_ms = int((deadline - monotonic()) * 1000)
        ready = poll.poll(max(left_ms, 0))
        if not ready:
            raise RuntimeFailure(f"forks were not ready after {READY_S:g} seconds")
        for fd, _ in ready:
            if fd == sock.fileno():
                _heed(sock, refusals)
                continue
            each = waiting[fd]
            began = "here" in each.events
            each.hear()
            if not began and "here" in each.events:
                each.state.phase = "running"
                store.save(each.state)
                each.go()
            if "ready" in each.events:
                poll.unregister(fd)
                del waiting[fd]


def _heed(sock: socket.socket, lines: LineBuffer) -> None:
    """The sandbox's own answers. Raises: RuntimeFailure."""
    data = sock.recv(1 << 16)
    if not data:
        raise RuntimeFailure("the sandbox has ended")
    try:
        errors = [decode(line, Reply).error for line in lines.feed(data)]
    except ValueError:
        raise RuntimeFailure("the sandbox said what is no answer") from None
    for error in filter(None, errors):
        raise RuntimeFailure(error)


def _new_state(origin: State, name: str, foreground: bool) -> State:
    return State(
        oci_version=origin.oci_version,
        id=name,
        bundle=origin.bundle,
        annotations={**origin.annotations, ORIGIN: origin.id},
        rootfs=origin.rootfs,
        foreground=foreground,
        creator_pid=os.getpid(),
        creator_start=start_time(os.getpid()),
        network=origin.network,
    )


def memory_files(count: int, size: int) -> list[int]:
    """Empty files for RAM, each of which holds so many bytes at most; pages of them are small, for
    a fork has few of its own.

    They lie on mounts that nobody sees, made by a process that ends. Raises: RuntimeFailure.
    """
    ours, theirs = socket.socketpair()

    def make() -> int:
        host.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        for _ in range(count):
            fd = isolation.open_ram(size, huge=False)
            socket.send_fds(theirs, [b"\0"], [fd])
            os.close(fd)
        return 0

    pid = isolation.spawn(make, CLONE_NEWNS)
    theirs.close()
    files: list[int] = []
    with ours:
        while len(files) < count:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if not fds:
                break
            files += fds
    os.waitpid(pid, 0)
    if len(files) < count:
        for fd in files:
            os.close(fd)
        raise RuntimeFailure("no files for the memory of forks could be made")
    return files
