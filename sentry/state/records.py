"""What a snapshot says of a sandbox: one record for each object of the kernel.

Plain values: an object that another one refers to is named by its place in the list of its kind
(`Ref`). A record is read as hostile input: each number has bounds, each list a ceiling, and a field
that is not known here is an error that names it. See docs/snapshots.md.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

U64 = (1 << 64) - 1
MAX_OBJECTS = 1 << 20
"""Of one kind."""
MAX_BYTES = 1 << 26
"""In one string of bytes."""

Amount = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
"""Bytes, pages, ns, numbers of something."""
Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""A user, a group, a device, flags."""
Pid = Annotated[int, msgspec.Meta(ge=1, le=(1 << 22) - 1)]
Signal = Annotated[int, msgspec.Meta(ge=0, le=64)]
Word = Annotated[int, msgspec.Meta(ge=0)]
"""64 bits: an address, a mask, a register. That it is no more than that `Record` sees to."""
Ref = Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECTS)]
Name = Annotated[bytes, msgspec.Meta(max_length=255)]
HostName = Annotated[bytes, msgspec.Meta(max_length=64)]
Path = Annotated[bytes, msgspec.Meta(max_length=1 << 16)]
Data = Annotated[bytes, msgspec.Meta(max_length=MAX_BYTES)]
Words = Annotated[str, msgspec.Meta(max_length=4096)]
Many = msgspec.Meta(max_length=MAX_OBJECTS)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all of them."""

    def __post_init__(self) -> None:
        """No number has more than 64 bits. Raises: ValueError."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is int and not -(1 << 63) <= value <= U64:
                raise ValueError(f"{name} has more than 64 bits")


# --- memory


class Run(Record, frozen=True, array_like=True):
    """Consecutive pages from `page` on: frames `frame`, `frame` + 1, … of the snapshot.

    Frame 0: all of them are frames of zeros.
    """

    page: Amount
    frame: Amount
    count: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]


Runs = Annotated[list[Run], Many]


class Bytes(Record, frozen=True):
    """A file in RAM (RamFile): its frames by page."""

    size: Amount
    runs: Runs = []
    name: Path = b""
    transient: bool = False


class Mapping(Record, frozen=True):
    """A mapping (Vma), and the frames of its own that are behind it."""

    start: Amount
    end: Amount
    prot: Annotated[int, msgspec.Meta(ge=0, le=7)]
    flags: Id
    offset: Amount = 0
    name: Path = b""
    file: Ref | None = None
    """An open file that it shows."""
    bytes: Ref | None = None
    """Shared memory without an open file."""
    policy: tuple[Id, Amount] | None = None
    runs: Runs = []
    """Pages count from the start of the mapping."""


class Layout(Record, frozen=True):
    """ProgramLayout."""

    start_code: Word = 0
    end_code: Word = 0
    start_data: Word = 0
    end_data: Word = 0
    start_brk: Word = 0
    start_stack: Word = 0
    arg_start: Word = 0
    arg_end: Word = 0
    env_start: Word = 0
    env_end: Word = 0
    auxv: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""


class Memory(Record, frozen=True):
    """An address space."""

    limits: Ref
    mmap_base: Amount
    brk_start: Amount
    brk_end: Amount
    layout: Layout
    mappings: Annotated[list[Mapping], Many]
    lock_future: Id = 0
    mdwe: Id = 0
    randomize: bool = True
    barriers: Id = 0
    no_huge_pages: bool = False


# --- names


class Place(Record, frozen=True):
    """A name seen through a mount: `mount` counts as they were made when the container began.

    A file that has lost its name is `inode` of tree `tree`.
    """

    mount: Ref
    path: Path = b""
    """From the root of the mount, without a slash before it."""
    tree: Ref | None = None
    inode: Ref = 0


class Mounted(Record, frozen=True):
    """A mount, by which another sandbox is known to have the same."""

    kind: Words
    path: Path


class Node(Record, frozen=True):
    """A file of a file system in memory (TmpInode)."""

    mode: Id
    uid: Id
    gid: Id
    ino: Amount
    nlink: Int32
    times: tuple[Int64, Int64, Int64, Int64]
    """Access, modification, change, birth."""
    rdev: Id = 0
    flags: Id = 0
    seals: Id = 0
    target: Path | None = None
    """The text of a symbolic link."""
    bytes: Ref | None = None
    xattrs: list[tuple[Name, Data]] = []


