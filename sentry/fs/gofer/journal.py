"""`Journal`: changes that are written into memory shared with the Gofer, which makes them later.

Records are in one order with the messages of the session: the Gofer does what the journal holds
before it answers, so an answer is never older than a record that was there when it was asked for.
An answer that was asked for before is: so nothing is recorded while others wait for one (`open`).

`Spare`: a new file that has no name yet, which the Gofer has made in advance.
"""

from __future__ import annotations

import mmap
import os
import struct
from fcntl import fcntl
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from gofer.p9.attributes import Attributes
from gofer.p9.constants import NOTAG
from gofer.p9.extensions import Rdrainx, Rsparex, Tdrainx, Tsparex
from gofer.p9.fields import ProtocolError
from gofer.p9.journal import JournalFull, JournalWriter
from sentry.abi.fcntl import F_GET_SEALS, F_SEAL_SHRINK
from sentry.errors import EIO, EPROTO, Errno
from sentry.fs.gofer.requests import close_quietly
from sentry.fs.gofer.session import Asked, expect
from sentry.platform.host_io import host_error
from sentry.wait.again import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from gofer.p9.codec import Message
    from sentry.fs.gofer.handles import HandleCache, Timers
    from sentry.fs.gofer.requests import Pending
    from sentry.fs.gofer.session import Session

SPARES: Final = 32
OWNERS: Final = 1024
"""Of which it is known that the host takes them."""
DELAY_NS: Final = 1_000_000_000
"""From the first record to the drain."""
LARGEST: Final = 1 << 24
_FAILURE: Final = struct.Struct("<QI")


class Spare(NamedTuple):
    """A regular file without a name."""

    fid: int
    fd: int
    """To read and write."""
    block: bytes
    """Its attributes."""


