"""A server that is not trusted: it may be silent, gone, or bring what nobody asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from gofer.p9.extensions import Rpollx, Tpollx
from gofer.p9.messages import Rstatfs, Tstatfs
from sentry.errors import EBUSY, EIO
from sentry.fs.served.known import MAX_SESSIONS, Served
from sentry.fs.served.session import LOOKS, ServedSession
from sentry.loop import Exited, HostOnly
from tests.world import SteppedLoop, settle

PATIENCE_NS = 4000


class Machine(HostOnly):
    """It never waits."""

    again = False

    def wait(self, deadline_ns: int | None) -> Sequence[Exited]:
        return super().wait(0)



@pytest.fixture
def ends() -> Iterator[tuple[SteppedLoop, ServedSession, socket.socket]]:
    ours, theirs = socket.socketpair()
    loop = SteppedLoop(Machine(), lambda what, error: None)
    session = ServedSession(ours, loop, PATIENCE_NS)
    with theirs:
        yield loop, session, theirs
        session.close()
    assert not loop.watches


Ends = tuple[SteppedLoop, ServedSession, socket.socket]
STATFS = Rstatfs(0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_reply_in_time_is_taken(ends: Ends) -> None:
    loop, session, server = ends
    pending = session.send(Tstatfs(0))
    server.sendall(STATFS.encode(0))
    loop.advance(PATIENCE_NS)
    assert pending.result() == STATFS
    loop.advance(10 * PATIENCE_NS)
    assert not session.dead


def test_silence_ends_the_session_for_all(ends: Ends) -> None:
    loop, session, _ = ends
    told: list[bool] = []
    session.on_end.append(lambda: told.append(True))
    pending = session.send(Tstatfs(0))
    loop.advance(PATIENCE_NS // LOOKS * (LOOKS + 2))
    assert session.dead
    assert told == [True]
    with pytest.raises(EIO):
        pending.result()
    with pytest.raises(EIO):
        session.send(Tstatfs(0))


def test_waiting_for_events_may_take_any_time(ends: Ends) -> None:
    loop, session, _ = ends
    session.send(Tpollx(0, 0))
    loop.advance(100 * PATIENCE_NS)
    assert not session.dead


def test_time_of_a_request_begins_when_it_is_the_oldest(ends: Ends) -> None:
    """A server may take one after the other, each as long as is allowed."""
    loop, session, server = ends
    asked = [session.send(Tstatfs(0)) for _ in range(8)]
    for tag in range(len(asked) - 1):
        loop.advance(PATIENCE_NS * 3 // 4)
        server.sendall(STATFS.encode(tag))
        session.drain()
    loop.advance(PATIENCE_NS * 3 // 4)
    assert not session.dead
    assert [each.done for each in asked] == [True] * 7 + [False]
    loop.advance(PATIENCE_NS)
    assert session.dead


def test_who_hears_of_events_and_asks_again_holds_nobody_up(ends: Ends) -> None:
    """Neither in itself, as deep as there are requests, nor for as long as more replies come."""
    _, session, server = ends
    count, told, depth, deepest = 100, 0, 0, 0

    def hear(tag: int) -> None:
        session.tell(session.send(Tpollx(tag, 0)), lambda: came(tag))

    def came(tag: int) -> None:
        nonlocal told, depth, deepest
        if session.dead:
            return
        told += 1
        depth += 1
        deepest = max(deepest, depth)
        if tag + 1 < count:
            server.sendall(Rpollx(1).encode(tag + 1))
        hear(tag)
        depth -= 1

    for tag in range(count):
        hear(tag)
    server.sendall(Rpollx(1).encode(0))
    session.drain()
    assert 0 < told < count
    while told < count and not session.dead:
        session.drain()
    assert (deepest, session.dead) == (1, False)


def test_end_of_the_server_is_heard_while_nothing_is_asked(ends: Ends) -> None:
    loop, session, server = ends
    session.watch_for_end()
    server.close()
    settle(loop)
    assert session.dead


def test_descriptors_end_the_session_and_are_closed(ends: Ends) -> None:
    _, session, server = ends
    read, write = os.pipe()
    pending = session.send(Tstatfs(0))
    socket.send_fds(server, [STATFS.encode(0)], [write])
    os.close(write)
    session.drain()
    assert session.dead
    with pytest.raises(EIO):
        pending.result()
    assert os.read(read, 1) == b""  # nobody has the other end
    os.close(read)


def test_sessions_are_bounded_and_leave_together() -> None:
    served = Served()
    loop = SteppedLoop(Machine(), lambda what, error: None)
    made = []
    for _ in range(MAX_SESSIONS):
        ours, theirs = socket.socketpair()
        made.append((ServedSession(ours, loop, PATIENCE_NS), theirs))
        served.add(made[-1][0])
    with pytest.raises(EBUSY):
        served.add(made[0][0])
    made[0][0].close()
    assert len(served) == MAX_SESSIONS - 1
    served.leave()
    assert len(served) == 0
    for session, theirs in made:
        assert session.dead
        theirs.close()
