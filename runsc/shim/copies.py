"""What the shim copies: input, the output of what `exec` adds, and all of a terminal.

A terminal's other side is in the sandbox: to the shim it is a descriptor that reads what the
program writes, and says EIO when nobody has that side open any more.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress

from runsc.shim.loop import READ, WRITE, Loop, Promise
from runsc.shim.streams import CONSOLE, ERR, ERRORS, IN, OUT, OUTPUT, TYPED, is_fifo, keep
from runsc.terminals import shown

CHUNK = 1 << 16
LEFT = 64
"""Pieces that are copied in the end: who goes on writing then keeps nobody else waiting."""


class OneWay:
    """Copies from a descriptor to another one; reads no more before what it has is written.

    Both are its own, and closed at the end.
    """

    def __init__(self, loop: Loop, source: int, sink: int, on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self._on_end = on_end
        self._data = b""
        for fd in (source, sink):
            os.set_blocking(fd, False)
        loop.watch(source, READ, self._read)

    def _read(self, _: int) -> None:
        try:
            data = shown(self._source, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.end()
            return
        self._data = data
        self._write(0)

    def _write(self, _: int) -> None:
        try:
            while self._data:
                self._data = self._data[os.write(self._sink, self._data) :]
        except BlockingIOError:
            self._loop.forget(self._source)
            self._loop.watch(self._sink, WRITE, self._write)
            return
        except OSError:
            self.end()
            return
        self._loop.forget(self._sink)
        self._loop.watch(self._source, READ, self._read)

    def finish(self) -> None:
        """No more is waited for: what is there is written, as far as it can be."""
        with suppress(OSError):
            for _ in range(LEFT):
                if os.write(self._sink, self._data) < len(self._data):
                    break
                self._data = shown(self._source, CHUNK)
                if not self._data:
                    break
        self.end()

    def end(self) -> None:
        """Close both."""
        for fd in (self._source, self._sink):
            self._loop.forget(fd)
            with suppress(OSError):
                os.close(fd)
        self._on_end()


class Copies:
    """The descriptors that the shim keeps for a process, and what it copies between them."""

    def __init__(self, loop: Loop, kept: Mapping[str, int]) -> None:
        self._loop = loop
        self._kept = dict(kept)
        self._keeper = -1
        """Keeps standard input from its end."""
        self._shown: set[OneWay] = set()
        self._typed: OneWay | None = None
        self._master = self._kept.pop(CONSOLE, -1)
        self.ended: Promise[None] = Promise()
        """Nothing more comes out of it."""
        for source, sink in ((OUT, OUTPUT), (ERR, ERRORS)):
            if source in self._kept:
                self._show(self._kept.pop(source), self._kept.pop(sink))
        if self._master >= 0:  # one descriptor has one watcher
            self._show(self._copy_of(self._master), self._kept.pop(OUTPUT))
        if not self._shown:
            self.ended.keep(None)

    def _copy_of(self, fd: int) -> int:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)

    def _show(self, source: int, sink: int) -> None:
        def ended() -> None:
            self._shown.discard(way)
            if not self._shown and not self.ended.settled:
                self.ended.keep(None)

        way = OneWay(self._loop, source, sink, ended)
        self._shown.add(way)

    def open_input(self, path: str) -> None:
        """From now on its standard input, at this path, is read; what is gone is empty."""
        if self._master < 0 and IN not in self._kept:
            return
        source = self._kept.pop(TYPED, -1)
        try:
            if path and is_fifo(path):
                fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._keeper = keep(path)
                if source >= 0:
                    os.close(source)
                source = fifo
        except OSError:
            pass
        sink = self._copy_of(self._master) if self._master >= 0 else self._kept.pop(IN)
        if source < 0:
            source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._type(source, sink)

    def _type(self, source: int, sink: int) -> None:
        def ended() -> None:
            self._typed = None

        try:
            self._typed = OneWay(self._loop, source, sink, ended)
        except PermissionError:  # epoll(7) of a regular file or /dev/null: nothing is typed
            os.close(source)
            os.close(sink)

    def resize(self, width: int, height: int) -> None:
        """The new size of the terminal, of which the host's kernel tells the sandbox."""
        if self._master >= 0:
            size = struct.pack("4H", height & 0xFFFF, width & 0xFFFF, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def close_input(self) -> None:
        """CloseIO: standard input ends where containerd's own end is closed."""
        fd, self._keeper = self._keeper, -1
        if fd >= 0:
            os.close(fd)

    def process_ended(self) -> None:
        """Readers find the end of what has been written."""
        self.close_input()
        if self._typed is not None:
            self._typed.end()
        for fd in self._kept.values():
            os.close(fd)
        self._kept.clear()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def finish(self) -> None:
        """Nobody waits any more for what others might still write."""
        for way in list(self._shown):
            way.finish()
