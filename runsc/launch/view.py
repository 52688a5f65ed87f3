"""What somebody finds who enters the mount namespace of a stand-in, as `podman cp` and `top` do.

Nothing of the host. Where programs see the container's root directory as it is on the host, it is
that, with the bind mounts; else (`--overlay2=root:memory`) nothing is shown, for what programs see
is in the memory of the Sentry. What only the Sentry has (/dev, a tmpfs) is an empty folder that
cannot be written. Nothing in it can be executed, so that nobody runs a program of the container on
the host. /proc has the stand-in, if it has a PID namespace of its own.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from runsc import host
from runsc.launch import isolation
from runsc.oci.exports import Export
from sentry.abi import mount
from sentry.abi.fcntl import AT_RECURSIVE

if TYPE_CHECKING:
    from runsc.oci.convert import Container

INERT = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


class Shown(msgspec.Struct, frozen=True):
    """A mount of the container: of the host's files, or (None) of what only the Sentry has."""

    destination: str
    export: Export | None
    mode: int = 0o755
    """Of the folder, if it has to be made."""


class View(msgspec.Struct, frozen=True):
    """The root, and the mounts in their order."""

    root: Export
    mounts: tuple[Shown, ...]


def of(container: Container) -> View | None:
    """None: nothing is shown."""
    if not _is_whole(container) or container.users is not None:
        return None
    shown = []
    for each in container.mounts:
        export = None if each.attachment is None else container.exports[each.attachment]
        if export is not None and (export.overlay or export.owners is not None):
            export = None
        # a tmpfs has the mode of what it covers, and where that is not, 1777
        named = any(option.startswith("mode=") for option in each.data.split(","))
        mode = 0o755 if each.type != "tmpfs" or named else 0o1777
        shown.append(Shown("/" + os.fsdecode(each.destination).strip("/"), export, mode))
    return View(container.exports[0], tuple(shown))


def _is_whole(container: Container) -> bool:
    """The root directory has all that programs see in it. For /proc a read-only one needs a place:
    `podman top` looks there."""
    root = container.exports[0]
    readonly = container.root.readonly and os.path.isdir(os.path.join(root.path, "proc"))
    return readonly or container.root.overlay == "none"


def enter(view: View | None, *, has_processes: bool) -> None:
    """Be in it; what was mounted before is out of reach. `has_processes`: of a PID namespace.

    Preconditions: a mount namespace of its own, which nobody hears of. Raises: OSError.
    """
    processes = _processes() if has_processes else -1
    if view is None:
        isolation.leave_root(trees={} if processes < 0 else {"proc": processes})
    else:
        _leave_for(view, processes)
    if processes >= 0:
        os.close(processes)


def _processes() -> int:
    """procfs(5) with nothing but /proc/PID, attached nowhere; -1 if the kernel has no such one."""
    with suppress(OSError):
        host.mount("proc", "/proc", "proc", INERT, "subset=pid")
        try:
            return host.clone_mount("/proc", 0, 0)
        finally:
            host.umount("/proc", mount.MNT_DETACH)
    return -1


def _clone(export: Export) -> int:
    attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
    if not export.writable:
        attributes |= mount.MOUNT_ATTR_RDONLY
    # what follows the host is not held here when the host unmounts it
    depth = AT_RECURSIVE if export.recursive and not export.follows else 0
    return host.clone_mount(export.path, attributes, depth)


def _leave_for(view: View, processes: int) -> None:
    trees = {}
    for index, each in enumerate(view.mounts):
        if each.export is not None:
            with suppress(OSError):  # an ordinary user may have no part of some mounts
                trees[index] = _clone(each.export)
    root = _clone(view.root)
    host.attach_mount(root, "/proc")
    os.close(root)
    os.chdir("/proc")
    host.pivot_root(".", ".")
    host.umount(".", mount.MNT_DETACH)
    os.chdir("/")
    os.umask(0)  # whatever the caller's is, as with runc
    # from here on every name, and every link in one, is the container's
    hidden: list[str] = []
    for index, each in enumerate(view.mounts):
        place = os.path.realpath(each.destination)
        if not any(place.startswith(f"{above}/") for above in hidden):
            _show(place, trees.get(index, -1), each, processes, hidden)
    for fd in trees.values():
        os.close(fd)


def _show(place: str, tree: int, shown: Shown, processes: int, hidden: list[str]) -> None:
    """A mount at its place, which is made as the Sentry would; where that is not, nothing is."""
    try:
        _make(place, 0 if shown.export is not None and shown.export.is_file else shown.mode)
    except OSError:
        return
    if tree >= 0:
        _attach(tree, place, shown)
    elif place == "/proc" and processes >= 0:
        host.attach_mount(processes, place)
        hidden.append(place)
    else:
        host.mount("runsc-empty", place, "tmpfs", INERT, "size=4k,nr_inodes=1,mode=0555")
        hidden.append(place)


def _attach(tree: int, place: str, shown: Shown) -> None:
    """Raises: OSError with its own words, of which an engine explains "not a directory"."""
    try:
        host.attach_mount(tree, place)
    except OSError as error:
        assert shown.export is not None
        number = error.errno or 0
        if os.path.isdir(place) is shown.export.is_file:
            number = errno.ENOTDIR
        why = os.strerror(number).lower()
        text = f"mount {shown.export.path} to {shown.destination}: {why}"
        raise OSError(number, text) from None


def _make(place: str, mode: int) -> None:
    """A folder of this mode, or with 0 a file."""
    if os.path.lexists(place):
        return
    missing = [os.path.dirname(place)]
    while not os.path.lexists(missing[-1]):
        missing.append(os.path.dirname(missing[-1]))
    for folder in reversed(missing[:-1]):
        os.mkdir(folder, 0o755)
    if mode:
        os.mkdir(place, mode)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
