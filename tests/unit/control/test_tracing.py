"""Sessions of a sandbox that runs: made, told of, ended, refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.control import tracing
from sentry.control.answers import TraceState, TraceTold
from sentry.errors import EEXIST, EINVAL, ENOENT
from sentry.syscalls.registry import CALLS
from sentry.watch.calls import Hook
from tests.world import World

POINT = TracePoint("syscall/getppid/exit")
REMOTE = (TraceSink("remote", has_fd=True),)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        made.unwatch()
        yield made
        watch: Any = made.kernel.watch
        for name in list(watch.sessions if watch is not None else ()):
            tracing.delete(made.kernel, name)


def _begin(world: World, session: TraceSession, *fds: int, force: bool = False) -> str:
    told: list[str] = []
    tracing.create(world.kernel, session, list(fds), told.append, force=force)
    while not told:
        world.settle()
    return told[0]


def test_a_session_is_made_and_told_of_and_ended(world: World) -> None:
    program = world.program()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session = TraceSession("Default", (POINT,), REMOTE)
    assert _begin(world, session, ours.detach()) == ""
    program.ok("getppid")
    expected = TraceState("Default", [TraceTold("remote", 1, 0)])
    assert tracing.sessions(world.kernel) == [expected]
    tracing.delete(world.kernel, "Default")
    assert theirs.recv(100)
    assert theirs.recv(100) == b""
    assert tracing.sessions(world.kernel) == []
    with pytest.raises(ENOENT):
        tracing.delete(world.kernel, "Default")
    theirs.close()


def test_a_point_that_there_is_not_is_told_and_the_descriptor_is_closed(world: World) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session = TraceSession("Default", (TracePoint("none"),), REMOTE)
    assert _begin(world, session, ours.detach()) == 'point "none" not found'
    assert theirs.recv(10) == b""
    assert tracing.sessions(world.kernel) == []
    theirs.close()


def test_a_second_session_of_a_name_is_refused_unless_it_is_to_take_its_place(
    world: World,
) -> None:
    session = TraceSession("Default", (POINT,), (TraceSink("null"),))
    assert _begin(world, session) == ""
    with pytest.raises(EEXIST):
        _begin(world, session)
    assert _begin(world, session, force=True) == ""
    assert len(tracing.sessions(world.kernel)) == 1


@pytest.mark.parametrize("kind", ["stream", "pipe", "missing", "directory", "null"])
def test_a_descriptor_of_another_kind_is_refused_and_closed(world: World, kind: str) -> None:
    fds = []
    if kind == "stream":
        ours, theirs = socket.socketpair()
        fds, other = [ours.detach()], theirs.detach()
    elif kind in ("pipe", "null"):
        other, writer = os.pipe()
        fds = [writer]
    else:
        other = os.open("/", os.O_RDONLY)
        fds = [os.dup(other)] if kind == "directory" else []
    sinks = (TraceSink("null", has_fd=True),) if kind == "null" else REMOTE
    with pytest.raises(EINVAL):
        _begin(world, TraceSession("Default", (POINT,), sinks), *fds)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
    os.close(other)


def test_tasks_that_run_come_to_the_kernel_with_calls_the_guest_would_answer(
    world: World,
) -> None:
    program = world.program()
    fast: list[int] = []
    program.context.set_fast = lambda pid, tid, ids: fast.append(pid)
    session = TraceSession("Default", (TracePoint("syscall/sysno/39/enter"),), (TraceSink("null"),))
    assert _begin(world, session) == ""
    tracing.delete(world.kernel, "Default")
    world.settle()
    assert fast == [0, program.task.own_pid]


def test_a_session_may_end_when_who_listens_has_gone(world: World) -> None:
    program = world.program()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    point = TracePoint("syscall/getpid/exit")
    session = TraceSession("Default", (point,), REMOTE, ends_with_listeners=True)
    assert _begin(world, session, ours.detach()) == ""
    watch: Any = world.kernel.watch
    program.ok("getpid")
    watch.flush()
    assert theirs.recv(100)
    theirs.close()
    assert len(tracing.sessions(world.kernel)) == 1
    program.ok("getpid")
    watch.flush()
    world.settle()
    assert tracing.sessions(world.kernel) == []
    assert not any(isinstance(call, Hook) for call in CALLS)


def test_a_fork_leaves_what_is_not_sent_yet_to_its_parent(world: World) -> None:
    program = world.program()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session = TraceSession("Default", (TracePoint("syscall/getpid/exit"),), REMOTE)
    assert _begin(world, session, ours.detach()) == ""
    watch: Any = world.kernel.watch
    program.ok("getpid")
    watch.leave()
    assert theirs.recv(10) == b""
    assert tracing.sessions(world.kernel) == []
    assert not any(isinstance(call, Hook) for call in CALLS)
    theirs.close()


def test_a_session_that_ends_while_it_is_being_made_leaves_nothing(world: World) -> None:
    program = world.program()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    points = tuple(TracePoint(f"syscall/sysno/{number}/enter") for number in range(400))
    session = TraceSession("Default", points, REMOTE)
    told: list[str] = []
    tracing.create(world.kernel, session, [ours.detach()], told.append, force=False)
    watch: Any = world.kernel.watch
    while not watch.sessions:
        world.loop.turn()
    assert watch.is_changing
    tracing.delete(world.kernel, "Default")
    while not told:
        world.loop.turn()
    assert told == [""]
    assert theirs.recv(10) == b""
    assert not any(isinstance(call, Hook) for call in CALLS)
    program.ok("getppid")
    theirs.close()
