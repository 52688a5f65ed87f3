"""The small files of /proc/PID."""

from __future__ import annotations

from typing import Any, Final

from sentry.abi import resource
from sentry.abi.capability import CAP_AUDIT_CONTROL, CAP_SYS_NICE, CAP_SYS_RESOURCE
from sentry.abi.resource import (
    RLIMIT_AS,
    RLIMIT_CORE,
    RLIMIT_CPU,
    RLIMIT_DATA,
    RLIMIT_FSIZE,
    RLIMIT_LOCKS,
    RLIMIT_MEMLOCK,
    RLIMIT_MSGQUEUE,
    RLIMIT_NICE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    RLIMIT_RSS,
    RLIMIT_RTPRIO,
    RLIMIT_RTTIME,
    RLIMIT_SIGPENDING,
    RLIMIT_STACK,
)
from sentry.auth.credentials import Login
from sentry.auth.userns import NO_ID
from sentry.errors import EACCES, EINVAL, EPERM, ESRCH
from sentry.fs.proc.process_status import sizes_of
from sentry.fs.proc.registry import View, number, pid_file, unsigned
from sentry.fs.proc.state import cpu_ns
from sentry.fs.pseudo.files import Pieces
from sentry.fs.pseudo.memory import memory_of
from sentry.platform.interface import Reg

