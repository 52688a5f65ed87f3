"""A real kernel without a guest: tests (and benchmarks) make the system calls of its programs.

    with World() as world:
        program = world.program()
        fd = program.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
        waiting = program.begin("read", fd, program.buffer(4), 4)

Everything is what a sandbox has, boot excepted: tasks, memory over a memfd, the vfs, the loop.
Only the platform is `tests.nowhere`. How a call waits is nobody's business here: `Program.call`
turns the loop until it has ended, `Program.begin` gives a handle of one that may be asleep.
"""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import sentry.syscalls.late  # noqa: F401  fills the table
from gofer.attachment import Attachment, CacheMode
from runsc.launch.boot_gofer import sealed_memory
from sentry.abi import unistd
from sentry.abi.sched import CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM
from sentry.auth.credentials import Credentials
from sentry.boot.first_process import make_task
from sentry.boot.tree import (
    Exports,
    Starter,
    make_devices,
    make_mount,
    mount_point,
)
from sentry.config import MountConfig, ProcessConfig, SandboxConfig
from sentry.control.profile import TimedMachine
from sentry.control.standstill import Standstill
from sentry.control.watchdog import COLLECTION, TESTED_NS, Alarm, Watchdog
from sentry.fs.gofer.session import Session
from sentry.fs.proc import mount_proc
from sentry.fs.registry import register_all
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel import fasync, namespaces, terminals
from sentry.kernel.kernel import Kernel
from sentry.kernel.nsproxy import Uts
from sentry.kernel.task import Task
from sentry.kernel.task_clone import first_task
from sentry.loop import Loop
from sentry.mm.mapping import mmap
from sentry.mm.ramfile import RamFile
from sentry.net.devices import register_devices
from sentry.platform.disk import Disk
from sentry.platform.interface import ExitKind, Reg
from sentry.platform.memory import Ram
from sentry.syscalls.registry import CALLS
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.mounts import MountNamespace
from sentry.vfs.vfs import Vfs
from sentry.wait.queue import WaitQueue
from tests.caller import AREA, AREA_SIZE, HANDLER, Caller
from tests.nowhere import NowherePlatform
from tests.unit.gofer.harness import serving

MEMORY = 1 << 30
THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
PF_WRITE, PF_USER = 2, 4
PROC_STAT: Final = os.open("/proc/stat", os.O_RDONLY)
STEPS_ARE_BOUNDED: Final = not {"CPU_IS_EMULATED", "ASAN_OPTIONS"} & os.environ.keys()
"""Not in a CPU of software, nor with C code that looks at each of its accesses."""
MakeRoot = Callable[["World"], FileSystem]


class Died(Exception):
    """A page fault killed the program: its wait(2) status."""


class Errors:
    """A log that keeps what is written, and fails the test at the first bug."""

    bugs = left_out = 0

    def __init__(self) -> None:
        self.text: list[str] = []

    def write(self, text: str) -> None:
        self.text.append(text)

    tell = write

    def bug(self, what: object, error: BaseException) -> None:
        raise error

    def finish(self) -> None: ...


class SteppedLoop(Loop):
    """A loop whose clock moves when a test says so."""

    now = 10**12
    fired = 0
    """How many timers."""

    def now_ns(self) -> int:
        return self.now

    def _first_timer(self) -> int | None:
        return 0 if super()._first_timer() is not None else None

    def _fire_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self.fired += 1
                callback()

    def advance(self, ns: int) -> None:
        """Let so much time pass, timers in their order."""
        end = self.now + ns
        self.settle()
        while (due := Loop._first_timer(self)) is not None and due <= end:
            self.now = max(self.now, due)
            self.settle()
        self.now = end

    def settle(self) -> None:
        """Everything that can go on without waiting."""
        settle(self)


def _end_each(things: Iterable[Any], end: Callable[[Any], object]) -> None:
    for thing in things:
        end(thing)


def settle(loop: Any) -> None:
    """Turn the loop as long as there is something to do at once."""
    while True:
        if not loop._soon:
            loop.call_soon(lambda: None)
        loop.turn()
        if not (loop._ready or loop._lines or loop._soon or _again(loop) or _is_due(loop)):
            return


def _again(loop: Any) -> bool:
    """The machine has more; who measures stands before it."""
    machine = loop._machine
    return bool((machine._machine if isinstance(machine, TimedMachine) else machine).again)


def _is_due(loop: Any) -> bool:
    """Also what only lets others run."""
    first = Loop._first_timer(loop)
    return first is not None and first <= loop.now_ns()


class Call:
    """A system call that a program has begun."""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    @property
    def done(self) -> bool:
        """It has ended (or its task has)."""
        task: Task = self._program.task
        return self._program.context.result is not None or task.dead

    def wait(self) -> int:
        """Turn the loop until it has ended: what it gave, -errno where it failed."""
        turn = self._program.world.loop.turn
        while not self.done:
            turn()
        return self.result

    @property
    def result(self) -> int:
        """Preconditions: done."""
        result = self._program.context.result
        assert result is not None or self._program.task.dead, f"{self._name} has not ended"
        return 0 if result is None else int(result)


