"""Records of open files that are no sockets, and of what is behind them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.state.records.base import (
    Amount,
    Data,
    Id,
    Int32,
    Int64,
    Many,
    Name,
    Path,
    Pid,
    Position,
    Record,
    Ref,
    Signal,
    Word,
)
from sentry.state.records.mounts import NamedNamespace
from sentry.state.records.names import Listed, Node, Place


class AsyncNotice(Record, frozen=True):
    """O_ASYNC: the number that signals name, and whether room for more is told of."""

    fd: Int32
    wants_room: bool = False


class DirectoryNotice(Record, frozen=True):
    """F_NOTIFY: descriptor `fd` of a table is told of these events of its directory."""

    fd: Int32
    wanted: Id
    table: Ref


class OpenFile(Record, frozen=True, tag_field="kind"):
    """What all open files have."""

    flags: Id
    position: Position = 0
    owner: tuple[Id, Int32] = (0, 0)
    owner_ids: tuple[Id, Id] = (0, 0)
    owner_signal: Signal = 0
    creds: Ref | None = None
    async_notice: AsyncNotice | None = None
    dnotify: DirectoryNotice | None = None


class NamespaceHandle(OpenFile, frozen=True, tag="namespace"):
    """One of /proc/PID/ns."""

    what: NamedNamespace = NamedNamespace("mnt")


class NamedFile(OpenFile, frozen=True, tag="named"):
    """One that is opened by its name again: a regular file, a directory, a device, /proc."""

    place: Place | None = None
    changed: bool = False
    """Of /proc: what it shows has, since the last poll(2)."""
    linkable: bool = False
    """It has never had a name, and may get one: O_TMPFILE."""
    listed: Annotated[list[Listed], Many] = []
    """Of a directory that is being read: its names when that began."""


class DonatedFile(OpenFile, frozen=True, tag="donated"):
    """A descriptor of the host: standard input, output or error (0, 1, 2); -1: another one, whose
    other end is gone."""

    number: Int32 = -1


class PipeEnd(OpenFile, frozen=True, tag="pipe"):
    """An end of a pipe, or of a FIFO."""

    pipe: Ref = 0
    place: Place | None = None
    """Of a FIFO."""
    seen_writes: Int32 = -1


class PipeBuffer(Record, frozen=True):
    """What is in a pipe."""

    parts: Annotated[list[tuple[Data, bool]], Many]
    """Bytes, and whether they are a packet."""
    capacity: Amount
    uid: Id
    """Whose limit it counts against."""
    reads: Int32 = 0
    """How often an end was opened."""
    writes: Int32 = 0


class EventCounter(OpenFile, frozen=True, tag="eventfd"):
    """eventfd(2)."""

    value: Word = 0
    semaphore: bool = False


class Watch(Record, frozen=True):
    """What an epoll watches."""

    fd: Int32
    file: Ref
    events: Id
    data: Word
    ready: bool


class EpollSet(OpenFile, frozen=True, tag="epoll"):
    """epoll(7)."""

    watches: Annotated[list[Watch], Many] = []


class ClockTimer(OpenFile, frozen=True, tag="timerfd"):
    """timerfd_create(2)."""

    clock: Int32 = 0
    at_ns: Amount = 0
    """On CLOCK_MONOTONIC."""
    interval_ns: Amount = 0
    expired: bool = False
    ticks: Word = 0
    left_ns: Int64 | None = None
    """Of one that was set to a time from then on: how long until `at_ns`, when it was written."""
    wall_ns: Amount = 0
    """Of one that was set to a time of the wall clock: `at_ns` on its clock."""
    cancels: bool = False
    """TFD_TIMER_CANCEL_ON_SET."""


class SignalSet(OpenFile, frozen=True, tag="signalfd"):
    """signalfd(2)."""

    mask: Word = 0
    pid: Pid | None = None
    """Whose signals are looked at; None: of one that has it."""


class ProcessHandle(OpenFile, frozen=True, tag="pidfd"):
    """pidfd_open(2), of a process that is there."""

    pid: Pid = 1


class MemoryFile(OpenFile, frozen=True, tag="memfd"):
    """memfd_create(2)."""

    label: Path = b""
    node: Node | None = None
    inode: Amount = 0
    """The same for open files of the same one."""


class Watched(Record, frozen=True):
    """A watch of inotify(7): file `inode` of a tree."""

    wd: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)]
    mask: Id
    tree: Ref
    inode: Ref


class Watches(OpenFile, frozen=True, tag="inotify"):
    """inotify(7), with the events that wait."""

    next: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)] = 1
    watched: Annotated[list[Watched], Many] = []
    events: Annotated[list[Data], Many] = []


class Attachment(OpenFile, frozen=True, tag="shm"):
    """shmat(2): of the segment with this identifier."""

    id: Amount = 0
    namespace: Ref | None = None
    """Where that is; None: in the first."""


class Terminal(Record, frozen=True, kw_only=True):
    """A pseudoterminal, with its line discipline."""

    mount: Ref
    index: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
    uid: Id = 0
    gid: Id = 0
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] = 0o600
    is_console: bool = False
    """Its other side is a terminal of the host."""
    ahead: Data = b""
    screen: Data = b""
    winsize: Name = bytes(8)
    locked: bool = False
    exclusive: bool = False
    master_exclusive: bool = False
    master_open: bool = True
    hangups: Amount = 0
    slave_opened: bool = False
    packet: bool = False
    packet_events: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    master_stopped: bool = False
    termios: Annotated[bytes, msgspec.Meta(min_length=36, max_length=36)]
    locks: Annotated[bytes, msgspec.Meta(min_length=36, max_length=36)]
    ready: Data = b""
    eofs: Annotated[list[Amount], msgspec.Meta(max_length=4096)] = []
    edit: Data = b""
    stopped: bool = False
    held: bool = False
    literal: bool = False
    erasing: bool = False
    column: Amount = 0
    line_column: Amount = 0


class Master(OpenFile, frozen=True, tag="ptmx"):
    """The side of a terminal emulator."""

    terminal: Ref = 0
    place: Place | None = None


class Slave(OpenFile, frozen=True, tag="pts"):
    """The side of programs."""

    terminal: Ref = 0
    place: Place | None = None
    hangups: Amount = 0


class Held(Record, frozen=True):
    """A lock on a range, of a table of descriptors or of an open file."""

    pid: Int32
    exclusive: bool
    start: Int64
    end: Int64
    table: Ref | None = None
    file: Ref | None = None


class Flock(Record, frozen=True):
    """flock(2), of an open file."""

    file: Ref
    exclusive: bool
    pid: Int32


class Locks(Record, frozen=True):
    """Those on the file that `file` is open on."""

    file: Ref
    held: Annotated[list[Held], Many] = []
    flocks: Annotated[list[Flock], Many] = []