class Difference(Record, frozen=True):
    """A file of the container's own layer over its root (OverlayInode)."""

    ino: Amount
    lower: Path | None = None
    """Where it is in the tree below, without a slash before it; None: it is only here."""
    upper: Node | None = None
    links: Int32 = 0
    removed: bool = False
    changed: Annotated[list[tuple[Name, Ref | None]], Many] = []
    """Names that differ in a directory, and what is there now; None: nothing."""


class Entry(Record, frozen=True):
    """A file of a tmpfs, with what is in it if it is a directory."""

    node: Node
    children: Annotated[list[tuple[Name, Ref]], Many] = []


class Tree(Record, frozen=True):
    """A file system in memory: the first one is its root."""

    mount: Ref
    """The first mount that shows it."""
    entries: Annotated[list[Entry], Many] = []
    """Of a tmpfs."""
    differences: Annotated[list[Difference], Many] = []
    """Of a layer over another one."""


# --- open files


class OpenFile(Record, frozen=True, tag_field="kind"):
    """What all open files have."""

    flags: Id
    position: Int64 = 0
    owner: tuple[Id, Int32] = (0, 0)
    owner_ids: tuple[Id, Id] = (0, 0)
    owner_signal: Signal = 0
    creds: Ref | None = None


class NamedFile(OpenFile, frozen=True, tag="named"):
    """One that is opened by its name again: a regular file, a directory, a device, /proc."""

    place: Place | None = None


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
    """timerfd_create(2). Times on CLOCK_MONOTONIC."""

    clock: Int32 = 0
    at_ns: Amount = 0
    interval_ns: Amount = 0
    expired: bool = False
    ticks: Word = 0


class SignalSet(OpenFile, frozen=True, tag="signalfd"):
    """signalfd(2)."""

    mask: Word = 0


class ProcessHandle(OpenFile, frozen=True, tag="pidfd"):
    """pidfd_open(2), of a process that is there."""

    pid: Pid = 1


class MemoryFile(OpenFile, frozen=True, tag="memfd"):
    """memfd_create(2)."""

    label: Path = b""
    node: Node | None = None
    inode: Amount = 0
    """The same for open files of the same one."""


Numbers = Annotated[list[tuple[Int32, Int64]], msgspec.Meta(max_length=1024)]
Ucred = tuple[Int32, Id, Id]
Address = tuple[Annotated[bytes, msgspec.Meta(max_length=16)], Annotated[int, msgspec.Meta(ge=0)]]
"""Of 16 bytes, and a port."""


class AnySocket(OpenFile, frozen=True):
    """What all sockets have."""

    family: Int32 = 1
    protocol: Int32 = 0
    options: Annotated[list[Int32], msgspec.Meta(max_length=1024)] = []
    numbers: Numbers = []
    linger: tuple[Int32, Int32] = (0, 0)
    rcvbuf: Int32 = 0
    sndbuf: Int32 = 0
    chose_rcvbuf: bool = False
    chose_sndbuf: bool = False
    rcvtimeo_ns: Amount | None = None
    sndtimeo_ns: Amount | None = None
    so_error: Annotated[int, msgspec.Meta(ge=0, le=4095)] = 0
    read_shut: bool = False
    write_shut: bool = False
    uid: Id = 0
    gid: Id = 0
    is_open: bool = True
    """A descriptor, or one that is on its way, leads to it."""


class Sent(Record, frozen=True):
    """What is on its way between Unix sockets."""

    data: Data
    sender: Ref
    creds: Ucred | None = None
    files: Annotated[list[Ref], msgspec.Meta(max_length=253)] = []
    charge: Annotated[int, msgspec.Meta(ge=0, le=1 << 26)] = 0
    stamp_ns: Amount = 0
    urgent: bool = False


