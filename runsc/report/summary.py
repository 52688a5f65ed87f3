"""What a recording comes to: processes, calls, files, connections, decisions, figures.

All of it is bounded, whatever the recording says: of each kind as many as are kept, the rest
counted. Names and texts are as they came; who shows them makes them harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from runsc.containers.sampling import Sample
from runsc.containers.sampling import parse as parse_sample
from runsc.containers.watching import Told, parse
from runsc.report.lines import Level, Rate
from sentry.abi.fcntl import O_ACCMODE
from sentry.watch import messages as m

MAX_PROCESSES: Final = 2000
MAX_FILES: Final = 5000
MAX_CONNECTIONS: Final = 2000
MAX_DECISIONS: Final = 1000
MAX_CALLS: Final = 1000
MAX_LINES: Final = 32
MAX_PROGRAMS: Final = 8
"""That one process became, one after the other."""
MAX_TEXT: Final = 300
PEERS: Final = {"connect": "to", "bind": "at", "accept": "from", "accept4": "from"}


class Process:
    """One, from its first record to its end."""

    __slots__ = ("began_ns", "calls", "ended_ns", "name", "parent", "pid", "programs", "status")

    def __init__(self, pid: int, began_ns: int) -> None:
        self.pid = pid
        self.began_ns = began_ns
        self.ended_ns = -1
        """-1: no end was told."""
        self.status = 0
        """As wait(2) has it."""
        self.parent = 0
        self.name = ""
        self.programs: list[str] = []
        """Their arguments."""
        self.calls = 0


class Tally(msgspec.Struct):
    """How often, and how often in vain."""

    count: int = 0
    failed: int = 0
    errnos: dict[int, int] = {}


class File(msgspec.Struct):
    """One path, by what it was opened for."""

    read: int = 0
    written: int = 0
    failed: int = 0
    program: str = ""
    """Who opened it first."""


class Decision(msgspec.Struct, frozen=True):
    """What a policy said."""

    at_ns: int
    point: str
    who: str
    what: str


class Spent(msgspec.Struct):
    """What handlers of one call took, as it was measured."""

    count: int = 0
    total_ns: int = 0
    longest_ns: int = 0


class Summary:
    """Takes messages, one after the other."""

    def __init__(self, names: Callable[[int], str]) -> None:
        """`names`: of system calls, by number."""
        self._names = names
        self.containers: dict[str, str] = {}
        """What the first programs of containers were, by the containers' names."""
        self.processes: list[Process] = []
        self._alive: dict[int, Process] = {}
        self.calls: dict[str, Tally] = {}
        self.files: dict[str, File] = {}
        self.connections: dict[tuple[str, str, str], Tally] = {}
        self.decisions: list[Decision] = []
        self.costs: dict[str, Spent] = {}
        self.rate = Rate()
        self.levels: dict[str, Level] = {}
        self.latest: dict[str, int] = {}
        """Figures of the last sample."""
        self.samples = 0
        self.measured_ns = 0
        self.guest_ns = 0
        self.records = 0
        self.unknown = 0
        self.lost = 0
        self.more: dict[str, int] = {}
        """By kind: so many that are not kept."""
        self.problem = ""
        """Why nothing behind it was read."""
        self.first_ns = 0
        self.last_ns = 0

    def add(self, data: bytes) -> None:
        """A message. Raises: ValueError."""
        sample = parse_sample(data)
        if sample is not None:
            self._sampled(sample)
            return
        told = parse(data, self._names)
        if told is None:
            self.unknown += 1
            return
        self.records += 1
        self.lost = max(self.lost, told.dropped)
        who = told.record.context_data or m.ContextData()
        at_ns = self._at(who.time_ns)
        self.rate.add(at_ns)
        process = self._process(who, at_ns)
        self._kernel(told, process, at_ns)
        if isinstance(told.record, m.CallRecord) and told.record.exit is not None:
            self._call(told, told.record.exit, who.process_name)

    @property
    def length_ns(self) -> int:
        """From the first time that was told to the last."""
        return self.last_ns - self.first_ns

    def _at(self, time_ns: int) -> int:
        """After the beginning; what has no time is where the last one was."""
        if time_ns <= 0:
            return self.length_ns
        if self.first_ns == 0:
            self.first_ns = self.last_ns = time_ns
        self.last_ns = max(self.last_ns, time_ns)
        return max(0, time_ns - self.first_ns)

    def _kept(self, kind: str, there: int, most: int) -> bool:
        if there < most:
            return True
        self.more[kind] = self.more.get(kind, 0) + 1
        return False

    # --- processes

    def _process(self, who: m.ContextData, at_ns: int) -> Process | None:
        if who.thread_group_id <= 0:
            return None
        process = self._alive.get(who.thread_group_id) or self._new(who.thread_group_id, at_ns)
        if process is not None:
            process.name = who.process_name[:MAX_TEXT] or process.name
        return process

    def _new(self, pid: int, at_ns: int) -> Process | None:
        if not self._kept("processes", len(self.processes), MAX_PROCESSES):
            return None
        made = Process(pid, at_ns)
        self.processes.append(made)
        self._alive[pid] = made
        return made

    def _kernel(self, told: Told, process: Process | None, at_ns: int) -> None:
        record = told.record
        match record:
            case m.Start():
                if self._kept("containers", len(self.containers), MAX_LINES):
                    self.containers[record.id[:MAX_TEXT]] = _words(record.args)
                _became(process, record.args)
            case m.CloneInfo():
                pid = record.created_thread_group_id
                if process is not None and pid > 0 and pid != process.pid:
                    self._alive.pop(pid, None)  # a number is another's after its end
                    child = self._new(pid, at_ns)
                    if child is not None:
                        child.parent, child.name = process.pid, process.name
            case m.ExecveInfo():
                _became(process, record.argv or [record.binary_path])
            case m.ExitInfo() if process is not None and _is_whole(told, process):
                process.ended_ns, process.status = at_ns, record.exit_status
                self._alive.pop(process.pid, None)
            case m.Egress():
                self._decided(told, at_ns, record.program, _flow(record))
            case m.OutOfMemory():
                self._decided(told, at_ns, record.victim_name, f"process {record.victim} killed")
            case _ if "policy" in told.point:
                name = process.name if process is not None else ""
                self._decided(told, at_ns, name, _fields(record))

    def _decided(self, told: Told, at_ns: int, who: str, what: str) -> None:
        if self._kept("decisions", len(self.decisions), MAX_DECISIONS):
            self.decisions.append(
                Decision(at_ns, told.point[:MAX_TEXT], who[:MAX_TEXT], what[:MAX_TEXT])
            )

    # --- calls

    def _call(self, told: Told, ended: m.Exit, program: str) -> None:
        name = told.point.removeprefix("syscall/").removesuffix("/exit")
        tally = self.calls.get(name)
        if tally is None:
            if not self._kept("calls", len(self.calls), MAX_CALLS):
                return
            tally = self.calls[name] = Tally()
        _count(tally, ended)
        if isinstance(told.record, m.Open):
            self._opened(told.record, ended, program)
        elif isinstance(told.record, m.Connect) and name in PEERS and told.record.peer:
            key = (PEERS[name], told.record.peer[:MAX_TEXT], program[:MAX_TEXT])
            connection = self.connections.get(key)
            if connection is None:
                if not self._kept("connections", len(self.connections), MAX_CONNECTIONS):
                    return
                connection = self.connections[key] = Tally()
            _count(connection, ended)

    def _opened(self, record: m.Open, ended: m.Exit, program: str) -> None:
        path = record.pathname[:MAX_TEXT]
        file = self.files.get(path)
        if file is None:
            if not self._kept("files", len(self.files), MAX_FILES):
                return
            file = self.files[path] = File(program=program[:MAX_TEXT])
        if ended.errorno:
            file.failed += 1
        elif record.flags & O_ACCMODE:
            file.written += 1
        else:
            file.read += 1

    # --- figures

    def _sampled(self, sample: Sample) -> None:
        at_ns = self._at(sample.time_ns)
        self.samples += 1
        self.measured_ns += max(0, sample.elapsed_ns)
        self.guest_ns += max(0, sample.guest_ns)
        self.latest = dict(list(sample.counts.items())[:MAX_CALLS])
        for name, value in sample.counts.items():
            if not name.startswith(("memory_bytes", "tasks", "page_faults")):
                continue
            if name not in self.levels and not self._kept("lines", len(self.levels), MAX_LINES):
                continue
            self.levels.setdefault(name[:MAX_TEXT], Level()).add(at_ns, value)
        for name, cost in [*sample.calls.items(), ("(page fault)", sample.faults)]:
            if cost.count <= 0:
                continue
            if name not in self.costs and not self._kept("costs", len(self.costs), MAX_CALLS):
                continue
            spent = self.costs.setdefault(name[:MAX_TEXT], Spent())
            spent.count += cost.count
            spent.total_ns += max(0, cost.total_ns)
            spent.longest_ns = max(spent.longest_ns, cost.longest_ns)


