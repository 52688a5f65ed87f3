"""Kills a process of ours at one of its host calls: a tracer (ptrace(2)), run as a program.

    python -m tests.e2e.killer PLAN

PLAN is a `Plan` in JSON. It starts a command, or looks at processes that there are, and follows
what they fork. When the process that is the clock is about to make its n-th call that others can
notice, the victim gets SIGKILL, and all go on without a tracer. Without a moment the command goes
to its end, and the calls of each process are counted. What came of it is printed: a `Report`.

A process is called by its place in the order of forks: "0" is the command; those that were there
before have the names that the plan gives them. The command is the caller's child afterwards, which
is a subreaper (prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from sentry.abi import unistd

SEIZE, INTERRUPT, LISTEN, CALL_INFO, GO_ON = 0x4206, 0x4207, 0x4208, 0x420E, 24
OPTIONS = 0x01 | 0x02 | 0x04 | 0x08
"""PTRACE_O_TRACESYSGOOD, FORK, VFORK, CLONE"""
EVENT_MESSAGE = 0x4201
FORKS = (1, 2, 3)
EVENT_STOP = 128
CALL_STOP = signal.SIGTRAP | 0x80
ENTRY = 1
WALL = 0x40000000
UNNOTICED = frozenset(
    number
    for name, number in vars(unistd).items()
    if re.fullmatch(
        "access|arch_prctl|brk|clock_gettime|close|dup2|epoll_create1|faccessat2|fcntl|fstat|futex"
        "|getcwd|getdents64|get(eg|eu|g|pg|p|s|t|u)id|getrandom|ioctl|lseek|madvise|mmap|mprotect"
        "|mremap|munmap|newfstatat|open|openat|pread64|prlimit64|read|readlink|readlinkat|rseq"
        "|rt_sigaction|rt_sigprocmask|sched_getaffinity|set_robust_list|set_tid_address|sigaltstack"
        "|stat|statfs|sysinfo|uname",
        name,
    )
)
"""What only looks, or changes nothing but the process itself: nobody sees before or after."""


class Plan(msgspec.Struct):
    """What to do."""

    command: list[str] = []
    output: str = ""
    """The file that gets what it says."""
    cwd: str = "/"
    there: dict[str, int] = {}
    """Processes that there are, by name."""
    follow: str = ""
    """One of them that is traced, besides the clock: for what it forks."""
    clock: str = ""
    at: int = 0
    call: str = ""
    """Only calls of this name count."""
    victim: str = ""


class Report(msgspec.Struct):
    """What came of it."""

    pid: int = 0
    """The command."""
    status: int = -1
    """Its wait(2) status, if it has ended."""
    killed: int = 0
    """The victim's pid."""
    calls: dict[str, int] = {}
    titles: dict[str, str] = {}
    last: str = ""
    """The call that the clock was about to make."""


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int, data: object) -> None:
    """ptrace(2). Raises: OSError."""
    if _libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x})")


class Tracer:
    """All that is traced."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._names: dict[int, str] = {}
        """Of processes and threads."""
        self._pids: dict[str, int] = {}
        self._early: set[int] = set()
        """Children that stand at their first instruction, and are not known yet."""
        self._forks = 0
        self._info = ctypes.create_string_buffer(88)
        self.report = Report()

    def begin(self) -> None:
        """Take hold of everything."""
        for name, pid in self._plan.there.items():
            self._names[pid], self._pids[name] = name, pid
            if name in (self._plan.clock, self._plan.follow):
                ptrace(SEIZE, pid, 0, OPTIONS)
                ptrace(INTERRUPT, pid, 0, 0)
                os.waitpid(pid, WALL)
                ptrace(GO_ON, pid, 0, 0)
        if not self._plan.command:
            return
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(reader, 1)
            os.chdir(self._plan.cwd)
            out = os.open(self._plan.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for fd, to in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
                os.dup2(fd, to)
            os.closerange(3, 64)
            os.execv(self._plan.command[0], self._plan.command)
        self.report.pid = pid
        self._name(pid)
        ptrace(SEIZE, pid, 0, OPTIONS)
        ptrace(INTERRUPT, pid, 0, 0)
        os.write(writer, b"\n")

    def go_on(self) -> bool:
        """One notice; False when all is done."""
        try:
            pid, status = os.waitpid(-1, WALL)
        except ChildProcessError:
            return False
        if not os.WIFSTOPPED(status):
            if pid == self.report.pid:
                self.report.status = status
                return False
            return True
        number, event = os.WSTOPSIG(status), status >> 16
        if event in FORKS:
            self._name(self._forked(pid))
        elif pid not in self._names:  # its parent's notice comes first, for the order
            self._early.add(pid)
            return True
        if number == CALL_STOP:
            if not self._counted(pid):
                return False
            number = 0
        elif event == EVENT_STOP and number != signal.SIGTRAP:
            with suppress(OSError):
                ptrace(LISTEN, pid, 0, 0)
            return True
        elif event:
            number = 0
        with suppress(OSError):
            ptrace(GO_ON, pid, 0, number)
        return True

    def _forked(self, parent: int) -> int:
        """Who that is; it goes on if it is there already."""
        number = ctypes.c_ulong()
        with suppress(OSError):
            ptrace(EVENT_MESSAGE, parent, 0, ctypes.addressof(number))
        return number.value

    def _name(self, pid: int) -> None:
        if pid in self._names or not pid:
            return
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            group = int(next(line for line in lines if line.startswith("Tgid")).split()[1])
            if group == pid:
                name = str(self._forks)
                self._forks += 1
                self._pids[name] = pid
            else:
                self._name(group)
                name = self._names.get(group, "")
            self._names[pid] = name
        if pid in self._early:
            self._early.discard(pid)
            with suppress(OSError):
                ptrace(GO_ON, pid, 0, 0)

    def _counted(self, pid: int) -> bool:
        """False when the moment has come."""
        try:
            ptrace(CALL_INFO, pid, len(self._info), ctypes.addressof(self._info))
        except OSError:  # it is killed just now
            return True
        number = int.from_bytes(self._info.raw[24:32], "little")
        if self._info.raw[0] != ENTRY or number in UNNOTICED:
            return True
        if self._plan.call and getattr(unistd, self._plan.call) != number:
            return True
        name = self._names.get(pid, "")
        count = self.report.calls[name] = self.report.calls.get(name, 0) + 1
        if not self._plan.at:
            self._note_title(name)
        if name != self._plan.clock or count < self._plan.at or not self._plan.at:
            return True
        victim = self._pids.get(self._plan.victim, 0)
        if not victim:  # it is not there yet
            return True
        self.report.last = unistd_name(number)
        self.report.killed = victim
        self._note_title(self._plan.victim)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return False

    def _note_title(self, name: str) -> None:
        with suppress(OSError, KeyError):
            folder = Path(f"/proc/{self._pids[name]}")
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            self.report.titles[name] = words.strip()


def unistd_name(number: int) -> str:
    """Of a system call."""
    names = {number: name for name, number in vars(unistd).items() if isinstance(number, int)}
    return names.get(number, str(number))


def main() -> None:
    """SIGTERM: the moment is not to come any more. The report stays the last line."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    tracer = Tracer(plan)

    told: list[Report] = []

    def tell(*_: object) -> None:
        if not told:  # nor in the middle of that
            told.append(tracer.report)
            os.write(1, msgspec.json.encode(tracer.report) + b"\n")
            os._exit(0)

    signal.signal(signal.SIGTERM, tell)
    tracer.begin()
    if not plan.command:
        print("ready", flush=True)
    while tracer.go_on():
        continue
    tell()


if __name__ == "__main__":
    main()
