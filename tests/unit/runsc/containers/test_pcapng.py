"""What is written can be read, by a reader that is not ours to trust."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsc.containers.pcapng import ETHERNET, RAW, Writer
from tests.e2e.pcapng import Interface, Packet, Read

TIMES = st.integers(0, (1 << 64) - 1)
FRAMES = st.lists(
    st.tuples(st.integers(0, 1), TIMES, st.binary(max_size=70), st.booleans())
)


@given(FRAMES)
def test_frames_are_read_as_they_were_written(
    frames: list[tuple[int, int, bytes, bool]],
) -> None:
    file = io.BytesIO()
    writer = Writer(file)
    assert (writer.interface("eth0", ETHERNET), writer.interface("tun0", RAW)) == (0, 1)
    for number, at_ns, data, outgoing in frames:
        writer.frame(number, at_ns, data, outgoing=outgoing)
    writer.statistics(1, 7, 1 << 40, 3)

    found = Read(file.getvalue())

    assert found.interfaces == [Interface("eth0", 1), Interface("tun0", 101)]
    assert found.packets == [Packet(*each) for each in frames]
    assert found.statistics == {1: (1 << 40, 3)}


def test_file_without_frames_is_whole() -> None:
    file = io.BytesIO()
    Writer(file)
    assert not Read(file.getvalue()).packets


def test_full_disk_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        Writer(file)
