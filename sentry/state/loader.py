"""`Loader`: the objects of a snapshot by their places in its lists, made when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sentry.auth.credentials import Credentials
from sentry.state import records
from sentry.state.filling import Loaded
from sentry.state.namespaces import MadeNamespaces
from sentry.state.numbering import Numbers
from sentry.state.pages import Damaged
from sentry.state.values import made_actions, made_credentials, made_limits
from sentry.vfs.dentry import Dentry
from sentry.vfs.interface import Absent, Inode
from sentry.vfs.location import Location
from sentry.vfs.walk import child_of
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.mm.ramfile import RamFile
    from sentry.net.inet.tcp import TcpSocket
    from sentry.state.rights import Rights
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.mount import Mount

T = TypeVar("T")


def at(things: Sequence[T], place: int, what: str) -> T:
    """What a reference means. Raises: Damaged."""
    if place >= len(things):
        raise Damaged(f"there is no {what} {place}")
    return things[place]


class Opener:
    """A caller that is where a task is, as root: rights were looked at when the file was opened.

    What the file does later is done by who opened it: `creds`.
    """

    def __init__(self, task: Task, creds: Credentials | None = None) -> None:
        self._task = task
        self.creds = creds or Credentials.root()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


class Loader:
    """One snapshot, that a container begins with."""

    def __init__(
        self, kernel: Kernel, numbers: Numbers, snapshot: records.Snapshot, pages: Loaded,
        rights: Rights,
    ) -> None:  # fmt: skip
        """Raises: Damaged."""
        self.kernel = kernel
        self.container: Container = numbers.container
        self.numbers = numbers
        self.rights = rights
        self.snapshot = snapshot
        self.pages = pages
        self.inodes: list[list[Inode]] = []
        """Of each tree."""
        self.namespaces = made = MadeNamespaces(
            kernel, snapshot.namespaces, rights, snapshot.mount_table, numbers
        )
        self.first: list[Mount] = made.mounts.first
        """Mounts that the container begins with."""
        self.mounts: list[Mount] = made.mounts.all
        """Those, and behind them all that programs have made."""
        self._net = numbers.container.ns.net
        self._with_ports: set[Any] = set()
        """Sockets of TCP that are its own and have a port."""
        self.creds = [
            made_credentials(rights.checked(each), made.user(each.user_ns))
            for each in snapshot.creds
        ]
        self.limits = [made_limits(each, rights) for each in snapshot.limits]
        self.actions = [made_actions(each) for each in snapshot.actions]
        self._bytes: dict[int, RamFile] = {}

    def is_others(self, sock: TcpSocket) -> bool:
        """Another container has its port by now: programs of a pod run while this is loaded."""
        self._with_ports.add(sock)
        holders = sock.ports.at(sock.local.port) if sock.stack is self._net._stack else []
        return not self._with_ports.issuperset(holders)

    def ram_file(self, place: int, make: Callable[[], RamFile]) -> RamFile:
        """A file in RAM, with frames for all its pages; `make` gives an empty one.

        Raises: Damaged, ENOMEM, ENOSPC.
        """
        known = self._bytes.get(place)
        if known is not None:
            return known
        record = at(self.snapshot.bytes, place, "file in memory")
        found = self._bytes[place] = make()
        found.name, found.transient = record.name, record.transient
        frames, last = self.pages.frames, 0
        for run in record.runs:
            if run.page < last:
                raise Damaged("pages of a file that are not in order")
            last = run.page + run.count
            self.pages.claim(run.count)
            if not run.frame:
                found.fill(run.page, run.count)
                continue
            if run.frame + run.count > len(frames):
                raise Damaged(f"there is no page {run.frame + run.count - 1}")
            self.pages.own(run.frame, run.count)
            there = min(max(0, self.pages.mapped + 1 - run.frame), run.count)
            found.take(run.page, frames[run.frame : run.frame + there])
            found.fill(run.page + there, run.count - there)
            rest = found.frames(run.page + there, run.count - there)
            frames[run.frame + there : run.frame + run.count] = rest
        if last << 12 > (record.size + 4095) & ~4095 and last:
            raise Damaged("pages behind the end of a file")
        found.truncate(record.size)
        return found

    def let_go(self) -> None:
        """Files in RAM that nobody has come to have."""
        for file in self._bytes.values():
            if file.transient and not file.mappers:
                file.close()

    def used_twice(self, place: int) -> bool:
        """Somebody has asked for it already."""
        return place in self._bytes

    async def place(self, record: records.Place) -> Location:
        """Raises: Damaged, and what the file system says."""
        mount = at(self.mounts, record.mount, "mount")
        if record.tree is not None:
            lost = self.nameless(mount.root, record.path, (record.tree, record.inode))
            return Location(mount, lost)
        return Location(mount, await self.walk(mount.root, record.path, mount))

    def nameless(self, root: Dentry, name: bytes, place: records.InTree) -> Dentry:
        """The name that a file has lost. Raises: Damaged."""
        dentry = Dentry(root, name, self.in_tree(root.inode.fs, place))
        dentry.unlinked = True
        return dentry

    def in_tree(self, fs: FileSystem, place: records.InTree) -> Inode:
        """A file of a tree, which is of this file system. Raises: Damaged."""
        tree, which = place
        inode = at(at(self.inodes, tree, "tree"), which, "file")
        if inode.fs is not fs:
            raise Damaged("a file of another file system than its mount's")
        if inode.is_dir and any(_lies_above(inode, each) for each in self.first):
            raise Damaged(f"a directory on which a mount lies, on {fs.name}")
        return inode

    def file_system(self, tree: records.Tree) -> FileSystem:
        """Which one it is of. Raises: Damaged."""
        if tree.fs is not None:
            return self.namespaces.mounts.file_system(tree.fs)
        return at(self.mounts, tree.mount, "mount").fs

    async def walk(self, dentry: Dentry, path: bytes, mount: Mount | None = None) -> Dentry:
        """Down from a place, and by none that a mount hides. Raises: Damaged, and what the file
        system says."""
        self._check_seen(mount, dentry)
        for name in filter(None, path.split(b"/")):
            child = await step(dentry.inode, name, path)
            dentry = dentry.child(name, child, self.kernel.vfs.dentries)
            self._check_seen(mount, dentry)
        return dentry

    async def check_places(self) -> None:
        """Each mount is still where it was before trees were loaded. Raises: Damaged."""
        for mount in self.first:
            if mount.parent is None:
                continue
            below, dentry = mount.parent
            names = []
            while dentry is not below.root and dentry.parent is not None:
                names.append(dentry.name)
                dentry = dentry.parent
            path = b"/".join(reversed(names))
            for name in reversed(names):
                inode = await step(dentry.inode, name, path)
                dentry = dentry.child(name, inode, self.kernel.vfs.dentries)
            if dentry is not mount.parent.dentry:
                raise Damaged(f"a mount of {mount.fs.name} has lost its place")

    def _check_seen(self, mount: Mount | None, dentry: Dentry) -> None:
        """No mount hides it that its programs cannot take off: what is masked stays so, and what
        cannot be written. Raises: Damaged."""
        above = mount.mounted.get(id(dentry)) if mount is not None else None
        if mount is not None and above is not None and (above.locked or above in self.first):
            raise Damaged(f"a file that a mount hides, on {mount.fs.name}")


def _lies_above(directory: Inode, mount: Mount) -> bool:
    """The mount's place is in there, which no name is without: what it hides would be seen."""
    at_dentry = None if mount.parent is None else mount.parent.dentry
    while at_dentry is not None and at_dentry.inode is not directory:
        at_dentry = at_dentry.parent
    return at_dentry is not None


async def step(directory: Inode, name: bytes, path: bytes) -> Inode:
    """The file of this name, and no other way. Raises: Damaged."""
    if name in (b".", b"..") or b"\0" in name or not directory.is_dir:
        raise Damaged(f"{path!r} is no path of a snapshot")
    child = await again(child_of, directory, name)
    if isinstance(child, Absent):
        raise Damaged(f"the container has no /{path.decode(errors='replace')}")
    return cast("Inode", child)
