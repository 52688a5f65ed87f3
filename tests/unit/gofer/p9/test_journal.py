"""The ring of a journal: what was written comes out, once, in order, whole or not at all."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gofer.p9.fields import ProtocolError
from gofer.p9.journal import MAX_FRAME
from gofer.records import Records
from sentry.platform.records import JournalFull, JournalWriter

HEADER = 16


def frame(body: bytes) -> bytes:
    """Something of the shape of a 9P frame."""
    return (len(body) + 7).to_bytes(4, "little") + b"\x6e\0\0" + body


def drained(reader: Records) -> list[bytes]:
    """All that is there."""
    assert reader.read()
    return [reader.frame(at) for at in range(len(reader))]


class Ring:
    """Both ends of one."""

    def __init__(self, capacity: int) -> None:
        self.fd = os.memfd_create("ring", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, capacity)
        self.memory = mmap.mmap(self.fd, capacity)
        self.writer = JournalWriter(self.memory)
        self.reader = Records(self.fd, capacity)


@contextmanager
def ring_of(capacity: int, contents: bytes = b"") -> Iterator[Ring]:
    """It has ended after it."""
    ring = Ring(capacity)
    ring.memory[: len(contents)] = contents
    try:
        yield ring
    finally:
        ring.writer.close()
        ring.memory.close()
        os.close(ring.fd)


@given(
    st.lists(st.tuples(st.binary(max_size=120), st.booleans()), max_size=60),
    st.integers(HEADER + 7 + 120, 400),
)
def test_records_come_out_in_order_however_the_ring_turns(
    records: list[tuple[bytes, bool]], capacity: int
) -> None:
    with ring_of(capacity) as ring:
        wanted, found = [], []
        for body, looks in records:
            if looks:
                found += drained(ring.reader)
                ring.writer.reached(ring.reader.position)
            try:
                ring.writer.append(frame(body))
            except JournalFull:
                assert HEADER + len(frame(body)) > ring.writer.free
                continue
            wanted.append(frame(body))
        assert found + drained(ring.reader) == wanted
        assert ring.reader.position == ring.writer.position


def test_records_larger_than_a_look_come_out_whole() -> None:
    with ring_of(1 << 20) as ring:
        bodies = [b"a" * 5000, b"b" * (MAX_FRAME - 7), b"c", b"d" * 70000]
        for body in bodies:
            ring.writer.append(frame(body))
        assert drained(ring.reader) == [frame(body) for body in bodies]


def _stages(before: bytes, after: bytes) -> Iterable[bytearray]:
    """The memory as it is when the writer stops after any of its bytes, in either direction."""
    changed = [at for at, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    for order in (changed, changed[::-1]):
        memory = bytearray(before)
        for at in order[:-1]:
            memory[at] = after[at]
            yield bytearray(memory)


@pytest.mark.parametrize("turned", [0, 150])
def test_writer_that_stops_in_a_record_has_written_those_before(turned: int) -> None:
    """`turned`: what lies below is of the lap before."""
    with ring_of(200) as ring:
        if turned:
            ring.writer.append(frame(b"\xff" * (turned - HEADER - 7)))
            drained(ring.reader)
            ring.writer.reached(ring.reader.position)
        ring.writer.append(frame(b"whole"))
        before, start = ring.memory[:], ring.reader.position
        ring.writer.append(frame(b"torn, or is it?"))
        stages = 0
        for memory in _stages(before, ring.memory[:]):
            with ring_of(200, memory) as torn:
                torn.reader.drain.position = start
                assert drained(torn.reader) == [frame(b"whole")]
            stages += 1
        assert stages > 30
        assert len(drained(ring.reader)) == 2


def test_record_of_the_lap_before_is_none() -> None:
    """The same bytes at the same place, one turn later."""
    with ring_of(2 * (HEADER + 10)) as ring:
        for _ in range(2):
            ring.writer.append(frame(b"abc"))
        assert len(drained(ring.reader)) == 2
        assert drained(ring.reader) == []


@given(st.data())
def test_changed_byte_hides_the_record(data: st.DataObject) -> None:
    with ring_of(100) as ring:
        end = ring.writer.append(frame(b"contents"))
        ring.memory[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
        assert drained(ring.reader) == []


def test_what_does_not_fit_leaves_the_ring_as_it_was() -> None:
    with ring_of(100) as ring:
        ring.writer.append(frame(b"x" * 60))
        before = ring.memory[:]
        with pytest.raises(JournalFull):
            ring.writer.append(frame(b"y"))
        with pytest.raises(ProtocolError):
            ring.writer.append(frame(b"y" * 100))
        assert ring.memory[:] == before
        assert drained(ring.reader) == [frame(b"x" * 60)]


def test_records_that_belong_together_are_there_all_or_none() -> None:
    with ring_of(100) as ring:
        with pytest.raises(JournalFull):
            ring.writer.append(frame(b"x" * 20), frame(b"y" * 20), frame(b"z" * 20))
        with pytest.raises(ProtocolError):
            ring.writer.append(frame(b"x"), frame(b"y" * 100))
        assert ring.memory[:] == bytes(100)
        ring.writer.append(frame(b"x"), frame(b"y"))
        assert drained(ring.reader) == [frame(b"x"), frame(b"y")]


def test_reader_cannot_have_come_further_than_the_writer() -> None:
    with ring_of(100) as ring:
        end = ring.writer.append(frame(b"x"))
        with pytest.raises(ProtocolError):
            ring.writer.reached(end + 1)
        ring.writer.reached(end)
        with pytest.raises(ProtocolError):
            ring.writer.reached(end - 1)


def test_frame_of_another_length_ends_it() -> None:
    with ring_of(100) as ring:
        ring.writer.append(frame(b"x") + b"y")
        assert not ring.reader.read()


def test_memory_that_is_cut_short_holds_nothing() -> None:
    with ring_of(100) as ring:
        end = ring.writer.append(frame(b"x" * 20))
        for left in (end - 1, HEADER, HEADER - 1, 0):
            os.ftruncate(ring.fd, left)
            assert drained(ring.reader) == []


@given(st.binary(max_size=300))
def test_any_bytes_are_no_record(junk: bytes) -> None:
    with ring_of(300, junk) as ring:
        assert drained(ring.reader) == []
