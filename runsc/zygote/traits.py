"""What a process has of its surroundings, and how a fork of the zygote takes on its caller's.

All of it is read from the kernel, nothing is believed that a caller says of itself: who is confined
must not get out of that by asking. What differs is taken, in an order in which each step may still
be made, and in the end all is read again. What differs then, or cannot be taken (a filter,
no_new_privs, a label, another user), is `Unlike`, and the caller goes on by itself.

Of another process nobody can read its keyrings, NUMA policy, timer slack, securebits (see
`_would_gain`) and Landlock domain, which an ordinary user's processes have with no_new_privs only.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
from collections.abc import Callable
from contextlib import suppress

import msgspec

from runsc import host
from sentry.abi import capability, prctl
from sentry.abi.resource import RLIM_NLIMITS
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUTS,
)

JOINED = {
    "mnt": CLONE_NEWNS,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
}
ALIKE = ("user", "pid", "pid_for_children", "time", "time_for_children")
"""Namespaces that nobody can join, or only for children."""
FIXED = (
    "Uid", "Gid", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "THP_enabled",
    "Speculation_Store_Bypass", "SpeculationIndirectBranch", "TracerPid",
)  # fmt: skip
"""Lines of proc_pid_status(5) that have to be the same. Who is traced is perhaps confined by that;
else somebody wants to see what it does."""


class Unlike(Exception):
    """Something of the caller that this process cannot take on; what."""


class Traits(msgspec.Struct, frozen=True):
    """Of one process. Words of the kernel, where nobody looks into them."""

    fixed: tuple[str, ...]
    filtered: bool
    """By seccomp: of two filters nobody can tell whether they are the same."""
    others: tuple[int, ...]
    """Inode numbers of the namespaces that have to be the same."""
    spaces: tuple[int, ...]
    """Those of the others."""
    label: str
    login: str
    personality: str
    root: tuple[int, int]
    folder: tuple[int, int]
    """Of the root, and of the working directory: device, inode."""
    cgroup: str
    limits: tuple[tuple[int, int], ...]
    nice: int
    scheduling: tuple[int, int]
    io_priority: int
    cpus: frozenset[int]
    oom: str
    umask: str
    groups: tuple[int, ...]
    blocked: int
    ignored: int
    capabilities: tuple[int, ...]
    """Masks: bounding, permitted, effective, inheritable."""


class Process:
    """One that can be looked at for as long as it is: its pid is not another's meanwhile."""

    def __init__(self, pid: int, pidfd: int | None = None) -> None:
        """`pidfd`: of it, if there is one already. Raises: OSError."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid) if pidfd is None else pidfd
        self.proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if self.has_ended:  # and the folder may be that of another one
            raise ProcessLookupError(errno.ESRCH, "it has ended")

    def close(self) -> None:
        """Nothing of it stays here."""
        os.close(self.pidfd)
        os.close(self.proc)

    @property
    def parent(self) -> int:
        """The pid of it."""
        return int(self.read("status").partition("\nPPid:")[2].split(maxsplit=1)[0])

    @property
    def has_ended(self) -> bool:
        """Whether it has."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def read(self, name: str) -> str:
        """A file of /proc; "" where this kernel has none of it."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except FileNotFoundError:
            return ""
        try:
            with suppress(OSError):  # EINVAL: no security module
                return os.read(fd, 1 << 16).decode(errors="surrogateescape")
            return ""
        finally:
            os.close(fd)

    def bounds(self) -> tuple[str, int]:
        """What no process gets rid of: its mode of seccomp, its user namespace. Raises: OSError."""
        seccomp = self.read("status").partition("\nSeccomp:\t")[2][:1]
        return seccomp, os.stat("ns/user", dir_fd=self.proc).st_ino

    def opened(self, name: str) -> int:
        """What a link of /proc leads to."""
        return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.proc)

    def traits(self) -> Traits:
        """Raises: OSError, KeyError, ValueError where it cannot be looked at."""
        lines = (line.partition(":\t") for line in self.read("status").splitlines())
        status = {name: value.strip() for name, _, value in lines}
        pid = self.pid

        def space(name: str) -> int:
            try:
                return os.stat(f"ns/{name}", dir_fd=self.proc).st_ino
            except FileNotFoundError:
                return 0

        def place(name: str) -> tuple[int, int]:
            found = os.stat(name, dir_fd=self.proc)
            return found.st_dev, found.st_ino

        masks = (status[name] for name in ("CapBnd", "CapPrm", "CapEff", "CapInh"))
        return Traits(
            fixed=tuple(status.get(name, "") for name in FIXED),
            filtered=status.get("Seccomp", "0") != "0",
            others=tuple(map(space, ALIKE)),
            spaces=tuple(map(space, JOINED)),
            label=self.read("attr/current"),
            login=self.read("loginuid"),
            personality=self.read("personality"),
            root=place("root"),
            folder=place("cwd"),
            cgroup=self.read("cgroup"),
            limits=tuple(resource.prlimit(pid, each) for each in range(RLIM_NLIMITS)),
            nice=os.getpriority(os.PRIO_PROCESS, pid),
            scheduling=(os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority),
            io_priority=host.io_priority(pid),
            cpus=frozenset(os.sched_getaffinity(pid)),
            oom=self.read("oom_score_adj"),
            umask=status["Umask"],
            groups=tuple(map(int, status["Groups"].split())),
            blocked=int(status["SigBlk"], 16),
            ignored=int(status["SigIgn"], 16),
            capabilities=tuple(int(mask, 16) for mask in masks),
        )


def admit(caller: Process) -> None:
    """Before anything is read that it sends, so that no Gofer, which connects where a program says,
    keeps forks waiting. Raises: Unlike, OSError."""
    own = Process(os.getpid())
    try:
        if caller.bounds() != own.bounds():
            raise Unlike("it is confined otherwise")
    finally:
        own.close()


def take_on(caller: Process) -> None:
    """Become as the caller is. Preconditions: a fork of one thread.

    Raises: Unlike: this process is of no use then.
    """
    own = Process(os.getpid())
    try:
        wanted, mine = caller.traits(), own.traits()
        if wanted.filtered:
            raise Unlike("it has a seccomp filter")
        if _would_gain(wanted):
            raise Unlike("it may be a root without rights (securebits)")
        if mine == wanted:
            return
        moved = mine.spaces != wanted.spaces
        for name, take in STEPS.items():
            if getattr(mine, name) != getattr(wanted, name) or (moved and name in PLACES):
                _taken(name, lambda take=take: take(caller, own, wanted))  # type: ignore[misc]
        wanted = caller.traits()  # as it is seen from its namespaces, and with all rights
        if mine.capabilities != wanted.capabilities:
            _taken("capabilities", lambda: _drop(own, wanted))
        mine = own.traits()
        for name in Traits.__struct_fields__:
            if getattr(mine, name) != getattr(wanted, name):
                raise Unlike(f"it has another {name}")
    except (OSError, KeyError, ValueError) as error:
        raise Unlike(f"what it has cannot be read: {error}") from None
    finally:
        own.close()


def _would_gain(wanted: Traits) -> bool:
    """Whether root gets rights by execve(2) that it has not: unless its securebits forbid that,
    which nobody can read of another process. After an execve(2) without such there are none."""
    bounding, permitted, _, inheritable = wanted.capabilities
    is_root = "0" in wanted.fixed[FIXED.index("Uid")].split()
    return is_root and bool((bounding | inheritable) & ~permitted)


def _taken(name: str, take: Callable[[], None]) -> None:
    try:
        take()
    except (OSError, ValueError) as error:
        raise Unlike(f"{name}: {error}") from None


def _join(caller: Process, own: Process, wanted: Traits) -> None:
    mine = own.traits().spaces
    kinds = zip(JOINED.values(), mine, wanted.spaces, strict=True)
    host.setns(caller.pidfd, sum(kind for kind, one, other in kinds if one != other))


def _change_root(caller: Process, own: Process, wanted: Traits) -> None:
    fd = caller.opened("root")
    try:
        os.fchdir(fd)
        os.chroot(".")
    finally:
        os.close(fd)


def _change_folder(caller: Process, own: Process, wanted: Traits) -> None:
    fd = caller.opened("cwd")
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)


def _move(caller: Process, own: Process, wanted: Traits) -> None:
    from runsc.cgroups import hierarchies  # noqa: PLC0415  most have the zygote's

    mine = {each.name: each.own for each in hierarchies.read()}
    for each in hierarchies.read(cgroup=wanted.cgroup):
        if each.own != mine.get(each.name):
            with open(os.path.join(each.own, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")


def _write(name: str, text: str, own: Process) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=own.proc)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _limit(caller: Process, own: Process, wanted: Traits) -> None:
    for number, pair in enumerate(wanted.limits):
        resource.setrlimit(number, pair)


def _block(caller: Process, own: Process, wanted: Traits) -> None:
    mask = wanted.blocked
    signal.pthread_sigmask(signal.SIG_SETMASK, {n for n in ALL if mask >> (n - 1) & 1})


def _ignore(caller: Process, own: Process, wanted: Traits) -> None:
    """What is not ignored is as in a program that has just begun."""
    for number in ALL - {signal.SIGKILL, signal.SIGSTOP}:
        if wanted.ignored >> (number - 1) & 1:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) == signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(
                number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
            )


def _drop(own: Process, wanted: Traits) -> None:
    bounding, permitted, effective, inheritable = wanted.capabilities
    more = own.traits().capabilities[0] & ~bounding
    for number in range(capability.CAP_LAST_CAP + 1):
        if more >> number & 1:
            host.prctl(prctl.PR_CAPBSET_DROP, number)
    host.capset(effective, permitted, inheritable)


Step = Callable[[Process, Process, Traits], None]
STEPS: dict[str, Step] = {
    "login": lambda _, own, wanted: _write("loginuid", wanted.login, own),
    "cgroup": _move,
    "spaces": _join,
    "root": _change_root,
    "folder": _change_folder,
    "oom": lambda _, own, wanted: _write("oom_score_adj", wanted.oom, own),
    "cpus": lambda _, own, wanted: os.sched_setaffinity(0, wanted.cpus),
    "scheduling": lambda _, own, wanted: os.sched_setscheduler(
        0, wanted.scheduling[0], os.sched_param(wanted.scheduling[1])
    ),
    "nice": lambda _, own, wanted: os.setpriority(os.PRIO_PROCESS, 0, wanted.nice),
    "io_priority": lambda _, own, wanted: host.set_io_priority(wanted.io_priority),
    "limits": _limit,
    "groups": lambda _, own, wanted: os.setgroups(wanted.groups),
    "umask": lambda _, own, wanted: _umask(wanted),
    "blocked": _block,
    "ignored": _ignore,
}
"""How each is taken, in this order, but for capabilities, which come last."""
PLACES = frozenset({"root", "folder"})
"""A change of the mount namespace changes them."""
ALL = frozenset(signal.valid_signals())


def _umask(wanted: Traits) -> None:
    os.umask(int(wanted.umask, 8))
