"""Places back into path names: d_path(), fs/d_path.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.limits import PATH_MAX
from sentry.errors import ENAMETOOLONG

if TYPE_CHECKING:
    from collections.abc import Collection

    from sentry.vfs.location import Location
    from sentry.vfs.mount import Mount
    from sentry.wait.steps import Steps

TOO_LONG: Final = b"//toolong"
"""Instead of a path that does not fit into a page, as perf has it (kernel/events/core.c). Of maps
and core dumps Linux makes the page larger."""


def _climb(
    location: Location, root: Location, most: int | None = None
) -> tuple[list[bytes], bool]:
    """Names from the place up to `root` (or as far as it goes), and whether it got there.

    `most`: it goes no further once they have so many bytes, which counts as having got there.
    """
    names: list[bytes] = []
    (mount, dentry), left = location, most
    base, base_dentry = root
    while dentry is not base_dentry or mount is not base:
        if dentry is mount.root:
            if mount.parent is None or mount.hidden:
                return names, False
            mount, dentry = mount.parent
            continue
        if dentry.parent is None:
            return names, False
        names.append(dentry.name)
        if left is not None:
            left -= len(names[-1]) + 1
            if left < 0:
                break
        dentry = dentry.parent
    return names, True


def path_of(location: Location, root: Location, most: int | None = None) -> bytes:
    """The absolute path as seen from `root`; the label of a file without a name. `most`: of a path
    with more bytes of names there is just more than that."""
    dentry = location.dentry
    if dentry.parent is None and dentry is not location.mount.root:
        return dentry.name
    names, _ = _climb(location, root, most)
    return b"/" + b"/".join(reversed(names))


def path_of_cwd(cwd: Location, root: Location) -> bytes:
    """As getcwd(2) tells it: a place outside of the root gets "(unreachable)", and of a path that
    is longer than PATH_MAX there is just more than that. prepend_path()."""
    names, reached = _climb(cwd, root, PATH_MAX)
    path = b"/" + b"/".join(reversed(names))
    return path if reached else b"(unreachable)" + path


def short_path(location: Location, root: Location) -> bytes:
    """The same, or TOO_LONG: directories may lie as deep as a program likes."""
    path = path_of(location, root, PATH_MAX)
    return path if len(path) < PATH_MAX else TOO_LONG


def shown_path(location: Location, root: Location) -> bytes:
    """As /proc shows it: a removed file is marked."""
    return _marked(short_path(location, root), location)


def _marked(path: bytes, location: Location) -> bytes:
    return path + b" (deleted)" if location.dentry.unlinked else path


def link_text(location: Location, root: Location) -> bytes:
    """The same as a link says it: d_path() in a page. Raises: ENAMETOOLONG."""
    path = _marked(path_of(location, root, PATH_MAX), location)
    if len(path) >= PATH_MAX:
        raise ENAMETOOLONG("d_path()")
    return path


def is_reachable(location: Location, root: Location) -> bool:
    """Whether the place lies below `root`."""
    return _climb(location, root)[1]


def mount_paths(mounts: Collection[Mount], root: Location) -> Steps[dict[Mount, bytes]]:
    """The paths of those below `root`, in their order; each climbs to the next mount only."""
    known: dict[Mount, bytes | None] = {}
    found: dict[Mount, bytes] = {}
    base, base_dentry = root
    for mount in mounts:
        below = []
        at = mount
        while at not in known:
            below.append(at)
            if at.parent is None or (at is base and at.root is base_dentry):
                break
            at = at.parent.mount
        while below:
            at = below.pop()
            known[at] = _path_from(known, at, root)
            yield
        path = known[mount]
        if path is not None:
            found[mount] = path or b"/"
    return found


def _path_from(known: dict[Mount, bytes | None], mount: Mount, root: Location) -> bytes | None:
    """Of a mount whose parent's path is known; empty at the root, None outside of it."""
    base, base_dentry = root
    if mount is base and mount.root is base_dentry:
        return b""
    if mount.parent is None:
        return None
    above, at = mount.parent
    names: list[bytes] = []
    while at is not above.root and not (at is base_dentry and above is base):
        if at.parent is None:
            return None
        names.append(at.name)
        at = at.parent
    outer = b"" if at is base_dentry and above is base else known.get(above)
    names.append(b"")
    return None if outer is None else outer + b"/".join(reversed(names))
