"""Mounts that programs have made, and namespaces of mounts, as records: see remounting.py.

Mounts are counted: first those that the container began with, by which the bundle is known to be
the same, then all others, in the order in which they are listed. A mount of what the container
began with names one of those, its model; what else is mounted is a file system that can be made
again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.proc.filesystem import ProcFs
from sentry.fs.proc.namespaces import NamespaceInode
from sentry.fs.tmpfs.filesystem import RamFs, TmpFs
from sentry.state import records
from sentry.vfs.mount import Mount, stand

if TYPE_CHECKING:
    from sentry.state.saver import Saver
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.mounts import MountNamespace
    from sentry.wait.queue import ChangeCount
    from sentry.wait.steps import Pace

Names = list[bytes]


class SavedMounts:
    """Of one snapshot. Preconditions: nobody mounts meanwhile (`MountBudget.lock`)."""

    def __init__(self, saver: Saver) -> None:
        """Raises: EOPNOTSUPP."""
        from sentry.state.saver import Places, refused  # noqa: PLC0415  which knows this module

        self._refused = refused
        self._first = first = saver.first.mounts.mounts
        self._began = began = saver.container.first_mounts
        self.first = [mount for mount in first if mount.id in began]
        """Those that the container began with."""
        if len(self.first) != len(began) or any(
            stand(mount)[:2] != began[mount.id][:2] for mount in self.first
        ):
            refused("a mount of the container that a program has taken off or moved, or whose file"
                    " system it has made read-only")  # fmt: skip
        every = saver.kernel.vfs.budget.namespaces
        if saver.others:  # of which nobody knows who has made them, if no process is there
            groups = saver.container.processes()
            own = {id(task.ns.mounts.mounts) for group in groups for task in group.tasks}
            every = dict.fromkeys(
                each for each in every if id(each) in own and not saver.others.has(each)
            )
        self._namespaces = [each for each in every if each is not first and not each.anonymous]
        self._namespace_at = {id(each): at for at, each in enumerate(self._namespaces)}
        self._made = [mount for mount in first if mount.id not in began]
        for namespace in self._namespaces:
            self._made += namespace
        self.all = [*self.first, *self._made]
        self._at = {id(mount): at for at, mount in enumerate(self.all)}
        self._models: dict[int, list[tuple[Names, int]]] = {}
        """Mounts of `first` by file system, with the names of their roots: the longest first."""
        for at, mount in enumerate(self.first):
            names = self._names(mount.root)
            self._models.setdefault(id(mount.fs), []).append((names, at))
        for found in self._models.values():
            found.sort(key=lambda each: -len(each[0]))
        self._file_systems = Places(self._file_system)
        self._saver: Any = None

    def at(self, mount: Mount) -> int | None:
        """Its place, if some namespace has it."""
        return self._at.get(id(mount))

    def namespace(self, namespace: MountNamespace) -> int | None:
        """Its place; None: the first. Raises: EOPNOTSUPP."""
        if namespace is self._first:
            return None
        place = self._namespace_at.get(id(namespace))
        if place is None:
            self._refused("a namespace of mounts in which no process of the container is")
        return place

    def is_one_of_many(self, changes: ChangeCount | None) -> bool:
        """Whether these are of a namespace's mounts, and there are others: a list that is opened
        again is of that of its process."""
        every = (self._first, *self._namespaces)
        return len(every) > 1 and any(changes is each.changes for each in every)

    async def record(self, saver: Saver, pace: Pace) -> records.MountTable:
        """What is not as it was when the container began. Raises: EOPNOTSUPP."""
        self._saver = saver
        made = []
        for mount in self._made:
            made.append(self._mount(mount))
            await pace.rest()
        changed = [
            records.Changed(at, _sharing(mount)) for at, mount in enumerate(self.first)
            if mount.flags != self._began[mount.id].flags or mount.group or mount.master
            or mount.unbindable
        ]  # fmt: skip
        owners = [saver.namespaces.user(each.owner) for each in self._namespaces]
        namespaces = [records.MountNamespace(owner) for owner in owners]
        return records.MountTable(self._file_systems.records, namespaces, changed, made)

    def _mount(self, mount: Mount) -> records.MadeMount:
        parent, place, namespace = None, b"", mount.namespace
        if mount.parent is not None:
            parent = self.at(mount.parent.mount)
            place = self._path(mount.parent.dentry, mount.parent.mount.root)
        assert namespace is self._first or namespace is not None
        return records.MadeMount(
            mount.id, None if namespace is self._first else self._namespace_at[id(namespace)],
            parent, place, sharing=_sharing(mount), locked=mount.locked,
            locked_flags=mount.locked_flags, **self._shown(mount),
        )  # fmt: skip

    def _shown(self, mount: Mount) -> dict[str, Any]:
        """What it is a mount of: fields of its record."""
        inode = mount.root.inode
        if isinstance(inode, NamespaceInode):
            return {"shows": self._saver.namespaces.named(inode.kind_name, inode.namespace)}
        return self._where(mount.fs, mount.root, mount.flags)

    def where(self, fs: FileSystem, dentry: Dentry) -> records.Where:
        """A file, whether its file system is mounted or not. Raises: EOPNOTSUPP."""
        return records.Where(**self._where(fs, dentry, 0))

    def _where(self, fs: FileSystem, dentry: Dentry, flags: int) -> dict[str, Any]:
        """The same as fields; `flags`: of a mount, for which one that has them is best."""
        lost = _has_lost_its_name(dentry)
        names = [] if lost else self._names(dentry)
        found: dict[str, Any] = {}
        models = [
            (len(root), at) for root, at in self._models.get(id(fs), ())
            if names[: len(root)] == root
        ]  # fmt: skip
        if models:
            depth = models[0][0]
            same = [at for length, at in models if length == depth]
            like = [at for at in same if self.first[at].flags == flags]
            found["model"], names = (like or same)[0], names[depth:]
        elif id(fs) in self._models:
            self._refused(f"a mount of {fs.name} that is like none of the container")
        else:
            found["fs"] = self._file_systems(fs)
        found["root"] = b"/".join(names)
        if lost:
            found["root"] = dentry.name
            found["tree"], found["inode"] = self._saver.in_tree(dentry.inode)
        return found

    def is_first(self, fs: FileSystem) -> bool:
        """The container began with a mount of it."""
        return id(fs) in self._models

    def unmounted(self, fs: FileSystem) -> int:
        """The place of one that no mount shows any more. Raises: EOPNOTSUPP."""
        return self._file_systems(fs)

    def _file_system(self, fs: FileSystem) -> records.FileSystem:
        namespaces, shows, limits, options = self._saver.namespaces, None, None, ""
        devices: list[int] = []
        if type(fs) in (TmpFs, RamFs):
            limits = _limits(fs)
        elif type(fs) is ProcFs:
            shows, options = namespaces.pids(fs.pids), fs.show_options().lstrip(",")
        elif fs.name == "sysfs":
            shows = namespaces.named("net", fs.net).place  # type: ignore[attr-defined]
        elif fs.name == "devpts":
            options = fs.show_options().lstrip(",")
        elif fs.name == "overlay" and not isinstance(fs, OverlayFs):
            devices = fs.stack.devices  # type: ignore[attr-defined]
        elif fs.name not in ("cgroup2", "erofs"):
            self._refused(f"a file system of type {fs.name} that a program has mounted")
        return records.FileSystem(
            fs.name, fs.source, fs.dev, namespaces.user(fs.owner), fs.sb_flags, fs.read_only,  # type: ignore[arg-type]
            limits, shows, getattr(fs, "processes_only", False), options,
            fs is self._saver.kernel.vfs.devpts, devices,
        )  # fmt: skip

    def _names(self, dentry: Dentry) -> Names:
        """From the top of its file system."""
        path = self._path(dentry, None)
        return path.split(b"/") if path else []

    def _path(self, dentry: Dentry, root: Dentry | None) -> bytes:
        """Below a root, or the top. Raises: EOPNOTSUPP."""
        from sentry.state.saver import MAX_PATH  # noqa: PLC0415  which knows this module

        names, length, at = Names(), 0, dentry
        while at is not root and at.parent is not None:
            if at.unlinked:
                self._refused("a mount on what was removed")
            names.append(at.name)
            length += len(at.name) + 1
            if length > MAX_PATH:
                self._refused(f"a mount whose path is longer than {MAX_PATH} bytes")
            at = at.parent
        return b"/".join(reversed(names))


def _has_lost_its_name(dentry: Dentry) -> bool:
    at: Dentry | None = dentry
    while at is not None and not at.unlinked:
        at = at.parent
    return at is not None


def _sharing(mount: Mount) -> records.Sharing:
    group, master = mount.group, mount.master
    return records.Sharing(
        mount.flags, 0 if group is None else group.id, 0 if master is None else master.id,
        mount.unbindable,
    )  # fmt: skip


def _limits(fs: Any) -> records.MemoryLimits:
    options = msgspec.structs.asdict(fs.options)
    if options["max_pages"] is not None:
        options["max_pages"] = min(options["max_pages"], records.MOST)
    return records.MemoryLimits(**options)
