"""`Journal`: changes that are written into memory shared with the Gofer, which makes them later.

Records are in one order with the messages of the session: the Gofer does what the journal holds
before it answers, so an answer is never older than a record that was there when it was asked for.
An answer that was asked for before is: so nothing is recorded while others wait for one (`open`).

What records make has no number of the host's until they are done (`made`): it is told before any
answer that may show it, since a message takes a Tdrainx before it where something is to be made.
"""

from __future__ import annotations

import mmap
import os
import struct
from _weakref import ref
from bisect import bisect_right
from collections import deque
from fcntl import fcntl
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from gofer.p9 import constants as c
from gofer.p9.constants import NOID, NOTAG
from gofer.p9.extensions import (
    Rdrainx,
    Tdrainx,
    Tlinkx,
    Tmakex,
    Tnamex,
    Trenamex,
    Trevertx,
    Tsparex,
)
from gofer.p9.fields import ProtocolError
from gofer.p9.messages import Tclunk
from sentry.abi.fcntl import F_GET_SEALS, F_SEAL_SHRINK
from sentry.abi.layout import Record
from sentry.errors import EIO, EPROTO, Errno
from sentry.fs.gofer.session import Asked, expect
from sentry.fs.gofer.spares import SPARES, Spare, Spares
from sentry.platform.records import ATTRIBUTES, FID, JournalFull, JournalWriter
from sentry.suppress import suppress
from sentry.wait.again import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from gofer.p9.codec import Message
    from sentry.fs.gofer.handles import HandleCache, Timers
    from sentry.fs.gofer.requests import Pending
    from sentry.fs.gofer.session import Session
    from sentry.vfs.interface import Attributes

OWNERS: Final = 1024
"""Of which it is known that the host takes them."""
DELAY_NS: Final = 1_000_000_000
"""From the first record to the drain."""
LOOKS: Final = 4
"""Files that are made between two looks whether something has come."""
NAMES: Final = 1536
"""Files that get one before the Gofer is told to go on, which holds a descriptor of each."""
SCARCE: Final = 256
"""Room for fewer changes: files in advance would take what programs need."""
LARGEST: Final = 1 << 24
_FAILURE: Final = struct.Struct("<QI")
_GROWING: Final = (Tlinkx, Tmakex, Tnamex, Trenamex)
"""What takes room."""
_LEAST: Final = 32
"""Bytes of a record of those at least."""
_MADE: Final = struct.Struct("<QQQ")


Put: TypeAlias = "Callable[..., int]"
"""What puts a record into a ring, or gives 0: sentry.platform.records."""


class Inode(Protocol):
    """What records are about (sentry.fs.gofer.inode)."""

    fid: int
    gone: bool

    def known_attributes(self) -> Attributes | None: ...
    def changed(self) -> None: ...


class Behind(Protocol):
    """Whose records they are."""

    def arrived(self, inode: Any, ino: int) -> None:
        """The host has made it, with this number."""

    def unmade(self, inode: Any) -> None:
        """The host has not made it: it was removed before, or refused. None: nobody has it."""

    def refused(self, entry: Entry, number: int) -> None:
        """The host has not made a change, with this errno."""

    def distrust(self, number: int) -> None:
        """Nor one of which nobody knows whose it was."""


class Entry(Record):
    """Records of one operation."""

    start: int
    end: int
    inodes: tuple[ref[Any], ...]
    """What they are about. Who removes a file may want its room at once: nobody holds it."""
    new: ref[Any] | None
    """A file that gets its first name."""


