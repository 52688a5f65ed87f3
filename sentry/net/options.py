"""Socket options, one row each: who answers getsockopt(2) and setsockopt(2), and what is legal.

A family's `Options` hold the rows of one level of its own, over those of others. Handlers are
called with the row, so that one serves all options that differ in their number alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from msgspec import Struct

from sentry.errors import EINVAL
from sentry.vfs.rows import Rows

INT: Final = struct.Struct("<i")


class Counted(NamedTuple):
    """A value whose length is told in other units than bytes."""

    value: bytes
    told: int


class Question(NamedTuple):
    """What is asked for stands in the buffer: so many bytes of it, and who answers them."""

    size: int
    answer: Callable[[bytes], bytes | Counted]


Check = Callable[[int], int]
"""Gives the number that is kept, or raises."""
Parse = Callable[[bytes], int]
"""Takes the number out of what setsockopt(2) was given, or raises."""
Getter = Callable[["Option", Any, Any, int], bytes | Counted | Question]
"""(row, socket, caller, room) → the value, which is cut to the room."""
Setter = Callable[["Option", Any, Any, bytes], None]
"""(row, socket, caller, value)."""
Reads = Callable[["Option", Any, Any, int], int]
"""(row, socket, caller, size) → how much of a value of that size is read, or raises."""
MOST_READ: Final = 4096
"""Of a value, where its row says nothing else."""


def anything(number: int) -> int:
    """Every number is kept as it is."""
    return number


def flag(number: int) -> int:
    """On or off."""
    return int(bool(number))


class Within(Struct, frozen=True):
    """A number between two others; `default` stands for -1. Raises: EINVAL."""

    low: int
    high: int
    default: int | None = None

    def __call__(self, number: int) -> int:
        if number == -1 and self.default is not None:
            return self.default
        if not self.low <= number <= self.high:
            raise EINVAL(f"{number}")
        return number


SWITCH: Final = Within(0, 1)


def whole(value: bytes) -> int:
    """An int. Raises: EINVAL."""
    if len(value) < 4:
        raise EINVAL("int expected")
    number: int = INT.unpack_from(value)[0]
    return number


def exact(value: bytes) -> int:
    """An int and no more. Raises: EINVAL."""
    if len(value) != INT.size:
        raise EINVAL("int expected")
    return whole(value)


class Option(Struct, frozen=True):
    """One socket option."""

    level: int
    number: int
    name: str
    getter: Getter | None
    setter: Setter | None
    check: Check
    parse: Parse
    default: int
    partial: str
    """What it lacks, for the compatibility table."""
    reads: Reads | None = None

    def number_in(self, value: bytes) -> int:
        """What setsockopt(2) was given, as it is kept. Raises: what its rules raise."""
        return self.check(self.parse(value))


class Options(Rows[tuple[int, int], Option]):
    """The rows of one level, over those of others."""

    def __init__(self, level: int, names: object, *bases: Options) -> None:
        super().__init__(*bases)
        self.level = level
        self._names = names

    def row(
        self,
        name: str,
        getter: Getter | None = None,
        setter: Setter | None = None,
        *,
        check: Check = anything,
        parse: Parse = whole,
        default: int = 0,
        partial: str = "",
        reads: Reads | None = None,
    ) -> Option:
        """Declare an option. `name` is that of its number in sentry.abi."""
        number: int = getattr(self._names, name)
        row = Option(
            self.level, number, name, getter, setter, check, parse, default, partial, reads
        )
        self.declare((self.level, number), row)
        return row


def shows(number: Callable[[Any], int]) -> Getter:
    """A getter of an int."""
    return lambda row, sock, caller, size: INT.pack(number(sock))


def tells(value: Callable[[Any], bytes]) -> Getter:
    """A getter of bytes."""
    return lambda row, sock, caller, size: value(sock)


def show_default(row: Option, sock: Any, caller: Any, size: int) -> bytes:
    """It is always the same."""
    return INT.pack(row.default)


def show_nothing(row: Option, sock: Any, caller: Any, size: int) -> bytes:
    """There is nothing to tell."""
    return b""


def take(row: Option, sock: Any, caller: Any, value: bytes) -> None:
    """A legal value is taken, and is without effect."""
    row.number_in(value)
