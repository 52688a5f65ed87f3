"""How the merged tree differs from the lower one, for who asks from outside.

Nobody walks the lower tree: an inode that differs is held (`OverlayFs.keep`) and knows where it was
found, and a directory keeps the names that differ. So the work grows with what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.limits import PATH_MAX
from sentry.errors import ENAMETOOLONG
from sentry.vfs.interface import Absent
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.overlay.filesystem import OverlayFs
    from sentry.fs.overlay.inode import OverlayInode

ADDED: Final = "added"
MODIFIED: Final = "modified"
REMOVED: Final = "removed"


class Change(Struct, frozen=True):
    """A name that is not as it is in the lower tree."""

    path: bytes
    """From the root, with a slash before it."""
    kind: str
    mode: int = 0
    """Type and permissions of what is there now."""


Tell = Callable[[Change], Coroutine[Any, Any, None]]


async def differences(fs: OverlayFs, tell: Tell) -> None:
    """Tell each, a directory before what is in it. What was moved is gone there and added here, a
    directory as one; of a file with several names in the lower tree, the first that was used.

    Raises: ENAMETOOLONG for what no path leads to; a tree may be deeper than that.
    """
    pace = Pace()
    found = await _places(fs.kept, pace)
    waiting: list[tuple[OverlayInode, bytes, bytes]] = [(fs.root, b"", b"")]
    while waiting:
        await pace.rest()
        directory, above, called = waiting.pop()
        path = above + called + b"/"
        if len(path) >= PATH_MAX:
            raise ENAMETOOLONG("a tree that is too deep")
        changed = directory.changed or {}
        for name, now in list(changed.items()):
            change = await _change(directory, name, now, path + name)
            if change is not None:
                await tell(change)
            if not isinstance(now, Absent) and now.is_dir:
                waiting.append((now, path, name))
            await pace.rest()
        for name, below in found.get(directory, {}).items():
            if name in changed:
                continue
            if _differs(below):
                await tell(Change(path + name, MODIFIED, below.mode))
            if below.is_dir:
                waiting.append((below, path, name))
            await pace.rest()


async def _places(
    kept: list[OverlayInode], pace: Pace
) -> dict[OverlayInode, dict[bytes, OverlayInode]]:
    """Of each lower directory what is different in it or further below."""
    found: dict[OverlayInode, dict[bytes, OverlayInode]] = {}
    for inode in kept:
        at = inode
        while at.above is not None:
            names = found.setdefault(at.above, {})
            if names.get(at.called) is at:
                break
            names[at.called] = at
            at = at.above
        await pace.rest()
    return found


async def _change(
    directory: OverlayInode, name: bytes, now: OverlayInode | Absent, path: bytes
) -> Change | None:
    """What a name that is noted in a directory is, beside what the lower one has."""
    lower = directory.lower
    before = await again(lower.lookup, name) if lower is not None else None
    was_there = before is not None and not isinstance(before, Absent)
    if isinstance(now, Absent):
        return Change(path, REMOVED) if was_there else None
    if was_there and now.lower is before:  # it came back
        return Change(path, MODIFIED, now.mode) if _differs(now) else None
    return Change(path, MODIFIED if was_there else ADDED, now.mode)


def _differs(inode: OverlayInode) -> bool:
    """From the lower one: of a directory the attributes, for its names are told by themselves."""
    lower = inode.lower
    if lower is None or inode.upper is None:
        return False
    if not inode.is_dir:
        return True
    return (inode.mode, inode.uid, inode.gid) != (lower.mode, lower.uid, lower.gid)
