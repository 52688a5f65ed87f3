"""What serving has in common: a session of 9P from the server's side, sans-io.

`Service.answer` takes a message and gives the reply. Its methods are coroutines, since those of
users may be; where these are plain functions nothing in them ever waits.
"""

from __future__ import annotations

import errno
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

from gofer.p9.codec import Message
from gofer.p9.constants import MSIZE_MAX, MSIZE_MIN, VERSION_EXTENDED
from gofer.p9.fields import Qid
from gofer.p9.messages import (
    Rattach,
    Rclunk,
    Rlerror,
    Rversion,
    Tattach,
    Tclunk,
    Tversion,
)

MSIZE: Final = 1 << 18
MAX_FIDS: Final = 1 << 18
ROOT: Final = Qid(0, 0, 1)
log = logging.getLogger("runsc")


class NotServed(OSError):
    """A request that such an object does not know."""

    def __init__(self) -> None:
        super().__init__(errno.EOPNOTSUPP, "not supported")


async def result(value: Any) -> Any:
    """What a user's method gives, whether it is a coroutine function or not."""
    return await value if inspect.isawaitable(value) else value


def code(error: OSError) -> int:
    """What the program inside gets: EIO for what a user gave that is no error's number."""
    number: object = error.errno
    return number if isinstance(number, int) and 0 < number < 4096 else errno.EIO


def waits(served: object) -> bool:
    """Some of its methods are coroutine functions: only an event loop can serve it."""
    return any(
        inspect.iscoroutinefunction(getattr(served, name, None))
        for name in dir(type(served))
        if not name.startswith("__")
    )


class Service:
    """One session. Subclasses have a method for each kind of message in `kinds`."""

    attachment: ClassVar[bytes] = b""
    kinds: ClassVar[dict[type[Message], str]] = {}
    beside: ClassVar[tuple[type[Message], ...]] = ()
    """What may take long, and goes on beside others."""

    def __init__(self) -> None:
        self.fids: dict[int, Any] = {}
        self.send: Callable[[int, Message], None] = lambda tag, reply: None
        """For replies that come later: set by whoever has the stream."""

    async def answer(self, tag: int, message: Message) -> Message | None:
        """The reply; None if it comes later."""
        try:
            if isinstance(message, Tversion):
                return self._version(message)
            if isinstance(message, Tattach):
                return self._attach(message)
            if isinstance(message, Tclunk):
                await self.clunk(self.fids.pop(message.fid, None))
                return Rclunk()
            name = self.kinds.get(type(message))
            if name is None:
                raise NotServed
            handler: Callable[[int, Any], Awaitable[Message | None]] = getattr(self, name)
            return await handler(tag, message)
        except OSError as error:
            return Rlerror(code(error))
        except Exception:
            log.exception("%s of an object that is served", type(message).__name__)
            return Rlerror(errno.EIO)

    def _version(self, asked: Tversion) -> Message:
        if asked.version != VERSION_EXTENDED:
            return Rversion(max(asked.msize, MSIZE_MIN), b"unknown")
        return Rversion(max(MSIZE_MIN, min(asked.msize, MSIZE, MSIZE_MAX)), VERSION_EXTENDED)

    def _attach(self, asked: Tattach) -> Message:
        if asked.aname != self.attachment:
            raise FileNotFoundError(errno.ENOENT, "another kind of object")
        self.bind(asked.fid, self.root())
        return Rattach(ROOT)

    def bind(self, fid: int, what: Any) -> None:
        """A fid stands for that. Raises: OSError."""
        if fid in self.fids or len(self.fids) >= MAX_FIDS:
            raise OSError(errno.EBADF, "a fid that is in use, or too many")
        self.fids[fid] = what

    def fid(self, fid: int) -> Any:
        """What it stands for. Raises: OSError."""
        found = self.fids.get(fid)
        if found is None:
            raise OSError(errno.EBADF, "no such fid")
        return found

    def root(self) -> Any:
        """What the first fid stands for."""
        raise NotImplementedError

    async def clunk(self, what: Any) -> None:
        """A fid does not stand for that any more."""

    async def end(self) -> None:
        """The session has ended."""
        for what in list(self.fids.values()):
            try:
                await self.clunk(what)
            except Exception:
                log.exception("the end of an object that was served")
        self.fids.clear()