class UnixEnd(AnySocket, frozen=True, tag="unix"):
    """A socket of AF_UNIX."""

    type: Int32 = 1
    name: Annotated[bytes, msgspec.Meta(max_length=109)] | None = None
    tree: Ref | None = None
    """Its name is file `inode` of this tree."""
    inode: Ref | None = None
    peer: Ref | None = None
    connected: bool = False
    peer_creds: Ucred | None = None
    peer_groups: Annotated[list[Id], msgspec.Meta(max_length=65536)] = []
    segments: Annotated[list[Sent], Many] = []
    accepts: bool = False
    backlog: Int32 = 0
    pending: Annotated[list[Ref], Many] = []
    gone: bool = False
    """It is closed, and only remembered by what it has sent."""

    owns_name: bool = False
    """It has this abstract name itself, and not of its listener."""


class TcpEnd(AnySocket, frozen=True, tag="tcp"):
    """A listener, or an end of a connection inside; `outside`: of one that is reset."""

    state: Int32 = 7
    local: Address = (b"", 0)
    remote: Address | None = None
    has_port: bool = False
    shares_port: bool = False
    adopted: bool = False
    bound: tuple[bool, bool] = (False, False)
    v6only: bool = False
    values: Numbers = []
    congestion: Name = b""
    ip_options: Numbers = []
    ipv6_options: Numbers = []
    chunks: Annotated[list[Data], Many] = []
    peer: Ref | None = None
    backlog: Int32 = 0
    accepted: Annotated[list[Ref], Many] = []
    outside: bool = False
    started: bool = False
    established: bool = False
    eof: bool = False
    reset: bool = False
    refused_writes: bool = False
    sent: Amount = 0
    got: Amount = 0
    mark: Amount | None = None
    urgent: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    urgent_unread: bool = False
    left: Ref | None = None
    """What is left of the other end, which waits for our FIN."""


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


class IpcObject(Record, frozen=True):
    """What System V objects have in common."""

    id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    key: Int32
    uid: Id
    gid: Id
    cuid: Id
    cgid: Id
    mode: Id
    ctime: Amount


class IpcSegment(IpcObject, frozen=True, kw_only=True):
    """shmget(2)."""

    node: Node
    size: Amount
    atime: Amount = 0
    dtime: Amount = 0
    cpid: Amount = 0
    lpid: Amount = 0
    locked_by: Id = 0
    creator: Pid | None = None


class IpcSemaphores(IpcObject, frozen=True, kw_only=True):
    """semget(2)."""

    values: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=65535)]],
                      msgspec.Meta(max_length=32000)]  # fmt: skip
    pids: Annotated[list[Int32], msgspec.Meta(max_length=32000)]
    otime: Amount = 0


class IpcQueue(IpcObject, frozen=True, kw_only=True):
    """msgget(2)."""

    messages: Annotated[list[tuple[Annotated[int, msgspec.Meta(ge=1)], Data]], Many]
    max_bytes: Amount
    stime: Amount = 0
    rtime: Amount = 0
    lspid: Amount = 0
    lrpid: Amount = 0


class Ipc(Record, frozen=True):
    """All System V objects; `numbers` say which identifiers come next."""

    segments: Annotated[list[IpcSegment], msgspec.Meta(max_length=32768)] = []
    semaphores: Annotated[list[IpcSemaphores], msgspec.Meta(max_length=32768)] = []
    queues: Annotated[list[IpcQueue], msgspec.Meta(max_length=32768)] = []
    numbers: Annotated[list[tuple[Id, Annotated[int, msgspec.Meta(ge=-1, le=32768)],
                                  Annotated[int, msgspec.Meta(ge=0, le=65535)]]],
                       msgspec.Meta(max_length=3)] = []  # fmt: skip


class Undo(Record, frozen=True):
    """SEM_UNDO: (identifier, number, what is added at the end)."""

    adjustments: Annotated[list[tuple[Amount, Ref, Int32]], Many]


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


class Remains(Record, frozen=True):
    """A TCP connection that no socket has any more, and that keeps its port: TIME_WAIT."""

    local: Address
    remote: Address
    family: Int32
    options: list[Int32]
    v6only: bool
    uid: Id
    state: Int32
    expires_ns: Amount
    shares_port: bool


