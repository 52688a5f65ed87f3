"""A session of points, read: over gVisor's wire from a sandbox, or again from what was recorded.

What a sandbox says is not trusted: messages are bounded, numbers and texts are checked, and a text
is shown with what could move a terminal made harmless. A recording is the messages as they came,
each with its size before it, behind a line that says what the file is.
"""

from __future__ import annotations

import fnmatch
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import msgspec

from sentry.protobuf import Message, decode
from sentry.watch import messages as m
from sentry.watch.messages import MessageType as Type
from sentry.watch.reading import peer
from sentry.watch.sinks import HEADER

MAGIC: Final = b"runsc trace 1\n"
MAX_MESSAGE: Final = 1 << 20
_SIZE: Final = struct.Struct("<I")

KINDS: Final[dict[int, tuple[str, type[m.Record]]]] = {
    Type.CONTAINER_START: ("container/start", m.Start),
    Type.SENTRY_CLONE: ("sentry/clone", m.CloneInfo),
    Type.SENTRY_EXEC: ("sentry/execve", m.ExecveInfo),
    Type.SENTRY_EXIT_NOTIFY_PARENT: ("sentry/exit_notify_parent", m.ExitInfo),
    Type.SENTRY_TASK_EXIT: ("sentry/task_exit", m.ExitInfo),
    Type.OWN_SIGNAL: ("sentry/signal_delivered", m.SignalInfo),
    Type.OWN_OUT_OF_MEMORY: ("sentry/out_of_memory", m.OutOfMemory),
    Type.OWN_EGRESS_DENIED: ("sentry/egress_denied", m.Egress),
    Type.OWN_EGRESS_ALLOWED: ("sentry/egress_allowed", m.Egress),
    Type.OWN_DNS_ANSWER: ("sentry/dns_answer", m.DnsAnswer),
    Type.OWN_POLICY: ("sentry/policy", m.Policy),
    Type.SYSCALL_RAW: ("", m.Syscall),
    Type.SYSCALL_OPEN: ("", m.Open),
    Type.SYSCALL_CLOSE: ("", m.Close),
    Type.SYSCALL_READ: ("", m.Read),
    Type.SYSCALL_CONNECT: ("", m.Connect),
    Type.SYSCALL_EXECVE: ("", m.Execve),
    Type.SYSCALL_SOCKET: ("", m.Socket),
    Type.SYSCALL_CHDIR: ("", m.Chdir),
    Type.SYSCALL_SETID: ("", m.Setid),
    Type.SYSCALL_SETRESID: ("", m.Setresid),
    Type.SYSCALL_PRLIMIT64: ("", m.Prlimit),
    Type.SYSCALL_PIPE: ("", m.Pipe),
    Type.SYSCALL_FCNTL: ("", m.Fcntl),
    Type.SYSCALL_DUP: ("", m.Dup),
    Type.SYSCALL_SIGNALFD: ("", m.Signalfd),
    Type.SYSCALL_CHROOT: ("", m.Chroot),
    Type.SYSCALL_EVENTFD: ("", m.Eventfd),
    Type.SYSCALL_CLONE: ("", m.Clone),
    Type.SYSCALL_BIND: ("", m.Bind),
    Type.SYSCALL_ACCEPT: ("", m.Accept),
    Type.SYSCALL_TIMERFD_CREATE: ("", m.TimerfdCreate),
    Type.SYSCALL_TIMERFD_SETTIME: ("", m.TimerfdSetTime),
    Type.SYSCALL_TIMERFD_GETTIME: ("", m.TimerfdGetTime),
    Type.SYSCALL_FORK: ("", m.Fork),
    Type.SYSCALL_INOTIFY_INIT: ("", m.InotifyInit),
    Type.SYSCALL_INOTIFY_ADD_WATCH: ("", m.InotifyAddWatch),
    Type.SYSCALL_INOTIFY_RM_WATCH: ("", m.InotifyRmWatch),
    Type.SYSCALL_SOCKETPAIR: ("", m.SocketPair),
    Type.SYSCALL_WRITE: ("", m.Write),
}
"""By message type: the point, or "" where the record says which call it is, and its message."""


