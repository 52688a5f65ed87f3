"""A process and all that comes of it, counted and bounded together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.abi.signal import SIGKILL, SIGTERM
from sentry.config import JobLimits, JobUse
from sentry.errors import EAGAIN
from sentry.kernel.job import IDLE_NS, Job
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.steps import Steps, at_once
from tests.world import Program, World


@pytest.fixture
def world() -> Iterator[World]:
    with World(stepped=True) as made:
        yield made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Each look at one."""
    found: list[Job] = []
    look = Job.use

    def counted(job: Job) -> Steps[JobUse]:
        found.append(job)
        return look(job)

    monkeypatch.setattr(Job, "use", counted)
    return found


NONE = JobLimits()


def begin(world: World, limits: JobLimits = NONE) -> tuple[Job, Program]:
    """A job, and its first process."""
    job = Job(world.kernel, limits)
    program = world.program()
    program.task.group.job = job
    job.born(program.task.group)
    job.begin()
    return job, program


def use(job: Job) -> JobUse:
    return at_once(job.use())


def test_who_is_forked_belongs_to_it_and_others_do_not(world: World) -> None:
    job, program = begin(world)
    child = program.fork()
    grandchild = child.fork()
    thread = child.thread()
    other = world.program()

    assert set(job.members) == {each.task.group for each in (program, child, grandchild)}
    assert use(job).tasks == 4
    assert other.task.group.job is None

    thread.begin("exit", 0)
    grandchild.begin("exit_group", 0)
    world.settle()
    assert set(job.members) == {program.task.group, child.task.group}
    assert use(job).tasks == 4


def test_what_the_dead_have_used_counts_too(world: World) -> None:
    job, program = begin(world)
    fd = program.ok("open", b"/f", O_CREAT | O_WRONLY, 0o644)
    program.ok("write", fd, b"x" * 10, 10)
    child = program.fork()
    child.ok("write", fd, b"y" * 20, 20)
    assert use(job).written == 30

    child.begin("exit_group", 0)
    world.settle()
    job.sent += 7

    assert (use(job).written, use(job).sent) == (30, 7)
    assert use(job).memory >= PAGE_SIZE


def test_one_task_too_many_is_refused_and_ends_all(world: World) -> None:
    job, program = begin(world, JobLimits(tasks=2))
    child = program.fork()
    assert job.exceeded == ""

    assert program.call("fork") == -EAGAIN.number
    world.settle()

    assert job.exceeded == "processes"
    assert program.task.dead and child.task.dead
    assert not job.members


def test_a_zombie_counts_as_a_task(world: World) -> None:
    job, program = begin(world, JobLimits(tasks=2))
    child = program.fork()
    child.begin("exit_group", 0)
    world.settle()
    status = program.buffer(4)
    assert program.ok("wait4", child.task.tid, status, 0, 0) == child.task.tid
    program.fork()

    assert job.exceeded == ""


def test_when_the_time_is_over_all_are_killed(world: World) -> None:
    job, program = begin(world, JobLimits(wall_ns=10**9))
    child = program.fork()
    world.loop.advance(10**9 - 1)
    assert not child.task.dead

    world.loop.advance(2)
    world.settle()

    assert job.exceeded == "wall"
    assert child.task.group.exit_status == program.task.group.exit_status == SIGKILL


def test_the_time_is_that_of_the_first_process(world: World) -> None:
    job, program = begin(world, JobLimits(wall_ns=10**9))
    child = program.fork()
    program.begin("exit_group", 0)
    world.settle()
    job.first_ended()
    world.loop.advance(2 * 10**9)
    world.settle()

    assert (job.exceeded, child.task.dead) == ("", False)
    assert not job.is_bounded


def test_memory_beyond_the_limit_is_seen_at_the_next_look(world: World) -> None:
    job, program = begin(world, JobLimits(memory=1024 * PAGE_SIZE))
    assert job.is_bounded
    world.loop.advance(10 * IDLE_NS)
    world.settle()
    assert not job.closed

    where = program.ok("mmap", 0, 2000 * PAGE_SIZE, 3, 0x22, -1, 0)
    for page in range(2000):
        program.write(where + page * PAGE_SIZE, b"x")
    world.loop.advance(2 * IDLE_NS)
    world.settle()

    assert job.exceeded == "memory"
    assert use(job).memory > 1024 * PAGE_SIZE


@pytest.mark.parametrize("name", ["written", "egress"])
def test_bytes_beyond_the_limit_are_seen_at_the_next_look(world: World, name: str) -> None:
    limits = JobLimits(written=1000) if name == "written" else JobLimits(sent=1000)
    job, program = begin(world, limits)
    for _ in range(3):
        program.task.wchar += 500 if name == "written" else 0
        job.sent += 500 if name == "egress" else 0
        world.loop.advance(2 * IDLE_NS)
        world.settle()

    assert job.exceeded == name
    assert program.task.dead


def test_cpu_time_is_looked_at_when_it_may_be_used_up(world: World, looks: list[Job]) -> None:
    job, program = begin(world, JobLimits(cpu_ns=10**9))
    world.loop.advance(10**9 - 1)
    assert looks == []

    program.context.cpu_ns += 600_000_000
    world.loop.advance(10**8)
    assert (len(looks), job.exceeded) == (1, "")

    program.context.cpu_ns += 600_000_000
    world.loop.advance(10**9)
    assert job.exceeded == "cpu"
    assert program.task.dead


def test_nobody_looks_at_one_without_limits(world: World, looks: list[Job]) -> None:
    timers = world.loop.timers
    begin(world)
    assert world.loop.timers == timers
    world.loop.advance(10**11)

    assert looks == []


def test_who_is_killed_can_make_nobody(world: World) -> None:
    job, program = begin(world)
    child = program.fork()
    job.kill()

    with pytest.raises(EAGAIN):
        job.check_birth()
    world.settle()
    assert child.task.dead and not job.members
    world.run(job.ended())


def test_a_signal_is_for_all(world: World) -> None:
    job, program = begin(world)
    child = program.fork()

    job.signal(SIGTERM)
    world.settle()

    assert program.task.group.exit_status == child.task.group.exit_status == SIGTERM
    job.signal(SIGKILL)
    assert job.closed


def test_its_end_is_waited_for(world: World) -> None:
    job, program = begin(world)
    ended: list[object] = []
    world.loop.spawn(job.ended(), "test", lambda *_: ended.append(1))
    world.settle()
    assert ended == []

    program.begin("exit_group", 0)
    world.settle()

    assert ended == [1]
