"""`Saver`: gives the objects that others refer to their places in the lists of a snapshot.

What is reached first becomes a record first; a record that refers to others is made after it has
its place, so circles have an end. What cannot be kept is `refused` by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sentry.errors import EOPNOTSUPP
from sentry.state import open_files, records, trees
from sentry.state.mounts import SavedMounts
from sentry.state.namespaces import SavedNamespaces
from sentry.state.others import Others
from sentry.state.pages import Saved
from sentry.state.values import credentials, handlers, resource_limits

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel, Namespaces
    from sentry.mm.ramfile import RamFile
    from sentry.net.stack import Stack
    from sentry.vfs.interface import Inode
    from sentry.vfs.location import Location
    from sentry.vfs.mount import Mount
    from sentry.wait.steps import Pace


MAX_PATH: Final = 1 << 16


def refused(what: str) -> NoReturn:
    """Raises: EOPNOTSUPP, which the caller of `checkpoint` reads."""
    raise EOPNOTSUPP(f"cannot checkpoint: {what}")


def mounted(mount: Mount) -> records.Mounted:
    """A mount, and where it is on the one below."""
    parts: list[bytes] = []
    if mount.parent is not None:
        below, dentry = mount.parent
        while dentry is not below.root and dentry.parent is not None:
            parts.append(dentry.name)
            dentry = dentry.parent
    return records.Mounted(mount.fs.name, b"/".join(reversed(parts)))


Work = tuple["Places", int]


class Places:
    """Objects of one kind, by the order in which they were found.

    With a list of work, `later`, records are made by who goes through that: a chain of objects
    that programs have made, each of which leads to the next, may be of any length.
    """

    def __init__(self, record: Callable[[Any], Any], later: list[Work] | None = None) -> None:
        self._record = record
        self._later = later
        self._at: dict[int, int] = {}
        self._objects: list[Any] = []
        """Held, so that no two have one identity."""
        self.records: list[Any] = []

    def __call__(self, thing: Any) -> int:
        """Its place."""
        found = self._at.get(id(thing))
        if found is None:
            found = self._at[id(thing)] = len(self._objects)
            self._objects.append(thing)
            self.records.append(None)
            if self._later is None:
                self._make(found)
            else:
                self._later.append((self, found))
        return found

    def _make(self, place: int) -> None:
        self.records[place] = self._record(self._objects[place])


class Saver:
    """One snapshot, of a container."""

    def __init__(self, kernel: Kernel, container: Container, *, builds: bool = False) -> None:
        """Raises: EOPNOTSUPP."""
        self.kernel = kernel
        self.container = container
        self.first: Namespaces = container.ns
        """The namespaces that are the first ones of who is restored, its own or its pod's."""
        self.others = Others(kernel, container)
        self.locked: dict[int, Any] = {}
        """For each inode with locks an open file of it."""
        self.listed: dict[int, list[records.Listed]] = {}
        """For an open directory that is read on its names."""
        self.remains = Places(self._left)
        self._left_in: dict[int, Stack] = {}
        self.undos = Places(self._undo)
        self.terminals = Places(self._terminal)
        self.pages = Saved(kernel.remembered, builds=builds)
        self.mounts = SavedMounts(self)
        self.trees = trees.find(self)
        self.bytes = Places(self._bytes)
        self.pipes = Places(open_files.pipe)
        self._later: list[Work] = []
        self.files = Places(lambda file: open_files.save(self, file), self._later)
        self.namespaces = SavedNamespaces(self)
        self.creds = Places(self._credentials)
        self.descriptors = Places(self._descriptors)
        self.starts = Places(self._start)
        self.limits = Places(resource_limits)
        self.actions = Places(handlers)

    async def catch_up(self, pace: Pace) -> None:
        """Make the records of all open files that were found so far, and of what they lead to."""
        while self._later:
            places, place = self._later.pop()
            thing = places._objects[place]
            if found := await open_files.listed(thing):
                self.listed[id(thing)] = found
            places._make(place)
            await pace.rest()

    def number(self, outer: int) -> int:
        """That of a process, a group or a session, as the container has it; 0: it is not there.
        Those below 0 are none, and stay."""
        return outer if outer <= 0 else self.container.pids.of(outer)

    def known(self, outer: int | None) -> int | None:
        """The same; None: it is not there."""
        return None if outer is None else self.number(outer) or None

    def place(self, location: Location) -> records.Place:
        """A name. Raises: EOPNOTSUPP."""
        mount, dentry = location
        at = self.mounts.at(mount)
        if at is None:
            refused(f"a file of a mount that was taken off ({mount.fs.name})")
        parts: list[bytes] = []
        above, length = dentry, 0
        while above is not mount.root:
            if above.unlinked or above.parent is None:
                return self._nameless(at, location)
            parts.append(above.name)
            length += len(above.name) + 1
            if length > MAX_PATH:
                refused(f"a file whose name is longer than {MAX_PATH} bytes")
            above = above.parent
        return records.Place(at, b"/".join(reversed(parts)))

    def _nameless(self, at: int, location: Location) -> records.Place:
        inode, name = location.dentry.inode, location.dentry.name
        for number, tree in enumerate(self.trees):
            if tree.fs is inode.fs:
                return records.Place(at, name, number, tree.place(inode))
        refused(f"an open file that was removed, on {inode.fs.name}: {name!r}")

    def in_tree(self, inode: Inode) -> tuple[int, int]:
        """Where a file in memory is. Raises: EOPNOTSUPP."""
        for number, tree in enumerate(self.trees):
            if tree.fs is inode.fs:
                return number, tree.place(inode)
        refused(f"a Unix socket with a name, a watch of inotify, or a mount or an overlay of a file"
                f" that was removed, on {inode.fs.name}")  # fmt: skip

    def _bytes(self, file: RamFile) -> records.Bytes:
        if self.others.has(file):
            refused("memory that another container has mapped, too")
        runs = []
        for number, chunk in sorted(file._chunks.items()):
            runs += self.pages.numbered(chunk, number * len(chunk), zeros=True)
        return records.Bytes(file.size, runs, file.name, file.transient)

    def _terminal(self, terminal: Any) -> records.Terminal:
        from sentry.state import terminals  # noqa: PLC0415  few have one

        return terminals.save(self, terminal)

    def _undo(self, found: Any) -> records.Undo:
        from sentry.state import sysv  # noqa: PLC0415  few have any

        return sysv.undo(self, found)

    def left(self, one: Any, stack: Stack) -> int:
        """The place of what a connection has left in a network namespace."""
        self._left_in[id(one)] = stack
        return self.remains(one)

    def _left(self, one: Any) -> records.Remains:
        return records.Remains(
            (one.local.ip, one.local.port), (one.remote.ip, one.remote.port), one.family,
            sorted(one.options), one.v6only, one.owner_uid, one.state, one.expires_ns,
            one.shares_port, self.namespaces.net(self._left_in[id(one)]),
        )  # fmt: skip

    def _credentials(self, creds: Any) -> records.Credentials:
        return credentials(creds, self.namespaces.user(creds.user_ns))

    def _descriptors(self, table: Any) -> records.Descriptors:
        return records.Descriptors(
            [(fd, self.files(table.get_raw(fd)), table.close_on_exec_of(fd)) for fd in table]
        )

    def _start(self, start: Any) -> records.Start:
        return records.Start(self.place(start.root), self.place(start.cwd), start.umask)
