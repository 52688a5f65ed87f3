"""All of a sandbox as records, while every task stands still (sentry.kernel.standing)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from sentry.abi.seccomp import SECCOMP_MODE_STRICT
from sentry.abi.socket import IPPROTO_TCP
from sentry.kernel.clocks import CpuClock
from sentry.kernel.posix_timers import PosixTimer
from sentry.kernel.timers import CpuInterval, Timers
from sentry.mm.backing import HostBacking
from sentry.mm.vma import VmFlag
from sentry.state import open_files, records, restarts
from sentry.state.machine import clock_code, features
from sentry.state.saver import Saver, mounted, refused
from sentry.state.values import usage, waiting
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ProcessGroup, ThreadGroup
    from sentry.mm.manager import MemoryManager

_LAYOUT = tuple(name for name in records.Layout.__struct_fields__)
PART = 64
"""Records that are looked at between two looks at the time."""


def check(container: Container) -> None:
    """What belongs to no process and has no record. Raises: EOPNOTSUPP."""
    if container.cgroup.children:
        refused("a cgroup that a program has made")
    if container.cgroup.devices is not None:
        refused("a program of extended BPF")
    ipc = container.ns.ipc
    if ipc.mqueue is not None and ipc.mqueue.fs.root.dirents():
        refused("a POSIX message queue")


@cache
def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(records.Snapshot)


async def check_read(snapshot: records.Snapshot, pace: Pace) -> None:
    """Every record can be read again: who has asked may end the sandbox. Raises: EOPNOTSUPP."""
    for field in _fields():
        value = getattr(snapshot, field.name)
        parts = [value]
        if isinstance(value, list):
            parts = [value[start : start + PART] for start in range(0, len(value), PART)]
        for part in parts:
            try:
                records.decoded(msgspec.json.encode(part), field.type)
            except ValueError as error:
                refused(f"{field.name} that could not be read again: {error}")
            await pace.rest()


class Saving:
    """One snapshot of a container, which may build on the last one."""

    def __init__(self, kernel: Kernel, container: Container, *, builds: bool = False) -> None:
        """Raises: EOPNOTSUPP."""
        check(container)
        self._kernel = kernel
        self._container = container
        self.saver = Saver(kernel, container, builds=builds)
        self._memories: list[records.Memory] = []
        self._memory_at: dict[int, int] = {}
        self._managers: list[MemoryManager] = []
        self._pace = Pace()

    async def described(self) -> records.Snapshot:
        """Raises: EOPNOTSUPP."""
        kernel, saver, container = self._kernel, self.saver, self._container
        if kernel.clock.is_shaped:
            refused("a clock that is not the host's (runsc clock)")
        await saver.pages.look(self._pace)
        await saver.others.look(self._pace)
        processes = []
        for group in self._groups():
            processes.append(self._process(group))
            await saver.catch_up(self._pace)
            await self._pace.rest()
        for mm in self._managers:
            await self._memory(mm)
            await saver.catch_up(self._pace)
        for stack in saver.namespaces.stacks():
            for one in stack.ports_of(IPPROTO_TCP).ended:
                if not one.by_link:
                    saver.left(one, stack)
        ipc = saver.first.ipc.made
        objects = None
        if ipc is not None:
            from sentry.state import sysv  # noqa: PLC0415  few have any

            objects = sysv.save(saver, ipc)
        locks = [open_files.locks(saver, file) for file in list(saver.locked.values())]
        table = await saver.mounts.record(saver, self._pace)
        await saver.catch_up(self._pace)
        trees: list[records.Tree] = []
        for tree in reversed(saver.trees):  # what lies over others names files of these
            trees.insert(0, await tree.record(self._pace))
        mounts = [mounted(mount) for mount in saver.mounts.first]
        sessions = [
            self._session(session) for session in kernel.pids.sessions.values()
            if container.pids.of(session.sid)
        ]  # fmt: skip
        uts = saver.first.uts
        found = records.Snapshot(
            hostname=uts.nodename,
            domainname=uts.domainname,
            sysctls=self._sysctls(),
            last_pid=container.pids.last,
            boot_ns=kernel.boot_ns,
            now_ns=kernel.loop.now_ns(),
            cpu=features(kernel),
            clock_code=clock_code(kernel),
            mounts=mounts,
            trees=trees,
            terminals=saver.terminals.records,
            ipc=objects,
            locks=[each for each in locks if each is not None],
            sessions=sessions,
            processes=processes,
            memories=self._memories,
            bytes=saver.bytes.records,
            pipes=saver.pipes.records,
            files=saver.files.records,
            undos=saver.undos.records,
            remains=saver.remains.records,
            creds=saver.creds.records,
            descriptors=saver.descriptors.records,
            starts=saver.starts.records,
            limits=saver.limits.records,
            actions=saver.actions.records,
            namespaces=saver.namespaces.record(),
            mount_table=table,
            shared=saver.others.shared,
        )
        await check_read(found, self._pace)
        return found

    def _groups(self) -> list[ThreadGroup]:
        """The container's processes, zombies too. Raises: EOPNOTSUPP."""
        container, groups = self._container, self._kernel.pids.groups.values()
        if "pid" in self.saver.others.shared:
            refused("a PID namespace that is another container's, too")
        found = [each for each in groups if container.pids.sees(each)]
        if any(each.container is not container for each in found):
            refused("a process of another container in its PID namespace")
        if not all(map(container.pids.sees, container.processes())):
            refused("a process in the PID namespace of another container")
        return found

    def _sysctls(self) -> dict[str, str]:
        """What programs have written below /proc/sys, but of what is the pod's."""
        first, shared = self.saver.first, self.saver.others.shared
        if self._container is self._kernel.container:
            return self._kernel.services.sysctls | first.ipc.written()
        found: dict[str, str] = {}
        if "net" not in shared:
            found |= first.net.sysctls
        if "ipc" not in shared:
            found |= first.ipc.written()
        return found

    def _session(self, session: Any) -> records.Session:
        leader, terminal, number = session.leader, session.terminal, self.saver.number

        def living(group: ProcessGroup | None) -> int | None:
            return number(group.pgid) if group is not None and group.members else None

        return records.Session(
            number(session.sid),
            leader=None if leader is None else number(leader.tgid),
            foreground=living(session.foreground),
            old_foreground=living(session.old_foreground),
            terminal=None if terminal is None else self.saver.terminals(terminal),
        )

    # --- memory

    async def _memory(self, mm: MemoryManager) -> None:
        if mm.aio is not None:
            refused("io_setup(2)")
        amap, saver = mm.map, self.saver
        mappings = []
        for vma in amap.vmas:
            mappings.append(self._mapping(mm, vma, await self._below(vma)))
            await self._pace.rest()
        layout = records.Layout(**{name: getattr(amap.layout, name) for name in _LAYOUT})
        self._memories.append(
            records.Memory(
                saver.limits(amap.limits), amap.mmap_base, amap.brk_start, amap.brk_end, layout,
                mappings, amap.lock_future, amap.mdwe, amap.randomize, mm.barriers,
                mm.no_huge_pages,
            )
        )  # fmt: skip

    async def _below(self, vma: Any) -> records.InTree | None:
        """The file of a lower layer that is mapped, though there is a copy by now."""
        if not hasattr(vma.file, "copied_since"):
            return None
        found: Any = await again(vma.file.copied_since, vma.backing)
        return None if found is None else self.saver.in_tree(found)

    def _mapping(
        self, mm: MemoryManager, vma: Any, below: records.InTree | None
    ) -> records.Mapping:
        saver, backing = self.saver, vma.backing
        if vma.flags & VmFlag.SECRET and not vma.flags & VmFlag.SPECIAL:
            refused("memfd_secret(2)")
        file = data = None
        if vma.file is not None:
            file = saver.files(vma.file)
        elif backing is not None:
            if isinstance(backing, HostBacking):
                refused("a mapping of a file of the host that nobody has open")
            data = saver.bytes(backing)
        runs: list[records.Run] = []
        if not vma.shared and not vma.flags & VmFlag.SPECIAL:
            runs = saver.pages.of_mapping(mm.space, vma.start, vma.pages)
        offset = vma.offset if backing is not None else 0
        return records.Mapping(
            vma.start, vma.end, vma.prot, vma.flags, offset, vma.name, file, data, vma.policy,
            below, runs,
        )  # fmt: skip

    def _memory_of(self, mm: MemoryManager) -> int:
        if id(mm) not in self._memory_at:
            self._memory_at[id(mm)] = len(self._managers)
            self._managers.append(mm)
        return self._memory_at[id(mm)]

    # --- processes

    def _process(self, group: ThreadGroup) -> records.Process:
        saver = self.saver
        if group.execing is not None or group.core_dump is not None:
            refused(f"process {group.tgid} in the middle of its end")
        if group.process_keyring is not None:
            refused("a keyring")
        leader = group.leader
        assert leader is not None
        threads = [self._thread(task) for task in group.tasks]
        if leader not in group.tasks:
            threads.append(self._dead(leader))
        timers = group.timers
        interval = virtual = prof = None
        if isinstance(timers, Timers):
            virtual, prof = map(_interval, (timers.virtual, timers.prof))
            real = timers.real()
            if real is not None:
                at_ns, interval_ns, expired = real
                interval = records.Interval(
                    records.time_ns(at_ns), records.time_ns(interval_ns), expired,
                    min(at_ns - self._kernel.clock.now_ns(), records.MOST),
                )  # fmt: skip
        thread, parent = group.parent_thread, group.parent
        return records.Process(
            pid=saver.number(group.tgid),
            group=saver.number(group.process_group.pgid),
            session=saver.number(group.session.sid),
            threads=threads,
            leader=saver.number(leader.tid),
            limits=saver.limits(group.limits),
            actions=saver.actions(group.actions),
            parent=None if parent is None else saver.number(parent.tgid),
            parent_thread=None if thread is None or thread.dead else saver.number(thread.tid),
            pending=waiting(group.shared_pending),
            argv=list(group.argv),
            exe=None if group.exe is None or group.is_zombie else saver.place(group.exe),
            interval=interval,
            virtual=virtual,
            prof=prof,
            terminal=None if group.terminal is None else saver.terminals(group.terminal),
            timers=[self._timer(timer, saver.number) for timer in group.posix_timers.values()],
            pids=saver.namespaces.pids(group.pids),
            exec_user_ns=saver.namespaces.user(group.exec_user_ns),
            used=usage(group.usage()),
            reaped=usage(group.reaped_usage),
            **{name: getattr(group, name) for name in PLAIN_OF_PROCESS},
        )

    @staticmethod
    def _timer(timer: Any, numbered: Callable[[int], int]) -> records.PosixTimer:
        assert isinstance(timer, PosixTimer)
        at_ns, notify, left_ns = timer._at_ns, timer.notify, None
        clock: int | records.CpuTime
        if isinstance(timer.clock, CpuClock):
            clock = _cpu_time(timer.clock, numbered)
            at_ns = 0 if timer.clock.gone else at_ns
        else:
            clock = timer.clock
            if at_ns and not timer.absolute:
                left_ns = min(timer.left_ns, records.MOST)
        return records.PosixTimer(
            timer.number, clock, notify.how, notify.signo, notify.value,
            None if notify.task is None else numbered(notify.task.tid),
            records.time_ns(timer.interval_ns), records.time_ns(at_ns), timer.overrun,
            timer._pending, timer._rests, left_ns,
        )  # fmt: skip

    def _dead(self, task: Task) -> records.Thread:
        return records.Thread(
            self.saver.number(task.tid), self.saver.creds(task.creds), task.comm, dead=True,
            exit_code=task.exit_code, exit_signal=task.exit_signal, start_ns=task.start_ns,
            scheduling=_scheduling(task),
        )  # fmt: skip

    def _thread(self, task: Task) -> records.Thread:
        saver = self.saver
        if task.trace is not None or task.tracees:
            refused("a process that is traced")
        if task.keys is not None:
            refused("a keyring")
        if task.login is not None:
            refused("a login (/proc/PID/loginuid)")
        whereabouts = saver.namespaces.where(task.ns)
        restart = None
        if task.restart is not None:
            restart = restarts.save(task, task.restart)
            if restart is None:
                refused(f"a system call of process {task.group.tgid} that has no record")
        block = task.restart_block
        filters, strict = _filters(task)
        return records.Thread(
            tid=saver.number(task.tid),
            creds=saver.creds(task.creds),
            registers=bytes(memoryview(task.ctx.regs).cast("B")),
            fpu=task.ctx.get_fpu(),
            memory=self._memory_of(task.mm),
            descriptors=saver.descriptors(task.files),
            start=saver.starts(task.fs),
            pending=waiting(task.pending),
            restart=restart,
            whereabouts=whereabouts,
            undo=None if task.sem_undo is None else saver.undos(task.sem_undo),
            restart_block=None if block is None else restarts.save(task, block),
            scheduling=_scheduling(task),
            filters=filters,
            strict=strict,
            counts=(task.rchar, task.wchar, task.syscr, task.syscw),
            used_ns=(task.ctx.cpu_time_ns(), task.sys_time_ns),
            **{name: getattr(task, name) for name in PLAIN_OF_THREAD},
        )


