"""The words of the control socket: one JSON object a line, both ways.

A command line sends a `Request` and reads one `Reply`. On the socket of the command line that
started the sandbox the Sentry also sends `Event`s of its own accord.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from sentry.config import (
    Amount,
    Capabilities,
    EgressConfig,
    FurtherConfig,
    JobLimits,
    JobUse,
    LinkConfig,
    Mask,
    PolicyConfig,
    Rlimit,
    TraceSession,
)
from sentry.control.orders import ClockOrder, ClockState, InjectOrder, ServeOrder
from sentry.faults import InjectState

Number = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""Of what a sandbox says, which is not trusted: JSON has numbers of any size."""
Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""A user or a group."""
WaitStatus = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
"""As wait(2) has it."""
MAX_LINE = 4 << 20
"""A longer line ends the connection. Arguments and environment of a program have their place."""
MAX_ANSWER = 16 << 20
"""What a client may leave unread: more than `ps` says of as many processes as there may be."""
CONTAINER = "container"
"""A process of `exec` was killed since the container has ended."""
DEFECT = "the sandbox has a defect, see its log"


class ExecProcess(msgspec.Struct, omit_defaults=True, frozen=True):
    """A process to be added to a container: what differs from the container's first one.

    What is None, or an empty cwd or rlimits, is as there.
    """

    args: tuple[bytes, ...]
    env: tuple[bytes, ...] | None = None
    extra_env: tuple[bytes, ...] = ()
    cwd: bytes = b""
    uid: Id | None = None
    gid: Id | None = None
    additional_gids: tuple[Id, ...] | None = None
    extra_gids: tuple[Id, ...] = ()
    umask: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] | None = None
    capabilities: Capabilities | None = None
    extra_capabilities: Mask = 0
    """Added to the bounding, effective and permitted sets."""
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool | None = None
    oom_score_adj: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] | None = None
    terminal: bool = False
    """The first descriptor is the wire of a terminal; the second and third are not used."""
    ignore_paused: bool = False
    job: JobLimits | None = None
    """What comes of it belongs together, and is told of at its end: sentry.kernel.job. None: it is
    by itself."""


class Trace(msgspec.Struct, omit_defaults=True, frozen=True):
    """Which system calls are written, and where to: a descriptor that comes with the first byte of
    the line, or the sandbox's log."""

    on: bool = True
    calls: tuple[str, ...] = ()
    others: bool = True
    """All but those."""
    limit: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)] = 32
    """Bytes of what is read and written."""


class FileOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """What is to be done with files of a container, by a user: where its first process is, as the
    system calls of a program would do it.

    `do` is "stat", "make" (a directory, and those above it), "remove" (with all that is below),
    "rename", or one of those with which a pipe comes: "read" and "write" (its bytes), "list" (names
    below a directory, as lines of `FileEntry`), "watch" (`FileEvent`, as long as the connection
    lasts) and "diff" (`FileChange`: what is not as in the tree that lies below the root).
    """

    do: str
    path: bytes = b""
    """From / on, if it does not begin with that."""
    target: bytes = b""
    """rename: the new name."""
    uid: Id = 0
    gid: Id = 0
    groups: tuple[Id, ...] = ()
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o644
    """write, make: of what is made, less the umask."""
    offset: Amount = 0
    """read: from there on, of a file that has positions."""
    size: Amount = 0
    """read: so many bytes at most; 0: any number."""
    depth: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1
    """list: 1 is the directory alone."""
    follow: bool = True
    """stat: where a link leads to."""
    append: bool = False
    """write: what is there stays."""


class FileEntry(msgspec.Struct, omit_defaults=True, frozen=True):
    """A file of a container, as lstat(2) has it."""

    path: bytes
    mode: Number
    """Type and permissions."""
    size: Number = 0
    uid: Number = 0
    gid: Number = 0
    links: Number = 1
    modified_ns: Number = 0
    target: bytes = b""
    """The text of a link."""


