"""Filters of tasks: which action wins, who gets them, what is kept."""

from __future__ import annotations

import errno
import itertools
import struct
from typing import Any

import pytest

from sentry.abi.poll import EPOLLHUP
from sentry.abi.seccomp import (
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_GET_ACTION_AVAIL,
    SECCOMP_MODE_FILTER,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
    SECCOMP_SET_MODE_FILTER,
)
from sentry.abi.signal import SIGSYS
from sentry.bpf import isa
from sentry.bpf.filter import CallFilter
from sentry.bpf.isa import Instruction, Program, pack
from sentry.errors import EINVAL, ENOMEM, ENOSYS
from sentry.kernel import seccomp
from sentry.kernel.seccomp_listener import Listener
from sentry.kernel.signal_faults import VSYSCALL_PAGE
from sentry.kernel.task import GONE, Task
from sentry.platform.interface import ExitKind, Reg
from tests.unit.kernel.conftest import World
from tests.world import World as Real

READ, GETPID = 0, 39
NONE = (0, 0, 0, 0, 0, 0)


@pytest.fixture(autouse=True)
def _contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contexts here have no entry code."""
    monkeypatch.setattr("sentry.kernel.seccomp.child_identity", lambda task: None)


def made(program: Program) -> CallFilter:
    """A filter of it."""
    return CallFilter(pack(program))


def always(result: int) -> CallFilter:
    """A filter that says the same to every call."""
    return made((Instruction(isa.RET | isa.K, 0, 0, result),))


def by_argument(refused: int) -> CallFilter:
    """EPERM where the low word of the first argument is this."""
    return made(
        (
            Instruction(isa.LD | isa.ABS, 0, 0, 16),
            Instruction(isa.JMP | isa.JEQ | isa.K, 0, 1, refused),
            Instruction(isa.RET | isa.K, 0, 0, SECCOMP_RET_ERRNO | 1),
            Instruction(isa.RET | isa.K, 0, 0, SECCOMP_RET_ALLOW),
        )
    )


class Tasks(dict[int, Task]):
    """How often all of them were looked at."""

    looks = 0

    def values(self) -> Any:
        Tasks.looks += 1
        return super().values()


def test_users_of_a_listener_are_looked_for_when_the_known_one_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.process(50, None), world.process(51, None)
    monkeypatch.setattr(world.kernel.pids, "tasks", Tasks(world.kernel.pids.tasks))
    listener = Listener(world.kernel, always(SECCOMP_RET_ALLOW), False)
    assert listener.poll() == EPOLLHUP
    for task in (first, second):
        task.seccomp = seccomp.Seccomp(SECCOMP_MODE_FILTER, None, listener)
    Tasks.looks = 0
    assert [listener.poll() for _ in range(9)] == [0] * 9
    assert Tasks.looks == 1
    first.dead = True
    assert [listener.poll() for _ in range(9)] == [0] * 9
    assert Tasks.looks == 2
    second.dead = True
    assert [listener.poll() for _ in range(9)] == [EPOLLHUP] * 9
    assert Tasks.looks == 3
    first.dead = second.dead = False


def test_strictest_action_wins_whatever_the_order() -> None:
    ordered = [
        SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO | 1,
        SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW,
    ]  # fmt: skip
    for strict, loose in itertools.pairwise(ordered):
        for pair in ((strict, loose), (loose, strict)):
            state = seccomp.Seccomp(SECCOMP_MODE_FILTER)
            for result in pair:
                state = state.with_filter(always(result))
            assert state.result(READ, 0, NONE) == strict


def test_result_that_depends_on_arguments_is_not_kept(task: Task) -> None:
    seccomp.add_filter(task, always(SECCOMP_RET_ALLOW))
    seccomp.add_filter(task, by_argument(7))

    answers = [task.seccomp.entered(task, READ, (n, *NONE[1:])) for n in (1, 7, 1, 7)]

    assert answers == [None, -1, None, -1]


def test_observer_is_replaced_by_the_one_with_more_filters(task: Task) -> None:
    seccomp.add_filter(task, always(SECCOMP_RET_ALLOW))
    seccomp.add_filter(task, always(SECCOMP_RET_ERRNO | 5))

    assert task.observers == [task.seccomp]
    assert task.seccomp.entered(task, READ, NONE) == -5


def test_tracer_decides_about_traced_calls(task: Task) -> None:
    class Tracer:
        def seccomp(self, _: Task, data: int) -> int:
            return data * 2

        def suspends_seccomp(self) -> bool:
            return False

    seccomp.add_filter(task, always(SECCOMP_RET_TRACE | 21))

    assert task.seccomp.entered(task, READ, NONE) == -ENOSYS.number
    task.trace = Tracer()
    assert task.seccomp.entered(task, READ, NONE) == 42


def test_killed_thread_leaves_the_others(task: Task, world: World) -> None:
    other = world.thread(task.group, 101)
    seccomp.add_filter(other, always(SECCOMP_RET_KILL_THREAD))

    assert other.seccomp.entered(other, READ, NONE) is GONE
    assert world.exits == [other]
    assert not task.group.exiting


@pytest.mark.parametrize("result", [SECCOMP_RET_KILL_PROCESS, 0x00120000])
def test_kill_and_what_is_not_known_end_the_process(task: Task, world: World, result: int) -> None:
    world.thread(task.group, 101)
    seccomp.add_filter(task, always(result))

    assert task.seccomp.entered(task, READ, NONE) is GONE
    assert task.group.exiting
    assert task.group.exit_status == SIGSYS


def test_notification_without_a_listener_is_enosys(task: Task) -> None:
    seccomp.add_filter(task, always(SECCOMP_RET_USER_NOTIF))

    assert task.seccomp.entered(task, READ, NONE) == -ENOSYS.number


def test_synchronising_is_all_or_nothing(task: Task, world: World) -> None:
    one, two = world.thread(task.group, 101), world.thread(task.group, 102)
    seccomp.add_filter(two, always(SECCOMP_RET_ALLOW))

    assert seccomp.add_filter(task, always(SECCOMP_RET_LOG), every_thread=True) == 102
    assert (task.seccomp, one.seccomp) == (None, None)


def test_synchronised_threads_share_the_filters_and_no_new_privs(task: Task, world: World) -> None:
    seccomp.add_filter(task, always(SECCOMP_RET_ALLOW))
    other = world.thread(task.group, 101)
    seccomp.put(other, task.seccomp)
    task.no_new_privs = True

    assert seccomp.add_filter(task, always(SECCOMP_RET_LOG), every_thread=True) == 0
    assert other.seccomp is task.seccomp
    assert other.observers == [task.seccomp]
    assert other.no_new_privs


def test_instructions_of_all_filters_are_limited(task: Task) -> None:
    program = (Instruction(isa.ALU, 0, 0, 1),) * 4095
    program = (*program, Instruction(isa.RET | isa.K, 0, 0, SECCOMP_RET_ALLOW))
    for _ in range(7):
        seccomp.add_filter(task, made(program))

    with pytest.raises(ENOMEM):
        seccomp.add_filter(task, made(program))


def test_filters_of_a_parent_are_shared_whatever_the_child_adds(task: Task) -> None:
    seccomp.add_filter(task, always(SECCOMP_RET_ALLOW))
    theirs = task.seccomp

    one, two = (theirs.with_filter(always(SECCOMP_RET_ERRNO | n)) for n in (1, 2))

    assert one.newest.older is two.newest.older is theirs.newest
    assert [state.result(READ, 0, NONE) & 0xFFFF for state in (one, two, theirs)] == [1, 2, 0]


def test_modes_do_not_mix(task: Task, world: World) -> None:
    seccomp.set_strict(task)
    with pytest.raises(EINVAL):
        seccomp.add_filter(task, always(SECCOMP_RET_ALLOW))
    assert task.seccomp.entered(task, READ, NONE) is None
    assert task.seccomp.entered(task, GETPID, NONE) is GONE

    other = world.process(200, world.init)
    seccomp.add_filter(other, always(SECCOMP_RET_ALLOW))
    with pytest.raises(EINVAL):
        seccomp.set_strict(other)


def test_calls_that_are_always_allowed_are_not_asked_about_again(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    run = CallFilter.run

    def counted(one: CallFilter, number: int, *rest: object) -> int:
        asked.append(number)
        return run(one, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(CallFilter, "run", counted)
    seccomp.add_filter(task, always(SECCOMP_RET_ALLOW))
    for number in (READ, READ, GETPID, GETPID, 1 << 31):
        assert task.seccomp.entered(task, number, NONE) is None
    seccomp.add_filter(task, always(SECCOMP_RET_ERRNO | 3))

    assert task.seccomp.entered(task, READ, NONE) == -3
    assert asked == [READ, GETPID, -(1 << 31), READ]


def test_action_is_read_from_any_address() -> None:
    with Real() as world:
        program = world.program()
        for action, result in ((SECCOMP_RET_ERRNO, 0), (5, -errno.EOPNOTSUPP)):
            at = program.place(b"x" + struct.pack("<I", action)) + 1
            assert program.call("seccomp", SECCOMP_GET_ACTION_AVAIL, 0, at) == result


def test_call_into_the_vsyscall_page_is_not_notified() -> None:
    with Real() as world:
        program = world.program()
        filters = program.place(pack((Instruction(isa.RET | isa.K, 0, 0, SECCOMP_RET_USER_NOTIF),)))
        fprog = program.place(struct.pack("<H6xQ", 1, filters))
        program.ok("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, fprog)
        context, stack = program.context, program.place(struct.pack("<Q", 0x5000))
        regs = context.regs
        regs[Reg.RIP], regs[Reg.RSP] = VSYSCALL_PAGE, stack
        context.exit, context.fault_addr, context.error_code = ExitKind.FAULT, VSYSCALL_PAGE, 20
        program._exit()
        assert regs[Reg.RAX] == -errno.ENOSYS & (1 << 64) - 1
        assert (regs[Reg.RIP], regs[Reg.RSP]) == (0x5000, stack + 8)


def test_notified_call_goes_on_though_another_thread_has_added_a_filter() -> None:
    only_getpid = (
        Instruction(isa.LD | isa.ABS, 0, 0, 0),
        Instruction(isa.JMP | isa.JEQ | isa.K, 0, 1, GETPID),
        Instruction(isa.RET | isa.K, 0, 0, SECCOMP_RET_USER_NOTIF),
        Instruction(isa.RET | isa.K, 0, 0, SECCOMP_RET_ALLOW),
    )
    with Real() as world:
        program = world.program()
        listener = Listener(world.kernel, made(only_getpid), False)
        seccomp.add_filter(program.task, listener.program, listener=listener)
        other = program.thread()
        call = program.begin("getpid")
        world.settle()
        seccomp.add_filter(other.task, always(SECCOMP_RET_ALLOW), every_thread=True)
        (note,) = listener._waiting.values()
        note.reply(0, go_on=True)
        world.settle()
        assert call.result == program.task.tid
