"""What comes last of processes that are read: signals, timers, registers, filters, scheduling.

All else of the sandbox is there by then: see loading.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sentry.abi.seccomp import SECCOMP_MODE_DISABLED, SECCOMP_MODE_STRICT
from sentry.abi.signal import SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID
from sentry.clock import MAX_NS
from sentry.errors import Errno
from sentry.kernel import signal_send
from sentry.kernel.clocks import HOST_CLOCKS, CpuClock, GoneClock
from sentry.kernel.identity import child_identity
from sentry.kernel.posix_timers import Notify, PosixTimer
from sentry.kernel.ptrace.registers import REGS_SIZE, put_regs, put_xstate
from sentry.kernel.sched_attributes import Sched
from sentry.kernel.timers import timers_of, watch_cpu_limit
from sentry.kernel.work import WORK_STOP
from sentry.state import records, restarts
from sentry.state.loader import Loader, at
from sentry.state.pages import Damaged
from sentry.state.values import made_waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.kernel.sysv_undo import UndoList
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.state.numbering import Numbers
    from sentry.state.rights import Rights


class Finishing:
    """Of one snapshot, whose tasks have memory and open files."""

    def __init__(
        self,
        loader: Loader,
        numbers: Numbers,
        rights: Rights,
        undos: Sequence[UndoList],
        away_ns: int,
    ) -> None:
        """`away_ns`: since it was written; timeouts have not gone on."""
        self._kernel = loader.kernel
        self._numbers = numbers
        self._rights = rights
        self._undos = undos
        self._away_ns = away_ns
        self._filters: dict[tuple[tuple[bytes, ...], bool], Any] = {}

    def finish(self, record: records.Process) -> None:
        """Raises: Damaged."""
        kernel = self._kernel
        group = kernel.pids.groups[self._numbers.of(record.pid)]
        group.oom_score_adj = self._rights.oom_score_adj(record.oom_score_adj)
        quota = kernel.services.signal_quota
        made_waiting(record.pending, group.shared_pending, quota, group.uid)
        for thread in record.threads:
            if not thread.dead:
                self._thread(kernel.pids.tasks[self._numbers.of(thread.tid)], thread)
        watch_cpu_limit(group)
        if record.interval is not None:
            real = record.interval
            at_ns = real.at_ns
            if real.left_ns is not None:
                at_ns = min(max(kernel.clock.now_ns() + real.left_ns, 1), MAX_NS)
            timers_of(group).restore_real(at_ns, real.interval_ns, real.expired)
        for interval, name in ((record.virtual, "virtual"), (record.prof, "prof")):
            if interval is not None:
                getattr(timers_of(group), name).restore(interval.at_ns, interval.interval_ns)
        for timer in record.timers:
            self._timer(group, timer)

    def _thread(self, task: Task, record: records.Thread) -> None:
        kernel, platform = self._kernel, self._kernel.platform
        if len(record.registers) != REGS_SIZE or len(record.fpu) > platform.xsave_size:
            raise Damaged(f"thread {task.tid} has no registers")
        try:
            put_regs(task, record.registers)
            put_xstate(task, record.fpu.ljust(platform.xsave_size, b"\0"))
        except Errno as error:
            raise Damaged(f"registers of thread {task.tid}: {error}") from None
        made_waiting(record.pending, task.pending, kernel.services.signal_quota, task.creds.uid)
        try:
            if record.restart is not None:
                task.restart = restarts.made(task, record.restart, self._away_ns)
            if record.restart_block is not None:
                block = restarts.made(task, record.restart_block, self._away_ns)
                task.restart_block = getattr(block, "again", None)
        except ValueError as error:
            raise Damaged(str(error)) from None
        if record.undo is not None:
            task.sem_undo = at(self._undos, record.undo, "list of semaphores")
            task.sem_undo.users += 1
        task.rchar, task.wchar, task.syscr, task.syscw = record.counts
        schedule(task, record)
        task.observers.extend(kernel.start_observers)
        self._put_filters(task, record)
        if task.group.stopping:
            task.work |= WORK_STOP
        signal_send.recalculate(task)
        child_identity(task)

    def _put_filters(self, task: Task, record: records.Thread) -> None:
        filters, profile = record.filters, self._rights.filter
        if profile and filters[:1] != [profile]:
            filters = [profile, *filters]
        if not filters and not record.strict:
            return
        key = tuple(filters), record.strict
        state = self._filters.get(key)
        if state is None:
            from sentry.bpf.filter import CallFilter  # noqa: PLC0415  not all have one
            from sentry.kernel.seccomp import Seccomp  # noqa: PLC0415

            state = Seccomp(SECCOMP_MODE_STRICT if record.strict else SECCOMP_MODE_DISABLED)
            for code in filters:
                state = state.with_filter(CallFilter(code))
            self._filters[key] = state
        task.seccomp = state
        task.observers.append(state)

    def _timer(self, group: ThreadGroup, record: records.PosixTimer) -> None:
        kernel = self._kernel
        clock = self._clock(group, record.clock)
        if record.number in group.posix_timers or clock is None:
            raise Damaged(f"timer {record.number} of process {group.tgid}")
        if record.how not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD_ID):
            raise Damaged(f"a timer that tells by {record.how}")
        thread = kernel.pids.tasks.get(self._numbers.of(record.thread or 0))
        if record.thread is not None and (thread is None or thread.group is not group):
            raise Damaged(f"a timer of thread {record.thread}")
        uid = group.uid
        if not kernel.services.signal_quota.take(uid, 0, override=True):
            raise Damaged("more timers than a sandbox has")
        notify = Notify(record.how, record.signo, record.value, thread)
        timer = PosixTimer(group, record.number, clock, notify, uid)
        timer.interval_ns, timer.overrun = record.interval_ns, record.overrun
        group.posix_timers[record.number] = timer
        timer.restore(record.at_ns, record.left_ns, record.rests)

    def _clock(self, group: ThreadGroup, record: int | records.CpuTime) -> int | CpuClock | None:
        """None: there is none such."""
        if isinstance(record, int):
            return record if record in HOST_CLOCKS else None
        if record.pid is None:
            return GoneClock(group, None, record.user_only)
        pids, number = self._kernel.pids, self._numbers.of
        whose, thread = pids.groups.get(number(record.pid)), None
        if record.thread is not None:
            thread = pids.tasks.get(number(record.thread))
            whose = whose if thread is not None and thread.group is group else None
        return None if whose is None else CpuClock(whose, thread, record.user_only)


def schedule(task: Task, record: records.Thread) -> None:
    """How it is scheduled, if the record says so."""
    if record.scheduling is not None:
        task.sched = Sched(**msgspec.structs.asdict(record.scheduling))
