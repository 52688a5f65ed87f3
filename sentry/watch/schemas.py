"""Which message a system call has in gVisor's schema, and where its fields come from.

A row names, for fields of the message, a parameter of the call's declaration (whose mark says how
the register is to be read), a constant, a function of (task, registers, ended), or one that is
called when the call begins. `fd_path` is always that of the first descriptor field. All other calls
have the message `Syscall`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from sentry.abi.fcntl import AT_FDCWD, O_CREAT, O_TRUNC, O_WRONLY
from sentry.syscalls.show import peek
from sentry.watch import messages as m
from sentry.watch import reading
from sentry.watch.messages import MessageType as Type

Registers = tuple[int, ...]
Derived = Callable[[Any, Registers, bool], Any]


class Early(Struct, frozen=True):
    """A source that is read when the call begins, since it may be gone when it ends."""

    read: Callable[[Any, Registers], Any]


Source = str | int | Derived | Early
Kind = type[m.Named]


class Schema(Struct, frozen=True):
    """A row."""

    type: Type
    kind: Kind
    sources: Mapping[str, Source] = {}
    optional: tuple[str, ...] = ()
    """Fields that are only filled in where a session asks for them."""


def _argv(index: int) -> Early:
    return Early(lambda task, raw: reading.vector(task, raw[index]))


def _total(task: Any, raw: Registers, _: bool) -> int:
    return reading.total(task, raw[1], raw[2])


def _address(task: Any, raw: Registers, _: bool) -> bytes:
    return reading.address(task, raw[1], raw[2])


def _peer_address(task: Any, raw: Registers, ended: bool) -> bytes:
    """That of who has connected: it is there when the call is over."""
    size = reading.number(task, raw[2], 4) if ended else 0
    return reading.address(task, raw[1], size)


def _pair(index: int, which: int) -> Derived:
    """One of two descriptors that the call stores."""

    def read(task: Any, raw: Registers, ended: bool) -> int:
        number = reading.number(task, raw[index] + 4 * which, 4) if ended else 0
        return (number ^ 1 << 31) - (1 << 31)

    return read


def _mask(task: Any, raw: Registers, _: bool) -> int:
    return reading.number(task, raw[1], 8)


def _rlimit(index: int) -> Derived:
    return lambda task, raw, _: reading.rlimit(task, raw[index])


def _old_rlimit(task: Any, raw: Registers, ended: bool) -> Any:
    return reading.rlimit(task, raw[3]) if ended else None


def _itimerspec(task: Any, raw: Registers, _: bool) -> Any:
    return reading.itimerspec(task, raw[2])


def _itimerspec_out(index: int) -> Derived:
    return lambda task, raw, ended: reading.itimerspec(task, raw[index]) if ended else None


def _create_mode(task: Any, raw: Registers, _: bool) -> int:
    return raw[3] & 0xFFFF if raw[2] & O_CREAT else 0


def _new_tid(task: Any, raw: Registers, _: bool) -> int:
    data = peek(task, raw[2], 4) if raw[2] else None
    return int.from_bytes(data or b"", "little")


FD: Final = ("fd_path",)
_READ: Final = {"fd": "file", "count": "count"}
_AT: Final[dict[str, Source]] = {"fd": "fd", "count": "count", "has_offset": 1, "offset": "offset"}
_VECTOR: Final[dict[str, Source]] = {"fd": "file", "count": _total}
_VECTOR_AT: Final[dict[str, Source]] = {
    "fd": "fd", "count": _total, "has_offset": 1, "offset": "low"
}  # fmt: skip
_VECTOR_FLAGS: Final[dict[str, Source]] = _VECTOR_AT | {"flags": "flags"}
_ACCEPT: Final[dict[str, Source]] = {"fd": "fd", "address": _peer_address}
_ADDRESS: Final[dict[str, Source]] = {"fd": "fd", "address": _address}
_DUP: Final = {"old_fd": "old", "new_fd": "new"}
_KIND: Final = {"domain": "family", "type": "kind", "protocol": "protocol"}

SCHEMAS: Final[dict[str, Schema]] = {
    "read": Schema(Type.SYSCALL_READ, m.Read, _READ, FD),
    "write": Schema(Type.SYSCALL_WRITE, m.Write, _READ, FD),
    "open": Schema(
        Type.SYSCALL_OPEN, m.Open,
        {"fd": AT_FDCWD, "pathname": "path", "flags": "flags", "mode": "mode"},
    ),
    "close": Schema(Type.SYSCALL_CLOSE, m.Close, {"fd": "fd"}, FD),
    "pread64": Schema(Type.SYSCALL_READ, m.Read, _AT, FD),
    "pwrite64": Schema(Type.SYSCALL_WRITE, m.Write, _AT, FD),
    "readv": Schema(Type.SYSCALL_READ, m.Read, _VECTOR, FD),
    "writev": Schema(Type.SYSCALL_WRITE, m.Write, _VECTOR, FD),
    "pipe": Schema(
        Type.SYSCALL_PIPE, m.Pipe, {"reader": _pair(0, 0), "writer": _pair(0, 1)}
    ),
    "dup": Schema(Type.SYSCALL_DUP, m.Dup, {"old_fd": "file"}, FD),
    "dup2": Schema(Type.SYSCALL_DUP, m.Dup, _DUP, FD),
    "socket": Schema(Type.SYSCALL_SOCKET, m.Socket, _KIND),
    "connect": Schema(Type.SYSCALL_CONNECT, m.Connect, _ADDRESS, FD),
    "accept": Schema(Type.SYSCALL_ACCEPT, m.Accept, _ACCEPT, FD),
    "bind": Schema(Type.SYSCALL_BIND, m.Bind, _ADDRESS, FD),
    "socketpair": Schema(
        Type.SYSCALL_SOCKETPAIR, m.SocketPair,
        _KIND | {"socket1": _pair(3, 0), "socket2": _pair(3, 1)},
    ),
    "clone": Schema(
        Type.SYSCALL_CLONE, m.Clone,
        {"flags": "flags", "stack": "stack", "new_tid": _new_tid, "tls": "tls"},
    ),
    "fork": Schema(Type.SYSCALL_FORK, m.Fork),
    "vfork": Schema(Type.SYSCALL_FORK, m.Fork),
    "execve": Schema(
        Type.SYSCALL_EXECVE, m.Execve,
        {"pathname": "path", "argv": _argv(1), "envv": _argv(2)}, ("envv",),
    ),
    "fcntl": Schema(
        Type.SYSCALL_FCNTL, m.Fcntl, {"fd": "fd", "cmd": "command", "args": "argument"}, FD
    ),
    "creat": Schema(
        Type.SYSCALL_OPEN, m.Open,
        {"fd": AT_FDCWD, "pathname": "path", "flags": O_WRONLY | O_CREAT | O_TRUNC,
         "mode": "mode"}, FD,
    ),
    "chdir": Schema(Type.SYSCALL_CHDIR, m.Chdir, {"fd": AT_FDCWD, "pathname": "path"}),
    "fchdir": Schema(Type.SYSCALL_CHDIR, m.Chdir, {"fd": "file"}, FD),
    "setuid": Schema(Type.SYSCALL_SETID, m.Setid, {"id": "uid"}),
    "setgid": Schema(Type.SYSCALL_SETID, m.Setid, {"id": "gid"}),
    "setsid": Schema(Type.SYSCALL_SETID, m.Setid),
    "setresuid": Schema(
        Type.SYSCALL_SETRESID, m.Setresid, {"rid": "ruid", "eid": "euid", "sid": "suid"}
    ),
    "setresgid": Schema(
        Type.SYSCALL_SETRESID, m.Setresid, {"rid": "rgid", "eid": "egid", "sid": "sgid"}
    ),
    "chroot": Schema(Type.SYSCALL_CHROOT, m.Chroot, {"pathname": "path"}),
    "inotify_init": Schema(Type.SYSCALL_INOTIFY_INIT, m.InotifyInit),
    "inotify_add_watch": Schema(
        Type.SYSCALL_INOTIFY_ADD_WATCH, m.InotifyAddWatch,
        {"fd": "fd", "pathname": "path", "mask": "mask"}, FD,
    ),
    "inotify_rm_watch": Schema(
        Type.SYSCALL_INOTIFY_RM_WATCH, m.InotifyRmWatch, {"fd": "fd", "wd": "wd"}, FD
    ),
    "openat": Schema(
        Type.SYSCALL_OPEN, m.Open,
        {"fd": "dirfd", "pathname": "path", "flags": "flags", "mode": _create_mode}, FD,
    ),
    "signalfd": Schema(Type.SYSCALL_SIGNALFD, m.Signalfd, {"fd": "fd", "sigset": _mask}, FD),
    "timerfd_create": Schema(
        Type.SYSCALL_TIMERFD_CREATE, m.TimerfdCreate, {"clock_id": "clock", "flags": "how"}
    ),
    "eventfd": Schema(Type.SYSCALL_EVENTFD, m.Eventfd, {"val": "count"}),
    "timerfd_settime": Schema(
        Type.SYSCALL_TIMERFD_SETTIME, m.TimerfdSetTime,
        {"fd": "fd", "flags": "how", "new_value": _itimerspec,
         "old_value": _itimerspec_out(3)}, FD,
    ),
    "timerfd_gettime": Schema(
        Type.SYSCALL_TIMERFD_GETTIME, m.TimerfdGetTime,
        {"fd": "fd", "cur_value": _itimerspec_out(1)}, FD,
    ),
    "accept4": Schema(Type.SYSCALL_ACCEPT, m.Accept, _ACCEPT | {"flags": "flags"}, FD),
    "signalfd4": Schema(
        Type.SYSCALL_SIGNALFD, m.Signalfd, {"fd": "fd", "sigset": _mask, "flags": "flags"}, FD
    ),
    "eventfd2": Schema(Type.SYSCALL_EVENTFD, m.Eventfd, {"val": "count", "flags": "flags"}),
    "dup3": Schema(Type.SYSCALL_DUP, m.Dup, _DUP | {"flags": "flags"}, FD),
    "pipe2": Schema(
        Type.SYSCALL_PIPE, m.Pipe,
        {"flags": "flags", "reader": _pair(0, 0), "writer": _pair(0, 1)},
    ),
    "inotify_init1": Schema(Type.SYSCALL_INOTIFY_INIT, m.InotifyInit, {"flags": "flags"}),
    "preadv": Schema(Type.SYSCALL_READ, m.Read, _VECTOR_AT, FD),
    "pwritev": Schema(Type.SYSCALL_WRITE, m.Write, _VECTOR_AT, FD),
    "prlimit64": Schema(
        Type.SYSCALL_PRLIMIT64, m.Prlimit,
        {"pid": "pid", "resource": "number", "new_limit": _rlimit(2), "old_limit": _old_rlimit},
    ),
    "execveat": Schema(
        Type.SYSCALL_EXECVE, m.Execve,
        {"fd": "dirfd", "pathname": "path", "argv": _argv(2), "envv": _argv(3),
         "flags": "flags"}, ("fd_path", "envv"),
    ),
    "preadv2": Schema(Type.SYSCALL_READ, m.Read, _VECTOR_FLAGS, FD),
    "pwritev2": Schema(Type.SYSCALL_WRITE, m.Write, _VECTOR_FLAGS, FD),
}  # fmt: skip
"""By call."""
