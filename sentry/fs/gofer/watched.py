"""What is known of a directory's names where others change them, too.

`WatchedDirectory`: of a shared tree, whose names can be trusted (`changes`). It is watched from the
second lookup or listing on. A walk may use what `trust.names` lists, and that a complete listing
has no other names; what else it looks at must be current, too (`known`). What is no regular file is
watched, too, when it is asked for again; a regular file's second lookup brings a descriptor along.
The text of links never changes.
`HeardDirectory`: of an exclusive tree, of which is told what others change (`hearing`), and what is
left when nobody would tell of that. Its listing is kept, in a shared tree until an event speaks
against it.
"""

from __future__ import annotations

from _weakref import ref
from typing import TYPE_CHECKING

from gofer.p9.attributes import NO_DEFAULT_ACL
from gofer.p9.constants import NOFID, NOOPEN
from gofer.p9.extensions import Rwalkx, Twalkx, Twatchx
from sentry.auth.acl import DEFAULT
from sentry.errors import EIO, Errno
from sentry.fs.gofer.changes import OwnChange
from sentry.fs.gofer.inode import UNKNOWN, GoferInode
from sentry.fs.gofer.known import Key
from sentry.fs.gofer.session import expect, found_by
from sentry.suppress import suppress
from sentry.vfs.interface import Absent, Attributes, DirEntry

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.known import KnownInode
    from sentry.fs.gofer.requests import Pending
    from sentry.vfs.dirents import Dirents

Listed = tuple[DirEntry, bytes | None]
"""An entry, and the attributes that came with it, or that an inode has left, if they still hold."""


class WatchedDirectory(GoferInode):
    """What is known of its names, and how much of that is certain."""

    __slots__ = ("default", "names")

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.names: dict[bytes, ref[GoferInode] | Absent] = {}
        self.default: bytes | None = UNKNOWN
        """As `acl`: the default list."""

    def known(self, name: bytes) -> GoferInode | None:
        """The inode in memory that had this name last."""
        found = self.names.get(name)
        return None if found is None or isinstance(found, Absent) else found()

    def take_lists(self, flags: int) -> None:
        super().take_lists(flags)
        self.default = None if flags & NO_DEFAULT_ACL else UNKNOWN

    def default_acl(self) -> bytes | None:
        if self.default is not None:
            self.default = self.asked_acl(DEFAULT)
        return self.default

    def current(self) -> bool:
        trust = self.trust
        return trust is not None and trust.sure

    def has_still(self, child: KnownInode) -> bool:
        """Its name means this one, as far as one has looked at what happened."""
        trust = self.trust
        return trust is not None and child.name in trust.names and self.known(child.name) is child

    def ask_for_trust(self, fid: int) -> Pending | None:
        """Before a lookup or a listing: ask for a watch if it is the second one, or for attributes
        that have become uncertain."""
        fs = self.sb
        changes = fs.changes
        if changes is None:
            return None
        if self.trust is not None:
            unsure = not self.trust.sure
            return fs.session.send(Twalkx(fid, NOFID, NOOPEN, 0, [])) if unsure else None
        self.asked += 1
        if self.asked < 2 or not fs.inodes.on_own_device(self) or not changes.room():
            return None
        return fs.session.send(Twatchx(fid, b""))

    def worth_opening(self, name: bytes) -> bool:
        """A file that is asked for again: a descriptor answers the next question."""
        if self.trust is None or name not in self.trust.names:
            return False
        inode = self.known(name)
        return inode is not None and inode.wants_descriptor()

    def changing(self, event: int, name: bytes) -> OwnChange:
        """The Sentry makes or removes `name`, which is an event (`changes.made`, `removed`)."""
        return OwnChange(self.trust, event, name)


class HeardDirectory(WatchedDirectory):
    """One whose listing is kept."""

    __slots__ = ("_bequeaths", "_dirents", "generation", "listing", "misses", "patience")

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.listing: dict[bytes, Listed] | None = None
        self._dirents: Dirents | None = None
        """Made of `listing`."""
        self.generation = 0
        self.misses = 0
        """Lookups of names that are not there, and how many of them make a listing worth while:"""
        self.patience = 3
        self._bequeaths: bool | None = None
        """Not asked yet."""

    def set_acl(self, name: bytes, value: bytes, mode: int | None) -> None:
        self._bequeaths, self.default = None, UNKNOWN
        super().set_acl(name, value, mode)

    def forget_attributes(self, name: bytes) -> None:
        """The attributes that came with the listing are old."""
        if self.listing is not None:
            listed = self.listing.get(name)
            if listed is not None and listed[1] is not None:
                self.listing[name] = (listed[0], None)

    def keep_attributes(self, name: bytes, ino: int, block: bytes) -> None:
        """These are those of an inode that nobody holds any more. A finalizer calls this in the
        middle of anything."""
        listing = self.listing
        listed = listing.get(name) if listing is not None else None
        if listing is not None and listed is not None and listed[0].ino == ino:
            listing[name] = (listed[0], block)

    def drop_listing(self) -> None:
        """Give the memory back."""
        self.listing = self._dirents = None

    def heard(self, name: bytes, another: bool) -> None:
        """They have changed what `name` is, or (`another`) which file has it; the next walk asks.
        What was recorded of it and is not done is done before that, and wins."""
        if name == b".":
            self._doubt_own()
            return
        self.generation += 1
        found = self.known(name)
        self.names.pop(name, None)
        if found is not None:
            found.doubted()
        if another:
            self.drop_listing()
            self.changed()
        else:
            self.forget_attributes(name)

    def names_heard(self) -> None:
        super().names_heard()
        self.drop_listing()

    def doubted(self) -> None:
        super().doubted()
        self._doubt_own()
        self._forget_names()

    def unheard(self) -> None:
        """It is about to have no fid, and nobody tells of its names then."""
        for name in list(self.names):
            found = self.known(name)
            if found is not None:
                found.forget_xattrs()
        self._forget_names()

    def certain(self) -> bool:
        return self.fid >= 0 or self.is_unmade

    def _doubt_own(self) -> None:
        """A walk asks again whose it is, and who may enter."""
        self.changed()
        self.xattrs = self._bequeaths = None
        self.acl = self.default = UNKNOWN
        self.generation += 1
        if self is self.sb.root:
            self._look_again()
        elif self.parent is not None and self.parent.known(self.name) is self:
            del self.parent.names[self.name]

    def _look_again(self) -> None:
        """A root has no name that a walk could ask for."""
        session = self.sb.session
        with suppress(EIO):
            asked = session.send(Twalkx(self.fid, NOFID, NOOPEN, 0, []))
            session.tell(asked, lambda: self._looked(asked))

    def _looked(self, asked: Pending) -> None:
        with suppress(Errno):
            self.check_same(found_by(expect(asked.result(), Rwalkx)))

    def _forget_names(self) -> None:
        self.names.clear()
        self.drop_listing()
        self.generation += 1
