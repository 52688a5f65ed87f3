"""`Attachment`: what the inodes of a `GoferFileSystem` share, and ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from sentry.vfs.filesystem import FileSystem

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gofer.p9.attributes import Attributes as WireAttributes
    from sentry.fs.gofer.changes import HostChanges
    from sentry.fs.gofer.directory_cache import DirectoryCache
    from sentry.fs.gofer.handles import HandleCache, Keyed, Lingering, Storage, Timers
    from sentry.fs.gofer.hearing import Hearing
    from sentry.fs.gofer.inode import GoferInode
    from sentry.fs.gofer.journal import Journal
    from sentry.fs.gofer.pace import Pace
    from sentry.fs.gofer.refusals import Refusals
    from sentry.fs.gofer.session import Session
    from sentry.fs.gofer.wire import Numbering, Owners
    from sentry.platform.host_io import HostIO
    from sentry.platform.windows import Windows
    from sentry.vfs.vfs import Vfs


class DirectoryFids:
    """The directories that have a fid, least recently used first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._order: dict[DirectoryCache, None] = {}

    def __len__(self) -> int:
        return len(self._order)

    def bound(self, directory: DirectoryCache) -> None:
        """It has just got one."""
        self._order[directory] = None
        while len(self._order) > self._limit:
            self.give_back(next(iter(self._order)))

    def give_back(self, directory: DirectoryCache) -> None:
        """It gets another one when it needs one."""
        if directory in self._order:
            del self._order[directory]
            journal = directory.sb.journal
            if journal is not None:
                journal.settle(directory)
            if directory.sb.hearing is not None:
                directory.unheard()
            fid, directory.fid = directory.fid, -1
            directory.sb.session.clunk(fid)

    def give_all_back(self) -> None:
        """Some may never have been bound."""
        while self._order:
            self.give_back(next(iter(self._order)))

    def used(self, directory: DirectoryCache) -> None:
        """Move it to the end; roots and removed directories are not in the order."""
        if directory in self._order:
            del self._order[directory]
            self._order[directory] = None

    def moved(self, directory: DirectoryCache) -> None:
        """The host has moved it: the Gofer would look for its fid at the old place."""
        self.give_back(directory)

    def keep(self, directory: DirectoryCache) -> None:
        """Its fid cannot be had again: it goes only with the inode."""
        self._order.pop(directory, None)


BRIEFLY_NS: Final = 500_000_000


class BriefFids(DirectoryFids):
    """Where each is given back soon after its last use: the Gofer has a descriptor for it, and the
    host could not unmount what it is in (EBUSY)."""

    def __init__(self, limit: int, timers: Timers) -> None:
        super().__init__(limit)
        self._timers = timers
        self._young: set[DirectoryCache] = set()
        self._armed = False

    def bound(self, directory: DirectoryCache) -> None:
        """It has just got one."""
        super().bound(directory)
        self._use(directory)

    def used(self, directory: DirectoryCache) -> None:
        """It is needed still."""
        super().used(directory)
        self._use(directory)

    def _use(self, directory: DirectoryCache) -> None:
        self._young.add(directory)
        if not self._armed:
            self._arm()

    def _arm(self) -> None:
        self._armed = True
        self._timers.call_at(self._timers.now_ns() + BRIEFLY_NS, self._turn)

    def _turn(self) -> None:
        """Those that were not used since the last turn."""
        young, self._young = self._young, set()
        for directory in [each for each in self._order if each not in young]:
            self.give_back(directory)
        self._armed = False
        if self._order:
            self._arm()


class Attachment(FileSystem, ABC):
    """The files of one attachment."""

    session: Session
    exclusive: bool
    windows: Windows | None
    vfs: Vfs | None
    """Who has memory for what is mapped without a descriptor; None: that cannot be."""
    handles: HandleCache
    io: HostIO | None
    fids: DirectoryFids
    numbering: Numbering
    refusals: Refusals
    samples: dict[int, WireAttributes]
    """What the host makes of each kind (S_IFMT bits)."""
    layered: bool
    """It is an overlayfs of the host (sentry.fs.gofer.layers)."""
    changes: HostChanges | None
    hearing: Hearing | None
    """Who tells what others change in an exclusive one, of directories that have a fid."""
    journal: Journal | None
    lingering: Lingering | None
    owners: Owners | None
    pace: Pace
    binds: bool
    """The Gofer has not said yet that programs make no sockets of the host here."""

    @abstractmethod
    def after_close(self, work: Coroutine[Any, Any, object]) -> None:
        """What the last close of a file leaves to do."""

    @abstractmethod
    def take_out(self, inode: GoferInode) -> None:
        """It does not stand for its number any more, if it did."""

    @property
    @abstractmethod
    def keeps_descriptors(self) -> bool:
        """A descriptor that nobody has asked for yet may be kept for who does next."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """Counts what was heard of the host's changes."""

    @abstractmethod
    def is_own_device(self, inode: Keyed) -> bool:
        """It lies on the file system of the host that the root lies on."""

    @abstractmethod
    def storage_of(self, inode: Keyed) -> Storage:
        """Where the host keeps it."""

    @abstractmethod
    def inode_of(
        self, wire: WireAttributes, parent: DirectoryCache, name: bytes
    ) -> GoferInode:
        """The inode whose attributes were just seen as `name` of `parent`."""

    @abstractmethod
    def inode_listed(self, block: bytes, parent: DirectoryCache, name: bytes) -> GoferInode:
        """The same for attributes from a listing, which are older than those an inode has."""

    @abstractmethod
    def put_in(self, inode: GoferInode) -> None:
        """It was made just now, and stands for its number."""

    @abstractmethod
    def became(self, inode: GoferInode, key: tuple[int, int]) -> None:
        """What was `apart` is a file of its own."""

    @abstractmethod
    def forget_inode(self, inode: GoferInode) -> None:
        """Its last name is gone: the number may come back as another file."""

    @abstractmethod
    def listed(self, directory: DirectoryCache, entries: int) -> None:
        """A directory has a complete listing in memory now."""

    @abstractmethod
    def count_name(self) -> None:
        """One more name is remembered."""
