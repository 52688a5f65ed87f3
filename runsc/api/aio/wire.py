"""A connection to a sandbox: its control socket (`sentry.control.protocol`), which is not trusted.

Each command and each order has its own; when it closes, what was asked for ends.
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from runsc.api.aio.poll import ready
from runsc.api.errors import SandboxEnded, SandboxError
from sentry.control.protocol import (
    CONTAINER,
    MAX_LINE,
    Event,
    LineBuffer,
    Reply,
    Request,
    decode,
    encode,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

CHUNK = 1 << 16
FULL_S = 0.002
"""Between two tries where more connect at once than the sandbox has taken up yet: unix(7), which
gives nothing to wait for."""
ANSWER_S = 120.0
"""How long a sandbox may take for what does not take long."""
NO_ANSWER = "the sandbox does not answer"


class AsyncWire:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._owner = os.getpid()
        self._lines = LineBuffer()
        self._waiting: deque[bytes] = deque()

    @classmethod
    async def connect(cls, path: str) -> AsyncWire:
        """To what listens there, by its folder: the path may be longer than a socket's may be.

        Raises: SandboxEnded, SandboxError.
        """
        try:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SandboxEnded("the sandbox has ended") from None
        try:
            return await cls._connected(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)

    @classmethod
    async def _connected(cls, path: str) -> AsyncWire:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            deadline = time.monotonic() + ANSWER_S
            while True:
                try:
                    sock.connect(path)
                    return cls(sock)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise SandboxError(NO_ANSWER) from None
                    await ready({}, FULL_S)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            raise SandboxEnded("the sandbox has ended") from None
        except BaseException:
            sock.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """To wait for."""
        return self._sock.fileno()

    def close(self) -> None:
        """What was asked for over it ends, also if a forked child has a copy: a child's own copy
        says nothing. Who waits for it, in another thread, does not any more."""
        if os.getpid() == self._owner:
            with suppress(OSError):  # it is closed, or the sandbox has ended
                self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    async def send(self, request: Request, fds: Sequence[int] = ()) -> None:
        """All of it; the descriptors go with its first byte.

        Raises: SandboxEnded; ValueError for what no sandbox would take.
        """
        await self.send_bytes(line_of(request), fds)

    async def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """The same of a line. Raises: SandboxEnded."""
        try:
            while data:
                try:
                    if fds:
                        sent = send_with(self._sock, data[:CHUNK], fds)
                    else:
                        sent = self._sock.send(data[:CHUNK], socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    if not await ready({self.fileno(): select.POLLOUT}, ANSWER_S):
                        raise SandboxError(NO_ANSWER) from None
                    continue
                data, fds = data[sent:], ()
        except (BrokenPipeError, ConnectionResetError):
            raise SandboxEnded("the sandbox has ended") from None

    def send_now(self, request: Request) -> None:
        """What is small, as far as it goes now."""
        with suppress(OSError):  # it is closed, or has ended
            self._sock.send(encode(request), socket.MSG_NOSIGNAL)

    @property
    def has_line(self) -> bool:
        """One has come along with another: there is nothing to wait for."""
        return bool(self._waiting)

    async def line(self, patience_s: float | None = ANSWER_S) -> bytes:
        """The next one; None: however long it takes. Raises: SandboxEnded, SandboxError."""
        deadline = math.inf if patience_s is None else time.monotonic() + patience_s
        while True:
            found = self.line_there()
            if found is not None:
                return found
            left_s = None if patience_s is None else max(0.0, deadline - time.monotonic())
            if not await ready({self.fileno(): select.POLLIN}, left_s):
                raise SandboxError(NO_ANSWER)

    def line_there(self) -> bytes | None:
        """One that has come; None: nothing more has. Raises: SandboxEnded, SandboxError."""
        if self._waiting:
            return self._waiting.popleft()
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            raise SandboxEnded("the sandbox has ended")
        try:
            self._waiting.extend(self._lines.feed(data))
        except ValueError as error:
            raise SandboxError(f"the sandbox said what is no message: {error}") from None
        return self._waiting.popleft() if self._waiting else None

    async def reply(self, patience_s: float | None = ANSWER_S) -> Reply:
        """The answer to what was sent. Raises: SandboxEnded, SandboxError."""
        return reply_of(await self.line(patience_s))


def send_with(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """As `socket.send_fds`, which heeds no flags: SIGPIPE may be fatal in the caller's program."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))
    return sock.sendmsg([data], [rights], socket.MSG_NOSIGNAL)


async def ask(
    path: str, request: Request, fds: Sequence[int] = (), patience_s: float | None = ANSWER_S
) -> Reply:
    """One question. Raises: SandboxEnded, SandboxError."""
    async with await AsyncWire.connect(path) as wire:
        await wire.send(request, fds)
        return await wire.reply(patience_s)


def line_of(request: Request) -> bytes:
    """What a caller asks for, looked at as the sandbox will: what is wrong is told of the caller.

    Raises: ValueError.
    """
    line = encode(request)
    if len(line) > MAX_LINE:
        raise ValueError(f"{len(line)} bytes are asked with, of {MAX_LINE} at most")
    try:
        decode(line, Request)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("no Request: ")) from None
    return line


def reply_of(line: bytes) -> Reply:
    """Raises: SandboxError."""
    try:
        return decode(line, Reply)
    except ValueError as error:
        raise SandboxError(f"the sandbox said what is no message: {error}") from None


def end_of(line: bytes) -> Event | None:
    """How a command has ended; None if that is something else.

    Raises: SandboxEnded if it has because the sandbox has; SandboxError.
    """
    if b'"event"' not in line:
        return None
    try:
        event = decode(line, Event)
    except ValueError as error:
        raise SandboxError(f"the sandbox said what is no message: {error}") from None
    if event.exceeded == CONTAINER:
        raise SandboxEnded("the sandbox has ended")
    return event if event.event == "exited" else None
