"""A terminal for a program whose caller has none, or has not all of its streams there.

`run` and `exec --tty` with standard streams that are pipes or files, as engines call them: what
comes in on standard input is typed, what is on the screen goes to standard output. As with runc,
the end of standard input types nothing.

The wire behind the program's terminal is a pseudo-terminal of the host then, and bytes are copied
between it and the streams by a thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
from contextlib import suppress

from runsc.terminals import shown
from sentry.fs.devpts.raw import raw

PIECE = 1 << 16
Size = tuple[int, int]


def is_needed() -> bool:
    """Whether what is typed and what is shown are not at one terminal."""
    return not (os.isatty(0) and os.isatty(1)) or os.fstat(0).st_rdev != os.fstat(1).st_rdev


class Relay:
    """The pseudo-terminal: `slave` is for the Sentry. In this order: `handed_over`, `start`,
    `finish`."""

    def __init__(self, size: Size | None) -> None:
        self._master, self.slave = os.openpty()
        # before the Sentry does it: what is typed now is not echoed twice
        termios.tcsetattr(self.slave, termios.TCSANOW, raw(termios.tcgetattr(self.slave)))
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self.resize()
        if size is not None:
            self._set(struct.pack("4H", *size, 0, 0))

    def handed_over(self) -> None:
        """The Sentry has the slave: at its end there nobody else may have it."""
        os.close(self.slave)

    def start(self) -> None:
        """Preconditions: nothing is forked from now on."""
        if os.isatty(0):  # whose settings come back: console.settings_kept
            termios.tcsetattr(0, termios.TCSADRAIN, raw(termios.tcgetattr(0)))
        self._thread.start()

    def resize(self) -> None:
        """The size of the terminal that one of the streams is, if any is."""
        for fd in (0, 1, 2):
            if os.isatty(fd):
                self._set(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
                return

    def _set(self, size: bytes) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def finish(self) -> None:
        """Until all is out. Preconditions: the Sentry has closed the slave, or has ended."""
        self._thread.join()
        os.close(self._master)

    def _copy(self) -> None:
        os.set_blocking(self._master, False)
        typed = b""
        shows = reads = True
        while True:
            poll = select.poll()
            poll.register(self._master, select.POLLIN | (select.POLLOUT if typed else 0))
            if reads and not typed:
                poll.register(0, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            if 0 in ready:
                typed = _read(0)
                reads = bool(typed)
            if self._master in ready:
                if typed:
                    with suppress(OSError):
                        typed = typed[os.write(self._master, typed) :]
                try:
                    output = shown(self._master, PIECE)
                except BlockingIOError:
                    continue
                if not output:  # nobody has the slave any more
                    return
                shows = shows and _write(output)


def _read(fd: int) -> bytes:
    """Nothing at the end, or where nothing can be read."""
    try:
        return os.read(fd, PIECE)
    except OSError:
        return b""


def _write(data: bytes) -> bool:
    """To standard output; whether somebody takes it."""
    while data:
        try:
            data = data[os.write(1, data) :]
        except BlockingIOError:
            select.select([], [1], [])
        except OSError:
            return False
    return True
