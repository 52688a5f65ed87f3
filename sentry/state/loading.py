"""A sandbox from its records and pages: what `restore` runs instead of loading a program."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Final

from sentry.abi.signal import SIGKILL
from sentry.errors import EAGAIN
from sentry.kernel.dispatch import Thread
from sentry.kernel.signals import UNBLOCKABLE
from sentry.kernel.task_exit import reap
from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup
from sentry.kernel.work import WORK_PAUSE
from sentry.mm.manager import MemoryManager
from sentry.state import growing, records
from sentry.state.filling import Loaded
from sentry.state.finishing import Finishing, schedule
from sentry.state.loader import Loader, at
from sentry.state.machine import clock_code, features
from sentry.state.numbering import Numbers
from sentry.state.opening import Files
from sentry.state.others import Others
from sentry.state.pages import Damaged
from sentry.state.remembering import Memories
from sentry.state.saver import mounted
from sentry.state.saving import PLAIN_OF_PROCESS, PLAIN_OF_THREAD
from sentry.state.values import made_usage
from sentry.vfs.budget import NR_OPEN
from sentry.vfs.exec import Running
from sentry.vfs.fd_table import FdTable
from sentry.vfs.fs_context import FsContext
from sentry.vfs.interface import Owner
from sentry.wait.fiber import Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.config import ContainerConfig, RestoreConfig
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.sysv_undo import UndoList
    from sentry.kernel.task import Task
    from sentry.state.rights import Rights

PIECE: Final = 1 << 20
MAX_SLOTS: Final = 1 << 22
"""Of all tables of descriptors."""
MAX_BESIDE: Final = 1 << 20
"""Bytes of records that are read while other containers run: they are decoded in one step."""
NOBODY: Final = -1000
"""oom_score_adj of who is not there as a whole yet: he is not killed for others."""
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
    """One, with which a container begins that has mounts and namespaces, and nobody in them."""

    def __init__(
        self, kernel: Kernel, container: Container, config: ContainerConfig, rights: Rights
    ) -> None:
        """Raises: Damaged."""
        self._kernel = kernel
        self._container = container
        self._is_first = container is kernel.container
        self._shared = Others(kernel, container).shared
        self._rights = rights
        stdio, image = config.stdio, config.restore
        assert image is not None
        self.wire = stdio[0] if config.process.terminal and os.isatty(stdio[0]) else -1
        """The terminal of the host that is the container's."""
        limit = container.memory_limit or kernel.platform.ram.limit
        if RECORDED * image.objects_size > limit + SLACK:
            raise Damaged("its objects need more memory than this container may have")
        if not self._is_first:
            self._check_beside(image)
        self._snapshot = snapshot = read(image)
        self.sysctls = snapshot.sysctls
        """What programs have written below /proc/sys, to be written again."""
        if not self._is_first:
            from sentry.fs.proc.sysctl import OF_IPC  # noqa: PLC0415  who looks has imported it

            own = (*(() if "net" in self._shared else ("net/",)),
                   *(() if "ipc" in self._shared else OF_IPC))  # fmt: skip
            written = self.sysctls.items()
            self.sysctls = {name: value for name, value in written if name.startswith(own)}
        _check_machine(kernel, snapshot)
        if image.pages << 12 > limit:
            need = image.pages >> 8
            raise Damaged(f"it needs {need} MiB of memory, more than this container may have")
        self._pages = Loaded(kernel.platform.ram, image)
        self._numbers = Numbers(kernel, container)
        try:
            self._numbers.admit(snapshot)
            self._loader = Loader(kernel, self._numbers, snapshot, self._pages, rights)
            self._memories = Memories(self._loader)
        except BaseException:
            self._numbers.let_go()
            raise
        owner = Owner(rights.creds.uid, rights.creds.gid)
        self._files = Files(self._loader, stdio, owner)
        self._tables: list[FdTable] = []
        self._shared_tables: set[int] = set()
        self._actions: set[int] = set()
        self._undos: list[UndoList] = []
        self._starts: list[FsContext] = []
        self._pace = Pace()
        self._away_ns = kernel.clock.now_ns() - snapshot.now_ns
        """Since it was written: timeouts have not gone on."""
        self._groups: list[ThreadGroup] = []
        """Its processes, in the order of their records."""

    def _check_beside(self, image: RestoreConfig) -> None:
        """What a container beside others cannot begin with. Raises: Damaged."""
        if "pid" in self._shared:
            raise Damaged("its processes have their numbers, and share their PID namespace")
        if image.objects_size > MAX_BESIDE:
            raise Damaged(
                f"its objects are {image.objects_size >> 10} KiB: no more than {MAX_BESIDE >> 10}"
                " are read in a sandbox that runs"
            )

    async def load(self) -> None:
        """All of it; the tasks stand still as if the container were paused.

        Raises: Damaged, Errno, OSError.
        """
        kernel, snapshot, loader = self._kernel, self._snapshot, self._loader
        container = self._container
        _check_mounts(loader)
        container.paused = True
        if "uts" not in self._shared:
            uts = container.ns.uts
            uts.nodename, uts.domainname = snapshot.hostname, snapshot.domainname
        for tree in snapshot.trees:
            loader.inodes.append(await growing.load(loader, tree))
        await loader.check_places()
        await loader.namespaces.mounts.place(loader)
        for start in snapshot.starts:
            root, cwd = await loader.place(start.root), await loader.place(start.cwd)
            if not (root.inode.is_dir and cwd.inode.is_dir):
                raise Damaged("a working directory that is none")
            self._starts.append(FsContext(root, cwd, start.umask))
            await self._pace.rest()
        self._tables = [FdTable(kernel.vfs.descriptors) for _ in snapshot.descriptors]
        self._sessions()
        for process in snapshot.processes:
            self._process(process)
            await self._pace.rest()
        loader.namespaces.settle()
        for process in snapshot.processes:
            self._relate(process)
            await self._pace.rest()
        self._check_tree()
        init = kernel.pids.groups.get(self._numbers.of(1))
        if init is None or not init.tasks:
            raise Damaged("there is no process 1")
        container.init = container.pids.init = init
        container.pids.last = snapshot.last_pid % kernel.pids.pid_max
        if self._is_first:
            kernel.boot_ns = min(snapshot.boot_ns, kernel.boot_ns)
        if snapshot.terminals:
            self._terminals()
        if snapshot.ipc is not None or any(each.objects for each in snapshot.namespaces.ipc):
            from sentry.state import sysv  # noqa: PLC0415  few have any

            sysv.load(loader, self._files.ipc)
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
        if self._is_first:
            kernel.remembered = self._pages.remembered()
        self._pages.let_go()
        self._files.let_go()
        for objects in self._files.ipc.values():
            objects.finish(kernel.pids.tasks)
        finishing = Finishing(loader, self._numbers, self._rights, self._undos, self._away_ns)
        for process in snapshot.processes:
            finishing.finish(process)
            await self._pace.rest()

    async def abandon(self) -> None:
        """It could not be loaded into a sandbox that goes on: nothing of it stays."""
        self._pages.let_go()
        self._files.let_go()
        for objects in self._files.ipc.values():
            await objects.remove()
        await self._end_processes()
        pids = self._kernel.pids
        for group in self._groups:
            if pids.groups.get(group.tgid) is group:
                reap(group)
        for record in self._snapshot.sessions:
            number = self._numbers.of(record.sid)
            session = pids.sessions.get(number)
            if session is not None and not session.groups:
                del pids.sessions[number]
        self._numbers.let_go()
        self._memories.let_go()
        self._loader.let_go()

    async def _end_processes(self) -> None:
        container, ended = self._container, WaitQueue()
        living = [group for group in self._groups if group.tasks]
        if not living:
            return
        container.init = container.pids.init = living[0]
        container.on_end = lambda _: ended.notify()

        def check() -> None:
            if container.cgroup.populated:
                raise EAGAIN

        for group in living:
            group.exit(SIGKILL)
        await until(check, (ended,), mode=Mode.UNINTERRUPTIBLE)

    # --- processes

    def _sessions(self) -> None:
        pids = self._kernel.pids
        for record in self._snapshot.sessions:
            number = self._numbers.of(record.sid)
            if number in pids.sessions:
                raise Damaged(f"session {record.sid} is there twice")
            pids.sessions[number] = Session(number, None)

    def _process_group(self, record: records.Process) -> ProcessGroup:
        pids = self._kernel.pids
        session = pids.sessions.get(self._numbers.of(record.session))
        if session is None:
            raise Damaged(f"there is no session {record.session}")
        number = self._numbers.of(record.group)
        found = pids.process_groups.get(number)
        if found is None:
            found = pids.process_groups[number] = ProcessGroup(number, session)
        if found.session is not session:
            raise Damaged(f"process group {record.group} is in two sessions")
        return found

    def _process(self, record: records.Process) -> None:
        kernel, loader = self._kernel, self._loader
        pids, number = kernel.pids, self._numbers.of(record.pid)
        if number in pids.groups:
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
            kernel, number, None, self._process_group(record), actions, limits, inside
        )
        group.cgroup = self._container.cgroup
        group.exec_user_ns = loader.namespaces.user(record.exec_user_ns)
        pids.groups[number] = group
        self._groups.append(group)
        group.argv = tuple(record.argv)
        for name in PLAIN_OF_PROCESS:
            setattr(group, name, getattr(record, name))
        group.oom_score_adj = NOBODY
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
        kernel, pids, tid = self._kernel, self._kernel.pids, self._numbers.of(record.tid)
        if pids.is_taken(tid) and tid != group.tgid:
            raise Damaged(f"thread {record.tid} is there twice")
        self._container.check_task()
        files = at(self._tables, record.descriptors, "table of descriptors")
        start = at(self._starts, record.start, "place to start")
        creds = at(self._loader.creds, record.creds, "user")
        where = self._loader.namespaces.where(record.whereabouts)
        mm = self._memories.use(record.memory)
        if record.descriptors in self._shared_tables:
            files.users += 1
        self._shared_tables.add(record.descriptors)
        context = kernel.platform.new_context(mm.space)
        context.add_ns(record.used_ns[0])
        task = Thread(kernel, group, tid, context, mm, files, start, creds, where)
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
        pids.tasks[tid] = task
        group.tasks.append(task)
        group.cgroup.born(group)
        if tid == group.tgid:
            group.leader = task

    def _dead_leader(self, group: ThreadGroup, record: records.Thread) -> None:
        """Of a zombie, or of a process whose other threads go on."""
        kernel = self._kernel
        self._container.check_task()
        creds = at(self._loader.creds, record.creds, "user")
        mm = MemoryManager.empty(kernel.platform.new_address_space)
        context = kernel.platform.new_context(mm.space)
        start = at(self._starts, 0, "place to start")
        task = Thread(
            kernel, group, group.tgid, context, mm, FdTable(), start, creds, kernel.first
        )
        task.comm, task.exit_code = record.comm, record.exit_code
        task.exit_signal, task.start_ns = record.exit_signal, record.start_ns
        task.dead = True
        schedule(task, record)
        context.destroy()
        context.owner = None
        mm.release()
        group.leader = task
        if not group.tasks:
            group.cgroup.born(group)
            group.cgroup.thread_ends(group)

    def _relate(self, record: records.Process) -> None:
        pids, number = self._kernel.pids, self._numbers.of
        group = pids.groups[number(record.pid)]
        if record.parent is not None:
            parent = pids.groups.get(number(record.parent))
            if parent is None:
                raise Damaged(f"process {record.pid} has no parent {record.parent}")
            group.parent = parent
            parent.children[group] = None
            if record.parent_thread is not None:
                thread = pids.tasks.get(number(record.parent_thread))
                group.parent_thread = thread if thread in parent.tasks else None
        session = group.session
        for known in self._snapshot.sessions if group.tgid == session.sid else ():
            if number(known.sid) == session.sid and known.leader == record.pid:
                session.leader = group

    def _check_tree(self) -> None:
        """Everybody has init above, or nobody. Raises: Damaged."""
        pids = self._kernel.pids
        good: set[ThreadGroup] = set()
        for group in self._groups:
            way: list[ThreadGroup] = []
            at_group: ThreadGroup | None = group
            while at_group is not None and at_group not in good:
                if len(way) > len(self._groups):
                    raise Damaged(f"process {group.tgid} is its own ancestor")
                way.append(at_group)
                at_group = at_group.parent
            good.update(way)
        for record in self._snapshot.sessions:
            session = pids.sessions[self._numbers.of(record.sid)]
            if not session.groups:
                raise Damaged(f"session {record.sid} has nobody")
            if record.foreground is not None:
                number = self._numbers.of(record.foreground)
                session.foreground = pids.process_groups.get(number)

    async def _program(self, record: records.Process) -> None:
        group = self._kernel.pids.groups[self._numbers.of(record.pid)]
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

        kernel, snapshot, number = self._kernel, self._snapshot, self._numbers.of
        made = self._files.terminals = Terminals(self._loader, self.wire, self._files.owner)
        self._container.console = made.console
        for record in snapshot.sessions:
            session = kernel.pids.sessions[number(record.sid)]
            if record.old_foreground is not None:
                before = number(record.old_foreground)
                session.old_foreground = kernel.pids.process_groups.get(before)
            if record.terminal is not None:
                session.terminal = made.of(record.terminal)
                if session.terminal.session is not None:
                    raise Damaged("a terminal of two sessions")
                session.terminal.session = session
        for process in snapshot.processes:
            if process.terminal is not None:
                kernel.pids.groups[number(process.pid)].terminal = made.of(process.terminal)

    def _owners(self) -> dict[int, Task]:
        """A task for each open file that has a descriptor."""
        tasks, found = self._kernel.pids.tasks, dict[int, "Task"]()
        for process in self._snapshot.processes:
            for thread in process.threads:
                if not thread.dead:
                    for _, file, _ in self._snapshot.descriptors[thread.descriptors].files:
                        found.setdefault(file, tasks[self._numbers.of(thread.tid)])
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
