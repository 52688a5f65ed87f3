"""A tree of mounts gets its place, and copies wherever that propagates. fs/namespace.c.

Work in steps, below `MountBudget.lock`: all that is long comes first, and walks see nothing of it;
then the tree and its copies are there in one moment, as below Linux's `mount_lock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentry.errors import EBUSY, EINVAL, ENOENT
from sentry.vfs import mount_copies, propagation
from sentry.vfs.location import Location
from sentry.vfs.mount import ATIME_FLAGS, LOCKABLE, Mount, Veil, top, tree
from sentry.wait.steps import Steps, Stepwise

if TYPE_CHECKING:
    from sentry.vfs.mount import Peers
    from sentry.vfs.mounts import MountNamespace

Copies = list[tuple[Mount, Location]]
"""And where they go."""


def check_place(namespace: MountNamespace, place: Location) -> None:
    """lock_mount(): who removes the name at this moment comes first. Raises: NotNow."""
    going = namespace.budget.going.get(top(place).dentry)
    if going is not None:
        going.check()


def _grafted(namespace: MountNamespace, mount: Mount, place: Location) -> Steps[None]:
    """attach_recursive_mnt(): from elsewhere, or a new tree. Raises: ENOSPC, ENOENT, EINVAL, EBUSY.

    Preconditions: `check_place`. What goes since then is not waited for below the lock: a program
    that serves the file system may take its time.
    """
    place = top(place)
    if place.dentry.unlinked:
        raise ENOENT("the place has been removed")
    if place.dentry in namespace.budget.going:
        raise EBUSY("the place is being removed")
    place.dentry.mounts += 1  # who removes the name waits for the lock
    try:
        yield from _prepared(namespace, mount, place)
    finally:
        place.dentry.mounts -= 1


graft = Stepwise(_grafted)


def _prepared(namespace: MountNamespace, mount: Mount, place: Location) -> Steps[None]:
    parts = tree(mount)
    receivers = yield from propagation.receivers(place.mount)
    if receivers and mount_copies.shows_mounts(mount):
        raise EINVAL("a mount namespace is not propagated")
    namespace.check_room(len(parts) * (1 + len(receivers)))
    copies: Copies = []
    if place.mount.group is not None:
        for each in parts:
            propagation.share(each, namespace.budget.group_ids)
            yield
        yield from _propagated(namespace, mount, place, copies)
    veil = Veil(hides=True)
    for copy, where in copies:
        yield from _put_behind(veil, copy, where)
    source = mount.namespace
    for each in parts:
        if source is not None and source is not namespace:
            source.strike_off(each)
        namespace.enlist(each)
        yield
    if mount.parent is not None:
        namespace.take_off(mount)
    namespace.put(mount, place)
    veil.hides = False
    namespace.changes.happened()


def _put_behind(veil: Veil, copy: Mount, place: Location) -> Steps[None]:
    """On its place, where nobody sees it yet; beneath what is there, where nobody ever does."""
    namespace = place.mount.namespace
    assert namespace is not None
    if id(place.dentry) not in place.mount.mounted:
        copy.veil = veil
    for each in tree(copy):
        namespace.enlist(each)
        yield
    namespace.put_beneath(copy, place)
    namespace.changes.happened()


def _propagated(
    namespace: MountNamespace, mount: Mount, place: Location, copies: Copies
) -> Steps[None]:
    """propagate_mnt(): copies of a tree for all mounts that follow the place's mount."""
    assert place.mount.group is not None
    done = {place.mount.id}
    waiting = [_targets(place.mount.group, mount)]
    while waiting:
        yield
        target, model, slave = next(waiting[-1], (None, mount, False))
        if target is None:
            waiting.pop()
        if target is None or target.id in done:
            continue
        done.add(target.id)
        if not propagation.shows(target, place.dentry):
            continue
        join = propagation.join_as_slave if slave else propagation.join_as_peer
        copy = yield from mount_copies.copy_tree.steps(
            namespace, model, model.root, join, all_of_it=True
        )
        copies.append((copy, Location(target, place.dentry)))
        other = target.namespace
        if other is not None and other.owner is not namespace.owner:
            lock_tree(copy)
        if slave and target.group is not None:
            for each in tree(copy):
                propagation.share(each, namespace.budget.group_ids)
            waiting.append(_targets(target.group, copy))


def _targets(group: Peers, model: Mount) -> Iterator[tuple[Mount, Mount, bool]]:
    """Who receives a copy of the model, and whether as a slave."""
    for peer in list(group.members.values()):
        yield peer, model, False
    for slave in list(group.slaves.values()):
        yield slave, model, True


def lock_tree(mount: Mount) -> None:
    """lock_mnt_tree(): it came from a more privileged namespace, in one piece."""
    for each in tree(mount):
        each.locked_flags |= each.flags & LOCKABLE | ATIME_FLAGS
        each.locked = each.locked or each is not mount
