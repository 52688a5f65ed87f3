"""`FileSystem`: one that is mounted or could be. What its inodes are to others: `interface`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from sentry.vfs.interface import StatFs
from sentry.wait.lock import Lock

if TYPE_CHECKING:
    from sentry.auth.userns import UserNamespace
    from sentry.vfs.interface import Inode
    from sentry.vfs.marks import Marks
    from sentry.vfs.watches import Hooked
    from sentry.wait.steps import Steps


class FileSystem:
    """One mounted-or-mountable instance of a file system (a super block)."""

    name: str = "none"
    """The type, as in /proc/mounts and mount(2)."""
    magic: int = 0
    read_only: bool = False
    """The instance itself cannot be written (EROFS), whatever a mount says."""
    nameless: ClassVar[bool] = False
    """It holds what is open but in no directory: pipes, sockets, eventfds."""
    fixed_attributes: bool = False
    """Modes and owners cannot be changed by anybody: EOPNOTSUPP."""
    keeps_names: ClassVar[bool] = True
    """Dentries that nobody holds are kept for a while; else what they tell of would be, too."""
    xattr_user: bool = False
    """Whether user.* attributes are kept."""
    only_read: bool = False
    """It cannot be written, whatever a mount asks for."""
    stack_depth: int = 0
    """How many file systems lie below it, one over the other: s_stack_depth."""
    posix_acls: bool = False
    """Whether its files have access control lists, its directories default ones: SB_POSIXACL."""

    def __init__(self, dev: int, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.dev = dev
        """st_dev."""
        self.now_ns = now_ns
        self.watched: set[Hooked] = set()
        """The watches on its inodes, and `marked`: nobody is told while there are none."""
        self.marks: Marks | None = None
        """fanotify's, on all of it."""
        self.marked = 0
        """Marks on it, on its mounts and on its inodes."""
        self.owner: UserNamespace | None = None
        """The user namespace that mounted it: s_user_ns."""
        self.sb_flags = 0
        """MS_SYNCHRONOUS and its kin, which are kept to be shown."""
        self.is_made_inside = False
        """A program has mounted it, and it was not there before."""
        self.first_places: tuple[tuple[tuple[bytes, ...], str], ...] = ()
        """For who rules over paths: (names from its root on, path at which that is mounted)."""
        self.mount_count = 0
        """Attached mounts of it, in all namespaces."""
        self.source = self.name
        """The first field of /proc/mounts."""
        self.renaming = Lock()
        """Who moves from one directory to another climbs the tree: s_vfs_rename_mutex."""

    @property
    def root(self) -> Inode:
        """The inode at the top."""
        raise NotImplementedError

    uuid: bytes = b""
    """Of those that have one: FS_IOC_GETFSUUID."""
    has_flags: ClassVar = False
    """Its files and directories have flags: sentry.vfs.flags."""
    no_devices: ClassVar = False
    """Its devices cannot be opened: SB_I_NODEV."""
    has_handles: ClassVar = False
    """name_to_handle_at(2) works on its files."""
    can_sync: ClassVar = True
    """fsync(2) works on its directories."""

    def statfs(self) -> StatFs:
        """statfs(2)."""
        return StatFs(self.magic, 4096, 0, 0, 0, 0)

    def reconfigure(self, options: bytes) -> None:
        """mount(2) with MS_REMOUNT: other options. Raises: EINVAL."""

    def check_writable(self) -> None:
        """mount(2) with MS_REMOUNT, without MS_RDONLY. Raises: EROFS, where that is an error."""

    def begin_unmount(self) -> None:
        """umount2(2) with MNT_FORCE: nobody waits for its server any longer."""

    def sync(self) -> None:
        """sync(2), syncfs(2): nothing is left in memory that should be on a disk."""

    def settle(self) -> None:
        """What was done is where everybody sees it, if perhaps on no disk. Raises: EIO, NotNow."""

    def rest(self) -> None:
        """No program runs: now is the time for what was put off."""

    def share(self) -> None:
        """Others change its files, too, from now on: what is done is where they see it before it is
        answered. Raises: EIO, NotNow; EOPNOTSUPP where nobody tells what they change."""

    def listen(self) -> Callable[[], None]:
        """For who wants to hear what `sync` does not tell: to be called afterwards, raises it."""
        return _nothing_to_tell

    def show_options(self) -> str:
        """Options for /proc/mounts beyond those of the mount, each with a comma before it."""
        return ""

    def forgetting(self) -> Steps[None]:
        """The last mount is gone: what is kept of much goes, before `shutdown`."""
        yield from ()

    def shutdown(self) -> None:
        """The last mount is gone."""

    def let_go_below(self) -> Sequence[FileSystem]:
        """After that: file systems that it has used as if they were mounted, and uses no longer."""
        return ()


def _nothing_to_tell() -> None:
    """All that was done has got there."""


class AnonFs(FileSystem):
    """Where files without a name live: pipes, eventfds, memfds… Never seen in a tree."""

    name = "anon_inodefs"
    magic = 0x09041934
    nameless: ClassVar = True
