"""`FsContext`: root, working directory and umask (struct fs_struct; CLONE_FS shares it)."""

from __future__ import annotations

from sentry.vfs.dentry import Location
from sentry.vfs.mount import Mount, top
from sentry.vfs.mounts import MountNamespace


class FsContext:
    """Where path walks start."""

    __slots__ = ("__weakref__", "_namespace", "cwd", "root", "umask")

    def __init__(
        self, namespace: MountNamespace, root: Location, cwd: Location, umask: int = 0o022
    ) -> None:
        self._namespace = namespace
        self.root = root
        self.cwd = cwd
        self.umask = umask
        namespace.contexts.add(self)

    def copy(self) -> FsContext:
        """fork(2) without CLONE_FS."""
        return FsContext(self._namespace, self.root, self.cwd, self.umask)

    def move_to(self, namespace: MountNamespace, mounts: dict[int, Mount]) -> None:
        """The task went to a copy of its mount namespace."""
        self._namespace.contexts.discard(self)
        self._namespace = namespace
        namespace.contexts.add(self)
        root, cwd = mounts.get(self.root.mount.id), mounts.get(self.cwd.mount.id)
        if root is not None:
            self.root = Location(root, self.root.dentry)
        if cwd is not None:
            self.cwd = Location(cwd, self.cwd.dentry)

    def enter(self, namespace: MountNamespace) -> None:
        """setns(2): to the root of another namespace."""
        self._namespace.contexts.discard(self)
        self._namespace = namespace
        namespace.contexts.add(self)
        self.root = self.cwd = top(namespace.root.location)

    def root_changed(self, old: Location, new: Location) -> None:
        """pivot_root moves everybody who was at the old root: chroot_fs_refs()."""
        if self.root == old:
            self.root = new
        if self.cwd == old:
            self.cwd = new
