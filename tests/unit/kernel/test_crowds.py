"""What is done to thousands at a time, piece by piece: what others see and do in between."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry import loop
from sentry.abi.poll import EPOLLIN
from sentry.abi.resource import PRIO_PGRP
from sentry.abi.sched import CLONE_VM
from sentry.abi.signal import SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from sentry.abi.wait import WNOHANG
from sentry.errors import ECHILD, EIDRM, EINVAL, ESRCH
from sentry.kernel import waiting
from sentry.kernel.container import Container
from sentry.kernel.task import Task
from sentry.wait import queue, steps
from tests.world import Program, World

WNOWAIT_EXITED = 0x01000004
P_PID = 1


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Where everything that has pieces is done by single ones."""
    monkeypatch.setattr(steps, "STEP_NS", -1)
    monkeypatch.setattr(loop, "TURN_NS", 0)
    monkeypatch.setattr(loop, "PIECE", 1)
    monkeypatch.setattr(loop, "PIECE_NS", -1)
    monkeypatch.setattr(queue, "MANY", 1)
    with World() as made:
        yield made


def group_of(program: Program, count: int) -> list[Program]:
    """Children in a process group of their own."""
    made = [program.fork() for _ in range(count)]
    for child in made:
        program.ok("setpgid", child.task.tid, made[0].task.tid)
    return made


def born(parent: Program) -> Program:
    """A child that is there at once: it shares the memory."""
    return parent._made(parent.begin("clone", CLONE_VM | SIGCHLD, 0, 0, 0, 0).result)


def living(programs: list[Program]) -> list[Task]:
    return [one.task for one in programs if not one.task.dead]


def test_kill_of_a_group_takes_those_too_who_are_forked_meanwhile(world: World) -> None:
    program = world.program()
    crowd = group_of(program, 4)
    call = program.begin("kill", -crowd[0].task.tid, SIGTERM)
    assert not call.done
    late = born([one for one in crowd if not one.task.group.exiting][-1])
    assert call.wait() == 0
    world.settle()
    assert living([*crowd, late]) == []


def test_kill_of_everybody_tells_of_nobody_only_at_its_end(world: World) -> None:
    program = world.program()
    crowd = group_of(program, 3)
    pgid = crowd[0].task.tid
    assert program.call("kill", -pgid, SIGKILL) == 0
    world.settle()
    assert living(crowd) == []
    for _ in crowd:
        program.ok("wait4", -1, 0, 0, 0)
    assert program.call("kill", -pgid, 0) == -ESRCH.number


def test_kill_of_everybody_but_one_finds_who_lives_and_who_has_ended(world: World) -> None:
    program = world.program()
    assert program.call("kill", -1, SIGKILL) == -ESRCH.number
    crowd = group_of(program, 3)
    crowd[0].begin("exit_group", 0)
    crowd[2].begin("exit_group", 0)
    world.settle()
    assert program.call("kill", -1, 65) == -EINVAL.number
    assert program.call("kill", -1, SIGKILL) == 0
    world.settle()
    assert living(crowd) == []
    assert program.call("kill", -1, SIGKILL) == 0


def test_priority_of_a_group_is_changed_and_read_piece_by_piece(world: World) -> None:
    program = world.program()
    crowd = group_of(program, 3)
    pgid = crowd[0].task.tid
    call = program.begin("setpriority", PRIO_PGRP, pgid, 7)
    assert not call.done
    assert call.wait() == 0
    assert program.call("getpriority", PRIO_PGRP, pgid) == 20 - 7
    assert program.call("getpriority", PRIO_PGRP, 999) == -ESRCH.number


@pytest.mark.parametrize("children", [0, 1, 9])
def test_container_ends_once_when_its_processes_end_together(children: int, world: World) -> None:
    ended: list[int] = []
    container = Container()
    container.ns = world.kernel.first
    container.on_end = ended.append
    world.kernel.further.append(container)
    init, other = world.program(), world.program()
    container.init = init.task.group
    for program in (init, other):
        container.cgroup.take(program.task.group)
    for _ in range(children):  # its end takes so long
        other.fork().begin("exit_group", 0)
    world.settle()
    init.begin("exit_group", 3)
    other.begin("exit_group", 0)
    world.settle()
    assert living([init, other]) == []
    assert ended == [3 << 8]


