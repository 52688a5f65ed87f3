"""The memory limit met at every step at which memory is needed: nothing of it is a defect of ours.

Each operation is made once for each of its steps, which finds no memory, as do those that follow,
until somebody has been killed for it. Where nobody may be, it fails with an errno.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_MAYMOVE,
)
from sentry.abi.ptrace import PTRACE_ATTACH, PTRACE_O_TRACEEXIT, PTRACE_POKEDATA, PTRACE_SEIZE
from sentry.abi.resource import RLIMIT_CORE
from sentry.abi.sched import CLONE_CHILD_SETTID, CLONE_PARENT_SETTID, CLONE_PIDFD
from sentry.abi.signal import SIGABRT, SIGCHLD, SIGKILL, SIGUSR1
from sentry.config import ProcessConfig
from sentry.control.execution import Execution
from sentry.mm.faults import PF_EXEC, PF_USER, PF_WRITE
from sentry.mm.vma_list import RUN_MAX
from sentry.platform.interface import ExitKind, Reg
from sentry.platform.memory import AddressSpace, Exhausted, Ram
from tests.fuzz.test_elf import CODE, good
from tests.world import THREAD, Died, Program, World

PAGE = 4096
RW = 3
FRESH = 0x10000000
"""Where nothing has been mapped."""
NEVER = 1 << 30
A_WHILE_NS = 1_000_000_000
REFUSING = (
    "map_anonymous", "map_frames", "map_over", "map_list", "move", "fork", "fork_all", "share",
)  # fmt: skip
COPYING = ("read", "write", "zero", "string")
_SMALL = good(interpreter=False)
PROGRAM = _SMALL[:24] + struct.pack("<Q", CODE + 0x1010) + _SMALL[32:]
"""It begins elsewhere than where programs of `tests.world` make their calls."""
KILLED = "Out of memory: killed"
NO_ROOM = re.compile("cannot allocate memory|bad address|the memory limit is reached")
VSYSCALL_PAGE, RETURN_TO = 0xFFFFFFFFFF600000, 0x402000


class Shortage:
    """From the step `first` on, of those that need memory, there is none; while `lasts`."""

    def __init__(self, lasts: Callable[[], bool]) -> None:
        self.steps = 0
        self.first = NEVER
        self._lasts = lasts

    def met(self) -> bool:
        """One more step."""
        self.steps += 1
        return self.steps > self.first and self._lasts()


@contextmanager
def shortage(world: World, first: int, most: int = NEVER) -> Iterator[Shortage]:
    """Until somebody was killed, or `most` steps have met it."""

    def lasts() -> bool:
        killed = any(KILLED in line for line in world.log.text)
        return not killed and made.steps - made.first <= most

    made = Shortage(lasts)
    with pytest.MonkeyPatch.context() as patch:
        for name in REFUSING:
            patch.setattr(AddressSpace, name, _refusing(made, getattr(AddressSpace, name)))
        for name in COPYING:
            patch.setattr(AddressSpace, name, _stopping(made, getattr(AddressSpace, name)))
        patch.setattr(AddressSpace, "break_cow", _failing(made, AddressSpace.break_cow))
        patch.setattr(AddressSpace, "__init__", _refusing(made, AddressSpace.__init__))
        for name in ("alloc", "fill"):
            patch.setattr(Ram, name, _refusing(made, getattr(Ram, name)))
        made.steps, made.first = 0, first
        yield made


def _refusing(made: Shortage, real: Any) -> Any:
    def step(self: Any, *arguments: Any) -> Any:
        if made.met():
            raise Exhausted("none left")
        return real(self, *arguments)

    return step


def _failing(made: Shortage, real: Any) -> Any:
    def step(self: Any, *arguments: Any) -> Any:
        return -errno.ENOMEM if made.met() else real(self, *arguments)

    return step


def _stopping(made: Shortage, real: Any) -> Any:
    """A copy that meets a page for which the host has no memory."""

    def step(self: Any, addr: int, *arguments: Any) -> Any:
        found = real(self, addr, *arguments)
        if found and made.met():
            self.fault.addr, self.fault.gone = addr, 1
            return type(found)()
        return found

    return step


class Scene:
    """A world with a program that is looked at, and one that is to be killed first."""

    def __init__(self, world: World) -> None:
        self.world = world
        fd = world.init.ok("open", b"/p", O_CREAT | O_WRONLY, 0o755)
        world.init.ok("write", fd, PROGRAM, len(PROGRAM))
        world.init.ok("close", fd)
        self.hog = world.program()
        self.hog.task.group.oom_score_adj = 1000
        self.program = world.program()
        for each in self.hog, self.program:
            each.ok("sched_yield")
        self.path = self.program.place(b"/p\0")
        self.words = self.program.place(bytes(64))

    def call(self, name: str, *values: int) -> int:
        """A system call of the program, with what time it needs."""
        call = self.program.begin(name, *values)
        self.pass_time()
        assert call.done, f"{name} has not ended"
        return call.result

    def fault(self, addr: int, code: int) -> None:
        """A page fault of the program. Raises: Died."""
        context = self.program.context
        context.fault_addr, context.error_code = addr, code
        context.exit, context.result = ExitKind.FAULT, None
        self.program._exit()
        self.pass_time()
        if self.program.task.dead:
            raise Died(self.program.task.group.exit_status)

    def touch(self, addr: int) -> None:
        """A store, made until it comes through. Raises: Died."""
        while not self.program.task.mm.space.check(addr, 1, True):
            self.fault(addr, PF_USER | PF_WRITE)

    def pass_time(self) -> None:
        self.world.loop.advance(A_WHILE_NS)

    def spare(self) -> None:
        """Nobody may be killed."""
        for group in self.world.kernel.pids.groups.values():
            group.oom_score_adj = -1000


Act = Callable[[], int]
Operation = Callable[[Scene], Act]
"""Prepares, and gives what meets the shortage: what it gives is -errno if it failed."""
ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def fork(scene: Scene) -> Act:
    return lambda: scene.call("fork")


def clone3(scene: Scene) -> Act:
    flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID
    scene.program.ok("mmap", FRESH, PAGE, RW, ANONYMOUS, -1, 0)
    words = struct.pack("<8Q", flags, scene.words, FRESH, FRESH + 8, SIGCHLD, 0, 0, 0)
    args = scene.program.place(words)
    return lambda: scene.call("clone3", args, len(words))


def thread(scene: Scene) -> Act:
    flags = THREAD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID
    return lambda: scene.call("clone", flags, 0, scene.words, scene.words + 8, 0)


def execve(scene: Scene) -> Act:
    return lambda: scene.call("execve", scene.path, 0, 0)


def memory(scene: Scene) -> Act:
    def act() -> int:
        addr = scene.call("mmap", FRESH, 16 * PAGE, RW, ANONYMOUS, -1, 0)
        if addr < 0:
            return addr
        scene.touch(addr)
        scene.call("mprotect", addr, 16 * PAGE, 1)
        return scene.call("mremap", addr, 16 * PAGE, 64 * PAGE, MREMAP_MAYMOVE)

    return act


def copy_on_write(scene: Scene) -> Act:
    scene.program.fork()

    def act() -> int:
        scene.touch(scene.words)
        return scene.call("getrandom", scene.words, 8, 0)

    return act


def handler(scene: Scene) -> Act:
    program = scene.program
    program.handle(SIGUSR1)
    program.ok("mmap", FRESH, 64 * PAGE, RW, ANONYMOUS, -1, 0)
    program.task.ctx.regs[Reg.RSP] = FRESH + 64 * PAGE
    number = program.task.group.tgid

    def act() -> int:
        result = scene.call("kill", number, SIGUSR1)
        assert program.in_handler or program.task.dead
        return result

    return act


def vsyscall(scene: Scene) -> Act:
    """gettimeofday(2) at its fixed address."""
    program = scene.program
    program.ok("mmap", FRESH, PAGE, RW, ANONYMOUS, -1, 0)
    program.write(scene.words, RETURN_TO.to_bytes(8, "little"))
    regs = program.context.regs

    def act() -> int:
        regs[Reg.RIP], regs[Reg.RSP] = VSYSCALL_PAGE, scene.words
        regs[Reg.RDI], regs[Reg.RSI] = FRESH, 0
        while regs[Reg.RIP] == VSYSCALL_PAGE:
            scene.fault(VSYSCALL_PAGE, PF_USER | PF_EXEC)
        assert regs[Reg.RIP] == RETURN_TO
        return 0

    return act


def poke(scene: Scene) -> Act:
    child = scene.program.fork()
    scene.program.ok("ptrace", PTRACE_ATTACH, child.task.tid, 0, 0)
    scene.pass_time()
    return lambda: scene.call("ptrace", PTRACE_POKEDATA, child.task.tid, scene.words, 7)


def robust(scene: Scene) -> Act:
    """The end of a thread that has a list of robust futexes and a word that is cleared."""
    other = scene.program.thread()
    head = scene.program.place(struct.pack("<3Q", scene.words, 8, 0))
    other.ok("set_robust_list", head, 24)
    other.ok("set_tid_address", scene.words)

    def act() -> int:
        other.begin("exit", 0)
        scene.pass_time()
        assert other.task.dead
        return 0

    return act


class Client:
    """Whom `exec` has asked."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def failed(self, text: str) -> None:
        self.heard.append(text)

    def started(self, pid: int) -> None:
        self.heard.append("started")

    def ended(self, status: int, use: object, exceeded: str) -> None: ...