class Datagram(Record, frozen=True):
    """One that nobody has read."""

    data: Data
    source: Address
    target: Address
    ttl: Annotated[int, msgspec.Meta(ge=0, le=255)] = 64
    tos: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    index: Int32 = 1
    stamp_ns: Amount = 0


class UdpEnd(AnySocket, frozen=True, tag="udp"):
    """A datagram socket."""

    local: Address = (b"", 0)
    remote: Address | None = None
    has_port: bool = False
    bound: tuple[bool, bool] = (False, False)
    v6only: bool = False
    ip_options: Numbers = []
    ipv6_options: Numbers = []
    udp_options: Numbers = []
    datagrams: Annotated[list[Datagram], Many] = []


AnyFile = (
    NamedFile | DonatedFile | PipeEnd | EventCounter | EpollSet | ClockTimer | SignalSet
    | ProcessHandle | MemoryFile | UnixEnd | TcpEnd | UdpEnd | Watches
    | Attachment | Master | Slave
)  # fmt: skip


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


# --- processes


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
    timer_slack_ns: Amount = 50_000
    default_slack_ns: Amount = 50_000
    no_new_privs: bool = False
    filters: Annotated[list[Data], msgspec.Meta(max_length=4096)] = []
    """Of seccomp(2), the oldest first: arrays of struct sock_filter."""
    strict: bool = False
    scheduling: Scheduling | None = None
    trap: tuple[Word, Word, Word] = (0, 0, 0)
    undo: Ref | None = None
    """SEM_UNDO."""
    counts: tuple[Amount, Amount, Amount, Amount] = (0, 0, 0, 0)
    """/proc/PID/io: bytes read and written, calls that did."""
    start_ns: Amount = 0


class Interval(Record, frozen=True):
    """An interval timer of setitimer(2): ITIMER_REAL at a moment of CLOCK_MONOTONIC."""

    at_ns: Amount
    interval_ns: Amount


class PosixTimer(Record, frozen=True):
    """timer_create(2), of a clock of the host. Times on its clock."""

    number: Amount
    clock: Int32
    how: Int32
    signo: Signal
    value: Word
    thread: Pid | None = None
    interval_ns: Amount = 0
    at_ns: Amount = 0
    overrun: Amount = 0
    pending: bool = False
    rests: bool = False


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
    argv: Annotated[list[Path], Many] = []
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
    personality: Id = 0
    last_uid: Id = 0
    next_timer: Amount = 0
    terminal: Ref | None = None
    """Its controlling one."""
    interval: Interval | None = None
    timers: Annotated[list[PosixTimer], msgspec.Meta(max_length=1 << 16)] = []
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


class Snapshot(Record, frozen=True):
    """All objects of a sandbox."""

    hostname: HostName
    domainname: HostName
    sysctls: dict[Words, Words]
    last_pid: Amount
    boot_ns: Amount
    now_ns: Amount
    """CLOCK_MONOTONIC."""
    cpu: Annotated[list[Words], Many]
    """What the CPU can, as the programs were told: names of /proc/cpuinfo."""
    clock_code: Word
    """CRC-32 of the vDSO; 0: there is none."""
    mounts: Annotated[list[Mounted], Many]
    trees: Annotated[list[Tree], Many]
    bytes: Annotated[list[Bytes], Many]
    pipes: Annotated[list[PipeBuffer], Many]
    files: Annotated[list[AnyFile], Many]
    terminals: Annotated[list[Terminal], msgspec.Meta(max_length=4096)]
    ipc: Ipc | None
    undos: Annotated[list[Undo], Many]
    locks: Annotated[list[Locks], Many]
    remains: Annotated[list[Remains], msgspec.Meta(max_length=8192)]
    creds: Annotated[list[Credentials], Many]
    descriptors: Annotated[list[Descriptors], Many]
    starts: Annotated[list[Start], Many]
    limits: Annotated[list[Annotated[list[Limit], msgspec.Meta(max_length=16)]], Many]
    actions: Annotated[list[Annotated[list[Handler], msgspec.Meta(max_length=64)]], Many]
    memories: Annotated[list[Memory], Many]
    sessions: Annotated[list[Session], Many]
    processes: Annotated[list[Process], Many]


def decoded(data: bytes, kind: Any) -> Any:
    """Raises: ValueError, with where in the record it is."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
