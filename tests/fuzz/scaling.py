"""How the work of the kernel grows with what a program has: counted, not timed.

A resource is a function that gets a `Bench`, makes `bench.n` of something and puts each operation
into a `bench.measure(name)`. What is counted there is the Sentry's Python: functions that are
entered or go on, and jumps (each turn of a loop is one): a number that is the same on any machine.
It is taken at N, 2N and 4N. Of a·n² + b·n + c its differences give a, the work that two of n cause
each other; n log n looks like a small one (b / 3N). Loops of C are not seen: those of a list with
some thousands of entries take microseconds.
"""

from __future__ import annotations

import gc
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, NamedTuple

from sentry import loop
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.net import fan_out
from sentry.wait import steps
from tests.world import Program, World

TOOL = 4
"""One of sys.monitoring's that nobody has by name."""
QUADRATIC = 0.05
"""Events that each of two out of n cause the other: who looks at all of them makes 0.5 to 1."""
OURS = "/sentry/"


class Growth(NamedTuple):
    """Of one operation on one resource."""

    name: str
    counts: tuple[int, int, int]
    """At N, 2N and 4N."""
    quadratic: float

    def __str__(self) -> str:
        return f"{self.name:44}{self.quadratic:9.3f} n²  {self.counts}"


class Counter:
    """Events of the Sentry's code, while it is on."""

    def __init__(self) -> None:
        self.events = 0
        self._ours: dict[CodeType, bool] = {}

    def _count(self, code: CodeType, *_: object) -> object:
        ours = self._ours.get(code)
        if ours is None:
            ours = self._ours[code] = OURS in code.co_filename or code.co_filename[0] == "<"
        if not ours:
            return sys.monitoring.DISABLE
        self.events += 1
        return None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Only what runs in here."""
        monitoring = sys.monitoring
        wanted = monitoring.events
        kinds = (wanted.PY_START, wanted.PY_RESUME, wanted.JUMP)
        monitoring.use_tool_id(TOOL, "scaling")
        try:
            for kind in kinds:
                monitoring.register_callback(TOOL, kind, self._count)
            monitoring.set_events(TOOL, kinds[0] | kinds[1] | kinds[2])
            yield
        finally:
            monitoring.set_events(TOOL, 0)
            monitoring.free_tool_id(TOOL)


class Bench:
    """A world with a program that has all rights, and `n` to make."""

    def __init__(self, world: World, n: int) -> None:
        self.world = world
        self.n = n
        self.program = world.program()
        self.program.ok("prlimit64", 0, RLIMIT_NOFILE, struct.pack("<QQ", 20_000, 20_000), 0)
        world.mount("proc", b"/proc")
        world.mount("tmpfs", b"/tmp")
        self.ok = self.program.ok
        self.counts: dict[str, int] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """One operation: all `n` of them, or one on all."""
        counter = Counter()
        with counter.counting():
            yield
        assert name not in self.counts
        self.counts[name] = counter.events

    def each(self, name: str, call: Callable[[int], Any]) -> list[Any]:
        """`n` times, measured."""
        with self.measure(name):
            return [call(number) for number in range(self.n)]

    def read_all(self, name: str, path: bytes) -> bytes:
        """A file of /proc, in pieces of a page as most programs do, measured."""
        fd, room, found = self.ok("open", path, 0), self.program.buffer(4096), b""
        with self.measure(name):
            while size := self.ok("read", fd, room, 4096):
                found += self.program.read(room, size)
        self.ok("close", fd)
        return found

    def list_all(self, name: str, path: bytes) -> None:
        """A directory, measured."""
        fd, room = self.ok("open", path, 0o200000), self.program.buffer(4096)
        with self.measure(name):
            while self.ok("getdents64", fd, room, 4096):
                pass
        self.ok("close", fd)

    def pair(self, name: str, *values: int | bytes) -> tuple[int, int]:
        """pipe2(2) or socketpair(2)."""
        room = self.program.buffer(8)
        self.ok(name, *values, room) if name != "pipe2" else self.ok(name, room, *values)
        one, other = struct.unpack("<ii", self.program.read(room, 8))
        return one, other

    def threads(self) -> list[Program]:
        """`n` of them, measured as "thread"."""
        return self.each("thread", lambda _: self.program.thread())


class TimedBench(Bench):
    """The same, but what is measured is CPU time, which sees loops of C as well: for the eye."""

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """In ns."""
        began_ns = time.thread_time_ns()
        yield
        self.counts[name] = time.thread_time_ns() - began_ns


Resource = Callable[[Bench], None]


@contextmanager
def unhurried() -> Iterator[None]:
    """Long work is done at once: how many steps it takes depends on the time, its sum does not."""
    before = steps.STEP_NS, fan_out.STEP_NS, loop.TURN_NS, loop.PIECE_NS
    steps.STEP_NS = fan_out.STEP_NS = 1 << 62  # type: ignore[misc]
    loop.TURN_NS = loop.PIECE_NS = 1 << 62
    gc.disable()  # its calls of ours come when they come
    try:
        yield
    finally:
        gc.enable()
        steps.STEP_NS, fan_out.STEP_NS, loop.TURN_NS, loop.PIECE_NS = before  # type: ignore[misc]


def growth(resource: Resource, n: int) -> list[Growth]:
    """Each operation of a resource. The first world is for what is imported or kept once."""
    found: list[dict[str, int]] = []
    with unhurried():
        for size in (n // 4, n, 2 * n, 4 * n):
            with World() as world:
                world.unwatch()
                bench = Bench(world, size)
                resource(bench)
                found.append(bench.counts)
            gc.collect()
    return [
        Growth(f"{resource.__name__}: {name}", counts, _quadratic(n, *counts))
        for name in found[0]
        for counts in [(found[1][name], found[2][name], found[3][name])]
    ]


def _quadratic(n: int, one: int, two: int, four: int) -> float:
    return ((four - two) - 2 * (two - one)) / (6 * n * n)
