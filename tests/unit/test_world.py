"""The kernel of the tests itself: calls that sleep, signals, restarts, faults, a clock."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.signal import SA_RESTART, SIGUSR1
from tests.nowhere import Asleep
from tests.world import Died, Program, World


@pytest.fixture
def pipe(task: Program) -> tuple[int, int]:
    """Its reading and its writing end."""
    where = task.buffer(8)
    task.ok("pipe2", where, 0)
    reader, writer = struct.unpack("<ii", task.read(where, 8))
    return reader, writer


def test_call_that_sleeps_is_ended_by_another_program(
    task: Program, pipe: tuple[int, int]
) -> None:
    child = task.fork()
    call = task.begin("read", pipe[0], buffer := task.buffer(4), 4)
    assert not call.done
    assert child.ok("write", pipe[1], child.place(b"abcd"), 4) == 4
    assert (call.wait(), task.read(buffer, 4)) == (4, b"abcd")


def test_sleep_that_nobody_can_end_is_found(task: Program, pipe: tuple[int, int]) -> None:
    with pytest.raises(Asleep):
        task.call("read", pipe[0], task.buffer(1), 1)


def test_handler_interrupts_a_call_and_returns(task: Program, pipe: tuple[int, int]) -> None:
    task.handle(SIGUSR1)
    call = task.begin("read", pipe[0], task.buffer(1), 1)
    task.sibling().ok("kill", task.task.tid, SIGUSR1)
    assert call.wait() == -errno.EINTR
    assert task.in_handler
    task.leave_handler()
    assert not task.in_handler


def test_restarted_call_goes_on_after_the_handler(task: Program, pipe: tuple[int, int]) -> None:
    child = task.fork()
    task.handle(SIGUSR1, SA_RESTART)
    call = task.begin("read", pipe[0], buffer := task.buffer(1), 1)
    child.ok("kill", task.task.tid, SIGUSR1)
    task.world.settle()
    assert task.in_handler
    task.leave_handler()
    assert not call.done
    child.ok("write", pipe[1], child.place(b"x"), 1)
    task.world.settle()
    assert (call.result, task.read(buffer, 1)) == (1, b"x")


def test_fault_without_a_mapping_kills(task: Program) -> None:
    child = task.fork()
    with pytest.raises(Died) as died:
        child.read(0x7000_0000, 1)
    assert died.value.args == (11,)
    status = task.buffer(4)
    assert task.ok("wait4", -1 & 0xFFFFFFFF, status, 0, 0) == child.task.tid
    assert task.read(status, 4) == struct.pack("<i", 11)


def test_clock_that_is_moved_ends_a_sleep() -> None:
    with World(stepped=True) as world:
        program = world.program()
        call = program.begin("nanosleep", program.place(struct.pack("<qq", 3600, 0)), 0)
        world.loop.advance(3599 * 10**9)
        assert not call.done
        world.loop.advance(10**9)
        assert call.wait() == 0
