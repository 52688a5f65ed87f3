"""Reading, writing, positions, sizes."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.fcntl import (
    O_APPEND,
    O_CREAT,
    O_RDWR,
    O_WRONLY,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from tests.contract.filesystems.calls import READ_WRITE, Files

PAGE = 4096


@pytest.fixture(params=["new", "old"])
def path(request: pytest.FixtureRequest, files: Files) -> bytes:
    """A file that was there at the start, or has been made since, of the same contents."""
    if request.param == "new":
        files.fill(b"/new", b"contents of old")
    return b"/" + request.param.encode()


def test_position_moves_with_read_and_write(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    assert files.read(fd, 8) == b"contents"
    assert files.write(fd, b" by new") == 7
    assert files.ok("lseek", fd, 0, SEEK_CUR) == 15
    assert files.read(fd, 10) == b""
    assert files.contents(path) == b"contents by new"


def test_offset_of_its_own_leaves_the_position_alone(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    assert files.read(fd, 4, 9) == b"of o"
    assert files.write(fd, b"BY", 9) == 2
    assert files.ok("lseek", fd, 0, SEEK_CUR) == 0
    assert files.contents(path) == b"contents BY old"
    assert files.write(fd, b"x", -1) == -errno.EINVAL
    assert files.call("pread64", fd, files.place(b"x"), 1, -1) == -errno.EINVAL


def test_seek_goes_anywhere_but_before_the_start(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    assert files.ok("lseek", fd, -3, SEEK_END) == 12
    assert files.read(fd, 10) == b"old"
    assert files.call("lseek", fd, -16, SEEK_CUR) == -errno.EINVAL
    assert files.ok("lseek", fd, 100, SEEK_SET) == 100
    assert files.read(fd, 10) == b""
    assert files.call("lseek", fd, 0, 77) == -errno.EINVAL
    assert files.fstat(fd).st_size == 15


def test_append_goes_to_the_end_wherever_it_is(files: Files, path: bytes) -> None:
    fd, other = files.opened(path, O_RDWR | O_APPEND), files.opened(path, O_WRONLY | O_APPEND)
    assert files.write(fd, b"+1") == 2
    assert files.write(other, b"+2") == 2
    assert files.write(fd, b"+3") == 2
    assert files.ok("lseek", fd, 0, SEEK_CUR) == 21
    assert files.write(fd, b"!", 0) == 1  # pwrite(2), BUGS: it appends too
    assert files.contents(path) == b"contents of old+1+2+3!"


def test_vector_that_a_limit_cuts_is_written_up_to_it(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    parts = [files.place(part) for part in (b"one", b"two", b"three")]
    vector = files.place(struct.pack("<6Q", parts[0], 3, parts[1], 3, parts[2], 5))
    files.ok("setrlimit", 1, files.place(struct.pack("<2Q", 20, 1 << 40)))
    assert files.ok("pwritev", fd, vector, 3, 15, 0) == 5
    assert files.contents(path) == b"contents of oldonetw"


def test_vectors_are_gathered_and_scattered(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    parts = [files.place(text) for text in (b"one", b"", b"three")]
    vector = files.place(struct.pack("<6Q", parts[0], 3, parts[1], 0, parts[2], 5))
    assert files.ok("writev", fd, vector, 3) == 8
    assert files.ok("pwritev", fd, vector, 1, 12, 0) == 3
    assert files.contents(path) == b"onethree of one"
    into = [files.place(bytes(8)) for _ in range(2)]
    vector = files.place(struct.pack("<4Q", into[0], 3, into[1], 8))
    assert files.ok("preadv", fd, vector, 2, 1, 0) == 11
    assert [files.program.read(at, 3) for at in into] == [b"net", b"hre"]


def test_hole_reads_as_zero_and_the_end_is_known(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    assert files.write(fd, b"end", 5 * PAGE) == 3
    assert files.fstat(fd).st_size == 5 * PAGE + 3
    assert files.read(fd, PAGE, 2 * PAGE) == bytes(PAGE)
    assert files.read(fd, 100, 5 * PAGE - 1) == b"\0end"
    assert files.ok("lseek", fd, 5 * PAGE + 1, SEEK_HOLE) == 5 * PAGE + 3
    assert files.ok("lseek", fd, 5 * PAGE + 1, SEEK_DATA) == 5 * PAGE + 1
    assert files.call("lseek", fd, 5 * PAGE + 3, SEEK_DATA) == -errno.ENXIO
    assert files.call("lseek", fd, 5 * PAGE + 3, SEEK_HOLE) == -errno.ENXIO


def test_truncation_cuts_and_what_grows_again_is_zero(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    files.ok("ftruncate", fd, 4)
    files.ok("truncate", path, 10)
    assert files.contents(path) == b"cont" + bytes(6)
    assert files.call("ftruncate", fd, -1) == -errno.EINVAL
    assert files.call("truncate", path, -1) == -errno.EINVAL
    assert files.call("truncate", b"/dir", 0) == -errno.EISDIR
    assert files.call("truncate", b"/none", 0) == -errno.ENOENT
    assert files.fstat(fd).st_size == 10


def test_truncation_in_a_page_clears_its_rest(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    assert files.write(fd, b"x" * (2 * PAGE)) == 2 * PAGE
    files.ok("ftruncate", fd, PAGE + 10)
    files.ok("ftruncate", fd, 3 * PAGE)
    assert files.read(fd, 3 * PAGE, PAGE) == b"x" * 10 + bytes(2 * PAGE - 10)


def test_large_write_comes_back_whole(files: Files, path: bytes) -> None:
    fd, data = files.opened(path, O_RDWR), bytes(range(256)) * 2048
    assert files.write(fd, data, 3) == len(data)
    assert files.read(fd, 1 << 20, 0)[:3] == b"con"
    assert files.read(fd, 1 << 20, 3) == data


def test_what_one_writes_others_read_at_once(files: Files, path: bytes) -> None:
    other = files.sibling()
    reader, writer = other.opened(path), files.opened(path, O_WRONLY)
    assert other.read(reader, 3) == b"con"
    assert files.write(writer, b"CONTENTS") == 8
    assert other.read(reader, 5) == b"TENTS"
    files.ok("ftruncate", writer, 4)
    assert other.read(reader, 5) == b""
    assert other.fstat(reader).st_size == 4


def test_empty_transfers_change_nothing(files: Files, path: bytes) -> None:
    before = files.modified_ns(path)
    fd = files.opened(path, O_RDWR)
    assert files.write(fd, b"") == 0
    assert files.write(fd, b"", 100) == 0
    assert files.read(fd, 0) == b""
    assert (files.fstat(fd).st_size, files.modified_ns(path)) == (15, before)


def test_bad_memory_is_refused_and_moves_nothing(files: Files, path: bytes) -> None:
    fd = files.opened(path, O_RDWR)
    assert files.call("write", fd, 8, 4) == -errno.EFAULT
    assert files.call("read", fd, 8, 4) == -errno.EFAULT
    assert files.ok("lseek", fd, 0, SEEK_CUR) == 0
    assert files.contents(path) == b"contents of old"


def test_copies_between_files(files: Files, path: bytes) -> None:
    source, target = files.opened(path), files.opened(b"/copy", READ_WRITE)
    assert files.ok("copy_file_range", source, 0, target, 0, 8, 0) == 8
    assert files.ok("sendfile", target, source, 0, 100) == 7
    assert files.contents(b"/copy") == b"contents of old"
    assert files.ok("copy_file_range", source, 0, target, 0, 8, 0) == 0
    assert files.call("copy_file_range", target, 0, source, 0, 8, 0) == -errno.EBADF


def test_synchronising_is_possible_on_everything(files: Files, path: bytes) -> None:
    for name in (path, b"/dir"):
        fd = files.opened(name)
        assert files.ok("fsync", fd) == files.ok("fdatasync", fd) == 0
    fd = files.opened(b"/x", O_CREAT | O_WRONLY)
    assert files.ok("fsync", fd) == 0


def test_file_size_limit_cuts(files: Files, path: bytes) -> None:
    limit = files.place(struct.pack("<2Q", 20, 20))
    files.program.block(25)
    files.ok("setrlimit", 1, limit)
    fd = files.opened(path, O_RDWR | O_APPEND)
    assert files.write(fd, b"0123456789") == 5
    assert files.write(fd, b"x") == -errno.EFBIG
    assert files.program.take_signals() == [25]
    assert files.call("ftruncate", fd, 21) == -errno.EFBIG
    assert files.contents(path) == b"contents of old01234"
