"""Whether a root is the sandbox's alone: only then is it answered from memory and written behind.

It is not where a mount of the container shows a part of it, or it a part of what is mounted, nor
where another sandbox has a root that overlaps it, or a mount that can be written to: `claims`
tells.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.launch import claims
from sentry.abi.layout import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runsc.oci.convert import Container

Place = tuple[str, str]
"""A device, and a path in its file system."""
_QUOTAS: Final = frozenset(
    ("quota", "usrquota", "grpquota", "uquota", "gquota", "usrjquota", "grpjquota")
)
"""Options of ext4, f2fs, tmpfs and xfs."""
_COUNTED: Final = "the host may refuse an owner more files, and would say so too late (quotas)"


class Mount(Record):
    """A line of mountinfo."""

    device: str
    root: str
    """Of what it shows, in its file system."""
    point: str
    kind: str
    options: str
    """Those of the file system, as they stand there."""


Mounts = dict[int, Mount]
"""By their numbers."""


def claimed(
    container: Container,
    told: Callable[[str], object],
    noted: Callable[[], object],
    ask: Callable[[list[str]], object],
) -> Container:
    """The same with a root that is written behind, or is shared with others, where it is kept.

    `told`: why nothing is written behind. `noted` is called before others can see that it is: they
    look for who it is, and ask it. `ask` is called with what overlaps with the roots of sandboxes
    that write behind: those had looked before this one claimed, so nobody waits in a circle.
    """
    root, (first, *others) = container.root, container.exports
    mounts = [export.path for export in others if export.path]
    written = [export.path for export in others if export.path and export.writable]
    kept = first.writable
    why = "--file-access says so" if root.is_shared else ""
    fd = -1
    try:
        fd = claims.claim(first.path if kept else "", written)
        if kept and not why:
            why = _why_not_behind(fd, first.path, mounts, noted)
        overlaps = claims.behind(fd, [first.path, *written] if kept else written)
        if overlaps:
            ask(overlaps)
    except OSError as problem:
        why = f"nobody can tell who else has it: {problem}"
    is_shared = root.is_shared or (kept and why not in ("", _COUNTED))
    is_behind = kept and not why
    if kept and why:
        told(f"the root file system is not written behind: {why}")
    root = msgspec.structs.replace(root, written_behind=is_behind, is_shared=is_shared)
    first = msgspec.structs.replace(first, lock_fd=fd, is_shared=is_shared)
    return msgspec.structs.replace(container, root=root, exports=(first, *others))


def _why_not_behind(
    fd: int, root: str, mounts: Sequence[str], noted: Callable[[], object]
) -> str:
    """"": it is, and that is said. Raises: OSError."""
    table = _mounts()
    shown = overlapping(root, mounts, table)
    if shown:
        return f"it overlaps with {shown}, which is mounted"
    why = claims.shared(fd, root)
    if why:
        return why
    if counts_owners(root, table):
        return _COUNTED
    noted()
    claims.say_behind(fd, root)
    why = claims.shared(fd, root)
    if why:
        claims.say_through(fd, root)
    return why


def counts_owners(path: str, mounts: Mounts | None = None) -> bool:
    """Whether its file system has quotas of users or groups, by the options of its mount, for an
    overlayfs of its upper layer. statfs(2) shows none of them. Also where nobody can tell."""
    mounts = mounts or _mounts()
    mount = mounts.get(_mount_id(path))
    if mount is None:
        return True
    options = [_plain(text).partition("=") for text in mount.options.split(",")]
    if mount.kind == "overlay":
        upper = [text for name, _, text in options if name == "upperdir"]
        if not upper or not os.path.isabs(upper[0]) or not os.path.isdir(upper[0]):
            return True
        return counts_owners(upper[0], mounts)
    return any(name in _QUOTAS for name, _, _ in options)


def overlapping(root: str, others: Sequence[str], mounts: Mounts | None = None) -> str:
    """The first of `others` that shows a part of `root`, or of which `root` is a part; "": none.

    By path, and by where they lie in their file systems, however they are mounted.
    """
    own, mounts = os.path.realpath(root), mounts or _mounts()
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


def _mounts() -> Mounts:
    """proc_pid_mountinfo(5), by the numbers of the mounts."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            number, _, device, root, point = line.split(" ", 5)[:5]
            kind, _, options = line.rstrip("\n").split(" - ", 1)[1].split(" ", 2)
            found[int(number)] = Mount(device, _plain(root), _plain(point), kind, options)
    return found


def _plain(text: str) -> str:
    """Without octal numbers for blanks and the like."""
    if "\\" not in text:
        return text
    import re  # noqa: PLC0415  few paths have them

    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _mount_id(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def _place(path: str, mounts: Mounts) -> Place | None:
    """Where a path lies in its file system, if that can be told."""
    mount = mounts.get(_mount_id(path))
    if mount is None:
        return None
    place = os.path.join(mount.root, os.path.relpath(path, mount.point))
    return mount.device, os.path.normpath(place)
