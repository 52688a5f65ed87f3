"""/proc/PID/status, stat, statm: fs/proc/array.c."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from sentry.abi.resource import RLIMIT_RSS, RLIMIT_SIGPENDING
from sentry.fs.proc.owner import opener_may_read
from sentry.fs.proc.registry import View, pid_file
from sentry.fs.proc.state import NAMES, TICK_NS, cpu_ns, escaped, offset_of, state
from sentry.fs.pseudo.cpu import set_list, set_mask
from sentry.fs.pseudo.files import Pieces
from sentry.mm import report
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.clock import ProgramClock

INFINITY = (1 << 64) - 1
GROUPS_AT_ONCE = 1024
SIG_DFL, SIG_IGN = 0, 1


def tracer_pid(pids: Any, task: Any) -> int:
    """The tracer's id, 0 if there is none."""
    tracer = task.trace.tracer if task.trace is not None else None
    return int(pids.of(tracer.tid)) if tracer is not None else 0


def signal_sets(group: Any) -> tuple[int, int]:
    """(ignored, caught) as masks."""
    ignored = caught = 0
    for signo in range(1, 65):
        handler = group.actions[signo].handler
        if handler == SIG_IGN:
            ignored |= 1 << (signo - 1)
        elif handler != SIG_DFL:
            caught |= 1 << (signo - 1)
    return ignored, caught


def parent_pid(pids: Any, group: Any) -> int:
    """0 for init, and for a parent outside."""
    return int(pids.of(group.parent.tgid)) if group.parent is not None else 0


def allowed_cpus(view: View) -> int:
    """How many CPUs there are."""
    return view.kernel.cpus


def sizes_of(mm: Any) -> Generator[bytes, None, tuple[int, int, int, int, int]]:
    """`report.statm` of an address space that stays meanwhile."""
    mm.share()
    rest = mm.releasing()
    try:
        sizes = yield from report.statm(mm.map)
        for _ in rest:
            yield b""
        return sizes
    finally:
        at_once(rest)  # where nobody reads on: then nothing may be yielded


@pid_file("status")
def status(view: View) -> Pieces:
    """proc_pid_status()."""
    subject = view.subject
    task, group = subject.task, subject.group
    creds, letter, pids = task.creds, state(task), subject.pids
    mine, session = view.caller.creds, group.session.sid
    users = (creds.uid, creds.euid, creds.suid, creds.fsuid)
    groups = (creds.gid, creds.egid, creds.sgid, creds.fsgid)

    def levels(number: int) -> str:
        return "\t".join(map(str, pids.numbers(number)))

    rows: list[tuple[str, str]] = [("Name", escaped(task.comm))]
    if not task.dead:
        rows.append(("Umask", f"{task.fs.umask:04o}"))
    rows += [
        ("State", f"{letter} ({NAMES[letter]})"),
        ("Tgid", str(pids.of(group.tgid))), ("Ngid", "0"), ("Pid", str(subject.id)),
        ("PPid", str(parent_pid(pids, group))), ("TracerPid", str(tracer_pid(pids, task))),
        ("Uid", "\t".join(str(mine.shown_uid(n)) for n in users)),
        ("Gid", "\t".join(str(mine.shown_gid(n)) for n in groups)),
        ("FDSize", "0" if task.dead else str(max(64, fd_size(task)))),
        ("Groups", (yield from supplementary(mine, creds.groups))),
        ("NStgid", levels(group.tgid)), ("NSpid", levels(task.tid)),
        ("NSpgid", levels(group.process_group.pgid)), ("NSsid", levels(session)),
        ("Kthread", "0"),
    ]  # fmt: skip
    mm = subject.mm
    if mm is not None:
        rows += memory_rows(mm, (yield from sizes_of(mm)))
        rows += [("CoreDumping", "0"), ("THP_enabled", "1"), ("untag_mask", "0x" + "f" * 16)]
    rows += signal_rows(task, group)
    seccomp, sched = task.seccomp, task.sched
    cpus = sched.affinity if sched is not None else None
    if cpus is None:
        cpus = (1 << allowed_cpus(view)) - 1
    rows += [
        ("CapInh", f"{creds.inheritable:016x}"), ("CapPrm", f"{creds.permitted:016x}"),
        ("CapEff", f"{creds.effective:016x}"), ("CapBnd", f"{creds.bounding:016x}"),
        ("CapAmb", f"{creds.ambient:016x}"), ("NoNewPrivs", str(int(task.no_new_privs))),
        ("Seccomp", str(seccomp.mode if seccomp is not None else 0)),
        ("Seccomp_filters", str(0 if seccomp is None else seccomp.depth)),
        ("Speculation_Store_Bypass", "not vulnerable"),
        ("SpeculationIndirectBranch", "not affected"),
        ("Cpus_allowed", set_mask(cpus)), ("Cpus_allowed_list", set_list(cpus)),
        ("Mems_allowed", "1"), ("Mems_allowed_list", "0"),
        ("voluntary_ctxt_switches", "0"), ("nonvoluntary_ctxt_switches", "0"),
    ]  # fmt: skip
    yield "".join(f"{name}:\t{value}\n" for name, value in rows)


def supplementary(reader: Any, groups: Sequence[int]) -> Generator[bytes, None, str]:
    """Each with a blank behind it; there may be 65,536."""
    found = []
    for first in range(0, len(groups), GROUPS_AT_ONCE):
        some = groups[first : first + GROUPS_AT_ONCE]
        found.append(" ".join(map(str, map(reader.shown_gid, some))))
        yield b""
    return " ".join(found) + " "


