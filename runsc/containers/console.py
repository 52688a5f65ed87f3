"""Terminals on the host's side: the caller's own, or one that is made and handed over.

The program has a terminal of the Sentry; what is here is the wire behind it (sentry.fs.devpts's
Console). With --console-socket the command line makes a pseudo-terminal, sends its master to
whoever listens there (unix(7), SCM_RIGHTS) and gives the slave to the Sentry.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from runsc.errors import RuntimeFailure, why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Settings = list[Any]
    """termios(3): what tcgetattr gives."""

Size = tuple[int, int]


def check(terminal: bool, detached: bool, console_socket: str | None) -> None:
    """Raises: RuntimeFailure in runc's words where the wishes contradict each other."""
    if terminal and detached and not console_socket:
        raise RuntimeFailure(
            "cannot allocate tty if runc will detach without setting console socket",
            hint='config.json wants a terminal, and who is to have its other end: set "terminal" to'
            " false there, or leave out --detach",
        )
    if console_socket and not (terminal and detached):
        raise RuntimeFailure("cannot use console socket if runc will not detach or allocate tty")


def make(console_socket: str, size: Size | None) -> int:
    """A new pseudo-terminal: the master goes to the socket, the slave is given back."""
    sock = _dial(console_socket)
    master, slave = os.openpty()
    try:
        if size is not None:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        socket.send_fds(sock, [os.ttyname(slave).encode()], [master])
    except OSError as error:
        os.close(slave)
        raise RuntimeFailure(f"console socket {console_socket}: {why(error)}") from None
    finally:
        os.close(master)
        sock.close()
    return slave


def _dial(path: str) -> socket.socket:
    """Through the directory, for the path may be longer than sun_path (unix(7)) allows."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise RuntimeFailure(f"dial unix {path}: connect: {reason}") from None
    return sock


def is_ours() -> bool:
    """Whether the standard streams are a terminal that this command may take for itself."""
    return all(os.isatty(fd) for fd in (0, 1, 2)) and is_foreground(0)


def is_foreground(terminal: int) -> bool:
    """Not in the background of a shell: there the terminal is the shell's."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it controls no session, or another one: nobody else is served by it
        return True


@contextmanager
def settings_kept(fd: int) -> Iterator[Settings | None]:
    """The Sentry makes the terminal raw and puts it right at its end; this is for its death.

    None where it is no terminal.
    """
    if not os.isatty(fd):
        yield None
        return
    saved = termios.tcgetattr(fd)
    try:
        yield saved
    finally:
        with suppress(termios.error):
            if termios.tcgetattr(fd) != saved:
                termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def put_back(fd: int, saved: Settings) -> None:
    """The same, by who is left when the command was killed.

    If it is raw still: the shell to which the terminal went back may have set it as it wants it.
    """
    from sentry.fs.devpts.raw import raw  # noqa: PLC0415  only then

    with suppress(termios.error):
        if termios.tcgetattr(fd) == raw(saved):
            termios.tcsetattr(fd, termios.TCSANOW, saved)
