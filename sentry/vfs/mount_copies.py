"""Copies of mounts: of a tree for a bind mount, of all for a new mount namespace. fs/namespace.c.

Work in steps: Linux copies below `namespace_sem`, which who mounts or lists mounts waits for
(`MountBudget.lock`). Nobody walks into a copy before it has its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.vfs import propagation
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location
from sentry.vfs.mount import ATIME_FLAGS, LOCKABLE, Mount, tree
from sentry.vfs.mounts import HeldMounts, MountNamespace
from sentry.wait.steps import Steps, Stepwise

if TYPE_CHECKING:
    from collections.abc import Callable


def shows_mounts(mount: Mount) -> bool:
    """It is the file of a mount namespace, which it holds: is_mnt_ns_file()."""
    return isinstance(mount.root.inode.namespace, HeldMounts)


def _copied_tree(
    namespace: MountNamespace,
    source: Mount,
    root: Dentry,
    join: Callable[[Mount, Mount], None] = propagation.join_as_peer,
    *,
    all_of_it: bool = False,
) -> Steps[Mount]:
    """copy_tree(): a new mount of `root`, and of those below it.

    Unbindable mounts and what is on them are left out; with `all_of_it`, for others, those of mount
    namespaces instead (CL_COPY_MNT_NS_FILE). Nothing is attached yet. Raises: ENOSPC.
    """
    originals = tree(source)
    namespace.check_room(len(originals))
    copy = clone(namespace, source, root, join)
    by_old = {source.id: copy}
    for old in originals[1:]:
        yield
        assert old.parent is not None
        parent = by_old.get(old.parent.mount.id)
        inside = old.parent.mount is not source or old.parent.dentry.is_below(root)
        left_out = shows_mounts(old) if all_of_it else old.unbindable
        if parent is None or not inside or left_out:
            continue
        new = clone(namespace, old, old.root, join)
        new.locked = old.locked
        by_old[old.id] = new
        _hang(new, Location(parent, old.parent.dentry))
    return copy


copy_tree = Stepwise(_copied_tree)


def clone(
    namespace: MountNamespace,
    old: Mount,
    root: Dentry,
    join: Callable[[Mount, Mount], None] = propagation.join_as_peer,
) -> Mount:
    """clone_mnt(): of one."""
    new = namespace.new_mount(old.fs, root, old.flags)
    new.locked_flags = old.locked_flags
    join(new, old)
    return new


def _hang(mount: Mount, place: Location) -> None:
    """Connect a copy with its parent; the namespace lists it when the tree is grafted."""
    mount.parent = place
    place.dentry.mounts += 1
    place.mount.mounted[id(place.dentry)] = mount


def _dropped(copy: Mount) -> Steps[None]:
    """A tree that was copied and has no place after all."""
    for mount in tree(copy):
        propagation.leave(mount)
        if mount.parent is not None:
            mount.parent.dentry.mounts -= 1
        yield


drop = Stepwise(_dropped)


def _copied_namespace(
    namespace: MountNamespace, owner: Any = None
) -> Steps[tuple[MountNamespace, dict[int, Mount]]]:
    """CLONE_NEWNS: copies of all mounts; also by the ids of the originals.

    Those that hold mount namespaces are left out: two of these could hold each other for ever.

    `owner` is the user namespace of the new one; if it is another one, everything is received
    but nothing sent, and the mounts are locked together. Of fs.mount-max it asks nothing: the copy
    has as many as there were. Raises: ENOSPC.
    """
    foreign = owner is not namespace.owner
    join = propagation.join_as_slave if foreign else propagation.join_as_peer
    namespace.budget.check_mounts(len(namespace))
    originals = tree(namespace.root)
    root = clone(namespace, namespace.root, namespace.root.root, join)
    copy = MountNamespace(root, namespace.ids, namespace.budget, owner=owner)
    by_old = {namespace.root.id: root}
    try:
        for old in originals:
            if old is not namespace.root:
                assert old.parent is not None
                if old.parent.mount.id not in by_old or shows_mounts(old):
                    continue
                namespace.budget.check_mounts(1)
                new = by_old[old.id] = clone(namespace, old, old.root, join)
                new.locked = old.locked or foreign
                copy.put(new, Location(by_old[old.parent.mount.id], old.parent.dentry))
            new = by_old[old.id]
            new.unbindable = old.unbindable
            if foreign:
                new.locked_flags |= new.flags & LOCKABLE | ATIME_FLAGS
            yield
    except BaseException:
        copy.dissolve()
        raise
    return copy, by_old


copy_namespace = Stepwise(_copied_namespace)
