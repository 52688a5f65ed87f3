"""How a process of the sandbox gives up what it has: namespaces, files, identity, rights.

`spawn` makes the process, in namespaces of its own. The rest is called by that process itself, in
this order: `enter`, then what it still needs of the host's files, `leave_root`, `drop_rights`. The
filter (runsc/filters) comes last, after everything is open and mapped.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NoReturn

from msgspec import Struct

from runsc import host
from runsc.errors import RuntimeFailure
from sentry.abi import capability, mount, prctl
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from sentry.suppress import suppress
from sentry.tracebacks import text_of

NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
)
NOBODY = 65534
LEAST_FILES = 64
"""Open at a time, without which no sandbox begins."""


class Rights(Struct, frozen=True):
    """What a process keeps. `uid` is both user and group."""

    uid: int
    capabilities: frozenset[int] = frozenset()
    open_files: int = 1 << 20
    """Ceiling of RLIMIT_NOFILE, within the hard limit that there is."""


def is_privileged() -> bool:
    """Whether namespaces can be made without a user namespace."""
    return os.geteuid() == 0


def spawn(body: Callable[[], int], namespaces: int = NAMESPACES) -> int:
    """Run `body` in a child in namespaces of its own; the child exits with what it returns.

    Raises: RuntimeFailure that says what the machine has to allow.
    """
    if is_privileged():
        return spawn_here(body, namespaces)
    return spawn_here(body, namespaces | CLONE_NEWUSER, (os.geteuid(), os.getegid()))


def spawn_here(
    body: Callable[[], int], namespaces: int, ids: tuple[int, int] | None = None
) -> int:
    """The same with nothing but these namespaces. `ids`: who is root of a new one of users."""
    try:
        pid = host.spawn(namespaces)
    except OSError as error:
        raise RuntimeFailure(_why_no_namespaces(error.errno, ids is not None)) from None
    if pid:
        return pid
    _child(body, ids)


def _why_no_namespaces(number: int | None, new_user: bool) -> str:
    if number == errno.ENOSPC:
        what = "a limit is reached: see `sysctl -a --pattern user.max_`"
    elif number == errno.EPERM and new_user:
        what = (
            "here ordinary users may not make user namespaces: see `sysctl"
            " kernel.unprivileged_userns_clone`, or run runsc as root"
        )
    elif number == errno.EPERM:
        what = "root has no CAP_SYS_ADMIN here: a container around runsc has to be privileged"
    else:
        what = os.strerror(number or 0).lower()
    return f"cannot make namespaces for the sandbox: {what}"


def _child(body: Callable[[], int], ids: tuple[int, int] | None) -> NoReturn:
    code = 1
    try:
        if ids is not None:
            _map_ids(*ids)
        code = body()
    except Exception as error:
        _complain(error)
    finally:
        os._exit(code)


def _complain(error: BaseException) -> None:
    with suppress(OSError):
        os.write(2, text_of(error).encode(errors="backslashreplace"))


def _map_ids(uid: int, gid: int) -> None:
    """An ordinary user is user 0 of the new user namespace, and nobody else exists there."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def tie_to_parent(signo: int) -> None:
    """This signal (0: none) when the process that made us ends. A change of identity undoes it."""
    host.prctl(prctl.PR_SET_PDEATHSIG, signo)


