"""What answers on the control socket carry. They are not trusted: numbers have bounds. See
`protocol.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.control.orders import Decided, Number

FilePath = Annotated[bytes, msgspec.Meta(max_length=8192)]
"""The same of a path, or a link's text: PATH_MAX, and a name behind it. Many are collected."""


class FileEntry(msgspec.Struct, omit_defaults=True, frozen=True):
    """A file of a container, as lstat(2) has it."""

    path: FilePath
    mode: Number
    """Type and permissions."""
    size: Number = 0
    uid: Number = 0
    gid: Number = 0
    links: Number = 1
    modified_ns: Number = 0
    target: FilePath = b""
    """The text of a link."""


class FileEvent(msgspec.Struct, omit_defaults=True, frozen=True):
    """What has happened in a directory: inotify(7)."""

    mask: Number
    name: FilePath = b""
    """Empty: the directory itself."""
    cookie: Number = 0
    """Both names of a rename have the same."""


class FileChange(msgspec.Struct, omit_defaults=True, frozen=True):
    """A name that is not as it is in the tree below: "added", "modified", "removed"."""

    path: FilePath
    kind: str
    mode: Number = 0


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
    decided: Decided | None = None


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


class ClockState(msgspec.Struct, omit_defaults=True, frozen=True):
    """The time that programs see."""

    wall_ns: Number
    """CLOCK_REALTIME."""
    monotonic_ns: Number
    speed: float = 1.0
    """0: it stands still."""
    is_shaped: bool = False
    """Else it is the host's."""
