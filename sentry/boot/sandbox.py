"""From a SandboxConfig to a running kernel.

`prepare` opens and maps everything that the sandbox will ever need from the host, mounts its file
systems and loads its first program; it runs before the filter. `Sandbox.run` gives the wait status
of the first process.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import guest_stubs
from sentry.abi.signal import SIGKILL
from sentry.boot import first_process, host_links, tree
from sentry.boot.further import Containers
from sentry.config import PolicyConfig, SandboxConfig, StartError, TraceSession
from sentry.control.operations import Operations
from sentry.control.server import MAX_CONNECTIONS, ControlServer
from sentry.control.standstill import Standstill
from sentry.control.watchdog import TESTED_NS, TOLD_NS, Alarm, Watchdog
from sentry.errors import Errno
from sentry.fs.proc import mount_proc
from sentry.fs.registry import register_all
from sentry.kernel import fasync, terminals
from sentry.kernel.collector import Collector
from sentry.kernel.container_cpu import CpuQuotas
from sentry.kernel.container_memory import MemoryLimits
from sentry.kernel.kernel import Kernel
from sentry.kernel.nsproxy import Uts
from sentry.kernel.own_memory import OwnMemory
from sentry.kernel.task import Task
from sentry.log import KernelLog, LogSink
from sentry.loop import Loop
from sentry.mm.ramfile import RamFile
from sentry.net.devices import register_devices
from sentry.platform.constants import PAGE_SIZE, RAM_SPAN
from sentry.platform.disk import Disk
from sentry.platform.host_io import HostIO, HostThreads
from sentry.platform.memory import keep_heap, trim_heap
from sentry.syscalls import late  # fills the table
from sentry.syscalls.registry import CALLS, NUMBERS
from sentry.vfs.vfs import Vfs
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.fork.parent import Forks, Outside
    from sentry.kernel.task import Observer
    from sentry.net.host.process import NetworkProcess
    from sentry.platform.interface import Platform

KEPT_FREE = 64 << 20
"""Bytes of free RAM frames that an idle sandbox keeps from the host."""


class Sandbox:
    """A kernel whose first program is loaded but has not run."""

    def __init__(
        self,
        kernel: Kernel,
        start: Callable[[], None],
        operations: Operations,
        config: SandboxConfig,
    ) -> None:
        self.kernel = kernel
        self.network: NetworkProcess | None = None
        """With --network=none nobody."""
        self.forks: Forks | None = None
        """Where it may be forked."""
        self._statm = config.statm_fd
        self._operations = operations
        if config.await_start:
            operations.await_start(start)
        self._start = None if config.await_start else start

    def run(self) -> int:
        """Run until the first process and all others have ended; its wait status."""
        collector = Collector()
        self.kernel.loop.on_idle = lambda: self._rest(collector)
        self.kernel.loop.on_work = self._on_work()
        if self._start is not None:
            self._start()
        self.kernel.loop.run()
        if self.network is not None:
            self._leave_network(self.network)
        console = self.kernel.container.console
        if console is not None:
            console.restore()
        if self.forks is not None and self.forks.place.is_left:
            return self._follow(self.forks)
        self._operations.finish(self.kernel.exit_status or 0)
        self._say_all()
        self.kernel.platform.close()
        assert self.kernel.exit_status is not None
        if self.forks is not None:
            self.forks.place.tell_end(self.kernel.exit_status)
        return self.kernel.exit_status

    def leave_files(self) -> None:
        """Of the Gofer nothing is wanted any more: it ends while this process does."""
        for session in self.kernel.services.gofers:
            session.sock.close()

    def _say_all(self) -> None:
        """What was to be told of it goes out."""
        for observer in self.kernel.start_observers:
            observer.flush()
        if self.kernel.watch is not None:
            self.kernel.watch.flush()
        self.kernel.log.finish()

    def _follow(self, forks: Forks) -> int:
        """Others go on in the place of this process, which stays for their namespace's sake, and
        for who waits for its end; the status with which the last one ends."""
        assert forks.server is not None
        listener = forks.server.leave()
        self._say_all()
        if self.kernel.watch is not None:
            self.kernel.watch.end()
        forks.hang_up()
        self.kernel.platform.close()
        return forks.place.follow(listener, forks.config)

    def _leave_network(self, process: NetworkProcess) -> None:
        """What programs that have ended have sent goes out; then the process that has sockets for
        this one ends while there is other work."""
        from sentry.net.inet import last_words  # noqa: PLC0415  not with --network=none

        kernel, loop = self.kernel, self.kernel.loop
        stack = kernel.first.net.stack
        over: list[bool] = []
        if not any(group.tasks for group in kernel.pids.groups.values()):
            last_words.when_said(stack, loop, lambda: over.append(True))
            while not over:
                loop.turn()
        process.close()

    def _on_work(self) -> Callable[[Sequence[Any]], None]:
        memory, cpu = MemoryLimits(self.kernel), CpuQuotas(self.kernel)
        own = OwnMemory(self.kernel, self._statm) if self._statm >= 0 else None
        if self.forks is not None:
            self.forks.own_memory = own

        def look(exited: Sequence[Any]) -> None:
            if own is not None:
                own.look(exited)
            memory.look(exited)
            cpu.look(exited)

        return look

    def fork_with(self, prepare: Callable[[], object], seal: Callable[[], object]) -> None:
        """What comes before the first fork, and what each gives up once it is there."""
        if self.forks is not None:
            self.forks.prepare, self.forks.seal = prepare, seal

    @property
    def ran_out(self) -> bool:
        """Whether a program was killed because memory ran out."""
        return self.kernel.container.oom_kills > 0

    def _rest(self, collector: Collector) -> None:
        """Nothing runs: now is the time for what would hold a program up."""
        for container in (self.kernel.container, *self.kernel.further):
            if container.root is not None:
                container.root.rest()
        self.kernel.platform.ram.trim(KEPT_FREE)
        if self.forks is None or not self.forks.is_small:
            collector.rest()
            trim_heap()


def preload(platform: str) -> None:
    """Import and read what is needed later: inside the sandbox there are no files."""
    hashes = "_blake2", "_sha2" if sys.version_info >= (3, 12) else "_sha256"
    for name in hashes:  # files in some builds of Python: sentry.net.tcp, sentry.watch.events
        importlib.import_module(name)
    if platform == "unicorn":
        importlib.import_module("sentry.platform.unicorn").preload()
        return
    importlib.import_module("sentry.platform.kvm")
    for name in ("entry_ring0", "entry_ring3", "exceptions", "probe"):
        guest_stubs.load(name)
    guest_stubs.vdso()


def make_platform(config: SandboxConfig) -> Platform:
    """The machine that was asked for. Raises: StartError."""
    if config.platform == "unicorn":
        from sentry.platform.unicorn import UnicornPlatform  # noqa: PLC0415  an extra

        return UnicornPlatform(config.ram_fd, RAM_SPAN)
    from sentry.platform.kvm import KvmPlatform  # noqa: PLC0415

    return KvmPlatform(
        config.ram_fd,
        RAM_SPAN,
        mailbox=config.system_calls != "exit",
        inline=None if config.system_calls == "auto" else config.system_calls == "inline",
        kvm_fd=config.kvm_fd,
    )


def make_strace(config: SandboxConfig, loop: Loop) -> Observer:
    """Preconditions: all declarations are imported."""
    from sentry.syscalls.strace.families import chosen  # noqa: PLC0415
    from sentry.syscalls.strace.log import Options, Strace  # noqa: PLC0415

    calls = chosen(config.strace_calls)
    if config.strace_others:
        calls = frozenset(NUMBERS.values()) - calls
    options = Options(calls, times=True, limit=config.strace_limit)
    return Strace(LogSink(config.strace_fd, loop), loop, options)


def watched(kernel: Kernel, session: TraceSession, fds: tuple[int, ...]) -> None:
    """Who listens to it from the start does so from now on. Raises: StartError."""
    from sentry.watch.session import Watch  # noqa: PLC0415  few are watched

    late.import_all()
    watch = kernel.watch = Watch(kernel)
    try:
        watch.check(session)
        at_once(watch.create(session, list(fds)))
    except Errno as error:
        raise StartError(f"trace session: {error}") from error


def ruled(kernel: Kernel, watchdog: Watchdog, config: PolicyConfig) -> None:
    """Who decides on calls does so from the first one. Raises: StartError."""
    from sentry.control import policies  # noqa: PLC0415  few have one

    engine = policies.engine_of(kernel, watchdog)
    try:
        at_once(engine.use(policies.read(engine, config)))
    except Errno as error:
        raise StartError(f"policy {error}") from error


def alarms(log: LogSink, steps_fd: int) -> list[Alarm]:
    """Who hears of steps that take too long: the log, and the tests by a descriptor."""
    found = [Alarm(TOLD_NS, log.write)]
    if steps_fd >= 0:
        found.append(Alarm(TESTED_NS, lambda text: os.write(steps_fd, text.encode())))
    return found


def _nothing() -> None:
    """No confinement: for tests."""


def prepare(config: SandboxConfig, lockdown: Callable[[], None] = _nothing) -> Sandbox:
    """Set everything up. Raises: StartError with a text for the user.

    `lockdown` puts the filter on: before anything of the container (its ELF files, its
    directories) is looked at.
    """
    keep_heap()
    try:
        platform = make_platform(config)
    except (OSError, RuntimeError) as error:
        raise StartError(f"platform {config.platform}: {error}") from error
    except MemoryError as error:
        raise StartError("the memory limit is too low for any program") from error
    log = KernelLog(config.log_fd)
    loop = Loop(platform, log.bug)
    ram = platform.ram
    ram.limit_to(config.memory_limit)
    if config.pagemap_fd >= 0:
        ram.watch_changes(config.pagemap_fd)
    vfs = Vfs(
        loop,
        lambda: RamFile(ram),
        memory_pages=lambda: ram.limit // PAGE_SIZE,
        now_ns=loop.programs.wall_ns,
    )
    if config.disk_fd >= 0:
        try:
            disk = Disk(ram, config.disk_fd)
        except OSError as error:
            raise StartError(f"the file of --overlay2: {error.strerror}") from error
        vfs.disk_file = lambda: RamFile(disk)
    vfs.host_io = HostIO(HostThreads(loop, process_of))
    register_all(vfs)
    register_devices(vfs)
    vfs.types[b"proc"] = mount_proc
    uts = Uts(config.hostname.encode(), config.domainname.encode())
    kernel = Kernel(platform, loop, log, CALLS, uts, vfs, config.cpus)
    terminals.connect(vfs)
    fasync.connect(kernel)
    ram.exhausted = kernel.make_room
    ram.let_go = kernel.vfs.leftovers.begin
    vdso = platform.vdso
    loop.programs.shape = vdso
    loop.programs.was_set = kernel.services.clock_steps.notify
    if vdso is not None and vdso.step_fd >= 0:

        def clock_was_set(_events: int) -> None:
            vdso.host_clock_was_set()
            loop.programs.host_was_set()
            kernel.services.clock_steps.notify()

        loop.watch(vdso.step_fd, select.EPOLLIN, clock_was_set)
    kernel.services.host_ids = dict(zip(("uid", "gid"), config.host_ids, strict=True))
    container = kernel.container
    container.id = config.container_id
    container.cpu_quota, container.cpu_weight = config.cpu_quota, config.cpu_weight
    container.oom_group = config.oom_group
    container.pids_limit = config.pids_limit
    if config.strace_fd >= 0:
        late.import_all()  # their declarations are what it writes
        kernel.start_observers.append(make_strace(config, loop))
    if config.trace is not None:
        watched(kernel, config.trace, config.trace_fds)
    if config.hold_at:
        from sentry.control.holding import HoldAt  # noqa: PLC0415  tests ask

        kernel.start_observers.append(HoldAt(kernel, config.hold_at))
    if config.debug:
        from sentry.syscalls.refused import Refused  # noqa: PLC0415

        late.import_all()
        log.write(f"debug: {platform.description}\n")
        kernel.start_observers.append(Refused(log.tell))
    resized = host_links.sizes() if config.process.terminal else None
    gofer = host_links.gofer_end(config.gofer_fd) if config.gofer_fd >= 0 else -1
    standstill = Standstill(config.stat_fd) if config.stat_fd >= 0 else None
    watchdog = Watchdog(loop, *alarms(log, config.steps_fd), standstill=standstill)
    watchdog.bound(config.log_fd)
    if config.policy is not None:
        ruled(kernel, watchdog, config.policy)
    sender = None
    if config.network == "sandbox" and config.link is None and not config.forkable:
        from sentry.net.link.sender import Sender  # noqa: PLC0415  few have one

        sender = Sender(loop)
    vfs.budget.max_host_descriptors, reserve = host_links.open_files(config.ram_fd)
    if config.forkable:
        from sentry.fork.parent import Forks  # noqa: PLC0415  few are
        from sentry.platform.kvm import KvmPlatform  # noqa: PLC0415
    lockdown()
    _started(loop, tree.mount_first(kernel, config))
    process: NetworkProcess | None = None
    outside: Outside | None = None
    if config.network_fd >= 0:
        from sentry.boot import networks  # noqa: PLC0415  not with --network=none
        from sentry.net.host import process as room  # noqa: PLC0415

        stack = kernel.first.net.stack
        process = room.NetworkProcess(config.network_fd, loop)
        connected = begun(loop, networks.connect(stack, config, process, loop, sender))
    if config.restore is not None:
        from sentry.boot import restoring  # noqa: PLC0415  few begin so

        start = _started(loop, restoring.load(kernel, config, container))
    else:
        task = _started(loop, first_process.load(kernel, config))

        def start() -> None:
            first_process.tell_start(task, config.process)
            task.finish()

    if process is not None:
        outside = connected()
    if config.egress is not None and process is not None:
        from sentry.boot.uplinks import judge  # noqa: PLC0415  few have a policy

        _started(loop, judge(stack, container, config.egress, process, loop))
        if kernel.watch is not None:
            kernel.watch.hear_egress(stack.egress)
    if config.inject:
        from sentry.inject import plan  # noqa: PLC0415  few want any

        try:
            plan.of(kernel).go_on_from(config.inject)
        except Errno as error:
            raise StartError(f"faults: {error}") from None
    containers = Containers(kernel, config, watchdog)
    containers.sender = sender
    operations = Operations(kernel, container, config, containers)
    most = min(MAX_CONNECTIONS, reserve // 8)
    listener = config.control_listener_fd
    containers.server = ControlServer(loop, operations, config.control_fd, listener, most=most)
    forks = None
    if config.forkable:
        assert isinstance(platform, KvmPlatform)
        containers.forks = forks = Forks(kernel, platform, config, operations)
        forks.server, forks.gofer_end = containers.server, gofer
        forks.outside = outside
    if resized is not None:
        loop.watch(resized, select.EPOLLIN, lambda _: host_links.take_size(kernel, resized))
    if gofer >= 0:
        end = operations.end
        loop.watch(gofer, select.EPOLLRDHUP, lambda _: host_links.gofer_ended(kernel, gofer, end))
    if config.stand_in_fd >= 0:
        loop.watch(config.stand_in_fd, select.EPOLLRDHUP, lambda _: kernel.finish(SIGKILL))
    kernel.services.check()
    made = Sandbox(kernel, start, operations, config)
    made.network, made.forks = process, forks
    return made


def process_of(name: object) -> Hashable:
    """Whose share of the threads for host calls a fiber takes: that of its task's process."""
    return name.group if isinstance(name, Task) else name


def _started(loop: Loop, coro: Coroutine[Any, Any, Any]) -> Any:
    """A step of the start, whose result it is. Raises: StartError; the Gofer may end meanwhile."""
    try:
        return run_now(loop, coro)
    except Errno as error:
        raise StartError(error.why()) from error


def run_now(loop: Loop, coro: Coroutine[Any, Any, Any]) -> Any:
    """Turn the loop until a coroutine has ended; its result, or its exception."""
    return begun(loop, coro)()


def begun(loop: Loop, coro: Coroutine[Any, Any, Any]) -> Callable[[], Any]:
    """The same, but others may be run before one waits for its end, by what is given."""
    outcome: list[tuple[Any, BaseException | None]] = []
    loop.spawn(coro, "boot", lambda result, error: outcome.append((result, error)))

    def ended() -> Any:
        while not outcome:
            loop.turn()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    return ended
