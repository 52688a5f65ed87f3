"""Mounts and mount namespaces: which tree is seen where.

Propagation types are accepted and everything is private, so there is one copy of each mount and a
namespace is a list of them. A namespace made by unshare(CLONE_NEWNS) has copies of all mounts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

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
from sentry.errors import EBUSY, EINVAL, ENOSPC, EROFS
from sentry.vfs.budget import Budget
from sentry.vfs.dentry import Dentry, Location
from sentry.vfs.watches import tell_unmounted
from sentry.wait.queue import Changes

if TYPE_CHECKING:
    from sentry.vfs.fs_context import FsContext
    from sentry.vfs.interface import FileSystem

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
MAX_MOUNTS: Final = 10_000
"""Ceiling of a namespace; Linux's fs.mount-max is 100,000."""

_NAMES: Final = (
    (MS_NOSUID, "nosuid"),
    (MS_NODEV, "nodev"),
    (MS_NOEXEC, "noexec"),
    (MS_NOATIME, "noatime"),
    (MS_NODIRATIME, "nodiratime"),
    (MS_RELATIME, "relatime"),
    (MS_NOSYMFOLLOW, "nosymfollow"),
)


class Mount:
    """A tree of a file system, from `root` down, at a place (`parent`) of another mount."""

    __slots__ = (
        "__weakref__",
        "expiring",
        "flags",
        "fs",
        "id",
        "namespace",
        "no_atime",
        "no_dir_atime",
        "open_files",
        "parent",
        "propagation",
        "root",
        "writers",
    )

    def __init__(self, mount_id: int, fs: FileSystem, root: Dentry, flags: int = 0) -> None:
        self.id = mount_id
        self.fs = fs
        self.root = root
        self.parent: Location | None = None
        self.namespace: MountNamespace | None = None
        self.open_files = 0
        """Open descriptions on it: umount gives EBUSY while there are any."""
        self.writers = 0
        """Those of them that may write: a read-only remount gives EBUSY."""
        self.propagation = "private"
        self.expiring = False
        """umount2 with MNT_EXPIRE has marked it."""
        self.no_atime = self.no_dir_atime = False
        self.set_flags(flags)

    def set_flags(self, flags: int) -> None:
        """Take MS_* flags; access times are relative unless something else is asked for."""
        flags &= MOUNT_FLAGS
        if not flags & (MS_NOATIME | MS_STRICTATIME):
            flags |= MS_RELATIME
        self.flags = flags
        self.no_atime = bool(flags & (MS_NOATIME | MS_RDONLY)) or self.fs.read_only
        self.no_dir_atime = self.no_atime or bool(flags & MS_NODIRATIME)

    @property
    def location(self) -> Location:
        """Its root."""
        return Location(self, self.root)

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


