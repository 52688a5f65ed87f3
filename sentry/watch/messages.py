"""The records of points: gVisor's messages, with its field numbers, and some of our own.

A field with a number goes over gVisor's wire; one without is only in JSON, where it says what a
consumer would otherwise have to work out. Sources: pkg/sentry/seccheck/points/*.proto of gVisor's
release of July 2024. Texts are what a program gave, with bytes that are no UTF-8 as \\xNN.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

from msgspec import Struct

from sentry.protobuf import Message, Signed


class MessageType(IntEnum):
    """What a message of the wire is. Those from OWN on are not gVisor's: its consumers are to
    leave out what they do not know."""

    CONTAINER_START = 1
    SENTRY_CLONE = 2
    SENTRY_EXEC = 3
    SENTRY_EXIT_NOTIFY_PARENT = 4
    SENTRY_TASK_EXIT = 5
    SYSCALL_RAW = 6
    SYSCALL_OPEN = 7
    SYSCALL_CLOSE = 8
    SYSCALL_READ = 9
    SYSCALL_CONNECT = 10
    SYSCALL_EXECVE = 11
    SYSCALL_SOCKET = 12
    SYSCALL_CHDIR = 13
    SYSCALL_SETID = 14
    SYSCALL_SETRESID = 15
    SYSCALL_PRLIMIT64 = 16
    SYSCALL_PIPE = 17
    SYSCALL_FCNTL = 18
    SYSCALL_DUP = 19
    SYSCALL_SIGNALFD = 20
    SYSCALL_CHROOT = 21
    SYSCALL_EVENTFD = 22
    SYSCALL_CLONE = 23
    SYSCALL_BIND = 24
    SYSCALL_ACCEPT = 25
    SYSCALL_TIMERFD_CREATE = 26
    SYSCALL_TIMERFD_SETTIME = 27
    SYSCALL_TIMERFD_GETTIME = 28
    SYSCALL_FORK = 29
    SYSCALL_INOTIFY_INIT = 30
    SYSCALL_INOTIFY_ADD_WATCH = 31
    SYSCALL_INOTIFY_RM_WATCH = 32
    SYSCALL_SOCKETPAIR = 33
    SYSCALL_WRITE = 34
    OWN_SIGNAL = 0x8001
    OWN_OUT_OF_MEMORY = 0x8002
    OWN_EGRESS_DENIED = 0x8003
    OWN_EGRESS_ALLOWED = 0x8004
    OWN_DNS_ANSWER = 0x8005
    OWN_POLICY = 0x8006


class Handshake(Message):
    """The first message, both ways."""

    version: Annotated[int, 1] = 0


class Credentials(Message, omit_defaults=True):
    real_uid: Annotated[int, 1] = 0
    effective_uid: Annotated[int, 2] = 0
    saved_uid: Annotated[int, 3] = 0
    real_gid: Annotated[int, 4] = 0
    effective_gid: Annotated[int, 5] = 0
    saved_gid: Annotated[int, 6] = 0


class ContextData(Message, omit_defaults=True):
    """Who and when. Numbers are those of the sandbox's first PID namespace."""

    time_ns: Annotated[int, 1, Signed] = 0
    thread_id: Annotated[int, 2, Signed] = 0
    thread_start_time_ns: Annotated[int, 3, Signed] = 0
    thread_group_id: Annotated[int, 4, Signed] = 0
    thread_group_start_time_ns: Annotated[int, 5, Signed] = 0
    container_id: Annotated[str, 6] = ""
    credentials: Annotated[Credentials | None, 7] = None
    cwd: Annotated[str, 8] = ""
    process_name: Annotated[str, 9] = ""
    program: str = ""
    """The file that the process runs."""
    ancestry: list[str] = []
    """Who has made it, the nearest first."""


class Record(Message, omit_defaults=True):
    """The base of all that a point tells."""

    context_data: Annotated[ContextData | None, 1] = None


class Exit(Message, omit_defaults=True):
    """How a call ended: its result, or a positive errno."""

    result: Annotated[int, 1, Signed] = 0
    errorno: Annotated[int, 2, Signed] = 0


