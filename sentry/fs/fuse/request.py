"""`Request`: one message to a server of a program, and what it answers. Sans-io.

It belongs to the call that made it until that has taken the answer. A call that ends before leaves
it: one that was not read yet is dropped, the answer to another is undone (`undo`: a node that
nobody asked for is forgotten, a file that nobody has is released).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi.fuse import FUSE_IN_HEADER
from sentry.errors import Errno, from_number

if TYPE_CHECKING:
    from sentry.fs.fuse.connection import Connection

HEADER: Final = FUSE_IN_HEADER.size


class State(IntEnum):
    """Where it is."""

    PENDING = 0
    """Nobody has read it."""
    SENT = 1
    DONE = 2


Who = tuple[int, int, int]
"""User, group and thread of a request, as the server knows them."""
NOBODY: Final = (0, 0, 0)


class Device(Protocol):
    """An open device: sentry.fs.fuse.device."""

    unanswered: int
    """Requests that were read there and have no answer."""


class Request:
    """One request. `answer_size` are the bytes behind the header of the answer it may have."""

    __slots__ = (
        "_connection", "_value", "answer_size", "body", "data", "device", "error", "interrupted",
        "is_background", "is_variable", "left", "nodeid", "on_done", "opcode", "state", "undo",
        "unique", "wake", "who",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        opcode: int,
        nodeid: int,
        body: bytes,
        answer_size: int = 0,
        *,
        is_variable: bool = False,
    ) -> None:
        self._connection = connection
        self.opcode = opcode
        self.nodeid = nodeid
        self.body = body
        self.answer_size = answer_size
        self.is_variable = is_variable
        """The answer may be shorter."""
        self.who: Who = NOBODY
        self.unique = 0
        self.state = State.PENDING
        self.device: Device | None = None
        """Who has read it and may answer it."""
        self.error: Errno | None = None
        self.data = b""
        self.interrupted = False
        self.is_background = False
        """It counts in max_background."""
        self.left = False
        """The call that made it is over."""
        self.on_done: Callable[[Request], object] | None = None
        self.undo: Callable[[bytes], object] | None = None
        """What takes back what an answer did that nobody comes for."""
        self.wake: Callable[[], object] | None = None
        self._value: list[Any] | None = None

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return HEADER + len(self.body)

    def message(self) -> bytes:
        """As the server reads it: struct fuse_in_header, and what belongs to the operation."""
        uid, gid, pid = self.who
        header = FUSE_IN_HEADER.pack(
            self.size, self.opcode, self.unique, self.nodeid, uid, gid, pid, 0, 0
        )
        return header + self.body

    def finish(self, error: Errno | None, data: bytes = b"") -> None:
        """It is answered, or never will be."""
        self.state = State.DONE
        self.error, self.data = error, data
        self.device = None
        self.body = b""
        if self.left and error is None and self.undo is not None:
            self.undo(data)
        if self.on_done is not None:
            self.on_done(self)
        if self.wake is not None:
            self.wake()

    def once(self, take: Callable[[bytes], Any]) -> Any:
        """What `take` makes of the answer, the first time; then the same. Raises: the error."""
        if self.error is not None:
            raise type(self.error)(str(self.error))
        if self._value is None:
            self.undo = None
            try:
                self._value = [take(self.data), None]
            except Errno as error:
                self._value = [None, error.with_traceback(None)]
            self.data = b""
        if self._value[1] is not None:
            known = self._value[1]
            raise type(known)(*known.args)  # each with a traceback of its own
        return self._value[0]

    def let_go(self) -> None:
        """The call has ended: `sentry.wait.again.Kept`."""
        if self.left:
            return
        self.left = True
        self.wake = None
        if self.state is State.DONE:
            if self.error is None and self.undo is not None and self._value is None:
                self.undo(self.data)
        else:
            self._connection.abandon(self)


def errno_of(number: int) -> Errno:
    """What a server has answered."""
    return from_number(number, "the server says so")
