"""`Hearing`: what others than this process change in a tree that a client takes for its own.

One fanotify(7) group, made before the process was confined, with a mark on each directory that a
fid is bound to: who keeps names of a directory has a fid for it. Events tell who made them, so what
this process does itself is left out, by number. A client that closes what it has written by a
donated descriptor makes some, too, and is told of those, unless the file has lost its name. The
group is an ordinary user's, so it hears of directories alone that it may read, and of no process
but this one who it is.

Kernel memory: there is a ceiling on marks. Beyond it all are taken off, and those in use put on
again. Once for each `PAUSE_S` the queue is read: a batch of own changes wakes nobody up for each.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol
from weakref import ref

from gofer._native import ffi, lib
from gofer.attachment import CacheMode
from gofer.native import error, stat_block
from gofer.node import Node, NodeTable
from gofer.p9.constants import HEARD_FILE, HEARD_NAME
from gofer.p9.extensions import Rhearx

PAUSE_S: Final = 0.01
"""Between two looks at the queue."""
MAX_HEARD: Final = 2048
"""Changes that nobody has asked for yet; if there are more, anything may have changed."""
_EVENT: Final = struct.Struct("=IBBHQii")
"""struct fanotify_event_metadata: length, version, -, its length, mask, descriptor, process."""
_INFO: Final = struct.Struct("=BBH8xI4x")
"""struct fanotify_event_info_fid up to the handle: type, -, length, file system, handle_bytes."""
_HANDLE_AT: Final = 12
_HANDLE_MAX: Final = 8 + 128
"""struct file_handle, MAX_HANDLE_SZ."""
_ENTRY: Final = struct.Struct("<QQBH")
_NAMES: Final = lib.FAN_CREATE | lib.FAN_DELETE | lib.FAN_MOVED_FROM | lib.FAN_MOVED_TO
_ROOM: Final = 65536
_HEAD: Final = 12
"""Of an Rhearx: size[4] type[1] tag[2] lost[1] count[4]."""

Identity = tuple[int, int]


class Session(Protocol):
    """Who hears (gofer.connection)."""

    msize: int

    @property
    def listens(self) -> bool: ...
    def tell(self, reply: Rhearx) -> None: ...


class Hearing:
    """The group of a server, for the first session that asks."""

    __slots__ = (
        "_buffer", "_deaf", "_handle", "_heard", "_known", "_limit", "_log", "_lost", "_own",
        "_owner", "_root", "_table", "fd",
    )  # fmt: skip

    def __init__(self, fd: int, table: NodeTable, limit: int, log: Callable[[str], None]) -> None:
        """`fd`: the group; -1: there is none. `limit`: of marks."""
        self.fd = fd
        self._table = table
        self._limit = limit
        self._log = log
        self._own = os.getpid()
        self._owner: Session | None = None
        self._root: Node | None = None
        self._known: dict[bytes, tuple[Identity, ref[Node]]] = {}
        """Directories by their handles. A handle is of one inode, whatever comes after it."""
        self._heard: dict[tuple[Identity, bytes], int] = {}
        self._lost = False
        self._deaf = False
        """The host has refused a mark, and the log says so."""
        self._buffer = ffi.new("uint8_t[]", _ROOM if fd >= 0 else 1)
        self._handle = ffi.new("uint8_t[]", _HANDLE_MAX)

    # --- who hears of what

    def belongs_to(self, session: Session) -> bool:
        """Whether it is this one that hears."""
        return self._owner is session

    def start(self, session: Session, root: Node) -> None:
        """From now on. Raises: EOPNOTSUPP, EBUSY, EINVAL."""
        if self.fd < 0:
            raise error(errno.EOPNOTSUPP)
        if self._owner is not None:
            raise error(errno.EBUSY)
        if root.parent is not None or root.attachment.cache is not CacheMode.EXCLUSIVE:
            raise error(errno.EINVAL)
        self._root = root
        if not self._mark(root):
            self._root = None
            raise error(errno.EOPNOTSUPP)
        self._owner = session

    def release(self, session: Session) -> None:
        """It is over; nobody else hears."""
        if self._owner is session and self._root is not None:
            self._root = None
            self._known.clear()
            self._heard.clear()
            lib.gofer_hear_nothing(self.fd)

    def hear_of(self, node: Node) -> bool:
        """A fid is about to be bound to a directory; False: nothing is new."""
        root = self._root
        if root is None or not node.is_dir() or node.attachment is not root.attachment:
            return False
        if node.identity[0] != root.identity[0]:
            return False
        if len(self._known) >= self._limit:
            self._start_anew(root)
        return self._mark(node)

    def _mark(self, node: Node) -> bool:
        fd = self._table.fd(node)
        size = lib.gofer_hear_of(self.fd, fd, self._handle, _HANDLE_MAX)
        if size < 0:
            if not self._deaf:
                self._log(f"changes of the host are not heard of: {os.strerror(-size)}")
            self._deaf = True
            return False
        self._known[ffi.buffer(self._handle, size)[:]] = node.identity, ref(node)
        return True

    def _start_anew(self, root: Node) -> None:
        """What is in use is heard of, and no more."""
        lib.gofer_hear_nothing(self.fd)
        self._known.clear()
        self._lose()
        for node in _directories(root):
            if len(self._known) < self._limit // 2:
                try:
                    self._mark(node)
                except OSError:  # somebody has moved it: who uses it will hear of that
                    continue

    # --- what is heard

    def hear(self) -> None:
        """Take what is in the queue."""
        while self.fd >= 0:
            size = lib.gofer_heard(self.fd, self._own, self._buffer, _ROOM)
            if size <= 0:
                return
            self._take(ffi.buffer(self._buffer, size)[:])

    def _take(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            length, _, _, begins, mask, _, _ = _EVENT.unpack_from(events, at)
            if mask & lib.FAN_Q_OVERFLOW:
                self._lose()
            else:
                self._event(mask, events[at + begins : at + length])
            at += length

    def _event(self, mask: int, info: bytes) -> None:
        size = _INFO.unpack_from(info)[3]
        ends = _HANDLE_AT + 8 + size
        found = self._known.get(info[_HANDLE_AT:ends])
        name = info[ends:].split(b"\0", 1)[0]
        if found is None:  # one without a fid has another mode
            self._lose()
        elif not self._lost and not (mask == lib.FAN_CLOSE_WRITE and _is_gone(found[1](), name)):
            what = HEARD_NAME if mask & _NAMES else HEARD_FILE
            key = found[0], name
            self._heard[key] = min(what, self._heard.get(key, what))
            if len(self._heard) > MAX_HEARD:
                self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._heard.clear()

    def take(self) -> Rhearx | None:
        """What has been heard since the last time, if anything."""
        if not self._lost and not self._heard:
            return None
        lost, heard = self._lost, self._heard
        self._lost, self._heard = False, {}
        entries = b"".join(
            _ENTRY.pack(*directory, what, len(name)) + name
            for (directory, name), what in heard.items()
        )
        if self._owner is not None and len(entries) > self._owner.msize - _HEAD:
            lost, entries = True, b""
        return Rhearx(int(lost), entries)

    def tell(self) -> None:
        """Answer who waits for it."""
        owner = self._owner
        if owner is not None and owner.listens:
            told = self.take()
            if told is not None:
                owner.tell(told)


def _is_gone(directory: Node | None, name: bytes) -> bool:
    """Nothing has this name, so nobody knows what it was."""
    at = -1 if directory is None else directory.fd
    return at >= 0 and stat_block(at, name) == -errno.ENOENT


def _directories(root: Node) -> Iterator[Node]:
    """Those that fids are bound to, and what lies above them."""
    found = [root]
    for node in found:
        found += [child for child in node.children.values() if child.is_dir()]
    yield from found
