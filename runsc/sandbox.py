"""Start a sandbox and stay with it to its end: the parent's side of runsc/boot.py.

Nothing of the sandbox outlives this process (PR_SET_PDEATHSIG in the children, and a janitor for
the state on disk), nor each other: the end of either child ends the other.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from runsc import boot, isolation
from runsc.convert import Export
from runsc.errors import RuntimeFailure
from sentry.config import SandboxConfig
from sentry.control.protocol import Event, LineBuffer, Request, decode, encode

GRACE_MS = 500
"""How long either process may take to end by itself once the other is gone."""


@dataclass(frozen=True)
class Programs:
    """The two bodies that the children run; tests put others in their place."""

    prepare: boot.Prepare
    serve: boot.Serve


def real_programs(platform: str) -> Programs:
    """The Sentry and the Gofer, imported before the fork so that starting them opens no file."""
    from gofer.main import run  # noqa: PLC0415
    from sentry.boot import preload, prepare  # noqa: PLC0415

    try:
        preload(platform)
    except RuntimeError as error:  # libunicorn is not there
        raise RuntimeFailure(str(error)) from None
    return Programs(prepare, run)


class Sandbox:
    """A running sandbox, seen from the process that started it."""

    def __init__(self, pid: int, gofer_pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.gofer_pid = gofer_pid
        self._control = control
        self._lines = LineBuffer()
        self._failure = ""

    def forward(self, number: int) -> None:
        """Send a signal to the container's first process. It may be gone; that is no error."""
        with suppress(OSError):
            self._control.send(encode(Request("kill", signal=number)), socket.MSG_NOSIGNAL)

    def wait(self, wakeup: socket.socket | None = None) -> int:
        """Stay until both children have ended; the exit code of the container.

        Bytes that come in on `wakeup` are numbers of signals to forward.
        Raises: RuntimeFailure if the container could not start or the sandbox broke.
        """
        sentry, gofer = os.pidfd_open(self.pid), os.pidfd_open(self.gofer_pid)
        poll = select.poll()
        for fd in (sentry, gofer, self._control.fileno(), wakeup.fileno() if wakeup else -1):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        ready: set[int] = set()
        try:
            while not ready & {sentry, gofer}:
                ready = {fd for fd, _ in poll.poll()}
                if wakeup is not None and wakeup.fileno() in ready:
                    for number in wakeup.recv(64):
                        self.forward(number)
                if self._control.fileno() in ready and not self._read_events():
                    poll.unregister(self._control.fileno())
            return self._reap(sentry, gofer)
        finally:
            os.close(sentry)
            os.close(gofer)

    def _read_events(self) -> bool:
        """What the Sentry says; False when it has closed its end."""
        try:
            data = self._control.recv(1 << 16, socket.MSG_DONTWAIT)
        except OSError:
            data = b""
        for line in self._lines.feed(data):
            event = decode(line, Event) if b'"event"' in line else None
            if event is not None and event.event == "error":
                self._failure = event.message
        return bool(data)

    def _reap(self, sentry: int, gofer: int) -> int:
        """Collect both, one of which has ended: the other sees its socket close, and ends too.

        Which one was the first does not show here, for descriptors close before a process can be
        waited for; how each ended does.
        """
        ended = _await_end(sentry, GRACE_MS)
        _await_end(gofer, GRACE_MS)
        status = os.waitpid(self.pid, 0)[1]
        gofer_status = os.waitpid(self.gofer_pid, 0)[1]
        self._read_events()
        self._control.close()
        if self._failure:
            raise RuntimeFailure(self._failure)
        if os.WIFSIGNALED(gofer_status) and not (ended and os.WIFSIGNALED(status)):
            how = _describe(gofer_status)
            raise RuntimeFailure(f"the gofer process {how}: the sandbox has ended")
        if os.WIFSIGNALED(status):
            raise RuntimeFailure(f"the sandbox process {_describe(status)}")
        return os.WEXITSTATUS(status)


def _await_end(pidfd: int, timeout_ms: int) -> bool:
    """Wait for the end of a process, and bring it about when the time is over (then False)."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(timeout_ms):
        return True
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return False


def _kill(pid: int) -> None:
    """Preconditions: the process is our child and not reaped."""
    os.kill(pid, signal.SIGKILL)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why = " (a system call that its filter forbids)" if number == signal.SIGSYS else ""
        return f"was killed by signal {number}{why}"
    return f"exited with {os.WEXITSTATUS(status)}"


def start(
    config: SandboxConfig,
    exports: Sequence[Export],
    programs: Programs,
    switches: boot.Switches,
) -> Sandbox:
    """Fork the Gofer and the Sentry. `config` lacks only the two sockets that are made here."""
    gofer_ours, gofer_theirs = socket.socketpair()
    control_ours, control_theirs = socket.socketpair()
    config = msgspec.structs.replace(
        config, gofer_fd=gofer_ours.fileno(), control_fd=control_theirs.fileno()
    )
    isolation.freeze_heap()
    pid = isolation.spawn(lambda: boot.sentry_main(config, programs.prepare, switches))
    served = gofer_theirs.fileno()
    try:
        gofer_pid = isolation.spawn(
            lambda: boot.gofer_main(served, exports, programs.serve, config.log_fd, switches)
        )
    except OSError:
        _kill(pid)
        os.waitpid(pid, 0)
        raise
    gofer_ours.close()
    gofer_theirs.close()
    control_theirs.close()
    return Sandbox(pid, gofer_pid, control_ours)
