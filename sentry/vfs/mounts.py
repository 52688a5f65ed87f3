"""Mount namespaces: which tree is seen where. fs/namespace.c.

A namespace is the list of the mounts that hang together. One made by unshare(CLONE_NEWNS) has
copies of all of them. Who else gets a mount is in propagation.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sentry.errors import EBUSY, EINVAL
from sentry.vfs import propagation
from sentry.vfs.budget import MAX_INODES, Budget
from sentry.vfs.dentry import Dentry, Location
from sentry.vfs.mount import ATIME_FLAGS, LOCKABLE, Mount, top
from sentry.vfs.watches import tell_unmounted
from sentry.wait.queue import ChangeCount

if TYPE_CHECKING:
    from sentry.vfs.fs_context import FsContext
    from sentry.vfs.interface import FileSystem
    from sentry.vfs.mount import Peers



class MountBudget(Budget):
    """The counts, and the namespaces of mounts that there are."""

    __slots__ = ("namespaces",)

    def __init__(self, memory_pages: int = MAX_INODES) -> None:
        super().__init__(memory_pages)
        self.namespaces: dict[MountNamespace, None] = {}


class MountNamespace:
    """All mounts that a group of tasks sees. The first one is the root.

    A tree that open_tree(2) or fsmount(2) made is an anonymous namespace until it is moved to a
    place: `anonymous`. Whoever is in it, or has it open, has its `HeldMounts`.
    """

    def __init__(
        self,
        root: Mount,
        ids: Iterator[int] | None = None,
        budget: MountBudget | None = None,
        *,
        anonymous: bool = False,
        owner: Any = None,
    ) -> None:
        self.budget = budget if budget is not None else MountBudget()
        self.id = next(self.budget.namespace_ids)
        """Younger ones have higher ids."""
        self.budget.mounts += 1
        self._ids = ids if ids is not None else itertools.count(root.id + 1)
        self.root = root
        self._mounts: dict[int, Mount] = {root.id: root}
        self.anonymous = anonymous
        self.owner = owner
        """The user namespace that owns it; None: the sandbox's first one."""
        self.changes = ChangeCount()
        """Told when a mount comes, goes or changes."""
        root.namespace = self
        root.fs.mount_count += 1
        for each in self.tree(root)[1:]:
            self._list(each)
        self.budget.namespaces[self] = None

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self._mounts.values()))

    def __len__(self) -> int:
        return len(self._mounts)

    def dissolve(self) -> None:
        """put_mnt_ns(): nobody is in it any more. What it has is gone without a word."""
        for mount in self:
            propagation.leave(mount)
            if mount.parent is not None:
                mount.parent.dentry.mounts -= 1
                mount.parent = None
            mount.mounted.clear()
            self._unlist(mount)
        self.budget.namespaces.pop(self, None)

    def _list(self, mount: Mount) -> None:
        if mount.id not in self._mounts:
            self._mounts[mount.id] = mount
            self.budget.mounts += 1
            mount.fs.mount_count += 1
        mount.namespace = self

    def _unlist(self, mount: Mount) -> None:
        mount.namespace = None
        if self._mounts.pop(mount.id, None) is not None:
            self.budget.mounts -= 1
            mount.fs.mount_count -= 1

    def new_mount(self, fs: FileSystem, root: Dentry, flags: int) -> Mount:
        """A mount that is not attached yet."""
        self.check_room()
        return Mount(next(self._ids), fs, root, flags)

    def check_room(self, more: int = 1) -> None:
        """Raises: ENOSPC."""
        self.budget.check_mounts(more, len(self._mounts))

    def new_groups(self) -> Iterator[int]:
        """Ids for peer groups: the lowest that are free."""
        used = {m.group.id for ns in self.budget.namespaces for m in ns if m.group is not None}
        yield from (number for number in itertools.count(1) if number not in used)

    # --- attaching

    def attach(self, mount: Mount, place: Location) -> None:
        """Put a mount on a place, on top of what is there."""
        self.put(mount, top(place))
        self.changes.happened()

    def put(self, mount: Mount, place: Location) -> None:
        mount.parent = place
        place.dentry.mounts += 1
        place.mount.mounted[id(place.dentry)] = mount
        self._list(mount)

    def _put_beneath(self, mount: Mount, place: Location) -> None:
        """As propagation does it: what sits on the place already goes on top of the newcomer."""
        above = place.mount.mounted.get(id(place.dentry))
        if above is not None:
            place.dentry.mounts -= 1
            above.parent = Location(mount, mount.root)
            mount.root.mounts += 1
            mount.mounted[id(mount.root)] = above
        self.put(mount, place)

    def graft(self, mount: Mount, place: Location) -> None:
        """attach_recursive_mnt(): a tree of mounts on a place, and copies wherever it propagates.

        Raises: ENOSPC.
        """
        place = top(place)
        tree = self.tree(mount)
        self.check_room(len(tree) * (1 + len(propagation.receivers(place.mount))))
        copies: list[tuple[Mount, Location]] = []
        if place.mount.group is not None:
            numbers = self.new_groups()
            for each in tree:
                if each.group is None:
                    propagation.share(each, next(numbers))
            copies = self._propagated(mount, place, numbers)
        self.put(mount, place)
        for each in tree:
            self._list(each)
        self.changes.happened()
        for copy, where in copies:
            namespace = where.mount.namespace
            if namespace is None:
                continue
            copied = namespace.tree(copy)
            namespace._put_beneath(copy, where)
            for each in copied:
                namespace._list(each)
            namespace.changes.happened()

    def _propagated(
        self, mount: Mount, place: Location, numbers: Iterator[int]
    ) -> list[tuple[Mount, Location]]:
        """Copies of a tree for all mounts that follow the place's mount, and where they go."""
        copies: list[tuple[Mount, Location]] = []
        done = {place.mount.id}

        def spread(group: Peers, model: Mount) -> None:
            for peer in list(group.members.values()):
                if peer.id not in done:
                    done.add(peer.id)
                    add(peer, model, slave=False)
            for slave in list(group.slaves.values()):
                if slave.id in done:
                    continue
                done.add(slave.id)
                copy = add(slave, model, slave=True)
                if slave.group is not None and copy is not None:
                    spread(slave.group, copy)

        def add(target: Mount, model: Mount, *, slave: bool) -> Mount | None:
            if not propagation.shows(target, place.dentry):
                return None
            copy = self.copy_tree(model, model.root, recursive=True, slave=slave, all_of_it=True)
            if slave and target.group is not None:
                for each in self.tree(copy):
                    propagation.share(each, next(numbers))
            other = target.namespace
            if other is not None and other.owner is not self.owner:
                lock_tree(copy)
            copies.append((copy, Location(target, place.dentry)))
            return copy

        assert place.mount.group is not None
        spread(place.mount.group, mount)
        return copies

    # --- detaching

    def detach(self, mount: Mount) -> None:
        """Take a mount off its place; its own children stay on it."""
        self.take_off(mount)
        self._unlist(mount)
        self.changes.happened()

    def take_off(self, mount: Mount) -> None:
        place = mount.parent
        if place is not None:
            if place.mount.mounted.get(id(place.dentry)) is mount:
                del place.mount.mounted[id(place.dentry)]
            place.dentry.mounts -= 1
        mount.parent = None

    def move(self, mount: Mount, place: Location) -> None:
        """do_move_mount(): the tree goes elsewhere, perhaps out of an anonymous namespace."""
        source = mount.namespace
        tree = self.tree(mount)
        self.take_off(mount)
        if source is not None and source is not self:
            for each in tree:
                source._unlist(each)
        self.graft(mount, place)

    def swap(self, above: Mount, moved: Mount) -> None:
        """`moved` was put on top of `above`'s place; let `above` sit on it instead."""
        place = above.parent
        assert place is not None
        if moved.parent is not None:
            self.take_off(moved)
        self.take_off(above)
        self.put(moved, place)
        self.put(above, moved.location)
        self.changes.happened()

    def children(self, mount: Mount) -> list[Mount]:
        """Mounts whose place is on this one."""
        return list(mount.mounted.values())

    @staticmethod
    def tree(mount: Mount) -> list[Mount]:
        """The mount and all below it, parents first."""
        found = [mount]
        for at in found:
            found.extend(at.mounted.values())
        return found

    def is_mount_point(self, dentry: Dentry) -> bool:
        """Whether a mount of this namespace sits on the name."""
        return any(m.parent is not None and m.parent.dentry is dentry for m in self)

    def name_goes(self, dentry: Dentry) -> None:
        """A name is removed: mounts of other namespaces on it go with it. Raises: EBUSY."""
        if self.is_mount_point(dentry):
            raise EBUSY("a mount point")
        for namespace in list(self.budget.namespaces):
            for mount in namespace:
                if mount.parent is not None and mount.parent.dentry is dentry:
                    namespace.umount(mount, lazy=True)

    @staticmethod
    def busy(mount: Mount) -> bool:
        """Something is open, mounted, or somebody's root or cwd, on it."""
        return bool(mount.open_files or mount.residents or mount.mounted)

    def umount(self, mount: Mount, *, lazy: bool) -> None:
        """umount2(2): everything below goes too when lazy. Raises: EBUSY, EINVAL."""
        if mount.namespace is not self or mount is self.root:
            raise EINVAL("not a mount that can go")
        elsewhere = propagation.copies(mount)
        if not lazy and (self.busy(mount) or any(_holds_back(copy) for copy in elsewhere)):
            raise EBUSY("in use")
        for copy in elsewhere:
            copy.locked = False  # who locked it takes it away: propagate_mount_unlock()
        doomed = self.tree(mount)
        doomed += propagation.followers(doomed)
        going = {each.id for each in doomed}
        for each in reversed(doomed):
            namespace, place, over = each.namespace, each.parent, each.overmount
            propagation.leave(each)
            if namespace is None:
                continue
            if over is not None and over.id not in going:
                namespace.take_off(over)
            namespace.detach(each)
            if over is not None and over.id not in going and place is not None:
                namespace.put(over, place)
            _gone(each.fs)

    # --- copies

    def copy_tree(
        self,
        source: Mount,
        root: Dentry,
        *,
        recursive: bool,
        slave: bool = False,
        all_of_it: bool = False,
    ) -> Mount:
        """copy_tree(): a new mount of `root`, and of those below if recursive.

        The copies are peers of the originals, or their slaves; unbindable mounts and what is on
        them are left out unless `all_of_it`. Nothing is attached yet. Raises: ENOSPC.
        """
        if recursive:
            self.check_room(len(self.tree(source)))
        copy = self._clone(source, root, slave=slave)
        if recursive:
            by_old = {source.id: copy}
            for old in self.tree(source)[1:]:
                assert old.parent is not None
                parent = by_old.get(old.parent.mount.id)
                inside = old.parent.mount is not source or old.parent.dentry.is_below(root)
                if parent is None or not inside or (old.unbindable and not all_of_it):
                    continue
                new = self._clone(old, old.root, slave=slave)
                new.locked = old.locked
                by_old[old.id] = new
                _hang(new, Location(parent, old.parent.dentry))
        return copy

    def _clone(self, old: Mount, root: Dentry, *, slave: bool = False) -> Mount:
        new = self.new_mount(old.fs, root, old.flags)
        new.locked_flags = old.locked_flags
        if slave:
            propagation.join_as_slave(new, old)
        else:
            propagation.join_as_peer(new, old)
        return new

    def copy(self, contexts: list[FsContext], owner: Any = None) -> MountNamespace:
        """CLONE_NEWNS: copies of all mounts; `contexts` move to the copies.

        `owner` is the user namespace of the new one; if it is another one, everything is received
        but nothing sent, and the mounts are locked together. Raises: ENOSPC.
        """
        foreign = owner is not self.owner
        self.budget.check_mounts(len(self._mounts))
        by_old: dict[int, Mount] = {}
        new_root = self._clone(self.root, self.root.root, slave=foreign)
        new_root.unbindable = self.root.unbindable
        by_old[self.root.id] = new_root
        namespace = MountNamespace(new_root, self._ids, self.budget, owner=owner)
        for old in self.tree(self.root)[1:]:
            assert old.parent is not None
            new = self._clone(old, old.root, slave=foreign)
            new.unbindable = old.unbindable
            new.locked = old.locked or foreign
            by_old[old.id] = new
            namespace.put(new, Location(by_old[old.parent.mount.id], old.parent.dentry))
        if foreign:
            for new in namespace:
                new.locked_flags |= new.flags & LOCKABLE | ATIME_FLAGS
        for context in contexts:
            context.move_to(by_old)
        return namespace

    def pivot(self, old_root: Mount, new_root: Mount, put_old: Location) -> None:
        """pivot_root(2): `new_root` takes the place of a root mount, which goes to `put_old`.

        The checks are done by the caller.
        """
        place = old_root.parent
        self.take_off(new_root)
        if old_root.locked:
            new_root.locked, old_root.locked = True, False
        if place is not None:
            self.take_off(old_root)
            self.put(new_root, place)
        else:
            self.root = new_root
        self.put(old_root, top(put_old))
        self.changes.happened()


