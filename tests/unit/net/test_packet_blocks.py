"""Rings of blocks, over plain bytes, against what a program reads out of them."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from sentry.abi.socket import TP_STATUS_BLK_TMO, TP_STATUS_LOSING, TP_STATUS_USER
from sentry.net.packet_blocks import BlockRing
from sentry.net.packet_ring import V3
from tests.unit.net.test_packet_ring import Bytes, shape, shown

BLOCKS, SIZE = 3, 4096
STEPS = st.lists(
    st.tuples(st.just("put"), st.integers(0, 6000)) | st.tuples(st.just("time"), st.just(0))
    | st.tuples(st.just("read"), st.just(0)), max_size=60,
)  # fmt: skip


class Reader:
    """A program: it takes a block when it is handed over, walks it, and gives it back."""

    def __init__(self, memory: Bytes) -> None:
        self.memory = memory
        self.block = 0
        self.sequence = 0

    def read(self) -> list[bytes] | None:
        """None: it is not handed over. There may be none in it."""
        start = self.block * SIZE
        head = struct.unpack_from("<IIIIIIQ", self.memory, start)
        version, private, status, count, at, size, sequence = head
        if not status & TP_STATUS_USER:
            return None
        self.sequence += 1
        assert (version, private, sequence, at) == (V3, 48, self.sequence, 48) and size <= SIZE
        found = []
        for number in range(count):
            following, _, _, kept, whole = struct.unpack_from("<IIIII", self.memory, start + at)
            (mac,) = struct.unpack_from("<H", self.memory, start + at + 24)
            assert kept <= whole and at + mac + kept <= SIZE
            found.append(self.memory.read(start + at + mac, kept))
            assert bool(following) == (number < count - 1)
            at += following
        self.memory.write(start + 8, bytes(4))
        self.block = (self.block + 1) % BLOCKS
        return found


def ring(memory: Bytes, private: int = 0) -> BlockRing:
    return BlockRing(memory, shape(V3, blocks=BLOCKS, frames=2 * BLOCKS, private=private))


@given(STEPS)
def test_reader_gets_what_was_taken_in_its_order(steps: list[tuple[str, int]]) -> None:
    memory = Bytes(BLOCKS * SIZE)
    made, reader = ring(memory), Reader(memory)
    taken: list[bytes] = []
    got: list[bytes] = []
    for number, (kind, size) in enumerate(steps):
        if kind == "put":
            data = number.to_bytes(2) + bytes(size)
            if made.put(shown(data), is_losing=False):
                taken.append(data[: SIZE - 48 - 82])
        elif kind == "time":
            made.hand_over(is_losing=False)
            assert not made.waits
        else:
            got += reader.read() or []
    made.hand_over(is_losing=False)
    while (found := reader.read()) is not None:
        got += found
    assert got == taken


def test_block_says_why_it_was_handed_over() -> None:
    memory = Bytes(BLOCKS * SIZE)
    made = ring(memory)
    made.hand_over(is_losing=False)
    assert not made.is_ready  # an empty one is kept
    made.put(shown(bytes(100)), is_losing=False)
    assert made.waits and not made.is_ready
    made.hand_over(is_losing=True)
    assert made.is_ready and memory.word(8) == TP_STATUS_USER | TP_STATUS_BLK_TMO | TP_STATUS_LOSING
    for _ in range(2):
        made.put(shown(bytes(2500)), is_losing=False)
    assert memory.word(SIZE + 8) == TP_STATUS_USER


def test_no_block_is_free_until_the_next_one_is_back() -> None:
    memory = Bytes(BLOCKS * SIZE)
    made = ring(memory)
    assert [made.put(shown(bytes(2500)), is_losing=False) for _ in range(4)] == [True] * 3 + [False]
    assert made.freezes == 1 and not made.waits
    memory.write(SIZE + 8, bytes(4))
    assert not made.put(shown(bytes(10)), is_losing=False)
    memory.write(8, bytes(4))
    assert made.put(shown(bytes(10)), is_losing=False) and made.freezes == 1


def test_place_of_the_programs_own_is_left_alone() -> None:
    memory = Bytes(BLOCKS * SIZE)
    made = ring(memory, private=100)
    memory[48:148] = b"p" * 100
    made.put(shown(b"x" * 100), is_losing=False)
    made.hand_over(is_losing=False)
    assert memory[48:148] == b"p" * 100 and memory.word(16) == 48 + 104


def test_nothing_that_a_program_writes_into_open_blocks_counts() -> None:
    memory = Bytes(b"\xff" * (BLOCKS * SIZE))
    made = ring(memory)
    for _ in range(9):
        made.put(shown(bytes(1000)), is_losing=False)
        memory[SIZE:] = b"\xfe" * (2 * SIZE)  # it says that all are free
        made.hand_over(is_losing=False)
