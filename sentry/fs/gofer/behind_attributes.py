"""Mode, owner and times by records of the journal: what a record says. See `behind`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from gofer.p9.constants import (
    NOID,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_UID,
)
from sentry.vfs.interface import Attributes

if TYPE_CHECKING:
    from sentry.fs.gofer.journal import Journal
    from sentry.vfs.interface import Changes

Asked: TypeAlias = "tuple[int, int, int, int, int, int]"
"""Of a Tsetattrx: valid, mode, uid, gid, atime and mtime in ns."""

_TIMES_MAX: Final = (1 << 31) * 1_000_000_000


def set_times_fit(changes: Changes) -> bool:
    """Every file system holds them."""
    return _fits(changes.atime_ns) and _fits(changes.mtime_ns)


def wanted(
    journal: Journal, known: Attributes, kind: int, changes: Changes, now_ns: int
) -> tuple[Attributes, Asked] | None:
    """What a file of this kind will be that is `known`, and what is asked for.

    None: only the host can tell. With set-id bits, which it may drop, and which a write before the
    record is done would not; and for an owner whom it may refuse."""
    mode, uid, gid = changes.mode, changes.uid, changes.gid
    atime_ns, mtime_ns = changes.atime_ns, changes.mtime_ns
    (
        ino, was_mode, nlink, was_uid, was_gid, rdev, size, blocks, block_size, was_atime_ns,
        was_mtime_ns, _, btime_ns, dev,
    ) = known  # fmt: skip
    if (was_mode | (mode or 0)) & 0o6000:
        return None
    valid, to, group = 0, NOID if uid is None else uid, NOID if gid is None else gid
    if mode is None:
        mode = was_mode
    else:
        valid, mode = SETATTR_MODE, kind | mode
    if uid is None:
        uid = was_uid
    else:
        valid |= SETATTR_UID
    if gid is None:
        gid = was_gid
    else:
        valid |= SETATTR_GID
    if not journal.accepts(uid, gid):
        return None
    if (uid != was_uid or gid != was_gid) and not journal.accepts(was_uid, was_gid):
        return None
    if atime_ns is None:
        atime_ns = was_atime_ns
    else:
        valid |= SETATTR_ATIME | SETATTR_ATIME_SET
    if mtime_ns is None:
        mtime_ns = was_mtime_ns
    else:
        valid |= SETATTR_MTIME | SETATTR_MTIME_SET
    told = tuple.__new__(
        Attributes,
        (
            ino, mode, nlink, uid, gid, rdev, size, blocks, block_size, atime_ns, mtime_ns, now_ns,
            btime_ns, dev,
        ),
    )  # fmt: skip
    return told, (valid, mode & 0o7777, to, group, atime_ns, mtime_ns)


def _fits(time_ns: int | None) -> bool:
    return time_ns is None or 0 <= time_ns < _TIMES_MAX