class FileEvent(msgspec.Struct, omit_defaults=True, frozen=True):
    """What has happened in a directory: inotify(7)."""

    mask: Number
    name: bytes = b""
    """Empty: the directory itself."""
    cookie: Number = 0
    """Both names of a rename have the same."""


class FileChange(msgspec.Struct, omit_defaults=True, frozen=True):
    """A name that is not as it is in the tree below: "added", "modified", "removed"."""

    path: bytes
    kind: str
    mode: Number = 0


class ForkOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """A copy of the sandbox as it is. What comes with it: `Given` of sentry.fork."""

    hostname: bytes = b""
    """Empty: as it is."""
    expires_ns: Amount = 0
    """It ends in so long; 0: in its own time."""
    memory_limit: Amount = 0
    """Bytes; 0, or more than that: what its parent has."""
    link: LinkConfig | None = None
    """Its network, if it has one. A further descriptor comes with it, which the link's is then."""
    network: bool = False
    """It has a network process, as its parent has. A further descriptor comes with it, the way
    there."""
    own_log: bool = False
    """Else its messages go where its parent's do."""
    forkable: bool = False
    """It may be forked, too: it keeps what that takes."""
    stands: bool = False
    """It stands still, a template: what it keeps is for who goes on from there."""
    succeeds: bool = False
    """It goes on in the place of the sandbox that its template is of: `sentry.fork.succession`. A
    further descriptor comes with it."""


class PolicyOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """`do` is "load" (another policy, or none, from now on), "show" (it, and what came of it) or
    "answer" (what it has asked)."""

    do: str
    policy: PolicyConfig | None = None
    """load: None is none."""
    number: Number = 0
    """answer: that of the question."""
    verdict: str = ""
    """answer: in words: sentry.policy.verdicts."""


class Request(msgspec.Struct, omit_defaults=True, frozen=True):
    """`op` is "create" (a further container of the sandbox), "start", "kill", "ps", "state",
    "stats", "counts", "pause", "resume", "exec", "signal" (for the process of this connection's
    "exec"), "wait" (for the end of a process), "oom" (memory has run out), "forward" (a connection
    to a port inside, as long as this one lasts), "read" (a file), "file" (all else that there is to
    do with files), "update" (limits), "profile",
    "stacks" (of some tasks, or of the kernel), "strace" and "log" (what is written from now on),
    "policy" (who decides on calls), "questions" (as soon as it has asked more), "egress" (what may
    leave, and what was denied), "denials" (as soon as there are more),
    "packets" (some of what goes by interfaces, as soon as there is some: the first one begins it,
    for as long as the connection lasts), "sync" (what was done to files is on the host's disk),
    "trace" (somebody outside listens from now on to what happens), "untrace" (no more), "traces"
    (who does), "procfs" (some processes as /proc has them), "metrics" (figures for Prometheus),
    "share" (of the sandbox whose root is another one's, too: what is done to it is there at once
    from now on), "inject" (faults), "serve" (what the sandbox's owner serves comes or goes),
    "clock" (the time that programs see), "advance" (so much of it goes by, from one of their timers
    to the next), "checkpoint" (its state goes into two files that come with it, and it stands still
    as long as the connection lasts), "expire" (the container ends in some time, whoever is there
    then), "repl" (a statement of Python is run on the kernel's objects, where the sandbox was
    started so), or "resize" (the host's terminal has a new size); "fork" (another sandbox is made
    of it) and, there, "attach" (to a process of its parent's "exec", with other streams); "succeed"
    (a fork takes its place, to which a socket leads that comes with it).

    Between the command line and the sandbox that it is starting also "go" (what a sandbox that is
    held back waits for) and "keep" (it may outlive the command line from now on).
    """

    op: str
    signal: int = 0
    pid: int = 1
    """kill, wait: which process, as the container numbers them; kill: -N is all of process group
    N. stacks: the tasks after this one; -1: those of the kernel itself."""
    pids_limit: int | None = None
    """update: tasks that the container may have; 0 or less: no limit."""
    source: str = ""
    """repl."""
    time_ns: int = 0
    """profile: how long. expire: in so long; 0: in the container's own time. advance: so much."""
    port: int = 0
    """forward. Two descriptors come with it: what goes in, and where it goes that comes out."""
    path: bytes = b""
    """read. A descriptor comes with it, to write to."""
    size: int = 0
    """read: so many bytes at most; 0: any number."""
    parent: str = ""
    """checkpoint: the name of the last one of this sandbox; what memory has had then already is not
    written again."""
    file: FileOrder | None = None
    """file. Where a pipe belongs to it, one end comes with the first byte of the line."""
    oom_kills: int = 0
    """oom: of so many it is known."""
    memory_limit: int | None = None
    """update: bytes; more than it was started with counts as that."""
    cpu_quota: int | None = None
    """update: microseconds of CPU in a period; 0 or less: no limit."""
    cpu_period: int | None = None
    cpu_weight: int | None = None
    """update: its share beside others."""
    all: bool = False
    """kill: every process of the container. signal: all that has come of the process, too."""
    trace: Trace | None = None
    """strace."""
    debug: bool = False
    """log: with what programs ask for and do not get."""
    container: FurtherConfig | None = None
    """create. Its descriptors come with the first byte of the line."""
    egress: EgressConfig | None = None
    """egress: what holds from now on."""
    policy: PolicyOrder | None = None
    """policy."""
    after: Number = 0
    """egress, denials, questions, procfs: those with higher numbers; -1: none."""
    session: TraceSession | None = None
    """trace. The descriptors of its sinks come with the first byte of the line."""
    force: bool = False
    """trace: in place of one of that name."""
    name: str = ""
    """untrace: that of the session."""
    interface: str = ""
    """packets: its name, in the first question; empty: all."""
    inject: InjectOrder = InjectOrder()
    """inject."""
    serve: ServeOrder | None = None
    """serve."""
    clock: ClockOrder = ClockOrder()
    """clock."""
    ends: bool = False
    """packets: what comes from now on is not wanted; an answer without frames is the last one."""
    fork: ForkOrder | None = None
    """fork. Its descriptors come with the first byte of the line."""
    process: ExecProcess | None = None
    """exec. Its descriptors (0, 1, 2 and more) come with the first byte of the line."""