def test_process_is_no_zombie_before_its_children_have_another_parent(world: World) -> None:
    program, init = world.program(), world.init
    parent = program.fork()
    children = [parent.fork() for _ in range(4)]
    for child in children[:2]:
        child.begin("exit_group", 3)
    world.settle()
    number = parent.task.tid
    parent.begin("exit_group", 0)
    group = parent.task.group
    seen = []
    while program.ok("wait4", number, 0, WNOHANG, 0) == 0:
        world.loop.turn()
        seen.append(sum(child.task.group.parent is group for child in children))
        if group.ending:
            assert not group.is_zombie
    assert seen == sorted(seen, reverse=True)
    assert {1, 2, 3} <= set(seen)
    assert all(child.task.group.parent is world.init.task.group for child in children[2:])
    found = [init.ok("wait4", -1, 0, WNOHANG, 0) for _ in range(2)]
    assert sorted(found) == [child.task.tid for child in children[:2]]
    assert init.ok("wait4", -1, 0, WNOHANG, 0) == 0


def watched(program: Program, count: int) -> tuple[int, list[int]]:
    """A counter, and epolls that watch it."""
    counter = program.ok("eventfd2", 0, 0)
    epolls = [program.ok("epoll_create1", 0) for _ in range(count)]
    for epoll in epolls:
        program.ok("epoll_ctl", epoll, 1, counter, program.place(struct.pack("<IQ", EPOLLIN, 7)))
    return counter, epolls


def test_write_has_ended_when_the_last_of_many_epolls_has_heard_of_it(world: World) -> None:
    program = world.program()
    counter, epolls = watched(program, 5)
    other = program.thread()
    found = other.buffer(12)

    def ready() -> list[int]:
        return [other.ok("epoll_wait", epoll, found, 1, 0) for epoll in epolls]

    sleeper = program.thread()
    asleep = sleeper.begin("epoll_wait", epolls[-1], sleeper.buffer(12), 1, -1)
    call = program.begin("write", counter, struct.pack("<Q", 1), 8)
    assert not call.done
    seen = ready()
    assert seen[0] == 1
    assert seen[-1] == 0
    assert call.wait() == 8
    assert ready() == [1] * 5
    assert asleep.wait() == 1


def test_events_of_a_queue_that_is_being_told_are_told_together_afterwards(world: World) -> None:
    program = world.program()
    counter, epolls = watched(program, 5)
    writers = [program.thread() for _ in range(3)]
    one = struct.pack("<Q", 1)
    calls = [writer.begin("write", counter, one, 8) for writer in writers]
    assert not any(call.done for call in calls)
    assert calls[0].wait() == 8
    assert not calls[1].done
    assert not calls[2].done
    assert [call.wait() for call in calls] == [8] * 3
    found = program.buffer(12)
    assert [program.ok("epoll_wait", epoll, found, 1, 0) for epoll in epolls] == [1] * 5


def test_signal_comes_after_the_last_has_heard_and_ends_no_call(world: World) -> None:
    program = world.program()
    program.handle(SIGTERM)
    counter, epolls = watched(program, 5)
    other = program.thread()
    call = program.begin("write", counter, struct.pack("<Q", 1), 8)
    other.ok("tgkill", program.task.tid, program.task.tid, SIGTERM)
    other.ok("close", epolls[3])
    assert not call.done
    assert not program.in_handler
    call.wait()
    assert program.in_handler
    program.leave_handler()
    assert call.result == 8
    assert other.ok("epoll_wait", epolls[4], other.buffer(12), 1, 0) == 1


def test_writer_that_is_killed_meanwhile_has_told_all(world: World) -> None:
    program, other = world.program(), world.program()
    counter, epolls = watched(program, 5)
    child = program.fork()
    child.begin("write", counter, struct.pack("<Q", 1), 8)
    other.ok("kill", child.task.tid, SIGKILL)
    world.settle()
    assert not living([child])
    assert program.ok("epoll_wait", epolls[4], program.buffer(12), 1, 0) == 1
    assert program.ok("write", counter, struct.pack("<Q", 1), 8) == 8


