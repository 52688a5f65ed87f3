"""`Journal`: what a client has left in shared memory to be done, and the doing of it.

The client (the Sentry) is hostile: it may write what it likes into the ring, while it is read, and
make the file behind it shorter. So the ring is read by pread(2), each record once, into bytes of
this process (`Records`), and a record is a request like any other: what C does not carry out comes
to the same handlers, with the same checks and the same root. All that it may do there it might do
by a message, too.

What the client has written in whole when it ends is still done: see `Connection.close`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Final, Protocol

from gofer.conflicts import settled
from gofer.fid import FidTable
from gofer.native import error
from gofer.node import Node, NodeTable, identity_of
from gofer.p9.codec import Message
from gofer.p9.constants import NOFID
from gofer.p9.extensions import Rdrainx, Rmakex, Rwalkx
from gofer.p9.fields import ProtocolError
from gofer.p9.messages import Rlerror, Tclunk
from gofer.records import Records, Spares
from gofer.replies import Reply

MAX_FAILURES: Final = 64
"""Of which is told where they were."""
_HEARS_EVERY: Final = 1024
"""Records: the host's queue of changes has room for those of more."""
_FAILURE: Final = struct.Struct("<QI")
_MADE: Final = struct.Struct("<QQQ")


class Session(Protocol):
    """Whose journal it is (gofer.connection)."""

    fids: FidTable
    sock: socket.socket
    table: NodeTable

    def perform(self, request: Message) -> Reply: ...
    def hear(self) -> None: ...
    def log(self, text: str) -> None: ...


class Journal:
    """The one of a server, for the first session that asks."""

    __slots__ = (
        "_failures", "_fd", "_lost", "_made", "_owner", "_records", "capacity"
    )  # fmt: skip

    def __init__(self, fd: int) -> None:
        """`fd`: a file in memory, as long as the ring; -1: there is no journal."""
        self._fd = fd
        self.capacity = os.fstat(fd).st_size if fd >= 0 else 0
        self._owner: Session | None = None
        self._records: Records | None = None
        """None: nobody has one, or what was in it was no journal."""
        self._failures: list[bytes] = []
        self._lost = 0
        self._made: list[bytes] = []

    def descriptor(self, owner: Session) -> int:
        """A copy of its descriptor for a session. Raises: EOPNOTSUPP, EBUSY.

        It is given once: what one session has written would be valid in the next one's, too.
        """
        if not self.capacity:
            raise error(errno.EOPNOTSUPP)
        if self._owner is not None:
            raise error(errno.EBUSY)
        copy = fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 0)
        self._owner = owner
        self._records = Records(self._fd, self.capacity)
        owner.fids.spares = Spares(self._records, owner.table)
        return copy

    def belongs_to(self, session: Session) -> bool:
        """Whether that session has it."""
        return self._owner is session

    def drain(self) -> None:
        """Carry out what is there. One lap at most: a client that goes on writing has to ask again.

        Raises: ProtocolError, after what came before the record that is none.
        """
        records, session = self._records, self._owner
        if records is None or session is None:
            return
        good = records.read()
        if len(records):
            good = records.sort() and good
            self._carry_out(session, records)
            session.fids.spares_gone()
        if not good:
            self._records = None
            raise ProtocolError("no record of a journal")

    def reached(self, room: int) -> Rdrainx:
        """How far it is drained, and what came of it. Raises: EBADF."""
        if self._records is None:
            raise error(errno.EBADF)
        failures, lost, made = b"".join(self._failures), self._lost, b"".join(self._made)
        self._failures, self._lost, self._made = [], 0, []
        return Rdrainx(self._records.position, failures, lost, made, room)

    def _carry_out(self, session: Session, records: Records) -> None:
        at = heard = 0
        sock = session.sock.fileno()
        while at < len(records):
            at = records.run(session.table.hot, sock, at, heard + _HEARS_EVERY - at)
            if at == heard + _HEARS_EVERY:
                session.hear()
                heard = at
            elif at < len(records):
                position, request = records[at]
                number = self._do(session, position, request)
                if number and not isinstance(request, Tclunk):  # of what was never bound: no loss
                    self._failed(session, position, number, request)
                at += 1

    def _do(self, session: Session, position: int, request: Message) -> int:
        """0, or the errno."""
        reply = session.perform(request)
        if isinstance(reply, Rlerror):
            better = settled(session, request, reply.ecode)
            if better is not None:
                what = f"{type(request).__name__} {_where(session, request)!r}"
                session.log(f"journal: {what}: the host has changed it, too, and gives way")
                reply = better
        if isinstance(reply, Rmakex) and len(self._made) < self.capacity // _MADE.size:
            self._made.append(_MADE.pack(position, *identity_of(reply.block)))
        number = reply.ecode if isinstance(reply, Rlerror) else 0
        if isinstance(reply, Rwalkx):
            number = reply.error
        return number

    def _failed(self, session: Session, position: int, number: int, request: Message) -> None:
        what = f"{type(request).__name__} {_where(session, request)!r}"
        session.log(f"journal: {what}: {os.strerror(number)}")
        if len(self._failures) < MAX_FAILURES:
            self._failures.append(_FAILURE.pack(position, number))
        else:
            self._lost += 1


def _where(session: Session, request: Message) -> bytes:
    """A path for the log, from the root of the attachment: of names as they are known here."""
    fid = getattr(request, "newdirfid", getattr(request, "dirfd", getattr(request, "fid", NOFID)))
    name = getattr(request, "newname", getattr(request, "name", b""))
    if fid not in session.fids:
        return b"?/" + bytes(name)
    names = [name]
    at: Node | None = session.fids.get(fid).node
    while at is not None and at.parent is not None:
        names.append(at.name)
        at = at.parent
    return b"/" + b"/".join(reversed(names))
