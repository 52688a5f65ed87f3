"""May one task look into another: ptrace(2), "Ptrace access mode checking", and Yama.

Yama (Documentation/admin-guide/LSM/Yama.rst) restricts attaching further: with scope 1 to
descendants, and to whom the target named by prctl(PR_SET_PTRACER); with 2 to CAP_SYS_PTRACE; with 3
to nobody.
"""

from __future__ import annotations

from typing import Any, Final

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.auth.credentials import Credentials

YAMA_SCOPE: Final = "kernel/yama/ptrace_scope"
YAMA_DISABLED, YAMA_RELATIONAL, YAMA_CAPABILITY, YAMA_NO_ATTACH = range(4)
DEFAULT_SCOPE: Final = YAMA_RELATIONAL
ANY: Final = None
"""PR_SET_PTRACER_ANY as an allowed tracer."""


def may_access(mine: Credentials, target: Any, *, real: bool) -> bool:
    """PTRACE_MODE_READ and _ATTACH between processes: __ptrace_may_access().

    `real` judges by the caller's real ids, else by the file-system ids. A process that is not
    dumpable is open only to who is capable where its program was started.
    """
    theirs: Credentials = target.creds
    if mine.has_in(theirs.user_ns, CAP_SYS_PTRACE):
        return may_see_memory(mine, target)
    uid, gid = (mine.uid, mine.gid) if real else (mine.fsuid, mine.fsgid)
    if {theirs.uid, theirs.euid, theirs.suid} != {uid}:
        return False
    if {theirs.gid, theirs.egid, theirs.sgid} != {gid} or target.group.dumpable != 1:
        return False
    return mine.user_ns is theirs.user_ns and not (
        theirs.permitted & ~(mine.permitted if real else mine.effective)
    )


def may_see_memory(mine: Credentials, target: Any) -> bool:
    """The process is dumpable, or one is capable where its program was started."""
    return bool(
        target.group.dumpable == 1 or mine.has_in(target.group.exec_user_ns, CAP_SYS_PTRACE)
    )


def may_attach(task: Any, target: Any, *, real: bool) -> bool:
    """PTRACE_MODE_ATTACH of a task to a task: the modes above, then yama_ptrace_access_check()."""
    if task.group is target.group:
        return True
    if not may_access(task.creds, target, real=real):
        return False
    scope = yama_scope(task.kernel)
    if scope == YAMA_DISABLED:
        return True
    if scope == YAMA_RELATIONAL and (descends(task.group, target.group) or allowed(task, target)):
        return True
    return scope != YAMA_NO_ATTACH and task.creds.has_in(target.creds.user_ns, CAP_SYS_PTRACE)


def yama_scope(kernel: Any) -> int:
    """/proc/sys/kernel/yama/ptrace_scope."""
    return int(kernel.services.sysctls.get(YAMA_SCOPE, DEFAULT_SCOPE))


def descends(ancestor: Any, group: Any) -> bool:
    """task_is_descendant(): the process, or one that it comes from."""
    while group is not None:
        if group is ancestor:
            return True
        group = group.parent
    return False


def allowed(task: Any, target: Any) -> bool:
    """ptracer_exception_found(): the caller traces it, or the target named it or an ancestor.

    What was said ends with the thread that it was about, and with the leader that stood for the
    process: an execve(2) of another thread takes it back.
    """
    if target.trace is not None and target.trace.tracer.group is task.group:
        return True
    leader, tracer = target.group.allowed_tracer
    if leader is None or leader is not target.group.leader:
        return False
    return tracer is ANY or (not tracer.dead and descends(tracer.group, task.group))
