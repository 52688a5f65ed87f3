"""Names of numbers whose declaration says only that they are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Final

from sentry.abi import (
    eventfd,
    fcntl,
    ioctl,
    mman,
    poll,
    resource,
    signal,
    socket,
    time,
    wait,
)
from sentry.syscalls.show import Show, flags_text, show_choice, show_flags


def names(module: ModuleType, *prefixes: str, without: tuple[str, ...] = ()) -> dict[str, int]:
    """The constants of a module whose names begin so."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int) and name.startswith(prefixes) and name not in without
    }


def only(module: ModuleType, *wanted: str) -> dict[str, int]:
    """Some constants of a module."""
    return {name: getattr(module, name) for name in wanted}


ACCESS: Final = {"F_OK": 0, "X_OK": 1, "W_OK": 2, "R_OK": 4}
AT: Final = {
    name: value
    for name, value in names(fcntl, "AT_").items()
    if name.startswith(("AT_SYMLINK", "AT_NO_", "AT_EMPTY", "AT_RECURSIVE"))
}
AT_REMOVE: Final = only(fcntl, "AT_REMOVEDIR")
AT_ACCESS: Final = AT | only(fcntl, "AT_EACCESS")
MSG: Final = names(socket, "MSG_")
SOCK_TYPES: Final = only(
    socket, "SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET"
)
SOCK_FLAGS: Final = only(socket, "SOCK_NONBLOCK", "SOCK_CLOEXEC")
O_FLAGS: Final = only(fcntl, "O_CLOEXEC", "O_NONBLOCK", "O_DIRECT")
PRIO: Final = only(resource, "PRIO_PROCESS", "PRIO_PGRP", "PRIO_USER")
_WAIT: Final = ("WNOHANG", "WUNTRACED", "WEXITED", "WCONTINUED", "WNOWAIT", "__WNOTHREAD",
                "__WALL", "__WCLONE")  # fmt: skip
WAIT: Final = {n: v & 0xFFFFFFFF for n, v in names(wait, "W", "__W").items() if n in _WAIT}


def _socket_type() -> Show:
    kinds = {value: name for name, value in SOCK_TYPES.items()}

    def show(_: object, raw: int) -> str:
        value = raw & 0xFFFFFFFF
        kind = kinds.get(value & 0xF, str(value & 0xF))
        flags = flags_text(SOCK_FLAGS, value & ~0xF, "")
        return f"{kind}|{flags}" if flags else kind

    return show


def _families() -> dict[str, int]:
    wanted = ("AF_UNSPEC", "AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK")
    return {name: value for name, value in names(socket, "AF_").items() if name in wanted}


def _table() -> dict[tuple[str, str], Show]:
    at, message = show_flags(AT), show_flags(MSG)
    table: dict[tuple[str, str], Show] = {
        ("lseek", "whence"): show_choice(names(fcntl, "SEEK_", without=("SEEK_MAX",))),
        ("unlinkat", "flags"): show_flags(AT_REMOVE),
        ("faccessat2", "flags"): show_flags(AT_ACCESS),
        ("socket", "family"): show_choice(_families()),
        ("socketpair", "family"): show_choice(_families()),
        ("socket", "kind"): _socket_type(),
        ("socketpair", "kind"): _socket_type(),
        ("accept4", "flags"): show_flags(SOCK_FLAGS),
        ("fcntl", "command"): show_choice(
            {n: v for n, v in names(fcntl, "F_").items() if n[2:5] in ("DUP", "GET", "SET", "OFD",
             "ADD", "CAN", "NOT")}
        ),
        ("ioctl", "request"): show_choice(names(ioctl, "TC", "TIOC", "FIO", "FS_IOC", "FIGETBSZ")),
        ("flock", "operation"): show_flags(names(fcntl, "LOCK_")),
        ("msync", "flags"): show_flags(names(mman, "MS_")),
        ("mremap", "flags"): show_flags(names(mman, "MREMAP_")),
        ("mlockall", "flags"): show_flags(names(mman, "MCL_")),
        ("memfd_create", "flags"): show_flags(names(mman, "MFD_")),
        ("eventfd2", "flags"): show_flags(names(eventfd, "EFD_")),
        ("epoll_create1", "flags"): show_flags(only(poll, "EPOLL_CLOEXEC")),
        ("signalfd4", "flags"): show_flags(names(signal, "SFD_")),
        ("epoll_ctl", "op"): show_choice(names(poll, "EPOLL_CTL_")),
        ("renameat2", "flags"): show_flags(names(fcntl, "RENAME_")),
        ("close_range", "flags"): show_flags(names(fcntl, "CLOSE_RANGE_")),
        ("fallocate", "mode"): show_flags(names(fcntl, "FALLOC_")),
        ("waitid", "kind"): show_choice(names(wait, "P_")),
        ("shutdown", "how"): show_choice(names(socket, "SHUT_")),
        ("getpriority", "which"): show_choice(PRIO),
        ("setpriority", "which"): show_choice(PRIO),
        ("clock_nanosleep", "flags"): show_flags(only(time, "TIMER_ABSTIME")),
        ("timer_settime", "how"): show_flags(only(time, "TIMER_ABSTIME")),
    }  # fmt: skip
    for call in ("access", "faccessat", "faccessat2"):
        table[call, "mode"] = show_flags(ACCESS)
    for call in ("newfstatat", "statx", "linkat", "fchownat", "utimensat", "execveat", "fchmodat2"):
        table[call, "flags"] = at
    for call in ("pipe2", "dup3"):
        table[call, "flags"] = show_flags(O_FLAGS)
    for call in ("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg"):
        table[call, "flags"] = message
    for call in ("wait4", "waitid"):
        table[call, "options"] = show_flags(WAIT)
    for call in ("setsockopt", "getsockopt"):
        table[call, "level"] = show_choice(
            only(socket, "SOL_SOCKET", "SOL_IP", "SOL_TCP", "SOL_UDP", "SOL_IPV6")
        )
    return table


NAMED: Final[Mapping[tuple[str, str], Show]] = _table()
"""By call and parameter of the declaration."""