class HeldMounts:
    """What those have who are in a mount namespace, or have it open: it goes with the last use."""

    __slots__ = ("charge", "mounts")

    def __init__(self, mounts: MountNamespace, charge: Any = None) -> None:
        self.mounts = mounts
        self.charge = charge
        """What it counts in the user namespace of its owner."""

    def __del__(self) -> None:
        self.mounts.dissolve()

    @property
    def owner(self) -> Any:
        """The user namespace that owns it."""
        return self.mounts.owner


def lock_tree(mount: Mount) -> None:
    """lock_mnt_tree(): it came from a more privileged namespace, in one piece."""
    for each in MountNamespace.tree(mount):
        each.locked_flags |= each.flags & LOCKABLE | ATIME_FLAGS
        each.locked = each.locked or each is not mount


def _hang(mount: Mount, place: Location) -> None:
    """Connect a copy with its parent; the namespace lists it when the tree is grafted."""
    mount.parent = place
    place.dentry.mounts += 1
    place.mount.mounted[id(place.dentry)] = mount


def _holds_back(copy: Mount) -> bool:
    """A copy elsewhere that would go, too, is in use: propagate_mount_busy()."""
    over = copy.overmount
    if any(child is not over for child in copy.mounted.values()):
        return False  # it stays
    return bool(copy.open_files or copy.residents)


def _gone(fs: FileSystem) -> None:
    if not fs.mount_count:
        tell_unmounted(fs)
        fs.shutdown()
