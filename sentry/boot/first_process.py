"""Processes that no program made: the container's first, and those of `exec`.

Found, loaded, with the rights that the bundle or the caller gives them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sentry.abi.fcntl import AT_FDCWD, O_ACCMODE, O_APPEND, O_NONBLOCK, O_RDWR
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.signal import SIGCHLD
from sentry.auth.credentials import Credentials
from sentry.config import ContainerConfig, ProcessConfig, SandboxConfig, StartError
from sentry.errors import EACCES, ELOOP, ENOENT, ENOTDIR, Errno
from sentry.fs.host.file import HostFile, donated
from sentry.kernel import pause, sched
from sentry.kernel.dispatch import Thread
from sentry.kernel.identity import child_identity
from sentry.kernel.limits import Limits
from sentry.kernel.signals import SignalActions
from sentry.kernel.task import Task
from sentry.kernel.task_clone import first_task
from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup
from sentry.kernel.timers import watch_cpu_limit
from sentry.kernel.work import WORK_PAUSE
from sentry.loader.execve import execve
from sentry.mm.buffers import KernelDest
from sentry.mm.errors import NeedsFault
from sentry.mm.manager import MemoryManager
from sentry.platform.memory import Exhausted
from sentry.vfs.exec import close_exec, open_exec
from sentry.vfs.fd_table import FdTable
from sentry.vfs.fs_context import FsContext
from sentry.vfs.interface import Owner
from sentry.vfs.mount import top
from sentry.vfs.open import OpenHow, open_used
from sentry.vfs.walk import resolve
from sentry.wait.again import again
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.fs.devpts.console import Console
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel, Namespaces

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Loaded = tuple[bytes, Sequence[bytes], int]
"""The file that was found, the arguments, how many variables there are."""
PASSWD = b"/etc/passwd"
PASSWD_SIZE = 1 << 20
"""So much of it is read."""


async def load(kernel: Kernel, config: SandboxConfig) -> Task:
    """Make the first task and load its program; it does not run yet. Raises: StartError."""
    process = config.process
    task = make_task(kernel, process, kernel.container)
    first_task(kernel, task)
    owner = Owner(process.uid, process.gid)
    if process.terminal and is_tty(config.stdio[0]):
        kernel.container.console = open_console(task, config.stdio[0], owner)
    else:
        donate(task, config.stdio, owner, standard=True)
    donate(task, config.preserved, owner, closes=True, first=3)
    loaded = await start_program(task, process)
    put_under_observation(task, config.seccomp, loaded)
    kernel.init = task.group
    kernel.pids.mortal = config.mortal_init
    return task


async def load_further(kernel: Kernel, config: ContainerConfig, container: Container) -> Task:
    """The same for a container that is added. `stdio` and `preserved` belong to it from now on.

    Raises: StartError, Errno; then nobody knows the task.
    """
    process = config.process
    task = await again(make_task, kernel, process, container)
    owner = Owner(process.uid, process.gid)
    try:
        if process.terminal and is_tty(config.stdio[0]):
            for fd in config.stdio[1:]:
                os.close(fd)
            container.console = open_console(task, config.stdio[0], owner)
        else:
            donate(task, config.stdio, owner, closes=True, standard=True)
        donate(task, config.preserved, owner, closes=True, first=3)
        loaded = await start_program(task, process)
        put_under_observation(task, config.seccomp, loaded)
        if container.pids.ended:
            raise StartError("the first process of its PID namespace has ended")
    except BaseException:
        undo(task)
        raise
    if container.pids.init is None:
        container.pids.init = task.group
        container.pids.mortal = config.mortal_init
    first_task(kernel, task)
    container.init = task.group
    return task


def stood(task: Task, process: ProcessConfig) -> Callable[[], None]:
    """The first process of a further container stands before its first instruction. Gives what
    lets it go on."""
    container = task.group.container
    container.unstarted = True
    task.work |= WORK_PAUSE
    task.finish()

    def start() -> None:
        tell_start(task, process)
        pause.start(container)

    return start


def undo(task: Task) -> None:
    """The program could not be loaded: nobody knows the task, and nothing of it stays."""
    group = task.group
    at_once(task.files.ending(task))
    task.mm.release()
    task.ctx.destroy()
    group.process_group.members.discard(group)
    task.kernel.pids.forget_if_empty(group.process_group)


def make_task(
    kernel: Kernel, process: ProcessConfig, container: Container, ns: Namespaces | None = None
) -> Task:
    """A task of a container that nobody made: of no parent, the leader of a session, without a
    program. `ns`: where it is, if it is not where the container began.

    Nobody but its session knows it: `first_task` makes it known. Raises: EAGAIN, ENOMEM;
    NeedsFault where RAM is full.
    """
    ns = ns if ns is not None else container.ns
    container.check_task()
    pid = kernel.pids.allocate(container.pids)
    limits = Limits()
    for limit in process.rlimits:
        limits.set(limit.resource, limit.soft, limit.hard)
    try:
        mm = MemoryManager.empty(kernel.platform.new_address_space, limits)
    except Exhausted:
        kernel.pids.release(pid)
        raise NeedsFault(kernel.make_frames) from None
    session = kernel.pids.sessions[pid] = Session(pid, None)
    process_group = kernel.pids.process_groups[pid] = ProcessGroup(pid, session)
    group = ThreadGroup(
        kernel, pid, None, process_group, SignalActions(), limits, container.pids
    )
    group.cgroup = container.cgroup
    session.leader = group
    group.exit_signal = SIGCHLD
    group.oom_score_adj = group.oom_score_adj_min = process.oom_score_adj
    root = top(ns.mounts.mounts.root.location)
    group.personality = process.personality
    task = Thread(
        kernel, group, pid, kernel.platform.new_context(mm.space), mm,
        FdTable(kernel.vfs.descriptors),
        FsContext(root, root, process.umask), Credentials.root(), ns,
    )  # fmt: skip
    if process.scheduler is not None:
        sched.change(task, **msgspec.structs.asdict(process.scheduler))
    if process.io_priority:
        sched.change(task, ioprio=process.io_priority)
    return task


def donate(
    task: Task, fds: Sequence[int], owner: Owner, *, closes: bool = False, first: int = 0,
    standard: bool = False,
) -> list[HostFile]:  # fmt: skip
    """Descriptors from `first` on are the host's, `standard`: the container's own 0, 1 and 2; as
    which files.

    `closes`: with their last use inside, as all but terminals do: who reads a pipe of the caller's
    sees its end when the program has closed it. Raises: StartError.
    """
    vfs, limit = task.kernel.vfs, task.rlimit(RLIMIT_NOFILE)
    made = []
    for number, fd in enumerate(fds, first):
        try:
            # as it is open, but standard output of a terminal can be read too: its flags are not
            # ours
            mode = fcntl.fcntl(fd, fcntl.F_GETFL) & (O_ACCMODE | O_APPEND)
            flags = O_RDWR if is_tty(fd) else mode
            closed = closes or not is_tty(fd)
            what = number if standard else -1
            file = donated(vfs, fd, flags, owner, closes=closed, number=what)
        except PermissionError:  # of the host's security module, which looks at each use
            raise StartError(f"the caller's descriptor {number}: permission denied") from None
        task.files.replace(task, number, file, max(limit, number + 1))
        made.append(file)
    return made


def open_console(task: Task, fd: int, owner: Owner) -> Console:
    """process.terminal: descriptors 0 to 2 are a terminal of ours, which `fd` is the wire of."""
    from sentry.fs.devpts.console import Console  # noqa: PLC0415
    from sentry.fs.devpts.filesystem import DevPtsFs  # noqa: PLC0415

    vfs, loop = task.kernel.vfs, task.kernel.loop
    mount = next((m for m in task.mounts if isinstance(m.fs, DevPtsFs)), None)
    if mount is None:
        mount = vfs.new_mount(DevPtsFs(vfs, "mode=0620"))
    assert isinstance(mount.fs, DevPtsFs)
    owner = Owner(owner.uid, mount.fs.gid or 0)  # as root opens it, and gives it to the program
    console = Console(loop, fd, mount.fs, owner, vfs.host_io)
    slave = console.open(mount)
    for number in range(3):
        task.files.replace(task, number, slave, max(3, task.rlimit(RLIMIT_NOFILE)))
    process_group = task.group.process_group
    console.terminal.take(process_group.session, process_group)
    console.start()
    return console


def put_under_observation(task: Task, profile: bytes, loaded: Loaded) -> None:
    """What sees the calls of the program: strace, and the container's seccomp profile."""
    task.observers.extend(task.kernel.start_observers)
    for observer in task.observers:
        observer.loaded(task, *loaded)
    child_identity(task)
    if profile:
        from sentry.bpf.filter import CallFilter  # noqa: PLC0415
        from sentry.kernel import seccomp  # noqa: PLC0415

        seccomp.add_filter(task, CallFilter(profile))


