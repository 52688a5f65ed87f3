"""Whether a root is the sandbox's alone: only then is it answered from memory and written behind.

It is not where another sandbox has been told to write behind to the same directory, which a lock on
it tells (flock(2)), nor where a mount of the container shows a part of it, or it a part of what is
mounted. What other sandboxes have mounted is not known.

The lock is a shared one, so that all who have it can be told from none: who gets an exclusive one
before is alone.
"""

from __future__ import annotations

import fcntl
import os
import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runsc.oci.convert import Container

_ESCAPED = re.compile(r"\\([0-7]{3})")
Place = tuple[str, str]
"""A device, and a path in its file system."""


def claimed(container: Container, warn: Callable[[str], object]) -> Container:
    """The same with a root that is written behind, or is shared with others."""
    root, (first, *others) = container.root, container.exports
    fd = os.open(first.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    shown = overlapping(first.path, [export.path for export in others])
    why = f"it overlaps with {shown}, which is mounted" if shown else ""
    if not _alone(fd):
        why = "another sandbox has it"
    if why:
        warn(f"the root file system is not written behind: {why}")
    root = msgspec.structs.replace(root, written_behind=not why, is_shared=bool(why))
    first = msgspec.structs.replace(first, lock_fd=fd, is_shared=bool(why))
    return msgspec.structs.replace(container, root=root, exports=(first, *others))


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


def _alone(fd: int) -> bool:
    alone = _locked(fd, fcntl.LOCK_EX)
    if _locked(fd, fcntl.LOCK_SH):
        return alone
    fcntl.flock(fd, fcntl.LOCK_SH)  # somebody is as far as this, for a moment
    return False


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _nested(one: str, other: str) -> bool:
    return os.path.commonpath((one, other)) in (one, other)


def _in_one_tree(one: Place | None, other: Place | None) -> bool:
    if one is None or other is None:
        return False
    return one[0] == other[0] and _nested(one[1], other[1])


def _mounts() -> dict[int, tuple[str, str, str]]:
    """proc_pid_mountinfo(5): id → device, root in its file system, mount point."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            number, _, device, root, point = line.split(" ", 5)[:5]
            found[int(number)] = device, _plain(root), _plain(point)
    return found


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _place(path: str, mounts: dict[int, tuple[str, str, str]]) -> Place | None:
    """Where a path lies in its file system, if that can be told."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            number = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    if number not in mounts:
        return None
    device, root, point = mounts[number]
    return device, os.path.normpath(os.path.join(root, os.path.relpath(path, point)))
