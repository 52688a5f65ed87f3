"""The trees that the fuzzer of files leaves: on the host, and as a program sees them.

Kinds of file systems are those of `tests.contract.filesystems.conftest`, and one more.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.contract.filesystems.calls import Files
from tests.world import World

PAGE = 4096
LONG_AGO = 1 << 30
"""Seconds: what a test sets is older, what a clock says is not."""
BEHIND = "gofer written behind"
LAYERS = "gofer written behind, of layers"
"""The host's tree is an overlayfs, on both sides."""
SHARED = "gofer shared"
HEARD = ("gofer exclusive", BEHIND)
"""Where the Sentry is told what the host changes, a moment later."""
ON_THE_HOST = (*HEARD, LAYERS, SHARED)
OVER_THE_HOST = ("overlay over gofer", "layers over gofer")
"""The sandbox's own layer, and one of a program, over the host's tree; others lie in memory."""
MERGED = ("layers over gofer", "layers in memory")
"""Overlays of programs: compared with those of Linux."""
OVERLAYS = (*OVER_THE_HOST, "overlay over tmpfs", "overlay on disk", "layers in memory")
IN_MEMORY = ("tmpfs", *OVERLAYS)


def links(kind: str, mode: int, count: int) -> int:
    """Those of a directory of layers become others when it is copied up; other overlays count
    their own."""
    return -1 if kind in (LAYERS, *OVERLAYS) and stat.S_ISDIR(mode) else count


def shown_time(ns: int) -> object:
    return ns if ns < LONG_AGO * 10**9 else "now"


def look(root: Path, kind: str) -> dict[str, tuple[object, ...]]:
    """What is in a tree."""
    found: dict[str, tuple[object, ...]] = {}
    numbers: dict[int, str] = {}
    for path in (root, *sorted(root.rglob("*"))):
        name, seen = str(path.relative_to(root)), path.lstat()
        contents: object = None
        if stat.S_ISREG(seen.st_mode):
            contents = path.read_bytes()
        elif path.is_symlink():
            contents = os.readlink(path)
        attributes = {
            each: os.getxattr(path, each, follow_symlinks=False)
            for each in os.listxattr(path, follow_symlinks=False)
        }
        same = numbers.setdefault(seen.st_ino, name)
        nlink = links(kind, seen.st_mode, seen.st_nlink)
        owner = seen.st_mode, seen.st_uid, seen.st_gid
        found[name] = *owner, nlink, same, contents, attributes, shown_time(seen.st_mtime_ns)
    return found


def walked(files: Files, kind: str) -> dict[bytes, tuple[object, ...]]:
    """What is in a tree, as a program sees it: as `look`."""
    found: dict[bytes, tuple[object, ...]] = {}
    numbers: dict[int, bytes] = {}
    left = [b"/"]
    while left:
        path = left.pop()
        at = files.lstat(path)
        contents: object = None
        if stat.S_ISREG(at.st_mode):
            contents = whole(files, path, at.st_size)
        elif stat.S_ISLNK(at.st_mode):
            contents = files.target(path)
        elif stat.S_ISDIR(at.st_mode):
            left += [path.rstrip(b"/") + b"/" + name for name in reversed(files.names(path))]
        same = numbers.setdefault(at.st_ino, path)
        nlink = links(kind, at.st_mode, at.st_nlink)
        modified = shown_time(at.st_mtime * 10**9 + at.st_mtime_nsec)
        owner = at.st_mode, at.st_uid, at.st_gid
        found[path] = *owner, nlink, same, contents, extended(files, path), modified
    return found


def whole(files: Files, path: bytes, size: int) -> bytes:
    fd = files.opened(path)
    pieces = [files.read(fd, 8 * PAGE, at) for at in range(0, size, 8 * PAGE)]
    files.ok("close", fd)
    return b"".join(pieces)


def extended(files: Files, path: bytes) -> dict[bytes, bytes]:
    buffer = files.program.buffer(PAGE)
    size = files.call("llistxattr", path, buffer, PAGE)
    names = files.program.read(buffer, size).split(b"\0")[:-1] if size > 0 else []
    return {
        name: files.program.read(buffer, files.ok("lgetxattr", path, name, buffer, PAGE))
        for name in names
    }


class Trees:
    """Both trees, as others see them."""

    def __init__(
        self, roots: tuple[Path, Path], kind: str, programs: tuple[Files, Files]
    ) -> None:
        self._roots = roots
        self._kind = kind
        self._programs = programs
        self._lookers: tuple[Files, Files] | None = None
        """Who has made no call yet: the others' directories may be gone."""

    def compare(self, when: object) -> None:
        kind = self._kind
        if kind in ON_THE_HOST:
            assert look(self._roots[0], kind) == look(self._roots[1], kind), when
            return
        if self._lookers is None:
            self._lookers = self._programs[0].sibling(), self._programs[1].sibling()
        linux, here = self._lookers
        assert walked(linux, kind) == walked(here, kind), when


class Probe:
    """A name that the host makes and takes away: when that was heard of, what came before was."""

    def __init__(self, roots: tuple[Path, Path], world: World, program: Files) -> None:
        self._roots = roots
        self._world = world
        self._program = program

    def wait(self) -> None:
        for is_made in (True, False):
            for root in self._roots:
                if is_made:
                    (root / "probe").touch()
                else:
                    (root / "probe").unlink()
            while (self._program.missing(b"/probe") == 0) is not is_made:
                self._world.loop.turn()
