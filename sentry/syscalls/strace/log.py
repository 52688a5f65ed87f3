"""strace: what programs ask of the kernel, in strace(1)'s format, from the declarations.

One `Strace` observes all tasks. A call is written as one line when it ends. If another task has
something to write before, or some time passes, its beginning is written as `<unfinished ...>` and
its end as `<... resumed>`, so the order of events is true and a program that hangs shows where.
Arguments that the kernel fills in are shown at the end. Nothing here changes what a call does.

Hooks beyond those of `Observer`, looked up by name: `signalled(task, info)` when a signal is
delivered, `exited(task, status)` when a thread is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from sentry.errors import by_number
from sentry.kernel.task import Observer
from sentry.platform.interface import Reg
from sentry.syscalls.args import Arg
from sentry.syscalls.registry import NUMBERS, TABLE, TABLE_SIZE, Declaration
from sentry.syscalls.show import (
    PATH_LIMIT,
    STRING_LIMIT,
    VECTOR_LIMIT,
    peek,
    quote,
    show_environment,
    show_s32,
    show_strings,
    show_u32,
    show_unsigned,
)
from sentry.syscalls.strace import siginfo as strace_siginfo
from sentry.syscalls.strace.names import NAMED
from sentry.syscalls.strace.structs import LATE, OVERRIDES
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand, RestartNoIntr

if TYPE_CHECKING:
    from sentry.kernel.signals import SigInfo
    from sentry.kernel.task import Task

COLUMN = 40
"""Where results begin: strace -a."""
COUNTS = (show_unsigned, show_u32, show_s32)
ADDRESS_RESULTS = frozenset({"mmap", "brk", "mremap", "shmat"})
DATA_CALLS = frozenset({
    "read", "pread64", "write", "pwrite64", "sendto", "recvfrom", "getcwd", "readlink",
    "readlinkat", "getrandom", "getxattr", "lgetxattr", "fgetxattr", "setxattr", "lsetxattr",
    "fsetxattr", "syslog", "mq_timedsend", "mq_timedreceive",
})  # fmt: skip
"""Calls whose buffers are followed by their size and are shown as text."""
RESTARTS: dict[type[BaseException], str] = {
    Interrupted: "ERESTARTSYS (To be restarted if SA_RESTART is set)",
    RestartNoHand: "ERESTARTNOHAND (To be restarted if no handler)",
    RestartNoIntr: "ERESTARTNOINTR (To be restarted)",
    RestartBlock: "ERESTART_RESTARTBLOCK (Interrupted by signal)",
}
ERRNO_MAX = 4095
PATIENCE_NS = 20_000_000
"""How long a call may take before its beginning is written."""


class Sink(Protocol):
    """Where lines go; must not block."""

    def write(self, text: str) -> None: ...
    def flush(self) -> None: ...


class Clock(Protocol):
    """The loop."""

    def now_ns(self) -> int: ...
    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> object: ...


class Options(Struct, frozen=True):
    """What is written."""

    calls: frozenset[str] | None = None
    """Only these; None: all. Signals and ends of threads are always written."""
    times: bool = False
    """When each began (UTC), and how long it took."""
    limit: int = STRING_LIMIT
    """So many bytes of what is read and written."""


class _Call:
    """A call that has begun."""

    __slots__ = (
        "began_ns",
        "begun",
        "declaration",
        "later",
        "limit",
        "name",
        "shown",
        "time",
        "values"
    )  # fmt: skip

    def __init__(
        self, name: str, declaration: Declaration | None, values: tuple[int, ...], options: Options
    ) -> None:
        self.name = name
        self.declaration = declaration
        self.values = values
        self.limit = options.limit
        self.time = _now() if options.times else ""
        self.began_ns = time.monotonic_ns() if options.times else 0
        self.shown: list[str] = []
        """The arguments up to the first that the kernel fills in."""
        self.later: list[tuple[int, str, Arg]] = []
        self.begun = False
        """Its beginning has been written."""


class Strace(Observer):
    """An observer of every task (`Kernel.start_observers`)."""

    def __init__(self, sink: Sink, clock: Clock, options: Options | None = None) -> None:
        self._sink = sink
        self._options = options or Options()
        self._clock = clock
        self._open: dict[Task, _Call] = {}
        self._scheduled = False

    # --- the observer

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> None:
        """A call begins."""
        declaration = TABLE[number] if 0 <= number < TABLE_SIZE else None
        name = NUMBERS.get(number, f"syscall_{number:#x}")
        if self._options.calls is not None and name not in self._options.calls:
            return
        call = self._open[task] = _Call(name, declaration, values, self._options)
        if declaration is None:
            call.shown = [f"{v:#x}" for v in values]
        else:
            arguments = [(i, p, mark) for i, (p, mark) in enumerate(declaration.args)]
            first = next(
                (i for i, p, mark in arguments if mark.is_out or (name, p) in LATE), len(arguments)
            )
            call.shown = shown(task, call, arguments[:first], None)
            call.later = arguments[first:]
        if not self._scheduled:
            self._scheduled = True
            self._clock.call_at(self._clock.now_ns() + PATIENCE_NS, self._write_beginnings)

    def left(self, task: Task, result: Any) -> None:
        """A call ends. `result` may be a mark: the registers then hold the value (RESUME)."""
        call = self._open.pop(task, None)
        if call is None:
            return
        value: int | None = None
        if isinstance(result, int):
            value = result
        elif call.name not in ("exit", "exit_group"):
            value = (task.ctx.regs[Reg.RAX] ^ 1 << 63) - (1 << 63)
        rest = shown(task, call, call.later, value)
        at = ""
        if call.begun:
            head = f"<... {call.name} resumed>" + ", ".join(rest) + ")"
        else:
            head = f"{call.name}({', '.join(call.shown + rest)})"
            at = call.time
        restart = RESTARTS.get(type(task.restart)) if task.restart is not None else None
        text = f"? {restart}" if restart else result_text(call.name, value)
        if self._options.times:
            text += f" <{(time.monotonic_ns() - call.began_ns) / 1e9:.6f}>"
        self._line(task, f"{head.ljust(COLUMN - 1)} = {text}", at)

    def loaded(self, task: Task, path: bytes, args: Sequence[bytes], variables: int) -> None:
        """A process that no program made has its program: as if it had called execve(2)."""
        if self._options.calls is not None and "execve" not in self._options.calls:
            return
        words = ", ".join(quote(word) for word in args[:VECTOR_LIMIT])
        more = ", ..." if len(args) > VECTOR_LIMIT else ""
        head = f"execve({quote(path, PATH_LIMIT)}, [{words}{more}], [/* {variables} vars */])"
        self._line(task, f"{head.ljust(COLUMN - 1)} = 0")

    def signalled(self, task: Task, info: SigInfo) -> None:
        """A signal is being delivered."""
        self._line(task, f"--- {strace_siginfo.show(info)} ---")

    def exited(self, task: Task, status: int) -> None:
        """A thread is gone; `status` as wait(2) has it."""
        call = self._open.pop(task, None)
        if call is not None:
            if not call.begun:
                self._begin(task, call)
            head = f"<... {call.name} resumed> <unfinished ...>)"
            self._line(task, f"{head.ljust(COLUMN - 1)} = ?")
        if status & 0x7F:
            core = " (core dumped)" if status & 0x80 else ""
            name = strace_siginfo.signal_name(status & 0x7F)
            self._line(task, f"+++ killed by {name}{core} +++")
        else:
            self._line(task, f"+++ exited with {status >> 8 & 0xFF} +++")

    def flush(self) -> None:
        """The sandbox is over."""
        self._sink.flush()

    # --- writing

    def _write_beginnings(self) -> None:
        self._scheduled = False
        for task, call in self._open.items():
            if not call.begun:
                self._begin(task, call)

    def _begin(self, task: Task, call: _Call) -> None:
        call.begun = True
        start = ", ".join(call.shown) + (", " if call.shown and call.later else "")
        self._write(task, f"{call.name}({start} <unfinished ...>", call.time)

    def _line(self, task: Task, text: str, at: str = "") -> None:
        for other, call in self._open.items():
            if other is not task and not call.begun:
                self._begin(other, call)
        self._write(task, text, at)

    def _write(self, task: Task, text: str, at: str) -> None:
        if self._options.times:
            text = f"{at or _now()} {text}"
        self._sink.write(f"[pid {task.tid:5}] {text}\n")


def _now() -> str:
    """The time of day as strace -tt writes it, in UTC: a sandbox has no time zones."""
    seconds, ns = divmod(time.time_ns(), 10**9)
    day = seconds % 86400
    return f"{day // 3600:02}:{day // 60 % 60:02}:{day % 60:02}.{ns // 1000:06}"


def shown(
    task: Task, call: _Call, arguments: list[tuple[int, str, Arg]], result: int | None
) -> list[str]:
    """Some arguments; one that has no text is left out."""
    texts = [show(task, call, *argument, result) for argument in arguments]
    return [text for text in texts if text]


def show(
    task: Task, call: _Call, index: int, parameter: str, mark: Arg, result: int | None
) -> str:
    """One argument. `result` is known for those that are shown at the end."""
    raw = call.values[index]
    key = (call.name, parameter)
    override = OVERRIDES.get(key)
    failed = result is not None and -ERRNO_MAX <= result < 0
    if override is not None and not (failed and (mark.is_out or key in LATE)):
        return override(task, raw, call.values)
    if key in NAMED:
        return NAMED[key](task, raw)
    assert call.declaration is not None
    if call.name in ("execve", "execveat") and parameter in ("argv", "envp"):
        return (show_strings if parameter == "argv" else show_environment)(task, raw)
    arguments = call.declaration.args
    sized = index + 1 < len(arguments) and arguments[index + 1][1].show in COUNTS
    if raw and sized and call.name in DATA_CALLS and not failed:
        count = call.values[index + 1]
        if mark.is_out:
            count = min(count, result or 0)
        data = peek(task, raw, min(count, call.limit + 1))
        if data is not None:
            return quote(data if call.name != "getcwd" else data.split(b"\0", 1)[0], call.limit)
    if mark.is_out and failed:
        return f"{raw:#x}" if raw else "NULL"
    return mark.show(task, raw)


def result_text(name: str, value: int | None) -> str:
    """What stands after the equals sign."""
    if value is None:
        return "?"
    if -ERRNO_MAX <= value < 0:
        error = by_number(-value)
        if error is None:
            return f"-1 (errno {-value})"
        return f"-1 {error.__name__} ({(error.__doc__ or '').removesuffix('.')})"
    if name in ADDRESS_RESULTS:
        return f"{value & 0xFFFFFFFFFFFFFFFF:#x}"
    return str(value)
