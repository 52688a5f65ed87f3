"""Frames over a stream: in pieces of any size, of an end that may say anything."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest

from sentry.loop import HostOnly, Loop
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Outgoing
from sentry.net.link import stream
from sentry.net.link.stream import BadStream, FrameReader, StreamUplink
from sentry.net.link.vnet import Offload
from tests.unit.net.wired import Host, hardware, ip4

TEST = 253


def framed(*frames: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4) + each for each in frames)


def read_all(reader: FrameReader, data: bytes, pieces: Iterator[int]) -> list[bytes]:
    """Fed in pieces of such sizes."""
    found: list[bytes] = []
    while data:
        room = reader.room()
        size = min(next(pieces), len(room), len(data))
        room[:size], data = data[:size], data[size:]
        reader.filled(size)
        while reader.has_frame:
            found += reader.take(3)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_whole_however_they_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.choice((14, 15, 60, 1514, 65534, 65535)) for _ in range(60)]
    frames = [chance.randbytes(size) for size in sizes]

    def pieces() -> Iterator[int]:
        while True:
            yield chance.choice((1, 3, 4, 1000, 70_000, 1 << 20))

    found = read_all(FrameReader(), framed(*frames), pieces())

    assert [each[10:] for each in found] == frames
    assert {each[:10] for each in found} == {b"\x02" + bytes(9)}


def test_frames_that_are_none_are_left_out() -> None:
    data = framed(b"", b"x" * 13, b"y" * 14, b"")
    assert read_all(FrameReader(), data, iter([100])) == [stream.CHECKED + b"y" * 14]


def test_few_frames_are_taken_at_a_time_the_short_ones_too() -> None:
    reader = FrameReader()
    data = bytes(4) * 1000 + framed(b"z" * 20)
    reader.room()[: len(data)] = data
    reader.filled(len(data))
    assert reader.take(999) == [] and reader.has_frame
    assert reader.take(2) == [stream.CHECKED + b"z" * 20] and not reader.has_frame


def test_there_is_no_room_while_frames_wait_that_fill_it() -> None:
    reader = FrameReader()
    frame = framed(bytes(60_000))
    fitting = stream.BUFFER // len(frame)
    for _ in range(fitting):
        reader.room()[: len(frame)] = frame
        reader.filled(len(frame))
    left = stream.BUFFER - fitting * len(frame)
    assert len(reader.room()) == left
    assert len(reader.take(1)) == 1
    assert len(reader.room()) == left + len(frame)
    assert len(reader.take(100)) == fitting - 1


@pytest.mark.parametrize("size", [65536, 1 << 31, 0xFFFFFFFF])
def test_size_that_no_frame_has_is_the_end(size: int) -> None:
    reader = FrameReader()
    data = framed(b"x" * 14) + size.to_bytes(4)
    reader.room()[: len(data)] = data
    reader.filled(len(data))
    assert len(reader.take(1)) == 1
    assert not reader.has_frame
    with pytest.raises(BadStream):
        reader.take(1)


class Line:
    """A host whose link is a stream."""

    def __init__(self) -> None:
        self.host = Host(1)
        self.host.link.neighbours4.set_static(ip4(2), hardware(2))
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.loop = Loop(HostOnly(), self.failed)
        self.batches: list[list[bytes]] = []
        self.ends: list[str] = []
        self.uplink = StreamUplink(
            ours.detach(), self.host.link, self.loop, self.batches.append
        )
        self.uplink.on_end = self.ends.append

    def failed(self, name: object, error: BaseException) -> None:
        raise error

    def send(self, count: int, size: int = 100) -> None:
        for number in range(count):
            data = number.to_bytes(4) + bytes(size)
            self.host.layer.send(0, Outgoing(ip4(2), TEST, (data,)))

    def heard(self) -> bytes:
        found = b""
        while True:
            try:
                data = self.theirs.recv(1 << 20)
            except BlockingIOError:
                return found
            if not data:
                return found
            found += data

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.call_soon(lambda: None)
            self.loop.turn()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.uplink.close()
    made.theirs.close()


def numbers(data: bytes) -> list[int]:
    """Of frames that `send` has sent."""
    found = read_all(FrameReader(), data, iter(lambda: 1 << 16, 0))
    return [int.from_bytes(each[44:48]) for each in found]


def test_what_is_sent_is_framed_and_in_order(line: Line) -> None:
    line.send(3)
    line.turns(1)
    assert numbers(line.heard()) == [0, 1, 2]
    assert line.uplink.sent == [3, 3 * 138]


def test_full_socket_is_waited_for_and_no_frame_is_cut(line: Line) -> None:
    line.send(900, 1400)
    line.turns(30)
    waiting = len(line.host.link.outgoing)
    assert waiting
    line.turns(30)
    assert len(line.host.link.outgoing) == waiting
    heard = b""
    while line.host.link.outgoing or line.uplink._unsent:
        heard += line.heard()
        line.turns(3)
    assert numbers(heard + line.heard()) == list(range(900))


def test_nothing_is_left_to_do_of_what_is_sent(line: Line) -> None:
    payload = b"p" * 3000
    head = struct.pack(">HHIIBBHHH", 1, 2, 9, 0, 0x50, 0x18, 100, 0, 0)
    before = pseudo_sum(ip4(1), ip4(2), 6, len(head) + len(payload))
    head = head[:16] + before.to_bytes(2) + head[18:]
    offload = Offload(0, 16, 1460)
    line.host.layer.send(
        0, Outgoing(ip4(2), 6, (head, payload), offload=offload, transport_size=20)
    )
    line.turns(1)
    found = [each[10:] for each in read_all(FrameReader(), line.heard(), iter([1 << 16]))]
    assert [len(each) for each in found] == [14 + 40 + 1460, 14 + 40 + 1460, 14 + 40 + 80]
    for each in found:
        segment = each[34:]
        assert not checksum(segment, pseudo_sum(ip4(1), ip4(2), 6, len(segment)))


def test_frames_come_a_bounded_number_in_a_turn(line: Line) -> None:
    frames = [bytes([number]) * 60 for number in range(100)]
    line.theirs.send(framed(*frames))
    while sum(map(len, line.batches)) < 100:
        line.turns(1)
    assert max(map(len, line.batches)) <= stream.FRAMES_IN
    assert [each[10:] for batch in line.batches for each in batch] == frames


@pytest.mark.parametrize("last", ["end", "size"])
def test_after_the_end_of_the_stream_what_goes_out_is_lost(line: Line, last: str) -> None:
    if last == "end":
        line.theirs.close()
    else:
        line.theirs.send(b"\xff" * 4)
    while not line.ends:
        line.turns(1)
    line.send(3)
    line.turns(2)
    assert line.host.link.lost == 3 and not line.host.link.outgoing
    assert len(line.ends) == 1 and line.uplink.is_over and not line.loop.watches


def test_end_while_frames_wait_lets_senders_go_on(line: Line) -> None:
    line.send(900, 1400)
    line.turns(30)
    assert not line.host.link.has_room
    rooms: list[int] = []
    line.host.link.on_room = lambda: rooms.append(1)
    line.theirs.close()
    line.turns(30)
    assert rooms and line.host.link.has_room and not line.host.link.outgoing
