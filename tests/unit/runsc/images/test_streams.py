"""Streams: every compression in pieces, cut short, damaged, larger than is wanted."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import random
import tempfile
from collections.abc import Callable

import pytest

from runsc.images import streams
from runsc.images.errors import ImageError
from runsc.images.streams import (
    PIECE,
    Budget,
    Buffered,
    Counted,
    Hashed,
    Part,
    Stream,
    opened,
)

DATA = random.Random(7).randbytes(700_000) + bytes(3 * PIECE) + b"end"
Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return bytes(importlib.import_module(name).compress(data))
        except ImportError:
            continue
    pytest.skip("no zstd here")


packs = pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
compressions = pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])


class Bytes(Stream):
    """What is given, in pieces of odd sizes."""

    def __init__(self, data: bytes, most: int = 10_007) -> None:
        self._data = data
        self._most = most

    def read(self, size: int) -> bytes:
        count = min(size, self._most)
        data, self._data = self._data[:count], self._data[count:]
        return data


def all_of(stream: Stream, size: int = PIECE) -> bytes:
    pieces = []
    while piece := stream.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    return b"".join(pieces)


@packs
@pytest.mark.parametrize("size", [1000, PIECE])
def test_stream_is_what_was_compressed(pack: Pack, size: int) -> None:
    assert all_of(opened(Bytes(pack(DATA))), size) == DATA


@compressions
def test_members_follow_each_other_and_zeros_are_passed_over(pack: Pack) -> None:
    stream = opened(Bytes(pack(DATA) + pack(b"more") + bytes(1000)))
    assert all_of(stream) == DATA + b"more"
    assert stream.read(1) == b""


@compressions
@pytest.mark.parametrize("missing", [1, 5, 1000])
def test_stream_that_is_cut_short_is_refused(pack: Pack, missing: int) -> None:
    with pytest.raises(ImageError, match="cut short"):
        all_of(opened(Bytes(pack(DATA)[:-missing])))


@compressions
def test_what_follows_and_is_no_member_is_refused(pack: Pack) -> None:
    with pytest.raises(ImageError, match="valid"):
        all_of(opened(Bytes(pack(DATA) + b"what is this, it is no member of anything" * 9)))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_stream_is_refused(pack: Pack) -> None:
    data = bytearray(pack(DATA))
    for at in range(len(data) // 2, len(data) // 2 + 64):
        data[at] ^= 0x55
    with pytest.raises(ImageError):
        all_of(opened(Bytes(bytes(data))))


@compressions
def test_bomb_ends_at_the_limit(pack: Pack) -> None:
    bomb = pack(bytes(32 << 20))
    assert len(bomb) < 1 << 20
    stream = Counted(opened(Bytes(bomb)), Budget(1 << 20))
    with pytest.raises(ImageError, match="limit of 1048576 bytes"):
        all_of(stream)


def test_dictionary_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MEMORY", 1 << 20)
    with pytest.raises(ImageError, match="xz"):
        all_of(opened(Bytes(lzma.compress(DATA))))


def test_zstd_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", none)
    with pytest.raises(ImageError, match=r"runsc\[images\]"):
        opened(Bytes(b"\x28\xb5\x2f\xfd" + bytes(600)))


def test_tar_whose_first_file_is_called_like_a_compression_is_a_tar() -> None:
    head = b"BZhello".ljust(257, b"\0") + b"ustar\00000"
    assert all_of(opened(Bytes(head))) == head


def test_short_stream_and_none_at_all_are_read() -> None:
    assert all_of(opened(Bytes(b"x"))) == b"x"
    assert all_of(opened(Bytes(b""))) == b""


def test_part_has_its_bytes_and_no_others() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        part, other = Part(file.fileno(), 2, 5), Part(file.fileno(), 8, 100)
        assert (part.read(3), other.read(100), part.read(100), part.read(1)) == (
            b"234", b"89", b"56", b"",
        )  # fmt: skip
        again = Part(file.fileno(), 2, 5)
        again.skip(4)
        assert again.read(9) == b"6"
        with pytest.raises(ImageError, match="cut short"):
            again.skip(1)


def test_small_reads_are_of_large_pieces() -> None:
    source = Bytes(DATA, most=PIECE)
    stream = Buffered(source)
    assert stream.read(3) + all_of(stream, 512) == DATA
    again = Buffered(Bytes(DATA, most=PIECE))
    assert again.read(PIECE) + again.read(1) + again.read(PIECE) == DATA[: PIECE * 2]


def test_digest_is_of_everything_also_of_what_was_not_read() -> None:
    stream = Hashed(Bytes(b"abc"))
    assert stream.read(1) == b"a"
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert stream.digest() == f"sha256:{expected}"


def test_writing_goes_on_until_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:3], at))
    with tempfile.TemporaryFile() as file:
        streams.write_all(file.fileno(), b"more than three", 2)
        assert os.pread(file.fileno(), 100, 0) == b"\0\0more than three"
