"""A session over a socket whose other end is the test: waiting, killing, dying."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.extensions import Rnearx, Tnearx
from gofer.p9.frames import FrameReader
from gofer.p9.messages import (
    Rclunk,
    Rlerror,
    Rread,
    Rversion,
    Rwrite,
    Tclunk,
    Tgetattr,
    Tread,
    Tversion,
    Twrite,
)
from sentry.errors import EIO, ENOENT, EPROTO
from sentry.fs.gofer import session
from sentry.fs.gofer.requests import MAX_TAGS
from sentry.fs.gofer.session import PATIENCE_MS, Session
from sentry.loop import Loop
from sentry.wait.again import again
from sentry.wait.fiber import Fiber, Killed, Mode


class Server:
    """The far end, by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = FrameReader(c.MSIZE_MAX)
        self._got: list[tuple[int, Message]] = []

    def take(self) -> tuple[int, Message]:
        """The next request."""
        while not self._got:
            self._got += self._reader.feed(self.sock.recv(1 << 16))
        return self._got.pop(0)

    def has_come(self) -> bool:
        """A request, whole."""
        with suppress(BlockingIOError):
            while not self._got:
                self._got += self._reader.feed(self.sock.recv(1 << 16, socket.MSG_DONTWAIT))
        return bool(self._got)

    def reply(self, tag: int, message: Message) -> None:
        self.sock.sendall(message.encode(tag))


