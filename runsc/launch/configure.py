"""What the Sentry is handed: a SandboxConfig, with everything open that it will need."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from kvm.binding import lib
from runsc.containers import console
from runsc.errors import RuntimeFailure, why
from runsc.launch.network_choice import network_of
from runsc.launch.places import with_places
from runsc.oci.convert import Container
from runsc.options import Globals
from sentry.abi.layout import Record
from sentry.config import EgressConfig, ProcessConfig, SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsc.containers.state import State
    from runsc.oci.resources import Resources
    from runsc.progress import Tell
    from sentry.faults import InjectState

KVM_GET_API_VERSION = int(lib.KVM_GET_API_VERSION)
_KVM_HINT = "; --platform=unicorn needs no KVM, but is slow and no security boundary"


class Wishes(msgspec.Struct, frozen=True):
    """What the flags of `create` and `run` say."""

    pid_file: str | None = None
    console_socket: str | None = None
    detach: bool = False
    """The container outlives the command."""
    keep: bool = False
    """`run` does not delete it afterwards."""
    preserve_fds: int = 0
    """So many descriptors of the caller, from 3 on (or from where `listening_fds` end), are the
    program's too."""
    wire: int = -1
    """What is behind the program's terminal, if not the caller's own."""
    stdio: tuple[int, int, int] = (0, 1, 2)
    """What the program has as these."""
    as_program: bool = False
    """Its first process is a program at the caller's terminal, not the container's init."""
    when_there: Callable[[State], object] | None = None
    """`run`: hears of the container as it runs."""
    when_ready: Callable[[State], object] | None = None
    """The same, once its first program may run: what is wrong with it has been said before."""
    image: str | None = None
    """The folder of a snapshot that the container begins with: runsc.containers.snapshots."""
    background: bool = False
    """Its memory is read when it is touched."""
    egress_used: tuple[tuple[int, int, int], ...] = ()
    """What of the limits of its egress policy is used up already."""
    injected: tuple[InjectState, ...] | None = None
    """Faults in place of those of --inject, and what has come of them."""
    tell: Tell | None = None
    """Hears how far what takes long is, such as the reading of that."""
    lifeline: int = -1
    """`run`: a descriptor that can be read from when whoever wants the container is gone; then it
    ends, whatever it does."""


def is_mortal(container: Container) -> bool:
    """Whether its first process is no init: what has no PID namespace is none, as with runc."""
    return "pid" not in dict(container.namespaces)


def has_services(flags: Globals, container: Container) -> bool:
    """Whether there are sockets of the host to connect to or made, now or in a later container."""
    asked = flags.opens_sockets or flags.binds_sockets
    return asked or any(each.is_service for each in container.exports)


def host_name(container: Container) -> str:
    """config.json's; where that lists no UTS namespace the container has the host's."""
    if "uts" in dict(container.namespaces):
        return container.hostname
    return os.uname().nodename


def listening_fds() -> int:
    """How many a service manager has opened for this very process: sd_listen_fds(3)."""
    count = os.environ.get("LISTEN_FDS", "")
    is_ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return int(count) if is_ours and count.isascii() and count.isdigit() else 0


def told_of_them(process: ProcessConfig) -> ProcessConfig:
    """As with runc the program has `listening_fds`, and hears of them."""
    count = listening_fds()
    if not count:
        return process
    told = {b"LISTEN_FDS": b"%d" % count, b"LISTEN_PID": b"1"}
    others = (each for each in process.env if each.partition(b"=")[0] not in told)
    env = (*others, *(b"%s=%s" % each for each in told.items()))
    return msgspec.structs.replace(process, env=env)


def preserved_fds(count: int) -> tuple[int, ...]:
    """Duplicates of 3 and up, and of what a service manager adds; never of one of ours, which
    might have such a number where the caller has none. Raises: RuntimeFailure."""
    numbers = range(3, 3 + count + listening_fds())
    try:
        if not all(map(os.get_inheritable, numbers)):
            raise OSError
        return tuple(_duplicate(number) for number in numbers)
    except OSError:
        raise RuntimeFailure(f"cannot preserve descriptors 3 to {numbers[-1]}") from None


def open_kvm() -> int:
    """Raises: RuntimeFailure that names the other platform."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RuntimeFailure(f"/dev/kvm is not there{_KVM_HINT}") from None
    except OSError as error:
        how = how_to_be_let_in() if isinstance(error, PermissionError) else ""
        raise RuntimeFailure(f"/dev/kvm cannot be opened: {why(error)}{how}{_KVM_HINT}") from None
    try:
        fcntl.ioctl(fd, KVM_GET_API_VERSION)
    except OSError:
        raise RuntimeFailure(f"/dev/kvm is not KVM's device{_KVM_HINT}") from None
    return fd


def how_to_be_let_in(device: str = "/dev/kvm") -> str:
    """What somebody who may not open a device can do about it."""
    import grp  # noqa: PLC0415  only where it fails
    import pwd  # noqa: PLC0415

    if os.geteuid() == 0:  # a rule of a container around us, or a security module
        return "; something keeps root from it, such as a container around runsc"
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    try:
        status = os.stat(device)
        group = grp.getgrgid(status.st_gid)
    except (OSError, KeyError):
        return ""
    is_member = status.st_gid in (os.getegid(), *os.getgroups())
    if is_member or not status.st_gid or status.st_mode & 0o060 != 0o060:
        return f"; root has to allow it: `sudo setfacl -m u:{user}:rw {device}`"
    if user in group.gr_mem:
        return f'; you are in its group "{group.gr_name}" since you have logged in: log in again'
    return (
        f'; it is for group "{group.gr_name}": `sudo usermod -aG {group.gr_name} {user}`, then log'
        " in again"
    )


def default_memory() -> int:
    """Half of the host's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _duplicate(fd: int) -> int:
    """The same open file above the standard descriptors, which the children do not keep."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def log_fd(flags: Globals, detached: bool) -> int:
    """Where Sentry and Gofer write. Not into a log of JSON, nor the stderr of whoever waits."""
    path = flags.debug_log
    if path is None and not flags.log.is_json and not (detached and flags.log.to_stderr):
        return _duplicate(flags.log.fd)
    return _appending(path or os.devnull)


def _strace_fd(flags: Globals, log: int) -> int:
    """A file of its own, the log, or -1."""
    if flags.strace_log is None:
        return log if flags.strace else -1
    return _appending(flags.strace_log)


def _appending(path: str) -> int:
    """Above the standard descriptors."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    made = _duplicate(fd)
    os.close(fd)
    return made