class Journal:
    """That of one session, for the attachment whose root `fid` is."""

    __slots__ = (
        "_armed", "_asked", "_draining", "_fid", "_handles", "_memory", "_owners", "_refused",
        "_session", "_spares", "_timers", "_untrusted", "_writer", "makes_spares",
    )  # fmt: skip

    def __init__(
        self, session: Session, fid: int, memory: mmap.mmap, timers: Timers, handles: HandleCache
    ) -> None:
        self._session = session
        self._fid = fid
        self._memory = memory
        self._writer = JournalWriter(memoryview(memory))
        self._timers = timers
        self._handles = handles
        self._spares: list[Spare] = []
        self._asked = 0
        """Spares that are on their way."""
        self.makes_spares = True
        self._armed = self._draining = False
        self._refused: int = 0
        """The first errno that nobody has been told of."""
        self._untrusted: Callable[[], None] = _nothing
        self._owners: set[tuple[int, int]] = set()

    def on_refusal(self, untrusted: Callable[[], None]) -> None:
        """Call this when what was recorded is not what the host has."""
        self._untrusted = untrusted

    # --- owners

    def accepts(self, uid: int, gid: int) -> bool:
        """The host has made a file theirs: with few rights, or ids that have no others there, it
        would not, and nobody would hear of it in time."""
        return (uid, gid) in self._owners

    def accepted(self, uid: int, gid: int) -> None:
        """It just has."""
        if len(self._owners) < OWNERS:
            self._owners.add((uid, gid))

    # --- records

    @property
    def position(self) -> int:
        """The end of what is recorded."""
        return self._writer.position

    def reached(self, position: int) -> bool:
        """What was recorded before is known to be done."""
        return position <= self._writer.executed

    @property
    def open(self) -> bool:
        """Nobody waits for an answer that would be older than a record."""
        session = self._session
        if self._others:
            session.drain()
        return not self._others and not session.dead and not self._memory.closed

    @property
    def _others(self) -> int:
        return self._session.unanswered - self._asked - self._draining

    def record(self, *requests: Message) -> bool:
        """All of them, or none where there is no room: then messages have to do."""
        writer = self._writer
        try:
            writer.append(*[request.encode(NOTAG) for request in requests])
        except JournalFull:
            self._drain()
            return False
        except ProtocolError:
            return False
        if writer.free < 3 * writer.capacity // 4:
            self._drain()
        elif not self._armed:
            self._armed = True
            self._timers.call_at(self._timers.now_ns() + DELAY_NS, self._due)
        return True

    def _due(self) -> None:
        self._armed = False
        if not self.reached(self.position):
            self._drain()

    def _drain(self) -> None:
        """Have it done, without waiting."""
        if self._draining or self._session.dead:
            return
        try:
            asked = self._session.send(Tdrainx())
        except EIO:
            return
        self._draining = True
        self._session.tell(asked, partial(self._drained, asked))

    def _drained(self, asked: Pending) -> None:
        self._draining = False
        try:
            self._take(expect(asked.result(), Rdrainx))
        except Errno:
            return
        if not self.reached(self.position) and not self._armed:
            self._armed = True
            self._timers.call_at(self._timers.now_ns() + DELAY_NS, self._due)

    def _take(self, reply: Rdrainx) -> None:
        try:
            self._writer.reached(max(reply.position, self._writer.executed))
        except ProtocolError:
            self._session.fail()
            return
        if len(reply.failures) >= _FAILURE.size:
            number = _FAILURE.unpack_from(reply.failures)[1]
            self._refused = self._refused or number
            self._untrusted()

    def sync(self) -> None:
        """All of it is with the host, or refused. Raises: EIO, NotNow."""
        if not self.reached(self.position) or kept((self, Tdrainx)) is not None:
            asked: Asked = kept((self, Tdrainx)) or Asked(self._session.send(Tdrainx()))
            self._session.complete(asked, (self, Tdrainx))
            self._take(expect(asked.pending.result(), Rdrainx))

    def tell_refused(self) -> None:
        """Raises: what the host has refused of all this, once."""
        number, self._refused = self._refused, 0
        if number:
            raise host_error(number)

    # --- spares

    def spare(self) -> Spare | None:
        """One that is there."""
        if not self._spares and self._asked:
            self._session.drain()
        if len(self._spares) + self._asked <= SPARES // 2 and self.makes_spares:
            self._ask_for_spares()
        if not self._spares:
            return None
        self._handles.hold(-1)
        return self._spares.pop()

    def give_back(self, spare: Spare) -> None:
        """It was not used."""
        self._handles.hold(1)
        self._spares.append(spare)

    def _ask_for_spares(self) -> None:
        session = self._session
        while len(self._spares) + self._asked < SPARES and self._handles.room():
            fid = session.new_fid()
            try:
                asked = session.send(Tsparex(self._fid, fid))
            except EIO:
                return
            self._asked += 1
            self._handles.hold(1)
            came = partial(self._came, asked, fid)
            if asked.done:
                came()
            else:
                asked.when_done(came)

    def _came(self, asked: Pending, fid: int) -> None:
        self._asked -= 1
        fd = asked.take_fd()
        try:
            reply = expect(asked.result(), Rsparex)
        except Errno:
            self.makes_spares = False
            self._handles.hold(-1)
            self._session.free_fid(fid)
            return
        if fd < 0:
            self._handles.hold(-1)
            self._session.clunk(fid)
            return
        self._spares.append(Spare(fid, fd, reply.block))
        made = Attributes.unpack(reply.block)
        self.accepted(made.uid, made.gid)

    def close(self) -> None:
        """Give back what was not used. What is recorded will be done, and nothing more."""
        self.makes_spares = False
        self._writer.close()
        self._memory.close()
        spares, self._spares = self._spares, []
        for fid, fd, _ in spares:
            close_quietly(fd)
            self._handles.hold(-1)
            self._session.clunk(fid)


def mapped(ring: int) -> mmap.mmap:
    """The memory that came for a journal. Its descriptor is closed. Raises: EPROTO."""
    try:
        size = os.fstat(ring).st_size
        if not mmap.PAGESIZE <= size <= LARGEST:
            raise EPROTO(f"a journal of {size} bytes")
        if not fcntl(ring, F_GET_SEALS) & F_SEAL_SHRINK:
            raise EPROTO("a journal that may be cut while it is written")
        return mmap.mmap(ring, size)
    except OSError as error:
        raise EPROTO("what came is no memory") from error
    finally:
        os.close(ring)


def _nothing() -> None:
    """Nobody trusts it."""
