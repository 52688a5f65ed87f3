"""From a bundle that is understood to a sandbox that runs, in the foreground."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass

from kvm.binding import lib
from runsc import sandbox, signals
from runsc.container import State, start_time
from runsc.convert import Container
from runsc.errors import RuntimeFailure
from runsc.janitor import keep_clean
from runsc.listener import listen
from runsc.options import Globals
from sentry.config import SandboxConfig

KVM_GET_API_VERSION = int(lib.KVM_GET_API_VERSION)
_KVM_HINT = "; --platform=unicorn needs no KVM, but is slow and no security boundary"


@dataclass(frozen=True)
class Identity:
    """How a container is called and where it comes from."""

    container_id: str
    bundle: str
    rootfs: str
    version: str
    annotations: dict[str, str]


def open_kvm() -> int:
    """Raises: RuntimeFailure that names the other platform."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RuntimeFailure(f"/dev/kvm is not there{_KVM_HINT}") from None
    except OSError as error:
        raise RuntimeFailure(f"/dev/kvm cannot be opened: {error.strerror}{_KVM_HINT}") from None
    try:
        fcntl.ioctl(fd, KVM_GET_API_VERSION)
    except OSError:
        raise RuntimeFailure(f"/dev/kvm is not KVM's device{_KVM_HINT}") from None
    return fd


def default_memory() -> int:
    """Half of the host's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _duplicate(fd: int) -> int:
    """The same open file above the standard descriptors, which the children do not keep."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def _log_fd(flags: Globals) -> int:
    if flags.debug_log is None:
        return _duplicate(flags.log.fd)
    mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(flags.debug_log, mode, 0o644)


def make_config(
    flags: Globals, container: Container, container_id: str, listener_fd: int
) -> SandboxConfig:
    """Everything but the sockets between the processes. Opens /dev/kvm and the logs."""
    wanted = container.resources.memory_limit if container.resources else None
    limits = [size for size in (flags.memory, wanted) if size]
    log_fd = _log_fd(flags)
    return SandboxConfig(
        container_id=container_id,
        process=container.process,
        root=container.root,
        mounts=container.mounts,
        hostname=container.hostname,
        domainname=container.domainname,
        masked_paths=container.masked_paths,
        readonly_paths=container.readonly_paths,
        sysctls=container.sysctls,
        devices=container.devices,
        seccomp=container.seccomp,
        platform=flags.platform,
        system_calls=flags.system_calls,
        kvm_fd=open_kvm() if flags.platform == "kvm" else -1,
        memory_limit=min(limits, default=default_memory()),
        cpus=len(os.sched_getaffinity(0)),
        stdio=(_duplicate(0), _duplicate(1), _duplicate(2)),
        control_listener_fd=listener_fd,
        log_fd=log_fd,
        strace_fd=log_fd if flags.strace else -1,
        debug=flags.debug,
    )


def run(
    flags: Globals,
    identity: Identity,
    container: Container,
    pid_file: str | None = None,
    programs: Callable[[str], sandbox.Programs] = sandbox.real_programs,
) -> int:
    """Run a container to its end, with the caller's terminal and signals. Gives its exit code."""
    if container.process.terminal and not os.isatty(0):
        raise RuntimeFailure("provided file is not a console: process.terminal needs a terminal")
    store = flags.store()
    state = State(
        oci_version=identity.version,
        id=identity.container_id,
        bundle=identity.bundle,
        annotations=identity.annotations,
        rootfs=identity.rootfs,
        foreground=True,
    )
    state.pid, state.pid_start = os.getpid(), start_time(os.getpid())
    store.create(state)
    try:
        listener = listen(store.path(identity.container_id, "control.sock"))
        config = make_config(flags, container, identity.container_id, listener.fileno())
        running = sandbox.start(config, container.exports, programs(flags.platform), flags.switches)
        wakeup = signals.catch()
        listener.close()
        for fd in (config.kvm_fd, *config.stdio):
            if fd >= 0:
                os.close(fd)
        with keep_clean(store, identity.container_id):
            state.pid, state.pid_start = running.pid, start_time(running.pid)
            state.gofer_pid = running.gofer_pid
            state.gofer_start = start_time(running.gofer_pid)
            store.save(state)
            if pid_file is not None:
                write_pid_file(pid_file, running.pid)
            return running.wait(wakeup)
    finally:
        store.remove(identity.container_id)


def write_pid_file(path: str, pid: int) -> None:
    """Written elsewhere and renamed: a reader finds the whole number or no file."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)
