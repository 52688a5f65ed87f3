"""What the last close leaves to do: others run meanwhile, and who closes waits until it is done."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry.abi.socket import AF_INET, AF_UNIX, SO_ERROR, SOCK_STREAM, SOL_SOCKET
from sentry.errors import ECONNREFUSED, ECONNRESET
from sentry.vfs.leftovers import FEW, Leftovers
from tests.world import Call, Program, World

MANY = FEW + 40
HERE = struct.pack("<H", AF_INET) + struct.pack(">HI8x", 4000, 0x7F000001)
NAME = struct.pack("<H", AF_UNIX) + b"\0name"


@pytest.fixture()
def program() -> Iterator[Program]:
    with World() as world:
        yield world.program()


@pytest.fixture()
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece takes longer than a step."""
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)


def epoll(program: Program) -> tuple[int, list[int]]:
    """One that watches MANY eventfds."""
    made, event = program.ok("epoll_create1", 0), program.place(struct.pack("<IQ", 1, 0))
    watched = [program.ok("eventfd2", 0, 0) for _ in range(MANY)]
    for fd in watched:
        program.ok("epoll_ctl", made, 1, fd, event)
    return made, watched


def listener(program: Program, family: int, address: bytes) -> tuple[int, list[int]]:
    """One with MANY connections that nobody accepts."""
    made = program.ok("socket", family, SOCK_STREAM, 0)
    program.ok("bind", made, address, len(address))
    program.ok("listen", made, MANY)
    clients = [program.ok("socket", family, SOCK_STREAM, 0) for _ in range(MANY)]
    for client in clients:
        program.ok("connect", client, address, len(address))
    return made, clients


def so_error(program: Program, fd: int) -> int:
    room = program.place(struct.pack("<ii", 0, 4))
    program.ok("getsockopt", fd, SOL_SOCKET, SO_ERROR, room, room + 4)
    return int(struct.unpack("<i", program.read(room, 4))[0])


def turn(program: Program, call: Call, times: int) -> None:
    for _ in range(times):
        program.world.loop.turn()
    assert not call.done


def test_file_that_is_watched_often_is_forgotten_in_steps(slow: None, program: Program) -> None:
    made, event = program.ok("epoll_create1", 0), program.place(struct.pack("<IQ", 1, 0))
    watched = program.ok("eventfd2", 1, 0)
    numbers = [watched, *(program.ok("dup", watched) for _ in range(MANY))]
    for fd in numbers:
        program.ok("epoll_ctl", made, 1, fd, event)
    room = program.buffer(12 * 8)
    assert program.ok("epoll_wait", made, room, 8, 0) == 8
    other = program.thread()
    for fd in numbers[:-1]:
        program.ok("close", fd)
    closing = program.begin("close", numbers[-1])
    turn(program, closing, 5)
    assert FEW < program.world.vfs.epoll_items < MANY
    assert other.begin("epoll_wait", made, other.buffer(12 * 8), 8, 0).wait() == 0
    assert closing.wait() == 0
    assert program.world.vfs.epoll_items == 0


def test_few_things_end_in_place(slow: None) -> None:
    ended: list[int] = []
    left = Leftovers(None)
    left.begin(range(FEW), ended.append)
    assert ended == [*range(FEW)]
    assert left.awaited(7) == 7


def test_what_fails_does_not_hold_up_what_follows(program: Program, slow: None) -> None:
    def fail(number: int) -> None:
        ended.append(number)
        if number == FEW:
            raise ValueError

    world = program.world
    ended: list[int] = []
    left = Leftovers(world.loop)
    left.begin(range(MANY), fail)
    rest = left.awaited(7)
    left.begin(range(MANY), ended.append)
    assert not isinstance(rest, int)
    with pytest.raises(ValueError):
        world.run(rest)
    world.run(left.awaited())
    assert ended == [*range(FEW + 1), *range(MANY)]


def test_closed_epoll_lets_others_run(program: Program, slow: None) -> None:
    world, other = program.world, program.thread()
    made, watched = epoll(program)
    closing = program.begin("close", made)
    turn(program, closing, 5)
    assert 0 < world.vfs.epoll_items < MANY
    other.ok("write", watched[-1], struct.pack("<Q", 1), 8)  # it is watched still
    other.ok("close", watched[-2])
    other.ok("close", other.ok("epoll_create1", 0))
    assert not closing.done
    assert closing.wait() == 0
    assert world.vfs.epoll_items == 0


def test_memory_that_was_looked_at_to_the_end_of_its_process_ends_in_steps(
    slow: None, program: Program
) -> None:
    program.world.mount("proc", b"/proc")
    child = program.fork()
    many = 4 * MANY
    start = child.ok("mmap", 0, 4096 * many, 1, 0x22, -1, 0)
    for at in range(start, start + 4096 * many, 8192):
        child.ok("mprotect", at, 4096, 3)
    memory = child.task.mm.map
    fd = program.ok("open", b"/proc/%d/mem" % child.task.tid, 0)
    child.begin("exit_group", 0)
    program.ok("wait4", -1, 0, 0, 0)
    assert len(memory.vmas) >= many
    closing = program.begin("close", fd)
    turn(program, closing, 5)
    assert 0 < len(memory.vmas) < many
    assert closing.wait() == 0
    assert not len(memory.vmas)


def test_exit_waits_until_all_is_done(program: Program, slow: None) -> None:
    child = program.fork()
    epoll(child)
    child.begin("exit_group", 0)
    program.ok("wait4", -1, 0, 0, 0)
    assert program.world.vfs.epoll_items == 0


def test_closed_inotify_watches_nothing(program: Program, slow: None) -> None:
    made = program.ok("inotify_init")
    for n in range(MANY):
        program.ok("mkdir", b"/d%d" % n, 0o700)
        program.ok("inotify_add_watch", made, b"/d%d" % n, 0x100)
    closing = program.begin("close", made)
    turn(program, closing, 5)
    program.world.program().ok("mkdir", b"/d0/x", 0o700)
    assert closing.wait() == 0
    assert program.world.vfs.inotify_watches == 0


@pytest.mark.parametrize(("family", "address"), [(AF_INET, HERE), (AF_UNIX, NAME)])
@pytest.mark.parametrize("call", ["close", "close_range", "dup2"])
def test_all_connections_are_reset_when_their_listener_is_closed(
    program: Program, slow: None, family: int, address: bytes, call: str
) -> None:
    other = program.thread()
    made, clients = listener(program, family, address)
    arguments = {"close": (made,), "close_range": (made, made, 0), "dup2": (clients[0], made)}
    closing = program.begin(call, *arguments[call])
    turn(program, closing, 5)
    assert so_error(other, clients[1]) == ECONNRESET.number
    assert so_error(other, clients[-1]) == 0
    other.ok("close", clients[-2])
    late = other.begin("connect", other.ok("socket", family, SOCK_STREAM, 0), address, len(address))
    assert closing.wait() == (made if call == "dup2" else 0)
    assert so_error(program, clients[-1]) == ECONNRESET.number
    assert late.wait() == -ECONNREFUSED.number


def test_shut_listener_has_reset_all_connections(program: Program, slow: None) -> None:
    made, clients = listener(program, AF_INET, HERE)
    program.ok("shutdown", made, 0)
    assert [so_error(program, fd) for fd in clients] == [ECONNRESET.number] * MANY
    program.ok("listen", made, 1)
