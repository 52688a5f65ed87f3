"""`Console`: the container's terminal, between a pseudo-terminal of ours and one of the host.

With process.terminal the program gets a pseudo-terminal of the Sentry: its line discipline, job
control and signals are ours, as in every other one. The host's terminal becomes the wire: raw, what
comes from it is typed, what is on our screen is written to it. Its settings come back at the end.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_RDWR
from sentry.abi.ioctl import TCGETS, TCSETS, TCSETSW, TERMIOS, TIOCGWINSZ, Termios
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLOUT
from sentry.errors import Errno
from sentry.fs.devpts.files import PtySlave
from sentry.fs.devpts.raw import raw
from sentry.fs.devpts.terminal import READABLE, Terminal
from sentry.mm.buffers import KernelSource
from sentry.suppress import suppress
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.fs.devpts.filesystem import DevPtsFs
    from sentry.platform.host_io import HostIO
    from sentry.vfs.interface import Owner
    from sentry.vfs.mount import Mount

TYPED: Final = 4096
PATIENCE_NS: Final = 2_000_000_000
"""So long the rest of the screen may take once the session is over."""
PIECE: Final = 4096
"""Bytes that are on their way to the host's terminal at a time."""


def _settings(fd: int) -> Termios:
    """tcgetattr(3). That of `termios` is a library that each sandbox would have for it."""
    return TERMIOS.unpack(fcntl.ioctl(fd, TCGETS, bytes(TERMIOS.size)))


def _set(fd: int, how: int, settings: Termios) -> None:
    """tcsetattr(3)."""
    fcntl.ioctl(fd, how, TERMIOS.pack(*settings))


def _raw(settings: Termios) -> Termios:
    iflag, oflag, cflag, lflag, line, keys = settings
    iflag, oflag, cflag, lflag, *_, keys = raw([iflag, oflag, cflag, lflag, 0, 0, keys])
    return Termios(iflag, oflag, cflag, lflag, line, bytes(keys))


class Console:
    """The pump. `fd` is the host's terminal, open read-write."""

    def __init__(self, loop: Any, fd: int, fs: DevPtsFs, owner: Owner, io: HostIO | None) -> None:
        self._loop = loop
        self._io = io
        self._writing = False
        self._closing = False
        self._sent: Callable[[], object] | None = None
        """Called when all is out."""
        self._fd = fd
        self._fs = fs
        self.terminal: Terminal = fs.new_console(owner)
        self._saved = _settings(fd)
        self._watching = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.refresh_size()

    def start(self) -> None:
        """Make the host's terminal raw and listen."""
        _set(self._fd, TCSETS, _raw(_settings(self._fd)))
        self.terminal.master_queue.add(self._changed, READABLE | EPOLLOUT)
        self._watch(EPOLLIN)

    def restore(self) -> None:
        """Everything is over: what is on the screen goes out, the settings come back.

        Preconditions: the loop has stopped.
        """
        loop = self._loop
        end_ns = loop.now_ns() + PATIENCE_NS
        patience = loop.call_at(end_ns, lambda: None)
        self._closing = True
        self._write()
        while self._unsent and loop.now_ns() < end_ns:
            self._watch(self._wanted())
            loop.turn()
        patience.cancel()
        self._put_back()

    def close(self, done: Callable[[], object]) -> None:
        """Its session is over: hang up, and `done` when all is out (or nobody has read for long).

        The descriptor is closed. For a terminal that does not live as long as the sandbox.
        """
        if self.terminal.master_open:
            self.terminal.hang_up()

        def end() -> None:
            if self._fd >= 0:
                patience.cancel()
                self._watch(0)
                self.terminal.screen.clear()
                self._put_back()
                self._fs.remove(self.terminal)
                fd, self._fd = self._fd, -1
                os.close(fd)
                done()

        patience = self._loop.call_at(self._loop.now_ns() + PATIENCE_NS, end)
        self._closing, self._sent = True, end
        self._write()
        if self._unsent:
            self._watch(self._wanted())
        else:
            end()

    @property
    def _unsent(self) -> bool:
        return bool(self.terminal.screen) or self._writing

    def _put_back(self) -> None:
        # who waits for what nobody reads, behind a write that is still on its way, waits for ever
        how = TCSETS if self._unsent else TCSETSW
        with suppress(OSError):  # it has hung up
            _set(self._fd, how, self._saved)

    def open(self, mount: Mount) -> PtySlave:
        """The program's side, for standard input, output and error."""
        name = b"%d" % self.terminal.index
        dentry = Dentry(mount.root, name, self._fs.names[name])
        return PtySlave(Location(mount, dentry), O_RDWR, self.terminal)

    def refresh_size(self) -> None:
        """Take the host's window size; a new one is SIGWINCH."""
        self.terminal.resized(fcntl.ioctl(self._fd, TIOCGWINSZ, bytes(8)))

    # --- the two directions

    def _watch(self, events: int) -> None:
        if events != self._watching:
            self._watching = events
            self._loop.watch(self._fd, events, self._ready)

    def _wanted(self) -> int:
        terminal = self.terminal
        wants = terminal.discipline.room and terminal.typing_room >= TYPED and not self._closing
        events = EPOLLIN if wants else 0
        return events | (EPOLLOUT if self.terminal.screen and not self._writing else 0)

    def _changed(self, _: int) -> None:
        """Something is on the screen, or the program has read."""
        if self._fd < 0:
            return
        self._write()
        self._watch(self._wanted())

    def _ready(self, events: int) -> None:
        if events & EPOLLIN:
            self._read()
        if events & EPOLLOUT:
            self._write()
        if events & EPOLLHUP and not events & EPOLLIN:
            self._hang_up()
            return
        self._watch(self._wanted())

    def _read(self) -> None:
        try:
            data = os.read(self._fd, min(TYPED, max(1, self.terminal.discipline.room)))
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        self.refresh_size()
        self.terminal.typed(data)

    def _write(self) -> None:
        if self.terminal.screen and not self._writing and self._poll.poll(0):
            self._writing = True
            self._loop.spawn(self._write_out(), "console")

    async def _write_out(self) -> None:
        """poll(2) says that there is room, but not how much: a write may wait all the same."""
        screen = self.terminal.screen
        try:
            while screen and self._fd >= 0 and self._poll.poll(0):
                piece = bytes(screen[:PIECE])
                del screen[: len(piece)]
                while piece:
                    piece = piece[await self._put(piece) :]
        except (Errno, OSError):
            screen.clear()
        finally:
            self._writing = False
        if self._fd < 0:
            return
        if not screen:
            self.terminal.slave_queue.notify(EPOLLOUT)
            if self._sent is not None:
                self._sent()
                return
        self._watch(self._wanted())

    async def _put(self, data: bytes) -> int:
        if self._io is None:
            return os.write(self._fd, data)
        fd = os.dup(self._fd)  # its turn may come when it is closed
        try:
            return await self._io.write(fd, KernelSource(data), len(data), None)
        finally:
            os.close(fd)

    def _hang_up(self) -> None:
        self._watch(0)
        if self.terminal.master_open:
            self.terminal.hang_up()
