"""Mode, owner and times by records of the journal: see `behind`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gofer.p9 import constants as c
from gofer.p9.constants import NOID
from gofer.p9.extensions import Tsetattrx
from sentry.fs.gofer import layers

if TYPE_CHECKING:
    from sentry.fs.gofer.journal import Journal
    from sentry.vfs.interface import Attributes, Changes


class Inode(layers.Inode, Protocol):
    """What is changed (sentry.fs.gofer.inode)."""

    kind: int

    def waits(self) -> bool: ...
    def known_attributes(self) -> Attributes | None: ...
    def reach(self) -> tuple[int, bytes]: ...
    def drop_file_caps(self) -> None: ...
    def changed(self) -> None: ...
    def take(self, attributes: Attributes) -> None: ...
    def recorded(self, journal: Journal) -> None: ...
    def times_recorded(self, journal: Journal) -> None: ...


_TIMES_MAX = (1 << 31) * 1_000_000_000
"""Every file system holds what is earlier, and not before 1970."""


def setattr_behind(inode: Inode, changes: Changes) -> bool:
    """Whether it is recorded, or need not be: a new file is as it is wanted already.

    Not with set-id bits, which the host may drop, and which a write before the record is done would
    not; nor times where somebody may store into a mapping: what is written later has the later
    time, so it waits for the record."""
    fs = inode.fs
    journal = fs.journal
    if journal is None or changes.size is not None or not fs.is_own_device(inode):
        return False
    times = [at for at in (changes.atime_ns, changes.mtime_ns) if at is not None]
    if times and not (min(times) >= 0 and max(times) < _TIMES_MAX and inode.waits()):
        return False
    known = inode.known_attributes()
    if known is None or (known.mode | (changes.mode or 0)) & 0o6000:
        return False
    uid = known.uid if changes.uid is None else changes.uid
    gid = known.gid if changes.gid is None else changes.gid
    if not (journal.accepts(known.uid, known.gid) and journal.accepts(uid, gid)):
        return False
    valid = 0
    mode, atime_ns, mtime_ns = known.mode, known.atime_ns, known.mtime_ns
    if changes.mode is not None:
        valid, mode = valid | c.SETATTR_MODE, inode.kind | changes.mode
    if changes.uid is not None:
        valid |= c.SETATTR_UID
    if changes.gid is not None:
        valid |= c.SETATTR_GID
    if changes.atime_ns is not None:
        valid, atime_ns = valid | c.SETATTR_ATIME | c.SETATTR_ATIME_SET, changes.atime_ns
    if changes.mtime_ns is not None:
        valid, mtime_ns = valid | c.SETATTR_MTIME | c.SETATTR_MTIME_SET, changes.mtime_ns
    fid, name = inode.reach()
    owner = NOID if changes.uid is None else uid, NOID if changes.gid is None else gid
    asked = Tsetattrx(fid, name, valid, mode & 0o7777, *owner, 0, atime_ns, mtime_ns)
    told = known._replace(
        mode=mode, uid=uid, gid=gid, atime_ns=atime_ns, mtime_ns=mtime_ns, ctime_ns=fs.now_ns()
    )
    if journal.is_new(inode) and told._replace(ctime_ns=known.ctime_ns) == known:
        inode.take(told)
        return True
    if not valid or not journal.open or not journal.record(asked, copied=layers.copied(inode)):
        return False
    journal.about(inode)
    inode.drop_file_caps()
    inode.changed()
    inode.take(told)
    inode.recorded(journal)
    if times:
        inode.times_recorded(journal)
    return True