def fd_size(task: Any) -> int:
    """Room of the descriptor table: a power of two."""
    return int(1 << max(6, task.files.highest().bit_length()))


def memory_rows(mm: Any, sizes: tuple[int, int, int, int, int]) -> list[tuple[str, str]]:
    """task_mem(), fs/proc/task_mmu.c, in kB."""
    size, resident, shared, text, _ = sizes
    amap, layout = mm.map, mm.map.layout
    code = (layout.end_code + 4095 & ~4095) - (layout.start_code & ~4095) >> 12
    lib = max(amap.exec_pages - code, 0)
    pages = [
        ("VmPeak", max(amap.peak_total_pages, size)), ("VmSize", size),
        ("VmLck", amap.locked_pages), ("VmPin", 0),
        ("VmHWM", mm.resident.most(resident)), ("VmRSS", resident),
        ("RssAnon", resident - shared), ("RssFile", shared), ("RssShmem", 0),
        ("VmData", amap.data_pages), ("VmStk", amap.stack_pages), ("VmExe", text), ("VmLib", lib),
        ("VmPTE", mm.space.tables), ("VmSwap", 0),
    ]  # fmt: skip
    rows = [(name, f"{count * 4:8} kB") for name, count in pages]
    return [*rows, ("HugetlbPages", f"{0:8} kB")]


def signal_rows(task: Any, group: Any) -> list[tuple[str, str]]:
    """task_sig()."""
    ignored, caught = signal_sets(group)
    limit = group.limits.soft(RLIMIT_SIGPENDING)
    queued = task.kernel.services.signal_quota.of(task.creds.uid)
    sets = [
        ("SigPnd", task.pending.mask), ("ShdPnd", group.shared_pending.mask),
        ("SigBlk", task.blocked), ("SigIgn", ignored), ("SigCgt", caught),
    ]  # fmt: skip
    return [
        ("Threads", str(len(group.all_tasks()))), ("SigQ", f"{queued}/{min(limit, (1 << 63) - 1)}"),
        *((name, f"{mask:016x}") for name, mask in sets),
    ]  # fmt: skip


def start_ticks(programs: ProgramClock, start_ns: int) -> int:
    """CLOCK_MONOTONIC of a start, as ticks of CLOCK_BOOTTIME."""
    shift = programs.distance_ns(time.CLOCK_BOOTTIME)
    # the two clocks are read one after the other: their difference is a whole number of ticks only
    # when the machine slept, so round it away
    return (start_ns + shift // TICK_NS * TICK_NS) // TICK_NS


@pid_file("stat")
def stat(view: View) -> Pieces:
    """do_task_stat(): 52 fields."""
    subject = view.subject
    resident = 0
    if subject.mm is not None:
        _, resident, *_ = yield from sizes_of(subject.mm)
    task, group = subject.task, subject.group
    whole = not subject.is_thread
    user, system = group.cpu_ns() if whole else cpu_ns(task)
    reaped = group.reaped_usage
    pids = subject.pids
    of = pids.of
    session = group.session
    terminal = group.terminal
    foreground = session.foreground if terminal is not None else None
    ignored, caught = signal_sets(group)
    mm = subject.mm
    size, layout = 0, None
    permitted = opener_may_read(view)
    if mm is not None:
        size = mm.map.total_pages * 4096
        layout = mm.map.layout if permitted else None
    mask = 0x7FFFFFFF
    threads = len(group.all_tasks())
    asleep = state(task) != "R" and not (whole and threads > 1) and permitted
    sched = task.sched
    policy, real_time, nice = (sched.policy, sched.priority, sched.nice) if sched else (0, 0, 0)
    fields: list[object] = [
        state(task), parent_pid(pids, group), of(group.process_group.pgid), of(session.sid),
        terminal.rdev if terminal is not None else 0,
        of(foreground.pgid) if foreground is not None else -1,
        0x400100 if group.has_execed else 0x400140,
        0, 0, 0, 0,
        user // TICK_NS, system // TICK_NS, reaped.user_ns // TICK_NS, reaped.sys_ns // TICK_NS,
        -1 - real_time if real_time else 20 + nice, nice, threads, 0,
        start_ticks(view.kernel.clock, group.start_ns if whole else task.start_ns)
        + offset_of(view.caller) // TICK_NS,
        size, resident, group.limits.soft(RLIMIT_RSS),
        layout.start_code if layout else int(mm is not None),
        layout.end_code if layout else int(mm is not None),
        layout.start_stack if layout else 0, 0, 0,
        task.pending.mask & mask, task.blocked & mask, ignored & mask, caught & mask,
        int(asleep), 0, 0,
        group.exit_signal if task is group.leader else -1, 0, real_time, policy, 0, 0, 0,
        layout.start_data if layout else 0, layout.end_data if layout else 0,
        layout.start_brk if layout else 0,
        layout.arg_start if layout else 0, layout.arg_end if layout else 0,
        layout.env_start if layout else 0, layout.env_end if layout else 0,
        group.exit_status if task.dead and permitted else 0,
    ]  # fmt: skip
    head = b"%d (%s) " % (subject.id, task.comm)
    yield head + " ".join(map(str, fields)).encode() + b"\n"


@pid_file("statm")
def statm(view: View) -> Pieces:
    """Seven sizes in pages; the fifth and the last are always 0."""
    mm = view.subject.mm
    sizes = (0, 0, 0, 0, 0) if mm is None else (yield from sizes_of(mm))
    size, resident, shared, text, data = sizes
    yield f"{size} {resident} {shared} {text} 0 {data} 0\n"
