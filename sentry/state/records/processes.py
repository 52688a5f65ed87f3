"""Records of processes and their threads."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.state.records.base import (
    Amount,
    Argument,
    Data,
    Id,
    Int32,
    Int64,
    Many,
    Pid,
    Record,
    Ref,
    Signal,
    Word,
    Words,
)
from sentry.state.records.names import Place


class Credentials(Record, frozen=True):
    """Ids and capability sets: credentials(7), capabilities(7)."""

    ids: tuple[Id, Id, Id, Id, Id, Id, Id, Id]
    """Real, effective, saved, file-system ones: of the user, of the group, in turns."""
    groups: Annotated[list[Id], msgspec.Meta(max_length=65536)] = []
    effective: Word = 0
    permitted: Word = 0
    inheritable: Word = 0
    bounding: Word = 0
    ambient: Word = 0
    securebits: Id = 0
    user_ns: Ref | None = None


class Descriptors(Record, frozen=True):
    """A table of descriptors: (number, open file, close-on-exec)."""

    files: Annotated[list[tuple[Ref, Ref, bool]], Many]


class Start(Record, frozen=True):
    """Where paths begin."""

    root: Place
    cwd: Place
    umask: Annotated[int, msgspec.Meta(ge=0, le=0o777)]


class Limit(Record, frozen=True, array_like=True):
    """setrlimit(2)."""

    soft: Word
    hard: Word


class Handler(Record, frozen=True, array_like=True):
    """sigaction(2)."""

    signal: Signal
    handler: Word
    flags: Word
    restorer: Word
    mask: Word


class Info(Record, frozen=True):
    """A signal that waits."""

    signo: Annotated[int, msgspec.Meta(ge=1, le=64)]
    code: Int32 = 0
    errno: Int32 = 0
    body: Annotated[bytes, msgspec.Meta(max_length=112)] = b""
    names_sender: bool = False
    forced: bool = False


class Pending(Record, frozen=True):
    """Those that wait for a task, or a process."""

    mask: Word = 0
    infos: Annotated[list[Info], Many] = []


class Restart(Record, frozen=True):
    """A system call that is made again: `how` is "again", or a block of restart_syscall(2)."""

    how: Words
    numbers: Annotated[list[int | None], msgspec.Meta(max_length=8)] = []


class Scheduling(Record, frozen=True):
    """Sched."""

    policy: Annotated[int, msgspec.Meta(ge=0, le=7)] = 0
    priority: Annotated[int, msgspec.Meta(ge=0, le=99)] = 0
    nice: Annotated[int, msgspec.Meta(ge=-20, le=19)] = 0
    reset_on_fork: bool = False
    affinity: Word | None = None
    ioprio: Id = 0
    deadline: tuple[Amount, Amount, Amount] = (0, 0, 0)


class Thread(Record, frozen=True):
    """A task."""

    tid: Pid
    creds: Ref
    comm: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    dead: bool = False
    """It has ended, but is its process's first thread: its ids, and how it ended, are told."""
    registers: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""
    fpu: Annotated[bytes, msgspec.Meta(max_length=1 << 16)] = b""
    memory: Ref = 0
    descriptors: Ref = 0
    start: Ref = 0
    altstack: tuple[Word, Word, Word] = (0, 0, 0)
    blocked: Word = 0
    saved_mask: Word | None = None
    pending: Pending = Pending()
    restart: Restart | None = None
    restart_block: Restart | None = None
    clear_child_tid: Word = 0
    robust_list: Word = 0
    exit_code: Int32 = 0
    exit_signal: Signal = 0
    parent_death_signal: Signal = 0
    policy: tuple[Id, Amount] | None = None
    process_flags: Word = 0
    timer_slack_ns: Word = 50_000
    default_slack_ns: Word = 50_000
    no_new_privs: bool = False
    filters: Annotated[list[Data], msgspec.Meta(max_length=4096)] = []
    """Of seccomp(2), the oldest first: arrays of struct sock_filter."""
    strict: bool = False
    scheduling: Scheduling | None = None
    trap: tuple[Word, Word, Word] = (0, 0, 0)
    undo: Ref | None = None
    """SEM_UNDO."""
    whereabouts: Ref | None = None
    """Its namespaces."""
    counts: tuple[Amount, Amount, Amount, Amount] = (0, 0, 0, 0)
    """/proc/PID/io: bytes read and written, calls that did."""
    used_ns: tuple[Amount, Amount] = (0, 0)
    """CPU time in its program, and of the kernel for it."""
    start_ns: Amount = 0


class Interval(Record, frozen=True):
    """An interval timer of setitimer(2): ITIMER_REAL at a moment of CLOCK_MONOTONIC, the others at
    one of their own clocks."""

    at_ns: Amount
    interval_ns: Amount
    expired: bool = False
    """Its signal waits."""
    left_ns: Int64 | None = None
    """Until then, when it was written; less than 0: since then. `at_ns` if it is not known."""


class CpuTime(Record, frozen=True):
    """A clock of CPU time: of a process, or of a thread of the same process."""

    user_only: bool
    pid: Pid | None = None
    """None: whose it is has ended."""
    thread: Pid | None = None


class PosixTimer(Record, frozen=True):
    """timer_create(2), of a clock of the host or of CPU time."""

    number: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    clock: Int32 | CpuTime
    how: Int32
    signo: Signal
    value: Word
    thread: Pid | None = None
    interval_ns: Amount = 0
    at_ns: Amount = 0
    """On its clock."""
    overrun: Amount = 0
    pending: bool = False
    rests: bool = False
    left_ns: Int64 | None = None
    """Of one that was set to a time from then on: how long until `at_ns`, when it was written."""


class Usage(Record, frozen=True):
    """What getrusage(2) counts, by name."""

    counts: dict[Words, Amount] = {}


class Process(Record, frozen=True):
    """A process, or a zombie."""

    pid: Pid
    group: Pid
    session: Pid
    threads: Annotated[list[Thread], Many]
    leader: Pid
    limits: Ref
    actions: Ref
    parent: Pid | None = None
    parent_thread: Pid | None = None
    pending: Pending = Pending()
    argv: Annotated[list[Argument], Many] = []
    exe: Place | None = None
    exit_signal: Signal = 0
    exiting: bool = False
    exit_status: Int32 = 0
    stopping: Signal = 0
    stop_signal: Signal = 0
    stop_reported: bool = True
    continue_reported: bool = True
    child_subreaper: bool = False
    dumpable: Annotated[int, msgspec.Meta(ge=0, le=2)] = 1
    coredump_filter: Id = 0x33
    has_execed: bool = False
    oom_score_adj: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    oom_score_adj_min: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    personality: Id = 0
    last_uid: Id = 0
    next_timer: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] = 0
    terminal: Ref | None = None
    """Its controlling one."""
    interval: Interval | None = None
    virtual: Interval | None = None
    """ITIMER_VIRTUAL."""
    prof: Interval | None = None
    timers: Annotated[list[PosixTimer], msgspec.Meta(max_length=1 << 16)] = []
    pids: Ref | None = None
    """Its PID namespace."""
    exec_user_ns: Ref | None = None
    """The user namespace of its program."""
    used: Usage = Usage()
    reaped: Usage = Usage()
    start_ns: Amount = 0


class Session(Record, frozen=True):
    """A session, and its process group in the foreground of a terminal."""

    sid: Pid
    leader: Pid | None = None
    foreground: Pid | None = None
    old_foreground: Pid | None = None
    terminal: Ref | None = None
