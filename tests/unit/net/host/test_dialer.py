"""The dialer as the Sentry sees it: streams, refusals, and one that lies or ends."""

from __future__ import annotations

import array
import errno
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.errors import ECONNREFUSED, EIO, ENETDOWN, ENFILE, Errno
from sentry.net.host.dial import Wanted, unpack
from sentry.net.host.dialer import Dialer
from sentry.net.host.process import MAX_WAITING
from sentry.net.host.protocol import CHANGED, REPLY
from tests.world import World

WANTED = Wanted(1, bytes(16), 443, ("a.org",), "/bin/x", 1, 2)
FLAGS = socket.MSG_DONTWAIT


class Pair:
    """A dialer's two ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.dialer = Dialer(ours.detach(), world.loop)
        self.ended: list[tuple[Any, BaseException | None]] = []

    def begin(self) -> None:
        async def ask() -> int:
            return await self.dialer.dial(WANTED)  # type: ignore[no-any-return]

        self.world.loop.spawn(ask(), "test", lambda fd, error: self.ended.append((fd, error)))
        self.world.settle()

    def answer(self, data: bytes, *fds: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.theirs.sendmsg([data], rights)
        for fd in fds:
            os.close(fd)
        self.world.settle()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with World() as world:
        made = Pair(world)
        yield made
        made.dialer.close()
        world.settle()
        made.theirs.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_stream_comes_for_a_request(pair: Pair) -> None:
    pair.begin()
    assert unpack(pair.theirs.recv(4096, FLAGS)) == WANTED
    ours, theirs = socket.socketpair()
    pair.answer(REPLY.pack(0, 0, 0), theirs.detach())
    ((fd, error),) = pair.ended
    assert error is None
    os.write(fd, b"x")
    assert ours.recv(1) == b"x"
    os.close(fd)
    ours.close()


def test_refusal_is_an_errno_and_brings_nothing(pair: Pair) -> None:
    before = open_descriptors()
    for number, kind in ((errno.ECONNREFUSED, ECONNREFUSED), (77777, EIO), (-5, EIO)):
        pair.begin()
        pair.answer(REPLY.pack(number, 0, 0), os.dup(0))
        assert type(pair.ended[-1][1]) is kind
    pair.begin()
    pair.answer(REPLY.pack(0, 0, 0))
    assert pair.ended[-1] == (-1, None)
    assert open_descriptors() == before


def test_dialer_that_ends_answers_those_who_wait_and_nobody_after(pair: Pair) -> None:
    pair.begin()
    pair.begin()
    pair.theirs.shutdown(socket.SHUT_RDWR)
    pair.world.settle()
    pair.begin()
    assert [type(error) for _, error in pair.ended] == [ENETDOWN] * 3


def test_who_waits_hears_when_nobody_asks_any_more(pair: Pair) -> None:
    pair.begin()
    pair.dialer.close()
    pair.world.settle()
    assert [type(error) for _, error in pair.ended] == [ENETDOWN]
    assert len(pair.theirs.recv(4096)) > 0 and pair.theirs.recv(4096) == b""


def test_requests_without_an_answer_are_bounded(pair: Pair) -> None:
    for _ in range(MAX_WAITING + 1):
        pair.begin()
    assert [type(error) for _, error in pair.ended] == [ENFILE]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_it_says_is_an_answer_or_its_end(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    before = open_descriptors()
    for _ in range(50):
        if chance.random() < 0.5:
            pair.begin()
        words = [chance.choice([0, 1, CHANGED, 11, 111, -9, 1 << 30]) for _ in range(3)]
        data = REPLY.pack(*words)[: chance.choice([0, 3, 12, 12, 12])] + chance.randbytes(
            chance.choice([0, 0, 40])
        )
        try:
            pair.answer(data or b"\0", *[os.dup(0) for _ in range(chance.choice([0, 1, 1]))])
        except OSError:
            break
    pair.dialer.close()
    pair.world.settle()
    for fd, error in pair.ended:
        assert error is None or isinstance(error, Errno)
        if error is None and fd >= 0:
            os.close(fd)
    assert open_descriptors() <= before
