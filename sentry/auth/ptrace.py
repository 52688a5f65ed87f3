"""May one task look into another: ptrace(2), "Ptrace access mode checking"."""

from __future__ import annotations

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.auth.credentials import Credentials


def may_access(mine: Credentials, theirs: Credentials, dumpable: int, *, real: bool) -> bool:
    """PTRACE_MODE_READ and _ATTACH between processes: __ptrace_may_access().

    `dumpable` is the target's; `real` judges by the caller's real ids, else by the file-system ids.
    """
    if mine.has(CAP_SYS_PTRACE):
        return True
    uid, gid = (mine.uid, mine.gid) if real else (mine.fsuid, mine.fsgid)
    if {theirs.uid, theirs.euid, theirs.suid} != {uid}:
        return False
    if {theirs.gid, theirs.egid, theirs.sgid} != {gid} or dumpable != 1:
        return False
    return not theirs.permitted & ~(mine.permitted if real else mine.effective)
