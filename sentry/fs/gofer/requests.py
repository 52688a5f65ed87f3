"""Requests under way on one 9P session, sans-io: messages in, bytes out; bytes and descriptors in,
replies out.

A descriptor may get lost on the way, if this process may not have more of them: that is the matter
of who asked for it, no error of the session.

A request has a tag until its reply comes, whether or not anybody still waits for it. Descriptors
donated with a reply belong to the `Pending`, and are closed if nobody wants them any more.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence

from gofer.p9.codec import Message
from gofer.p9.constants import MSIZE_MAX, NOTAG, OPENED_DONATED
from gofer.p9.extensions import (
    Rbindx,
    Rconnectx,
    Rcreatex,
    Rdupx,
    Rfifox,
    Rjournalx,
    Rnotifyx,
    Rsparex,
    Rwalkx,
)
from gofer.p9.fields import ProtocolError
from gofer.p9.frames import FrameReader
from gofer.p9.messages import Rlerror, Tversion
from sentry.errors import EIO
from sentry.platform.exchange import TAG as EXCHANGE_TAG
from sentry.platform.host_io import host_error

MAX_TAGS = 1024
"""From 0 on: EXCHANGE_TAG is none of them."""


class Pending:
    """A request and, once it is done, what came of it."""

    __slots__ = (
        "_abandoned", "_callback", "_fds", "_number", "_reply", "block", "done", "heard", "lost",
        "request",
    )  # fmt: skip

    def __init__(self, request: Message | None) -> None:
        self.request = request
        """None: it was answered by the call that made it."""
        self.block: bytes | None = None
        """Then the attributes of what was made,"""
        self._number = 0
        """or why it was not."""
        self.done = False
        self.lost = False
        """A descriptor was sent and could not be taken."""
        self.heard: Callable[[], object] | None = None
        """Called first when the reply is there, whoever waits for it."""
        self._reply: Message | None = None
        self._fds: tuple[int, ...] = ()
        self._callback: Callable[[], object] | None = None
        self._abandoned: Callable[[Message], None] | None = None

    def when_done(self, callback: Callable[[], object] | None) -> None:
        """Call this (once) when the reply is there; None takes it back."""
        self._callback = callback

    def abandon(self, undo: Callable[[Message], None] | None = None) -> None:
        """Nobody waits any more. `undo` gets the reply of a success, to take back its effect."""
        self._callback = None
        self._abandoned = undo if undo is not None else _nothing
        if self.done:
            self._drop()

    def result(self) -> Message:
        """The reply. Raises: the Errno the server gave, EIO if the session died.

        Preconditions: there is a `request`."""
        reply = self._reply
        if reply is None:
            raise EIO("the Gofer is gone")
        if isinstance(reply, Rlerror):
            raise host_error(reply.ecode)
        return reply

    def check(self) -> None:
        """Raise what `result` does."""
        if self.request is not None:
            self.result()
        elif self._number:
            raise host_error(self._number)

    def taken(self) -> tuple[Message | None, tuple[int, ...]]:
        """The reply with its descriptors, for who hands both on."""
        return self._reply, self.take_fds()

    def take_fd(self) -> int:
        """The donated descriptor; it is the caller's from now on. -1 if there is none."""
        fds = self.take_fds()
        return fds[0] if fds else -1

    def take_fds(self) -> tuple[int, ...]:
        """The same where there may be several: -1 for those that were lost, which are the last."""
        fds, self._fds = self._fds, ()
        return fds

    def complete(self, reply: Message | None, fds: tuple[int, ...] = ()) -> None:
        """Called by `Requests`."""
        self.done = True
        self._reply = reply
        self._fds = fds
        self.lost = -1 in fds
        if self.heard is not None:
            self.heard()
        if self._abandoned is not None:
            self._drop()
        elif self._callback is not None:
            self._callback()

    def answered(self, number: int, block: bytes | None, fd: int) -> None:
        """By the call that made it."""
        self.done = True
        self._number = number
        self.block = block
        self._fds = (fd,) if fd >= 0 else ()

    def _drop(self) -> None:
        for fd in self.take_fds():
            close_quietly(fd)
        reply, undo = self._reply, self._abandoned
        self._reply, self._abandoned = None, None
        if undo is not None and reply is not None and not isinstance(reply, Rlerror):
            undo(reply)


