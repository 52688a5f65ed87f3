"""A terminal and its session know each other until one of them ends."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.fcntl import O_NOCTTY, O_RDWR
from sentry.abi.ioctl import TIOCGPTPEER, TIOCSCTTY
from sentry.abi.sched import CLONE_NEWNS, CLONE_NEWUSER
from sentry.abi.signal import SIGINT
from sentry.abi.stat import STAT
from sentry.auth.credentials import Credentials
from sentry.fs.devpts.discipline import LineDiscipline
from sentry.fs.devpts.filesystem import DevPtsFs
from sentry.fs.devpts.terminal import AHEAD, PIECE, Terminal
from sentry.kernel import signal_send
from sentry.kernel.terminals import GroupSignals
from sentry.kernel.thread_group import ProcessGroup, Session
from sentry.loop import PIECE as PIECE_OF_CROWD
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.vfs import Vfs
from tests.world import Program, World


@pytest.fixture
def vfs() -> Iterator[Vfs]:
    """Without the collector: what is left over stays."""
    gc.collect()
    gc.disable()
    yield Vfs(None, None, lambda: 0)
    gc.enable()


def opened(vfs: Vfs) -> Any:
    """The master of a new terminal."""
    caller: Any = SimpleNamespace(creds=Credentials())
    inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
    return DevPtsFs(vfs).new_terminal(vfs.anon_location(inode, b"ptmx"), O_RDWR, caller).incref()


def session() -> Any:
    """A session of one process."""
    leader = SimpleNamespace(terminal=None)
    group = SimpleNamespace(members=[leader])
    return SimpleNamespace(
        leader=leader, groups=[group], terminal=None, foreground=None, old_foreground=None
    )


def alive() -> int:
    return sum(type(each) is Terminal for each in gc.get_objects())


def test_terminal_is_freed_when_its_master_is_closed(vfs: Vfs) -> None:
    master, mine = opened(vfs), session()
    master.terminal.take(mine, mine.groups[0])
    assert mine.leader.terminal is mine.terminal is master.terminal
    master.decref()
    del master
    assert mine.terminal is None and mine.leader.terminal is None and alive() == 0


def test_terminal_forgets_a_session_that_gave_it_up(vfs: Vfs) -> None:
    master, mine = opened(vfs), session()
    master.terminal.take(mine, mine.groups[0])
    mine.terminal.disassociate(mine)
    assert master.terminal.session is None and mine.leader.terminal is None
    master.decref()
    del master
    assert alive() == 0


def test_line_is_not_lost_where_memory_has_to_be_waited_for(
    world: World, changing: Callable[[Program], AbstractContextManager[None]]
) -> None:
    world.devices()
    world.mount("devpts", b"/dev/pts")
    program = world.program()
    master = program.ok("open", b"/dev/ptmx", O_RDWR | O_NOCTTY, 0)
    slave = program.ok("ioctl", master, TIOCGPTPEER, O_RDWR | O_NOCTTY)
    room, line = program.buffer(64), program.place(b"a line\n")
    call = program.thread().begin("read", slave, room, 64)
    with changing(program):
        program.ok("write", master, line, 7)
        world.settle()
        assert not call.done
    assert call.wait() == 7
    assert program.read(room, 7) == b"a line\n"


def test_who_types_much_does_not_hold_up_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.devices()
    world.mount("devpts", b"/dev/pts")
    program = world.program()
    master = program.ok("open", b"/dev/ptmx", O_RDWR | O_NOCTTY, 0)
    size, taken = 4 * AHEAD, []

    def take(discipline: LineDiscipline, data: bytes, echo: bytearray) -> list[int]:
        taken.append(len(data))
        return []

    monkeypatch.setattr(LineDiscipline, "take", take)
    call = program.begin("write", master, program.place(bytes(size)), size)
    assert not call.done and sum(taken) <= PIECE
    while not call.done:
        before = sum(taken)
        world.loop.turn()
        assert sum(taken) <= before + 2 * PIECE
    assert call.result == size
    world.settle()
    assert sum(taken) == size


def test_keys_are_told_to_a_large_group_in_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 10 * PIECE_OF_CROWD
    told: list[int] = []
    monkeypatch.setattr("sentry.loop.PIECE_NS", 0)
    monkeypatch.setattr(signal_send, "send_to_group", lambda member, info: told.append(member))
    group: Any = ProcessGroup(1, Session(1, None))
    group.members |= set(range(many))
    signals = GroupSignals(world.loop)
    for _ in range(100):
        signals.send(group, SIGINT)
    assert len(told) == PIECE_OF_CROWD
    world.settle()
    assert sorted(told) == sorted([*range(many)] * 2)
    signals.send(group, SIGINT)
    world.settle()
    assert len(told) == 3 * many


def test_terminal_that_is_stolen_from_who_ends_stays_that_of_the_thief(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.devices()
    world.mount("devpts", b"/dev/pts")
    master = world.init.ok("open", b"/dev/pts/ptmx", O_RDWR | O_NOCTTY, 0)
    leader, thief = world.init.fork(), world.init.fork()
    for each in leader, thief:
        each.ok("setsid")
    slave = leader.ok("ioctl", master, TIOCGPTPEER, O_RDWR | O_NOCTTY)
    leader.ok("ioctl", slave, TIOCSCTTY, 0)
    terminal: Any = leader.task.group.terminal
    terminal.locked = False
    for _ in range(50):
        leader.fork()
    mine = thief.ok("open", b"/dev/pts/0", O_RDWR | O_NOCTTY, 0)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    session = leader.task.group.session
    leader.begin("exit_group", 0)
    while session.leader is not None:
        world.loop.turn()
    thief.ok("ioctl", mine, TIOCSCTTY, 1)
    world.settle()
    assert terminal is thief.task.group.terminal
    assert terminal.session is thief.task.group.session


def test_devpts_of_a_user_namespace_is_for_its_users_alone(world: World) -> None:
    world.devices()
    world.mount("devpts", b"/dev/pts")
    world.mount("proc", b"/proc")
    program = world.program()
    program.ok("mknod", b"/dev/multiplexer", 0o20666, 5 << 8 | 2)
    program.ok("mkdir", b"/mine", 0o755)
    user = program.sibling(1000, 1000)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    assert user.call("mount", b"x", b"/mine", b"devpts", 0, b"gid=5") == -errno.EINVAL
    maps = (b"setgroups", b"deny"), (b"gid_map", b"5 1000 1"), (b"uid_map", b"0 1000 1")
    for name, line in maps:
        fd = user.ok("open", b"/proc/self/" + name, O_RDWR, 0)
        user.ok("write", fd, user.place(line), len(line))
    user.ok("mount", b"x", b"/mine", b"devpts", 0, b"gid=5,ptmxmode=0666")
    user.ok("open", b"/mine/ptmx", O_RDWR | O_NOCTTY, 0)
    room = user.buffer(STAT.size)
    user.ok("stat", b"/mine/0", room)
    assert STAT.unpack(user.read(room, STAT.size)).st_gid == 5
    program.ok("open", b"/dev/multiplexer", O_RDWR | O_NOCTTY, 0)
    program.ok("stat", b"/dev/pts/0", program.buffer(STAT.size))