def make_config(
    flags: Globals, container: Container, container_id: str, listener_fd: int, wishes: Wishes,
    egress: EgressConfig | None = None,
) -> SandboxConfig:  # fmt: skip
    """Everything but the sockets between the processes. Opens /dev/kvm, the logs, a terminal."""
    limits = limits_of(flags, container.resources)
    log = log_fd(flags, wishes.detach)
    stdio = wishes.stdio if wishes.wire < 0 else (wishes.wire,) * 3
    if wishes.console_socket:
        stdio = (console.make(wishes.console_socket, container.process.console_size),) * 3
    preserved = preserved_fds(wishes.preserve_fds)
    restore = None
    if wishes.image is not None:
        from runsc.containers import snapshots  # noqa: PLC0415  few begin so

        told = {} if wishes.tell is None else {"tell": wishes.tell}
        restore = snapshots.opened(
            wishes.image, limits.memory, background=wishes.background, **told
        )
    return SandboxConfig(
        container_id=container_id,
        process=told_of_them(container.process),
        root=container.root,
        mounts=with_places(container),
        hostname=host_name(container),
        domainname=container.domainname,
        masked_paths=container.masked_paths,
        readonly_paths=container.readonly_paths,
        sysctls=container.sysctls,
        devices=container.devices,
        seccomp=container.seccomp,
        platform=flags.platform,
        restore=restore,
        network=network_of(flags, container),
        egress=egress,
        services=has_services(flags, container),
        system_calls=flags.system_calls,
        kvm_fd=open_kvm() if flags.platform == "kvm" else -1,
        disk_fd=_disk_fd(flags, container, container_id),
        memory_limit=limits.memory,
        pids_limit=limits.pids,
        cpu_quota=limits.cpu_quota,
        cpu_weight=limits.cpu_weight,
        oom_group=limits.oom_group,
        cpus=limits.cpus,
        await_start=wishes.detach
        or bool(container.hooks is not None and container.hooks.start_container),
        mortal_init=wishes.as_program or is_mortal(container),
        preserved=preserved,
        stdio=(_duplicate(stdio[0]), _duplicate(stdio[1]), _duplicate(stdio[2])),
        control_listener_fd=listener_fd,
        log_fd=log,
        hold_at=flags.hold_at,
        steps_fd=-1 if flags.steps_log is None else _appending(flags.steps_log),
        stat_fd=-1 if flags.steps_log is None else os.open("/proc/stat", os.O_RDONLY),
        strace_fd=_strace_fd(flags, log),
        strace_calls=tuple(filter(None, flags.strace_calls.removeprefix("!").split(","))),
        strace_others=not flags.strace_calls or flags.strace_calls.startswith("!"),
        strace_limit=flags.strace_limit,
        repl=flags.repl,
        debug=flags.debug,
    )


def _disk_fd(flags: Globals, container: Container, container_id: str) -> int:
    if flags.overlay != "disk":
        return -1
    from runsc.launch import disk  # noqa: PLC0415  few ask for it

    root = container.exports[0]
    folder = flags.overlay_folder or (os.path.dirname(root.path) if root.is_file else root.path)
    return disk.open_in(folder, container_id, container.mount_label)


class Limits(Record):
    """What the container has of CPUs, memory and tasks (0: any number)."""

    cpus: int
    memory: int
    pids: int = 0
    cpu_quota: tuple[int, int] = (0, 100_000)
    cpu_weight: int = 100
    oom_group: bool = False


def limits_of(flags: Globals, resources: Resources | None) -> Limits:
    available, memory = os.sched_getaffinity(0), flags.memory or default_memory()
    if resources is None:
        return Limits(len(available), memory)
    from runsc.cgroups.guest import visible_cpus  # noqa: PLC0415  `do` needs none

    if resources.memory_limit is not None:
        limited = resources.memory_limit
        memory = min(limited, flags.memory) if flags.memory else limited
    memory -= memory % os.sysconf("SC_PAGE_SIZE")  # as the kernel rounds a limit
    cpus = visible_cpus(available, resources)
    return Limits(
        cpus,
        memory,
        resources.pids_limit or 0,
        resources.cpu_quota,
        resources.cpu_weight or 100,
        resources.oom_group,
    )
