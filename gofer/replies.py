"""What a handler gives back, and the registry of handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from gofer.files import OpenFile
from gofer.p9.codec import Message


class Donation(Struct):
    """A reply that carries descriptors; ours are closed once it is sent."""

    reply: Message
    fds: tuple[int, ...]


class Job(Struct):
    """A reply that a pool thread computes, because it may block. Touches nothing but `file`."""

    work: Callable[[], Message]
    file: OpenFile
    owned: bool = False
    """The file was opened for this job only."""
    size: int = 0
    """Bytes that it holds."""


class Later(Struct):
    """The session is answered when there is something to tell (`Connection.tell`)."""


Reply: TypeAlias = Message | Donation | Job | Later
Handler: TypeAlias = Callable[[Any, Any], Reply]
"""Of a session (gofer.connection) and a request."""

HANDLERS: dict[type[Message], Handler] = {}

_C = TypeVar("_C")
_M = TypeVar("_M", bound=Message)
_R = TypeVar("_R", bound=Reply)


def handles(kind: type[_M]) -> Callable[[Callable[[_C, _M], _R]], Callable[[_C, _M], _R]]:
    """Decorator: this function answers messages of type `kind`; an OSError becomes Rlerror."""

    def register(function: Callable[[_C, _M], _R]) -> Callable[[_C, _M], _R]:
        HANDLERS[kind] = function
        return function

    return register
