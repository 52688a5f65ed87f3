"""The words of the control socket: one JSON object a line, both ways.

A command line sends a `Request` and reads one `Reply`. On the socket of the command line that
started the sandbox the Sentry also sends `Event`s of its own accord.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

MAX_LINE = 1 << 16
"""A longer line ends the connection."""


class Request(msgspec.Struct, omit_defaults=True, frozen=True):
    """`op` is "kill", "ps" or "state"."""

    op: str
    signal: int = 0
    pid: int = 1
    """kill: which process, as the container numbers them."""
    all: bool = False
    """kill: every process of the container."""


class ProcessInfo(msgspec.Struct, frozen=True):
    """One process of the container."""

    pid: int
    ppid: int
    uid: int
    command: str
    state: str
    """A letter as in /proc/pid/stat."""
    cpu_ns: int = 0


class Reply(msgspec.Struct, omit_defaults=True, frozen=True):
    """`error` is empty when it was done."""

    error: str = ""
    status: str = ""
    processes: list[ProcessInfo] = []


class Event(msgspec.Struct, omit_defaults=True, frozen=True):
    """`event` is "ready" (the filter is on, the program may run) or "error" (it will not)."""

    event: str
    message: str = ""


T = TypeVar("T")


def encode(message: Request | Reply | Event) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes, kind: type[T]) -> T:
    """Raises: ValueError if the line is no such message."""
    return msgspec.json.decode(line, type=kind)


class LineBuffer:
    """Cuts a stream of bytes into lines. Raises: ValueError at a line that is too long."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        *lines, self._data = (self._data + data).split(b"\n")
        if len(self._data) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise ValueError("line too long")
        return lines