class Told(msgspec.Struct, frozen=True):
    """A record with its point."""

    point: str
    record: m.Record
    dropped: int
    raw: bytes


def parse(data: bytes, names: Callable[[int], str]) -> Told | None:
    """A message; None if its type is not known. `names`: of system calls, by number.

    Raises: ValueError.
    """
    if len(data) < HEADER.size:
        raise ValueError("a message without a header")
    size, kind, dropped = HEADER.unpack_from(data)
    if not HEADER.size <= size <= len(data):
        raise ValueError(f"a header of {size} bytes")
    if kind not in KINDS:
        return None
    point, message = KINDS[kind]
    record = decode(message, data[size:])
    if isinstance(record, m.CallRecord):
        number: int = getattr(record, "sysno", 0)
        name = names(number)
        phase = "enter" if record.exit is None else "exit"
        is_raw = kind == Type.SYSCALL_RAW
        point = f"syscall/{f'sysno/{number}' if is_raw or not name else name}/{phase}"
    if isinstance(record, m.Connect):
        record.peer = peer(record.address)
    return Told(point, record, dropped, data)


def received(sock: socket.socket) -> Iterator[bytes]:
    """Messages, until the other end closes. Raises: OSError, ValueError."""
    while data := sock.recv(MAX_MESSAGE + 1):
        if len(data) > MAX_MESSAGE:
            raise ValueError("a message of more than 1 MiB")
        yield data


def recorded(file: IO[bytes]) -> Iterator[bytes]:
    """Messages of a recording. Raises: ValueError."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("no recording of a trace session")
    while head := file.read(_SIZE.size):
        if len(head) < _SIZE.size:
            raise ValueError("it ends in the middle of a message")
        (size,) = _SIZE.unpack(head)
        if size > MAX_MESSAGE:
            raise ValueError("a message of more than 1 MiB")
        data = file.read(size)
        if len(data) < size:
            raise ValueError("it ends in the middle of a message")
        yield data


def framed(data: bytes) -> bytes:
    """A message as a recording has it."""
    return _SIZE.pack(len(data)) + data


class Filter(msgspec.Struct, frozen=True):
    """Which records are shown."""

    points: tuple[str, ...] = ()
    """Patterns, such as syscall/open*/exit; none: all."""
    pid: int = 0
    name: str = ""
    """Of the program, as a pattern."""
    failed: bool = False
    """Only calls that ended with an error."""

    def lets(self, told: Told) -> bool:
        """Whether it is one of them."""
        if self.points and not any(fnmatch.fnmatchcase(told.point, p) for p in self.points):
            return False
        who = told.record.context_data or m.ContextData()
        if self.pid and self.pid not in (who.thread_group_id, who.thread_id):
            return False
        if self.name and not fnmatch.fnmatchcase(who.process_name, self.name):
            return False
        ended = getattr(told.record, "exit", None)
        return not self.failed or (ended is not None and ended.errorno != 0)


def line(told: Told) -> str:
    """A record for a person: when, who, which point, what."""
    who = told.record.context_data or m.ContextData()
    fields = [
        f"{name}={_shown(value)}"
        for name, value in msgspec.structs.asdict(told.record).items()
        if name not in ("context_data", "sysno", "exit", "address", "name") and value not in _EMPTY
    ]
    ended = getattr(told.record, "exit", None)
    if ended is not None:
        fields.append(f"errno={ended.errorno}" if ended.errorno else f"result={ended.result}")
    at = f"{_time(who.time_ns)} " if who.time_ns else ""
    program = f"{who.process_name}[{who.thread_group_id}] " if who.thread_group_id else ""
    return _harmless(f"{at}{program}{told.point} {' '.join(fields)}".rstrip())


_EMPTY: Final[tuple[Any, ...]] = (None, 0, "", b"", [], {})


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Message):
        inner = msgspec.structs.asdict(value).items()
        return "{" + " ".join(f"{name}={_shown(each)}" for name, each in inner) + "}"
    return msgspec.json.encode(value).decode()


def _time(at_ns: int) -> str:
    seconds, rest_ns = divmod(at_ns, 10**9)
    if not 0 <= seconds < 1 << 34:
        return "?"
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f".{rest_ns // 1000:06}"


def _harmless(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
