"""Whether files of the program have changed since they were imported.

There are a thousand, and to look at all costs more than the fork of a start. So their folders are
watched (inotify(7)), and files are looked at when something was told of one; without that (no more
instances for this user) each time. What is told of no folder is that another one has its name: of
the uppermost ones that is looked at each time, and of the interpreter.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from runsc import host
from runsc.launch import ahead
from runsc.zygote import place
from sentry.abi import inotify

TOLD = (
    inotify.IN_MODIFY | inotify.IN_ATTRIB | inotify.IN_CREATE | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF
)  # fmt: skip
PIECE = 1 << 16
PACKAGES = ("runsc", "gofer", "sentry", "kvm", "guest_stubs")
MODULES = (".py", ".so")
Stamp = tuple[int, int, int]
"""Time, size, inode; zeros: not there."""


def stamps() -> dict[str, Stamp]:
    """What is imported or was compiled ahead, its folders, the interpreter, as they are now."""
    paths = {sys.executable, ahead.LIBRARY, os.path.dirname(ahead.LIBRARY)}
    compiled = ahead.compiled()  # whose own word for where they lie is no file
    for name, module in tuple(sys.modules.items()):
        path = ahead.source(name) if name in compiled else getattr(module, "__file__", None)
        if path and path.startswith(place.HOME + os.sep):
            paths |= {path, os.path.dirname(path)}
    return {path: stamp(path) for path in paths}


def importable() -> dict[str, Stamp]:
    """All that may be imported of the program, as it is now."""
    found: dict[str, Stamp] = {}
    for package in PACKAGES:
        for folder, _, names in os.walk(os.path.join(place.HOME, package)):
            paths = (os.path.join(folder, name) for name in names if name.endswith(MODULES))
            found |= {path: stamp(path) for path in paths}
    return found


def stamp(path: str) -> Stamp:
    """Of one file."""
    try:
        info = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (info.st_mtime_ns, info.st_size, info.st_ino)


class Files:
    """All of them."""

    def __init__(self, before: dict[str, Stamp]) -> None:
        """`before`: as they were before they were imported, which takes its time; of others, that
        are imported meanwhile, nothing is known but what they are now."""
        now = stamps()
        self._stamps = now | {path: each for path, each in before.items() if path in now}
        folders = {os.path.dirname(path) for path in self._stamps} & self._stamps.keys()
        self._uppermost = {path for path in folders if os.path.dirname(path) not in folders}
        self._uppermost |= {sys.executable} & self._stamps.keys()
        self._fd = _watching(folders)
        self._is_told = True
        self.have_changed()

    def have_changed(self) -> bool:
        """Since they were imported."""
        if self._fd >= 0 and not self._is_told:
            self._is_told = _drained(self._fd)
        is_told = self._fd < 0 or self._is_told
        found = any(
            stamp(path) != self._stamps[path]
            for path in (self._stamps if is_told else self._uppermost)
        )
        self._is_told = found
        return found


def _watching(folders: set[str]) -> int:
    """A descriptor that tells of changes in them; -1: nothing does."""
    fd = -1
    try:
        fd = host.notify()
        for folder in folders:
            host.watch(fd, folder, TOLD)
    except OSError:
        if fd >= 0:
            os.close(fd)
        return -1
    return fd


def _drained(fd: int) -> bool:
    """Whether something was told, which is forgotten."""
    was_told = False
    with suppress(BlockingIOError):
        while os.read(fd, PIECE):
            was_told = True
    return was_told
