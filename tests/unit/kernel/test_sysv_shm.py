"""Segments of shared memory whose end is long, what else is, and memory that is used up."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from sentry.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, SHM_REMAP, SHM_RND
from sentry.abi.ptrace import PTRACE_O_EXITKILL, PTRACE_SEIZE
from sentry.abi.sched import CLONE_NEWIPC, CLONE_VM
from sentry.abi.signal import SIGCHLD
from sentry.abi.sysvipc import IPC_RMID
from sentry.kernel.ptrace.links import link
from sentry.kernel.ptrace.tracee import Tracee
from sentry.mm.address_map import AT_ONCE
from tests.world import Program, World

SIZE = 4 * AT_ONCE
PAGE = 4096
UINT32 = (1 << 32) - 1


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Where everything that has pieces is done by single ones."""
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    with World() as made:
        yield made


def attached(program: Program) -> tuple[int, int]:
    number = program.begin("shmget", 0, SIZE, 0o1600).wait()
    return number, program.begin("shmat", number, 0, 0).wait()


def test_who_touches_what_is_being_detached_waits_and_finds_nothing(world: World) -> None:
    program = world.program()
    number, address = attached(program)
    for at in range(address, address + SIZE, AT_ONCE):
        program.write(at, b"there")
    thread = program._made(program.begin("clone", CLONE_VM | SIGCHLD, 0, 0, 0, 0).wait())
    place = program.place(b"text")
    call = program.begin("shmdt", address)
    assert not call.done
    reading = thread.begin("getcwd", address, 10)
    assert not reading.done
    assert call.wait() == 0
    assert reading.wait() == -errno.EFAULT
    assert program.read(place, 4) == b"text"
    assert program.call("shmdt", address) == -errno.EINVAL
    assert program.call("shmctl", number, 0, 0) == 0


def in_many_mappings(program: Program, size: int) -> int:
    """Memory that no two neighbouring pages are alike of."""
    area = program.begin("mmap", 0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS, UINT32, 0).wait()
    for at in range(area, area + size, 2 * PAGE):
        assert program.begin("mprotect", at, PAGE, 1).wait() == 0
    return area


def test_what_is_attached_in_the_place_of_many_mappings_comes_in_steps(world: World) -> None:
    program = world.program()
    number = program.begin("shmget", 0, 200 * PAGE, 0o1600).wait()
    area = in_many_mappings(program, 200 * PAGE)
    other = program._made(program.begin("clone", CLONE_VM | SIGCHLD, 0, 0, 0, 0).wait())
    call = program.begin("shmat", number, area, SHM_REMAP)
    assert not call.done
    assert other.call("shmctl", number, IPC_RMID, 0) == 0
    assert not call.done
    assert call.wait() == area
    program.write(area + 199 * PAGE, b"there")
    assert program.call("shmdt", area) == 0
    assert not program.task.ns.ipc.objects.segments.ids.objects


def test_who_detaches_what_is_not_there_looks_at_many_mappings_in_steps(world: World) -> None:
    program = world.program()
    in_many_mappings(program, 200 * PAGE)
    call, turns = program.begin("shmdt", PAGE), 0
    while not call.done:
        world.loop.turn()
        turns += 1
    assert (call.result, turns > 200) == (-errno.EINVAL, True)


@pytest.mark.parametrize("end", ["exit_group", "unshare"])
def test_segments_of_who_goes_go_in_steps(world: World, end: str) -> None:
    world.kernel.services.sysctls["kernel/shm_rmid_forced"] = "1"
    program = world.program()
    objects = program.task.ns.ipc.objects.segments.ids.objects
    for _ in range(20):
        assert program.begin("shmget", 0, 4096, 0o1600).wait() >= 0
    call, left = program.begin(end, CLONE_NEWIPC if end == "unshare" else 0), [20]
    while left[-1]:
        world.loop.turn()
        assert left[-1] - len(objects) <= 1
        left.append(len(objects))
    assert end == "exit_group" or call.wait() == 0


def test_tracees_of_who_exits_are_let_go_in_steps(world: World) -> None:
    program = world.program()
    for _ in range(20):
        child = program._made(program.begin("fork").wait())
        assert program.begin("ptrace", PTRACE_SEIZE, child.task.tid, 0, 0).wait() == 0
    program.begin("exit_group", 0)
    tracees, left = program.task.tracees, [20]
    while left[-1]:
        world.loop.turn()
        assert left[-1] - len(tracees) <= 1
        left.append(len(tracees))


def test_tracees_that_go_and_come_while_their_tracer_exits_are_let_go_as_what_they_are(
    world: World,
) -> None:
    program = world.program()
    for _ in range(3):
        child = program._made(program.begin("fork").wait())
        tid = child.task.tid
        assert program.begin("ptrace", PTRACE_SEIZE, tid, 0, PTRACE_O_EXITKILL).wait() == 0
    tracees = program.task.tracees
    program.begin("exit_group", 0)
    while len(tracees) == 3:
        world.loop.turn()
    tracees[-1].drop()
    link(Tracee(child.task, program.task, True, 0))  # as if a tracee had made it, and less strict
    world.settle()
    assert child.task.trace is None
    assert not child.task.group.exiting


def test_nobody_dies_for_want_of_memory_that_a_file_gives_back(world: World) -> None:
    program = world.program()
    fd = program.begin("memfd_create", b"x", 0).wait()
    assert program.begin("ftruncate", fd, SIZE * 4).wait() == 0
    assert program.begin("fallocate", fd, 0, 0, SIZE * 4).wait() == 0
    call = program.begin("close", fd)
    assert not call.done
    assert world.platform.ram.leaving
    assert world.kernel.out_of_memory(None)
    assert not program.task.group.exiting
    assert call.wait() == 0
    assert not world.platform.ram.leaving


def test_address_that_is_rounded_to_0_is_not_just_any(world: World) -> None:
    program = world.program()
    number = program.ok("shmget", 0, 4096, 0o1600)
    assert program.call("shmat", number, 100, SHM_RND) == -errno.EPERM
