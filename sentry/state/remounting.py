"""Mounts that programs have made, from their records: see mounts.py.

Two steps: file systems and mounts are objects first, so that trees in memory can be read, and get
their places when those are there.

Who may mount in the first user namespace (CAP_SYS_ADMIN) can come to any mounts of what there is.
Without, a program has mounts of its own in a namespace that a user namespace owns, which begins as
a copy: what the container's mounts hide and forbid stays so (mount_namespaces(7), "locked").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.stat import NSFS_MAGIC
from sentry.fs.cgroup.filesystem import CgroupFs
from sentry.fs.proc.filesystem import ProcFs
from sentry.fs.proc.namespaces import place_of
from sentry.fs.tmpfs.filesystem import RamFs, TmpFs, is_policy
from sentry.state import records
from sentry.state.pages import Damaged
from sentry.vfs.dentry import Dentry
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.location import Location
from sentry.vfs.mount import ATIME_FLAGS, LOCKABLE, Mount
from sentry.vfs.mounting import ANYWHERE, REVEALING, SHOWN_FLAGS
from sentry.vfs.mounts import HeldMounts, MountNamespace
from sentry.vfs.propagation import PeerGroup, follow
from sentry.vfs.vfs import dev_of
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.pids import PidNamespace
    from sentry.state.rights import Rights

MAX_SKIPPED: Final = 1 << 20
"""Numbers that are passed over, so that mounts and devices have theirs again."""
MAX_GROUPS: Final = 20_000
"""Numbers of peer groups, which are the lowest that are free."""


class Namespaces(Protocol):
    """Those of the snapshot (sentry.state.namespaces)."""

    container: Container

    def user(self, at: int | None) -> UserNamespace | None: ...
    def pids(self, at: int | None) -> PidNamespace: ...
    def named(self, record: records.NamedNamespace) -> Any: ...
    def owned(self, kind: str, owner: int | None) -> tuple[UserNamespace | None, Charge]: ...


class Files(Protocol):
    """Those of the snapshot, by their names (sentry.state.loader)."""

    def nameless(self, root: Dentry, name: bytes, place: records.InTree) -> Dentry: ...
    async def walk(self, dentry: Dentry, path: bytes, mount: Mount | None = None) -> Dentry: ...


class Unbuilt(FileSystem):
    """Stands for one that lies over others, until these are there: layering.py."""

    def __init__(self, kind: str, place: int) -> None:
        super().__init__(0)
        self.name = kind
        self.place = place
        self.devices: list[int] = []
        """See `records.FileSystem`."""
        self.mounts: list[Mount] = []


class MadeMounts:
    """Those of a snapshot that is read."""

    def __init__(
        self, kernel: Kernel, table: records.MountTable, namespaces: Namespaces, rights: Rights
    ) -> None:
        """Raises: Damaged, ENOSPC."""
        self._kernel = kernel
        self._table = table
        self._namespaces = namespaces
        self._rights = rights
        self.is_bound = not rights.has(CAP_SYS_ADMIN)
        """What the container's mounts hide stays hidden."""
        self._own: MountNamespace = namespaces.container.ns.mounts.mounts
        self._is_first = namespaces.container is kernel.container
        self.first: list[Mount] = list(self._own)
        self.all = list(self.first)
        self.held: list[HeldMounts] = []
        """Of each namespace."""
        self._file_systems: list[FileSystem] = []
        if not any((table.mounts, table.changed, table.namespaces, table.file_systems)):
            return
        if table.file_systems or table.changed or any(m.namespace is None for m in table.mounts):
            rights.check_mount()
        kernel.vfs.budget.check_mounts(len(table.mounts), 0)
        self._file_systems = self._made_file_systems()
        self._tops = [
            self.first[0].root if isinstance(fs, Unbuilt) else Dentry(None, b"/", fs.root)
            for fs in self._file_systems
        ]
        numbers = [each.number for each in table.mounts]
        if not (self._is_first and _pass(kernel.vfs.mount_ids, numbers)):
            numbers = list(islice(kernel.vfs.mount_ids, len(numbers)))
        for number, record in zip(numbers, table.mounts, strict=True):
            fs, top = self._source(record)
            self.all.append(Mount(number, fs, top, record.sharing.flags))
            if isinstance(fs, Unbuilt):
                fs.mounts.append(self.all[-1])
        self._made_namespaces()

    def _source(self, record: records.MadeMount) -> tuple[FileSystem, Dentry]:
        """What it is a mount of, and where its root is looked for."""
        if [record.model, record.fs, record.shows].count(None) != 2:
            raise Damaged("a mount of nothing, or of two things")
        if record.shows is not None:
            return self._kernel.vfs.anon_fs("nsfs", NSFS_MAGIC), self.first[0].root
        return self._top_of(record)

    def _top_of(self, record: records.MadeMount | records.Where) -> tuple[FileSystem, Dentry]:
        """A file system, and from where on paths in it are."""
        if record.fs is not None:
            return self.file_system(record.fs), self._tops[record.fs]
        if record.model is None:
            raise Damaged("a file of no file system")
        model = _at(self.first, record.model, "mount")
        return model.fs, model.root

    def file_system(self, place: int) -> FileSystem:
        """One of those that programs have mounted. Raises: Damaged."""
        found: FileSystem = _at(self._file_systems, place, "file system")
        return found

    def _made_file_systems(self) -> list[FileSystem]:
        table, new_dev = self._table.file_systems, self._kernel.vfs.new_dev
        devs = [dev for each in table for dev in (each.dev, *each.devices)]
        minors = [dev & 0xFF | dev >> 12 & ~0xFF for dev in devs]
        theirs = self._is_first and _pass(self._kernel.vfs.devs, minors)
        found = [self._made(each, place) for place, each in enumerate(table)]
        numbers = iter(minors)
        for fs, record in zip(found, table, strict=True):
            own, *devices = (dev_of(next(numbers)) for _ in (fs, *record.devices))
            fs.dev = own if theirs else fs.dev or new_dev()
            if isinstance(fs, Unbuilt):
                fs.devices = devices if theirs else [new_dev() for _ in devices]
        return found

    def built(self, stands: Unbuilt, fs: FileSystem) -> Dentry:
        """What lies over others is there: its top."""
        fs.dev, fs.source, fs.owner = stands.dev, stands.source, stands.owner
        fs.sb_flags, fs.read_only = stands.sb_flags, stands.read_only or fs.only_read
        fs.is_made_inside = True
        fs.mount_count += stands.mount_count
        self._file_systems[stands.place] = fs
        self._tops[stands.place] = top = Dentry(None, b"/", fs.root)
        for mount in stands.mounts:
            mount.fs = fs
            mount.set_flags(mount.flags)
        return top

    def _made(self, record: records.FileSystem, place: int) -> FileSystem:
        """A new one of its kind. Raises: Damaged."""
        kernel, namespaces = self._kernel, self._namespaces
        if self.is_bound:
            self._check_bound(record)
        fs: FileSystem
        if record.kind == "proc":
            fs = proc = ProcFs(kernel, namespaces.pids(record.shows), record.processes_only)
            proc.set_options(None, record.options)
        elif record.kind == "sysfs":
            from sentry.fs.sysfs import SysFs  # noqa: PLC0415  few programs mount one

            net = namespaces.named(records.NamedNamespace("net", record.shows))
            fs = SysFs(SimpleNamespace(kernel=kernel, ns=SimpleNamespace(net=net)))
        elif record.kind == "devpts":
            from sentry.fs.devpts.filesystem import DevPtsFs  # noqa: PLC0415

            fs = DevPtsFs(kernel.vfs, record.options)
            if record.has_ptmx:
                kernel.vfs.devpts = fs
        elif record.kind == "cgroup2":
            top = kernel.container.cgroup
            if top.root_fs is not None:
                raise Damaged("a second tree of control groups")
            fs = top.root_fs = CgroupFs(kernel, top)
        elif record.kind in ("overlay", "erofs"):
            fs = Unbuilt(record.kind, place)
        else:
            options = msgspec.structs.asdict(record.limits or records.MemoryLimits())
            if options["mpol"] and not is_policy(options["mpol"]):
                raise Damaged("a policy of memory that is none")
            memory = (RamFs if record.kind == "ramfs" else TmpFs).make(kernel.vfs, **options)
            memory.mounted_once = True
            fs = memory
        fs.source, fs.owner = record.source, namespaces.user(record.owner)
        fs.sb_flags, fs.read_only = record.flags & SHOWN_FLAGS, record.read_only
        fs.is_made_inside = True
        return fs

    def _check_bound(self, record: records.FileSystem) -> None:
        """Who is capable in a user namespace may mount it: mount_too_revealing(), FS_USERNS_MOUNT.

        Raises: Damaged.
        """
        is_shown = record.kind.encode() in REVEALING
        whole = (
            each for each in self.first
            if each.fs.name == record.kind and each.root.parent is None and not each.mounted
        )  # fmt: skip
        is_theirs = record.owner is not None and record.kind.encode() in ANYWHERE
        if not is_theirs or (is_shown and (record.shows is None or not any(whole))):
            raise Damaged(f"a mount of {record.kind} that no program of this container can make")

    def _made_namespaces(self) -> None:
        roots: dict[int, Mount] = {}
        for record, mount in zip(self._table.mounts, self.all[len(self.first) :], strict=True):
            if record.parent is None:
                if record.namespace is None or record.namespace in roots:
                    raise Damaged("a mount that is nowhere")
                roots[record.namespace] = mount
        for place, each in enumerate(self._table.namespaces):
            owner, charge = self._namespaces.owned("mnt", each.owner)
            root = roots.pop(place, None)
            if root is None:
                raise Damaged("a mount namespace without a root")
            vfs = self._kernel.vfs
            made = MountNamespace(root, vfs.mount_ids, vfs.budget, owner=owner)
            self.held.append(HeldMounts(made, charge))
        if roots:
            raise Damaged("a mount in a namespace that there is not")

    # --- places

    async def place(self, files: Files) -> None:
        """All get theirs. Preconditions: trees are there. Raises: Damaged, and what the file
        systems say."""
        if any(isinstance(fs, Unbuilt) for fs in self._file_systems):
            raise Damaged("a file system that lies over nothing")
        for place, record in enumerate(self._table.mounts, len(self.first)):
            namespace = self._namespace(record)
            namespace.check_room()
            namespace.enlist(self.all[place])
        pace = Pace()
        for place in self._in_order():
            await self._put(files, self._table.mounts[place - len(self.first)], self.all[place])
            await pace.rest()
        if self.is_bound:
            self._check_hidden()
        for changed in self._table.changed:
            _at(self.first, changed.mount, "mount").set_flags(changed.sharing.flags)
        self._share()

    async def _root(self, files: Files, record: records.MadeMount) -> Dentry:
        if record.shows is not None:
            what = record.shows
            older = -1 if record.namespace is None else record.namespace
            if what.what == "mnt" and (what.place is None or what.place <= older):
                raise Damaged("a loop of mount namespaces")
            found = place_of(self._kernel, what.what, self._namespaces.named(what))
            return found.dentry
        return await self.where(files, record)

    async def where(self, files: Files, record: records.MadeMount | records.Where) -> Dentry:
        """The root of a mount, or a layer. Raises: Damaged, and what the file system says."""
        fs, top = self._top_of(record)
        if isinstance(fs, Unbuilt):
            raise Damaged(f"a file of {fs.name} that is not there yet")
        if record.tree is not None:
            return files.nameless(top, record.root, (record.tree, record.inode))
        hides = None
        if record.model is not None and record.root and self.is_bound:
            hides = self.first[record.model]
        return await files.walk(top, record.root, hides)

    def check_layer(self, record: records.Where, dentry: Dentry, *, is_upper: bool) -> None:
        """What the container's mounts hide, or forbid, is so for who has no rights: `hides_below`.

        Raises: Damaged.
        """
        if is_upper and dentry.inode.fs.read_only:
            raise Damaged("an overlay that writes to what is read-only")
        if not self.is_bound or record.model is None:
            return
        model = self.first[record.model]
        if is_upper and model.read_only:
            raise Damaged("an overlay that writes to what the container's mounts do not")
        for child in model.mounted.values():
            assert child.parent is not None
            if child.parent.dentry.is_below(dentry):
                raise Damaged("an overlay that shows what the container's mounts hide")

    async def _put(self, files: Files, record: records.MadeMount, mount: Mount) -> None:
        mount.root = await self._root(files, record)
        mount.locked = record.locked
        mount.locked_flags = record.locked_flags & (LOCKABLE | ATIME_FLAGS)
        is_directory = mount.root.inode.is_dir
        if record.parent is None:
            if not is_directory:
                raise Damaged("a mount namespace without a root")
            return
        below, namespace = self.all[record.parent], self._namespace(record)
        if below.namespace is not namespace:
            raise Damaged("a mount that is on none of its namespace")
        dentry = await files.walk(below.root, record.place)
        if id(dentry) in below.mounted or dentry.inode.is_dir != is_directory:
            raise Damaged("a mount where none can be")
        namespace.put(mount, Location(below, dentry))

    def _namespace(self, record: records.MadeMount) -> MountNamespace:
        if record.namespace is None:
            return self._own
        found: HeldMounts = _at(self.held, record.namespace, "mount namespace")
        return found.mounts

    def _in_order(self) -> list[int]:
        """Those that programs have made, each behind the one that it is on. Raises: Damaged."""
        first, mounts = len(self.first), self._table.mounts
        above: dict[int | None, list[int]] = {}
        for place, record in enumerate(mounts, first):
            above.setdefault(record.parent, []).append(place)
        found = [*above.get(None, ())]
        for place in range(first):
            found += above.get(place, ())
        for place in found:  # which grows
            found += above.get(place, ())
        if len(found) < len(mounts):
            raise Damaged("a mount that is nowhere")
        return found

    def _check_hidden(self) -> None:
        """What the container's mounts hide or forbid its programs. Raises: Damaged."""
        if self._table.changed or any(each.namespace is None for each in self._table.mounts):
            raise Damaged("a mount that no program of this container can make")
        for record, mount in zip(self._table.mounts, self.all[len(self.first) :], strict=True):
            if record.model is None:
                continue
            model = self.first[record.model]
            if model.flags & LOCKABLE & ~mount.flags or (model.flags ^ mount.flags) & ATIME_FLAGS:
                raise Damaged("a mount that may do what the container's may not")
            mount.locked_flags |= model.flags & LOCKABLE | ATIME_FLAGS
            for child in model.mounted.values():
                assert child.parent is not None
                dentry = child.parent.dentry
                above = mount.mounted.get(id(dentry))
                if dentry.is_below(mount.root) and (above is None or not above.locked):
                    raise Damaged("a mount that shows what the container's hide")

    # --- propagation

    def _share(self) -> None:
        """Peer groups, and who follows them. Raises: Damaged."""
        table = self._table
        if len({each.mount for each in table.changed}) < len(table.changed):
            raise Damaged("a mount that is changed twice")
        found = [(self.first[each.mount], each.sharing) for each in table.changed]
        made = self.all[len(self.first) :]
        found += [(mount, each.sharing) for mount, each in zip(made, table.mounts, strict=True)]
        groups = self._groups({each.group for _, each in found} - {0})
        for mount, sharing in found:
            mount.unbindable = sharing.unbindable
            if sharing.group:
                mount.group = groups[sharing.group]
                mount.group.members[mount.id] = mount
        for mount, sharing in found:
            if sharing.master:
                if sharing.master not in groups:
                    raise Damaged("a mount that follows none")
                follow(mount, groups[sharing.master])
        _check_circles([(each.group, each.master) for _, each in found])

    def _groups(self, numbers: set[int]) -> dict[int, PeerGroup]:
        """With the numbers that they had."""
        ids = self._kernel.vfs.budget.group_ids
        if numbers and max(numbers) > MAX_GROUPS:
            raise Damaged("more groups of mounts than a sandbox has")
        every = {number: PeerGroup(ids) for number in range(1, max(numbers, default=0) + 1)}
        for number in every.keys() - numbers:
            every.pop(number).end()
        return every


def _check_circles(edges: list[tuple[int, int]]) -> None:
    """No group follows one that follows it. Raises: Damaged."""
    above: dict[int, set[int]] = {}
    for group, master in edges:
        if group and master:
            above.setdefault(group, set()).add(master)
    below = dict.fromkeys(above, 0)
    for masters in above.values():
        for master in masters & below.keys():
            below[master] += 1
    free = [group for group, count in below.items() if not count]
    for group in free:  # which grows
        for master in above[group] & below.keys():
            below[master] -= 1
            if not below[master]:
                free.append(master)
    if len(free) < len(below):
        raise Damaged("mounts that follow each other")


def _pass(numbers: Iterator[int], wanted: Sequence[int]) -> bool:
    """No new object gets one of these numbers; False: some of them may be taken already."""
    if not wanted:
        return True
    first, last = next(numbers), max(wanted)
    if len({*wanted}) != len(wanted) or min(wanted) < first or last - first > MAX_SKIPPED:
        return False
    deque(islice(numbers, last - first), maxlen=0)
    return True


def _at(things: Sequence[Any], place: int, what: str) -> Any:
    """Raises: Damaged."""
    if place >= len(things):
        raise Damaged(f"there is no {what} {place}")
    return things[place]