def leave_session() -> None:
    """Be in a session of its own, so that the caller's terminal signals nothing to it."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def enter(
    keep: set[int], tie: int = signal.SIGKILL, propagation: int = mount.MS_PRIVATE
) -> None:
    """First steps: nothing of the caller but the descriptors in `keep`; own mounts.

    `propagation` MS_SLAVE: what the host mounts from now on comes to them, but nothing back.
    """
    tie_to_parent(tie)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    leave_session()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        if fd not in keep:
            os.dup2(null, fd)
    host.close_all_but(keep | {0, 1, 2})
    host.mount(None, "/", None, mount.MS_REC | propagation)
    os.umask(0o077)
    gc.enable()  # the command line does without


def open_ram(size: int, more: str = "", *, huge: bool = True) -> int:
    """The file behind guest RAM: on a tmpfs of its own, which holds `size` bytes and no more.
    `more`: options of that, after a comma.

    huge=always gives huge pages whatever /sys/kernel/mm/transparent_hugepage says. Where the mount
    is refused, a memfd (its size is then bounded by its length alone).
    """
    place = "/proc"
    flags = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
    small = f"size={size},mode=0700"
    for options in (f"{small},huge=always", small) if huge else (small,):
        try:
            host.mount("runsc-ram", place, "tmpfs", flags, options + more)
        except OSError:
            continue
        fd = os.open(place, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        host.umount(place, mount.MNT_DETACH)
        return fd
    return os.memfd_create("runsc-ram", os.MFD_CLOEXEC)


def leave_root(
    kept: Mapping[str, str] = MappingProxyType({}),
    trees: Mapping[str, int] = MappingProxyType({}),
    more: str = "",
) -> None:
    """From here on `/` is an empty file system that cannot be written; nothing else is mounted.

    `kept`: but these files of the host, under such names, and these `trees`, which `clone_mount`
    gave: mounts that are attached nowhere hear of no others. `more`: options, after a comma.
    """
    flags = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
    inodes = 2 * (1 + len(kept) + len(trees))  # room for labels of SELinux beside each
    options = f"size=4k,nr_inodes={inodes},mode=0555{more}"
    filled = bool(kept or trees)
    at_first = flags & ~mount.MS_RDONLY if filled else flags
    host.mount("runsc-empty", "/proc", "tmpfs", at_first, options)
    os.chdir("/proc")
    for name, path in kept.items():
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        host.mount(path, name, None, mount.MS_BIND)
    for name, fd in trees.items():
        os.mkdir(name)
        host.attach_mount(fd, name)
    if filled:
        host.mount(None, ".", None, mount.MS_REMOUNT | flags)
    host.pivot_root(".", ".")
    host.umount(".", mount.MNT_DETACH)
    os.chdir("/")


def open_pagemap(proc: int) -> int:
    """/proc/self/pagemap; -1 where it cannot be had. `proc` is a descriptor of /proc.

    Whoever opens it with CAP_SYS_ADMIN is told where in the host's memory pages lie: so without.
    Preconditions: still whom the file belongs to.
    """
    with open("self/status", "rb", opener=partial(os.open, dir_fd=proc)) as file:
        found = dict(line.split(b":", 1) for line in file)
    names = (b"CapEff", b"CapPrm", b"CapInh")
    effective, permitted, inheritable = (int(found[name], 16) for name in names)
    host.capset(0, permitted, inheritable)
    try:
        return os.open("self/pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return -1
    finally:
        host.capset(effective, permitted, inheritable)


def drop_rights(
    rights: Rights, tie: int = signal.SIGKILL, put_on: Callable[[], object] = lambda: None
) -> None:
    """Identity, capabilities, resource limits; no way to gain anything again.

    `put_on`: a label, when nothing more is needed that it could forbid.

    Preconditions: one thread (capset(2) and no_new_privs are per thread; later threads inherit).
    """
    _limits(rights.open_files)
    for number in range(capability.CAP_LAST_CAP + 1):
        if number not in rights.capabilities:
            host.prctl(prctl.PR_CAPBSET_DROP, number)
    host.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL)
    _become(rights.uid)
    mask = sum(1 << number for number in rights.capabilities)
    host.capset(mask, mask)
    put_on()
    host.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)
    host.prctl(prctl.PR_SET_DUMPABLE, 0)
    tie_to_parent(tie)


def _become(uid: int) -> None:
    """Change user and group; in an ordinary user's namespace there is nobody to change to."""
    if os.getuid() == uid:
        return
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise


def _limits(open_files: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ceiling = min(open_files, hard) if hard != resource.RLIM_INFINITY else open_files
    resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, ceiling))
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK):
        resource.setrlimit(limit, (0, 0))
    host.one_malloc_arena()


def open_more() -> None:
    """As many files as the hard limit allows, however low the caller's soft one is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_open_files() -> None:
    """Before anything is made. Raises: RuntimeFailure."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        raise RuntimeFailure(
            f"too few files may be open: {hard}, and a sandbox needs {LEAST_FILES}",
            hint="raise the hard limit: `ulimit -Hn`",
        )


def limit_tasks(count: int) -> None:
    """RLIMIT_NPROC: no thread or process is made while there are so many.

    The kernel counts the tasks of a user, of all its sandboxes, unless they are in a user namespace
    of their own, and only since Linux 5.14: where it does not, a count above zero is no bound for
    this process, and none is set. Root has none in any case.
    """
    release = os.uname().release.split(".")
    if not count or (int(release[0]), int(release[1].partition("-")[0])) >= (5, 14):
        resource.setrlimit(resource.RLIMIT_NPROC, (count, count))


def freeze_heap() -> None:
    """Before a fork: what exists stays out of the collector's sight, so its pages stay shared.

    Without a collection: imports leave little garbage, and looking for it takes 20 ms.
    """
    gc.freeze()
