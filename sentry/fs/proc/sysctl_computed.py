"""/proc/sys: values that are worked out when they are read, or that another object has.

Those of memory and of networks have modules of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.capability import (
    CAP_CHECKPOINT_RESTORE,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    CAP_SYS_RESOURCE,
)
from sentry.abi.limits import HOST_NAME_MAX, INT_MAX
from sentry.auth.ptrace import YAMA_NO_ATTACH, YAMA_SCOPE, yama_scope
from sentry.auth.userns import UNLIMITED, NamespaceCounts, UserNamespace
from sentry.errors import EINVAL
from sentry.fs.proc.sysctl import computed, get_sysctl, having, values
from sentry.uuids import random_uuid

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.fs.kernel import Kernel

NR_OPEN_MIN, NR_OPEN_MAX = 64, INT_MAX & ~63


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _set_hostname(who: Any, value: str) -> None:
    who.ns.uts.set_name("nodename", value.encode("utf-8", "surrogateescape")[:HOST_NAME_MAX])


def _set_domainname(who: Any, value: str) -> None:
    who.ns.uts.set_name("domainname", value.encode("utf-8", "surrogateescape")[:HOST_NAME_MAX])


computed(
    "kernel/hostname", _set_hostname, of_reader=True,
    changes=lambda who: who.ns.uts.changes["nodename"],
)(lambda who: _text(who.ns.uts.nodename))  # fmt: skip
computed(
    "kernel/domainname", _set_domainname, of_reader=True,
    changes=lambda who: who.ns.uts.changes["domainname"],
)(lambda who: _text(who.ns.uts.domainname))  # fmt: skip
computed("kernel/osrelease")(lambda kernel: _text(kernel.uts.release))
computed("kernel/ostype")(lambda kernel: _text(kernel.uts.sysname))
computed("kernel/version")(lambda kernel: _text(kernel.uts.version))
computed("kernel/arch")(lambda kernel: _text(kernel.uts.machine))
computed("kernel/cap_last_cap")(lambda _: "40")
computed("kernel/ngroups_max")(lambda _: "65536")
computed("kernel/threads-max")(lambda _: "32768")
computed("kernel/random/entropy_avail")(lambda _: "256")
computed("kernel/random/poolsize")(lambda _: "256")
computed("kernel/random/urandom_min_reseed_secs")(lambda _: "60")
computed("kernel/random/write_wakeup_threshold")(lambda _: "256")
computed("kernel/random/uuid")(lambda _: random_uuid())
computed("kernel/seccomp/actions_avail")(
    lambda _: "kill_process kill_thread trap errno trace log allow"
)
computed("kernel/seccomp/actions_logged")(
    lambda _: "kill_process kill_thread trap errno trace log"
)


@computed("kernel/random/boot_id")
def boot_id(kernel: Kernel) -> str:
    """The same as long as the sandbox lives."""
    return kernel.services.boot_id


@computed("fs/aio-nr")
def aio_nr(kernel: Kernel) -> str:
    """Requests that io_setup(2) reserved."""
    return str(kernel.vfs.budget.aio_events)


def _set_mount_max(kernel: Kernel, value: str) -> None:
    if not value.isdecimal() or not 1 <= int(value) <= INT_MAX:
        raise EINVAL(value)
    kernel.vfs.budget.mount_max = int(value)


@computed("fs/mount-max", _set_mount_max)
def mount_max(kernel: Kernel) -> str:
    """Mounts that a namespace may have."""
    return str(kernel.vfs.budget.mount_max)


@computed("fs/file-nr")
def file_nr(kernel: Kernel) -> str:
    """Open, free, most."""
    budget = kernel.vfs.budget
    return f"{budget.anonymous + budget.files}\t0\t{get_sysctl(kernel, 'fs/file-max')}"


def _set_pid_max(kernel: Kernel, value: str) -> None:
    if not value.isdecimal():
        raise EINVAL(value)
    kernel.pids.set_max(int(value))


computed("kernel/pid_max", _set_pid_max)(lambda kernel: str(kernel.pids.pid_max))


def restores(creds: Credentials, namespace: UserNamespace | None) -> bool:
    """checkpoint_restore_ns_capable()."""
    return any(creds.has_in(namespace, cap) for cap in (CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN))


def _set_last_pid(who: Any, value: str) -> None:
    """pid_ns_ctl_handler(): the next process gets the number after it."""
    if not value.strip().isdecimal() or int(value) > who.kernel.pids.pid_max:
        raise EINVAL(value)
    who.pids.last = int(value)


computed(
    "kernel/ns_last_pid", _set_last_pid, of_reader=True, mode=0o666,
    needs=lambda who: restores(who.creds, who.pids.owner),
)(lambda who: str(who.pids.last))  # fmt: skip


def _set_nr_open(kernel: Kernel, value: str) -> None:
    if not value.strip().isdecimal() or not NR_OPEN_MIN <= int(value) <= NR_OPEN_MAX:
        raise EINVAL(value)
    kernel.vfs.descriptors.nr_open = int(value)


computed("fs/nr_open", _set_nr_open)(lambda kernel: str(kernel.vfs.descriptors.nr_open))


def _set_yama(kernel: Kernel, value: str) -> None:
    """0 to 3, and never back from 3: yama_dointvec_minmax()."""
    low = YAMA_NO_ATTACH if yama_scope(kernel) == YAMA_NO_ATTACH else 0
    if not value.strip().isdecimal() or not low <= int(value) <= YAMA_NO_ATTACH:
        raise EINVAL(value)
    values(kernel)[YAMA_SCOPE] = str(int(value))


computed(YAMA_SCOPE, _set_yama, needs=having(CAP_SYS_PTRACE))(
    lambda kernel: str(yama_scope(kernel))
)


def _protected(name: str) -> None:
    """fs.protected_*: attributes of the Vfs."""

    def put(kernel: Kernel, value: str) -> None:
        if value.strip() not in ("0", "1", "2"):
            raise EINVAL(value)
        setattr(kernel.vfs, name, int(value))

    computed(f"fs/{name}", put)(lambda kernel: str(int(getattr(kernel.vfs, name))))


def _pipe_limit(name: str, attribute: str) -> None:
    """fs.pipe-*: attributes of the PipeLimits."""

    def put(kernel: Kernel, value: str) -> None:
        if not value.isdecimal():
            raise EINVAL(value)
        number = int(value)
        if attribute == "max_size":  # round_pipe_size()
            if number > 1 << 31:
                raise EINVAL(value)
            number = max(4096, 1 << (number - 1).bit_length() if number else 0)
        setattr(kernel.vfs.pipes, attribute, number)

    computed(f"fs/{name}", put)(lambda kernel: str(getattr(kernel.vfs.pipes, attribute)))


_pipe_limit("pipe-max-size", "max_size")
_pipe_limit("pipe-user-pages-soft", "user_pages_soft")
_pipe_limit("pipe-user-pages-hard", "user_pages_hard")


def _next_id(name: str) -> None:
    """kernel.*_next_id: which identifier the next object of the reader's namespace gets."""

    def put(who: Any, value: str) -> None:
        if not value.isdecimal() or int(value) > INT_MAX:
            raise EINVAL(value)
        who.ns.ipc.next_ids[name] = int(value)

    @computed(
        f"kernel/{name}_next_id", put, of_reader=True, mode=0o444,
        writers=lambda creds, who: restores(creds, who.ns.ipc.owner),
    )  # fmt: skip
    def get(who: Any) -> str:
        return str(who.ns.ipc.next_ids.get(name, -1))


for _name in ("msg", "sem", "shm"):
    _next_id(_name)


for _name in ("protected_symlinks", "protected_hardlinks", "protected_regular", "protected_fifos"):
    _protected(_name)


def _namespace_counts(who: Any) -> tuple[NamespaceCounts, UserNamespace | None]:
    return who.kernel.services.namespace_counts, who.creds.user_ns


def _ceiling(kind: str) -> None:
    def put(who: Any, value: str) -> None:
        if not value.isdecimal() or int(value) > UNLIMITED:
            raise EINVAL(value)
        counts, ns = _namespace_counts(who)
        (counts.limits if ns is None else ns.limits)[kind] = int(value)

    @computed(
        f"user/max_{kind}_namespaces", put, of_reader=True,
        writers=lambda creds, _: creds.own(CAP_SYS_RESOURCE),
    )  # fmt: skip
    def get(who: Any) -> str:
        counts, ns = _namespace_counts(who)
        return str(counts.limit(ns, kind))


for _kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"):
    _ceiling(_kind)