def tell_start(task: Task, process: ProcessConfig) -> None:
    """The container's first program is about to run: who listens hears of it."""
    if (policy := task.kernel.policy) is not None:
        policy.begins(task)
    if (watch := task.kernel.watch) is not None:
        watch.started(task, process)


def is_tty(fd: int) -> bool:
    """Whether it is a terminal of the host."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def credentials(process: ProcessConfig) -> Credentials:
    """Ids and capability sets as the bundle has them; ambient is what Linux lets be so."""
    caps = process.capabilities
    return Credentials(
        process.uid, process.gid, process.uid, process.gid, process.uid, process.gid,
        process.uid, process.gid, tuple(sorted(process.additional_gids)),
        caps.effective, caps.permitted, caps.inheritable, caps.bounding,
        caps.ambient & caps.permitted & caps.inheritable,
    )  # fmt: skip


async def start_program(task: Task, process: ProcessConfig) -> Loaded:
    """Become the program: the steps of a container's init before and with execve(2).

    Raises: StartError.
    """
    task.creds = credentials(process)
    task.no_new_privs = process.no_new_privileges
    try:
        place = await again(resolve, task, AT_FDCWD, process.cwd)
        if not place.dentry.inode.is_dir:
            raise ENOTDIR
    except Errno as error:
        text = error.text()
        cwd = process.cwd.decode(errors="replace")
        raise StartError(f'chdir to cwd ("{cwd}") set in config.json failed: {text}') from error
    task.fs.chdir(place)
    env = list(process.env)
    if not any(variable.startswith(b"HOME=") for variable in env):
        env.insert(0, b"HOME=" + await _home_of(task, process.uid))
    path, file = await _find(task, process.args[0], process.env)
    try:
        await execve(task, file, path, list(process.args), env)
    except Errno as error:
        text = error.text()
        raise StartError(f"exec {path.decode(errors='replace')}: {text}") from error
    finally:
        close_exec(file)
    watch_cpu_limit(task.group)
    return path, process.args, len(env)


async def _home_of(task: Task, uid: int) -> bytes:
    """The directory that /etc/passwd has for a user; "/" for one that it does not have."""
    try:
        how = OpenHow.strict(O_NONBLOCK, 0, 0)
        file = await again(open_used, task, AT_FDCWD, PASSWD, how)
    except Errno:
        return b"/"
    try:
        if not file.inode.is_regular:
            return b"/"
        dest = KernelDest(PASSWD_SIZE)
        await again(file.read_at, task, dest, 0)
        text = dest.data
    except Errno:
        return b"/"
    finally:
        file.decref()
    wanted = b"%d" % uid
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == wanted:
            return fields[5] or b"/"
    return b"/"


async def _find(task: Task, name: bytes, env: tuple[bytes, ...]) -> tuple[bytes, Any]:
    """The program in PATH, opened: what runc's exec.LookPath does."""
    shown = name.decode(errors="replace")
    if b"/" in name:
        try:
            if (await again(resolve, task, AT_FDCWD, name)).dentry.inode.is_dir:
                raise StartError(f'exec: "{shown}": is a directory')
            return name, await again(open_exec, task, AT_FDCWD, name, 0)
        except EACCES as error:
            raise StartError(f'exec: "{shown}": permission denied') from error
        except Errno as error:
            text = error.text()
            raise StartError(f'exec: "{shown}": stat {shown}: {text}') from error
    search = next((e[5:] for e in env if e.startswith(b"PATH=")), DEFAULT_PATH)
    for folder in search.split(b":"):
        path = (folder or b".") + b"/" + name
        try:
            return path, await again(open_exec, task, AT_FDCWD, path, 0)
        except (ENOENT, ENOTDIR, ELOOP, EACCES):
            continue
    raise StartError(f'exec: "{shown}": executable file not found in $PATH')
