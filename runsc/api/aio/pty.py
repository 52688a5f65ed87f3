"""Terminals in a sandbox: `sandbox.pty`."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from runsc.api.aio import files
from runsc.api.aio.commands import DRAINED, AsyncCommandHandle, close_all, start
from runsc.api.aio.poll import ready
from runsc.api.aio.streams import AsyncStream
from runsc.api.aio.wire import ANSWER_S, NO_ANSWER
from runsc.api.errors import SandboxError
from runsc.api.execspec import Command, Spec
from runsc.api.values import Limits, PathLike, Size
from sentry.control.protocol import Request
from sentry.fs.devpts.raw import raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHELL = "exec /bin/sh -i"
SIZE = Size()


class AsyncPtyHandle(AsyncCommandHandle):
    """A command at a terminal of its own. Iterated, it gives what is on the screen, as bytes."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.stdout

    async def _drain(self, stream: AsyncStream) -> None:
        """What was written to a terminal comes a moment later, and then the end: nobody inside has
        its other end any more."""
        for _ in range(DRAINED**2):
            if stream.fileno() < 0:
                break
            if self._take(stream) or stream.fileno() < 0:
                continue
            if not await ready({stream.fileno(): select.POLLIN}, ANSWER_S):
                raise SandboxError(NO_ANSWER)

    async def resize(self, size: Size) -> None:
        """The terminal has another size: its program hears of it."""
        if self.stdout.fileno() < 0:
            return
        set_size(self.stdout.fileno(), size)
        self._wire.send_now(Request("signal", signal=signal.SIGWINCH))


class AsyncPty:
    """Makes them."""

    def __init__(self, path: str, user: str | int | None) -> None:
        self._path = path
        """Of the control socket."""
        self._user = user

    async def create(
        self, cmd: Command = SHELL, *, size: Size = SIZE,
        on_data: Callable[[bytes], object] | None = None, timeout: float | None = None,
        cwd: PathLike | None = None, env: Mapping[str, str] | None = None,
        user: str | int | None = None, limits: Limits | None = None,
    ) -> AsyncPtyHandle:  # fmt: skip
        """Run a command (a shell) at a new terminal. What is typed is `send_stdin`; what is shown
        goes to `on_data` while somebody waits, or to who iterates the handle.

        Raises: CommandNotStarted, SandboxEnded.
        """
        spec = Spec(cmd, {"TERM": "xterm-256color", **(env or {})}, cwd, timeout, limits)
        found = await files.account(self._path, self._user if user is None else user)
        master, slave = os.openpty()
        ours = [master]
        try:
            ours.append(os.dup(master))
            set_size(slave, size)
            # before the sandbox does it: what is typed now is not echoed twice
            termios.tcsetattr(slave, termios.TCSANOW, raw(termios.tcgetattr(slave)))
            process = spec.process(found, terminal=True)
            wire, pid = await start(self._path, process, [slave] * 3)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all([slave])
        handle = AsyncPtyHandle(wire, spec, pid, (ours[1], master, -1))
        if on_data is not None:
            handle.hear_bytes(handle.stdout, on_data)
        return handle


def set_size(fd: int, size: Size) -> None:
    """Of a terminal: ioctl_tty(2). Raises: ValueError."""
    if not (0 <= size.rows < 1 << 16 and 0 <= size.cols < 1 << 16):
        raise ValueError(f"a terminal of {size.rows} rows and {size.cols} columns")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", size.rows, size.cols, 0, 0))
