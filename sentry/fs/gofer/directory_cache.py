"""`DirectoryCache`: what is known of a directory's names, and how it is found out.

`names` says what the names were found to mean; in exclusive mode that is the truth until the Sentry
changes it, in shared mode `trust` says which of them are (see `watched`). `listing` is a complete
one; in exclusive mode with the attributes that came with it: a walk after `ls` makes no request.
`generation` tells a lookup that was asleep that names have changed meanwhile.
"""

from __future__ import annotations

import stat as modes
import struct
from _weakref import ref
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.constants import DONATE_IF_REGULAR, MAX_WALK, NOFID, NOOPEN
from gofer.p9.extensions import (
    Rinheritx,
    Rreaddirx,
    Rwalkx,
    Tinheritx,
    Treaddirx,
    Twalkx,
)
from gofer.p9.fields import ATTR_SIZE
from sentry.abi.fcntl import O_RDONLY
from sentry.abi.layout import Record
from sentry.errors import EIO, ENOENT, ESTALE, Errno
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.known import Moment
from sentry.fs.gofer.session import Asked, expect, found_by
from sentry.fs.gofer.watched import HeardDirectory, Listed
from sentry.platform.host_io import host_error
from sentry.suppress import suppress
from sentry.vfs.dirents import Dirents
from sentry.vfs.interface import ABSENT, Absent, DirEntry, Inode
from sentry.wait.again import CURRENT, NotNow, kept

if TYPE_CHECKING:
    from sentry.fs.gofer.requests import Pending

_TAIL = struct.Struct("<QH")
_MAX_ENTRIES = 1 << 20
SMALL_BYTES = 4096
"""A block of ext4, two hundred names of tmpfs."""


class Lookup(Record):
    """What was so when a name was asked for, and what was asked along with it."""

    generation: int
    moment: Moment
    trust: Pending | None
    known: GoferInode | None
    """What had the name, and how often that had become unsure:"""
    doubts: int
    watch: Pending | None
    """For that."""


class Reading(Record):
    """A listing on its way."""

    listing: dict[bytes, Listed]
    offset: int
    generation: int
    moment: Moment
    trust: Pending | None
    """When it began."""