def close_quietly(fd: int) -> None:
    """Close a descriptor that nobody wants, if there is one."""
    if fd >= 0:
        os.close(fd)


def _nothing(_reply: Message) -> None:
    """Nothing to take back."""


class Requests:
    """Tags and replies of one session."""

    def __init__(self) -> None:
        self._reader = FrameReader(MSIZE_MAX)
        self._waiting: dict[int, Pending] = {}
        self._free: list[int] = []
        self._next = 0
        self.line: deque[Pending] = deque()
        """Those that have no tag yet, in their order."""
        self.unanswered = 0
        """With a tag or in line."""
        self._fds: deque[int] = deque()
        self.dead = False

    def __len__(self) -> int:
        return self.unanswered

    def submit(self, request: Message) -> Pending:
        """Put a request in line. Raises: EIO once the session is dead."""
        if self.dead:
            raise EIO("the Gofer is gone")
        pending = Pending(request)
        self.line.append(pending)
        self.unanswered += 1
        return pending

    def next(self) -> bytes:
        """Give the first in line a tag; the bytes to be sent. None: nobody is there, or no tag."""
        if not self.line or len(self._waiting) >= MAX_TAGS:
            return b""
        pending = self.line.popleft()
        request = pending.request
        assert request is not None
        if isinstance(request, Tversion):
            tag = NOTAG
        elif self._free:
            tag = self._free.pop()
        else:
            tag = self._next
            self._next += 1
        self._waiting[tag] = pending
        return request.encode(tag)

    def sent(self, request: Message) -> Pending:
        """It was, with EXCHANGE_TAG: nothing else is unanswered."""
        pending = self._waiting[EXCHANGE_TAG] = Pending(request)
        self.unanswered += 1
        return pending

    def receive(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Bytes and descriptors from the socket, in their order. No data is the end of it.

        A server that does not speak 9P ends the session: every request, now and later, is EIO.
        """
        if fds:
            self._fds.extend(fds)
        if not data:
            self.fail()
            return
        try:
            for tag, reply in self._reader.feed(data):
                self._complete(tag, reply)
        except ProtocolError:
            self.fail()

    def fail(self) -> None:
        """The session is over."""
        self.dead = True
        while self._fds:
            close_quietly(self._fds.popleft())
        waiting, self._waiting = self._waiting, {}
        line, self.line = self.line, deque()
        self.unanswered = 0
        for pending in (*waiting.values(), *line):
            pending.complete(None)

    def _complete(self, tag: int, reply: Message) -> None:
        pending = self._waiting.get(tag)
        if pending is None or pending.request is None:
            raise ProtocolError(f"reply to tag {tag}, which is free")
        if reply.type != pending.request.type + 1 and not isinstance(reply, Rlerror):
            raise ProtocolError(f"{reply!r} does not answer {pending.request!r}")
        count = _donated(reply)
        fds = self._take(count) if count else ()
        del self._waiting[tag]
        self.unanswered -= 1
        if tag < MAX_TAGS:
            self._free.append(tag)
        pending.complete(reply, fds)

    def _take(self, count: int) -> tuple[int, ...]:
        """The descriptors that a reply announces: once one is lost, so are those after it."""
        taken: list[int] = []
        while len(taken) < count:
            if not self._fds:
                for fd in taken:
                    close_quietly(fd)
                raise ProtocolError("a descriptor was announced and did not come")
            fd = self._fds.popleft()
            taken += [fd] if fd >= 0 else [-1] * (count - len(taken))
        return tuple(taken)


_OPENING = (Rwalkx, Rcreatex)
_GIVING = (Rbindx, Rconnectx, Rdupx, Rfifox, Rjournalx, Rnotifyx)


def _donated(reply: Message) -> int:
    """How many descriptors come with it."""
    if isinstance(reply, _OPENING):
        return int(reply.opened == OPENED_DONATED)
    if isinstance(reply, Rsparex):
        return len(reply.blocks)
    return int(isinstance(reply, _GIVING))