class CallRecord(Record):
    """Of a system call; without `exit` it begins."""

    exit: Annotated[Exit | None, 2] = None


class Syscall(CallRecord):
    """A call as its registers say. `args` by the names of its declaration."""

    sysno: Annotated[int, 4] = 0
    arg1: Annotated[int, 5] = 0
    arg2: Annotated[int, 6] = 0
    arg3: Annotated[int, 7] = 0
    arg4: Annotated[int, 8] = 0
    arg5: Annotated[int, 9] = 0
    arg6: Annotated[int, 10] = 0
    name: str = ""
    args: dict[str, Any] | None = None


class Named(CallRecord):
    """A call that has a message of its own."""

    sysno: Annotated[int, 3] = 0


class Open(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    pathname: Annotated[str, 6] = ""
    flags: Annotated[int, 7] = 0
    mode: Annotated[int, 8] = 0


class Close(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""


class Read(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    count: Annotated[int, 6] = 0
    has_offset: Annotated[bool, 7] = False
    offset: Annotated[int, 8, Signed] = 0
    flags: Annotated[int, 9] = 0


class Write(Read):
    pass


class Connect(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    address: Annotated[bytes, 6] = b""
    peer: str = ""
    """`address` in words."""


class Bind(Connect):
    pass


class Accept(Connect):
    flags: Annotated[int, 7, Signed] = 0


class Execve(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    pathname: Annotated[str, 6] = ""
    argv: Annotated[list[str], 7] = []
    envv: Annotated[list[str], 8] = []
    flags: Annotated[int, 9] = 0


class Socket(Named):
    domain: Annotated[int, 4, Signed] = 0
    type: Annotated[int, 5, Signed] = 0
    protocol: Annotated[int, 6, Signed] = 0


class SocketPair(Socket):
    socket1: Annotated[int, 7, Signed] = 0
    socket2: Annotated[int, 8, Signed] = 0


class Chdir(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    pathname: Annotated[str, 6] = ""


class Setid(Named):
    id: Annotated[int, 4] = 0


class Setresid(Named):
    rid: Annotated[int, 4] = 0
    eid: Annotated[int, 5] = 0
    sid: Annotated[int, 6] = 0


class Rlimit(Message, omit_defaults=True):
    cur: Annotated[int, 1] = 0
    max: Annotated[int, 2] = 0


class Prlimit(Named):
    pid: Annotated[int, 4, Signed] = 0
    resource: Annotated[int, 5, Signed] = 0
    new_limit: Annotated[Rlimit | None, 6] = None
    old_limit: Annotated[Rlimit | None, 7] = None


class Pipe(Named):
    flags: Annotated[int, 4] = 0
    reader: Annotated[int, 5, Signed] = 0
    writer: Annotated[int, 6, Signed] = 0


class Fcntl(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    cmd: Annotated[int, 6, Signed] = 0
    args: Annotated[int, 7, Signed] = 0


class Dup(Named):
    old_fd: Annotated[int, 4, Signed] = 0
    new_fd: Annotated[int, 5, Signed] = 0
    fd_path: Annotated[str, 6] = ""
    flags: Annotated[int, 7] = 0


class Signalfd(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    sigset: Annotated[int, 6] = 0
    flags: Annotated[int, 7, Signed] = 0


class Chroot(Named):
    pathname: Annotated[str, 4] = ""


class Eventfd(Named):
    val: Annotated[int, 4, Signed] = 0
    flags: Annotated[int, 5] = 0


class Clone(Named):
    flags: Annotated[int, 4] = 0
    stack: Annotated[int, 5] = 0
    new_tid: Annotated[int, 6] = 0
    tls: Annotated[int, 7] = 0


class TimerfdCreate(Named):
    clock_id: Annotated[int, 4, Signed] = 0
    flags: Annotated[int, 5, Signed] = 0


class Timespec(Message, omit_defaults=True):
    sec: Annotated[int, 1, Signed] = 0
    nsec: Annotated[int, 2, Signed] = 0


class ItimerSpec(Message, omit_defaults=True):
    interval: Annotated[Timespec | None, 1] = None
    value: Annotated[Timespec | None, 2] = None


class TimerfdSetTime(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    flags: Annotated[int, 6, Signed] = 0
    new_value: Annotated[ItimerSpec | None, 7] = None
    old_value: Annotated[ItimerSpec | None, 8] = None


class TimerfdGetTime(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    cur_value: Annotated[ItimerSpec | None, 6] = None


class Fork(Named):
    pass


class InotifyInit(Named):
    flags: Annotated[int, 4, Signed] = 0


class InotifyAddWatch(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    pathname: Annotated[str, 6] = ""
    mask: Annotated[int, 7] = 0


class InotifyRmWatch(Named):
    fd: Annotated[int, 4, Signed] = 0
    fd_path: Annotated[str, 5] = ""
    wd: Annotated[int, 6, Signed] = 0


# The kernel's own points


class Start(Record):
    """A container's first program is about to run."""

    id: Annotated[str, 2] = ""
    cwd: Annotated[str, 3] = ""
    args: Annotated[list[str], 4] = []
    env: Annotated[list[str], 5] = []
    terminal: Annotated[bool, 6] = False


class CloneInfo(Record):
    """A task was made."""

    created_thread_id: Annotated[int, 3, Signed] = 0
    created_thread_group_id: Annotated[int, 4, Signed] = 0
    created_thread_start_time_ns: Annotated[int, 5, Signed] = 0
    flags: Annotated[int, 6] = 0


class ExecveInfo(Record):
    """A process has become another program."""

    binary_path: Annotated[str, 2] = ""
    argv: Annotated[list[str], 3] = []
    env: Annotated[list[str], 4] = []
    binary_mode: Annotated[int, 5] = 0
    binary_uid: Annotated[int, 6] = 0
    binary_gid: Annotated[int, 7] = 0
    binary_sha256: Annotated[bytes, 8] = b""


class ExitInfo(Record):
    """A process (`sentry/exit_notify_parent`) or a thread (`sentry/task_exit`) has ended: its
    status as wait(2) has it."""

    exit_status: Annotated[int, 2, Signed] = 0


class SignalInfo(Record):
    """A signal is being delivered."""

    signal: Annotated[int, 2] = 0
    code: Annotated[int, 3, Signed] = 0
    sender: Annotated[int, 4, Signed] = 0
    """The process that sent it, if one did."""


class OutOfMemory(Record):
    """A process was killed because memory had run out."""

    victim: Annotated[int, 2, Signed] = 0
    victim_name: Annotated[str, 3] = ""


class Egress(Record):
    """Something leaves the sandbox, or is not allowed to; or a name is not to be asked for."""

    reason: Annotated[str, 2] = ""
    names: Annotated[list[str], 3] = []
    address: Annotated[str, 4] = ""
    protocol: Annotated[int, 5] = 0
    port: Annotated[int, 6] = 0
    pid: Annotated[int, 7, Signed] = 0
    program: Annotated[str, 8] = ""


class DnsAnswer(Record):
    """A program is told an address of a name that it has asked for."""

    name: Annotated[str, 2] = ""
    address: Annotated[str, 3] = ""
    ttl_s: Annotated[int, 4] = 0


class Policy(Record):
    """A policy has decided on a call, or on what it came to; or learns that there is such."""

    call: Annotated[str, 2] = ""
    kind: Annotated[str, 3] = ""
    """call, open, exec, address, path."""
    verdict: Annotated[str, 4] = ""
    """allow, deny EPERM, kill, result 0, change path; learnt."""
    rule: Annotated[str, 5] = ""
    program: Annotated[str, 6] = ""
    path: Annotated[str, 7] = ""
    writes: Annotated[bool, 8] = False
    creates: Annotated[bool, 9] = False
    address: Annotated[str, 10] = ""
    port: Annotated[int, 11] = 0
    protocol: Annotated[str, 12] = ""


class Line(Struct, omit_defaults=True):
    """How a record looks in JSON."""

    point: str
    record: Any
    dropped: int = 0
    """So many have been lost by now."""