class MountNamespace:
    """All mounts that a group of tasks sees. The first one is the root."""

    def __init__(
        self, root: Mount, ids: Iterator[int] | None = None, budget: Budget | None = None
    ) -> None:
        self.budget = budget if budget is not None else Budget()
        self.budget.mounts += 1
        self._ids = ids if ids is not None else itertools.count(root.id + 1)
        self.root = root
        self._at: dict[tuple[int, int], Mount] = {}
        self._mounts: dict[int, Mount] = {root.id: root}
        self.changes = Changes()
        """Told when a mount comes, goes or changes."""
        self.contexts: WeakSet[FsContext] = WeakSet()
        """Who has a root or working directory here, for EBUSY and pivot_root."""
        root.namespace = self

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self._mounts.values()))

    def __len__(self) -> int:
        return len(self._mounts)

    def __del__(self) -> None:
        self.budget.mounts -= len(self._mounts)

    def new_mount(self, fs: FileSystem, root: Dentry, flags: int) -> Mount:
        """A mount that is not attached yet."""
        self.check_room()
        return Mount(next(self._ids), fs, root, flags)

    def check_room(self) -> None:
        """Raises: ENOSPC."""
        if len(self._mounts) >= MAX_MOUNTS:
            raise ENOSPC("too many mounts")
        self.budget.check_mounts(1)

    def on(self, location: Location) -> Mount | None:
        """The mount that sits directly on a place."""
        return self._at.get((location.mount.id, id(location.dentry)))

    def top(self, location: Location) -> Location:
        """Down through everything mounted on a place."""
        while location.dentry.mounts:
            mount = self._at.get((location.mount.id, id(location.dentry)))
            if mount is None:
                break
            location = Location(mount, mount.root)
        return location

    def attach(self, mount: Mount, place: Location) -> None:
        """Put a mount on a place, on top of what is there."""
        place = self.top(place)
        mount.parent = place
        mount.namespace = self
        place.dentry.mounts += 1
        self._at[place.mount.id, id(place.dentry)] = mount
        if mount.id not in self._mounts:
            self._mounts[mount.id] = mount
            self.budget.mounts += 1
        self.changes.happened()

    def detach(self, mount: Mount) -> None:
        """Take a mount off its place; its own children stay on it."""
        place = mount.parent
        if place is not None:
            del self._at[place.mount.id, id(place.dentry)]
            place.dentry.mounts -= 1
        mount.parent = None
        mount.namespace = None
        del self._mounts[mount.id]
        self.budget.mounts -= 1
        self.changes.happened()

    def children(self, mount: Mount) -> list[Mount]:
        """Mounts whose place is on this one."""
        return [m for m in self._mounts.values() if m.parent is not None and m.parent[0] is mount]

    def tree(self, mount: Mount) -> list[Mount]:
        """The mount and all below it, parents first."""
        found = [mount]
        for at in found:
            found.extend(self.children(at))
        return found

    def busy(self, mount: Mount) -> bool:
        """Something is open, mounted, or somebody's root or cwd, on it."""
        if mount.open_files or self.children(mount):
            return True
        return any(c.root.mount is mount or c.cwd.mount is mount for c in self.contexts)

    def umount(self, mount: Mount, *, lazy: bool) -> None:
        """umount2(2): everything below goes too when lazy. Raises: EBUSY, EINVAL."""
        if mount.namespace is not self or mount is self.root:
            raise EINVAL("not a mount that can go")
        if not lazy and self.busy(mount):
            raise EBUSY("in use")
        for each in reversed(self.tree(mount)):
            self.detach(each)
            self._gone(each.fs)

    def _gone(self, fs: FileSystem) -> None:
        if not any(m.fs is fs for m in self._mounts.values()):
            tell_unmounted(fs)
            fs.shutdown()

    def copy_tree(
        self, source: Mount, root: Dentry, *, recursive: bool
    ) -> tuple[Mount, list[tuple[Mount, Location]]]:
        """A bind mount: a new mount of `root`, and (mount, place) of those below if recursive."""
        top = self.new_mount(source.fs, root, source.flags)
        copies: list[tuple[Mount, Location]] = []
        if recursive:
            by_old = {source.id: top}
            for old in self.tree(source)[1:]:
                assert old.parent is not None
                parent = by_old.get(old.parent.mount.id)
                inside = old.parent.mount is not source or old.parent.dentry.is_below(root)
                if parent is None or not inside:
                    continue
                new = self.new_mount(old.fs, old.root, old.flags)
                by_old[old.id] = new
                copies.append((new, Location(parent, old.parent.dentry)))
        return top, copies

    def copy(self, contexts: list[FsContext]) -> MountNamespace:
        """CLONE_NEWNS: copies of all mounts; `contexts` move to the copies."""
        self.budget.check_mounts(len(self._mounts))
        by_old: dict[int, Mount] = {}
        new_root = Mount(next(self._ids), self.root.fs, self.root.root, self.root.flags)
        by_old[self.root.id] = new_root
        namespace = MountNamespace(new_root, self._ids, self.budget)
        for old in self.tree(self.root)[1:]:
            assert old.parent is not None
            new = Mount(next(self._ids), old.fs, old.root, old.flags)
            by_old[old.id] = new
            parent = by_old[old.parent.mount.id]
            new.parent = Location(parent, old.parent.dentry)
            new.namespace = namespace
            old.parent.dentry.mounts += 1
            namespace._at[parent.id, id(old.parent.dentry)] = new
            namespace._mounts[new.id] = new
            namespace.budget.mounts += 1
        for context in contexts:
            context.move_to(namespace, by_old)
        return namespace

    def pivot(self, new_root: Mount, put_old: Location) -> None:
        """pivot_root(2): swap the root mount; the checks are done by the caller."""
        old_root, place = self.root, new_root.parent
        assert place is not None
        del self._at[place.mount.id, id(place.dentry)]
        place.dentry.mounts -= 1
        new_root.parent = None
        self.root = new_root
        self.attach(old_root, put_old)
        for context in self.contexts:
            context.root_changed(old_root.location, new_root.location)
