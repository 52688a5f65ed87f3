"""`KnownInode`: the attributes of a file of the host, and how long they are believed.

In exclusive mode they are right until the Sentry changes them, or is told that somebody else has.
In shared mode, of directories, links and special files, as long as the file is watched, no event
has spoken against them, and its name means it still. For three things there is none that could be
afforded: an access that the host notes in a time, one of the two times set without the other
(fsnotify_change() says IN_MODIFY, as each write in a directory does), and the removal of the root
itself; so nothing is believed for longer than `LATE_NS`. Regular files are asked by a descriptor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gofer.p9.extensions import Rwalkx, Rwatchx, Twatchx
from sentry.errors import ENOENT, ESTALE, Errno
from sentry.fs.gofer.session import expect
from sentry.vfs.interface import Attributes, Inode, Owner

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.changes import Trust
    from sentry.fs.gofer.directory_cache import DirectoryCache
    from sentry.fs.gofer.requests import Pending

Key = tuple[int, int]
"""st_dev and st_ino of the host."""
Moment = tuple[int, int]
"""When something was asked for: `epoch` of the file system, `doubts` of the inode."""
LATE_NS: Final = 1_000_000_000


class KnownInode(Inode):
    """See `GoferInode`."""

    __slots__ = (
        "asked", "attributes", "doubts", "fresh", "key", "name", "parent", "sb", "seen_ns", "trust",
    )  # fmt: skip

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        owner = tuple.__new__(Owner, (attributes.uid, attributes.gid))
        super().__init__(fs, attributes.ino, attributes.mode, owner)
        self.rdev = attributes.rdev
        self.sb = fs
        self.key = key
        self.parent: DirectoryCache | None = None
        self.name = b""
        self.attributes = attributes
        self.fresh = True
        """`attributes` are right now (where nobody else can change them)."""
        self.doubts = 0
        """How often that has become unsure."""
        self.seen_ns = 0
        """When they came, of what is watched."""
        self.asked = 0
        """Requests for a name in it, or for itself, while it was not watched."""
        self.trust: Trust | None = None

    def take(self, attributes: Attributes) -> None:
        """These are the attributes now."""
        self.attributes = attributes
        self.mode = attributes.mode
        self.uid = attributes.uid
        self.gid = attributes.gid
        self.fresh = True
        trust = self.trust
        if trust is not None:
            self.seen_ns = trust.changes.now_ns()
            trust.sure = False  # who knows how old they are: see `taken`

    @property
    def moment(self) -> Moment:
        """For something that is asked for now."""
        return self.sb.epoch, self.doubts

    def taken(self, moment: Moment) -> None:
        """What was just taken was asked for then: it may be older than what has happened since."""
        same = moment == self.moment
        if self.trust is not None:
            self.trust.sure = same
        if not same:
            self.changed()

    def changed(self) -> None:
        """What is known of the attributes is old, here and in the listing it came from."""
        self.fresh = False
        self.doubts += 1
        if self.parent is not None:
            self.parent.forget_attributes(self.name)

    @property
    def is_unread(self) -> bool:
        """Nobody can have read it: its atime is as it was."""
        return False

    def names_heard(self) -> None:
        """The host has changed names in it (shared mode)."""
        self.changed()

    def check_same(self, block: bytes) -> None:
        """Take attributes that were found by the name. Raises: ESTALE if it is another file now."""
        raise NotImplementedError

    def is_watched(self) -> bool:
        """One would have heard if the host had changed it, and has looked (shared mode)."""
        trust = self.trust
        if trust is None:
            return False
        changes, trust.used = trust.changes, True
        changes.look()
        if not (trust.sure and self.fresh) or changes.now_ns() - self.seen_ns >= LATE_NS:
            return False
        parent = self.parent
        return self is self.sb.root or (parent is not None and parent.has_still(self))

    def ask_for_watch(self, at: tuple[int, bytes]) -> Pending | None:
        """It is asked for, and where that happens again it may be watched; `at`: where it is. Not
        where somebody would lose a watch for it."""
        changes = self.sb.changes
        if changes is None or self.trust is not None or self.is_regular:
            return None
        self.asked += 1
        if self.asked < 2 or not changes.has_spare or not self.sb.inodes.on_own_device(self):
            return None
        return self.sb.session.send(Twatchx(*at))

    def take_trust(self, pending: Pending, moment: Moment) -> None:
        """The reply to that, or to a question for attributes; `moment`: as it was asked."""
        changes = self.sb.changes
        assert changes is not None  # it was asked for
        try:
            reply = pending.result()
        except (ENOENT, ESTALE):
            return
        except Errno:
            changes.exhausted()
            return
        if isinstance(reply, Rwatchx):
            if self.trust is None:  # else another fiber was faster
                self._watched(reply, moment)
            return
        walked = expect(reply, Rwalkx)
        if walked.blocks:
            self.check_same(walked.blocks[0])
            self.taken(moment)

    def _watched(self, reply: Rwatchx, moment: Moment) -> None:
        changes = self.sb.changes
        assert changes is not None  # it was asked for
        try:
            self.check_same(reply.block)
        except ESTALE:
            changes.unwanted(reply.number)
            return
        self.trust, self.seen_ns = changes.watched(self, reply.number), changes.now_ns()
        self.taken(moment)
