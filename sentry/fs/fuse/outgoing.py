"""`Outgoing`: what a server is to read, and in which order. fuse_dev_do_read(), sans-io."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from sentry.abi.fuse import (
    FUSE_BATCH_FORGET,
    FUSE_BATCH_FORGET_IN,
    FUSE_FORGET,
    FUSE_FORGET_IN,
    FUSE_FORGET_ONE,
    FUSE_IN_HEADER,
    FUSE_INTERRUPT,
    FUSE_INTERRUPT_IN,
    FUSE_SETXATTR,
)
from sentry.errors import E2BIG, EAGAIN, EIO, Errno
from sentry.fs.fuse.request import HEADER, Device, Request

MANY_FORGETS: Final = 65536
"""Nodes to be forgotten, beyond which a server reads of nothing else."""
FORGETS_IN_A_ROW: Final = 16
REQUESTS_IN_A_ROW: Final = 8
"""How many of either come before one of the other."""
INTERRUPT_BIT: Final = 1
FIRST_UNIQUE: Final = 2
ID_STEP: Final = 2


class Message(NamedTuple):
    """What is read next, and whom to tell: who has read it, or that nobody could."""

    data: bytes
    taken: Callable[[Device], None]
    spoiled: Callable[[], None]


def _nothing(*_: object) -> None:
    """It is read once more; nobody is told."""


class Outgoing:
    """Requests, interruptions of those that were read, nodes to be forgotten."""

    __slots__ = (
        "_in_a_row", "_next_unique", "_read", "_refused", "forgets", "interrupts", "pending",
    )  # fmt: skip

    def __init__(
        self,
        read: Callable[[Request, Device], None],
        refused: Callable[[Request, Errno], None],
    ) -> None:
        self._read = read
        """A request was read,"""
        self._refused = refused
        """or could not be."""
        self.pending = OrderedDict[Request, None]()  # of whose first ones many have gone
        self.interrupts: dict[Request, None] = {}
        self.forgets = OrderedDict[int, int]()
        """How many look-ups of each node."""
        self._in_a_row = FORGETS_IN_A_ROW
        self._next_unique = FIRST_UNIQUE

    def __bool__(self) -> bool:
        return bool(self.pending or self.forgets or self.interrupts)

    def clear(self) -> None:
        """Nobody reads any more."""
        self.pending.clear()
        self.interrupts.clear()
        self.forgets.clear()
        self._read = self._refused = _nothing

    def put_back(self, request: Request) -> None:
        """It was read, and is the first to be read again."""
        self.pending[request] = None
        self.pending.move_to_end(request, last=False)

    def take_unique(self) -> int:
        """A number that no other message has."""
        self._next_unique += ID_STEP
        return self._next_unique - ID_STEP

    def next(self, room: int, *, batches: bool) -> Message:
        """What comes next, in so many bytes; `batches`: the server knows BATCH_FORGET.

        Raises: EAGAIN if there is nothing.
        """
        while True:
            if self.interrupts:
                return self._interrupt(next(iter(self.interrupts)))
            if self.forgets and self._forgets_now():
                return self._forget(room if batches and len(self.forgets) > 1 else 0)
            if not self.pending:
                raise EAGAIN("no request")
            request = next(iter(self.pending))
            if request.size <= room:
                return Message(
                    request.message(), partial(self._taken, request), partial(self._spoil, request)
                )
            del self.pending[request]
            error = E2BIG if request.opcode == FUSE_SETXATTR else EIO
            self._refused(request, error("the server has no room for it"))

    def _taken(self, request: Request, device: Device) -> None:
        del self.pending[request]
        self._read(request, device)

    def _spoil(self, request: Request) -> None:
        del self.pending[request]
        self._refused(request, EIO("could not be read"))

    def _interrupt(self, request: Request) -> Message:
        body = FUSE_INTERRUPT_IN.pack(request.unique)
        data = _message(FUSE_INTERRUPT, request.unique | INTERRUPT_BIT, 0, body)
        return Message(data, lambda _: self.interrupts.pop(request), _nothing)

    def _forgets_now(self) -> bool:
        if not self.pending or len(self.forgets) > MANY_FORGETS:
            return True
        self._in_a_row -= 1
        if self._in_a_row <= -REQUESTS_IN_A_ROW:
            self._in_a_row = FORGETS_IN_A_ROW
        return self._in_a_row >= 0

    def _forget(self, room: int) -> Message:
        """As many as there is room for; one if there is none."""
        if not room:
            nodeid, count = next(iter(self.forgets.items()))
            data = _message(FUSE_FORGET, self.take_unique(), nodeid, FUSE_FORGET_IN.pack(count))
            return Message(data, partial(self._forgotten, [nodeid]), _nothing)
        most = (room - HEADER - FUSE_BATCH_FORGET_IN.size) // FUSE_FORGET_ONE.size
        some = [item for item, _ in zip(self.forgets.items(), range(most), strict=False)]
        body = FUSE_BATCH_FORGET_IN.pack(len(some), 0)
        body += b"".join(FUSE_FORGET_ONE.pack(*item) for item in some)
        data = _message(FUSE_BATCH_FORGET, self.take_unique(), 0, body)
        return Message(data, partial(self._forgotten, [nodeid for nodeid, _ in some]), _nothing)

    def _forgotten(self, nodeids: list[int], _: Device) -> None:
        for nodeid in nodeids:
            del self.forgets[nodeid]


def _message(opcode: int, unique: int, nodeid: int, body: bytes) -> bytes:
    return FUSE_IN_HEADER.pack(HEADER + len(body), opcode, unique, nodeid, 0, 0, 0, 0, 0) + body
