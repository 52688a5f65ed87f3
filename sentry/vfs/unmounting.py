"""Mounts go: umount2(2), and the end of a mount namespace. fs/namespace.c, fs/pnode.c.

Work in steps, below `MountBudget.lock`. Walks see all that go until they see none of them, as below
Linux's `mount_lock`; what they had is let go of behind that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.errors import EBUSY
from sentry.vfs import propagation
from sentry.vfs.mount import Mount, Veil, tree
from sentry.vfs.watches import tell_unmounted
from sentry.wait.steps import Steps, Stepwise

if TYPE_CHECKING:
    from sentry.vfs.filesystem import FileSystem


def _unmounted(mount: Mount) -> Steps[None]:
    """do_umount(): if nobody uses it. Raises: EBUSY."""
    elsewhere = yield from propagation.copies(mount)
    _check_unused(mount, elsewhere)
    doomed = yield from _doomed(mount, elsewhere)
    veil = yield from _veiled(doomed)
    try:
        _check_unused(mount, elsewhere)  # by now somebody may have gone there
    except EBUSY:
        for each in doomed:
            each.veil = None
        raise
    yield from _apart(doomed, elsewhere, veil)


def _detached(mount: Mount) -> Steps[None]:
    """MNT_DETACH: with all below it, whoever uses them."""
    elsewhere = yield from propagation.copies(mount)
    doomed = yield from _doomed(mount, elsewhere)
    veil = yield from _veiled(doomed)
    yield from _apart(doomed, elsewhere, veil)


umount = Stepwise(_unmounted)
detach = Stepwise(_detached)


def _doomed(mount: Mount, elsewhere: list[Mount]) -> Steps[list[Mount]]:
    """What goes, parents first. Who locked it takes it away: propagate_mount_unlock()."""
    found = tree(mount)
    found += yield from propagation.followers(found, {copy.id for copy in elsewhere})
    return found


def _veiled(doomed: list[Mount]) -> Steps[Veil]:
    """Behind a veil that does not hide yet; not those that stay covered by what stays."""
    veil = Veil(hides=False)
    for each in reversed(doomed):
        over = each.overmount
        if over is None or over.veil is veil:
            each.veil = veil
        yield
    return veil


def _apart(doomed: list[Mount], elsewhere: list[Mount], veil: Veil) -> Steps[None]:
    veil.hides = True
    for copy in elsewhere:
        copy.locked = False
    going = {each.id for each in doomed}
    for each in reversed(doomed):
        yield
        namespace, place, over = each.namespace, each.parent, each.overmount
        _unmark(each)
        propagation.leave(each)
        if namespace is None:
            continue
        if over is not None and over.id not in going:
            namespace.take_off(over)
        namespace.detach(each)
        if over is not None and over.id not in going and place is not None:
            namespace.put(over, place)
        yield from gone(each.fs, namespace.budget)


def _unmark(mount: Mount) -> None:
    """fsnotify_vfsmount_delete(): marks of a mount go with it."""
    for mark in list(mount.marks.values()) if mount.marks is not None else ():
        mark.unmounted()


def _check_unused(mount: Mount, elsewhere: list[Mount]) -> None:
    """Nor may a copy be, which would go, too. Raises: EBUSY."""
    namespace = mount.namespace
    assert namespace is not None
    used = [copy for copy in elsewhere if copy.open_files or copy.residents]
    if namespace.busy(mount) or any(not _stays(copy) for copy in used):
        raise EBUSY("in use")


def _stays(copy: Mount) -> bool:
    """It does not go, since something is mounted on it: propagate_mount_busy()."""
    over = copy.overmount
    return any(child is not over for child in copy.mounted.values())


def gone(fs: FileSystem, budget: Any) -> Steps[None]:
    """What is to be done if nobody has mounted it any more."""
    if not fs.mount_count:
        yield from tell_unmounted(fs)
        yield from budget.dentries.without(fs)
        yield from fs.forgetting()
        fs.shutdown()
        for below in fs.let_go_below():
            yield from gone(below, budget)


def dissolve(namespace: Any) -> Steps[None]:
    """put_mnt_ns(): nobody is in it any more. What it has is gone without a word."""
    mounts, veil = list(namespace), Veil(hides=False)
    for mount in mounts:
        mount.veil = veil
        yield
    veil.hides = True
    for mount in mounts:
        _unmark(mount)
        propagation.leave(mount)
        if mount.parent is not None:
            mount.parent.dentry.mounts -= 1
            mount.parent = None
        mount.mounted.clear()
        namespace.strike_off(mount)
        yield from gone(mount.fs, namespace.budget)
    namespace.budget.namespaces.pop(namespace, None)
