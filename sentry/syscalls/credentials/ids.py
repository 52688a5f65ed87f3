"""User and group ids: credentials(7). The rules are in sentry.auth."""

from __future__ import annotations

import struct
from array import array
from itertools import chain
from typing import TYPE_CHECKING, Final

from sentry.abi.limits import NGROUPS_MAX
from sentry.auth.userns import kernel_id
from sentry.errors import EINVAL, EPERM
from sentry.kernel.identity import child_identity
from sentry.kernel.task import Task
from sentry.kernel.task_clone import note_user
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Int, Uid, UserIn, UserOut
from sentry.vfs.file import Result
from sentry.wait.steps import Steps, in_steps

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials

PIECE: Final = 4096
"""Groups of 65,536 that are looked at in a step."""

def commit(task: Task, new: Credentials) -> None:
    """commit_creds(): the task takes `new`; of one whose rights changed fs.suid_dumpable says."""
    old = task.creds
    if new.uid != old.uid:
        note_user(task, new.uid)
    task.creds = new
    ids = (old.euid, old.egid, old.fsuid, old.fsgid) != (new.euid, new.egid, new.fsuid, new.fsgid)
    if ids or not is_subset(new, old):
        task.group.dumpable = task.kernel.services.suid_dumpable
        task.parent_death_signal = 0
    child_identity(task)


def is_subset(new: Credentials, old: Credentials) -> bool:
    """cred_cap_issubset(): whether `new` can do nothing that `old` could not."""
    if new.user_ns is old.user_ns:
        return not new.permitted & ~old.permitted
    ns = new.user_ns
    while ns is not None:
        if ns.parent is old.user_ns and ns.owner == old.euid:
            return True
        ns = ns.parent
    return False


@syscall(102)
def sys_getuid(task: Task) -> int:
    """getuid(2): when the entry code does not answer it itself, as with the next three."""
    return task.creds.shown_uid(task.creds.uid)


@syscall(104)
def sys_getgid(task: Task) -> int:
    """getgid(2)."""
    return task.creds.shown_gid(task.creds.gid)


@syscall(107)
def sys_geteuid(task: Task) -> int:
    """geteuid(2)."""
    return task.creds.shown_uid(task.creds.euid)


@syscall(108)
def sys_getegid(task: Task) -> int:
    """getegid(2)."""
    return task.creds.shown_gid(task.creds.egid)


@syscall(105)
def sys_setuid(task: Task, uid: Uid) -> None:
    """setuid(2)."""
    creds = task.creds
    commit(task, creds.set_uid(creds.kuid(uid)))


@syscall(106)
def sys_setgid(task: Task, gid: Uid) -> None:
    """setgid(2)."""
    creds = task.creds
    commit(task, creds.set_gid(creds.kgid(gid)))


@syscall(113)
def sys_setreuid(task: Task, ruid: Uid, euid: Uid) -> None:
    """setreuid(2)."""
    creds = task.creds
    commit(task, creds.set_reuid(creds.kuid(ruid), creds.kuid(euid)))


@syscall(114)
def sys_setregid(task: Task, rgid: Uid, egid: Uid) -> None:
    """setregid(2)."""
    creds = task.creds
    commit(task, creds.set_regid(creds.kgid(rgid), creds.kgid(egid)))


@syscall(117)
def sys_setresuid(task: Task, ruid: Uid, euid: Uid, suid: Uid) -> None:
    """setresuid(2)."""
    creds = task.creds
    commit(task, creds.set_resuid(creds.kuid(ruid), creds.kuid(euid), creds.kuid(suid)))


@syscall(119)
def sys_setresgid(task: Task, rgid: Uid, egid: Uid, sgid: Uid) -> None:
    """setresgid(2)."""
    creds = task.creds
    commit(task, creds.set_resgid(creds.kgid(rgid), creds.kgid(egid), creds.kgid(sgid)))


@syscall(118)
def sys_getresuid(task: Task, ruid: UserOut, euid: UserOut, suid: UserOut) -> None:
    """getresuid(2)."""
    creds = task.creds
    for out, value in ((ruid, creds.uid), (euid, creds.euid), (suid, creds.suid)):
        out.put(struct.pack("<I", creds.shown_uid(value)))


@syscall(120)
def sys_getresgid(task: Task, rgid: UserOut, egid: UserOut, sgid: UserOut) -> None:
    """getresgid(2)."""
    creds = task.creds
    for out, value in ((rgid, creds.gid), (egid, creds.egid), (sgid, creds.sgid)):
        out.put(struct.pack("<I", creds.shown_gid(value)))


@syscall(122)
def sys_setfsuid(task: Task, uid: Uid) -> int:
    """setfsuid(2): gives the old id, whether it worked or not."""
    old = task.creds
    new = old.set_fsuid(kernel_id(old.user_ns, uid))
    if new is not old:
        commit(task, new)
    return old.shown_uid(old.fsuid)


@syscall(123)
def sys_setfsgid(task: Task, gid: Uid) -> int:
    """setfsgid(2): gives the old id, whether it worked or not."""
    old = task.creds
    new = old.set_fsgid(kernel_id(old.user_ns, gid, "gid"))
    if new is not old:
        commit(task, new)
    return old.shown_gid(old.fsgid)


@syscall(115)
def sys_getgroups(task: Task, size: Int, groups: UserOut) -> Result:
    """getgroups(2): a size of 0 asks for the number."""
    count = len(task.creds.groups)
    if size < 0 or 0 < size < count:
        raise EINVAL(f"room for {size}")
    if not size or not count:
        return count
    return in_steps(_tell_groups(task.creds, groups))


def _tell_groups(creds: Credentials, groups: UserOut) -> Steps[int]:
    for at in range(0, len(creds.groups), PIECE):
        shown = array("I", map(creds.shown_gid, creds.groups[at : at + PIECE]))
        groups.put(shown.tobytes(), 4 * at)
        yield
    return len(creds.groups)


@syscall(116)
def sys_setgroups(task: Task, size: Int, groups: UserIn) -> Result:
    """setgroups(2)."""
    creds = task.creds
    if not creds.may_set_groups:
        raise EPERM("CAP_SETGID")
    if not 0 <= size <= NGROUPS_MAX:
        raise EINVAL(f"{size} groups")
    wanted = array("I", groups.get(size * 4) if size else b"")
    return in_steps(_set_groups(task, wanted))


def _set_groups(task: Task, wanted: array[int]) -> Steps[None]:
    """Sorted piece by piece: what is sorted already is put together in linear time."""
    creds, runs = task.creds, []
    for at in range(0, len(wanted), PIECE):
        runs.append(sorted(map(creds.kgid, wanted[at : at + PIECE])))
        yield
    while len(runs) > 1:
        pairs, runs = runs, []
        for at in range(0, len(pairs), 2):
            runs.append(sorted(chain.from_iterable(pairs[at : at + 2])))
            yield
    commit(task, creds.set_groups(tuple(runs[0]) if runs else ()))