def _count(tally: Tally, ended: m.Exit) -> None:
    tally.count += 1
    if ended.errorno:
        tally.failed += 1
        if ended.errorno in tally.errnos or len(tally.errnos) < MAX_LINES:
            tally.errnos[ended.errorno] = tally.errnos.get(ended.errorno, 0) + 1


def _is_whole(told: Told, process: Process) -> bool:
    """The process ends, not a thread of it alone. Of a container's first nobody's parent hears."""
    if told.point == "sentry/exit_notify_parent":
        return True
    who = told.record.context_data
    return who is not None and process.parent == 0 and who.thread_id == process.pid


def _became(process: Process | None, words: list[str]) -> None:
    if process is not None and len(process.programs) < MAX_PROGRAMS:
        process.programs.append(_words(words))


def _words(words: list[str]) -> str:
    return " ".join(words[:50])[:MAX_TEXT]


def _flow(record: m.Egress) -> str:
    protocol = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}.get(record.protocol, "")
    where = f"{record.address}:{record.port}" if record.port else record.address
    parts = [protocol, where, ", ".join(record.names[:8]), record.reason]
    return " ".join(part for part in parts if part)


def _fields(record: Any) -> str:
    """Of a record of any kind."""
    shown = (
        f"{name}={value}"
        for name, value in msgspec.structs.asdict(record).items()
        if name != "context_data" and value not in (None, 0, "", b"", [])
    )
    return " ".join(shown)