class ProcessInfo(msgspec.Struct, frozen=True):
    """One process of the container."""

    pid: Number
    ppid: Number
    uid: Number
    command: str
    state: str
    """A letter as in /proc/pid/stat."""
    cpu_ns: Number = 0
    """User and system time, of its dead threads too."""
    age_ns: Number = 0
    """Since its start."""
    terminal: Number = -1
    """N of /dev/pts/N, the controlling terminal of its session."""
    threads: Number = 1


class Stats(msgspec.Struct, frozen=True):
    """What the programs of the container use, as the Sentry counts it: bytes, ns, numbers."""

    user_ns: Number
    system_ns: Number
    memory: Number
    """RAM that the host has given, kernel objects in it included."""
    memory_limit: Number
    shared: Number
    """Of that: files in memory."""
    oom_kills: Number
    tasks: Number
    tasks_limit: Number
    """0: not limited."""


class Cost(msgspec.Struct, frozen=True):
    """What one kind of work took."""

    count: Number
    total_ns: Number
    longest_ns: Number
    """The longest piece without a sleep or another task in between."""


class Profile(msgspec.Struct, frozen=True):
    """Where the time went while somebody looked."""

    elapsed_ns: Number
    guest_ns: Number
    """CPU time of the programs; several run at a time."""
    waited_ns: Number
    """The kernel thread had nothing to do: programs ran, or slept."""
    other_ns: Number
    """The kernel thread's work outside of handlers: dispatch, timers, descriptors."""
    exit_ns: Number
    """What one exit costs on this machine, as the probe found."""
    turns: Number
    """Of the kernel thread's loop."""
    calls: dict[str, Cost]
    """Handlers, by system call; what the entry code answers is not seen."""
    faults: Cost
    gofer: Cost
    """Requests, and how long the kernel thread waited for replies (within the calls' times)."""
    counters: dict[str, Number]
    long_steps: dict[str, Cost] = {}
    """What held the kernel thread up for more than 50 ms, since the sandbox began: CPU time."""


