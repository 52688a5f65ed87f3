"""Mount propagation: peer groups, and who else gets what is mounted. mount_namespaces(7).

A shared mount belongs to a `PeerGroup`: what is mounted on one member appears on all. A slave has a
group as its master and only receives. The algorithm is that of fs/pnode.c, by groups instead of by
rings of mounts.
"""

from __future__ import annotations

from _heapq import heappop, heappush
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sentry.abi.mount import MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE

if TYPE_CHECKING:
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.mount import Mount, Peers
    from sentry.wait.steps import Steps

KINDS = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE


class GroupIds:
    """The ids of a sandbox's groups: each is the lowest that is free (ida_alloc_min())."""

    def __init__(self) -> None:
        self._given_back: list[int] = []
        self._next = 1

    def take(self) -> int:
        """For a new group."""
        if self._given_back:
            return heappop(self._given_back)
        self._next += 1
        return self._next - 1

    def give(self, number: int) -> None:
        """The group is gone."""
        heappush(self._given_back, number)


class PeerGroup:
    """Mounts that share what is mounted on them, and the mounts that follow them.

    A mount that goes leaves it: `leave`.
    """

    __slots__ = ("_ids", "id", "members", "slaves")

    def __init__(self, ids: GroupIds) -> None:
        self._ids = ids
        self.id = ids.take()
        """As in mountinfo."""
        self.members: dict[int, Mount] = {}
        self.slaves: dict[int, Mount] = {}

    def end(self) -> None:
        """Nobody is in it any more."""
        self._ids.give(self.id)


def share(mount: Mount, ids: GroupIds) -> None:
    """MS_SHARED: a group of its own, unless it has one. A slave stays one, too."""
    mount.unbindable = False
    if mount.group is None:
        group = mount.group = PeerGroup(ids)
        group.members[mount.id] = mount


def follow(mount: Mount, master: Peers) -> None:
    """The mount is a slave of `master` from now on."""
    leave_master(mount)
    mount.master = master
    master.slaves[mount.id] = mount


def leave_master(mount: Mount) -> None:
    """It follows nobody any more."""
    if mount.master is not None:
        mount.master.slaves.pop(mount.id, None)
        mount.master = None


def leave_group(mount: Mount) -> None:
    """do_make_slave(): out of its peer group, whose slave it becomes if anybody is left there.

    The last one hands the group's slaves over to the master of the group, if there is one.
    """
    group = mount.group
    if group is None:
        return
    mount.group = None
    group.members.pop(mount.id, None)
    if group.members:
        follow(mount, group)
        return
    group.end()
    for slave in list(group.slaves.values()):
        if mount.master is not None:
            follow(slave, mount.master)
        else:
            leave_master(slave)


def leave(mount: Mount) -> None:
    """It is going: it shares nothing and follows nobody."""
    leave_group(mount)
    leave_master(mount)


def change(mount: Mount, kind: int, ids: GroupIds) -> None:
    """change_mnt_propagation(): MS_SHARED and its kin."""
    if kind == MS_SHARED:
        share(mount, ids)
        return
    leave_group(mount)
    if kind != MS_SLAVE:
        leave_master(mount)
        mount.unbindable = kind == MS_UNBINDABLE


def join_as_peer(mount: Mount, model: Mount) -> None:
    """clone_mnt(): a copy of a shared mount is its peer, one of a slave has the same master."""
    if model.group is not None:
        mount.group = model.group
        model.group.members[mount.id] = mount
    if model.master is not None:
        follow(mount, model.master)


def join_as_slave(mount: Mount, model: Mount) -> None:
    """CL_SLAVE: a copy that follows a shared mount."""
    if model.group is not None:
        follow(mount, model.group)
    elif model.master is not None:
        follow(mount, model.master)


def receivers(mount: Mount) -> Steps[list[Mount]]:
    """All other mounts on which what happens to this one happens, too."""
    found: dict[int, Mount] = {}
    groups = [] if mount.group is None else [mount.group]
    for group in groups:
        for other in [*group.members.values(), *group.slaves.values()]:
            yield
            if other is mount or other.id in found:
                continue
            found[other.id] = other
            if other.group is not None and other.group is not group:
                groups.append(other.group)
    return list(found.values())


def copies(mount: Mount) -> Steps[list[Mount]]:
    """What sits on the same place in all others that receive what happens there."""
    place = mount.parent
    if place is None:
        return []
    others = yield from receivers(place.mount)
    found = [other.mounted.get(id(place.dentry)) for other in others]
    return [child for child in found if child is not None]


def followers(doomed: list[Mount], unlocked: set[int]) -> Steps[list[Mount]]:
    """propagate_umount(): what goes elsewhere because these go, parents first.

    What has a child that stays, stays; but one that covers all of it takes its place instead. A
    locked mount goes with what it sits on, and never alone, unless it is `unlocked`.
    """
    going = {mount.id for mount in doomed}
    places: dict[tuple[int, int], Mount] = {}
    for mount in doomed:
        place = mount.parent
        if place is not None and place.mount.group is not None:
            places[id(place.mount.group), id(place.dentry)] = mount
    found: dict[int, Mount] = {}
    for mount in places.values():
        for copy in (yield from copies(mount)):
            if copy.id not in going:
                found[copy.id] = copy
    going.update(found)
    before = -1
    while before != len(found):
        before = len(found)
        for mount in reversed(list(found.values())):
            yield
            if _stays(mount, going, unlocked):
                del found[mount.id]
                going.discard(mount.id)
    return list(found.values())


def _stays(mount: Mount, going: set[int], unlocked: set[int]) -> bool:
    place, over = mount.parent, mount.overmount
    locked = mount.locked and mount.id not in unlocked
    if locked and place is not None and place.mount.id not in going:
        return True
    return any(_leaves(child, going) for child in mount.mounted.values() if child is not over)


def _leaves(mount: Mount | None, going: set[int]) -> bool:
    """Its place stays taken: by it, or by one that covers it."""
    while mount is not None and mount.id in going:
        mount = mount.overmount
    return mount is not None


def shows(mount: Mount, dentry: Dentry) -> bool:
    """The place can be seen in the mount."""
    return mount.namespace is not None and dentry.is_below(mount.root)


def groups_of(mounts: Iterable[Mount]) -> set[Peers | None]:
    """Of those that share."""
    return {mount.group for mount in mounts}


def dominating(mount: Mount, seen: set[Peers | None]) -> int:
    """get_dominating_id(): the nearest group above the master that is among `seen`."""
    at = mount.master
    while at is not None:
        if at in seen:
            return at.id
        above = next(iter(at.members.values()), None)
        at = above.master if above is not None else None
    return 0
