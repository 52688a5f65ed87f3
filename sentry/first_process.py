"""The container's first process: found, loaded, with the rights that its bundle gives it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import AT_FDCWD, O_RDONLY, O_RDWR, O_WRONLY
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.signal import SIGCHLD
from sentry.auth.credentials import Credentials
from sentry.bpf import isa
from sentry.bpf.check import check_seccomp
from sentry.config import ProcessConfig, SandboxConfig, StartError
from sentry.errors import EACCES, ELOOP, ENOENT, ENOTDIR, Errno
from sentry.fs.devpts.console import Console
from sentry.fs.devpts.filesystem import DevPtsFs
from sentry.fs.host.file import donated
from sentry.kernel import seccomp
from sentry.kernel.limits import Limits
from sentry.kernel.signals import SignalActions
from sentry.kernel.task import Task
from sentry.kernel.task_clone import child_identity, first_task
from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup
from sentry.kernel.timers import watch_cpu_limit
from sentry.loader.execve import execve
from sentry.mm.manager import MemoryManager
from sentry.vfs.exec import close_exec, open_exec
from sentry.vfs.fd_table import FdTable
from sentry.vfs.fs_context import FsContext
from sentry.vfs.interface import Owner
from sentry.vfs.walk import resolve

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def load(kernel: Kernel, config: SandboxConfig) -> Task:
    """Make the task and load its program; it does not run yet. Raises: StartError."""
    task = _make_task(kernel, config)
    await _start_program(task, config.process)
    task.observers.extend(kernel.start_observers)
    child_identity(task)
    if config.seccomp:
        seccomp.add_filter(task, check_seccomp(isa.unpack(config.seccomp)))
    kernel.init = task.group
    return task


def _make_task(kernel: Kernel, config: SandboxConfig) -> Task:
    process = config.process
    pid = kernel.pids.allocate()
    session = kernel.pids.sessions[pid] = Session(pid, None)
    process_group = kernel.pids.process_groups[pid] = ProcessGroup(pid, session)
    limits = Limits()
    for limit in process.rlimits:
        limits.set(limit.resource, limit.soft, limit.hard)
    group = ThreadGroup(kernel, pid, None, process_group, SignalActions(), limits)
    watch_cpu_limit(group)
    session.leader = group
    group.exit_signal = SIGCHLD
    group.oom_score_adj = process.oom_score_adj
    mm = MemoryManager(kernel.platform.new_address_space, limits)
    mounts = kernel.services["mounts"]
    root = mounts.top(mounts.root.location)
    fs = FsContext(mounts, root, root, process.umask)
    files = FdTable()
    task = Task(
        kernel, group, pid, kernel.platform.new_context(mm.space), mm, files, fs,
        Credentials.root(), mounts,
    )  # fmt: skip
    first_task(kernel, task)
    owner = Owner(process.uid, process.gid)
    if process.terminal and _is_tty(config.stdio[0]):
        open_console(task, config.stdio[0], owner)
        return task
    for number, (fd, flags) in enumerate(
        zip(config.stdio, (O_RDONLY, O_WRONLY, O_WRONLY), strict=True)
    ):
        file = donated(kernel.vfs, fd, O_RDWR if _is_tty(fd) else flags, owner)
        files.replace(task, number, file, limits.soft(RLIMIT_NOFILE))
    return task


def open_console(task: Task, fd: int, owner: Owner) -> None:
    """process.terminal: descriptors 0 to 2 are a terminal of ours, which `fd` is the wire of."""
    vfs, loop = task.kernel.vfs, task.kernel.loop
    fs = vfs.devpts if isinstance(vfs.devpts, DevPtsFs) else DevPtsFs(vfs, "mode=0620")
    console = task.kernel.services["console"] = Console(loop, fd, fs, owner)
    mount = next((m for m in task.mounts if m.fs is fs), None) or vfs.new_mount(fs)
    slave = console.open(mount)
    for number in range(3):
        task.files.replace(task, number, slave, task.rlimit(RLIMIT_NOFILE))
    process_group = task.group.process_group
    console.terminal.take(process_group.session, process_group)
    console.start()


def _is_tty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def credentials(process: ProcessConfig) -> Credentials:
    """Ids and capability sets as the bundle has them."""
    caps = process.capabilities
    return Credentials(
        process.uid, process.gid, process.uid, process.gid, process.uid, process.gid,
        process.uid, process.gid, tuple(process.additional_gids),
        caps.effective, caps.permitted, caps.inheritable, caps.bounding, caps.ambient,
    )  # fmt: skip


async def _start_program(task: Task, process: ProcessConfig) -> None:
    task.creds = credentials(process)
    task.no_new_privs = process.no_new_privileges
    try:
        place = await resolve(task, AT_FDCWD, process.cwd)
        if not place.dentry.inode.is_dir:
            raise ENOTDIR
    except Errno as error:
        text = os.strerror(error.number).lower()
        raise StartError(f"chdir to cwd ({process.cwd.decode()!r}): {text}") from error
    task.fs.cwd = place
    name = process.args[0]
    path, file = await _find(task, name, process.env)
    try:
        await execve(task, file, path, list(process.args), list(process.env))
    except Errno as error:
        text = os.strerror(error.number).lower()
        raise StartError(f"exec {path.decode(errors='replace')}: {text}") from error
    finally:
        await close_exec(file)
    # execve dropped or raised capabilities by its rules; a container starts with what it was given
    task.creds = credentials(process)


async def _find(task: Task, name: bytes, env: tuple[bytes, ...]) -> tuple[bytes, Any]:
    """The program in PATH, opened: what runc's exec.LookPath does."""
    shown = name.decode(errors="replace")
    if b"/" in name:
        try:
            return name, await open_exec(task, AT_FDCWD, name, 0)
        except Errno as error:
            text = os.strerror(error.number).lower()
            raise StartError(f'exec: "{shown}": stat {shown}: {text}') from error
    search = next((e[5:] for e in env if e.startswith(b"PATH=")), DEFAULT_PATH)
    denied = False
    for folder in search.split(b":"):
        path = (folder or b".") + b"/" + name
        try:
            return path, await open_exec(task, AT_FDCWD, path, 0)
        except (ENOENT, ENOTDIR, ELOOP):
            continue
        except EACCES:
            denied = True
    why = "permission denied" if denied else "executable file not found in $PATH"
    raise StartError(f'exec: "{shown}": {why}')
