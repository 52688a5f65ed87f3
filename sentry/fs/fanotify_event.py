"""What a reader of fanotify(7) is told: events, and the records behind them. fs/notify/fanotify/.

A group with FAN_REPORT_FID or FAN_REPORT_DIR_FID is told file handles, any other one gets an open
file with each event. Like ones that nobody has read yet are one event with both masks.
"""

from __future__ import annotations

import struct
from _weakref import ref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fanotify import (
    FAN_EVENT_INFO_TYPE_DFID,
    FAN_EVENT_INFO_TYPE_DFID_NAME,
    FAN_EVENT_INFO_TYPE_FID,
    FAN_EVENT_INFO_TYPE_NEW_DFID_NAME,
    FAN_EVENT_INFO_TYPE_OLD_DFID_NAME,
    FAN_EVENT_INFO_TYPE_PIDFD,
    FAN_ONDIR,
    FAN_RENAME,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FID,
    FAN_REPORT_NAME,
    FAN_REPORT_TARGET_FID,
    FANOTIFY_METADATA_VERSION,
)
from sentry.vfs.handles import handle_of
from sentry.vfs.marks import DIRENT_EVENTS, ON_FILE_SYSTEM, ON_INODE, ON_TARGET, Happening

if TYPE_CHECKING:
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.interface import Inode
    from sentry.vfs.location import Location

FID_BITS: Final = FAN_REPORT_FID | FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_TARGET_FID
METADATA: Final = struct.Struct("<IBBHQii")
"""struct fanotify_event_metadata."""
_INFO: Final = struct.Struct("<BBH")
_PIDFD: Final = struct.Struct("<BBHi")
PIDFD_SIZE: Final = _PIDFD.size

Known = tuple["ref[Dentry]", bytes]
"""A dentry, or what has a name in it."""


class Event:
    """One that waits to be read."""

    __slots__ = ("handles", "key", "mask", "place", "process", "records", "who")

    def __init__(self, mask: int, who: int, process: Any) -> None:
        self.mask = mask
        self.who = who
        """The kernel's number of the process or thread; 0: nobody."""
        self.process = process
        """Its thread group."""
        self.place: Location | None = None
        """What is opened for the reader."""
        self.records = b""
        self.handles: tuple[Known, ...] = ()
        """What the records have handles of."""
        self.key: object = None
        """Events with the same one are merged."""

    def of_place(self, place: Location) -> None:
        """An open file is told."""
        self.place = place
        self.key = self.who, id(place.mount), id(place.dentry)

    def of_handles(self, what: Happening, mode: int, matched: int) -> None:
        """Handles are told; `mode` are FAN_REPORT_*, `matched` the kinds of marks, as bits."""
        told = list(_told(what, self.mask, mode, matched))
        self.records = b"".join([_record(kind, inode, name) for kind, inode, name, _ in told])
        self.handles = tuple(known for _, _, _, known in told if known is not None)
        self.key = self.who, self.records, self.mask & (FAN_ONDIR | FAN_RENAME)

    def known(self) -> Iterator[Dentry]:
        """What its handles mean, as far as that is in memory."""
        for found, name in self.handles:
            dentry = found()
            if dentry is not None and name:
                dentry = dentry.known_child(name)
            if dentry is not None:
                yield dentry

    def size(self, extra: int) -> int:
        """Bytes that a read takes, with so many more."""
        return METADATA.size + len(self.records) + extra

    def pack(self, fd: int, pid: int, more: bytes = b"") -> bytes:
        """As it is read; `more`: other records."""
        size = self.size(len(more))
        version = FANOTIFY_METADATA_VERSION
        head = METADATA.pack(size, version, 0, METADATA.size, self.mask, fd, pid)
        return head + self.records + more


def pidfd_record(fd: int) -> bytes:
    """struct fanotify_event_info_pidfd."""
    return _PIDFD.pack(FAN_EVENT_INFO_TYPE_PIDFD, 0, PIDFD_SIZE, fd)


def _record(kind: int, inode: Inode, name: bytes) -> bytes:
    """struct fanotify_event_info_fid, its handle, and the name."""
    body = inode.fs.dev.to_bytes(8, "little") + handle_of(inode)
    if name:
        body += name + b"\0"
    body += bytes(-len(body) % 4)
    return _INFO.pack(kind, 0, _INFO.size + len(body)) + body


Told = tuple[int, "Inode", bytes, "Known | None"]
"""A record: its type, whose handle, the name behind it, and where that is found again."""


def _told(what: Happening, mask: int, mode: int, matched: int) -> Iterator[Told]:
    """fanotify_alloc_event(), copy_info_records_to_user()."""
    is_entry, on_dir = mask & DIRENT_EVENTS, mask & FAN_ONDIR
    directory = what.directory
    above = directory.inode if directory is not None else None
    subject = what.inode if not is_entry or mode & FAN_REPORT_TARGET_FID else above
    assert subject is not None
    if is_entry or not what.inode.is_dir:
        owner, owner_known = above, _of(directory)
    else:
        owner, owner_known = what.inode, _child(what)
    if not mode & FAN_REPORT_DIR_FID or owner is None:
        known = _of(directory) if subject is above else _child(what)
        yield _alone(mask, mode), subject, _dot(mask, mode), known
        return
    wants_child = mode & FAN_REPORT_TARGET_FID if is_entry else mode & FAN_REPORT_FID and not on_dir
    child = subject if wants_child and subject is not owner else None
    named = bool(mode & FAN_REPORT_NAME and (is_entry or not on_dir))
    if not named and child is None:
        yield _alone(mask, mode), owner, _dot(mask, mode), owner_known
        return
    if mask & FAN_RENAME:
        yield from _renamed(what, matched)
    else:
        kind = FAN_EVENT_INFO_TYPE_DFID_NAME if named else FAN_EVENT_INFO_TYPE_DFID
        yield kind, owner, what.name if named else b"", owner_known
    if child is not None:
        yield FAN_EVENT_INFO_TYPE_FID, child, b"", _child(what)


def _alone(mask: int, mode: int) -> int:
    """The type of a record that is the only one, and says nothing of a name in a directory."""
    if mode & FID_BITS == FAN_REPORT_FID:
        return FAN_EVENT_INFO_TYPE_FID
    if mode & FAN_REPORT_NAME and mask & FAN_ONDIR:
        return FAN_EVENT_INFO_TYPE_DFID_NAME
    if mask & (DIRENT_EVENTS | FAN_ONDIR):
        return FAN_EVENT_INFO_TYPE_DFID
    return FAN_EVENT_INFO_TYPE_FID


def _dot(mask: int, mode: int) -> bytes:
    return b"." if _alone(mask, mode) == FAN_EVENT_INFO_TYPE_DFID_NAME else b""


def _renamed(what: Happening, matched: int) -> Iterator[Told]:
    """From where, to where, or both: where there is a mark."""
    assert what.directory is not None
    assert what.moved is not None
    everywhere = matched & 1 << ON_FILE_SYSTEM
    if everywhere or matched & 1 << ON_INODE:
        directory, name = what.directory, what.name
        yield FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, directory.inode, name, _of(directory)
    if everywhere or matched & 1 << ON_TARGET:
        directory, name = what.moved
        yield FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, directory.inode, name, _of(directory)


def _of(dentry: Dentry | None) -> Known | None:
    return None if dentry is None else (ref(dentry), b"")


def _child(what: Happening) -> Known | None:
    """What an event is about."""
    if what.place is not None:
        return ref(what.place.dentry), b""
    directory, name = what.moved or (what.directory, what.name)
    return None if directory is None else (ref(directory), name)
