"""A kernel of stand-ins: a loop with its own clock, memory in a dict, contexts that only note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.auth.credentials import Credentials
from sentry.errors import EFAULT
from sentry.kernel.futex import FutexTable
from sentry.kernel.limits import Limits
from sentry.kernel.pids import Pids
from sentry.kernel.signals import Action, SignalActions
from sentry.kernel.task import Task
from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup
from sentry.platform import sigframe
from sentry.platform.constants import NUM_REGS
from sentry.platform.interface import Reg
from sentry.wait.fiber import Fiber

XSAVE_SIZE = 832
XFEATURES = 7


class FakeTimer:
    """A call of FakeLoop."""

    def __init__(self, at_ns: int, callback: Callable[[], None]) -> None:
        self.at_ns = at_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeLoop:
    """The loop with a clock that moves when told to."""

    def __init__(self) -> None:
        self.time_ns = 10**12
        self.timers: list[FakeTimer] = []
        self.queue: list[Callable[[], None]] = []
        self.fibers = 0

    def now_ns(self) -> int:
        return self.time_ns

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.queue.append(callback)

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(deadline_ns, callback)
        self.timers.append(timer)
        return timer

    def ready(self, fiber: Fiber) -> None:
        self.queue.append(fiber.run)

    def spawn(self, coro: Any, name: object, done: Any = None) -> Fiber:
        fiber = Fiber(coro, self, name, done or (lambda _result, _error: None))
        self.ready(fiber)
        return fiber

    def settle(self) -> None:
        """Run what is to be run now."""
        while self.queue:
            self.queue.pop(0)()

    def advance(self, ns: int) -> None:
        """Let time pass, timers in their order."""
        end = self.time_ns + ns
        self.settle()
        while True:
            due = [t for t in self.timers if t.callback is not None and t.at_ns <= end]
            if not due:
                break
            timer = min(due, key=lambda t: t.at_ns)
            self.timers.remove(timer)
            self.time_ns = max(self.time_ns, timer.at_ns)
            assert timer.callback is not None
            timer.callback()
            self.settle()
        self.time_ns = end


class FakeContext:
    """Registers; notes how the task went on."""

    def __init__(self) -> None:
        self.regs = memoryview(bytearray(NUM_REGS * 8)).cast("Q")
        self.regs[Reg.RIP] = 0x401002
        self.regs[Reg.RSP] = 0x7FFF0000
        self.regs[Reg.RFLAGS] = 0x202
        self.regs[Reg.CS], self.regs[Reg.SS] = 0x33, 0x2B
        self.fpu = bytes(range(256)) * 2 + (7).to_bytes(8, "little") + bytes(XSAVE_SIZE - 520)
        self.fpu = self.fpu[:24] + (0x1F80).to_bytes(4, "little") + self.fpu[28:]
        self.resumed = 0
        self.kicked = 0
        self.cpu_ns = 0
        self.owner: Any = None

    def resume(self) -> None:
        self.resumed += 1

    def answer(self, value: int) -> None:
        self.regs[Reg.RAX] = value & (1 << 64) - 1
        self.resumed += 1

    def kick(self) -> None:
        self.kicked += 1

    def get_fpu(self) -> bytes:
        return self.fpu

    def set_fpu(self, image: bytes) -> None:
        self.fpu = image or bytes(XSAVE_SIZE)

    def push_frame(self, space: Any, *frame: Any) -> bool:
        return sigframe.push(self, space, *frame)

    def pop_frame(self, *_: object) -> None:
        return None

    def cpu_time_ns(self) -> int:
        return self.cpu_ns


class FakeMemory:
    """Bytes by address; what lies in `bad` faults."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self.bad: range = range(0)
        self.users = 1
        self.space = self

    def read(self, addr: int, count: int) -> bytes:
        if addr in self.bad or addr + count - 1 in self.bad:
            raise EFAULT
        return bytes(self.bytes.get(addr + i, 0) for i in range(count))

    def write(self, addr: int, data: bytes) -> int:
        if addr in self.bad:
            raise EFAULT
        self.bytes.update(zip(range(addr, addr + len(data)), data, strict=True))
        return len(data)

    def load_u32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little")

    def cmpxchg_u32(self, addr: int, expected: int, desired: int) -> int:
        old = self.load_u32(addr)
        if old == expected:
            self.write(addr, desired.to_bytes(4, "little"))
        return old

    def futex_key(self, addr: int, shared: bool) -> tuple[object, int]:
        return self, addr


@dataclass
class World:
    """A kernel with an init and what tests do to it."""

    loop: FakeLoop = field(default_factory=FakeLoop)
    exits: list[Any] = field(default_factory=list)
    kernel: Any = None
    init: Any = None

    def __post_init__(self) -> None:
        self.kernel = SimpleNamespace(
            loop=self.loop,
            pids=Pids(1000),
            futexes=FutexTable(),
            services={},
            cpus=2,
            init=None,
            uts=None,
            counters=SimpleNamespace(faults=0),
            platform=SimpleNamespace(xsave_size=XSAVE_SIZE, xfeatures=XFEATURES),
            log=SimpleNamespace(bug=lambda what, error: pytest.fail(f"{what}: {error!r}")),
        )
        self.init = self.process(1, None)
        self.kernel.init = self.kernel.pids.init = self.init.group

    def process(self, pid: int, parent: Task | None) -> Task:
        """A process with one thread, in a process group of its own."""
        pids = self.kernel.pids
        if parent is None:
            session = pids.sessions[pid] = Session(pid, None)
        else:
            session = parent.group.session
        process_group = pids.process_groups[pid] = ProcessGroup(pid, session)
        group = ThreadGroup(
            self.kernel, pid, parent.group if parent else None, process_group, SignalActions(),
            Limits(),
        )  # fmt: skip
        pids.groups[pid] = group
        return self.thread(group, pid)

    def thread(self, group: ThreadGroup, tid: int) -> Task:
        """One more thread."""
        ctx: Any = FakeContext()
        none: Any = None
        mm: Any = group.tasks[0].mm if group.tasks else FakeMemory()
        task = Task(self.kernel, group, tid, ctx, mm, none, none, Credentials.root(), none)
        group.tasks.append(task)
        group.leader = group.leader or task
        self.kernel.pids.tasks[tid] = task
        return task


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """The kernel; tasks that exit are only noted in `exits`."""
    made = World()

    def exit_task(task: Task) -> None:
        if not task.dead:
            task.dead = True
            made.exits.append(task)

    monkeypatch.setattr("sentry.kernel.task_exit.exit_task", exit_task)
    return made


@pytest.fixture
def task(world: World) -> Task:
    """A process that is not init."""
    return world.process(100, world.init)


def handle(task: Task, signo: int, flags: int = 0, mask: int = 0) -> None:
    """Install a handler at 0x5000."""
    restorer = 0x04000000
    task.group.actions[signo] = Action(0x5000, flags | restorer, 0x6000, mask)
