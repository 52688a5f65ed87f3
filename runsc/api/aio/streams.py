"""What a command writes and reads: pipes between it and this process, with the host's bound.

Nothing is kept here but what a reader has asked for, so who does not read stops the program.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from runsc.api.aio.poll import ready
from runsc.api.aio.wire import NO_ANSWER
from runsc.api.errors import SandboxError
from runsc.terminals import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE = 1 << 20
PIPE_SIZE = 1 << 20
"""What an ordinary user may have: pipe(7), pipe-max-size."""


def pipe() -> tuple[int, int]:
    """Both ends; ours is made not to block by who uses it."""
    out, into = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):  # too many are that large: pipe-user-pages-soft
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return out, into


class AsyncStream:
    """What a command writes to standard output, to standard error, or to its terminal.

    Iterated, it gives bytes as they come, to the end.
    """

    def __init__(self, fd: int, took: Callable[[int], object]) -> None:
        self._fd = fd
        self._took = took
        self.is_claimed = False
        """Somebody reads it who is not `wait`."""
        if fd >= 0:
            os.set_blocking(fd, False)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.is_claimed = True
        return self

    async def __anext__(self) -> bytes:
        data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    async def read(self, size: int = PIECE, patience_s: float | None = None) -> bytes:
        """Some bytes, as soon as there are any; nothing at the end.

        Raises: SandboxError if there are none for so long.
        """
        self.is_claimed = True
        while True:
            data = self.take(size)
            if data is not None:
                return data
            if not await ready({self._fd: select.POLLIN}, patience_s):
                raise SandboxError(NO_ANSWER)

    async def lines(self) -> AsyncIterator[str]:
        """Text, line by line, without the ends of lines. A line of more than 1 MiB comes in
        pieces."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = bytearray()
        async for data in self:
            rest += data
            *whole, last = rest.split(b"\n")
            for line in whole:
                yield decoder.decode(line, final=True)
            rest = last
            if len(rest) > PIECE:
                yield decoder.decode(rest)
                rest = bytearray()
        if text := decoder.decode(rest, final=True):
            yield text

    def take(self, size: int = PIECE) -> bytes | None:
        """What is there; None: nothing yet; nothing (b""): it is over."""
        if self._fd < 0:
            return b""
        try:
            data = shown(self._fd, size)
        except BlockingIOError:
            return None
        if data:
            self._took(len(data))
        else:
            self.close()
        return data

    def fileno(self) -> int:
        """-1 at the end."""
        return self._fd

    def close(self) -> None:
        """Nobody reads it any more; the program hears of that when it writes."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _written(fd: int, data: bytes | memoryview) -> int:
    """write(2). Its SIGPIPE would be fatal in a program that has the host's default for that, and
    whether there is one the sandbox decides."""
    if signal.getsignal(signal.SIGPIPE) != signal.SIG_DFL:
        return os.write(fd, data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        if signal.SIGPIPE not in before:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class AsyncSink:
    """A command's standard input, or what is typed at its terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        if fd >= 0:
            os.set_blocking(fd, False)

    async def send(self, data: bytes, patience_s: float | None = None) -> None:
        """All of it, as fast as the program reads.

        Raises: BrokenPipeError if it does not any more, SandboxError if it takes none for so long.
        """
        left = memoryview(data)
        while left:
            done = self.give(left)
            if not done and not await ready({self._fd: select.POLLOUT}, patience_s):
                raise SandboxError(NO_ANSWER)
            left = left[done:]

    def give(self, data: bytes | memoryview) -> int:
        """As much as goes. Raises: BrokenPipeError."""
        if self._fd < 0:
            raise BrokenPipeError("standard input is closed")
        try:
            return _written(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:  # EIO of a terminal
            self.close()
            raise BrokenPipeError("the command does not read any more") from None

    def fileno(self) -> int:
        """-1 when it is closed."""
        return self._fd

    def close(self) -> None:
        """The program reads to the end."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()
