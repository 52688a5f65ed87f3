from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.abi.signal import SIGKILL, SIGTERM
from sentry.config import (
    Capabilities,
    JobLimits,
    JobUse,
    ProcessConfig,
    Rlimit,
    SchedulerConfig,
)
from sentry.control.descriptors import check, close_all
from sentry.control.execution import STOPPED, Execution, merge
from sentry.control.orders import ExecProcess
from sentry.control.protocol import CONTAINER
from sentry.errors import EINVAL
from tests.fuzz.resources.fuse import Server
from tests.fuzz.scaling import Bench
from tests.fuzz.test_elf import good
from tests.world import Program, World

BASE = ProcessConfig(
    args=(b"init",),
    env=(b"PATH=/bin",),
    cwd=b"/srv",
    uid=5,
    gid=6,
    additional_gids=(7,),
    capabilities=Capabilities(bounding=3, effective=1, permitted=1),
    rlimits=(Rlimit(7, 10, 20),),
    scheduler=SchedulerConfig(0, nice=1),
    io_priority=2 << 13 | 1,
    no_new_privileges=True,
    terminal=True,
    console_size=(1, 2),
)


@pytest.fixture
def opened() -> Iterator[list[int]]:
    fds: list[int] = []
    yield fds
    close_all(fds)