class Journal:
    """That of one session, for the attachment whose root `fid` is, on the device `dev`."""

    __slots__ = (
        "_armed", "_behind", "_closed", "_copied", "_covered", "_draining", "_ended", "_entries",
        "_executed", "_fid", "_freed", "_fresh", "_half", "_held", "_last", "_looked", "_looks",
        "_makes", "_memory", "_named", "_new", "_owners", "_ring", "_room", "_session", "_timers",
        "_touched", "_writer", "dev", "position", "spares",
    )  # fmt: skip

    def __init__(
        self, session: Session, root: tuple[int, int], memory: mmap.mmap, timers: Timers,
        handles: HandleCache, behind: Behind,
    ) -> None:  # fmt: skip
        """`root`: its fid and its device."""
        self._session = session
        self._fid, self.dev = root
        """What lies on another device is not recorded."""
        self._memory = memory
        self._writer = JournalWriter(memory)
        self._ring = self._writer.ring
        self.position = self._ring.position
        """The end of what is recorded, and what is known to be done, as the ring has them."""
        self._executed = self._ring.executed
        self._half = self._writer.free // 2
        self._closed = False
        self._timers = timers
        self._behind = behind
        self.spares = Spares(session, root, handles, self.accepted, self.has_room)
        self._room = 0
        """For so many changes more the host certainly has room."""
        self._copied: deque[tuple[int, int]] = deque()
        """Where records begin that take more room than one change each, and how much more."""
        self._armed = False
        self._ended = False
        """Nothing more is recorded."""
        self._draining = 0
        """Tdrainx under way."""
        self._covered = 0
        """What begins before this is done before the last of them is answered."""
        self._last = (0, 0)
        """Where the last records begin and end."""
        self._entries: deque[Entry] = deque()
        """Those that are not known to be done."""
        self._owners: set[tuple[int, int]] = set()
        self._touched: dict[Inode, None] = {}
        """Directories that have had other times told than those of the host."""
        self._makes: dict[int, ref[Inode]] = {}
        """What is to be made, by where the record begins."""
        self._fresh: dict[Inode, Spare] = {}
        """New files of which the Gofer cannot have heard, and what they were made of."""
        self._new: set[Inode] = set()
        """New files of which nobody has asked the Gofer anything yet."""
        self._looks = 0
        """For answers, where something was asked for and nobody waits."""
        self._looked = 0
        """Messages before which the Gofer looks at the journal,"""
        self._named = 0
        """and the files that have got a name since the last one, and are no spares again."""
        self._freed: deque[tuple[int, int]] = deque()
        """Numbers of fids that end before a position, and can be used when that is reached."""
        self._held: set[Inode] = set()
        """Of these what has a name: the number that was told is nowhere else."""
        session.recorder = self

    # --- owners

    def accepts(self, uid: int, gid: int) -> bool:
        """The host has made a file theirs: with few rights, or ids that have no others there, it
        would not, and nobody would hear of it in time."""
        return (uid, gid) in self._owners

    def accepted(self, uid: int, gid: int) -> None:
        """It just has."""
        if len(self._owners) < OWNERS:
            self._owners.add((uid, gid))

    # --- room

    def has_room(self, room: int) -> None:
        """For so many changes, when what is known to be done was."""
        copied, executed = self._copied, self._executed
        while copied and copied[0][0] < executed:
            copied.popleft()
        pending = (self.position - executed) // _LEAST + sum(more for _, more in copied)
        self._room = room - pending
        self.spares.scarce(self._room < SCARCE)

    def full(self) -> None:
        """Something else has found none: only the host knows now."""
        self._room = 0
        self.spares.scarce(True)

    # --- records

    def reached(self, position: int) -> bool:
        """What was recorded before is known to be done."""
        return position <= self._executed

    @property
    def open(self) -> bool:
        """Nobody waits for an answer that would be older than a record."""
        session = self._session
        if self._ended:
            return False
        if session.unanswered != self.spares.asked + self._draining:
            session.drain()
            if session.unanswered != self.spares.asked + self._draining:
                return False
        return not session.dead and not self._closed

    def record(self, *requests: Message, copied: int = 0) -> bool:
        """All of them, or none where there is no room: then messages have to do. `copied`: what
        they take besides (sentry.fs.gofer.layers)."""
        need = copied
        for request in requests:
            need += isinstance(request, _GROWING)
        if not self._has_room_for(need):
            return False
        start = self.position
        try:
            end = self._writer.append(*[request.encode(NOTAG) for request in requests])
        except JournalFull:
            self._drain()
            return False
        except ProtocolError:
            return False
        self._recorded(start, end, need, copied)
        return True

    def put(self, kind: Put, fields: tuple[Any, ...], grows: int = 0, copied: int = 0) -> bool:
        """The same of one request, which is never made as one (sentry.platform.records): its kind
        and fields. `grows`: whether it takes room itself."""
        if not self._has_room_for(grows + copied):
            return False
        start = self.position
        size = kind(self._ring, *fields)
        if not size:
            self._drain()
            return False
        self._recorded(start, start + size, grows + copied, copied)
        return True

    def _put_beside(self, kind: Put, fields: tuple[Any, ...]) -> bool:
        """The same of a request that nobody is told about. It may come between another one and
        `about`, as a fid does that a finalizer ends: that one stays the last."""
        last = self._last
        is_there = self.put(kind, fields)
        self._last = last
        return is_there

    def _has_room_for(self, need: int) -> bool:
        if self._ended or self._closed:
            return False
        if need and need > self._room:
            self._drain()
            return False
        return True

    def _recorded(self, start: int, end: int, need: int, copied: int) -> None:
        self.position += end - start
        self._room -= need
        if copied:
            self._copied.append((start, copied))
        if end - self._executed > self._half:
            self._drain()
        elif not self._armed:
            self._armed = True
            self._timers.call_at(self._timers.now_ns() + DELAY_NS, self._due)
        self._last = start, end

    def about(self, *inodes: Inode, new: Inode | None = None) -> None:
        """What was recorded last is about these, and they are told if it is refused."""
        found = tuple(map(ref, inodes))
        start, end = self._last
        self._entries.append(
            tuple.__new__(Entry, (start, end, found, None if new is None else ref(new)))
        )

    def touched(self, directory: Inode) -> None:
        """Its names are changed by records, and the host will take its own time for that."""
        self._touched[directory] = None

    def settle(self, directory: Inode) -> None:
        """Record the times that were told, if they may be other ones at the host."""
        if directory not in self._touched:
            return
        del self._touched[directory]
        if directory.gone:
            return
        known = directory.known_attributes()
        if known is None or directory.fid < 0 or not self.accepts(known.uid, known.gid):
            directory.changed()
            return
        times = known.atime_ns, known.mtime_ns
        valid = c.SETATTR_MTIME | c.SETATTR_MTIME_SET
        if not self._put_beside(ATTRIBUTES, (directory.fid, b"", 0, valid, 0, NOID, NOID, *times)):
            directory.changed()

    def _settle_all(self) -> None:
        while self._touched:
            self.settle(next(iter(self._touched)))

    @property
    def makes(self) -> int:
        """How much is recorded whose number the host has not told yet."""
        return len(self._makes)

    def unmade(self) -> list[Inode | None]:
        """What that is, as far as it is still there."""
        return [made() for made in self._makes.values()]

    def made(self, position: int, inode: Inode) -> None:
        """The record that begins there makes this."""
        self._makes[position] = ref(inode)
        self._held.add(inode)

    def let_go(self, inode: Inode) -> None:
        """It has no name any more."""
        self._held.discard(inode)
        self._new.discard(inode)
        self.told(inode)

    def doubted(self, inode: Inode) -> None:
        """Others may have changed it: it may not be what was recorded."""
        self._new.discard(inode)
        self.told(inode)

    # --- spares that come back

    def moment(self) -> int:
        """What is recorded now the Gofer does not look at before the next message; -1: it may."""
        session, spares = self._session, self.spares
        if session.unanswered <= spares.asked:
            return self._looked
        self._looks += 1
        if self._looks % LOOKS == 0:
            session.drain()
        return -1 if session.unanswered > spares.asked else self._looked

    def made_of(self, inode: Inode, spare: Spare, moment: int) -> None:
        """What was recorded at this moment makes this of a spare."""
        self._new.add(inode)
        if moment == self._looked:
            self._fresh[inode] = spare
        else:
            self._free(spare.fid)

    def named(self) -> None:
        """A file has got its name, and all that is to be said of the record is said."""
        self._named += 1
        most = min(max(self.spares.together - 2 * SPARES, SPARES // 2), NAMES)
        if self._named > most and not self._draining:
            self.spares.ask(SPARES + self._named // 4)  # so many are used meanwhile
            self._drain()

    def _free(self, fid: int) -> None:
        """What is recorded has ended it."""
        self._freed.append((self.position, fid))

    def is_new(self, inode: Any) -> bool:
        """It is what was recorded of it: nobody has asked the Gofer for a change since."""
        return inode in self._new

    def is_fresh(self, inode: Any) -> bool:
        """The Gofer cannot have heard of it."""
        return inode in self._fresh

    def told(self, inode: Inode) -> None:
        """Something else is recorded of it."""
        spare = self._fresh.pop(inode, None)
        if spare is not None:
            self._free(spare.fid)

    def reverts(self, inode: Inode) -> Spare | None:
        """Record that it has never been anything but a spare, if the Gofer has not heard of it."""
        spare = self._fresh.pop(inode, None)
        if spare is None:
            return None
        if self.spares.wanted and self.put(FID, (Trevertx.type, spare.fid)):
            return spare
        self._free(spare.fid)
        return None

    def comes_back(self, spare: Spare, fd: int) -> None:
        """One that was reverted, with its descriptor, empty; -1: it cannot be used again."""
        if fd >= 0:
            self._named -= 1
            self.spares.give_back(Spare(spare.fid, fd, spare.block))
        else:
            self._session.clunk(spare.fid)

    def _due(self) -> None:
        self._armed = False
        self.hurry()

    def hurry(self) -> None:
        """Have what is recorded done, without waiting."""
        if not self.reached(self.position):
            self._drain()

    def _drain(self) -> None:
        """Have it done, without waiting."""
        if not self._draining:
            self._have_done()

    def _have_done(self) -> None:
        with suppress(EIO):
            self._session.tell(self._ask(), _nothing)

    def _ask(self) -> Pending:
        self._draining += 1
        try:
            asked = self._session.send(Tdrainx(self._fid))
        except EIO:
            self._draining -= 1
            raise
        asked.heard = partial(self._drained, asked)
        return asked

    def ends(self, fid: int) -> bool:
        """Whether it is recorded, in place of a message whose answer nobody waits for."""
        others = self._session.unanswered - self.spares.asked - self._draining
        if others > 0 or self._session.dead or self._closed:
            return False
        if not self._put_beside(FID, (Tclunk.type, fid)):
            return False
        self._free(fid)
        return True

    def before(self, request: Message) -> None:
        """A message is about to be sent."""
        if isinstance(request, Tsparex):
            return
        self._looked += 1
        self._named = 0
        for inode in list(self._fresh):
            self.told(inode)
        if self._closed:
            return
        self._new.clear()
        self._settle_all()
        if isinstance(request, Tdrainx):
            self._covered = self.position
        elif self._makes and next(reversed(self._makes)) >= self._covered:
            self._have_done()

    def _drained(self, asked: Pending) -> None:
        self._draining -= 1
        try:
            self._take(expect(asked.result(), Rdrainx))
        except Errno:
            return
        if not self.reached(self.position) and not self._armed:
            self._armed = True
            self._timers.call_at(self._timers.now_ns() + DELAY_NS, self._due)

    def _take(self, reply: Rdrainx) -> None:
        try:
            self._writer.reached(max(reply.position, self._executed))
        except ProtocolError:
            self._session.fail()
            return
        self._executed = self._writer.executed
        self.has_room(reply.room)
        made = self._take_made(reply)
        freed = self._freed
        while freed and freed[0][0] <= self._executed:
            self._session.free_fid(freed.popleft()[1])
        entries, done = self._entries, []
        while entries and entries[0].end <= self._executed:
            done.append(entries.popleft())
        if reply.failures or reply.lost:
            self._touched.clear()
            self._take_refused(reply, done)
        self._held.difference_update(made)  # who is not held any more has heard what was refused

    def _take_refused(self, reply: Rdrainx, done: list[Entry]) -> None:
        whole = len(reply.failures) - len(reply.failures) % _FAILURE.size
        starts = [entry.start for entry in done]
        stray = EIO.number if reply.lost else 0
        for position, number in _FAILURE.iter_unpack(reply.failures[:whole]):
            at = bisect_right(starts, position) - 1
            if at >= 0 and position < done[at].end:
                self._behind.refused(done[at], number)
            else:
                stray = stray or number
        if reply.lost and done:  # each file once, of however many records
            known = {found(): found for entry in done for found in entry.inodes}
            known.pop(None, None)
            refused = done[0]._replace(inodes=tuple(known.values()), new=None)
            self._behind.refused(refused, EIO.number)
        if stray:
            self._behind.distrust(stray)

    def _take_made(self, reply: Rdrainx) -> list[Inode]:
        """What is made now, or never will be."""
        found: list[Inode] = []
        whole = len(reply.made) - len(reply.made) % _MADE.size
        made = {at: (dev, ino) for at, dev, ino in _MADE.iter_unpack(reply.made[:whole])}
        makes = self._makes
        while makes and (position := next(iter(makes))) < self._executed:
            inode = makes.pop(position)()
            dev, ino = made.pop(position, (self.dev, 0))
            if dev != self.dev:
                self._session.fail()
            elif ino and inode is not None:
                self._behind.arrived(inode, ino)
            else:
                self._behind.unmade(inode)
            if inode is not None:
                found.append(inode)
        if made or whole < len(reply.made):
            self._session.fail()
        return found

    def sync(self) -> None:
        """All of it is with the host, or refused. Raises: EIO, NotNow."""
        asked: Asked | None = kept((self, Tdrainx))
        if asked is None and self.reached(self.position):
            return
        asked = asked or Asked(self._ask())
        self._session.complete(asked, (self, Tdrainx))
        asked.pending.result()

    def end(self) -> None:
        """Nothing more is recorded: what programs do is a message from now on. What is recorded is
        done before that."""
        self._settle_all()
        self._ended = True
        self.spares.close()

    def close(self) -> None:
        """What is recorded will be done, and nothing more."""
        self._session.recorder = None
        self._closed = True
        self._writer.close()
        self._memory.close()
        self.spares.close()


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
    """It was heard."""
