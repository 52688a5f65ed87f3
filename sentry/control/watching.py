"""A directory that somebody watches from outside, by inotify(7) of the sandbox: see files.py."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.inotify import IN_ALL_EVENTS, IN_IGNORED
from sentry.control.answers import FileEvent
from sentry.control.trees import BY_PATH, Lines, entered
from sentry.fs.inotify import MAX_QUEUED, InotifyFile
from sentry.mm.buffers import KernelDest
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.control.outside import Acting
    from sentry.vfs.file import Caller

PIECE: Final = 1 << 16
_EVENT: Final = struct.Struct("<iIII")
"""struct inotify_event without the name."""


async def watch(acting: Acting, path: bytes, lines: Lines, begun: Callable[[], None]) -> None:
    """Tell what happens in a directory until it is gone; `begun` when nothing is missed any more.

    Who reads too slowly is told that events were lost: IN_Q_OVERFLOW.
    Raises: ENOTDIR, EACCES, EMFILE, ENOSPC.
    """
    caller = cast("Caller", acting)
    place = await entered(caller, AT_FDCWD, path, BY_PATH)
    file = InotifyFile(caller.kernel.vfs, 0, MAX_QUEUED)
    file.incref()
    try:
        file.watch(place.dentry.inode, IN_ALL_EVENTS)
        begun()
        while True:
            dest = KernelDest(PIECE)
            await again(file.read, caller, dest)
            events = parsed(dest.data)
            for event in events:
                await lines.add(event)
            await lines.flush()
            if any(event.mask & IN_IGNORED for event in events):
                return
    finally:
        file.decref()


def parsed(data: bytes) -> list[FileEvent]:
    """Whole events."""
    events, at = [], 0
    while at < len(data):
        _, mask, cookie, size = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        events.append(FileEvent(mask, data[at : at + size].rstrip(b"\0"), cookie))
        at += size
    return events
