"""What is told of a connection that a program in a sandbox makes: docs/egress.md, "Brokers"."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM
from typing import Final, TypeVar

import msgspec

Place = tuple[str, int]
LINE_S: Final = 10.0
MAX_LINE: Final = 1 << 16
CONNECTIONS: Final = 256
"""Served at a time by one process: a program makes as many as it likes, the rest waits."""
LATER: Final = frozenset({ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM})
"""What accept(2) says though the next one may be had, after a while."""
LATER_S: Final = 0.1
H = TypeVar("H")


class Told(msgspec.Struct, frozen=True):
    """Who connects, and where to. All but the container's name is said by the sandbox."""

    container: str
    port: int
    address: str
    name: str | None = None
    """Under which it was asked for."""
    names: list[str] = []
    program: str = ""
    pid: int = 0
    uid: int = 0


def told_of(line: bytes) -> Told:
    """Raises: ValueError."""
    try:
        return msgspec.json.decode(line, type=Told)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"what came is no line about a connection: {error}") from None


def handler_of(handlers: Mapping[Place, H], told: Told) -> H | None:
    """Whose connection it is."""
    for name in (*told.names, told.address):
        found = handlers.get((name.rstrip(".").lower(), told.port))
        if found is not None:
            return found
    return None
