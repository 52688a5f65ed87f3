"""`Attachment`: what the inodes of a `GoferFileSystem` share, and ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from sentry.vfs.filesystem import FileSystem

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gofer.p9.attributes import Attributes as WireAttributes
    from sentry.fs.gofer.changes import HostChanges
    from sentry.fs.gofer.directory_cache import DirectoryCache
    from sentry.fs.gofer.fids import DirectoryFids
    from sentry.fs.gofer.handles import HandleCache, Lingering, Storage
    from sentry.fs.gofer.hearing import Hearing
    from sentry.fs.gofer.inode import GoferInode
    from sentry.fs.gofer.inodes import Inodes
    from sentry.fs.gofer.journal import Journal
    from sentry.fs.gofer.pace import Pace
    from sentry.fs.gofer.refusals import Refusals
    from sentry.fs.gofer.session import Session
    from sentry.fs.gofer.wire import Numbering, Owners
    from sentry.platform.host_io import HostIO
    from sentry.platform.windows import Windows
    from sentry.vfs.vfs import Vfs


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
    inodes: Inodes
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
    read_pace: Pace
    storage: tuple[int, Storage]
    """Where the host keeps it: sentry.fs.gofer.handles.storage_at."""
    binds: bool
    """The Gofer has not said yet that programs make no sockets of the host here."""

    @abstractmethod
    def after_close(self, work: Coroutine[Any, Any, object]) -> None:
        """What the last close of a file leaves to do."""

    @property
    @abstractmethod
    def keeps_descriptors(self) -> bool:
        """A descriptor that nobody has asked for yet may be kept for who does next."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """Counts what was heard of the host's changes."""

    @abstractmethod
    def forget_inode(self, inode: GoferInode) -> None:
        """Its last name is gone: the number may come back as another file."""

    @abstractmethod
    def listed(self, directory: DirectoryCache, entries: int) -> None:
        """A directory has a complete listing in memory now."""

    @abstractmethod
    def has_listed(self, directory: DirectoryCache, entries: int) -> None:
        """The listing of a directory has grown or shrunk by what the Sentry has done."""

    @abstractmethod
    def count_name(self) -> None:
        """One more name is remembered."""