INFINITY: Final = (1 << 64) - 1
CLEAR_REFS_ALL: Final = 1
CLEAR_REFS_PEAK: Final = 5
OWN_CPU_CLOCK: Final = -6
OWN_THREAD_CLOCK: Final = -2
FEW: Final = 64
"""Threads that are looked at between two looks at the time."""
"""The CPU clocks of number 0, as the C library makes timers on them."""
LIMITS: Final = (
    (RLIMIT_CPU, "Max cpu time", "seconds"), (RLIMIT_FSIZE, "Max file size", "bytes"),
    (RLIMIT_DATA, "Max data size", "bytes"), (RLIMIT_STACK, "Max stack size", "bytes"),
    (RLIMIT_CORE, "Max core file size", "bytes"), (RLIMIT_RSS, "Max resident set", "bytes"),
    (RLIMIT_NPROC, "Max processes", "processes"), (RLIMIT_NOFILE, "Max open files", "files"),
    (RLIMIT_MEMLOCK, "Max locked memory", "bytes"), (RLIMIT_AS, "Max address space", "bytes"),
    (RLIMIT_LOCKS, "Max file locks", "locks"),
    (RLIMIT_SIGPENDING, "Max pending signals", "signals"),
    (RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"), (RLIMIT_NICE, "Max nice priority", ""),
    (RLIMIT_RTPRIO, "Max realtime priority", ""), (RLIMIT_RTTIME, "Max realtime timeout", "us"),
)  # fmt: skip
assert len(LIMITS) == resource.RLIM_NLIMITS


@pid_file("limits")
def limits(view: View) -> str:
    """proc_pid_limits()."""

    def shown(value: int) -> str:
        return "unlimited" if value == INFINITY else str(value)

    lines = [f"{'Limit':25} {'Soft Limit':20} {'Hard Limit':20} {'Units':10}\n"]
    table = view.subject.group.limits
    for kind, name, unit in LIMITS:
        soft, hard = shown(table.soft(kind)), shown(table.hard(kind))
        lines.append(f"{name:25} {soft:20} {hard:20} {unit:10}\n" if unit else
                     f"{name:25} {soft:20} {hard:20} \n")
    return "".join(lines)


def set_comm(view: View, data: bytes) -> None:
    """Only a thread of the same process may."""
    if view.writer.group is not view.subject.group:
        raise EINVAL("another process")
    view.subject.task.comm = data[:15].split(b"\0", 1)[0]


@pid_file("comm", 0o644, store=set_comm)
def comm(view: View) -> bytes:
    """The name of the thread, as it is."""
    comm: bytes = view.subject.task.comm
    return comm + b"\n"


@pid_file("io", 0o400, private=True)
def io(view: View) -> Pieces:
    """do_io_accounting(): of a process, with its threads and the children it waited for."""
    group = view.subject.group
    parts = [group.used, group.reaped_usage, *group.tasks]
    if view.subject.is_thread:
        parts = [view.subject.task]
    names = ("rchar", "wchar", "syscr", "syscw")
    sums = [0] * len(names)
    for looked, part in enumerate(parts, 1):
        sums = [so_far + getattr(part, name) for so_far, name in zip(sums, names, strict=True)]
        if looked % FEW == 0:
            yield ""
    yield "".join(f"{name}: {total}\n" for name, total in zip(names, sums, strict=True))
    yield "read_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"


@pid_file("cgroup")
def cgroup(view: View) -> str:
    """Its place in the tree, from the root of the reader's namespace."""
    place = view.subject.group.cgroup.path_from(view.caller.ns.cgroup.root)
    return f"0::{place}\n"


@pid_file("cpuset")
def cpuset(view: View) -> str:
    """The only one."""
    return "/\n"


@pid_file("oom_score")
def oom_score(view: View) -> Pieces:
    """proc_oom_score(): 0 to 1332, 666 for a small process. oom_badness() is in pages."""
    group = view.subject.group
    task = next((t for t in group.tasks if not t.dead), None)
    if task is None or group.oom_score_adj == -1000:
        yield "0\n"
        return
    _, resident, *_ = yield from sizes_of(task.mm)
    badness = resident * 1000 // max(1, memory_of(view.kernel).total // 4096)
    yield f"{max(0, (1000 + badness + group.oom_score_adj) * 2 // 3)}\n"


def within(data: bytes, low: int, high: int) -> int:
    """A written C int in a range. Raises: EINVAL, ERANGE."""
    value = number(data, -(1 << 31), (1 << 31) - 1)
    if not low <= value <= high:
        raise EINVAL(f"{value}")
    return value


def set_oom_score_adj(view: View, data: bytes) -> None:
    """__set_oom_adj(): who has CAP_SYS_RESOURCE says how low others may make it."""
    value, group = within(data, -1000, 1000), view.subject.group
    change_oom(view, value, group.oom_score_adj_min)
    if view.writer.creds.has(CAP_SYS_RESOURCE):
        group.oom_score_adj_min = value


def change_oom(view: View, value: int, least: int) -> None:
    """Less than `least` needs CAP_SYS_RESOURCE. Raises: EACCES."""
    if value < least and not view.writer.creds.has(CAP_SYS_RESOURCE):
        raise EACCES(f"{value}")
    view.subject.group.oom_score_adj = value


@pid_file("oom_score_adj", 0o644, store=set_oom_score_adj)
def oom_score_adj(view: View) -> str:
    """-1000 to 1000."""
    return f"{view.subject.group.oom_score_adj}\n"


def set_oom_adj(view: View, data: bytes) -> None:
    """The old scale of -17 to 15."""
    value = within(data, -17, 15)
    score = 1000 if value == 15 else int(value * 1000 / 17)
    change_oom(view, score, view.subject.group.oom_score_adj)


@pid_file("oom_adj", 0o644, store=set_oom_adj)
def oom_adj(view: View) -> str:
    """The old scale."""
    value = view.subject.group.oom_score_adj
    return f"{15 if value == 1000 else int(value * 17 / 1000)}\n"


@pid_file("personality", 0o400, private=True)
def personality(view: View) -> str:
    """Hexadecimal."""
    return f"{view.subject.group.personality:08x}\n"


def set_login_uid(view: View, data: bytes) -> None:
    """proc_loginuid_write(), audit_set_loginuid(): a thread's own; to change it is a privilege."""
    task = view.subject.task
    if view.writer is not task:
        raise EPERM("another thread")
    uid = view.creds.kuid(unsigned(data))
    if task.login is not None and not task.creds.has(CAP_AUDIT_CONTROL):
        raise EPERM("CAP_AUDIT_CONTROL")
    task.login = None if uid == NO_ID else Login(uid, next(view.kernel.services.logins))


@pid_file("loginuid", 0o644, store=set_login_uid, from_start=True)
def loginuid(view: View) -> str:
    """Who logged in, as the reader's user namespace numbers him; -1 without a login."""
    login, ns = view.subject.task.login, view.creds.user_ns
    if login is None:
        return f"{NO_ID}"
    return f"{login.uid if ns is None else ns.uid_map.from_kernel(login.uid)}"


@pid_file("sessionid")
def sessionid(view: View) -> str:
    """Of that login; -1 without one."""
    login = view.subject.task.login
    return f"{NO_ID if login is None else login.session}"


@pid_file("wchan")
def wchan(view: View) -> str:
    """Where it sleeps is not shown."""
    return "0"


@pid_file("stack", 0o400, private=True)
def stack(view: View) -> str:
    """There is no kernel stack."""
    return ""


@pid_file("syscall", 0o400, private=True)
def syscall(view: View) -> str:
    """Number, arguments, stack pointer, program counter of a task that sleeps, or of the reader."""
    task = view.subject.task
    here = task is view.caller or task.fiber is not None or task.stopped
    if task.dead:
        return "-1 0x0 0x0\n"
    if not here:
        return "running\n"
    regs = task.ctx.regs
    call = regs[Reg.ORIG_RAX]
    order = (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9, Reg.RSP, Reg.RIP)
    if call >= 1 << 63:
        return f"-1 {regs[Reg.RSP]:#x} {regs[Reg.RIP]:#x}\n"
    return f"{call} " + " ".join(f"{regs[r]:#x}" for r in order) + "\n"


@pid_file("children", where="thread")
def children(view: View) -> str:
    """The processes that it made: all are shown with the leader."""
    subject = view.subject
    if subject.task is not subject.group.leader:
        return ""
    return "".join(f"{view.pids.of(child.tgid)} " for child in subject.group.children)


def set_timer_slack(view: View, data: bytes) -> None:
    """In ns; 0 is the default."""
    may_change_slack(view, view.writer)
    value = number(data, 0, INFINITY)
    view.subject.task.timer_slack_ns = value or view.subject.task.default_slack_ns


def may_change_slack(view: View, who: Any) -> None:
    """Oneself, or CAP_SYS_NICE."""
    if who is not view.subject.task and not who.creds.has_in(
        view.subject.task.creds.user_ns, CAP_SYS_NICE
    ):
        raise EPERM("CAP_SYS_NICE")


@pid_file("timerslack_ns", 0o666, store=set_timer_slack)
def timerslack_ns(view: View) -> str:
    """In ns."""
    may_change_slack(view, view.caller)
    return f"{view.subject.task.timer_slack_ns}\n"


def refuse(view: View, data: bytes) -> None:
    """No security module is there."""
    raise EPERM("no security module")


def accept(view: View, data: bytes) -> None:
    """Taken, without an effect."""


def clear_references(view: View, data: bytes) -> None:
    """What was referenced is not told; 5 forgets the most memory that was used (VmHWM)."""
    mm = view.subject.mm
    if within(data, CLEAR_REFS_ALL, CLEAR_REFS_PEAK) == CLEAR_REFS_PEAK and mm is not None:
        mm.resident.forget_peak()


@pid_file("clear_refs", 0o200, store=clear_references)
def clear_refs(view: View) -> str:
    """It is only written."""
    raise EINVAL("not to be read")


def set_coredump_filter(view: View, data: bytes) -> None:
    """Which mappings are dumped; bits that mean nothing are dropped."""
    value = number(data, 0, (1 << 32) - 1) & 0x1FF
    if view.subject.mm is None:
        raise ESRCH(f"process {view.subject.id} has ended")
    view.subject.group.coredump_filter = value


@pid_file("coredump_filter", 0o644, store=set_coredump_filter)
def coredump_filter(view: View) -> str:
    """core(5)."""
    return f"{view.subject.group.coredump_filter:08x}\n" if view.subject.mm is not None else ""


@pid_file("schedstat")
def schedstat(view: View) -> str:
    """Time on a CPU, time waiting for one, slices."""
    return f"{sum(cpu_ns(view.subject.task))} 0 1\n"


@pid_file("autogroup", 0o644, store=accept, where="process")
def autogroup(view: View) -> str:
    """One group a session."""
    return f"/autogroup-{view.pids.of(view.subject.group.session.sid)} nice 0\n"


def attribute(view: View) -> str:
    """No security module is there."""
    raise EINVAL("no security module")


pid_file("attr/prev")(attribute)
for _name in ("current", "exec", "fscreate", "keycreate", "sockcreate"):
    pid_file(f"attr/{_name}", 0o666, store=refuse)(attribute)


@pid_file("timers", where="process")
def timers(view: View) -> Pieces:
    """Those of timer_create(2), the newest first: show_timer()."""
    subject, pids = view.subject, view.pids
    for timer in reversed(list(subject.group.posix_timers.values())):
        notify = timer.notify
        how = "none" if notify.how & 1 else "thread" if notify.how & 2 else "signal"
        receiver = f"pid.{subject.id}"
        if notify.task is not None:
            receiver = f"tid.{pids.of(notify.task.tid)}"
        clock = timer.clock
        if not isinstance(clock, int):
            clock = OWN_CPU_CLOCK if clock.task is None else OWN_THREAD_CLOCK
        yield (
            f"ID: {timer.number}\nsignal: {notify.signo}/{notify.value:016x}\n"
            f"notify: {how}/{receiver}\nClockID: {clock}\n"
        )

