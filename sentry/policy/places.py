"""Paths of files as a policy has them, whatever a program mounts or links.

A file system keeps the path at which it was mounted first; what a program mounts later, or where it
changes its root to, changes no path. A file that has no name (a pipe, a memfd) has its label, which
begins with no slash; so do files of file systems that programs have made (a tmpfs), for else these
would have whatever path they like. What the kernel shows in such is what it shows elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.limits import PATH_MAX
from sentry.errors import ENAMETOOLONG
from sentry.vfs.mount import top
from sentry.vfs.paths import path_of

MAX_PATH: Final = PATH_MAX
"""Bytes: a look at each rule takes as long as a path is, and programs make directories as deep as
they like."""
OF_KERNEL: Final = {
    "cgroup": b"/sys/fs/cgroup", "cgroup2": b"/sys/fs/cgroup", "devpts": b"/dev/pts",
    "devtmpfs": b"/dev", "fusectl": b"/sys/fs/fuse/connections", "mqueue": b"/dev/mqueue",
    "proc": b"/proc", "sysfs": b"/sys",
}  # fmt: skip
"""What the kernel shows in each of these, and where it usually is."""

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.mount import Mount
    from sentry.vfs.mounts import MountNamespace


def learn(namespace: MountNamespace) -> None:
    """What is mounted there now; of what is there twice the older counts."""
    root = top(namespace.root.location)
    for mount in sorted(namespace, key=lambda mount: mount.id):
        try:
            below = tuple(_names(mount.root)[1])
        except ENAMETOOLONG:  # nor has what is in it a path
            continue
        known = mount.fs.first_places
        if mount.fs.is_made_inside:
            continue
        if not any(below[: len(each)] == each for each, _ in known):
            path = _text(path_of(mount.location, root))
            mount.fs.first_places = (*known, (below, "" if path == "/" else path))


def path_of_file(task: Task, mount: Mount, dentry: Dentry, name: bytes = b"") -> str:
    """The path of a file, or of a name in a directory. Raises: ENAMETOOLONG."""
    fs = mount.fs
    label, names = _names(dentry)
    if name:
        names.append(name)
    if label != b"/":
        return _text(b"/".join((label.lstrip(b"/"), *names)))
    if fs.is_made_inside:
        usual = OF_KERNEL.get(fs.name, f"{fs.name}:".encode())
        return _text(b"/".join((usual, *names)))
    places = fs.first_places
    if not places:
        learn(task.ns.mounts.mounts)
        places = fs.first_places
    for below, head in places:
        if not below or names[: len(below)] == list(below):
            rest = names[len(below) :]
            return f"{head}/{_text(b'/'.join(rest))}" if rest else head or "/"
    return "/" + _text(b"/".join(names))


def _names(dentry: Dentry) -> tuple[bytes, list[bytes]]:
    """The name of what is above all, which is / in a file system; and those from there on.

    Raises: ENAMETOOLONG.
    """
    names = []
    for _ in range(MAX_PATH // 2 + 1):  # of so many names the path is too long
        if (above := dentry.parent) is None:
            break
        names.append(dentry.name)
        dentry = above
    if len(names) + sum(map(len, names)) > MAX_PATH:
        raise ENAMETOOLONG("policy: no path to judge by")
    names.reverse()
    return dentry.name, names


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")
