"""A sandbox from its records and pages: what `restore` runs instead of loading a program."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sentry.abi.seccomp import SECCOMP_MODE_DISABLED, SECCOMP_MODE_STRICT
from sentry.abi.signal import SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID
from sentry.clock import MAX_NS
from sentry.errors import Errno
from sentry.kernel import signal_send
from sentry.kernel.clocks import HOST_CLOCKS, CpuClock, GoneClock
from sentry.kernel.dispatch import Thread
from sentry.kernel.identity import child_identity
from sentry.kernel.posix_timers import Notify, PosixTimer
from sentry.kernel.ptrace.registers import REGS_SIZE, put_regs, put_xstate
from sentry.kernel.sched_attributes import Sched
from sentry.kernel.signals import UNBLOCKABLE
from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup
from sentry.kernel.timers import timers_of, watch_cpu_limit
from sentry.kernel.work import WORK_PAUSE, WORK_STOP
from sentry.mm.manager import MemoryManager
from sentry.state import growing, records, restarts
from sentry.state.filling import Loaded
from sentry.state.loader import Loader, at
from sentry.state.machine import clock_code, features
from sentry.state.opening import Files
from sentry.state.pages import Damaged
from sentry.state.remembering import Memories
from sentry.state.saver import mounted
from sentry.state.saving import PLAIN_OF_PROCESS, PLAIN_OF_THREAD
from sentry.state.values import made_usage, made_waiting
from sentry.vfs.budget import NR_OPEN
from sentry.vfs.exec import Running
from sentry.vfs.fd_table import FdTable
from sentry.vfs.fs_context import FsContext
from sentry.vfs.interface import Owner
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.config import RestoreConfig
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.sysv_undo import UndoList
    from sentry.kernel.task import Task
    from sentry.state.rights import Rights

PIECE: Final = 1 << 20
MAX_SLOTS: Final = 1 << 22
"""Of all tables of descriptors."""
RECORDED: Final = 4
"""So many bytes of memory a byte of records is at least."""
SLACK: Final = 64 << 20


def read(config: RestoreConfig) -> records.Snapshot:
    """The records. Raises: Damaged."""
    data, at_byte = bytearray(), 0
    while at_byte < config.objects_size:
        piece = os.pread(config.objects_fd, min(PIECE, config.objects_size - at_byte), at_byte)
        if not piece:
            raise Damaged("the file of objects ends early")
        data += piece
        at_byte += len(piece)
    if zlib.crc32(data) != config.objects_check:
        raise Damaged("the file of objects is damaged")
    try:
        found: records.Snapshot = records.decoded(bytes(data), records.Snapshot)
    except ValueError as error:
        raise Damaged(f"the file of objects: {error}") from None
    return found


class Loading:
    """One. Whose `rights` they are has standard input and output, or (`wire`) a terminal of the
    host."""

    def __init__(
        self, kernel: Kernel, config: RestoreConfig, stdio: tuple[int, int, int], rights: Rights,
        wire: int = -1,
    ) -> None:  # fmt: skip
        """Raises: Damaged."""
        self._kernel = kernel
        self._rights = rights
        self._wire = wire
        limit = kernel.platform.ram.limit
        if RECORDED * config.objects_size > limit + SLACK:
            raise Damaged("its objects need more memory than this container may have")
        self._snapshot = snapshot = read(config)
        self.sysctls = snapshot.sysctls
        """What programs have written below /proc/sys, to be written again."""
        _check_machine(kernel, snapshot)
        if config.pages << 12 > limit:
            need = config.pages >> 8
            raise Damaged(f"it needs {need} MiB of memory, more than this container may have")
        self._pages = Loaded(kernel.platform.ram, config)
        self._loader = Loader(kernel, snapshot, self._pages, rights)
        self._memories = Memories(self._loader)
        owner = Owner(rights.creds.uid, rights.creds.gid)
        self._files = Files(self._loader, stdio, owner)
        self._tables: list[FdTable] = []
        self._shared_tables: set[int] = set()
        self._actions: set[int] = set()
        self._undos: list[UndoList] = []
        self._starts: list[FsContext] = []
        self._filters: dict[tuple[tuple[bytes, ...], bool], Any] = {}
        self._pace = Pace()
        self._away_ns = kernel.clock.now_ns() - snapshot.now_ns
        """Since it was written: timeouts have not gone on."""

    async def load(self) -> None:
        """All of it; the tasks stand still as if the container were paused.

        Raises: Damaged, Errno, OSError.
        """
        kernel, snapshot, loader = self._kernel, self._snapshot, self._loader
        _check_mounts(loader)
        kernel.container.paused = True
        kernel.uts.nodename = snapshot.hostname
        kernel.uts.domainname = snapshot.domainname
        for tree in snapshot.trees:
            loader.inodes.append(await growing.load(loader, tree))
        await loader.check_places()
        await loader.namespaces.mounts.place(loader)
        for start in snapshot.starts:
            root, cwd = await loader.place(start.root), await loader.place(start.cwd)
            if not (root.inode.is_dir and cwd.inode.is_dir):
                raise Damaged("a working directory that is none")
            self._starts.append(FsContext(root, cwd, start.umask))
        self._tables = [FdTable(kernel.vfs.descriptors) for _ in snapshot.descriptors]
        self._sessions()
        for process in snapshot.processes:
            self._process(process)
            await self._pace.rest()
        loader.namespaces.settle()
        for process in snapshot.processes:
            self._relate(process)
        self._check_tree()
        init = kernel.pids.groups.get(1)
        if init is None or not init.tasks:
            raise Damaged("there is no process 1")
        kernel.init = init
        kernel.pids.last = snapshot.last_pid % kernel.pids.pid_max
        kernel.boot_ns = min(snapshot.boot_ns, kernel.boot_ns)
        if snapshot.terminals:
            self._terminals()
        if snapshot.ipc is not None or any(each.objects for each in snapshot.namespaces.ipc):
            from sentry.state.sysv import all_of  # noqa: PLC0415  few have any

            self._files.ipc = all_of(loader)
        if snapshot.undos:
            from sentry.state.sysv import made_undo  # noqa: PLC0415  few have any

            ipc = self._files.ipc
            self._undos = [made_undo(loader, ipc, each) for each in snapshot.undos]
        await self._files.load(self._owners())
        for process in snapshot.processes:
            await self._program(process)
        self._descriptors()
        self._files.lock(self._tables)
        self._files.tell(self._tables)
        await self._memories.map(self._files.made)
        await self._pages.read()
        await self._memories.fill()
        kernel.remembered = self._pages.remembered()
        self._pages.let_go()
        self._files.let_go()
        for objects in self._files.ipc.values():
            objects.finish(kernel.pids.tasks)
        for process in snapshot.processes:
            self._finish(process)
            await self._pace.rest()

    # --- processes

    def _sessions(self) -> None:
        pids = self._kernel.pids
        for record in self._snapshot.sessions:
            if record.sid in pids.sessions:
                raise Damaged(f"session {record.sid} is there twice")
            pids.sessions[record.sid] = Session(record.sid, None)

    def _process_group(self, record: records.Process) -> ProcessGroup:
        pids = self._kernel.pids
        session = pids.sessions.get(record.session)
        if session is None:
            raise Damaged(f"there is no session {record.session}")
        found = pids.process_groups.get(record.group)
        if found is None:
            found = pids.process_groups[record.group] = ProcessGroup(record.group, session)
        if found.session is not session:
            raise Damaged(f"process group {record.group} is in two sessions")
        return found

    def _process(self, record: records.Process) -> None:
        kernel, loader = self._kernel, self._loader
        pids = kernel.pids
        if record.pid in pids.groups:
            raise Damaged(f"process {record.pid} is there twice")
        leaders = [each for each in record.threads if each.tid == record.leader]
        living = [each for each in record.threads if not each.dead]
        if len(leaders) != 1 or record.leader != record.pid:
            raise Damaged(f"process {record.pid} has no first thread")
        if len(living) < len(record.threads) - 1 or (record.exiting and living):
            raise Damaged(f"process {record.pid} has ended and runs")
        actions = at(loader.actions, record.actions, "table of signals")
        if record.actions in self._actions:
            actions.share()
        self._actions.add(record.actions)
        limits = at(loader.limits, record.limits, "set of limits")
        inside = loader.namespaces.pids(record.pids)
        group = ThreadGroup(
            kernel, record.pid, None, self._process_group(record), actions, limits, inside
        )
        group.exec_user_ns = loader.namespaces.user(record.exec_user_ns)
        pids.groups[record.pid] = group
        group.argv = tuple(record.argv)
        for name in PLAIN_OF_PROCESS:
            setattr(group, name, getattr(record, name))
        group.oom_score_adj = self._rights.oom_score_adj(record.oom_score_adj)
        group.oom_score_adj_min = self._rights.oom_score_adj(record.oom_score_adj_min)
        for thread in living:
            self._thread(group, thread)
        if leaders[0].dead:
            self._dead_leader(group, leaders[0])
        made_usage(record.used, group.used)
        group.account.add_ns(group.used.user_ns)
        group.used.user_ns = 0
        made_usage(record.reaped, group.reaped_usage)

    def _thread(self, group: ThreadGroup, record: records.Thread) -> None:
        kernel, pids = self._kernel, self._kernel.pids
        if pids.is_taken(record.tid) and record.tid != group.tgid:
            raise Damaged(f"thread {record.tid} is there twice")
        kernel.container.check_task()
        mm = self._memories.use(record.memory)
        files = at(self._tables, record.descriptors, "table of descriptors")
        if record.descriptors in self._shared_tables:
            files.users += 1
        self._shared_tables.add(record.descriptors)
        start = at(self._starts, record.start, "place to start")
        creds = at(self._loader.creds, record.creds, "user")
        context = kernel.platform.new_context(mm.space)
        context.add_ns(record.used_ns[0])
        where = self._loader.namespaces.where(record.whereabouts)
        task = Thread(kernel, group, record.tid, context, mm, files, start, creds, where)
        task.sys_time_ns = record.used_ns[1]
        for name in PLAIN_OF_THREAD:
            setattr(task, name, getattr(record, name))
        task.blocked &= ~UNBLOCKABLE
        if task.saved_mask is not None:
            task.saved_mask &= ~UNBLOCKABLE
        task.no_new_privs |= self._rights.no_new_privs
        task.stopped = True
        task.work |= WORK_PAUSE
        kernel.held.add(task)
        pids.tasks[record.tid] = task
        group.tasks.append(task)
        group.cgroup.born(group)
        if record.tid == group.tgid:
            group.leader = task

    def _dead_leader(self, group: ThreadGroup, record: records.Thread) -> None:
        """Of a zombie, or of a process whose other threads go on."""
        kernel = self._kernel
        kernel.container.check_task()
        creds = at(self._loader.creds, record.creds, "user")
        mm = MemoryManager.empty(kernel.platform.new_address_space)
        context = kernel.platform.new_context(mm.space)
        start = at(self._starts, 0, "place to start")
        task = Thread(kernel, group, record.tid, context, mm, FdTable(), start, creds, kernel.first)
        task.comm, task.exit_code = record.comm, record.exit_code
        task.exit_signal, task.start_ns = record.exit_signal, record.start_ns
        task.dead = True
        _schedule(task, record)
        context.destroy()
        context.owner = None
        mm.release()
        group.leader = task
        if not group.tasks:
            group.cgroup.born(group)
            group.cgroup.thread_ends(group)

    def _relate(self, record: records.Process) -> None:
        pids = self._kernel.pids
        group = pids.groups[record.pid]
        if record.parent is not None:
            parent = pids.groups.get(record.parent)
            if parent is None:
                raise Damaged(f"process {record.pid} has no parent {record.parent}")
            group.parent = parent
            parent.children[group] = None
            if record.parent_thread is not None:
                thread = pids.tasks.get(record.parent_thread)
                group.parent_thread = thread if thread in parent.tasks else None
        session = group.session
        for known in self._snapshot.sessions if group.tgid == session.sid else ():
            if known.sid == session.sid and known.leader == group.tgid:
                session.leader = group

    def _check_tree(self) -> None:
        """Everybody has init above, or nobody. Raises: Damaged."""
        pids = self._kernel.pids
        good: set[ThreadGroup] = set()
        for group in pids.groups.values():
            way: list[ThreadGroup] = []
            at_group: ThreadGroup | None = group
            while at_group is not None and at_group not in good:
                if len(way) > len(pids.groups):
                    raise Damaged(f"process {group.tgid} is its own ancestor")
                way.append(at_group)
                at_group = at_group.parent
            good.update(way)
        for record in self._snapshot.sessions:
            session = pids.sessions[record.sid]
            if not session.groups:
                raise Damaged(f"session {record.sid} has nobody")
            if record.foreground is not None:
                session.foreground = pids.process_groups.get(record.foreground)

    async def _program(self, record: records.Process) -> None:
        group = self._kernel.pids.groups[record.pid]
        if record.exe is None:
            return
        group.exe = await self._loader.place(record.exe)
        for task in group.tasks:
            layout = task.mm.map.layout
            if layout.program is None:
                layout.program = Running(group.exe.inode)

    def _terminals(self) -> None:
        """Pseudoterminals, and whose they are."""
        from sentry.state.terminals import Terminals  # noqa: PLC0415  few have one

        kernel, snapshot = self._kernel, self._snapshot
        made = self._files.terminals = Terminals(self._loader, self._wire, self._files.owner)
        kernel.container.console = made.console
        for record in snapshot.sessions:
            session = kernel.pids.sessions[record.sid]
            if record.old_foreground is not None:
                session.old_foreground = kernel.pids.process_groups.get(record.old_foreground)
            if record.terminal is not None:
                session.terminal = made.of(record.terminal)
                if session.terminal.session is not None:
                    raise Damaged("a terminal of two sessions")
                session.terminal.session = session
        for process in snapshot.processes:
            if process.terminal is not None:
                kernel.pids.groups[process.pid].terminal = made.of(process.terminal)

    def _owners(self) -> dict[int, Task]:
        """A task for each open file that has a descriptor."""
        tasks, found = self._kernel.pids.tasks, dict[int, "Task"]()
        for process in self._snapshot.processes:
            for thread in process.threads:
                if not thread.dead:
                    for _, file, _ in self._snapshot.descriptors[thread.descriptors].files:
                        found.setdefault(file, tasks[thread.tid])
        return found

    def _descriptors(self) -> None:
        files = self._files.made
        highest = (max((fd for fd, *_ in each.files), default=0) for each in
                   self._snapshot.descriptors)  # fmt: skip
        if sum(highest) > MAX_SLOTS:
            raise Damaged("more descriptors than a sandbox has")
        for table, record in zip(self._tables, self._snapshot.descriptors, strict=True):
            for fd, file, cloexec in record.files:
                if fd >= NR_OPEN or (fd < len(table._files) and table._files[fd] is not None):
                    raise Damaged(f"descriptor {fd} is there twice")
                table._put(fd, at(files, file, "open file"), cloexec)

    # --- what comes last

    def _finish(self, record: records.Process) -> None:
        kernel = self._kernel
        group = kernel.pids.groups[record.pid]
        quota = kernel.services.signal_quota
        made_waiting(record.pending, group.shared_pending, quota, group.uid)
        for thread in record.threads:
            if not thread.dead:
                self._finish_thread(kernel.pids.tasks[thread.tid], thread)
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

    def _finish_thread(self, task: Task, record: records.Thread) -> None:
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
        _schedule(task, record)
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
        thread = kernel.pids.tasks.get(record.thread) if record.thread is not None else None
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
        pids = self._kernel.pids
        whose, thread = pids.groups.get(record.pid), None
        if record.thread is not None:
            thread = pids.tasks.get(record.thread)
            whose = whose if thread is not None and thread.group is group else None
        return None if whose is None else CpuClock(whose, thread, record.user_only)


def _schedule(task: Task, record: records.Thread) -> None:
    if record.scheduling is not None:
        task.sched = Sched(**msgspec.structs.asdict(record.scheduling))


def _check_machine(kernel: Kernel, snapshot: records.Snapshot) -> None:
    """Raises: Damaged."""
    here = frozenset(features(kernel))
    lacking = [name for name in snapshot.cpu if name not in here]
    if lacking:
        raise Damaged(f"this machine's CPU lacks {', '.join(lacking[:20])}")
    if snapshot.clock_code != clock_code(kernel):
        raise Damaged("it was made with another vDSO: by another version, or on another platform")
    if snapshot.now_ns > kernel.loop.now_ns():
        raise Damaged("this host's CLOCK_MONOTONIC is behind: it has been up for less time")


def _check_mounts(loader: Loader) -> None:
    """The container has the mounts that the snapshot's had. Raises: Damaged."""
    found = [mounted(mount) for mount in loader.first]
    wanted = loader.snapshot.mounts
    for some, others, who in ((wanted, found, "snapshot"), (found, wanted, "container")):
        for one in some:
            if one not in others:
                path = one.path.decode(errors="replace")
                raise Damaged(f"the {who} has a mount of {one.kind} at /{path}: the bundle differs")
    if found != wanted:
        raise Damaged("the bundle has the mounts in another order")
