"""Mode, owner and times by records of the journal: see `behind`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gofer.p9 import constants as c
from gofer.p9.constants import NOID
from sentry.fs.gofer import layers
from sentry.fs.gofer.wire import given
from sentry.platform.records import ATTRIBUTES
from sentry.vfs.interface import Attributes

if TYPE_CHECKING:
    from sentry.fs.gofer.journal import Journal
    from sentry.vfs.interface import Changes


class Inode(layers.Inode, Protocol):
    """What is changed (sentry.fs.gofer.inode)."""

    key: tuple[int, int]
    kind: int
    attributes: Attributes

    @property
    def is_regular(self) -> bool: ...
    @property
    def is_unread(self) -> bool: ...
    def waits(self) -> bool: ...
    def known_attributes(self) -> Attributes | None: ...
    def reach(self) -> tuple[int, bytes]: ...
    def drop_file_caps(self) -> None: ...
    def changed(self) -> None: ...
    def take(self, attributes: Attributes) -> None: ...
    def recorded(self, journal: Journal) -> None: ...
    def times_recorded(self, journal: Journal) -> None: ...


_TIMES_MAX: Final = (1 << 31) * 1_000_000_000
_CTIME: Final = Attributes._fields.index("ctime_ns")


def setattr_behind(inode: Inode, changes: Changes) -> bool:
    """Whether it is recorded, or need not be: a new file is as it is wanted already.

    Not with set-id bits, which the host may drop, and which a write before the record is done would
    not; nor times where somebody may store into a mapping: what is written later has the later
    time, so it waits for the record."""
    fs = inode.sb
    journal = fs.journal
    if journal is None or changes.size is not None or inode.key[0] != journal.dev:
        return False
    mode, uid, gid = changes.mode, changes.uid, changes.gid
    atime_ns, mtime_ns = changes.atime_ns, changes.mtime_ns
    timed = atime_ns is not None or mtime_ns is not None
    if timed and not (_held(atime_ns) and _held(mtime_ns) and inode.waits()):
        return False
    is_new = journal.is_new(inode)
    # Of a new file only the size may be another, the mtime, and the atime of what can be read.
    certain = not timed or (mtime_ns is not None and (atime_ns is not None or inode.is_unread))
    certain = certain and is_new and inode.is_regular
    known = inode.attributes if certain else inode.known_attributes()
    if known is None:
        return False
    _, was_mode, _, was_uid, was_gid, _, _, _, _, was_atime_ns, was_mtime_ns, _, _, _ = known
    if (was_mode | (mode or 0)) & 0o6000:
        return False
    valid, owner = 0, (NOID if uid is None else uid, NOID if gid is None else gid)
    if mode is None:
        mode = was_mode
    else:
        valid, mode = c.SETATTR_MODE, inode.kind | mode
    if uid is None:
        uid = was_uid
    else:
        valid |= c.SETATTR_UID
    if gid is None:
        gid = was_gid
    else:
        valid |= c.SETATTR_GID
    if not (journal.accepts(was_uid, was_gid) and journal.accepts(uid, gid)):
        return False
    if atime_ns is None:
        atime_ns = was_atime_ns
    else:
        valid |= c.SETATTR_ATIME | c.SETATTR_ATIME_SET
    if mtime_ns is None:
        mtime_ns = was_mtime_ns
    else:
        valid |= c.SETATTR_MTIME | c.SETATTR_MTIME_SET
    told = given(known, (mode, uid, gid), (atime_ns, mtime_ns, fs.now_ns()))
    if is_new and told[:_CTIME] == known[:_CTIME]:
        inode.take(told)
        return True
    fid, name = inode.reach()
    asked = fid, name, len(name), valid, mode & 0o7777, *owner, atime_ns, mtime_ns
    if not valid or not journal.open or not journal.put(ATTRIBUTES, asked, 0, layers.copied(inode)):
        return False
    journal.about(inode)
    inode.drop_file_caps()
    inode.changed()
    inode.take(told)
    inode.recorded(journal)
    if timed:
        inode.times_recorded(journal)
    return True


def _held(time_ns: int | None) -> bool:
    """Every file system holds it."""
    return time_ns is None or 0 <= time_ns < _TIMES_MAX
