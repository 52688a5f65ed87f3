"""`GoferFileSystem`: one attachment of a Gofer, mounted.

It keeps one inode per file of the host while anybody holds it, and bounds what it caches: fids of
directories, listings, names.
"""

from __future__ import annotations

import stat as modes
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from gofer.p9.constants import NOFID, NOOPEN
from gofer.p9.extensions import Rwalkx, Tjournalx, Tsyncx, Twalkx
from gofer.p9.messages import Rstatfs, Tstatfs
from sentry.abi.stat import OVERLAYFS_SUPER_MAGIC, V9FS_MAGIC
from sentry.errors import EOPNOTSUPP, EPROTO, Errno
from sentry.fs.gofer.arrival import Attached, room_in, root_of
from sentry.fs.gofer.attachment import Attachment
from sentry.fs.gofer.changes import COHERENT, HostChanges
from sentry.fs.gofer.directory import GoferDirectory
from sentry.fs.gofer.directory_cache import DirectoryCache
from sentry.fs.gofer.fids import BriefFids, DirectoryFids
from sentry.fs.gofer.handles import HandleCache, Lingering, Timers, storage_of
from sentry.fs.gofer.hearing import Hearing, listen_now
from sentry.fs.gofer.host_fifo import GoferFifo
from sentry.fs.gofer.host_socket import GoferSocket
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.inodes import Inodes
from sentry.fs.gofer.journal import Entry, Journal, mapped
from sentry.fs.gofer.known import Key
from sentry.fs.gofer.pace import Pace
from sentry.fs.gofer.refusals import Listener, Refusals
from sentry.fs.gofer.regular import GoferRegular
from sentry.fs.gofer.requests import close_quietly
from sentry.fs.gofer.session import Session, expect
from sentry.fs.gofer.wire import Numbering, Owners
from sentry.suppress import suppress
from sentry.vfs.interface import StatFs
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.platform.host_io import HostIO
    from sentry.platform.windows import Windows
    from sentry.wait.steps import Steps

MAX_DIRECTORY_FIDS = 4096
MAX_LISTED = 131072
MAX_NAMES = 131072
MAX_UNPLACED = 64
"""New files whose number is not told yet: of more anything may have changed when one is."""


class Options(Struct, frozen=True):
    """How an attachment is mounted."""

    exclusive: bool = True
    """They are ours: trust what was read before, until it is heard that somebody else has changed
    it. Else ask each time (shared)."""
    read_only: bool = False
    windows: Windows | None = None
    """Where mapped files go; without, files cannot be mapped."""
    handles: HandleCache | None = None
    """The bound on descriptors to share with other file systems."""
    changes: HostChanges | None = None
    """How one hears of what the host changes in a shared one; without, names are asked for."""
    lingering: Lingering | None = None
    """Who keeps descriptors of a shared one for a while."""
    owners: Owners | None = None
    """Where the container's users are others of the host."""
    follows: Timers | None = None
    """What the host mounts below shows, and it may take that off again: no descriptor is kept long
    that would hinder it. inotify(7) tells of neither, so there are no `changes`."""
    io: HostIO | None = None
    """Who waits for the host; without, the kernel thread itself does."""
    is_volume: bool = False
    """A bind mount: the Gofer may let programs make sockets of the host in it."""
    writes_behind: Timers | None = None
    """Names of an exclusive one that may be written are changed by records of a journal, if the
    Gofer has one."""


def _attach_now(session: Session, name: bytes, ours: bool, behind: bool) -> Attached:
    fid = session.attach(name)
    reply = expect(session.call_now(Twalkx(fid, NOFID, NOOPEN, 0, [])), Rwalkx)
    found = root_of(reply)
    told = expect(session.call_now(Tstatfs(fid)), Rstatfs)
    ears = listen_now(session, fid) if ours else None
    ring = _ring_now(session) if behind else -1
    return Attached(fid, found, told.fs_type, ring, room_in(told), ears)


def _ring_now(session: Session) -> int:
    asked = session.send(Tjournalx())
    with suppress(Errno):
        session.wait_now(asked)
    return asked.take_fd()


