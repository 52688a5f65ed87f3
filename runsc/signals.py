"""Signals of the command line, to be forwarded to the container."""

from __future__ import annotations

import signal
import socket
from types import FrameType

KEPT = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSTOP,
        # our own children, our own faults, and job control of the caller's shell
        signal.SIGCHLD,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGABRT,
        signal.SIGPIPE,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
    }
)
"""Signals that are this process's own affair; all others are forwarded."""


def _noted(number: int, frame: FrameType | None) -> None:
    """The number has gone into the wake-up socket already."""


def catch() -> socket.socket:
    """From now on each forwardable signal is a byte to read from the socket given."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in signal.valid_signals() - KEPT:
        signal.signal(number, _noted)
    return reader


def number_of(name: str) -> int:
    """The number of "TERM", "SIGTERM", "15". Raises: ValueError."""
    if name.isdigit():
        number = int(name)
        if 0 <= number < signal.NSIG:
            return number
    else:
        upper = name.upper()
        found = signal.Signals.__members__.get(upper if upper[:3] == "SIG" else "SIG" + upper)
        if found is not None:
            return int(found)
    raise ValueError(f'unknown signal "{name}"')
