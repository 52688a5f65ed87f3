"""A defect of ours: the program that meets it dies of SIGSYS, is counted once, and nobody else; and
what comes to a task while its exit is on its way."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from sentry.abi import unistd
from sentry.abi.signal import SIGKILL, SIGSYS
from sentry.mm.errors import NeedsFault
from sentry.platform.interface import ExitKind
from sentry.wait.fiber import Mode, park
from tests.world import World


class Counting:
    """A log that counts bugs."""

    left_out = 0

    def __init__(self) -> None:
        self.bugs = 0

    def write(self, text: str) -> None: ...

    def bug(self, what: object, error: BaseException) -> None:
        self.bugs += 1

    def finish(self) -> None: ...


def at_once(*_: Any) -> None:
    struct.unpack("<Q", b"short")


async def while_it_sleeps(task: Any, *_: Any) -> None:
    await park(Mode.INTERRUPTIBLE, task.kernel.loop.now_ns() + 1)
    raise KeyError("never meant")


async def as_it_ends(task: Any, *_: Any) -> str:
    await park(Mode.INTERRUPTIBLE, task.kernel.loop.now_ns() + 1)
    return "no register holds that"


@pytest.mark.parametrize("handler", [at_once, while_it_sleeps, as_it_ends])
def test_exception_that_is_no_errno_costs_the_program_once(handler: Callable[..., Any]) -> None:
    with World() as world:
        log = world.kernel.log = Counting()
        world.kernel.calls = list(world.kernel.calls)
        world.kernel.calls[unistd.sysinfo] = handler
        program, other = world.program(), world.program()
        thread = program.thread()

        program.begin("sysinfo", 0).wait()
        world.settle()

        assert program.task.dead and program.task.group.exit_status == SIGSYS
        assert thread.task.dead and not other.task.dead
        assert log.bugs == 1
        assert other.ok("getpid") > 0


def test_kill_that_comes_while_a_page_fault_is_on_its_way_ends_its_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def for_ever() -> None:
        await park(Mode.KILLABLE)

    def fault(*_: object) -> None:
        raise NeedsFault(for_ever)

    with World() as world:
        program = world.program()
        context = program.context
        monkeypatch.setattr("sentry.kernel.dispatch.fault", fault)
        context.exit, context.result = ExitKind.FAULT, None
        program.task.group.exit(SIGKILL)
        program.task.on_exit(context)
        fiber = program.task.fiber
        assert fiber is not None
        world.settle()
        if not (ended := program.task.dead):
            fiber.wake()
    assert ended
