"""`GoferInode`: what all kinds of files of a Gofer have in common, and symbolic links.

An inode is reached over 9P either by its own fid or as a name of its parent's fid (`anchor`).
Directories get a fid when something in them is asked for; other files only when their name is
removed while they are open. Attributes are kept (`known`).
"""

from __future__ import annotations

import stat as modes
from typing import TYPE_CHECKING, Final

from gofer.p9.attributes import NO_ACL
from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.constants import NOFID, NOOPEN
from gofer.p9.extensions import (
    Rgetxattrx,
    Rsetattrx,
    Rwalkx,
    Tgetxattrx,
    Tremovexattrx,
    Tsetattrx,
    Tsetxattrx,
    Twalkx,
)
from gofer.p9.messages import Tclunk, Tfsync
from sentry.auth.acl import ACCESS
from sentry.errors import EACCES, ENODATA, EOPNOTSUPP, ESTALE, Errno
from sentry.fs.gofer.behind_attributes import set_times_fit, wanted
from sentry.fs.gofer.known import Key, KnownInode, Moment
from sentry.fs.gofer.layers import copied
from sentry.fs.gofer.refusals import Listener, Refusals
from sentry.fs.gofer.requests import close_quietly
from sentry.fs.gofer.session import Asked, expect, found_by
from sentry.fs.gofer.wire import (
    BORN_HERE,
    FIRST_TOLD,
    from_wire,
    linked,
    setting,
    to_wire,
    what_changes,
)
from sentry.platform.host_io import host_error
from sentry.platform.records import ATTRIBUTES
from sentry.suppress import suppress
from sentry.vfs.interface import Attributes, Changes
from sentry.wait.again import kept
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gofer.p9.codec import Message
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.directory_cache import DirectoryCache
    from sentry.fs.gofer.journal import Journal

UNKNOWN: Final = b""
"""Instead of an access control list: the host has to be asked."""
LIST: Final = b""
"""In place of the name of an extended attribute: those of all."""
_CTIME: Final = Attributes._fields.index("ctime_ns")


