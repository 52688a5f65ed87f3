"""`WatchedDirectory`: a directory of a shared tree whose names can be trusted (`changes`).

It is watched from the second lookup on. A walk may use what `trust.names` lists; what else it looks
at must be current, too: owner and mode of directories are heard of, those of files are asked of a
descriptor, which the second lookup of a file brings along. The text of links never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from gofer.p9.constants import NOFID, NOOPEN
from gofer.p9.extensions import Rwalkx, Rwatchx, Twalkx, Twatchx
from sentry.errors import Errno
from sentry.fs.gofer.changes import OwnChange
from sentry.fs.gofer.inode import GoferInode, Key
from sentry.fs.gofer.session import expect
from sentry.vfs.interface import Absent, Attributes

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.changes import Trust
    from sentry.fs.gofer.requests import Pending


class WatchedDirectory(GoferInode):
    """What is known of its names, and how much of that is certain."""

    __slots__ = ("lookups", "names", "trust")

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.names: dict[bytes, ref[GoferInode] | Absent] = {}
        self.trust: Trust | None = None
        self.lookups = 0
        """Requests for a name in it."""

    def known(self, name: bytes) -> GoferInode | None:
        """The inode in memory that had this name last."""
        found = self.names.get(name)
        return None if found is None or isinstance(found, Absent) else found()

    def looked_up(self, reply: Rwalkx, fd: int, epoch: int) -> None:
        super().looked_up(reply, fd, epoch)
        if self.trust is not None:
            self.trust.sure = epoch == self.fs.epoch

    def take(self, attributes: Attributes) -> None:
        super().take(attributes)
        if self.trust is not None:  # who knows how old they are: see looked_up
            self.trust.sure = False

    def current(self) -> bool:
        trust = self.trust
        return trust is not None and trust.sure

    def ask_for_trust(self, fid: int) -> Pending | None:
        """Before a lookup: ask for a watch where names are looked up for the second time, or for
        attributes that have become uncertain."""
        fs = self.fs
        changes = fs.changes
        if changes is None:
            return None
        if self.trust is not None:
            unsure = not self.trust.sure
            return fs.session.send(Twalkx(fid, NOFID, NOOPEN, 0, [])) if unsure else None
        self.lookups += 1
        if self.lookups < 2 or not fs.is_own_device(self) or not changes.room():
            return None
        return fs.session.send(Twatchx(fid))

    def take_trust(self, pending: Pending, epoch: int) -> None:
        """The reply to that, which came before the one to the lookup. `epoch`: as it was asked."""
        changes = self.fs.changes
        assert changes is not None
        try:
            reply = pending.result()
        except Errno:
            changes.exhausted()
            return
        if isinstance(reply, Rwatchx):
            if self.trust is not None:  # another fiber was faster
                return
            self.trust = changes.watched(self, reply.number)
            block = reply.block
        else:
            walked = expect(reply, Rwalkx)
            if not walked.blocks:
                return
            block = walked.blocks[0]
        self.check_same(block)
        if self.trust is not None:
            self.trust.sure = epoch == changes.epoch

    def worth_opening(self, name: bytes) -> bool:
        """A file that is asked for again: a descriptor answers the next question."""
        if self.trust is None or name not in self.trust.names:
            return False
        inode = self.known(name)
        return inode is not None and inode.wants_descriptor()

    def changing(self, event: int, name: bytes) -> OwnChange:
        """The Sentry makes or removes `name`, which is an event (`changes.made`, `removed`)."""
        return OwnChange(self.trust, event, name)
