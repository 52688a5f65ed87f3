"""Arguments that a declaration alone cannot show: their meaning lies in another argument."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sentry.abi import poll as poll_abi
from sentry.abi import sched as sched_abi
from sentry.abi.poll import POLLFD
from sentry.abi.sched import CLONE_ARGS
from sentry.abi.stat import STAT
from sentry.abi.time import TIMESPEC
from sentry.syscalls.show import (
    STRING_LIMIT,
    VECTOR_LIMIT,
    flags_text,
    peek,
    quote,
    show_mode,
    show_string,
    show_struct,
)
from sentry.syscalls.types import SIGNALS

if TYPE_CHECKING:
    from sentry.abi.layout import Layout
    from sentry.kernel.task import Task

Override = Callable[["Task", int, tuple[int, ...]], str]

_CLONE = {
    n: v for n, v in vars(sched_abi).items() if n.startswith("CLONE_") and isinstance(v, int)
}
_POLL = {n: v for n, v in vars(poll_abi).items() if n.startswith("POLL") and isinstance(v, int)}
_EPOLL = {
    n: v
    for n, v in vars(poll_abi).items()
    if n.startswith("EPOLL") and not n.startswith(("EPOLL_", "EPOLLWAKEUP")) and isinstance(v, int)
}
EPOLL_EVENT_SIZE = 12
MAY_CREATE = 0o100 | 0o20000000
"""O_CREAT, __O_TMPFILE."""
_SIGNAL_NAMES = {v: n for n, v in SIGNALS.items()}
MAX_SOCKADDR = 128


def sockaddr_text(data: bytes) -> str:
    """A socket address."""
    if len(data) < 2:
        return quote(data)
    (family,) = struct.unpack_from("<H", data)
    if family == socket.AF_UNIX:
        path = data[2:]
        if not path:
            return "{sa_family=AF_UNIX}"
        if path[:1] == b"\0":
            return f"{{sa_family=AF_UNIX, sun_path=@{quote(path[1:], 108)}}}"
        return f"{{sa_family=AF_UNIX, sun_path={quote(path.split(bytes(1), 1)[0], 108)}}}"
    if family == socket.AF_INET and len(data) >= 8:
        port, host = struct.unpack_from("!H4s", data, 2)
        text = ".".join(map(str, host))
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{text}")}}'
    if family == socket.AF_INET6 and len(data) >= 24:
        port, flow, host = struct.unpack_from("!HI16s", data, 2)
        text = socket.inet_ntop(socket.AF_INET6, host)
        return (
            f"{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), "
            f'inet_pton(AF_INET6, "{text}", &sin6_addr)}}'
        )
    return f"{{sa_family={family}, sa_data={quote(data[2:])}}}"


def _sockaddr(length_index: int) -> Override:
    """A socket address whose length is another argument."""

    def show(task: Task, raw: int, values: tuple[int, ...]) -> str:
        if not raw:
            return "NULL"
        data = peek(task, raw, min(values[length_index] & 0xFFFFFFFF, MAX_SOCKADDR))
        return f"{raw:#x}" if data is None else sockaddr_text(data)

    return show


def _sockaddr_out(length_index: int) -> Override:
    """A socket address that was filled in; its length is behind a pointer."""

    def show(task: Task, raw: int, values: tuple[int, ...]) -> str:
        length = peek(task, values[length_index], 4) if raw else None
        if length is None:
            return f"{raw:#x}" if raw else "NULL"
        data = peek(task, raw, min(int.from_bytes(length, "little"), MAX_SOCKADDR))
        return f"{raw:#x}" if data is None else sockaddr_text(data)

    return show


def _sigset(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """A signal mask: `[INT CHLD]`, or `~[…]` where that is shorter."""
    data = peek(task, raw, 8) if raw else None
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    mask = int.from_bytes(data, "little")
    inverted = mask.bit_count() > 32
    if inverted:
        mask ^= (1 << 64) - 1
    names = [_SIGNAL_NAMES[n].removeprefix("SIG") for n in range(1, 65) if mask >> (n - 1) & 1]
    return ("~[" if inverted else "[") + " ".join(names) + "]"


def _sigaction(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """struct kernel_sigaction: handler, flags, restorer, mask."""
    data = peek(task, raw, 32) if raw else None
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    handler, flags, restorer, _mask = struct.unpack("<4Q", data)
    from sentry.abi import signal as abi  # noqa: PLC0415

    names = {n: v for n, v in vars(abi).items() if n.startswith("SA_")}
    name = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, f"{handler:#x}")
    text = f"sa_handler={name}, sa_mask={_sigset(task, raw + 24, ())}, "
    text += f"sa_flags={flags_text(names, flags)}"
    if restorer:
        text += f", sa_restorer={restorer:#x}"
    return "{" + text + "}"


def _pollfds(task: Task, raw: int, values: tuple[int, ...]) -> str:
    """An array of struct pollfd."""
    count = min(values[1], VECTOR_LIMIT)
    data = peek(task, raw, POLLFD.size * count)
    if data is None or not raw:
        return f"{raw:#x}" if raw else "NULL"
    shown = [
        f"{{fd={p.fd}, events={flags_text(_POLL, p.events & 0xFFFF)}}}"
        for p in POLLFD.unpack_all(data)
    ]
    return "[" + ", ".join(shown + ["..."] * (values[1] > VECTOR_LIMIT)) + "]"


def _clone_args(task: Task, raw: int, values: tuple[int, ...]) -> str:
    """struct clone_args."""
    data = peek(task, raw, min(values[1], CLONE_ARGS.size))
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    a = CLONE_ARGS.unpack(data.ljust(CLONE_ARGS.size, b"\0"))
    signo = _SIGNAL_NAMES.get(a.exit_signal, str(a.exit_signal))
    text = f"{{flags={flags_text(_CLONE, a.flags)}, exit_signal={signo}, "
    return text + f"stack={a.stack:#x}, stack_size={a.stack_size:#x}, tls={a.tls:#x}}}"


def _clone_flags(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """The flags of clone, whose low byte is a signal."""
    signo = raw & 0xFF
    text = flags_text(_CLONE, raw & 0xFFFFFF00, "")
    name = _SIGNAL_NAMES.get(signo, f"{signo:#x}") if signo else ""
    return "|".join(filter(None, (text, name))) or "0"


def _wait_status(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """What wait4 stored."""
    data = peek(task, raw, 4) if raw else None
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    status = int.from_bytes(data, "little")
    signo = status & 0x7F
    if signo == 0:
        return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}]"
    if signo == 0x7F:
        name = _SIGNAL_NAMES.get(status >> 8 & 0xFF, "?")
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {name}}}]"
    return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {_SIGNAL_NAMES.get(signo, signo)}}}]"


def _fd_pair(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """Two descriptors (pipe, socketpair)."""
    data = peek(task, raw, 8) if raw else None
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    return "[{}, {}]".format(*struct.unpack("<ii", data))


def _struct(layout: Layout[Any]) -> Override:
    """A struct whose declaration is a plain pointer."""
    shown = show_struct(layout)
    return lambda task, raw, _: shown(task, raw)


def _timespecs(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """utimensat: access and modification time."""
    data = peek(task, raw, 32) if raw else None
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    special = {(1 << 30) - 1: "UTIME_NOW", (1 << 30) - 2: "UTIME_OMIT"}
    shown = [
        special.get(t.tv_nsec) or f"{{tv_sec={t.tv_sec}, tv_nsec={t.tv_nsec}}}"
        for t in TIMESPEC.unpack_all(data)
    ]
    return "[" + ", ".join(shown) + "]"


def _epoll_event(data: bytes) -> str:
    events, value = struct.unpack("<IQ", data)
    return f"{{events={flags_text(_EPOLL, events)}, data={value:#x}}}"


def _epoll_in(task: Task, raw: int, _: tuple[int, ...]) -> str:
    """The event of epoll_ctl."""
    data = peek(task, raw, EPOLL_EVENT_SIZE) if raw else None
    return _epoll_event(data) if data is not None else f"{raw:#x}" if raw else "NULL"


def _iovec(task: Task, raw: int, values: tuple[int, ...]) -> str:
    """An array of struct iovec, with what is to be written."""
    count = min(values[2], VECTOR_LIMIT)
    data = peek(task, raw, 16 * count) if raw else None
    if data is None:
        return f"{raw:#x}" if raw else "NULL"
    shown = []
    for base, length in struct.iter_unpack("<QQ", data):
        text = peek(task, base, min(length, STRING_LIMIT + 1)) if length else b""
        piece = f"{base:#x}" if text is None else quote(text)
        shown.append(f"{{iov_base={piece}, iov_len={length}}}")
    return "[" + ", ".join(shown + ["..."] * (values[2] > VECTOR_LIMIT)) + "]"


def _create_mode(flags_index: int) -> Override:
    """The mode of open, which counts only where a file may be made."""

    def show(task: Task, raw: int, values: tuple[int, ...]) -> str:
        return show_mode(task, raw) if values[flags_index] & MAY_CREATE else ""

    return show


def _string(task: Task, raw: int, _: tuple[int, ...]) -> str:
    return show_string(task, raw)


OVERRIDES: Mapping[tuple[str, str], Override] = {
    ("open", "mode"): _create_mode(1),
    ("openat", "mode"): _create_mode(2),
    ("connect", "address"): _sockaddr(2),
    ("bind", "address"): _sockaddr(2),
    ("sendto", "address"): _sockaddr(5),
    ("accept", "out"): _sockaddr_out(2),
    ("accept4", "out"): _sockaddr_out(2),
    ("getsockname", "out"): _sockaddr_out(2),
    ("getpeername", "out"): _sockaddr_out(2),
    ("recvfrom", "address"): _sockaddr_out(5),
    ("rt_sigprocmask", "new"): _sigset,
    ("rt_sigprocmask", "old"): _sigset,
    ("rt_sigpending", "result"): _sigset,
    ("rt_sigsuspend", "mask"): _sigset,
    ("rt_sigtimedwait", "wanted"): _sigset,
    ("signalfd4", "mask"): _sigset,
    ("ppoll", "mask"): _sigset,
    ("rt_sigaction", "new"): _sigaction,
    ("rt_sigaction", "old"): _sigaction,
    ("rt_sigtimedwait", "timeout"): _struct(TIMESPEC),
    ("ppoll", "timeout"): _struct(TIMESPEC),
    ("futex", "timeout"): _struct(TIMESPEC),
    ("poll", "fds"): _pollfds,
    ("ppoll", "fds"): _pollfds,
    ("epoll_ctl", "event"): _epoll_in,
    ("writev", "vector"): _iovec,
    ("clone", "flags"): _clone_flags,
    ("clone3", "args"): _clone_args,
    ("wait4", "status"): _wait_status,
    ("pipe", "fds"): _fd_pair,
    ("pipe2", "fds"): _fd_pair,
    ("socketpair", "out"): _fd_pair,
    ("stat", "buf"): _struct(STAT),
    ("lstat", "buf"): _struct(STAT),
    ("fstat", "buf"): _struct(STAT),
    ("newfstatat", "buf"): _struct(STAT),
    ("utimensat", "times"): _timespecs,
    ("memfd_create", "name"): _string,
}
"""By call and parameter of the declaration. An empty text leaves the argument out."""
LATE = frozenset({
    ("accept", "out"), ("accept4", "out"), ("getsockname", "out"), ("getpeername", "out"),
    ("recvfrom", "address"), ("rt_sigprocmask", "old"), ("rt_sigpending", "result"),
    ("rt_sigaction", "old"), ("pipe", "fds"), ("pipe2", "fds"),
})  # fmt: skip
"""Arguments that the kernel fills in, though their declaration does not say so."""