class Stack(msgspec.Struct, omit_defaults=True, frozen=True):
    """Where a task, a coroutine of the kernel or a thread of its process is."""

    name: str
    state: str
    tid: Number = 0
    """A task's, and its process's."""
    pid: Number = 0
    call: str = ""
    """The system call that it is in."""
    asleep_ns: Number = 0
    """How long; 0: since the start."""
    frames: list[str] = []
    """Innermost first: of a coroutine the one for which all others wait."""


class Stacks(msgspec.Struct, omit_defaults=True, frozen=True):
    """Some of them."""

    tasks: list[Stack] = []
    fibers: list[Stack] = []
    threads: list[Stack] = []
    more: bool = False
    """There are others."""


class Denied(msgspec.Struct, omit_defaults=True, frozen=True):
    """Something that was not allowed to leave, or to be asked for."""

    number: Number
    at_ns: Number
    """CLOCK_REALTIME."""
    reason: str
    rule: Number = 0
    """0: none of them."""
    names: tuple[str, ...] = ()
    """For which the address was given; of a question what was asked."""
    address: str = ""
    """Empty: a question, or no packet of IP."""
    protocol: Number = 0
    port: Number | None = None
    pid: Number = 0
    uid: Number = 0
    program: str = ""
    """Empty: nobody knows."""


class EgressState(msgspec.Struct, omit_defaults=True, frozen=True):
    """What may leave, and what came of it."""

    policy: str
    counts: dict[str, Number] = {}
    denials: list[Denied] = []
    used: list[tuple[Number, Number, Number]] = []
    """Bytes out and in, and connections: in all, then by each rule."""


class CapturedInterface(msgspec.Struct, frozen=True):
    """An interface whose frames are told."""

    index: Number
    name: str
    has_header: bool
    """A link header of Ethernet; else frames begin with that of IP."""
    seen: Number
    """Frames so far."""
    lost: Number
    """Of them those for which nobody had room."""


class CapturedFrame(msgspec.Struct, omit_defaults=True, frozen=True):
    """One of them."""

    index: Number
    at_ns: Number
    """CLOCK_REALTIME."""
    data: bytes
    outgoing: bool = False


class Packets(msgspec.Struct, omit_defaults=True, frozen=True):
    """Some of what goes by interfaces. Those of which more is known than before come first."""

    interfaces: list[CapturedInterface] = []
    frames: list[CapturedFrame] = []


