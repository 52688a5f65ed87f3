"""`HostChanges`: hearing of what the host changes, so that names of a shared tree can be trusted.

The Gofer watches directories with inotify and the Sentry holds the queue. The host's kernel queues
an event within the call that makes the change, before that call returns: so a look at the queue
before a remembered name is used sees every change that anybody can know to have happened. What
cannot be heard of this way is not remembered: contents and attributes of regular files (stores into
mappings, other names), which are asked of a descriptor; all of file systems that other machines or
layers change unheard (`COHERENT`).

What the Sentry changes itself makes events, too. Those are announced (`OwnChange`); all others make
the directory's names untrusted. `epoch` counts these: an answer of the Gofer that was
under way when it changed may be older than the change, and is not trusted.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fcntl import fcntl
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, Protocol

from gofer.p9.extensions import Tnotifyx, Tunwatchx
from sentry.abi.fcntl import F_GETFL, O_NONBLOCK
from sentry.abi.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
)
from sentry.abi.stat import (
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
)
from sentry.errors import EIO, Errno
from sentry.platform.host_io import pending

if TYPE_CHECKING:
    from sentry.fs.gofer.session import Session

COHERENT: Final = frozenset(
    {BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC}
)
"""Types of file systems (statfs) that only this host's kernel changes, with an event each time."""
MAX_WATCHES: Final = 512
"""Of a sandbox; what was not used for longest loses its own."""
RESPITE_NS: Final = 10_000_000_000
"""So long no watch is asked for after the host has had none left."""
NEVER_NS: Final = 1 << 63
_EVENT: Final = struct.Struct("=iIII")
_NAMES: Final = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
_BUFFER: Final = 65536
_MAX_QUEUED: Final = 8 << 20
"""Bytes; more than the host queues."""
_MAX_HEARD: Final = 1024
"""Events of one look of which each is heard; of more, nothing is trusted. Others who have the same
tree may make them as fast as they like."""


class Watched(Protocol):
    """What is watched: sentry.fs.gofer.known."""

    trust: Trust | None

    @property
    def sb(self) -> object: ...
    def changed(self) -> None: ...
    def names_heard(self) -> None: ...


class Trust:
    """What is certain of one that is watched, mostly a directory, as long as no event says
    otherwise."""

    __slots__ = (
        "changes", "changing", "directory", "expected", "names", "number", "sure", "used",
    )  # fmt: skip

    def __init__(self, changes: HostChanges, directory: Watched, number: int) -> None:
        self.changes = changes
        self.expected: dict[tuple[int, bytes], int] = {}
        """Events of own changes, and how many of them are to come."""
        self.changing: dict[bytes, int] = {}
        """Names of own changes under way: an event may be that, or somebody else's."""
        self.directory = directory
        self.number = number
        """That of the watch."""
        self.names: set[bytes] = set()
        """The directory's `names` that are right."""
        self.sure = False
        """Owner and mode are right."""
        self.used = True

    def distrust(self) -> None:
        """All may be different now."""
        self.sure = False
        self.expected.clear()
        self._doubt_names()

    def _doubt_names(self) -> None:
        """Of all of them: names may be equal that are not the same."""
        self.names.clear()
        self.directory.names_heard()
        self.changes.epoch += 1

    def heard(self, mask: int, name: bytes) -> None:
        """An event of this directory."""
        if not mask & _NAMES:
            if not name:
                self.sure = False
                self.directory.changed()
                self.changes.epoch += 1
            return
        key = (mask, name)
        left = self.expected.get(key, 0)
        if left:
            self.expected[key] = left - 1
            return
        self._doubt_names()


class OwnChange:
    """A name that the Sentry makes or removes; if that works, what it knows of it is right.

    The event is in the queue by then, and is taken with the next look. Moves are not announced: two
    that follow each other can come as one event.
    """

    __slots__ = ("_epoch", "_key", "_trust")

    def __init__(self, trust: Trust | None, event: int, name: bytes) -> None:
        self._trust = trust
        if trust is not None:
            key = self._key = (event, name)
            self._epoch = trust.changes.epoch
            trust.expected[key] = trust.expected.get(key, 0) + 1
            trust.changing[name] = trust.changing.get(name, 0) + 1
            trust.names.discard(name)

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if error is not None:
            self.failed()
        else:
            self.done()

    def failed(self) -> None:
        """Nobody knows what happened."""
        if self._trust is not None:
            self._over(self._trust)
            self._trust.distrust()

    def done(self) -> None:
        """It was made, and the directory's `names` say so."""
        trust = self._trust
        if trust is None:
            return
        self._over(trust)
        changes = trust.changes
        changes.settled.append((trust, self._key))
        if changes.epoch == self._epoch:
            trust.names.add(self._key[1])

    def _over(self, trust: Trust) -> None:
        name = self._key[1]
        left = trust.changing.pop(name) - 1
        if left:
            trust.changing[name] = left