def exec_of_the_runtime(scene: Scene) -> Act:
    client = Client()
    container = scene.world.kernel.container
    fds = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
    made = Execution(scene.world.kernel, container, client, fds, lambda _: None)

    def act() -> int:
        made.start(ProcessConfig((b"/p",)), b"")
        scene.pass_time()
        (heard,) = client.heard
        assert heard == "started" or NO_ROOM.search(heard), heard
        return 0 if heard == "started" else -errno.ENOMEM

    return act


OPERATIONS: tuple[Operation, ...] = (
    fork, clone3, thread, execve, memory, copy_on_write, handler, vsyscall, poke, robust,
    exec_of_the_runtime,
)  # fmt: skip


def steps_of(operation: Operation) -> int:
    """How many steps of it need memory."""
    with World(stepped=True) as world:
        act = operation(Scene(world))
        with shortage(world, NEVER) as made:
            assert act() >= 0
        return made.steps


def check_that_all_go_on(world: World) -> None:
    """Nobody was made who never ran, or waits for what does not come."""
    for task in world.kernel.pids.tasks.values():
        context: Any = task.ctx
        assert task.dead or (task.fiber is None and context.resumed), task


@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_is_at_fault_is_killed_and_the_rest_goes_on(operation: Operation) -> None:
    for first in range(steps_of(operation)):
        with World(stepped=True) as world:
            scene = Scene(world)
            act = operation(scene)
            with shortage(world, first):
                result = act()
            scene.pass_time()

            assert result >= 0, (first, os.strerror(-result))
            assert not scene.program.task.dead, first
            assert scene.hog.task.dead == any(KILLED in line for line in world.log.text), first
            check_that_all_go_on(world)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_where_nobody_may_be_killed_it_fails_and_leaves_nothing(operation: Operation) -> None:
    for first in range(steps_of(operation)):
        with World(stepped=True) as world:
            scene = Scene(world)
            act = operation(scene)
            scene.spare()
            before = set(world.kernel.pids.tasks)
            with shortage(world, first, most=3):
                try:
                    result = act()
                except Died:
                    result = 0
            scene.pass_time()

            assert -result in (0, errno.ENOMEM, errno.EFAULT) or result > 0, (first, result)
            assert result >= 0 or set(world.kernel.pids.tasks) <= before, first
            check_that_all_go_on(world)