class Program(Caller):
    """A task, and what its program would do."""

    def __init__(self, world: World, task: Task) -> None:
        super().__init__()
        self.world = world
        self.task = task
        self.context: Any = task.ctx

    def begin(self, name: str, *values: int | bytes) -> Call:
        assert self.context.result is not None, "the last call has not ended"
        assert not self.task.dead, "the program is dead"
        self.context.load(getattr(unistd, name), self.registers(values))
        self._exit()
        return Call(self, name)

    def _exit(self) -> None:
        """A step of the kernel, as the loop makes one."""
        loop = self.world.loop
        loop.step, loop.step_ns = self.context, time.monotonic_ns()
        self.task.on_exit(self.context)
        loop.step_ns = 0

    # --- memory

    def read(self, addr: int, count: int) -> bytes:
        """With the page faults that it costs. Raises: Died."""
        found = b""
        while len(found) < count:
            part = self.task.mm.space.read(addr + len(found), count - len(found))
            found += part
            if not part:
                self._fault(PF_USER)
        return found

    def write(self, addr: int, data: bytes) -> None:
        """With the page faults that it costs. Raises: Died."""
        done = 0
        while done < len(data):
            part = self.task.mm.space.write(addr + done, data[done:])
            done += part
            if not part:
                self._fault(PF_USER | PF_WRITE)

    def _fault(self, error_code: int) -> None:
        context = self.context
        assert context.result is not None, "a call has not ended"
        context.fault_addr, context.error_code = self.task.mm.space.fault_addr, error_code
        context.exit, context.result = ExitKind.FAULT, None
        self._exit()
        Call(self, "page fault").wait()
        if self.task.dead:
            raise Died(self.task.group.exit_status)

    # --- other programs, handlers of signals

    def fork(self) -> Program:
        """fork(2): the child."""
        return self._made(self.ok("fork"))

    def thread(self) -> Program:
        """Another thread of the same process."""
        return self._made(self.ok("clone", THREAD, 0, 0, 0, 0))

    def _made(self, tid: int) -> Program:
        child = Program(self.world, self.world.kernel.pids.tasks[tid])
        child._next = self._next
        return child

    def sibling(self, uid: int | None = None, gid: int = 0) -> Program:
        """Another process on the same tree, with the same rights or those of a user."""
        made = self.world.program()
        made.task.creds = self.task.creds if uid is None else Credentials.user(uid, gid)
        return made

    @property
    def in_handler(self) -> bool:
        """It has gone on in its handler."""
        return bool(self.context.regs[Reg.RIP] == HANDLER)

    def leave_handler(self) -> None:
        """Return from the handler: rt_sigreturn(2). A call that it restarts is on again."""
        self.context.regs[Reg.RSP] += 8
        self.begin("rt_sigreturn")
        self.world.settle()


