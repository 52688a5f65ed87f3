"""`HeardDirectory`: what is known of a directory's names, and what is left of it when others change
them (`hearing`), or when nobody would tell of that.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from gofer.p9.constants import NOFID, NOOPEN
from gofer.p9.extensions import Rwalkx, Twalkx
from sentry.errors import EIO, Errno
from sentry.fs.gofer.inode import Key
from sentry.fs.gofer.session import expect, found_by
from sentry.fs.gofer.watched import WatchedDirectory
from sentry.vfs.interface import Attributes, DirEntry

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.requests import Pending
    from sentry.vfs.dirents import Dirents

Listed = tuple[DirEntry, bytes | None]
"""An entry, and the attributes that came with it if they still hold."""


class HeardDirectory(WatchedDirectory):
    """One whose listing is kept."""

    __slots__ = ("_bequeaths", "_dirents", "generation", "listing")

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.listing: dict[bytes, Listed] | None = None
        self._dirents: Dirents | None = None
        """Made of `listing`."""
        self.generation = 0
        self._bequeaths: bool | None = None
        """Not asked yet."""

    def forget_attributes(self, name: bytes) -> None:
        """The attributes that came with the listing are old."""
        if self.listing is not None:
            listed = self.listing.get(name)
            if listed is not None and listed[1] is not None:
                self.listing[name] = (listed[0], None)

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

    def doubted(self) -> None:
        super().doubted()
        self._doubt_own()
        self._forget_names()

    def unheard(self) -> None:
        """It is about to have no fid, and nobody tells of its names then."""
        for name in list(self.names):
            found = self.known(name)
            if found is not None:
                found.changed()
        self._forget_names()

    def certain(self) -> bool:
        return self.fid >= 0 or self.is_unmade

    def _doubt_own(self) -> None:
        """A walk asks again whose it is, and who may enter."""
        self.changed()
        self.xattrs = self._bequeaths = None
        self.generation += 1
        if self is self.fs.root:
            self._look_again()
        elif self.parent is not None and self.parent.known(self.name) is self:
            del self.parent.names[self.name]

    def _look_again(self) -> None:
        """A root has no name that a walk could ask for."""
        session = self.fs.session
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
