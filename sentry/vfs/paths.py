"""Places back into path names: d_path(), fs/d_path.c."""

from __future__ import annotations

from sentry.vfs.dentry import Location


def _climb(location: Location, root: Location) -> tuple[list[bytes], bool]:
    """Names from the place up to `root` (or as far as it goes), and whether it got there."""
    names: list[bytes] = []
    at = location
    while at != root:
        if at.dentry is at.mount.root:
            if at.mount.parent is None:
                return names, False
            at = at.mount.parent
            continue
        if at.dentry.parent is None:
            return names, False
        names.append(at.dentry.name)
        at = Location(at.mount, at.dentry.parent)
    return names, True


def path_of(location: Location, root: Location) -> bytes:
    """The absolute path as seen from `root`; the label of a file without a name."""
    dentry = location.dentry
    if dentry.parent is None and dentry is not location.mount.root:
        return dentry.name
    names, _ = _climb(location, root)
    return b"/" + b"/".join(reversed(names))


def shown_path(location: Location, root: Location) -> bytes:
    """As /proc shows it: a removed file is marked."""
    path = path_of(location, root)
    return path + b" (deleted)" if location.dentry.unlinked else path


def is_reachable(location: Location, root: Location) -> bool:
    """Whether the place lies below `root`."""
    return _climb(location, root)[1]
