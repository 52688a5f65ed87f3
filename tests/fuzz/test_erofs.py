"""Images of EROFS that mean harm: a program that mounts one and reads what it can gets errors."""

from __future__ import annotations

import struct
from functools import cache

import pytest
from hypothesis import strategies as st

from sentry.abi.fcntl import O_CREAT, O_DIRECTORY, O_NONBLOCK, O_RDONLY, O_RDWR
from sentry.abi.mman import MAP_PRIVATE, PROT_READ
from sentry.fs.erofs import layout
from sentry.platform.lz4 import PIECE, Lz4
from tests.contract.filesystems.calls import Files
from tests.fuzz.inside import Inside, many
from tests.fuzz.running import bounded, explore, for_a_while
from tests.unit.fs.erofs.images import BLOCK, Builder
from tests.unit.fs.erofs.lz4 import packed, sequence, unpacked
from tests.unit.fs.erofs.test_filesystem import tree
from tests.world import Program

PATHS = (
    b"/mnt", b"/mnt/small", b"/mnt/tail", b"/mnt/plain", b"/mnt/chunks", b"/mnt/wide",
    b"/mnt/packed", b"/mnt/packed once", b"/mnt/link", b"/mnt/dir", b"/mnt/dir/inner", b"/mnt/many",
    b"/mnt/many/file0300", b"/mnt/xattrs", b"/mnt/acl",
)  # fmt: skip
OFFSETS = (0, BLOCK - 1, 3 * BLOCK, 50_000, 1 << 40)
SOME = 8192
VALUES = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
CHANGE = st.tuples(st.sampled_from(["near", "far"]), st.integers(0, 1 << 16), VALUES)


@cache
def good() -> tuple[bytes, tuple[int, ...]]:
    """An image without a checksum, and where its compressed files say how they are laid out."""
    made = Builder(tree(), {b"user.shared": b"told once"})
    data = bytearray(made.build(checksum=False))
    struct.pack_into("<I", data, layout.SUPER_OFFSET + 8, 0)
    assert isinstance(made.top.data, dict)
    numbers = [made.top.data[name].number for name in (b"packed", b"packed once")]
    return bytes(data), tuple(BLOCK + number * layout.SLOT for number in numbers)


def spoiled(changes: list[tuple[str, int, int]]) -> bytes:
    """`near`: in an inode of a compressed file, or in its records."""
    raw, places = good()
    data = bytearray(raw)
    for where, at, value in changes:
        if where == "near":
            data[places[at & 1] + (at >> 1) % 200] = value
        else:
            data[layout.SUPER_OFFSET + at % (8 * BLOCK)] = value
    return bytes(data)


def look(inside: Inside) -> None:
    """Whatever can be asked of what is there."""
    for path in PATHS:
        out = inside.call("open", b"/out", O_RDWR | O_CREAT, 0o600)
        buffer = inside.program.buffer(SOME)
        inside.call("newfstatat", -100, path, buffer, 0x100)
        inside.call("readlink", path, buffer, SOME)
        inside.call("llistxattr", path, buffer, SOME)
        inside.call("lgetxattr", path, b"user.a", buffer, SOME)
        fd = inside.call("open", path, O_RDONLY | O_NONBLOCK, 0)
        if fd is None or fd < 0:
            continue
        for offset in OFFSETS:
            inside.call("pread64", fd, buffer, SOME, offset)
        at = inside.call("mmap", 0, 4 * BLOCK, PROT_READ, MAP_PRIVATE, fd, 0)
        if at is not None and at > 0 and out is not None:
            inside.call("pwrite64", out, at, 4 * BLOCK, 0)
            inside.call("munmap", at, 4 * BLOCK)
        folder = inside.call("open", path, O_RDONLY | O_DIRECTORY, 0)
        if folder is not None and folder >= 0:
            inside.call("getdents64", folder, buffer, SOME)
            inside.call("close", folder)
        for each in (fd, out):
            if each is not None:
                inside.call("close", each)


def check(changes: list[tuple[str, int, int]]) -> None:
    def prepare(program: Program) -> None:
        Files(program).fill(b"/image", spoiled(changes))
        program.ok("mkdir", b"/mnt", 0o755)

    with Inside(prepare) as inside:
        if inside.call("mount", b"/image", b"/mnt", b"erofs", 1, 0) == 0:
            look(inside)


@for_a_while()
def test_image_that_means_harm_gives_errors(seconds: float) -> None:
    explore(seconds, check, changes=many(CHANGE))


def test_good_image_can_be_read() -> None:
    """So the fuzzer gets there."""
    data, _ = good()
    with Inside(lambda program: Files(program).fill(b"/image", data)) as inside:
        inside.call("mkdir", b"/mnt", 0o755)
        assert inside.call("mount", b"/image", b"/mnt", b"erofs", 1, 0) == 0
        for path in (b"/mnt/packed", b"/mnt/packed once"):
            fd = inside.call("open", path, O_RDONLY, 0)
            assert fd is not None
            assert inside.call("pread64", fd, inside.program.buffer(SOME), SOME, 0) in (5000, SOME)


def block(data: bytes, size: int) -> None:
    """The bytes that another implementation finds, or none."""
    unpacking, done, error = Lz4(data, size), False, False
    while not done and not error:
        with bounded(f"{PIECE} bytes"):
            try:
                done = unpacking.step()
            except ValueError:
                error = True
    assert (None if error else unpacking.result()) == unpacked(data, size)


BLOCKS = st.binary(max_size=200) | st.builds(
    lambda parts, at, value: bytes(
        value if place == at % 100 else byte for place, byte in enumerate(packed(b"".join(parts)))
    ),
    st.lists(st.sampled_from([b"a", b"abc", bytes(40), b"\1\2\3\4\5" * 60]), max_size=40),
    st.integers(0, 99),
    st.integers(0, 255),
)


@for_a_while(brief=2, full=30)
def test_block_of_lz4_that_means_harm_gives_an_error(seconds: float) -> None:
    explore(seconds, block, data=BLOCKS, size=st.integers(1, 20_000))


@pytest.mark.parametrize("size", [1 << 20, 12 << 20])
def test_block_that_unpacks_to_much_is_unpacked_in_steps(size: int) -> None:
    unpacking, done = Lz4(sequence(b"ab", 2, size), size), False
    while not done:
        with bounded(f"{PIECE} bytes"):
            done = unpacking.step()
    assert unpacking.result() == b"ab" * (size // 2)