class World:
    """A kernel with a root file system and an init that does nothing.

    A step of it that takes too much CPU time fails the test, when the world ends.
    """

    watched: ClassVar[World | None] = None
    """One at a time: the last that was made."""

    def __init__(
        self,
        root: MakeRoot | None = None,
        *,
        stepped: bool = False,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        self._closed = False
        self._files: list[RamFile] = []
        self.stack = ExitStack()
        """What ends with the world."""
        self.platform = NowherePlatform(MEMORY)
        machine: Any = self.platform
        self.log = Errors()
        self.loop: Any = (SteppedLoop if stepped else Loop)(machine, self.log.bug)
        clock = {} if now_ns is None else {"now_ns": now_ns}
        self.vfs = Vfs(self.loop, self.ram_file, **clock)
        register_all(self.vfs)
        register_devices(self.vfs)
        self.vfs.types[b"proc"] = mount_proc
        self.kernel = Kernel(machine, self.loop, self.log, CALLS, Uts(b"world"), self.vfs)
        terminals.connect(self.vfs)
        fasync.connect(self.kernel)
        self.platform.ram.exhausted = self.kernel.make_room
        self.platform.ram.let_go = self.vfs.leftovers.begin
        made = TmpFs.make(self.vfs, "mode=0755") if root is None else root(self)
        self.root = self.kernel.container.root = made
        self.mounts = MountNamespace(
            self.vfs.new_mount(made), self.vfs.mount_ids, self.vfs.budget
        )
        self.kernel.first = namespaces.first(self.kernel, self.mounts)
        self.init = self.program()
        self.kernel.init = self.init.task.group
        self.long_steps: list[str] = []
        """What held up the kernel thread."""
        self._watchdog: Watchdog | None = None
        self._watch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end()
        if kind is None:
            self._check()

    def _watch(self) -> None:
        if World.watched is not None:
            World.watched.unwatch()
        World.watched = self
        self._watchdog = Watchdog(
            self.loop, Alarm(TESTED_NS, self._held_up), standstill=Standstill(PROC_STAT)
        )

    def unwatch(self) -> None:
        """Let steps be as long as they are: for what makes them longer itself."""
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = World.watched = None

    def _held_up(self, text: str) -> None:
        if STEPS_ARE_BOUNDED and COLLECTION not in text:  # which is the tests' garbage, too
            self.long_steps.append(text)

    def ram_file(self) -> RamFile:
        """An empty file in memory."""
        return self._file(self.platform.ram)

    def _file(self, ram: Ram | Disk) -> RamFile:
        self._files.append(RamFile(ram))
        return self._files[-1]

    def add_disk(self, fd: int) -> None:
        """An overlay may have its files in this one, which is empty."""
        disk = Disk(self.platform.ram, fd)
        self.vfs.disk_file = lambda: self._file(disk)

    # --- programs

    def program(self) -> Program:
        """A process that nobody made, with every right and no file open."""
        task = make_task(self.kernel, ProcessConfig((b"x",)), self.kernel.container)
        first_task(self.kernel, task)
        mmap(task.mm.map, AREA, AREA_SIZE, 3, 0x32)
        task.ctx.regs[Reg.RSP] = AREA + AREA_SIZE
        return Program(self, task)

    # --- the loop

    def run(self, coro: Any) -> Any:
        """What the kernel does in a coroutine, to its end."""
        if not isinstance(coro, Coroutine):
            return coro
        ended: list[tuple[Any, BaseException | None]] = []
        self.loop.spawn(coro, "test", lambda result, error: ended.append((result, error)))
        while not ended:
            self.loop.turn()
        result, error = ended[0]
        if error is not None:
            raise error
        return result

    def settle(self) -> None:
        """Everything that can go on without waiting."""
        settle(self.loop)

    # --- file systems

    def mount(self, kind: str, path: bytes, data: str = "", flags: int = 0) -> None:
        """One of the sandbox's own, as a bundle asks for it; the directory is made."""
        entry = MountConfig(path, kind, data=data, flags=flags)
        self.run(make_mount(self._starter(), entry, Exports(self.kernel, None)))

    def attach(self, fs: FileSystem, path: bytes, flags: int = 0) -> None:
        """Any file system at a place."""
        place = self.run(mount_point(self._starter(), path, False))
        self.mounts.attach(self.vfs.new_mount(fs, flags), place)

    def devices(self) -> None:
        """A /dev with what every container has."""
        self.mount("tmpfs", b"/dev")
        entries = (MountConfig(b"/dev", "tmpfs"),)
        config = SandboxConfig("world", ProcessConfig((b"x",)), mounts=entries)
        self.run(make_devices(self._starter(), config))

    def _starter(self) -> Starter:
        return Starter(self.kernel)

    def serve(self, attachments: Iterable[Attachment], journal: int = -1) -> socket.socket:
        """The way to a real Gofer in a process of its own."""
        return self.stack.enter_context(serving(list(attachments), journal=journal))

    def export(
        self, folder: Path, *, exclusive: bool, read_only: bool = False, ring: int = -1
    ) -> FileSystem:
        """A directory of the host through a real Gofer: a root, or a bind mount of a bundle."""
        fd = os.open(folder, os.O_PATH)
        cache = CacheMode.EXCLUSIVE if exclusive else CacheMode.SHARED
        number = 0 if exclusive else 1
        sock = self.serve([Attachment(b"%d" % number, fd, read_only, cache)], ring)
        session = Session(sock, self.loop)
        os.close(fd)
        session.negotiate()
        self.stack.callback(session.close)
        fs: Any = Exports(self.kernel, session).open(number, read_only, exclusive=exclusive)
        if fs.changes is not None:
            self.stack.callback(fs.changes.close)
        if fs.hearing is not None:
            self.stack.callback(fs.hearing.close)
        if fs.journal is not None:
            self.stack.callback(fs.journal.close)
        return fs

    def export_behind(self, folder: Path, ring_bytes: int = 1 << 16) -> FileSystem:
        """A root whose names are changed by records of a journal."""
        ring = sealed_memory(ring_bytes)
        fs = self.export(folder, exclusive=True, ring=ring)
        os.close(ring)
        return fs

    # --- the end

    def close(self) -> None:
        """Kill everybody, wait for their ends, give everything back. Once is enough."""
        self._end()
        self._check()

    def _check(self) -> None:
        found, self.long_steps = self.long_steps, []
        assert not found, "\n".join(found)

    def _end(self) -> None:
        if self._closed:
            return
        try:
            for group in list(self.kernel.pids.groups.values()):
                group.exit(9)
            while any(group.tasks for group in self.kernel.pids.groups.values()):
                self.settle()
            self.settle()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End the Gofers and give the memory back, in whatever state tasks are."""
        self._closed = True
        self.unwatch()
        WaitQueue.tell_many = None
        self.platform.ram.let_go = _end_each
        try:
            self.stack.close()
        finally:  # the next world wants the memory
            for file in self._files:
                file.close()
            self.platform.close()
