"""`Hearing`: what others than this process change in trees that clients take for their own.

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
from _weakref import ref
from collections.abc import Callable, Iterator
from typing import Final, Protocol

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


class Ear:
    """One attachment, for the first session that asks."""

    __slots__ = ("heard", "lost", "root", "session")

    def __init__(self, session: Session, root: Node) -> None:
        self.session = session
        self.root: Node | None = root
        """None: the session is over, and nobody else hears."""
        self.heard: dict[tuple[Identity, bytes], int] = {}
        self.lost = False

    def lose(self) -> None:
        """Anything may have changed."""
        self.lost = True
        self.heard.clear()

    def take(self) -> Rhearx | None:
        """What has been heard since the last time, if anything."""
        if not self.lost and not self.heard:
            return None
        lost, heard = self.lost, self.heard
        self.lost, self.heard = False, {}
        entries = b"".join(
            _ENTRY.pack(*directory, what, len(name)) + name
            for (directory, name), what in heard.items()
        )
        if len(entries) > self.session.msize - _HEAD:
            lost, entries = True, b""
        return Rhearx(int(lost), entries)


class Hearing:
    """The group of a server."""

    __slots__ = (
        "_buffer", "_deaf", "_ears", "_handle", "_known", "_limit", "_log", "_nameless",
        "_own", "_table", "fd",
    )  # fmt: skip

    def __init__(self, fd: int, table: NodeTable, limit: int, log: Callable[[str], None]) -> None:
        """`fd`: the group; -1: there is none. `limit`: of marks."""
        self.fd = fd
        self._table = table
        self._limit = limit
        self._log = log
        self._own = os.getpid()
        self._ears: dict[bytes, Ear] = {}
        """By the names of attachments."""
        self._known: dict[bytes, tuple[Identity, ref[Node], Ear]] = {}
        """Directories by their handles. A handle is of one inode, whatever comes after it."""
        self._deaf = False
        """The host has refused a mark, and the log says so."""
        self._buffer = ffi.new("uint8_t[]", _ROOM if fd >= 0 else 1)
        self._handle = ffi.new("uint8_t[]", _HANDLE_MAX)
        self._nameless = -1, ffi.new("uint8_t[]", _HANDLE_MAX)
        """The directory that files without a name are made in, and its handle."""

    # --- who hears of what

    def belongs_to(self, session: Session) -> bool:
        """Whether it is one that hears."""
        return any(ear.session is session for ear in self._ears.values())

    def start(self, session: Session, root: Node) -> None:
        """From now on. Raises: EOPNOTSUPP, EBUSY, EINVAL."""
        if self.fd < 0:
            raise error(errno.EOPNOTSUPP)
        name = root.attachment.name
        if name in self._ears:
            raise error(errno.EBUSY)
        if root.parent is not None or root.attachment.cache is not CacheMode.EXCLUSIVE:
            raise error(errno.EINVAL)
        ear = Ear(session, root)
        if not self._mark(root, ear):
            raise error(errno.EOPNOTSUPP)
        self._ears[name] = ear

    def makes_nameless(self, root: Node) -> None:
        """Files without a name are made there from now on: that a client closes them is no news."""
        ear, (home, handle) = self._ears.get(root.attachment.name), self._nameless
        if home >= 0 or root.parent is not None or ear is None or ear.root is not root:
            return
        if lib.gofer_hear_of(self.fd, root.fd, handle, _HANDLE_MAX) > 0:
            self._nameless = root.fd, handle

    def release(self, session: Session) -> None:
        """It is over; nobody else hears."""
        for ear in self._ears.values():
            if ear.session is session and ear.root is not None:
                ear.root = None
                ear.heard.clear()
                self._start_anew()
                self.tell()

    def hear_of(self, node: Node) -> bool:
        """A fid is about to be bound to a directory; False: nothing is new."""
        ear = self._ears.get(node.attachment.name)
        if ear is None or ear.root is None or not node.is_dir():
            return False
        if node.identity[0] != ear.root.identity[0]:
            return False
        if len(self._known) >= self._limit:
            self._start_anew()
        return self._mark(node, ear)

    def _mark(self, node: Node, ear: Ear) -> bool:
        fd = self._table.fd(node)
        size = lib.gofer_hear_of(self.fd, fd, self._handle, _HANDLE_MAX)
        if size < 0:
            if not self._deaf:
                self._log(f"changes of the host are not heard of: {os.strerror(-size)}")
            self._deaf = True
            return False
        self._known[ffi.buffer(self._handle, size)[:]] = node.identity, ref(node), ear
        return True

    def _start_anew(self) -> None:
        """What is in use is heard of, and no more."""
        lib.gofer_hear_nothing(self.fd)
        self._known.clear()
        self._lose()
        for ear in self._ears.values():
            for node in _directories(ear.root):
                if len(self._known) < self._limit // 2:
                    try:
                        self._mark(node, ear)
                    except OSError:  # somebody has moved it: who uses it will hear of that
                        continue

    # --- what is heard

    def hear(self) -> None:
        """Take what is in the queue."""
        while self.fd >= 0:
            size = lib.gofer_heard(self.fd, self._own, *self._nameless, self._buffer, _ROOM)
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
            return
        identity, node, ear = found
        if ear.lost or (mask == lib.FAN_CLOSE_WRITE and _is_gone(node(), name)):
            return
        what = HEARD_NAME if mask & _NAMES else HEARD_FILE
        key = identity, name
        ear.heard[key] = min(what, ear.heard.get(key, what))
        if len(ear.heard) > MAX_HEARD:
            ear.lose()

    def _lose(self) -> None:
        for ear in self._ears.values():
            ear.lose()

    def take(self, session: Session) -> Rhearx | None:
        """What has been heard since the last time of what a session hears of, if anything."""
        for ear in self._ears.values():
            if ear.session is session:
                return ear.take()
        return None

    def tell(self) -> None:
        """Answer who waits for it."""
        for ear in self._ears.values():
            if ear.root is not None and ear.session.listens:
                told = ear.take()
                if told is not None:
                    ear.session.tell(told)


def _is_gone(directory: Node | None, name: bytes) -> bool:
    """Nothing has this name, so nobody knows what it was."""
    at = -1 if directory is None else directory.fd
    return at >= 0 and stat_block(at, name) == -errno.ENOENT


def _directories(root: Node | None) -> Iterator[Node]:
    """Those that fids are bound to, and what lies above them."""
    found = [] if root is None else [root]
    for node in found:
        found += [child for child in node.children.values() if child.is_dir()]
    yield from found
