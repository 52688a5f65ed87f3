"""`FsContext`: root, working directory and umask (struct fs_struct; CLONE_FS shares it)."""

from __future__ import annotations

from sentry.vfs.location import Location
from sentry.vfs.mount import Mount, top
from sentry.vfs.mounts import MountNamespace


class FsContext:
    """Where path walks start. Its mounts are busy as long as it is there."""

    __slots__ = ("cwd", "root", "umask")

    def __init__(self, root: Location, cwd: Location, umask: int = 0o022) -> None:
        self.root = root
        self.cwd = cwd
        self.umask = umask
        root.mount.residents += 1
        cwd.mount.residents += 1

    def __del__(self) -> None:
        self.root.mount.residents -= 1
        self.cwd.mount.residents -= 1

    def copy(self) -> FsContext:
        """fork(2) without CLONE_FS."""
        return FsContext(self.root, self.cwd, self.umask)

    def chroot(self, place: Location) -> None:
        """Another root: set_fs_root()."""
        place.mount.residents += 1
        self.root.mount.residents -= 1
        self.root = place

    def chdir(self, place: Location) -> None:
        """Another working directory: set_fs_pwd()."""
        place.mount.residents += 1
        self.cwd.mount.residents -= 1
        self.cwd = place

    def move_to(self, mounts: dict[int, Mount]) -> None:
        """The task went to a copy of its mount namespace."""
        root, cwd = mounts.get(self.root.mount.id), mounts.get(self.cwd.mount.id)
        if root is not None:
            self.chroot(Location(root, self.root.dentry))
        if cwd is not None:
            self.chdir(Location(cwd, self.cwd.dentry))

    def enter(self, namespace: MountNamespace) -> None:
        """setns(2): to the root of another namespace."""
        root = top(namespace.root.location)
        self.chroot(root)
        self.chdir(root)

    def root_changed(self, old: Location, new: Location) -> None:
        """pivot_root moves everybody who was at the old root."""
        if self.root == old:
            self.chroot(new)
        if self.cwd == old:
            self.chdir(new)
