"""`Console`: the container's terminal, between a pseudo-terminal of ours and one of the host.

With process.terminal the program gets a pseudo-terminal of the Sentry: its line discipline, job
control and signals are ours, as in every other one. The host's terminal becomes the wire: raw, what
comes from it is typed, what is on our screen is written to it. Its settings come back at the end.
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_RDWR
from sentry.abi.ioctl import TIOCGWINSZ
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLOUT
from sentry.fs.devpts.files import PtySlave
from sentry.fs.devpts.terminal import READABLE, Terminal
from sentry.vfs.dentry import Dentry, Location

if TYPE_CHECKING:
    from sentry.fs.devpts.filesystem import DevPtsFs
    from sentry.vfs.interface import Owner
    from sentry.vfs.mounts import Mount

TYPED: Final = 4096
PATIENCE_NS: Final = 2_000_000_000
"""So long the rest of the screen may take once the session is over."""
PIECE: Final = 256
"""Bytes written to the host's terminal once poll(2) says that there is room."""


class Console:
    """The pump. `fd` is the host's terminal, open read-write."""

    def __init__(self, loop: Any, fd: int, fs: DevPtsFs, owner: Owner) -> None:
        self._loop = loop
        self._fd = fd
        self._fs = fs
        self.terminal: Terminal = fs.new_console(owner)
        self._saved = termios.tcgetattr(fd)
        self._watching = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.refresh_size()

    def start(self) -> None:
        """Make the host's terminal raw and listen."""
        raw = termios.tcgetattr(self._fd)
        raw[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
            | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        raw[1] &= ~termios.OPOST
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        self.terminal.master_queue.add(self._changed, READABLE | EPOLLOUT)
        self._watch(EPOLLIN)

    def restore(self) -> None:
        """Everything is over: what is on the screen goes out, the settings come back."""
        while self.terminal.screen and self._poll.poll(1000):
            self._write()
        with suppress(OSError, termios.error):  # it has hung up
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)

    def close(self, done: Callable[[], object]) -> None:
        """Its session is over: hang up, and `done` when all is out (or nobody has read for long).

        The descriptor is closed. For a terminal that does not live as long as the sandbox.
        """
        terminal = self.terminal
        if terminal.master_open:
            terminal.hang_up()

        def end() -> None:
            if self._fd >= 0:
                patience.cancel()
                self._loop.watch(self._fd, 0)
                terminal.screen.clear()
                self.restore()
                self._fs.remove(terminal)
                fd, self._fd = self._fd, -1
                os.close(fd)
                done()

        def drain(_: int) -> None:
            self._write()
            if not terminal.screen:
                end()

        patience = self._loop.call_at(self._loop.now_ns() + PATIENCE_NS, end)
        self._write()
        if not terminal.screen:
            end()
        else:
            self._loop.watch(self._fd, EPOLLOUT, drain)

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
        events = EPOLLIN if self.terminal.discipline.room else 0
        return events | (EPOLLOUT if self.terminal.screen else 0)

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
        screen = self.terminal.screen
        while screen and self._poll.poll(0):
            try:
                wrote = os.write(self._fd, bytes(screen[:PIECE]))
            except OSError:
                screen.clear()
                return
            del screen[:wrote]
        if not screen:
            self.terminal.slave_queue.notify(EPOLLOUT)

    def _hang_up(self) -> None:
        self._watch(0)
        if self.terminal.master_open:
            self.terminal.hang_up()
