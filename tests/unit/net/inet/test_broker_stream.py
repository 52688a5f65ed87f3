"""Bytes between a program and a broker: both ways, ends and resets, room, limits."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from sentry.abi.socket import SHUT_WR, SO_LINGER, SOL_SOCKET
from sentry.config import JobLimits
from sentry.kernel.job import Job
from tests.unit.net.brokered import POLICY, Brokered, brokered

MOST = 1 << 20
"""More than what sockets on the way may hold."""


@pytest.fixture
def one() -> Iterator[Brokered]:
    with brokered() as made:
        yield made


def limited(what: str) -> str:
    return POLICY.replace('a.sock"', f'a.sock"\nlimits = {{ {what} }}')


def test_bytes_go_both_ways_and_each_direction_ends_by_itself(one: Brokered) -> None:
    fd, end = one.connect()
    assert one.send(fd, b"question") == 8 and end.recv(100) == b"question"
    end.send(b"answer")
    assert one.receive(fd) == b"answer" and one.receive(fd) == "EAGAIN"
    one.program.ok("shutdown", fd, SHUT_WR)
    one.world.settle()
    assert end.recv(100) == b""
    end.send(b"more")
    assert one.receive(fd) == b"more"
    end.close()
    assert one.receive(fd) == b""
    assert not len(one.egress.flows) and not one.world.vfs.budget.host_descriptors


def test_what_a_broker_gets_has_left_the_sandbox(one: Brokered) -> None:
    job = Job(one.world.kernel, JobLimits())
    one.program.task.group.job = job
    fd, end = one.connect()
    end.send(b"answer")
    assert one.send(fd, b"question") == 8 and one.receive(fd) == b"answer"
    assert job.sent == 8


def test_broker_may_end_first(one: Brokered) -> None:
    fd, end = one.connect()
    end.shutdown(SHUT_WR)
    assert one.receive(fd) == b""
    assert one.send(fd, b"still") == 5 and end.recv(100) == b"still"
    one.program.ok("close", fd)
    one.world.settle()
    assert end.recv(100) == b"" and not len(one.egress.flows)


def test_broker_that_breaks_off_resets(one: Brokered) -> None:
    fd, end = one.connect()
    one.send(fd, b"unread")
    end.close()
    assert one.receive(fd) == "ECONNRESET"
    assert one.receive(fd) == b""
    assert one.send(fd, b"x") == -errno.EPIPE
    assert not len(one.egress.flows)


def test_what_a_broker_has_said_comes_before_the_reset(one: Brokered) -> None:
    fd, end = one.connect()
    end.send(b"too large")
    end.shutdown(SHUT_WR)
    assert one.receive(fd) == b"too large"
    end.close()
    for _ in range(2):
        done = one.send(fd, b"x")
    assert done == -errno.EPIPE and one.receive(fd) == b""


def test_reset_of_a_program_ends_the_brokers_stream(one: Brokered) -> None:
    fd, end = one.connect()
    one.program.ok("setsockopt", fd, SOL_SOCKET, SO_LINGER, struct.pack("<ii", 1, 0), 8)
    one.program.ok("close", fd)
    one.world.settle()
    assert end.recv(1) == b"" and not len(one.egress.flows)


@pytest.mark.parametrize("first", [True, False])
def test_closed_socket_ends_the_stream_though_the_broker_says_nothing(
    one: Brokered, first: bool
) -> None:
    fd, end = one.connect()
    one.send(fd, b"last words")
    if first:
        one.program.ok("shutdown", fd, SHUT_WR)
        one.world.settle()
        assert len(one.egress.flows) == 1
    one.program.ok("close", fd)
    one.world.settle()
    assert end.recv(100) == b"last words" and end.recv(100) == b""
    assert not len(one.egress.flows)


def test_who_is_slow_holds_the_other_up(one: Brokered) -> None:
    fd, end = one.connect()
    sent = 0
    while (done := one.send(fd, bytes(65536))) > 0:
        sent += done
    assert done == -errno.EAGAIN and 0 < sent < MOST
    got = 0
    while got < sent:
        got += len(end.recv(1 << 20))
        one.world.settle()
    assert one.send(fd, b"x") == 1
    end.setblocking(False)
    said = 0
    try:
        while True:
            said += end.send(bytes(65536))
            one.world.settle()
    except BlockingIOError:
        assert said < MOST
    heard = 0
    while heard < said:
        data = one.receive(fd)
        assert isinstance(data, bytes) and data
        heard += len(data)


def test_quota_of_bytes_ends_it(one: Brokered) -> None:
    one.change(limited("bytes_out = 10, bytes_in = 5"))
    fd, end = one.connect()
    assert one.send(fd, b"x" * 10) == 10 and end.recv(100) == b"x" * 10
    assert one.send(fd, b"x") == 1
    assert end.recv(100) == b""
    assert one.receive(fd) == "ECONNABORTED"
    fd, end = one.connect()
    end.send(b"123456")
    assert one.receive(fd) == "ECONNABORTED"
    assert one.log == [(1, "a quota")] * 2
    assert one.egress.flows.total.bytes == {0: 10, 1: 0}


def test_rate_makes_bytes_wait(one: Brokered) -> None:
    one.change(limited("rate_out = 1, burst = 1"))
    fd, end = one.connect()
    end.setblocking(False)
    assert one.send(fd, b"x" * 1000) == 1000 and end.recv(2000) == b"x" * 1000
    assert one.send(fd, b"y") == 1
    with pytest.raises(BlockingIOError):
        end.recv(1)
    one.change("")  # nobody waits for what is over
    assert one.receive(fd) == "ECONNABORTED" and end.recv(1) == b""
    assert not one.world.vfs.budget.host_descriptors


def test_rate_lets_bytes_go_in_time(one: Brokered) -> None:
    one.change(limited("rate_in = 1_000_000_000, burst = 1"))
    fd, end = one.connect()
    got = b""
    for _ in range(3):
        end.send(b"z" * 100)
    while len(got) < 300:
        one.world.loop.turn()
        data = one.receive(fd)
        assert data == "EAGAIN" or isinstance(data, bytes)
        got += data if isinstance(data, bytes) else b""
    assert got == b"z" * 300
