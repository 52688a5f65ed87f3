"""Signals of the command line, to be forwarded to the container.

The C half of the standard library's `signal` is used, for the other half and `socket` import more
than `exec` has time for (see runsc/containers/execution.py).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

KEPT = frozenset(
    {
        _signal.SIGKILL,
        _signal.SIGSTOP,
        # our own children, our own faults, and job control of the caller's shell
        _signal.SIGCHLD,
        _signal.SIGSEGV,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGILL,
        _signal.SIGTRAP,
        _signal.SIGSYS,
        _signal.SIGABRT,
        _signal.SIGPIPE,
        _signal.SIGTSTP,
        _signal.SIGTTIN,
        _signal.SIGTTOU,
        _signal.SIGCONT,
    }
)
"""Signals that are this process's own affair; all others are forwarded."""


def _noted(number: int, frame: object) -> None:
    """The number has gone into the wake-up descriptor already."""


ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
"""What a terminal, a service manager or a person ends a program with."""
TERMINAL = frozenset({_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT})
"""What a terminal sends to all processes of its foreground."""


def _ignored(number: int) -> bool:
    """Whether the caller wants it ignored, as nohup(1) and a shell's `&` do."""
    return number in ENDING and bool(_signal.getsignal(number) == _signal.SIG_IGN)


def _write_to(fd: int, *, but_ignored: bool = False) -> None:
    _signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    for number in _signal.valid_signals() - KEPT:
        if not (but_ignored and _ignored(number)):
            _signal.signal(number, _noted)


def end_by_exception() -> None:
    """Until `catch`, what ends a program unwinds this one first: SystemExit, 128 + n."""
    for number in ENDING:
        if not _ignored(number):
            _signal.signal(number, _unwind)


def _unwind(number: int, frame: object) -> None:
    """The first one does it; from then on none disturbs the cleaning up."""
    for other in ENDING:
        _signal.signal(other, _noted)
    raise SystemExit(128 + number)


def catch(*, as_program: bool) -> socket.socket:
    """From now on each forwardable signal is a byte to read from the socket given.

    `as_program`: what the caller wants ignored stays so, and the key that stops a job (SIGTSTP)
    is told, too.
    """
    import socket  # noqa: PLC0415

    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    _write_to(writer.detach(), but_ignored=as_program)
    if as_program and _signal.getsignal(_signal.SIGTSTP) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGTSTP, _noted)
    return reader


def stop_as_told() -> None:
    """Stop until SIGCONT, as SIGTSTP does it: not where nobody could let this one go on."""
    _signal.signal(_signal.SIGTSTP, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGTSTP)
    _signal.signal(_signal.SIGTSTP, _noted)


def catch_fd() -> int:
    """The same with a pipe: its end to read from."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _write_to(writer)
    return reader


def number_of(name: str) -> int:
    """The number of "TERM", "SIGTERM", "15". Raises: ValueError."""
    if name.isdigit():
        number = int(name)
        if 0 <= number < _signal.NSIG:
            return number
    else:
        upper = name.upper()
        full = upper if upper[:3] == "SIG" else "SIG" + upper
        found = getattr(_signal, full, None)
        if isinstance(found, int) and full[:4] != "SIG_":
            return int(found)
    raise ValueError(f'unknown signal "{name}"')
