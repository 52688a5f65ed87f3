"""Whether a root is the sandbox's alone: only then is it answered from memory and written behind.

It is not where a mount of the container shows a part of it, or it a part of what is mounted, nor
where another sandbox that was told to write behind has a root that overlaps it, or a mount that can
be written to: `claims` tells.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from runsc.launch import claims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runsc.oci.convert import Container

_ESCAPED = re.compile(r"\\([0-7]{3})")
Place = tuple[str, str]
"""A device, and a path in its file system."""
_QUOTAS: Final = frozenset(
    ("quota", "usrquota", "grpquota", "uquota", "gquota", "usrjquota", "grpjquota")
)
"""Options of ext4, f2fs, tmpfs and xfs."""


class Mount(NamedTuple):
    """A line of mountinfo."""

    device: str
    root: str
    """Of what it shows, in its file system."""
    point: str
    kind: str
    options: tuple[tuple[str, str], ...]
    """Those of the file system; a value may be empty."""


def claimed(container: Container, warn: Callable[[str], object]) -> Container:
    """The same with a root that is written behind, or is shared with others."""
    root, (first, *others) = container.root, container.exports
    mounts = [export for export in others if export.path]
    shown = overlapping(first.path, [export.path for export in mounts])
    why = f"it overlaps with {shown}, which is mounted" if shown else ""
    fd = -1
    try:
        fd = claims.claim(first.path, [each.path for each in mounts if each.writable])
        why = claims.shared(fd, first.path) or why
        for each in mounts:
            if claims.shows_a_root(fd, each.path):
                warn(f"{each.path}, which is mounted, overlaps with the root of another sandbox")
    except OSError as problem:
        why = f"nobody can tell who else has it: {problem}"
    is_shared = bool(why)
    if counts_owners(first.path):
        why = why or "the host may refuse an owner more files, and would say so too late (quotas)"
    if why:
        warn(f"the root file system is not written behind: {why}")
    root = msgspec.structs.replace(root, written_behind=not why, is_shared=is_shared)
    first = msgspec.structs.replace(first, lock_fd=fd, is_shared=is_shared)
    return msgspec.structs.replace(container, root=root, exports=(first, *others))


def counts_owners(path: str) -> bool:
    """Whether its file system has quotas of users or groups, by the options of its mount, for an
    overlayfs of its upper layer. statfs(2) shows none of them. Also where nobody can tell."""
    mounts = _mounts()
    mount = mounts.get(_mount_id(path))
    if mount is None:
        return True
    if mount.kind == "overlay":
        upper = [text for name, text in mount.options if name == "upperdir"]
        if not upper or not os.path.isabs(upper[0]) or not os.path.isdir(upper[0]):
            return True
        return counts_owners(upper[0])
    return any(name in _QUOTAS for name, _ in mount.options)


def overlapping(root: str, others: Sequence[str]) -> str:
    """The first of `others` that shows a part of `root`, or of which `root` is a part; "": none.

    By path, and by where they lie in their file systems, however they are mounted.
    """
    own, mounts = os.path.realpath(root), _mounts()
    place = _place(own, mounts)
    for other in others:
        path = os.path.realpath(other)
        if _nested(own, path) or _in_one_tree(place, _place(path, mounts)):
            return other
    return ""


def _nested(one: str, other: str) -> bool:
    return os.path.commonpath((one, other)) in (one, other)


def _in_one_tree(one: Place | None, other: Place | None) -> bool:
    if one is None or other is None:
        return False
    return one[0] == other[0] and _nested(one[1], other[1])


def _mounts() -> dict[int, Mount]:
    """proc_pid_mountinfo(5), by the numbers of the mounts."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            number, _, device, root, point = line.split(" ", 5)[:5]
            kind, _, options = line.rstrip("\n").split(" - ", 1)[1].split(" ", 2)
            each = (_plain(text).partition("=") for text in options.split(","))
            named = tuple((name, value) for name, _, value in each)
            found[int(number)] = Mount(device, _plain(root), _plain(point), kind, named)
    return found


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _mount_id(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def _place(path: str, mounts: dict[int, Mount]) -> Place | None:
    """Where a path lies in its file system, if that can be told."""
    mount = mounts.get(_mount_id(path))
    if mount is None:
        return None
    place = os.path.join(mount.root, os.path.relpath(path, mount.point))
    return mount.device, os.path.normpath(place)