class TraceTold(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a sink has been told."""

    name: str
    taken: Number = 0
    """Records so far."""
    dropped: Number = 0
    """Those that were lost."""


class TraceState(msgspec.Struct, omit_defaults=True, frozen=True):
    """A session."""

    name: str
    sinks: list[TraceTold] = []


class ProcfsIds(msgspec.Struct, frozen=True):
    """Users, or groups. The names of these structs' fields are those of gVisor's JSON."""

    real: Number
    effective: Number
    saved: Number


class ProcfsFile(msgspec.Struct, frozen=True):
    """An open file."""

    number: Number
    path: str
    mode: Number


class ProcfsLimit(msgspec.Struct, frozen=True):
    """getrlimit(2)."""

    cur: Number
    max: Number


class ProcfsCgroup(msgspec.Struct, frozen=True):
    """A line of /proc/PID/cgroup."""

    hierarchy: Number = msgspec.field(name="hierarchy_id")
    controllers: str
    path: str


class ProcfsStatus(msgspec.Struct, frozen=True):
    """Of /proc/PID/status."""

    comm: str
    pid: Number
    ppid: Number
    uid: ProcfsIds
    gid: ProcfsIds
    vm_size: Number
    """KiB, as the next one."""
    vm_rss: Number


class ProcfsStat(msgspec.Struct, frozen=True):
    """Of /proc/PID/stat."""

    pgid: Number
    sid: Number


class ProcfsProcess(msgspec.Struct, frozen=True):
    """A process."""

    exe: str
    args: list[str]
    env: list[str]
    cwd: str
    fdlist: list[ProcfsFile]
    clone_ts: Number
    """CLOCK_REALTIME, in ns."""
    root: str
    limits: dict[str, ProcfsLimit]
    cgroup: list[ProcfsCgroup]
    status: ProcfsStatus
    stat: ProcfsStat


class Procfs(msgspec.Struct, omit_defaults=True, frozen=True):
    """Some of them."""

    processes: list[ProcfsProcess] = []
    more: bool = False


class Made(msgspec.Struct, frozen=True):
    """A snapshot that has been written: sentry.state."""

    platform: str
    objects_size: Number
    objects_check: Number
    """CRC-32."""
    name: str
    """What it is called: one that builds on it asks for it so."""
    pages: Number
    own: Number
    """How many of them were written."""
    origins: list[tuple[Number, Number, Number]]
    """Where the pages are, in their order: (which snapshot of the chain, the first one in its file,
    how many)."""
    piece: Number
    """So many pages have one of the checks."""
    checks: list[Number]
    """CRC-32 of each piece of those that were written."""


class Said(msgspec.Struct, frozen=True):
    """repl: what a statement has printed."""

    output: str
    held_ns: Number
    """So long all programs waited for it."""
    is_cut: bool = False
    """There was more."""


class QuestionTold(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a policy asks."""

    number: Number
    text: str = ""
    what: str = ""
    """What is to be done: a call, and the object that it came to."""
    pid: Number = 0
    program: str = ""
    left_ns: Number = 0
    """Until it is decided without an answer."""


class PolicyTold(msgspec.Struct, omit_defaults=True, frozen=True):
    """The policy of a sandbox, and what came of it."""

    name: str = ""
    """Empty: there is none."""
    source: str = ""
    counts: dict[str, Number] = {}
    """HANDLER.VERDICT, HANDLER.failed."""
    questions: list[QuestionTold] = []
    """Those that wait for an answer."""


class Reply(msgspec.Struct, omit_defaults=True, frozen=True):
    """`error` is empty when it was done."""

    error: str = ""
    status: str = ""
    expires_ns: Number = 0
    """state: in so long the container ends; 0: in its own time."""
    processes: list[ProcessInfo] = []
    pid: Number = 0
    """exec: the process, as the container numbers it."""
    stats: Stats | None = None
    counts: dict[str, Number] = {}
    profile: Profile | None = None
    stacks: Stacks | None = None
    egress: EgressState | None = None
    policy: PolicyTold | None = None
    packets: Packets | None = None
    traces: list[TraceState] = []
    procfs: Procfs | None = None
    wait_status: WaitStatus = 0
    """wait: that of wait(2)."""
    file: FileEntry | None = None
    """file: of "stat"."""
    injected: list[InjectState] = []
    """inject."""
    clock: ClockState | None = None
    """clock, advance."""
    snapshot: Made | None = None
    """checkpoint."""
    said: Said | None = None


class Event(msgspec.Struct, omit_defaults=True, frozen=True):
    """`event` is "ready" (the filter is on, the program may run), "error" (it will not), or "kept"
    (the answer to "keep")."""

    event: str
    message: str = ""
    status: Number = 0
    """exited: its wait(2) status."""
    use: JobUse | None = None
    """exited: what it has used, if it had a job."""
    exceeded: str = ""
    """exited: the limit of its job that has ended it, or `CONTAINER`."""


T = TypeVar("T")


def encode(message: Request | Reply | Event) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes, kind: type[T]) -> T:
    """Raises: ValueError if the line is no such message."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no {kind.__name__}: {error}") from None


class LineBuffer:
    """Cuts a stream of bytes into lines. Raises: ValueError at a line that is too long."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            lines.append(bytes(self._data) + end)
            self._data.clear()
        self._data += rest
        if len(self._data) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise ValueError("line too long")
        return lines
