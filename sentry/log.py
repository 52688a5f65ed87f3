"""`LogSink`: text out of the sandbox that never makes the kernel thread wait. `KernelLog`: the
kernel's own messages, of which a program can cause only so many.

A descriptor may be a pipe whose reader is slow, so writes go through a bounded buffer: what does
not fit is dropped and counted, and the count is written where the gap is. The descriptor's flags
are not changed (it may be the caller's own); a pipe is written when it is ready, and then at most
PIPE_BUF bytes, which cannot block: pipe(7).
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from sentry.abi.limits import PIPE_BUF
from sentry.log_rate import Rate
from sentry.tracebacks import text_of

MAX_BUFFERED: Final = 1 << 20
FLUSH_TRIES: Final = 256


class LogSink:
    """Where messages or traces go. `loop` watches the descriptor; without one a write is tried."""

    def __init__(self, fd: int, loop: Any = None, limit: int = MAX_BUFFERED) -> None:
        self._fd = fd
        self._loop = loop
        self._limit = limit
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._watching = False
        self._missing = 0
        self._torn = b""
        """What ends a line of which a disk has taken only a part."""
        self.dropped = 0
        """Messages that were lost because nobody read fast enough, or the disk was full."""
        mode = os.fstat(fd).st_mode
        self._is_terminal = stat.S_ISCHR(mode) and os.isatty(fd)
        self._never_blocks = stat.S_ISREG(mode) or (
            stat.S_ISCHR(mode) and not self._is_terminal
        )

    def write(self, text: str) -> None:
        """Take a message (with its newline), or drop it."""
        data = text.encode(errors="backslashreplace")
        if self._is_terminal:  # which may be raw: the wire behind the container's own
            data = data.replace(b"\n", b"\r\n")
        if self._never_blocks:
            self._put_at_once(data)
            return
        if self._size + len(data) > self._limit:
            self.dropped += 1
            self._missing += 1
            return
        data = self._gap() + data
        self._missing = 0
        self._parts.append(data)
        self._size += len(data)
        if self._loop is None:
            self._drain(self._is_ready)
        elif not self._watching:
            self._watching = True
            self._loop.watch(self._fd, select.EPOLLOUT, self._ready)

    def _gap(self) -> bytes:
        return b"[%d messages lost]\n" % self._missing if self._missing else b""

    def _put_at_once(self, data: bytes) -> None:
        """A disk that is full takes a part or nothing, and later more."""
        before = self._torn + self._gap()
        try:
            done = os.write(self._fd, before + data)
        except OSError:
            done = 0
        if done >= len(before):
            self._missing = 0
        if done < len(before) + len(data):
            self._missing += 1
            self.dropped += 1
            self._torn = b"\n" if done else self._torn
        else:
            self._torn = b""

    def flush(self) -> None:
        """Write what is left, as far as the reader takes it: for the end of the sandbox."""
        self._drain(self._is_ready)

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self._forget()
        elif self._parts:
            self._write_one()
        if not self._parts and self._watching:
            self._watching = False
            self._loop.watch(self._fd, 0)

    def _drain(self, ready: Callable[[], bool]) -> None:
        for _ in range(FLUSH_TRIES):
            if not self._parts or not ready():
                break
            self._write_one()

    def _write_one(self) -> None:
        chunk = b""
        while self._parts and len(chunk) < PIPE_BUF:
            chunk += self._parts.popleft()
        rest = chunk[PIPE_BUF:]
        if rest:
            self._parts.appendleft(rest)
        self._size -= min(len(chunk), PIPE_BUF)
        self._put(chunk[:PIPE_BUF])

    def _put(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except OSError:  # the reader is gone: nobody is left who wants to know
            self.dropped += 1

    def _forget(self) -> None:
        self.dropped += len(self._parts)
        self._parts.clear()
        self._size = 0


class KernelLog(LogSink):
    """The kernel's own messages; nobody is kept waiting by whoever reads them."""

    def __init__(self, fd: int, loop: Any = None, rate: Rate | None = None) -> None:
        super().__init__(fd, loop)
        self._rate = rate if rate is not None else Rate()
        self._untold = 0
        self.left_out = 0
        """Messages that were too many."""
        self.bugs = 0
        """Defects of ours that a program has met."""

    def write(self, text: str) -> None:
        """Take a message, unless there were too many: those are counted."""
        if self._rate.spent:
            self._leave_out()
            return
        self._tell_untold()
        self._rate.take(len(text))
        super().write(text)

    def bug(self, what: object, error: BaseException) -> None:
        """A traceback of a defect of ours."""
        self.bugs += 1
        if self._rate.spent:  # it takes a millisecond to make one
            self._leave_out()
        else:
            self.write(f"BUG in {what}: {text_of(error)}")

    def tell(self, report: str) -> None:
        """What is told once, whatever was before."""
        super().write(report)

    def finish(self) -> None:
        """The sandbox is over: how much there was of what was left out."""
        self._tell_untold()
        if self.bugs:
            self.tell(f"BUG: {self.bugs} exceptions of the Sentry itself\n")
        self.flush()

    def _leave_out(self) -> None:
        self.left_out += 1
        self._untold += 1

    def _tell_untold(self) -> None:
        if self._untold:
            super().write(f"[{self._untold} messages left out: too many]\n")
            self._untold = 0
