"""What programs in a sandbox did, for assertions.

A session of points (sentry/watch) sends a line of JSON for each system call to a thread, which
keeps the last of them and counts the rest: a test that does not ask never holds up the sandbox,
and memory is bounded. What a sandbox says is not trusted.
"""

from __future__ import annotations

import fnmatch
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import msgspec

from runsc.api.blocking.wire import Wire
from runsc.api.errors import SandboxError
from sentry.abi.fcntl import O_ACCMODE
from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.control.protocol import Reply, Request
from sentry.syscalls.registry import NUMBERS

T = TypeVar("T")
KEPT: Final = 200_000
"""Calls that can be looked at one by one: the last. `count` knows of all."""
KEPT_BYTES: Final = 128 << 20
"""Of the lines that told of them: fewer calls are kept where lines are long."""
MAX_NAME: Final = 64
"""Characters of the name of a call or a program; none has as many."""
MAX_LINE: Final = 4 << 20
PATIENCE_S: Final = 30.0
CONTEXT: Final = ("thread_id", "group_id", "process_name", "cwd")
KERNEL: Final = ("sentry/execve",)
NAME: Final = "pytest"


class Call(msgspec.Struct, frozen=True):
    """A system call that has ended."""

    name: str
    program: str
    """The name of the thread that made it."""
    pid: int
    args: dict[str, Any]
    """By their names: docs/points.md."""
    result: int = 0
    errno: int = 0
    """0: it has worked."""
    cwd: str = ""

    @property
    def path(self) -> str:
        """What it names, from / on; "" if it names nothing. Links are not followed."""
        path = self.args.get("pathname") or self.args.get("path") or ""
        if not isinstance(path, str) or not path:
            return ""
        beside = self.args.get("fd_path") or self.cwd
        return os.path.normpath(os.path.join("/", str(beside), path))