class GoferFileSystem(Attachment):
    """The files of one attachment."""

    has_handles: ClassVar = True
    name = "9p"
    magic = V9FS_MAGIC
    xattr_user = True
    posix_acls = True

    def __init__(
        self,
        dev: int,
        session: Session,
        attachment: bytes,
        options: Options | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        attached: Attached | None = None,
    ) -> None:
        """`attached`: what was asked before; else it is asked here, without the loop."""
        super().__init__(dev, now_ns)
        options = options or Options()
        if not session.extended:
            raise EPROTO("the server does not know the extensions that a file system needs")
        self.session = session
        self.exclusive = options.exclusive
        self.binds = options.is_volume or not options.exclusive
        self.read_only = options.read_only
        self.windows = options.windows
        self.vfs = None
        self.handles = HandleCache() if options.handles is None else options.handles
        self.io = options.io
        self.owners = options.owners
        self.fids = (
            DirectoryFids(MAX_DIRECTORY_FIDS)
            if options.follows is None
            else BriefFids(MAX_DIRECTORY_FIDS, options.follows)
        )
        self._listings: dict[DirectoryCache, int] = {}
        self._listed = 0
        self._names = 0
        is_ours = options.exclusive and not options.read_only
        behind = options.writes_behind if is_ours else None
        attached = attached or _attach_now(session, attachment, is_ours, behind is not None)
        fid, wire, kind, ring, room, ears = attached
        self.numbering = Numbering(wire.dev)
        self.inodes = Inodes(wire.dev, self.numbering, _CLASSES)
        self.samples = {}
        self.refusals = Refusals()
        self.layered = kind == OVERLAYFS_SUPER_MAGIC
        self.storage = wire.dev, storage_of(kind)
        heard = not options.exclusive and kind in COHERENT
        self.changes = options.changes if heard else None
        self.lingering = options.lingering if self.changes is not None else None
        self.pace = Pace()
        self.read_pace = Pace()
        self.hearing = None
        self._root = self.inodes.new(self, wire, (wire.dev, wire.ino))
        self._root.fid = fid
        self.hearing = None if ears is None else Hearing(ears, fid, self._heard, self._lost)
        self.journal = None
        if ring >= 0 and behind is not None and (kind in COHERENT or self.layered):
            root = fid, wire.dev
            try:
                memory = mapped(ring)
            except EPROTO:
                self.shutdown()
                raise
            self.journal = Journal(session, root, memory, behind, self.handles, self)
            self.journal.has_room(room)
        else:
            close_quietly(ring)
        if isinstance(self._root, GoferFifo):
            self._root.is_served()

    @property
    def root(self) -> GoferInode:
        return self._root

    def statfs(self) -> StatFs:
        reply = expect(self.session.reply((self, Tstatfs), Tstatfs(self._root.fid)), Rstatfs)
        return StatFs(
            reply.fs_type,
            reply.bsize,
            reply.blocks,
            reply.bfree,
            reply.files,
            reply.ffree,
            reply.namelen,
        )

    def show_options(self) -> str:
        return ",trans=fd,cache=" + ("exclusive" if self.exclusive else "shared")

    def forgetting(self) -> Steps[None]:
        yield from self.handles.forgetting(self)

    def shutdown(self) -> None:
        """Drop what is cached; inodes that are still held stay usable."""
        for directory in list(self._listings):
            directory.drop_listing()
        self._listings.clear()
        self._listed = 0
        self.handles.forget(self)
        if self.journal is not None:
            self.journal.close()
        if self.hearing is not None:
            self.hearing.close()
        if self.changes is not None:
            self.changes.forget_all(self)

    def after_close(self, work: Coroutine[Any, Any, object]) -> None:
        assert self.vfs is not None
        self.vfs.loop.spawn(work, "stores of a mapping")

    def settle(self) -> None:
        """The host has what was recorded."""
        if self.journal is not None:
            self.journal.sync()

    def rest(self) -> None:
        if self.journal is not None:
            self.journal.hurry()

    def share(self) -> None:
        """Nothing is behind any more; what others change is heard of, or asked for."""
        if self.journal is not None:
            self.journal.end()
            self.journal.sync()
        if self.exclusive and self.hearing is None:
            raise EOPNOTSUPP("the host does not tell what others change")

    def listen(self) -> Callable[[], None]:
        return Listener(self._root).hear_all

    def sync(self) -> None:
        """The host's disk has all of its file system, what others have written to it, too."""
        self.settle()
        if not self.read_only:
            asked = Tsyncx(self._root.fid)
            self.session.reply((self, Tsyncx), asked, mode=Mode.KILLABLE, slow=True)

    def arrived(self, inode: GoferInode, ino: int) -> None:
        """The host has made it, with this number."""
        self.inodes.take_out(inode)
        inode.key = inode.key[0], ino
        self.numbering.settle(inode.ino, 0 if inode.gone else ino)
        if not inode.gone:
            self.inodes.add(inode)

    def unmade(self, inode: GoferInode | None) -> None:
        """The host has not made it: it was removed before, or refused."""
        if inode is None or inode.is_unmade:
            self.numbering.settle(0, 0)
        if inode is not None and not inode.gone:
            if isinstance(inode, DirectoryCache):
                self.fids.give_back(inode)
            inode.take(inode.attributes._replace(nlink=0))
            inode.lost_name()

    def refused(self, entry: Entry, number: int) -> None:
        """The host has not made a change, with this errno."""
        self.refusals.add(number)
        new = entry.new() if entry.new is not None else None
        if new is not None:
            self.unmade(new)
        for inode in [found() for found in entry.inodes]:
            if inode is not None:
                inode.refused(number)

    def distrust(self, number: int) -> None:
        """Something was refused: what is known may not be what the host has."""
        self.refusals.add(number)
        for inode in self.inodes.held():
            inode.distrusted()

    @property
    def keeps_descriptors(self) -> bool:
        """A descriptor that nobody has asked for yet may be kept for who does next."""
        return (self.exclusive or self.lingering is not None) and self.handles.room()

    @property
    def epoch(self) -> int:
        """Counts what was heard of the host's changes."""
        heard = self.hearing if self.changes is None else self.changes
        return heard.epoch if heard is not None else 0

    def _heard(self, directory: Key, name: bytes, another: bool) -> bool:
        """Somebody else has changed what `name` is, or which file has it (`another`)."""
        inode = self.inodes.known(directory)
        if inode is not None or self.journal is None:
            found: Sequence[object] = [inode]
        elif self.journal.makes > MAX_UNPLACED:
            return False
        else:  # it may be any of those whose number is not told yet
            found = self.journal.unmade()
        for each in found:
            if isinstance(each, DirectoryCache):
                each.heard(name, another)
        return True

    def _lost(self) -> None:
        """Anything may have been changed."""
        for inode in self.inodes.held():
            inode.doubted()

    # --- inodes

    def forget_inode(self, inode: GoferInode) -> None:
        """Its last name is gone: the number may come back as another file."""
        self.inodes.take_out(inode)
        if self.inodes.on_own_device(inode):
            self.numbering.forget(inode.key[1])
        if self.journal is not None:
            self.journal.let_go(inode)
        if inode.trust is not None and self.changes is not None:
            self.changes.forget(inode.trust)
        if isinstance(inode, DirectoryCache):
            self.fids.keep(inode)
            inode.drop_listing()
            self._listed -= self._listings.pop(inode, 0)

    # --- bounds

    def listed(self, directory: DirectoryCache, entries: int) -> None:
        """A directory has a complete listing in memory now."""
        self._listed += entries - self._listings.pop(directory, 0)
        self._listings[directory] = entries
        while self._listed > MAX_LISTED and len(self._listings) > 1:
            oldest = next(iter(self._listings))
            self._listed -= self._listings.pop(oldest)
            oldest.drop_listing()

    def has_listed(self, directory: DirectoryCache, entries: int) -> None:
        """The same of one that the Sentry has made, which may become larger than all may be."""
        self.listed(directory, entries)
        if entries > MAX_LISTED:
            self._listed -= self._listings.pop(directory)
            directory.drop_listing()

    def count_name(self) -> None:
        """One more name is remembered. At the bound all are forgotten."""
        self._names += 1
        if self._names > MAX_NAMES:
            self._names = 0
            for inode in self.inodes.held():
                if self.hearing is not None:
                    inode.doubted()  # what is heard is found by its name
                if isinstance(inode, DirectoryCache):
                    inode.names.clear()
                    if inode.trust is not None:
                        inode.trust.names.clear()


_CLASSES: dict[int, type[GoferInode]] = {
    modes.S_IFDIR: GoferDirectory,
    modes.S_IFREG: GoferRegular,
    modes.S_IFSOCK: GoferSocket,
    modes.S_IFIFO: GoferFifo,
}