def test_streams_terminals_and_files_are_taken(opened: list[int], tmp_path: Path) -> None:
    opened += os.pipe()
    opened += os.openpty()
    opened += [end.detach() for end in socket.socketpair()]
    opened.append(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    opened += [os.open(f"/dev/{name}", os.O_RDWR) for name in ("null", "zero", "full")]

    for fd in opened:
        check(fd)


def test_ways_to_the_host_are_refused(opened: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opened.append(os.open(tmp_path, os.O_RDONLY))
    opened.append(os.open(tmp_path / "file", os.O_PATH))
    opened.append(os.memfd_create("x"))
    opened.append(os.eventfd(0))
    opened.append(os.pidfd_open(os.getpid()))

    for fd in opened[:2] + opened[3:5]:
        with pytest.raises(EINVAL):
            check(fd)
    check(opened[2])  # a file in memory is a file


def test_what_is_not_said_is_as_in_the_container() -> None:
    merged = merge(BASE, ExecProcess((b"p",)))

    assert merged.args == (b"p",)
    assert (merged.terminal, merged.console_size) == (False, None)
    for name in (
        "env", "cwd", "uid", "gid", "additional_gids", "capabilities", "rlimits", "scheduler",
        "io_priority",
    ):  # fmt: skip
        assert getattr(merged, name) == getattr(BASE, name)
    assert merged.no_new_privileges


def test_what_is_said_wins_or_adds() -> None:
    merged = merge(
        BASE,
        ExecProcess(
            (b"p",),
            env=(),
            extra_env=(b"A=b",),
            cwd=b"/",
            uid=0,
            extra_gids=(8,),
            extra_capabilities=8,
            no_new_privileges=False,
            scheduler=SchedulerConfig(3, nice=5),
            io_priority=3 << 13,
        ),
    )

    assert (merged.env, merged.cwd, merged.uid, merged.gid) == ((b"A=b",), b"/", 0, 6)
    again = merge(BASE, ExecProcess((b"p",), extra_env=(b"PATH=/sbin", b"B=1", b"B=2")))
    assert again.env == (b"PATH=/sbin", b"B=2")
    assert merged.additional_gids == (7, 8)
    assert merged.capabilities == Capabilities(bounding=11, effective=9, permitted=9)
    assert not merged.no_new_privileges
    assert (merged.scheduler, merged.io_priority) == (SchedulerConfig(3, nice=5), 3 << 13)


class Heard:
    """A client, and what it hears."""

    def __init__(self) -> None:
        self.pid = 0
        self.why = ""
        self.ends: list[tuple[int, JobUse | None, str]] = []

    def failed(self, text: str) -> None:
        self.why = text

    def started(self, pid: int) -> None:
        self.pid = pid

    def ended(self, status: int, use: JobUse | None, exceeded: str) -> None:
        self.ends.append((status, use, exceeded))


@pytest.fixture
def world() -> Iterator[World]:
    with World(stepped=True) as made:
        data = good(interpreter=False)
        fd = made.init.ok("open", b"/p", O_CREAT | O_WRONLY, 0o755)
        made.init.ok("write", fd, data, len(data))
        made.init.ok("close", fd)
        yield made


def run(world: World, limits: JobLimits | None) -> tuple[Execution, Heard, Program]:
    """A process of `exec` that has forked: both, and who hears of them."""
    heard = Heard()
    fds = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
    container = world.kernel.container
    made = Execution(world.kernel, container, heard, fds, lambda _: None, limits)
    made.start(ProcessConfig((b"/p",)), b"")
    world.settle()
    assert not heard.why
    task = world.kernel.pids.tasks[heard.pid]
    return made, heard, Program(world, task)


def child_of(world: World, program: Program) -> Program:
    """A fork of it, as its program would make one."""
    program.context.result = 0
    return program.fork()


def test_what_has_limits_takes_along_what_it_has_started(world: World) -> None:
    _, heard, program = run(world, JobLimits(tasks=5))
    child = child_of(world, program)
    program.task.group.exit(0x300)
    world.settle()

    assert child.task.dead
    ((status, use, exceeded),) = heard.ends
    assert use is not None
    assert (status, use.tasks, exceeded) == (0x300, 2, "")


def test_what_has_none_leaves_it_running(world: World) -> None:
    for limits in (None, JobLimits(), JobLimits(wall_ns=10**9)):
        _, heard, program = run(world, limits)
        child = child_of(world, program)
        program.task.group.exit(0)
        world.settle()
        world.loop.advance(2 * 10**9)

        assert not child.task.dead
        ((status, use, exceeded),) = heard.ends
        assert (status, exceeded) == (0, "")
        assert (use is None) is (limits is None)


def test_a_client_that_goes_away_takes_all_of_it_along(world: World) -> None:
    made, _, program = run(world, JobLimits())
    child = child_of(world, program)
    made.abandon()
    world.settle()

    assert program.task.dead and child.task.dead


def test_time_that_is_over_is_told(world: World) -> None:
    _, heard, program = run(world, JobLimits(wall_ns=10**9))
    child = child_of(world, program)
    world.loop.advance(2 * 10**9)
    world.settle()

    assert child.task.dead
    ((status, _, exceeded),) = heard.ends
    assert (status, exceeded) == (SIGKILL, "wall")


def test_a_signal_is_for_the_process_or_all(world: World) -> None:
    made, _, program = run(world, JobLimits())
    child = child_of(world, program)
    made.signal(SIGTERM, False)
    world.settle()
    assert program.task.dead and not child.task.dead

    made, _, program = run(world, JobLimits())
    child = child_of(world, program)
    made.signal(SIGTERM, True)
    world.settle()
    assert program.task.dead and child.task.dead


def test_the_end_of_the_container_is_told(world: World) -> None:
    _, heard, _ = run(world, JobLimits())
    world.init.task.group.exit(SIGKILL)
    world.settle()

    ((status, _, exceeded),) = heard.ends
    assert (status, exceeded) == (SIGKILL, CONTAINER)


def test_a_client_that_goes_away_waits_for_no_server_of_files(world: World) -> None:
    server = Server(Bench(world, 1))
    known = set(world.kernel.pids.sessions)
    heard, forgotten = Heard(), []
    ours, theirs = os.pipe()
    null = [os.open("/dev/null", os.O_RDWR) for _ in range(2)]
    container = world.kernel.container
    made = Execution(world.kernel, container, heard, [*null, theirs], forgotten.append)
    made.start(ProcessConfig((b"/tmp/m/p",)), b"")
    world.settle()
    assert not heard.why
    made.abandon()
    world.settle()
    os.set_blocking(ours, False)

    assert os.read(ours, 1) == b""  # nobody has the other end any more
    assert (heard.pid, heard.why, forgotten) == (0, STOPPED, [made])
    assert set(world.kernel.pids.sessions) == known
    os.close(ours)
    server.program.ok("close", server.device)


def test_what_has_not_begun_takes_nothing_of_the_client_in_a_fork(world: World) -> None:
    heard = Heard()
    ours, theirs = os.openpty()
    made = Execution(world.kernel, world.kernel.container, heard, [theirs], lambda _: None)
    made.start(ProcessConfig((b"/p",), terminal=True), b"")
    made.leave()
    world.settle()

    assert (heard.pid, heard.why, made.has_terminal) == (0, STOPPED, False)
    os.close(ours)