@pytest.mark.parametrize("holds", ["tracer", "core dump"])
def test_who_dies_already_but_does_not_come_to_it_is_not_waited_for(
    holds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with World() as world:
        program = world.program()
        child = program.fork()
        group = child.task.group
        if holds == "tracer":
            program.ok("ptrace", PTRACE_SEIZE, group.tgid, 0, PTRACE_O_TRACEEXIT)
            child.begin("exit_group", 0)
            world.settle()
        else:
            group.limits.set(RLIMIT_CORE, 1 << 50, 1 << 50)
            child.place(b"there")
            monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
            child.begin("kill", group.tgid, SIGABRT)
            world.loop.turn()
        assert group.exiting and group.tasks
        assert world.kernel.out_of_memory(None)
        assert not program.task.group.exiting
        world.settle()
        assert not group.tasks
        assert group.exit_status == (0 if holds == "tracer" else SIGABRT)


@pytest.mark.parametrize("used_up", [False, True])
def test_page_that_the_host_refuses_kills_nobody_where_memory_is_left(
    used_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was cut, and has grown again since, or that the host cannot read."""
    with World(stepped=True) as world:
        program = world.program()
        if used_up:
            monkeypatch.setattr(Ram, "populated", lambda ram: ram.limit)
        touches_what_is_gone(world, program)
        world.loop.advance(A_WHILE_NS)
        assert any(KILLED in line for line in world.log.text) == used_up
        assert program.task.dead or program.context.result is not None


@pytest.mark.parametrize("end", ["found", "killed", "used up"])
def test_who_has_many_mappings_waits_while_they_are_looked_at(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with World(stepped=True) as world:
        other, program = world.program(), world.program()
        for _ in range(RUN_MAX + 1):
            program.ok("mmap", 0, 2 * PAGE, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            program.ok("mmap", 0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        touches_what_is_gone(world, program)
        assert program.context.result is None
        if end == "killed":
            other.ok("kill", program.task.group.tgid, SIGKILL)
        elif end == "used up":
            monkeypatch.setattr(Ram, "populated", lambda ram: ram.limit)
        world.loop.advance(A_WHILE_NS)
        assert program.task.dead == (end != "found")
        assert program.task.dead or program.context.result is not None
        assert any(KILLED in line for line in world.log.text) == (end == "used up")


def touches_what_is_gone(world: World, program: Program) -> None:
    """A page of a window that has nothing behind it."""
    context = program.context
    context.exit, context.result = ExitKind.FILE_GONE, None
    program.task.on_exit(context)