class GoferInode(KnownInode):
    """A file of any kind without data of its own: fifos, sockets, devices. See the subclasses."""

    __slots__ = (
        "apart", "bare", "born_here", "fid", "gone", "pending", "refusals", "target", "xattrs",
        "xattrs_stamp",
    )  # fmt: skip

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.acl = UNKNOWN
        self.fid = -1
        self.apart = False
        """One of several names, which the host may make a file of its own (layers)."""
        self.bare = False
        """It was made here, without any extended attribute, and nobody has set one."""
        self.born_here = False
        """The host has not said yet when it was born: later than was told."""
        self.gone = False
        """The last name was removed."""
        self.pending: tuple[Journal, int] | None = None
        """A record that is about it, until it is done: where it ends."""
        self.refusals: Refusals | None = None
        self.target: bytes | None = None
        """The text of a symbolic link, which never changes."""
        self.xattrs: dict[bytes, bytes | None] | None = None
        """Extended attributes that were asked for (None: there is none such)."""
        self.xattrs_stamp = 0
        """What `xattr_stamp` was then."""

    def __del__(self) -> None:
        if not self.gone:
            self.sb.inodes.take_out(self)
            if self.parent is not None and self.is_settled():
                flags = BORN_HERE if self.born_here else 0
                flags |= NO_ACL if self.acl is None else 0
                wire = to_wire(self.attributes, self.key, flags)
                self.parent.keep_attributes(self.name, self.ino, wire.pack())
        if self.fid >= 0:
            self.sb.session.clunk(self.fid)

    def is_settled(self) -> bool:
        """What is known of it holds although nobody holds it any more, as what a listing says of
        its only name: the host has all of it, and has refused nothing."""
        known = self.fresh and self.sb.exclusive and self.attributes.nlink == 1
        if not known or self.is_dir or self.apart or self.is_unmade:
            return False
        return self.pending is None or self.pending[0].reached(self.pending[1])

    @property
    def is_unmade(self) -> bool:
        """The host is not known to have it."""
        return self.key[1] >= FIRST_TOLD

    # --- how it is reached

    def anchor(self, parent: DirectoryCache, name: bytes) -> None:
        """It was seen as `name` in `parent`."""
        self.parent, self.name = parent, name

    def reach(self) -> tuple[int, bytes]:
        """A fid, and the name below it that is this file (empty: the fid itself)."""
        if self.fid >= 0:
            return self.fid, b""
        if self.parent is None or self.gone:
            raise ESTALE(f"ino {self.ino} has no name any more")
        return self.parent.directory_fid(), self.name

    def reach_for(self, key: Hashable) -> tuple[int, bytes]:
        """The same for a request that is not under way as `key`; one that is needs it no more."""
        return self.reach() if kept(key) is None else (NOFID, b"")

    # --- attributes

    def seen(self, wire: WireAttributes) -> None:
        """Take the attributes of a reply."""
        self.born_here = False
        self.take(from_wire(wire, self.ino))
        self.take_lists(wire.flags)

    def take_lists(self, flags: int) -> None:
        """What a reply says of access control lists, which is all that is known of directories; of
        files it may say nothing, and what was known may still be right."""
        if flags & NO_ACL:
            self.acl = None
        elif self.is_dir or GoferInode.xattr_stamp(self) < 0:
            self.acl = UNKNOWN

    def looked_up(self, reply: Rwalkx, fd: int) -> None:
        """It is what a lookup found."""
        close_quietly(fd)
        if self.is_symlink and reply.target:
            self.target = reply.target

    def current(self) -> bool:
        """What a walk looks at is right, although the host may change the file (shared mode)."""
        return (self.fresh and self.target is not None) or self.is_watched()

    def wants_descriptor(self) -> bool:
        """A descriptor would tell its attributes, and there is none."""
        return False

    def recorded(self, journal: Journal) -> None:
        """The journal's last record is about it."""
        self.pending = journal, journal.position

    def known_attributes(self) -> Attributes | None:
        """The attributes if they are right now, and nobody need be asked."""
        known = self.fresh and self.sb.exclusive and not self.apart
        if known and (self.sb.hearing is None or self.certain()):
            return self.attributes
        if self.sb.changes is not None and self.is_watched():
            return self.attributes
        if self.gone and self.fid < 0:  # nobody can be asked any more
            return self.attributes
        return None

    def certain(self) -> bool:
        """One would have heard if others had changed it: not by a name that is not known here."""
        return self.attributes.nlink < 2

    def has_gone(self) -> bool:
        return self.gone or super().has_gone()

    def stat_walked(self, asked: bool) -> Attributes:
        """Where nothing is remembered the lookup has brought them, a moment ago."""
        return self.attributes if asked and not self.sb.exclusive else self.stat()

    def stat(self) -> Attributes:
        known = self.known_attributes()
        if known is not None:
            return known
        self._ask_attributes()
        return self.attributes

    def _ask_attributes(self) -> Rwalkx:
        session, key = self.sb.session, (self, Twalkx)
        asked: Asked | None = kept(key)
        if asked is None:
            fid, name = self.reach()
            request = Twalkx(fid, NOFID, NOOPEN, 0, [name] if name else [])
            watch = self.ask_for_watch((fid, name))
            asked = Asked(session.send(request), (self.moment, watch))
        session.complete(asked, key)
        moment, watch = asked.extra
        reply = expect(asked.pending.result(), Rwalkx)
        if watch is not None:
            self.take_trust(watch, moment)
        if reply.error:
            raise host_error(reply.error)
        self.check_same(found_by(reply))
        self.taken(moment)
        return reply

    def check_same(self, block: bytes) -> None:
        wire = WireAttributes.unpack(block)
        if self.apart and (wire.dev, wire.ino) != self.key:
            self.sb.inodes.became(self, (wire.dev, wire.ino))
        if (wire.dev, wire.ino) != self.key or modes.S_IFMT(wire.mode) != self.kind:
            raise ESTALE(f"{self.name!r} is another file now")
        self.seen(wire)

    def waits(self) -> bool:
        """Nobody changes its times before those that are recorded are set."""
        return True

    def times_recorded(self, journal: Journal) -> None:
        """The journal's last record sets them."""

    def setattr(self, changes: Changes) -> None:
        asked: Asked | None = kept((self, Tsetattrx))
        if asked is None:
            if self._set_by_record(changes):
                return
            valid = what_changes(changes)
            if not valid:
                return
            request = setting(self.reach(), valid, changes)
            self.drop_file_caps()
            self.changed()
            sent, moment = self.sb.session.send(request), self.moment
            asked = Asked(sent, moment, lambda reply: self._set_behind(reply, moment))
        self.sb.session.complete(asked, (self, Tsetattrx))
        self._set(asked.pending.result(), asked.extra)
        owned = changes.uid is not None or changes.gid is not None
        if self.sb.journal is not None and owned:
            self.sb.journal.accepted(self.uid, self.gid)

    def _set_by_record(self, changes: Changes) -> bool:
        """Whether it is recorded, or need not be: a new file is as it is wanted already.

        Not times where somebody may store into a mapping: what is written later has the later time,
        so it waits for the record."""
        fs = self.sb
        journal = fs.journal
        if journal is None or changes.size is not None or self.key[0] != journal.dev:
            return False
        timed = changes.atime_ns is not None or changes.mtime_ns is not None
        if timed and not (set_times_fit(changes) and self.waits()):
            return False
        is_new, known = journal.is_new(self), self.attributes
        if not (is_new and self.is_regular and self._sets_all(changes, timed)):
            found = self.known_attributes()
            if found is None:
                return False
            known = found
        change = wanted(journal, known, self.kind, changes, fs.now_ns())
        if change is None:
            return False
        told, asked = change
        if is_new and told[:_CTIME] == known[:_CTIME]:
            self.take(told)
            return True
        fid, name = self.reach()
        room = copied(self) if fs.layered else 0
        if not asked[0] or not journal.open:
            return False
        if not journal.put(ATTRIBUTES, (fid, name, len(name), *asked), 0, room):
            return False
        journal.about(self)
        self.drop_file_caps()
        self.changed()
        self.take(told)
        self.recorded(journal)
        if timed:
            self.times_recorded(journal)
        return True

    def _sets_all(self, changes: Changes, timed: bool) -> bool:
        """What was recorded of a new file tells all that a change leaves as it is, but the size: it
        may have been written, and read, since."""
        if not timed:
            return True
        return changes.mtime_ns is not None and (changes.atime_ns is not None or self.is_unread)

    def _set(self, reply: Message, moment: Moment) -> None:
        self.check_same(expect(reply, Rsetattrx).block)
        self.taken(moment)

    def _set_behind(self, reply: Message, moment: Moment) -> None:
        """Who wanted that is gone."""
        with suppress(Errno):
            self._set(reply, moment)

    # --- links

    @property
    def link_is_known(self) -> bool:  # type: ignore[override]
        """The text of a link never changes."""
        return self.target is not None

    def readlink(self) -> bytes:
        if self.target is None and self.is_symlink:
            self.target = self._ask_attributes().target
        if self.target is None:
            return super().readlink()
        return self.target

    # --- extended attributes

    def xattr_stamp(self) -> int:
        """Another number after the host has changed extended attributes; -1: nobody can tell."""
        heard = self.sb.hearing is None or self.certain()
        return 0 if self.sb.exclusive and not self.apart and heard else -1

    def getxattr(self, name: bytes) -> bytes:
        known, stamp = self.xattrs, self.xattr_stamp()
        if known is not None and name in known and stamp == self.xattrs_stamp:
            value = known[name]
            if value is None:
                raise ENODATA(f"{name!r}")
            return value
        session, key = self.sb.session, (self, Tgetxattrx, name)
        asked: Asked | None = kept(key)
        if asked is None:
            asked = Asked(session.send(Tgetxattrx(*self.reach(), name)), self.moment)
        session.complete(asked, key)
        if asked.extra != self.moment:  # it may be older than what has happened since
            stamp = -1
        try:
            value = expect(asked.pending.result(), Rgetxattrx).data
        except ENODATA:
            self._remember(name, None, stamp)
            raise
        self._remember(name, value, stamp)
        return value

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        key = self, Tsetxattrx
        fid, child = self.reach_for(key)
        self.forget_xattrs()
        self.sb.session.reply(key, Tsetxattrx(fid, child, name, flags, value))

    def listxattr(self) -> Sequence[bytes]:
        """Those of the host's links and special files cannot be asked for."""
        if not (self.is_regular or self.is_dir) or (self.bare and not self.xattr_stamp()):
            return ()
        return [name for name in self.getxattr(LIST).split(b"\0") if name]

    def removexattr(self, name: bytes) -> None:
        key = self, Tremovexattrx
        fid, child = self.reach_for(key)
        self.forget_xattrs()
        self.sb.session.reply(key, Tremovexattrx(fid, child, name))

    def forget_xattrs(self) -> None:
        """They may have changed."""
        self.xattrs, self.bare = None, False
        self.changed()

    def access_acl(self) -> bytes | None:
        if self.acl is not None and (self.is_dir or self.is_regular):
            self.acl = self.asked_acl(ACCESS)
        else:
            self.acl = None
        return self.acl

    def asked_acl(self, name: bytes) -> bytes | None:
        """A list as the host has it, if it has one."""
        try:
            return self.getxattr(name)
        except (EACCES, ENODATA, EOPNOTSUPP):
            return None

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        """The host does what Linux does, to the mode too, but for who is root there: who may not
        have set-group-ID has it no more."""
        if value:
            self.setxattr(name, value, 0)
        else:
            with suppress(ENODATA):
                self.removexattr(name)
        self.acl = UNKNOWN
        self._ask_attributes()
        if value and mode is not None and self.mode & 0o2000 and not mode & 0o2000:
            self.setattr(Changes(mode=mode))

    def drop_file_caps(self) -> None:
        """The host has done it: what is remembered may be old."""
        self.xattrs = None

    def _remember(self, name: bytes, value: bytes | None, stamp: int) -> None:
        if stamp < 0:
            return
        known = self.xattrs
        if known is None or self.xattrs_stamp != stamp:
            known = self.xattrs = {}
            self.xattrs_stamp = stamp
        if len(known) < 8 and len(value or b"") <= 256:
            known[name] = value
        else:
            known.pop(name, None)

    # --- the rest

    def listener(self) -> Listener | None:
        """For who opens it: hears of what the host refuses later, if it may."""
        return Listener(self) if self.sb.journal is not None else None

    def refused(self, number: int) -> None:
        """The host has not changed it as was recorded."""
        if self.refusals is None:
            self.refusals = Refusals()
        self.refusals.add(number)
        self.distrusted()

    def doubted(self) -> None:
        """Others may have changed it."""
        self.forget_xattrs()
        self.acl = UNKNOWN
        if self.sb.journal is not None:
            self.sb.journal.doubted(self)

    def distrusted(self) -> None:
        """What is known of it may not be what the host has."""
        self.changed()

    def sync(self, data_only: bool, listener: Listener | None) -> None:
        """fsync(2): the Gofer's pool does it, so that nobody here waits but the caller."""
        self.sb.settle()
        if listener is not None:
            listener.hear()
        if self.gone and self.fid < 0:  # nobody could find it again
            return
        session = self.sb.session
        asked: Asked | None = kept((self, Tfsync))
        if asked is None:
            fid, name = self.reach()
            bound = session.new_fid()
            walk = session.send(Twalkx(fid, bound, NOOPEN, 0, [name] if name else []))
            asked = Asked(session.send(Tfsync(bound, int(data_only))), walk)
            session.send(Tclunk(bound)).abandon()
            session.free_fid(bound)
        session.complete(asked, (self, Tfsync), mode=Mode.KILLABLE)
        try:
            asked.pending.result()
        except Errno:
            reply = expect(asked.extra.result(), Rwalkx)
            if reply.error:
                raise host_error(reply.error) from None
            raise

    def lost_name(self) -> None:
        """One of its names was removed; the attributes say whether it was the last one."""
        self.changed()
        was = self.attributes
        left = 0 if self.is_dir else max(was.nlink - 1, 0)
        self.attributes = linked(was, left, was.mtime_ns, was.ctime_ns)
        self.parent = None
        if not left:
            self.gone = True
            self.sb.forget_inode(self)