class Syscalls:
    """`sandbox.syscalls`: iterate it, or ask one of these. All of them wait until what programs
    have done so far is here."""

    def __init__(self, path: str) -> None:
        """`path`: of the control socket. Raises: SandboxError, OSError."""
        self._path = path
        self._calls: _Last[Call] = _Last()
        self._programs: _Last[tuple[str, ...]] = _Last()
        self._counts: Counter[tuple[str, str, bool]] = Counter()
        self._heard = 0
        self._changed = threading.Condition()
        self._is_over = False
        self.lost = 0
        """Calls that nobody had room for: more than a thousand at a time came."""
        self._sock, theirs = socket.socketpair()
        try:
            with theirs:
                theirs.setblocking(False)
                self._ask(Request("trace", session=_session()), (theirs.fileno(),))
        except BaseException:
            self._sock.close()
            raise
        self._reader = threading.Thread(target=self._read, name="runsc-syscalls", daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Hear no more."""
        self._hang_up()
        self._reader.join()
        self._sock.close()

    def _hang_up(self) -> None:
        with suppress(OSError):  # the sandbox has done so
            self._sock.shutdown(socket.SHUT_RDWR)

    # --- questions

    def __iter__(self) -> Iterator[Call]:
        self._catch_up()
        return iter(self._calls.all())

    def __contains__(self, name: str) -> bool:
        return self.count(name) > 0

    def count(
        self, name: str = "*", *, program: str = "*", failed: bool | None = None
    ) -> int:
        """How many there were, of these names (patterns as of fnmatch)."""
        self._catch_up()
        return sum(
            count
            for (call, who, bad), count in list(self._counts.items())  # more may come meanwhile
            if fnmatch.fnmatchcase(call, name) and fnmatch.fnmatchcase(who, program)
            and failed in (None, bad)
        )  # fmt: skip

    def names(self, *, program: str = "*") -> set[str]:
        """Which calls there were."""
        self._catch_up()
        return {c for c, who, _ in list(self._counts) if fnmatch.fnmatchcase(who, program)}

    def of(self, name: str = "*", *, program: str = "*") -> list[Call]:
        """Those of a name, one by one."""
        return [
            each
            for each in self
            if fnmatch.fnmatchcase(each.name, name) and fnmatch.fnmatchcase(each.program, program)
        ]

    def opened(self, path: str = "*", *, to_write: bool | None = None) -> list[Call]:
        """Files that were opened, and could be; `to_write`: only those, or only the others."""
        found = [
            each
            for each in self
            if each.name in ("open", "openat", "openat2", "creat") and not each.errno
        ]
        return [
            each
            for each in found
            if fnmatch.fnmatchcase(each.path, path)
            and to_write in (None, each.name == "creat" or bool(_flags(each) & O_ACCMODE))
        ]

    def executed(self) -> list[tuple[str, ...]]:
        """Programs that processes became, with their arguments, from the first on."""
        self._catch_up()
        return self._programs.all()

    def connected(self) -> list[str]:
        """Where connections were asked for: 192.0.2.1:443, [::1]:80, unix:/path."""
        return [each.args["peer"] for each in self if each.name == "connect" and
                isinstance(each.args.get("peer"), str)]  # fmt: skip

    def clear(self) -> None:
        """Forget what there was so far."""
        self._catch_up()
        with self._changed:
            self._calls.clear()
            self._programs.clear()
            self._counts.clear()

    # --- how it is known

    def _ask(self, request: Request, fds: tuple[int, ...] = ()) -> Reply:
        wire = Wire.connect(self._path)
        try:
            wire.send(request, fds)
            reply = wire.reply()
        finally:
            wire.close()
        if reply.error:
            raise SandboxError(reply.error)
        return reply

    def _catch_up(self) -> None:
        """All that was recorded before now is here. Raises: SandboxError."""
        if self._is_over:
            return
        counts = self._ask(Request("metrics")).counts
        mine = [(name, value) for name, value in counts.items() if f'session="{NAME}"' in name]
        made = sum(value for name, value in mine if name.startswith("trace_records{"))
        self.lost = sum(v for name, v in mine if name.startswith("trace_records_dropped{"))
        until = time.monotonic() + PATIENCE_S
        with self._changed:
            while self._heard < made - self.lost and not self._is_over:
                if not self._changed.wait(until - time.monotonic()):
                    raise SandboxError("the sandbox does not say what its programs did")

    def _read(self) -> None:
        decode = msgspec.json.Decoder(_Line).decode
        rest = b""
        while True:
            try:
                data = self._sock.recv(1 << 18)
            except OSError:
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            with self._changed:
                try:
                    for line in lines:
                        self._take(decode(line), len(line))
                except (ValueError, RecursionError):  # also of a number, or a list, as a text
                    data = b""
                self._is_over = not data or len(rest) > MAX_LINE
                self._changed.notify_all()
            if self._is_over:
                self._hang_up()
                return

    def _take(self, line: _Line, size: int) -> None:
        self._heard += 1
        record = line.record
        who = record.get("context_data")
        who = who if isinstance(who, dict) else {}
        if line.point == "sentry/execve":
            argv = record.get("argv")
            self._programs.add(tuple(map(str, argv)) if isinstance(argv, list) else (), size)
            return
        name = line.point.removeprefix("syscall/").removesuffix("/exit")[:MAX_NAME]
        ended = record.get("exit")
        ended = ended if isinstance(ended, dict) else {}
        args = record.get("args")
        if not isinstance(args, dict):
            left = ("context_data", "exit", "sysno")
            args = {key: value for key, value in record.items() if key not in left}
        errno, program = _number(ended.get("errorno")), str(who.get("process_name", ""))[:MAX_NAME]
        call = Call(
            name, program, _number(who.get("thread_group_id")), args,
            _number(ended.get("result")), errno, str(who.get("cwd", "")),
        )  # fmt: skip
        self._calls.add(call, size)
        if len(self._counts) < KEPT:
            self._counts[name, program, errno != 0] += 1


class _Last(Generic[T]):
    """Values that came last, of which one thread adds some while others look."""

    def __init__(self) -> None:
        self._values: deque[tuple[T, int]] = deque()
        self._bytes = 0

    def add(self, value: T, size: int) -> None:
        """One more, from a line of so many bytes."""
        self._values.append((value, size))
        self._bytes += size
        while len(self._values) > KEPT or (self._bytes > KEPT_BYTES and len(self._values) > 1):
            self._bytes -= self._values.popleft()[1]

    def all(self) -> list[T]:
        """From the first on."""
        return [value for value, _ in list(self._values)]

    def clear(self) -> None:
        """Forget them."""
        self._values.clear()
        self._bytes = 0


class _Line(msgspec.Struct):
    point: str
    record: dict[str, Any]
    dropped: int = 0


def _session() -> TraceSession:
    points = [TracePoint(name, (), CONTEXT) for name in KERNEL]
    points += [
        TracePoint(f"syscall/{name}/exit", ("fd_path",) if name in OPENING else (), CONTEXT)
        for name in NUMBERS.values()
    ]
    sinks = (TraceSink("json", has_fd=True),)
    return TraceSession(
        NAME, tuple(points), sinks, ignore_missing=True, ends_with_listeners=True
    )


OPENING: Final = ("open", "openat", "creat")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _flags(call: Call) -> int:
    return _number(call.args.get("flags"))
