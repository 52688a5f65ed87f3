"""ioctl(2) requests, one row each. What a kind of file understands are its `Requests`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec import Struct

from sentry.abi import ioctl as abi
from sentry.errors import ENOTTY, Errno
from sentry.vfs.rows import Rows

INT: Final = struct.Struct("<i")

Handler = Callable[..., Any]
"""(file, caller, argument) → what ioctl(2) gives; None is 0."""
H = TypeVar("H", bound=Handler)


class Request(Struct, frozen=True):
    """One request."""

    number: int
    name: str
    handler: "Handler"
    partial: str = ""
    """What it lacks, for the compatibility table."""
    families: tuple[int, ...] = ()
    """Of sockets: only those of these families know it."""


class Requests(Rows[int, Request]):
    """What a kind of file understands. The rest is answered with `unknown`."""

    def __init__(
        self,
        *bases: Requests,
        names: tuple[object, ...] = (abi,),
        unknown: type[Errno] = ENOTTY,
    ) -> None:
        super().__init__(*bases)
        self.unknown = unknown
        self._names = names

    def row(
        self, name: str, handler: Handler, *, partial: str = "", families: tuple[int, ...] = ()
    ) -> None:
        """Declare a request. `name` is that of its number in one of the modules of sentry.abi."""
        number: int = next(vars(module)[name] for module in self._names if hasattr(module, name))
        self.declare(number, Request(number, name, handler, partial, families))

    def handles(
        self, *names: str, partial: str = "", families: tuple[int, ...] = ()
    ) -> Callable[[H], H]:
        """Declare the function below as the handler of requests."""

        def declare(handler: H) -> H:
            for name in names:
                self.row(name, handler, partial=partial, families=families)
            return handler

        return declare

    def answer(self, file: Any, caller: Any, request: int, argument: int) -> Any:
        """ioctl(2): one look-up."""
        row = self.find(request)
        if row is None:
            raise self.unknown(f"{request:#x}")
        return row.handler(file, caller, argument) or 0


def put_int(number: Callable[[Any], int]) -> Handler:
    """A handler that tells an int."""

    def put(file: Any, caller: Any, argument: int) -> None:
        caller.mm.write(argument, INT.pack(number(file)))

    return put


NONE: Final = Requests()