def test_wait_among_many_goes_on_piece_by_piece_and_hears_of_what_changes_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "AT_A_TIME", 1)
    program = world.program()
    waiter = program.thread()
    crowd = [program.fork() for _ in range(4)]
    pgid = crowd[3].task.tid
    program.ok("setpgid", pgid, pgid)

    call = waiter.begin("wait4", -pgid, 0, 0, 0)
    assert not call.done
    program.ok("setpgid", crowd[0].task.tid, pgid)  # which the look has passed
    crowd[0].begin("exit_group", 3)
    assert call.wait() == crowd[0].task.tid

    call = waiter.begin("wait4", -1, 0, 0, 0)
    world.settle()
    assert not call.done
    crowd[2].begin("exit_group", 3)
    assert call.wait() == crowd[2].task.tid
    assert program.call("wait4", -1, 0, WNOHANG, 0) == 0
    assert program.call("wait4", -(pgid + 100), 0, WNOHANG, 0) == -ECHILD.number


def test_first_process_of_a_pid_namespace_takes_all_others_with_it(world: World) -> None:
    program = world.program()
    program.ok("unshare", 0x20000000)
    first = program.fork()
    for _ in range(4):
        first.ok("fork")
    others = list(first.task.group.children)
    assert len(others) == 4
    first.begin("exit_group", 0)
    info = program.buffer(128)
    program.ok("waitid", P_PID, first.task.tid, info, WNOWAIT_EXITED, 0)
    assert not any(other.tasks for other in others)
    assert program.ok("wait4", first.task.tid, 0, 0, 0) == first.task.tid


def test_stop_that_is_over_before_all_have_heard_of_it_stops_nobody(world: World) -> None:
    program, other = world.program(), world.program()
    crowd = [program.thread() for _ in range(4)]
    number = program.task.tid
    other.ok("kill", number, SIGSTOP)
    other.ok("kill", number, SIGCONT)
    world.settle()
    assert not any(one.task.stopped for one in (program, *crowd))
    assert all(one.call("getppid") >= 0 for one in (program, *crowd))


def test_stop_while_others_still_go_on_after_the_last_one_stops_all(world: World) -> None:
    program, other = world.program(), world.program()
    crowd = [program.thread() for _ in range(4)]
    number = program.task.tid
    other.ok("kill", number, SIGSTOP)
    world.settle()
    assert program.task.group.stop_signal == SIGSTOP
    other.begin("kill", number, SIGCONT)
    other.begin("kill", number, SIGSTOP)
    world.settle()
    assert program.task.group.stop_signal == SIGSTOP
    assert all(one.task.stopped for one in (program, *crowd))
    other.ok("kill", number, SIGCONT)
    world.settle()
    assert not any(one.task.stopped for one in (program, *crowd))


def test_thread_that_is_made_while_others_are_told_to_die_dies(world: World) -> None:
    program = world.program()
    crowd = [program.thread() for _ in range(4)]
    program.begin("exit_group", 0)
    last = crowd[-1]
    if not last.task.work:
        last.begin("clone", 0x10F00, 0, 0, 0, 0)
    world.settle()
    assert program.task.group.tasks == []


@pytest.fixture
def frozen(world: World) -> tuple[Program, list[Program], int, int]:
    """A cgroup with some processes: its file `freeze`, and `events`, open in another program."""
    world.mount("cgroup2", b"/sys/fs/cgroup")
    program, other = world.program(), world.program()
    other.ok("mkdir", b"/sys/fs/cgroup/g", 0o755)
    procs = program.ok("open", b"/sys/fs/cgroup/g/cgroup.procs", 1)
    program.ok("write", procs, b"0", 1)
    crowd = [program, *(program.fork() for _ in range(3))]
    freeze = other.ok("open", b"/sys/fs/cgroup/g/cgroup.freeze", 1)
    return other, crowd, freeze, other.ok("open", b"/sys/fs/cgroup/g/cgroup.events", 0)


def events(program: Program, fd: int) -> bytes:
    room = program.buffer(64)
    return program.read(room, program.ok("pread64", fd, room, 64, 0))


