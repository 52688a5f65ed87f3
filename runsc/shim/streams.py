"""The standard streams of a process: what containerd names, opened for the program.

Outputs of a container's first process are containerd's named pipes as they are: nothing is copied.
What `exec` adds writes to pipes that the shim copies from (`copies`): a program that it leaves
behind would keep containerd's reader waiting else. The shim keeps each named pipe open for both
ways: without a reader (while containerd is restarted) a program waits instead of getting SIGPIPE,
and standard input has no end before CloseIO. A worker opens outputs, for it may wait: until the
reader is there, as containerd's own shim does it, so that nothing is lost that a short program
writes. Input is copied, and its named pipe opened when the process is started: `ctr` can only tell
of the end of its input once it has been told of the container.

Outputs can also be `file:///PATH` and `binary:///PATH?ARGUMENT=VALUE`, containerd's loggers: a
program that reads from 3 and 4, and closes 5 when it is ready. Source: containerd's
runtime/v2/README.md, "Logging", and runtime/v2/logging.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from runsc.shim.ttrpc import Code, Refused

PATIENCE_S = 20
"""How long the reader of an output, or a logger, may take until it is there."""
OUTPUT, ERRORS = "stdout", "stderr"
"""What the shim keeps: containerd's named pipes."""
IN, OUT, ERR = "in", "out", "err"
"""The same: pipes to copy into, or from."""
TYPED, CONSOLE = "typed", "console"
"""The same, of a process with a terminal: a file that what is typed comes from; its other end."""


class Streams(msgspec.Struct, frozen=True):
    """What a request names; "": nothing."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Opened:
    """Descriptors: those of the program, and those that the shim keeps, by name."""

    def __init__(self, *, copied: bool) -> None:
        self.program: list[int] = []
        """0, 1 and 2; of a process with a terminal these stay with the shim, too."""
        self.kept: dict[str, int] = {}
        self.copied = copied
        """Outputs go through the shim."""


def open_streams(wanted: Streams, container_id: str, namespace: str, *, copied: bool) -> Opened:
    """Open them all. Raises: Refused, OSError."""
    made = Opened(copied=copied and not wanted.terminal)
    with _patient():
        made.program.append(_input(wanted, made.kept))
        scheme = urlsplit(wanted.stdout).scheme
        if scheme == "binary":
            made.program += _logger(wanted.stdout, container_id, namespace)
        elif scheme == "file":
            made.program += [_file(unquote(urlsplit(wanted.stdout).path))] * 2
        elif scheme in ("", "fifo"):
            _output(made, _path(wanted.stdout), OUTPUT, OUT)
            _output(made, "" if wanted.terminal else _path(wanted.stderr), ERRORS, ERR)
        else:
            raise Refused(Code.INVALID_ARGUMENT, f"unknown STDIO scheme {scheme}")
    if wanted.terminal:
        made.kept[TYPED] = made.program[0]
        made.kept.setdefault(OUTPUT, made.program[1])
    return made


@contextmanager
def _patient() -> Iterator[None]:
    """What is opened may wait for somebody, but not for ever. Raises: Refused."""

    def late(*_: Any) -> None:
        raise Refused(Code.DEADLINE_EXCEEDED, "nobody has opened the other ends of the streams")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _path(uri: str) -> str:
    return urlsplit(uri).path if uri.startswith("fifo:") else uri


def _null() -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def is_fifo(path: str) -> bool:
    """Whether it is a named pipe."""
    return stat.S_ISFIFO(os.stat(path).st_mode)


def keep(path: str) -> int:
    """A named pipe, open for both ways."""
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _input(wanted: Streams, kept: dict[str, int]) -> int:
    path = wanted.stdin
    if not path:
        return _null()
    if not is_fifo(path):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if wanted.terminal:
        return _null()
    fd, kept[IN] = os.pipe()
    return fd


def _output(made: Opened, path: str, name: str, pipe: str) -> None:
    if not path:
        made.program.append(_null())
        return
    if not is_fifo(path):
        made.program.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        return
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # waits for a reader
    made.kept[name] = keep(path)
    if made.copied:
        os.close(fd)
        made.kept[pipe], fd = os.pipe()
    made.program.append(fd)


def _file(path: str) -> int:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _logger(uri: str, container_id: str, namespace: str) -> list[int]:
    """Start it; the ends to write to. It ends when nobody writes any more."""
    parts = urlsplit(uri)
    program = unquote(parts.path)
    words = [word for pair in parse_qsl(parts.query, keep_blank_values=True) for word in pair]
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    ready_read, ready_write = os.pipe()
    ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (out_read, err_read, ready_write)]
    try:
        os.posix_spawn(
            program,
            [program, *filter(None, words)],
            {"CONTAINER_ID": container_id, "CONTAINER_NAMESPACE": namespace},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, 3 + at) for at, fd in enumerate(ends)],
            setpgroup=0,
            setsigdef=[signal.SIGPIPE],
        )
    finally:
        for fd in (out_read, err_read, ready_write, *ends):
            os.close(fd)
    os.read(ready_read, 1)
    os.close(ready_read)
    return [out_write, err_write]
