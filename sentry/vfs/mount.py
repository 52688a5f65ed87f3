"""`Mount`: a tree of a file system at a place of another mount. struct mount, fs/mount.h.

A mount knows what is mounted on it, so a walk needs no namespace (mounts.py).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi.layout import Record
from sentry.abi.mount import (
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_RDONLY,
    MS_RELATIME,
    MS_STRICTATIME,
)
from sentry.errors import EROFS
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.auth.userns import UserNamespace
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.marks import Marks
    from sentry.wait.queue import ChangeCount

MOUNT_FLAGS: Final = (
    MS_RDONLY
    | MS_NOSUID
    | MS_NODEV
    | MS_NOEXEC
    | MS_NOATIME
    | MS_NODIRATIME
    | MS_RELATIME
    | MS_NOSYMFOLLOW
    | MS_STRICTATIME
)
"""The flags of mount(2) that belong to a mount, not to the file system."""
LOCKABLE: Final = MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC
"""Flags that a less privileged namespace cannot take away."""
ATIME_FLAGS: Final = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME
FIRST_UNIQUE: Final = 1 << 31
"""Where the mount ids begin that are never used twice: STATX_MNT_ID_UNIQUE."""

_NAMES: Final = (
    (MS_NOSUID, "nosuid"),
    (MS_NODEV, "nodev"),
    (MS_NOEXEC, "noexec"),
    (MS_NOATIME, "noatime"),
    (MS_NODIRATIME, "nodiratime"),
    (MS_RELATIME, "relatime"),
    (MS_NOSYMFOLLOW, "nosymfollow"),
)


class Peers(Protocol):
    """Mounts that share what is mounted on them: sentry.vfs.propagation."""

    @property
    def id(self) -> int: ...
    @property
    def members(self) -> MutableMapping[int, Mount]: ...
    @property
    def slaves(self) -> MutableMapping[int, Mount]: ...

    def end(self) -> None:
        """Nobody is in it any more."""


class Namespace(Protocol):
    """Those that hang together, as one of them knows it: sentry.vfs.mounts."""

    anonymous: bool
    budget: Any
    changes: ChangeCount

    @property
    def owner(self) -> UserNamespace | None: ...
    def busy(self, mount: Mount) -> bool: ...
    def detach(self, mount: Mount) -> None: ...
    def take_off(self, mount: Mount) -> None: ...
    def put(self, mount: Mount, place: Location) -> None: ...
    def put_beneath(self, mount: Mount, place: Location) -> None: ...
    def enlist(self, mount: Mount) -> None: ...
    def strike_off(self, mount: Mount) -> None: ...


class Veil:
    """Mounts in many places that all appear, or are all gone, in one moment.

    Linux puts and takes them below `mount_lock`, which walks wait for; here the many are prepared
    in pieces, and a walk does not see those whose veil hides them.
    """

    __slots__ = ("hides",)

    def __init__(self, *, hides: bool) -> None:
        self.hides = hides


class Mount:
    """A tree of a file system, from `root` down, at a place (`parent`) of another mount."""

    __slots__ = (
        "expiring",
        "flags",
        "fs",
        "group",
        "id",
        "locked",
        "locked_flags",
        "marks",
        "master",
        "mounted",
        "namespace",
        "no_atime",
        "no_dir_atime",
        "open_files",
        "parent",
        "residents",
        "root",
        "unbindable",
        "veil",
        "writers",
    )

    def __init__(self, mount_id: int, fs: FileSystem, root: Dentry, flags: int = 0) -> None:
        self.id = mount_id
        self.fs = fs
        self.root = root
        self.parent: Location | None = None
        self.namespace: Namespace | None = None
        """Where it is attached."""
        self.mounted: dict[int, Mount] = {}
        """What sits on places of this mount, by the address of the place's dentry."""
        self.open_files = 0
        """Open descriptions on it: umount gives EBUSY while there are any."""
        self.residents = 0
        """Roots and working directories on it: EBUSY, too."""
        self.writers = 0
        """Open descriptions that may write: a read-only remount gives EBUSY."""
        self.group: Peers | None = None
        """Shared with these mounts."""
        self.master: Peers | None = None
        """A slave of these mounts."""
        self.unbindable = False
        self.locked = False
        """A less privileged namespace got it from a more privileged one: it stays where it is."""
        self.locked_flags = 0
        self.marks: Marks | None = None
        """fanotify's."""
        self.expiring = 0
        """umount2 with MNT_EXPIRE has marked it with 2; every walk into it takes one away."""
        self.veil: Veil | None = None
        """It is coming or going together with others."""
        self.no_atime = self.no_dir_atime = False
        self.set_flags(flags)

    def set_flags(self, flags: int) -> None:
        """Take MS_* flags; access times are relative unless something else is asked for."""
        flags &= MOUNT_FLAGS
        if not flags & (MS_NOATIME | MS_STRICTATIME):
            flags |= MS_RELATIME
        if flags & MS_STRICTATIME:
            flags &= ~(MS_NOATIME | MS_RELATIME)
        self.flags = flags
        self.no_atime = bool(flags & (MS_NOATIME | MS_RDONLY)) or self.fs.read_only
        self.no_dir_atime = self.no_atime or bool(flags & MS_NODIRATIME)

    @property
    def unique_id(self) -> int:
        """An id that no other mount ever has."""
        return FIRST_UNIQUE + self.id

    @property
    def location(self) -> Location:
        """Its root."""
        return Location(self, self.root)

    @property
    def hidden(self) -> bool:
        """Walks do not see it, at its place."""
        return self.veil is not None and self.veil.hides

    @property
    def overmount(self) -> Mount | None:
        """The mount that covers all of it."""
        return self.mounted.get(id(self.root))

    @property
    def read_only(self) -> bool:
        """Nothing can be written through it."""
        return bool(self.flags & MS_RDONLY) or self.fs.read_only

    def check_writable(self) -> None:
        """mnt_want_write(). Raises: EROFS."""
        if self.flags & MS_RDONLY or self.fs.read_only:
            raise EROFS("read-only")

    def options(self) -> str:
        """The options of the mount, as in /proc/self/mountinfo."""
        first = "ro" if self.flags & MS_RDONLY else "rw"
        return ",".join([first, *(name for flag, name in _NAMES if self.flags & flag)])


class MountUse:
    """What a call has that is asleep in an open(2) of something there: umount is EBUSY."""

    __slots__ = ("_mount",)

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        mount.open_files += 1

    def let_go(self) -> None:
        """The call has ended; what it has opened counts by itself."""
        self._mount.open_files -= 1


class Stand(Record):
    """What a mount was like at some moment, without holding anything."""

    place: tuple[int, int] | None
    """By the ids of the mount and of the dentry's object."""
    fs_reads_only: bool
    flags: int


def stand(mount: Mount) -> Stand:
    """What it is like now."""
    at = mount.parent
    place = None if at is None else (at.mount.id, id(at.dentry))
    return Stand(place, mount.fs.read_only, mount.flags)


def top(location: Location) -> Location:
    """Down through everything mounted on a place."""
    while location.dentry.mounts:
        mount = location.mount.mounted.get(id(location.dentry))
        if mount is None or mount.hidden:
            break
        if mount.expiring:
            mount.expiring -= 1
        location = Location(mount, mount.root)
    return location


def tree(mount: Mount) -> list[Mount]:
    """The mount and all below it, parents first."""
    found = [mount]
    for at in found:
        found.extend(at.mounted.values())
    return found