PLAIN_OF_PROCESS = (
    "exit_signal", "exiting", "exit_status", "stopping", "stop_signal", "stop_reported",
    "continue_reported", "child_subreaper", "dumpable", "coredump_filter", "has_execed",
    "oom_score_adj", "oom_score_adj_min", "personality", "last_uid", "next_timer", "start_ns",
)  # fmt: skip
"""Fields that are the same in the record."""
PLAIN_OF_THREAD = (
    "comm", "altstack", "blocked", "saved_mask", "clear_child_tid", "robust_list",
    "exit_code", "exit_signal", "parent_death_signal", "policy", "process_flags",
    "timer_slack_ns", "default_slack_ns", "no_new_privs", "trap", "start_ns",
)  # fmt: skip


def _scheduling(task: Task) -> records.Scheduling | None:
    if task.sched is None:
        return None
    return records.Scheduling(**msgspec.structs.asdict(task.sched))


def _interval(timer: CpuInterval) -> records.Interval | None:
    if not timer.at_ns and not timer.interval_ns:
        return None
    return records.Interval(records.time_ns(timer.at_ns), records.time_ns(timer.interval_ns))


def _cpu_time(clock: CpuClock, numbered: Callable[[int], int]) -> records.CpuTime:
    thread = None if clock.task is None else numbered(clock.task.tid)
    whose = None if clock.gone else numbered(clock.group.tgid)
    return records.CpuTime(clock.user_only, whose, thread)


def _filters(task: Task) -> tuple[list[bytes], bool]:
    """Of seccomp(2), the oldest first; whether it is the strict mode."""
    seccomp: Any = task.seccomp
    if seccomp is None:
        return [], False
    if seccomp.listener is not None:
        refused("a supervisor of seccomp(2)")
    found = [each.code for each in seccomp.newest or ()]
    return found[::-1], seccomp.mode == SECCOMP_MODE_STRICT


