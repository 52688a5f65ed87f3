"""A listener that is slow, dead or hostile costs messages, and nothing else."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.loop import HostOnly, Loop
from sentry.watch.outbox import AT_ONCE, GATHER_NS, MAX_QUEUED, Outbox, Patience
from tests.world import SteppedLoop

Pair = tuple[Outbox, socket.socket]


def _bug(what: object, error: BaseException) -> None:
    raise error


class Machine(HostOnly):
    again = ()


@pytest.fixture
def loop() -> SteppedLoop:
    return SteppedLoop(Machine(), _bug)


def _boxed(loop: Loop, kind: int, patience: Patience | None = None) -> Pair:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.setblocking(False)
    packets = kind == socket.SOCK_SEQPACKET
    return Outbox(ours.detach(), loop, patience, packets=packets), theirs


@pytest.fixture
def packets(loop: SteppedLoop) -> Iterator[Pair]:
    made = _boxed(loop, socket.SOCK_SEQPACKET)
    yield made
    made[0].close()
    made[1].close()


def _read(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            data = sock.recv(1 << 20)
        except BlockingIOError:
            return found
        if not data:
            return found
        found.append(data)


def test_messages_are_gathered_for_a_moment_and_stay_apart(
    packets: Pair, loop: SteppedLoop
) -> None:
    outbox, there = packets
    for text in (b"one", b"two", b"three"):
        outbox.put(text)
    loop.settle()
    assert _read(there) == []
    loop.advance(GATHER_NS)
    assert _read(there) == [b"one", b"two", b"three"]


def test_many_are_sent_without_waiting(packets: Pair) -> None:
    outbox, there = packets
    for number in range(AT_ONCE):
        outbox.put(b"%d" % number)
    assert len(_read(there)) == AT_ONCE


def test_what_there_is_no_room_for_is_lost_and_counted_and_the_rest_comes_in_order(
    packets: Pair, loop: SteppedLoop
) -> None:
    outbox, there = packets
    size = 4096
    count = 3 * MAX_QUEUED // size
    for number in range(count):
        outbox.put(b"%08d" % number + bytes(size - 8))
    assert outbox.taken == count
    assert 0 < outbox.dropped < count
    found: list[bytes] = []
    while more := _read(there):
        found += more
        loop.advance(GATHER_NS)
    numbers = [int(data[:8]) for data in found]
    assert numbers == list(range(count - outbox.dropped))
    outbox.put(b"again")
    loop.advance(GATHER_NS)
    assert _read(there) == [b"again"]


def test_a_listener_that_is_gone_costs_all_that_follows(
    packets: Pair, loop: SteppedLoop
) -> None:
    outbox, there = packets
    there.close()
    outbox.put(b"a")
    loop.advance(GATHER_NS)
    outbox.put(b"b")
    assert outbox.dead
    assert outbox.dropped == 2


def test_a_message_is_given_up_when_it_was_tried_often_enough(loop: SteppedLoop) -> None:
    outbox, there = _boxed(loop, socket.SOCK_SEQPACKET, Patience(3, 1000, 2000))
    while not outbox._blocked:
        outbox.put(bytes(1 << 16))
        loop.advance(GATHER_NS)
    waiting = outbox.taken - outbox.dropped
    assert outbox.dropped == 0
    loop.advance(1000 + 2000 + 2000 - 1)
    assert outbox.dropped == 0
    loop.advance(1000 + 2000 * 3)
    assert outbox.dropped > 0
    assert waiting
    outbox.close()
    there.close()


def test_a_message_that_is_too_large_is_lost_alone(packets: Pair, loop: SteppedLoop) -> None:
    outbox, there = packets
    outbox.put(bytes(MAX_QUEUED - 100))
    outbox.put(b"small")
    loop.advance(GATHER_NS)
    assert outbox.dropped == 1
    assert _read(there) == [b"small"]


def test_a_stream_gets_whole_lines_whatever_fits(loop: SteppedLoop) -> None:
    outbox, there = _boxed(loop, socket.SOCK_STREAM)
    lines = [b"%05d" % number + b"x" * 500 + b"\n" for number in range(1500)]
    for text in lines:
        outbox.put(text)
    found = b""
    while more := b"".join(_read(there)):
        found += more
        loop.advance(GATHER_NS)
    assert found == b"".join(lines[: len(found) // len(lines[0])])
    assert len(found) // len(lines[0]) == len(lines) - outbox.dropped
    outbox.close()
    there.close()


def test_a_file_gets_everything(loop: SteppedLoop, tmp_path: Path) -> None:
    path = tmp_path / "log"
    outbox = Outbox(os.open(path, os.O_WRONLY | os.O_CREAT), loop)
    for number in range(5000):
        outbox.put(b"%d\n" % number)
    outbox.close()
    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(5000))


def test_a_full_disk_ends_a_file_in_the_middle_of_a_line(loop: SteppedLoop, tmp_path: Path) -> None:
    path = tmp_path / "log"
    outbox = Outbox(os.open(path, os.O_WRONLY | os.O_CREAT), loop)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for _ in range(AT_ONCE):
            outbox.put(b"0123456\n")
        loop.advance(GATHER_NS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert outbox.dead
    assert outbox.dropped == AT_ONCE - 100 // 8
    assert path.stat().st_size == 100
    outbox.close()


def test_a_pipe_nobody_reads_holds_nobody_up(loop: SteppedLoop) -> None:
    reader, writer = os.pipe()
    outbox = Outbox(writer, loop)
    for _ in range(3000):
        outbox.put(bytes(999) + b"\n")
        loop.settle()
    loop.advance(GATHER_NS)
    assert outbox.dropped > 0
    os.close(reader)
    loop.advance(GATHER_NS)
    outbox.close()