class HostChanges:
    """The queue of events of one session, and what is watched."""

    def __init__(self, session: Session, fd: int, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self.epoch = 0
        self.limit = MAX_WATCHES
        self.settled: list[tuple[Trust, tuple[int, bytes]]] = []
        """Own changes that have been made, whose events are in the queue."""
        self._session = session
        self._fd = fd
        self.now_ns = now_ns
        self._trusts: dict[Trust, None] = {}
        self._numbers: dict[int, list[Trust]] = {}
        self._not_before_ns = 0
        session.on_move.append(self._be_deaf)

    @classmethod
    def of(cls, session: Session) -> HostChanges | None:
        """Ask for the queue; None if there is none to be had."""
        asked = session.send(Tnotifyx())
        try:
            session.wait_now(asked)
        except Errno:
            return None
        fd = asked.take_fd()
        if not fcntl(fd, F_GETFL) & O_NONBLOCK:  # no queue: a look at it could wait
            os.close(fd)
            return None
        return cls(session, fd)

    def __len__(self) -> int:
        return len(self._trusts)

    def forget_all(self, fs: object) -> None:
        """A file system was unmounted."""
        for trust in list(self._trusts):
            if trust.directory.sb is fs:
                self.forget(trust)

    def _be_deaf(self) -> None:
        """In a forked sandbox: the queue is its parent's, and the host has few. So nothing is
        trusted from now on, and nothing watched; a watch whose making had been answered is in
        doubt at each look."""
        for trust in self._trusts:
            trust.distrust()
            trust.directory.trust = None
        self._trusts.clear()
        self._numbers.clear()
        self.settled.clear()
        self._not_before_ns = NEVER_NS
        self.epoch += 1
        self.close()

    def close(self) -> None:
        """Nobody looks any more."""
        fd, self._fd = self._fd, -1  # the number may be somebody's soon
        if fd >= 0:
            os.close(fd)

    # --- events

    def look(self) -> None:
        """Take what has happened. Whatever is trusted after this was right when it was called."""
        if self._fd < 0:
            self.settled.clear()
            self._heard(-1, IN_Q_OVERFLOW, b"")
            return
        queued = pending(self._fd)
        if queued:
            self._take(queued)
        if self.settled:
            for trust, key in self.settled:
                trust.expected.pop(key, None)
            self.settled.clear()

    def _take(self, queued: int) -> None:
        """So many bytes of events; what comes meanwhile has happened after the look.

        Raises: EIO where this is no queue, and the session is over.
        """
        left = min(queued, _MAX_QUEUED)
        heard = 0
        try:
            while left > 0:
                data = os.read(self._fd, _BUFFER)
                if not data:
                    raise EOFError
                left -= len(data)
                heard = self._hear(data, heard)
        except BlockingIOError:
            return
        except (OSError, EOFError, struct.error):
            self._session.close()
            raise EIO("the Gofer gave no queue of events") from None
        if queued > _MAX_QUEUED:
            self._heard(-1, IN_Q_OVERFLOW, b"")

    def _hear(self, data: bytes, heard: int) -> int:
        """How many were `heard` then."""
        at = 0
        while at < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            if heard < _MAX_HEARD:
                self._heard(number, mask, data[at : at + length].rstrip(b"\0"))
            elif heard == _MAX_HEARD:
                self._heard(-1, IN_Q_OVERFLOW, b"")
            if heard >= _MAX_HEARD and mask & IN_IGNORED:
                self._heard(number, IN_IGNORED, b"")
            at += length
            heard += 1
        return heard

    def _heard(self, number: int, mask: int, name: bytes) -> None:
        if mask & IN_Q_OVERFLOW:
            for trust in self._trusts:
                trust.distrust()
            self.epoch += 1
            return
        trusts = self._numbers.get(number)
        if trusts is None:  # a watch whose making is under way, or that is just being removed
            self.epoch += 1
        elif mask & IN_IGNORED:
            for trust in list(trusts):
                self.forget(trust)
        else:
            for trust in trusts:
                trust.heard(mask, name)

    # --- watches

    @property
    def has_spare(self) -> bool:
        """Whether one may be asked for for which nobody loses one."""
        return len(self._trusts) < self.limit and self.now_ns() >= self._not_before_ns

    def room(self) -> bool:
        """Whether a watch may be asked for; somebody may lose one for it."""
        if self.now_ns() < self._not_before_ns:
            return False
        while len(self._trusts) >= self.limit:
            oldest = next(iter(self._trusts))
            if oldest.used:
                oldest.used = False
                del self._trusts[oldest]
                self._trusts[oldest] = None
            else:
                self.forget(oldest)
        return True

    def exhausted(self) -> None:
        """The host has no watches left, or gives none."""
        self._not_before_ns = self.now_ns() + RESPITE_NS

    def watched(self, directory: Watched, number: int) -> Trust:
        """The Gofer watches `directory` now."""
        trust = Trust(self, directory, number)
        self._trusts[trust] = None
        self._numbers.setdefault(number, []).append(trust)
        return trust

    def unwanted(self, number: int) -> None:
        """What was watched is not what was meant. Others may have it, too."""
        if number not in self._numbers and not self._session.dead:
            self._session.send(Tunwatchx(number)).abandon()

    def forget(self, trust: Trust) -> None:
        """Watch it no more."""
        if self._trusts.pop(trust, 0) is not None:
            return
        trust.distrust()
        trust.directory.trust = None
        left = self._numbers[trust.number]
        left.remove(trust)
        if not left:
            del self._numbers[trust.number]
            self.unwanted(trust.number)


def made(mode: int) -> int:
    """The event of a new name."""
    return IN_CREATE | (IN_ISDIR if mode & 0o170000 == 0o040000 else 0)


def removed(mode: int) -> int:
    """The event of a name that goes."""
    return IN_DELETE | (IN_ISDIR if mode & 0o170000 == 0o040000 else 0)