class Ends:
    """Both ends and the loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        ours, theirs = socket.socketpair()
        self.session = Session(ours, loop)
        self.server = Server(theirs)
        self.outcomes: dict[str, Any] = {}

    def start(self, name: str, coro: Any) -> Fiber:
        def done(result: Any, problem: BaseException | None) -> None:
            self.outcomes[name] = problem if problem is not None else result

        return self.loop.spawn(coro, name, done)

    def call(self, request: Message, **how: Any) -> Any:
        """As a system call makes a request."""
        return again(self.session.reply, request.type, request, **how)

    def asked(self) -> tuple[int, Message]:
        """The next request, however long that stood in line."""
        self.until(self.server.has_come)
        return self.server.take()

    def turn(self) -> None:
        self.loop.call_soon(lambda: None)
        self.loop.turn()

    def until(self, condition: Callable[[], bool]) -> None:
        """A turn ends by the clock: on a slow machine it takes more of them."""
        for _ in range(100_000):
            if condition():
                return
            self.turn()
        raise AssertionError("it does not happen")

    def finish(self, *names: str) -> list[Any]:
        self.until(lambda: all(name in self.outcomes for name in names))
        return [self.outcomes[name] for name in names]


@pytest.fixture
def ends(kernel: Any) -> Iterator[Ends]:
    made = Ends(kernel.loop)
    yield made
    made.session.close()
    made.server.sock.close()


def test_call_sleeps_until_a_late_reply_comes(ends: Ends) -> None:
    one = ends.start("one", ends.call(Tread(1, 0, 10)))
    two = ends.start("two", ends.call(Tread(2, 0, 10), mode=Mode.KILLABLE, slow=True))
    ends.until(lambda: one.parked and two.parked)
    first, second = ends.server.take(), ends.server.take()
    ends.server.reply(second[0], Rread(b"b"))
    assert ends.finish("two") == [Rread(b"b")]
    assert one.parked
    ends.server.reply(first[0], Rread(b"a"))
    assert ends.finish("one") == [Rread(b"a")]


def test_a_killed_waiter_leaves_its_request_running(ends: Ends) -> None:
    fiber = ends.start("one", ends.call(Tread(1, 0, 10), mode=Mode.KILLABLE, slow=True))
    ends.until(lambda: fiber.parked)
    tag, _ = ends.server.take()
    assert fiber.interrupt(Killed(), Mode.KILLABLE)
    assert isinstance(ends.finish("one")[0], Killed)
    assert ends.session.unanswered == 1
    other = ends.start("two", ends.call(Tread(2, 0, 10), mode=Mode.KILLABLE, slow=True))
    ends.until(lambda: other.parked)
    other_tag, _ = ends.server.take()
    assert other_tag != tag
    ends.server.reply(tag, Rread(b"late"))
    ends.server.reply(other_tag, Rread(b"mine"))
    assert ends.finish("two") == [Rread(b"mine")]
    assert ends.session.unanswered == 0


def test_metadata_calls_are_not_killed_half_way(ends: Ends) -> None:
    fiber = ends.start("one", ends.call(Tclunk(1)))
    ends.until(lambda: fiber.parked)
    assert not fiber.interrupt(Killed(), Mode.KILLABLE)
    ends.server.reply(ends.server.take()[0], Rclunk())
    assert ends.finish("one") == [Rclunk()]


def test_death_wakes_all_waiters_with_eio(ends: Ends) -> None:
    requests = [ends.call(Tread(i, 0, 1), mode=Mode.KILLABLE, slow=True) for i in range(3)]
    fibers = [ends.start(str(i), request) for i, request in enumerate(requests)]
    ends.until(lambda: all(fiber.parked for fiber in fibers))
    ends.server.sock.close()
    assert all(isinstance(found, EIO) for found in ends.finish("0", "1", "2"))
    with pytest.raises(EIO):
        ends.session.call_now(Tclunk(1))
    ends.session.clunk(5)


def test_finalizers_between_two_steps_leave_replies_as_they_are(kernel: Any) -> None:
    """Python looks for garbage whenever it likes, and what it finds may hold fids: of the session
    that receives, and of another one for which replies have come."""
    one, other = Ends(kernel.loop), Ends(kernel.loop)
    steps, at = itertools.count(), -1

    def finalize(_frame: object, _event: str, _argument: object) -> None:
        if next(steps) == at:
            for ends in (one, other):
                ends.session.clunk(ends.session.new_fid())

    def answer(ends: Ends) -> None:
        while ends.server.has_come():
            tag, request = ends.server.take()
            reply = Rread(b"x" * request.count) if isinstance(request, Tread) else Rclunk()
            ends.server.reply(tag, reply)

    while next(steps) > at:
        at, steps = at + 1, itertools.count()
        beside = [other.session.send(Tread(0, 0, size)) for size in range(40)]
        answer(other)
        pending = one.session.send(Tread(0, 0, 1000))
        answer(one)
        sys.setprofile(finalize)
        try:
            one.session.drain()
        finally:
            sys.setprofile(None)
        assert pending.result() == Rread(b"x" * 1000)
        other.session.drain()
        assert [p.result() for p in beside] == [Rread(b"x" * size) for size in range(40)]
    for ends in (one, other):
        ends.turn()
        answer(ends)
        ends.session.drain()
        assert ends.session.unanswered == 0
        ends.session.close()
        ends.server.sock.close()


def test_many_clunks_whose_replies_nobody_reads_do_not_block(ends: Ends) -> None:
    def serve() -> None:
        for _ in range(20_001):
            tag, _ = ends.server.take()
            ends.server.reply(tag, Rclunk())

    thread = threading.Thread(target=serve)
    thread.start()
    for _ in range(20_000):
        ends.session.clunk(ends.session.new_fid())
    ends.session.call_now(Tclunk(0))  # takes the replies for which the server may be waiting
    thread.join()
    assert ends.session.unanswered == 0
    assert ends.session.new_fid() < 2000


def test_server_that_answers_nobody_holds_up_nobody_but_who_asks(ends: Ends) -> None:
    """Three times as many as there are tags; only the first waits in place."""
    count = 3 * MAX_TAGS
    fibers = [ends.start(str(i), ends.call(Tgetattr(i, 1))) for i in range(count)]
    ends.until(lambda: all(fiber.parked for fiber in fibers))
    assert ends.session.waited_ns < 100 * PATIENCE_MS * 1_000_000
    asked = [ends.asked() for _ in range(MAX_TAGS)]
    assert ends.session.unanswered == count

    for tag, _ in asked[::-1]:
        ends.server.reply(tag, Rlerror(2))
        ends.turn()
    for _ in range(count - MAX_TAGS):
        ends.server.reply(ends.asked()[0], Rlerror(2))

    assert all(isinstance(found, ENOENT) for found in ends.finish(*map(str, range(count))))
    assert ends.loop.watches == 0


def test_server_that_reads_nothing_holds_up_nobody_but_who_writes(ends: Ends) -> None:
    """More bytes than the socket takes."""
    count = 20
    for i in range(count):
        ends.start(str(i), ends.call(Twrite(i, 0, bytes(1 << 16)), mode=Mode.KILLABLE, slow=True))
    ends.until(lambda: ends.session.unanswered == count and ends.session.crowded)
    ends.session.clunk(ends.session.new_fid())

    for _ in range(count + 1):
        tag, request = ends.asked()
        ends.server.reply(tag, Rwrite(1) if isinstance(request, Twrite) else Rclunk())

    assert ends.finish(*map(str, range(count))) == [Rwrite(1)] * count
    assert not ends.session.crowded


def negotiate(ends: Ends, *answers: Message) -> None:
    def serve() -> None:
        for answer in answers:
            tag, request = ends.server.take()
            assert isinstance(request, Tversion)
            ends.server.reply(tag, answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ends.session.negotiate()
    finally:
        thread.join()


def test_negotiate_takes_what_the_server_offers(ends: Ends) -> None:
    negotiate(ends, Rversion(8192, c.VERSION_EXTENDED))
    assert (ends.session.msize, ends.session.extended) == (8192, True)


def test_negotiate_falls_back_for_a_server_that_hates_suffixes(ends: Ends) -> None:
    negotiate(ends, Rlerror(5), Rversion(8192, c.VERSION))
    assert not ends.session.extended


@pytest.mark.parametrize(
    "answer", [Rversion(8192, b"9P2000"), Rversion(8192, b"unknown"), Rversion(10, c.VERSION)]
)
def test_negotiate_refuses_other_protocols(ends: Ends, answer: Rversion) -> None:
    with pytest.raises(EPROTO):
        negotiate(ends, answer)


def test_fid_numbers_are_used_again(ends: Ends) -> None:
    first = ends.session.new_fid()
    assert ends.session.new_fid() != first
    ends.session.free_fid(first)
    assert ends.session.new_fid() == first
    assert os.fstat(ends.session.sock.fileno())


class Deaf:
    """A journal that records nothing."""

    def before(self, request: Message) -> None:
        """It is sent."""

    def ends(self, fid: int) -> bool:
        return False


def test_server_is_told_where_it_is_waited_for(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.session.version = c.VERSION_EXTENDED
    cpus = iter((3, 3, 5))
    monkeypatch.setattr(session, "here", lambda: next(cpus))
    monkeypatch.setattr(session, "PATIENCE_MS", 60_000)
    told: list[int] = []

    def serve() -> None:
        with suppress(OSError):
            while request := ends.server.take():
                if isinstance(request[1], Tnearx):
                    told.append(request[1].cpu)
                near = isinstance(request[1], Tnearx)
                ends.server.reply(request[0], Rnearx() if near else Rclunk())

    threading.Thread(target=serve, daemon=True).start()
    for _ in range(3):
        ends.start("call", ends.call(Tclunk(1)))
        ends.finish("call")
        ends.outcomes.clear()
    ends.session.recorder = Deaf()
    for _ in range(2):
        ends.start("call", ends.call(Tclunk(1)))
        ends.finish("call")
        ends.outcomes.clear()
    ends.until(lambda: not ends.session.unanswered or bool(ends.session.drain()))
    assert told == [3, 5, c.NOCPU]
    assert ends.session.sent == 5