class DirectoryCache(HeardDirectory):
    """A directory of the host whose names are looked up."""

    __slots__ = ()

    # --- fids

    def directory_fid(self) -> int:
        """Its fid; walked to anew from the nearest ancestor that has one."""
        if self.fid >= 0:
            self.sb.fids.used(self)
            return self.fid
        chain: list[DirectoryCache] = []
        at: DirectoryCache = self
        while at.fid < 0:
            if at.parent is None or at.gone:
                raise ESTALE(f"ino {at.ino} has no name any more")
            chain.append(at)
            at = at.parent
        chain.reverse()
        for start in range(0, len(chain), MAX_WALK):
            at = self._walk_down(at, chain[start : start + MAX_WALK])
        return self.fid

    def _walk_down(self, at: DirectoryCache, chain: list[DirectoryCache]) -> DirectoryCache:
        session, last = self.sb.session, chain[-1]
        key = last, NOFID
        asked: Asked | None = kept(key)
        if asked is None:
            names = [directory.name for directory in chain]
            if last.is_unmade and self._walk_behind(at.fid, last, names):
                return last
            bound = session.new_fid()
            walk = session.send(Twalkx(at.fid, bound, NOOPEN, 0, names))
            asked = Asked(walk, bound, partial(session.unwanted, bound))
        session.complete(asked, key)
        bound = asked.extra
        reply = expect(asked.pending.result(), Rwalkx)
        if reply.error:
            session.free_fid(bound)
            raise host_error(reply.error)
        try:
            last.check_same(found_by(reply))
        except (EIO, ESTALE):
            session.clunk(bound)
            raise
        if last.fid >= 0:  # another call was faster
            session.clunk(bound)
        else:
            last.fid = bound
            self.sb.fids.bound(last)
        return last

    def _walk_behind(self, fid: int, last: DirectoryCache, names: list[bytes]) -> bool:
        """Whether a record gives it its fid."""
        journal, session = self.sb.journal, self.sb.session
        if journal is None or not journal.open:
            return False
        bound = session.new_fid()
        if not journal.record(Twalkx(fid, bound, NOOPEN, 0, names)):
            session.free_fid(bound)
            return False
        last.fid = bound
        self.sb.fids.bound(last)
        return True

    # --- what is known of the names

    def remember(self, name: bytes, inode: GoferInode) -> None:
        """`name` was found to be `inode`."""
        inode.anchor(self, name)
        if name not in self.names:
            self.sb.count_name()
        self.names[name] = ref(inode)

    def added(self, name: bytes, inode: GoferInode) -> None:
        """The Sentry has made a name."""
        self.names_changed()
        self.remember(name, inode)
        if self.listing is not None:
            entry = tuple.__new__(DirEntry, (name, inode.ino, inode.kind))
            self.listing[name] = (entry, None)
            self.sb.has_listed(self, len(self.listing))

    def removed(self, name: bytes) -> None:
        """The Sentry has removed a name."""
        self.names_changed()
        if name not in self.names:
            self.sb.count_name()
        self.names[name] = ABSENT
        if self.listing is not None:
            self.listing.pop(name, None)
            self.sb.has_listed(self, len(self.listing))

    def knows(self, name: bytes) -> bool:
        """What it means is in memory, also if it is absent."""
        return self.lookup_cached(name) is not None

    def names_changed(self) -> None:
        """Lookups under way are not to be remembered; times and nlink are other ones now."""
        self.generation += 1
        self._dirents = None
        self.changed()

    def made_here(self, parent: DirectoryCache) -> None:
        """The Sentry has just made it: all of its names are known."""
        self.listing = {}
        self.sb.listed(self, 0)
        if parent._bequeaths is False:
            self._bequeaths = False

    def bequeaths(self) -> bool:
        """What is made in it gets something that spares, which are made in the root of the
        attachment, have not, or these have something: by a default ACL, or a project (quotactl(2)).
        Asked once."""
        root = self.sb.root
        if (
            root is not self and isinstance(root, DirectoryCache) and root.default is not None
            and root.bequeaths()
        ):  # fmt: skip
            return True
        if self._bequeaths is None:
            try:
                asked = Tinheritx(self.directory_fid())
                reply = expect(self.sb.session.reply((self, Tinheritx), asked), Rinheritx)
                self._bequeaths = bool(reply.differs)
            except Errno:
                self._bequeaths = True
        return self._bequeaths

    def distrusted(self) -> None:
        super().distrusted()
        self._forget_names()
        self.sb.fids.give_back(self)  # it may never have been bound

    # --- walking

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:
        if not self.sb.exclusive:
            return None if self.trust is None else self.trusted(name, True)
        found = self.names.get(name)
        if found is not None:
            if found is ABSENT:
                return ABSENT
            assert not isinstance(found, Absent)
            inode = found()
            if inode is not None:
                if inode.parent is None:  # it was known by a name that is gone
                    inode.anchor(self, name)
                return inode
        if self.listing is None:
            return None
        listed = self.listing.get(name)
        if listed is None:
            return ABSENT
        block = listed[1]
        return None if block is None else self.sb.inodes.from_listing(block, self, name)

    def name_cached(self, name: bytes) -> Inode | Absent | None:
        if self.sb.exclusive or self.trust is None:
            return self.lookup_cached(name)
        return self.trusted(name, bool(self.mode & 0o1000))

    def trusted(self, name: bytes, whole: bool) -> Inode | Absent | None:
        """What `name` certainly means; `whole`: with the attributes that a walk looks at."""
        changes, trust = self.sb.changes, self.trust
        assert changes is not None and trust is not None
        changes.look()
        if not trust.sure:
            return None
        trust.used = True
        if name not in trust.names:
            if self.listing is None or name in self.listing or name in trust.changing:
                return None
            return ABSENT
        found = self.names.get(name)
        if found is None or isinstance(found, Absent):
            return found
        inode = found()
        if inode is None or inode.parent is None or (whole and not inode.current()):
            return None
        inode.anchor(self, name)  # the host may have removed the name it was seen by last
        return inode

    def may_be_made(self, name: bytes) -> bool:
        trust = self.trust
        if trust is None or self.sb.exclusive or self.listing is not None:
            return False
        if name in trust.names or name in trust.changing:
            return False
        trust.changes.look()
        return trust.sure

    def lookup(self, name: bytes, opens: bool = False) -> Inode | Absent:
        if self.gone:
            return ABSENT
        fs, session = self.sb, self.sb.session
        asked: Asked | None = kept((self, name))
        if asked is None:
            known = self._by_listing(name)
            if known is not None:
                return known
            asked = self._ask_for(name, opens)
        session.complete(asked, (self, name))
        pending, was = asked.pending, asked.extra
        epoch = was.moment[0]
        reply = expect(pending.result(), Rwalkx)
        if was.trust is not None:
            self.take_trust(was.trust, was.moment)
        if was.watch is not None:
            was.known.take_trust(was.watch, (epoch, was.doubts))
        changed = was.generation != self.generation
        if changed and fs.exclusive:
            again = self.lookup_cached(name)
            return again if again is not None else self._ask_anew(name)
        found: GoferInode | Absent = ABSENT
        if reply.blocks and reply.error != ENOENT.number:
            found = fs.inodes.inode_of(WireAttributes.unpack(reply.blocks[-1]), self, name)
            found.looked_up(reply, pending.take_fd())
            found.taken((epoch, was.doubts if found is was.known else found.doubts))
        if found is ABSENT:
            if reply.error != ENOENT.number:
                raise host_error(reply.error) if reply.error else EIO("a walk without attributes")
            if name not in self.names:
                fs.count_name()
            self.names[name] = ABSENT
            self.misses += 1
        trust = self.trust
        if trust is not None and epoch == fs.epoch and not (changed or name in trust.changing):
            trust.names.add(name)
        return found

    def _by_listing(self, name: bytes) -> Inode | Absent | None:
        """Of a small directory in which names were looked for that are not there, as those of new
        files are: a listing tells of all of them. The more seldom, the less it holds."""
        if self.trust is None or self.listing is not None:
            return None
        if self.misses < self.patience or self.attributes.size > SMALL_BYTES:
            return None
        with suppress(Errno):
            self._read_listing()
        self.misses, self.patience = 0, 2 * self.patience
        return self.lookup_cached(name)

    def _ask_for(self, name: bytes, opens: bool) -> Asked:
        session = self.sb.session
        flags, donate = NOOPEN, 0
        if self._brings_descriptor(name, opens):
            flags, donate = O_RDONLY, DONATE_IF_REGULAR
        fid = self.directory_fid()
        trust = self.ask_for_trust(fid)
        known, watch = self.known(name), None
        if known is not None and self.trust is not None and name in self.trust.names:
            watch = known.ask_for_watch((fid, name))
        pending = session.send(Twalkx(fid, NOFID, flags, donate, [name]))
        doubts = known.doubts if known is not None else 0
        return Asked(
            pending, Lookup(self.generation, self.moment, trust, known, doubts, watch)
        )

    def _brings_descriptor(self, name: bytes, opens: bool) -> bool:
        if not opens:
            return self.worth_opening(name)
        known = self.known(name)
        return self.sb.keeps_descriptors if known is None else known.wants_descriptor()

    def _ask_anew(self, name: bytes) -> Inode | Absent:
        """The answer is from before a change of names."""
        call = CURRENT.call
        if call is not None:
            call.answers.pop((self, name), None)
        return self.lookup(name)

    def entries(self) -> Iterator[DirEntry]:
        self._look()
        if self.listing is not None:
            return (entry for entry, _ in list(self.listing.values()))
        if self.gone:
            return iter(())
        return (entry for entry, _ in list(self._read_listing().values()))

    def dirents(self) -> Dirents:
        self._look()
        if self._dirents is None:
            generation = self.generation
            made = Dirents(self.entries(), names=len(self.listing or ()))
            if self.listing is None or generation != self.generation:
                return made
            self._dirents = made
        return self._dirents

    def _look(self) -> None:
        """What is kept of a shared tree is right after this."""
        if self.trust is not None:
            self.trust.changes.look()
            self.trust.used = True

    def _read_listing(self) -> dict[bytes, Listed]:
        fid = self.directory_fid()
        session = self.sb.session
        reading: Reading | None = kept((self, Treaddirx))
        if reading is None:
            trust = self.ask_for_trust(fid)
            reading = Reading({}, 0, self.generation, self.moment, trust)
        listing, offset = reading.listing, reading.offset
        try:
            while len(listing) < _MAX_ENTRIES:
                request = Treaddirx(fid, offset, session.msize)
                data = expect(session.reply((self, offset), request), Rreaddirx).data
                if not data:
                    break
                offset = self._parse(data, listing)
        except NotNow as need:
            need.call.answers[self, Treaddirx] = reading._replace(offset=offset)
            raise
        self._listed(reading)
        return listing

    def _listed(self, reading: Reading) -> None:
        """All of it is read: it is kept if nothing has changed since one began."""
        if reading.trust is not None:
            self.take_trust(reading.trust, reading.moment)
        if self.sb.changes is not None:
            self.changed()  # its access time
        certain = self.sb.exclusive or self.trust is not None
        if not certain or reading.generation != self.generation:
            return
        if not self.sb.exclusive and reading.moment[0] != self.sb.epoch:
            return
        self.listing, self._dirents = reading.listing, None
        self.sb.listed(self, len(reading.listing))

    def _parse(self, data: bytes, listing: dict[bytes, Listed]) -> int:
        """Add the entries of one reply; the cookie of the last one."""
        pos, end, cookie = 0, len(data), 0
        number = self.sb.numbering.ino
        while pos + ATTR_SIZE + _TAIL.size <= end:
            block = data[pos : pos + ATTR_SIZE]
            pos += ATTR_SIZE
            cookie, length = _TAIL.unpack_from(data, pos)
            pos += _TAIL.size
            name = data[pos : pos + length]
            pos += length
            if not name or b"/" in name or name in (b".", b".."):
                raise EIO("a listing with an impossible name")
            wire = WireAttributes.unpack(block)
            entry = DirEntry(name, number(wire.dev, wire.ino), modes.S_IFMT(wire.mode))
            # Other names of the same file would not hear of a change; one of no links is refused.
            is_alone = wire.nlink == 1 or (wire.nlink and modes.S_ISDIR(wire.mode))
            holds = self.sb.exclusive and is_alone
            listing[name] = (entry, block if holds else None)
        if pos != end:
            raise EIO("a listing that is cut short")
        return cookie
