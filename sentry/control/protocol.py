"""The words of the control socket: one JSON object a line, both ways.

A command line sends a `Request` and reads one `Reply`. On the socket of the command line that
started the sandbox the Sentry also sends `Event`s of its own accord. What they carry is in
`orders.py` and `answers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from sentry.abi.limits import PATH_MAX
from sentry.config import EgressConfig, FurtherConfig, JobUse, TraceSession
from sentry.control.orders import (
    ClockOrder,
    Decided,
    ExecProcess,
    FileOrder,
    ForkOrder,
    InjectOrder,
    Number,
    PolicyOrder,
    ServeOrder,
    Trace,
)
from sentry.faults import InjectState

if TYPE_CHECKING:
    from sentry.control.answers import (
        ClockState,
        EgressState,
        FileEntry,
        Made,
        Packets,
        PolicyTold,
        ProcessInfo,
        Procfs,
        Profile,
        Said,
        Stacks,
        Stats,
        TraceState,
    )

WaitStatus = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
"""As wait(2) has it."""
MAX_LINE = 4 << 20
"""A longer line ends the connection. Arguments and environment of a program have their place."""
MAX_ANSWER = 16 << 20
"""What a client may leave unread: more than `ps` says of as many processes as there may be."""
CONTAINER = "container"
"""A process of `exec` was killed since the container has ended."""
DEFECT = "the sandbox has a defect, see its log"


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
    then), "decided" (that, and what else its owner has decided about it), "repl" (a statement of
    Python is run on the kernel's objects, where the sandbox was started so), or "resize" (the
    host's terminal has a new size); "fork" (another sandbox is made of it) and, there, "attach" (to
    a process of its parent's "exec", with other streams); "succeed" (a fork takes its place, to
    which a socket leads that comes with it).

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


class Reply(msgspec.Struct, omit_defaults=True, frozen=True):
    """`error` is empty when it was done."""

    error: str = ""
    status: str = ""
    expires_ns: Number = 0
    """state, decided: in so long the container ends; 0: in its own time."""
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
    decided: Decided | None = None
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


def sound(found: str) -> str:
    """What programs have chosen of it may be no UTF-8, and long: its ends are shown."""
    if len(found) > PATH_MAX:
        found = f"{found[: PATH_MAX // 2]}…{found[-PATH_MAX // 2 :]}"
    return found.encode(errors="backslashreplace").decode()


def encode(message: Request | Reply | Event) -> bytes:
    """One line."""
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError:  # of an error that names what a program or a snapshot has chosen
        return msgspec.json.encode(_sound(message)) + b"\n"


def _sound(message: Request | Reply | Event) -> Request | Reply | Event:
    match message:
        case Reply():
            return msgspec.structs.replace(message, error=sound(message.error))
        case Event():
            return msgspec.structs.replace(message, message=sound(message.message))
    return message


def decode(line: bytes, kind: type[T]) -> T:
    """Raises: ValueError if the line is no such message."""
    if kind is Reply:
        _know_answers()
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no {kind.__name__}: {error}") from None


def _know_answers() -> None:
    """What is in a `Reply`: where nobody reads one, and so in a sandbox, it is 0.1 MiB for nothing.
    msgspec looks for its types among the names of this module."""
    from sentry.control import answers  # noqa: PLC0415  see above

    for name, each in vars(answers).items():
        if isinstance(each, type):
            globals().setdefault(name, each)


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