def test_cgroup_is_frozen_when_the_last_one_has_heard_of_it(
    world: World, frozen: tuple[Program, list[Program], int, int]
) -> None:
    other, crowd, freeze, told = frozen
    watcher = other.fork()
    long = other.place(struct.pack("<qq", 10_000, 0))
    for one in crowd:  # asleep: as if it stood still
        one.begin("nanosleep", long, 0)
    call = other.begin("write", freeze, b"1", 1)
    assert not call.done
    assert b"frozen 0" in events(watcher, told)
    assert call.wait() == 1
    world.settle()
    assert b"frozen 1" in events(watcher, told)
    assert all(one.task.stopped for one in crowd)
    other.ok("write", freeze, b"0", 1)
    world.settle()
    assert b"frozen 0" in events(watcher, told)
    assert not any(one.task.stopped for one in crowd)


def test_cgroup_kill_takes_those_too_who_are_forked_meanwhile(
    world: World, frozen: tuple[Program, list[Program], int, int]
) -> None:
    other, crowd, _, told = frozen
    kill = other.ok("open", b"/sys/fs/cgroup/g/cgroup.kill", 1)
    call = other.begin("write", kill, b"1", 1)
    assert not call.done
    late = born([one for one in crowd if not one.task.group.exiting][-1])
    assert call.wait() == 1
    world.settle()
    assert living([*crowd, late]) == []
    assert b"populated 0" in events(other, told)
    assert other.call("wait4", -1, 0, 0, 0) == -ECHILD.number


def test_second_change_of_a_set_waits_until_all_have_gone_on_after_the_first(world: World) -> None:
    program = world.program()
    number = program.ok("semget", 0, 1, 0o600)
    down, up = (program.place(struct.pack("<Hhh", 0, by, 0)) for by in (-1, 4))
    crowd = [program.thread() for _ in range(4)]
    calls = [one.begin("semop", number, down, 1) for one in crowd]
    first = program.begin("semop", number, up, 1)
    assert not first.done
    other = program.sibling()
    second = other.begin("semop", number, other.place(struct.pack("<Hhh", 0, -1, 0)), 1)
    assert not second.done
    assert first.wait() == 0
    world.settle()
    assert [call.result for call in calls] == [0] * 4
    assert not second.done
    assert program.ok("semctl", number, 0, 14, 0) == 1  # GETNCNT
    assert program.ok("semctl", number, 0, 0, 0) == 0
    world.settle()
    assert second.result == -EIDRM.number


def test_waiter_that_is_killed_while_others_go_on_takes_nothing(world: World) -> None:
    program = world.program()
    number = program.ok("semget", 0, 1, 0o600)
    down, up = (program.place(struct.pack("<Hhh", 0, by, 0)) for by in (-1, 4))
    crowd = [program.fork() for _ in range(4)]
    for one in crowd:
        one.begin("semop", number, down, 1)
    call = program.begin("semop", number, up, 1)
    crowd[-1].task.group.exit(SIGKILL)
    assert call.wait() == 0
    world.settle()
    assert program.ok("semctl", number, 0, 12, 0) == 1  # GETVAL


def test_end_of_a_process_gives_semaphores_back_piece_by_piece(world: World) -> None:
    program, holder = world.program(), world.program()
    number = program.ok("semget", 0, 1, 0o1600)
    program.ok("semctl", number, 0, 16, 8)  # SETVAL
    undone = holder.place(struct.pack("<Hhh", 0, -8, 0x1000))
    assert holder.begin("semop", number, undone, 1).wait() == 0
    made = [program.thread() for _ in range(8)]
    calls = [
        one.begin("semop", number, one.place(struct.pack("<Hhh", 0, -1, 0)), 1) for one in made
    ]
    holder.begin("exit_group", 0)
    found = [0]
    while not all(call.done for call in calls):
        world.loop.turn()
        found.append(sum(call.done for call in calls))
    assert found == sorted(found)
    assert len(set(found)) > 4
    assert [call.result for call in calls] == [0] * 8
    assert program.begin("semctl", number, 0, 12, 0).wait() == 0  # GETVAL


def test_list_of_keys_is_made_piece_by_piece_whatever_their_names(world: World) -> None:
    world.mount("proc", b"/proc")
    program = world.program()
    program.ok("add_key", b"user", b"k\xff", b"x", 1, -3 & 0xFFFFFFFF)
    fd, room = program.ok("open", b"/proc/keys", 0), program.buffer(4096)
    call = program.begin("read", fd, room, 4096)
    assert not call.done
    assert b" k\xff: 1\n" in program.read(room, call.wait())
