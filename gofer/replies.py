"""What a handler gives back, and the registry of handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec import Struct

from gofer.files import OpenFile
from gofer.p9.codec import Message

if TYPE_CHECKING:
    from gofer.connection import Connection


class Donation(Struct):
    """A reply that carries a descriptor; ours is closed once it is sent."""

    reply: Message
    fd: int


class Job(Struct):
    """A reply that a pool thread computes, because it may block. Touches nothing but `file`."""

    work: Callable[[], Message]
    file: OpenFile
    owned: bool = False
    """The file was opened for this job only."""


Reply: TypeAlias = Message | Donation | Job
Handler: TypeAlias = Callable[["Connection", Any], Reply]

HANDLERS: dict[type[Message], Handler] = {}

_M = TypeVar("_M", bound=Message)
_R = TypeVar("_R", bound=Reply)


def handles(
    kind: type[_M],
) -> Callable[[Callable[[Connection, _M], _R]], Callable[[Connection, _M], _R]]:
    """Decorator: this function answers messages of type `kind`; an OSError becomes Rlerror."""

    def register(
        function: Callable[[Connection, _M], _R],
    ) -> Callable[[Connection, _M], _R]:
        HANDLERS[kind] = function
        return function

    return register
