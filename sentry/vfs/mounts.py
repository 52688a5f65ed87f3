"""Mount namespaces: which tree is seen where. fs/namespace.c.

A namespace is the list of the mounts that hang together. One made by unshare(CLONE_NEWNS) has
copies of all of them. Who else gets a mount is in propagation.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sentry.vfs import propagation, unmounting
from sentry.vfs.budget import MAX_INODES, Budget
from sentry.vfs.dentry import Dentry, DentryCache
from sentry.vfs.leftovers import FEW
from sentry.vfs.location import Location
from sentry.vfs.mount import Mount, top
from sentry.wait.lock import Lock
from sentry.wait.queue import ChangeCount
from sentry.wait.steps import at_once, driven

if TYPE_CHECKING:
    from sentry.vfs.filesystem import FileSystem
    from sentry.wait.steps import Steps


class MountBudget(Budget):
    """The counts, the namespaces of mounts that there are, the ids of peer groups."""

    __slots__ = ("dentries", "going", "group_ids", "lock", "loop", "namespaces")

    def __init__(
        self,
        memory_pages: int = MAX_INODES,
        loop: Any = None,
        dentries: DentryCache | None = None,
    ) -> None:
        super().__init__(memory_pages)
        self.loop = loop
        self.dentries = dentries if dentries is not None else DentryCache()
        self.lock = Lock()
        """Who mounts, and who lists mounts: namespace_sem. Walks do not take it."""
        self.going: dict[Dentry, Lock] = {}
        """Names whose removal waits for its file system: who mounts there waits, too."""
        self.namespaces: dict[MountNamespace, None] = {}
        self.group_ids = propagation.GroupIds()


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
        self.ids = ids if ids is not None else itertools.count(root.id + 1)
        self.root = root
        self._mounts: dict[int, Mount] = {root.id: root}
        self.anonymous = anonymous
        self.owner = owner
        """The user namespace that owns it; None: the sandbox's first one."""
        self.changes = ChangeCount()
        """Told when a mount comes, goes or changes."""
        root.namespace = self
        root.fs.mount_count += 1
        self.budget.namespaces[self] = None

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self._mounts.values()))

    def __len__(self) -> int:
        return len(self._mounts)

    @property
    def lock(self) -> Lock:
        """Of all namespaces."""
        return self.budget.lock

    def dissolve(self) -> None:
        """Nobody is in it any more: many mounts are let go of in their turn."""
        budget = self.budget
        if budget.loop is None or (len(self._mounts) <= FEW and budget.lock.holder is None):
            at_once(unmounting.dissolve(self))
        else:
            budget.loop.call_soon(partial(_begin_to_dissolve, self))

    def enlist(self, mount: Mount) -> None:
        """It belongs to this one."""
        if mount.id not in self._mounts:
            self._mounts[mount.id] = mount
            self.budget.mounts += 1
            mount.fs.mount_count += 1
        mount.namespace = self

    def strike_off(self, mount: Mount) -> None:
        """It does not belong to it any more."""
        mount.namespace = None
        if self._mounts.pop(mount.id, None) is not None:
            self.budget.mounts -= 1
            mount.fs.mount_count -= 1

    def new_mount(self, fs: FileSystem, root: Dentry, flags: int) -> Mount:
        """A mount that is not attached yet."""
        return Mount(next(self.ids), fs, root, flags)

    def check_room(self, more: int = 1) -> None:
        """Raises: ENOSPC."""
        self.budget.check_mounts(more, len(self._mounts))

    # --- attaching

    def attach(self, mount: Mount, place: Location) -> None:
        """Put a mount on a place, on top of what is there."""
        self.put(mount, top(place))
        self.changes.happened()

    def put(self, mount: Mount, place: Location) -> None:
        """On a place where nothing is."""
        mount.parent = place
        place.dentry.mounts += 1
        place.mount.mounted[id(place.dentry)] = mount
        self.enlist(mount)

    def put_beneath(self, mount: Mount, place: Location) -> None:
        """As propagation does it: what sits on the place already goes on top of the newcomer."""
        above = place.mount.mounted.get(id(place.dentry))
        if above is not None:
            place.dentry.mounts -= 1
            above.parent = Location(mount, mount.root)
            mount.root.mounts += 1
            mount.mounted[id(mount.root)] = above
        self.put(mount, place)

    # --- detaching

    def detach(self, mount: Mount) -> None:
        """Take a mount off its place; its own children stay on it."""
        self.take_off(mount)
        self.strike_off(mount)
        self.changes.happened()

    def take_off(self, mount: Mount) -> None:
        """From its place; it still belongs to its namespace."""
        place = mount.parent
        if place is not None:
            if place.mount.mounted.get(id(place.dentry)) is mount:
                del place.mount.mounted[id(place.dentry)]
            place.dentry.mounts -= 1
        mount.parent = None

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

    def is_mount_point(self, dentry: Dentry) -> bool:
        """Whether a mount of this namespace sits on the name. Raises: NotNow."""
        self.lock.check()
        return any(m.parent is not None and m.parent.dentry is dentry for m in self)

    def name_has_gone(self, dentry: Dentry) -> None:
        """A name was removed: mounts of other namespaces on it go with it, at once unless somebody
        mounts, or lists mounts, at this time."""
        budget = self.budget
        if budget.loop is None or budget.lock.holder is None:
            at_once(_off(budget, dentry))
        else:
            budget.loop.call_soon(partial(_begin_to_take_off, budget, dentry))

    @staticmethod
    def busy(mount: Mount) -> bool:
        """Something is open, mounted, or somebody's root or cwd, on it."""
        return bool(mount.open_files or mount.residents or mount.mounted)

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


class GoingName:
    """A name whose removal is under way, of the call that waits for it: nothing is mounted there
    until that is done or has failed. Linux has the inode's lock for it."""

    __slots__ = ("_dentry", "_going", "_lock")

    def __init__(self, budget: MountBudget, dentry: Dentry) -> None:
        self._going = budget.going
        self._dentry = dentry
        self._lock = budget.going[dentry] = Lock()
        self._lock.take()

    def let_go(self) -> None:
        """The call has ended."""
        del self._going[self._dentry]
        self._lock.let_go()


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


def _off(budget: MountBudget, dentry: Dentry) -> Steps[None]:
    """detach_mounts()."""
    for namespace in list(budget.namespaces):
        for mount in namespace:
            if mount.parent is not None and mount.parent.dentry is dentry:
                yield from unmounting.detach.steps(mount)


def _begin_to_take_off(budget: MountBudget, dentry: Dentry) -> None:
    budget.loop.spawn(_taken_off(budget, dentry), "mounts on a name that has gone")


async def _taken_off(budget: MountBudget, dentry: Dentry) -> None:
    async with budget.lock:
        await driven(_off(budget, dentry))


def _begin_to_dissolve(namespace: MountNamespace) -> None:
    namespace.budget.loop.spawn(_dissolved(namespace), "end of a mount namespace")


async def _dissolved(namespace: MountNamespace) -> None:
    async with namespace.lock:
        await driven(unmounting.dissolve(namespace))
