"""Files in memory: what is mapped, read and written is one."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import O_RDWR, O_WRONLY
from sentry.abi.mman import (
    MAP_PRIVATE,
    MAP_SHARED,
    MS_SYNC,
    PROT_READ,
    PROT_WRITE,
)
from tests.contract.filesystems.calls import Files

PAGE = 4096
BOTH = PROT_READ | PROT_WRITE


@pytest.fixture(params=["new", "old"])
def fd(request: pytest.FixtureRequest, files: Files) -> int:
    """A file of two pages that was there at the start, or has been made since."""
    path = b"/" + request.param.encode()
    files.fill(path, b"contents of old")
    opened = files.opened(path, O_RDWR)
    files.ok("ftruncate", opened, 2 * PAGE)
    return opened


def mapped(files: Files, fd: int, prot: int, flags: int, offset: int = 0) -> int:
    return files.ok("mmap", 0, PAGE, prot, flags, fd, offset)


def test_mapping_shows_what_is_in_the_file(files: Files, fd: int) -> None:
    at = mapped(files, fd, PROT_READ, MAP_SHARED)
    assert files.program.read(at, 20) == b"contents of old" + bytes(5)
    private = mapped(files, fd, PROT_READ, MAP_PRIVATE)
    assert files.program.read(private, 8) == b"contents"


def test_write_is_seen_in_mappings(files: Files, fd: int) -> None:
    shared = mapped(files, fd, PROT_READ, MAP_SHARED)
    private = mapped(files, fd, BOTH, MAP_PRIVATE)
    assert files.program.read(shared, 8) == files.program.read(private, 8) == b"contents"
    assert files.write(fd, b"CONTENTS", 0) == 8
    assert files.program.read(shared, 8) == b"CONTENTS"
    assert files.program.read(private, 8) == b"CONTENTS"


def test_store_into_a_shared_mapping_is_read(files: Files, fd: int) -> None:
    at = mapped(files, fd, BOTH, MAP_SHARED)
    files.program.write(at + 100, b"stored")
    assert files.read(fd, 6, 100) == b"stored"
    other = files.sibling()
    assert other.read(other.opened(b"/old"), 0) == b""
    files.ok("munmap", at, PAGE)
    assert files.read(fd, 6, 100) == b"stored"


def test_store_into_a_private_mapping_stays_there(files: Files, fd: int) -> None:
    at = mapped(files, fd, BOTH, MAP_PRIVATE)
    files.program.write(at, b"private")
    assert files.read(fd, 8, 0) == b"contents"
    assert files.write(fd, b"CONTENTS", 0) == 8
    assert files.program.read(at, 8) == b"privates"


def test_two_processes_share_a_mapping(files: Files) -> None:
    other = files.sibling()
    here, there = files.opened(b"/old", O_RDWR), other.opened(b"/old", O_RDWR)
    files.ok("ftruncate", here, PAGE)
    mine, its = mapped(files, here, BOTH, MAP_SHARED), mapped(other, there, BOTH, MAP_SHARED)
    files.program.write(mine, b"from one")
    assert other.program.read(its, 8) == b"from one"
    other.program.write(its + 8, b" to other")
    assert files.program.read(mine, 17) == b"from one to other"
    files.ok("msync", mine, PAGE, MS_SYNC)
    assert files.contents(b"/old")[:17] == b"from one to other"


def test_offset_is_a_page_of_the_file(files: Files, fd: int) -> None:
    assert files.write(fd, b"second", PAGE) == 6
    at = mapped(files, fd, PROT_READ, MAP_SHARED, PAGE)
    assert files.program.read(at, 6) == b"second"
    assert files.call("mmap", 0, PAGE, PROT_READ, MAP_SHARED, fd, 100) == -errno.EINVAL


def test_file_that_is_cut_and_grown_shows_zeroes(files: Files, fd: int) -> None:
    at = mapped(files, fd, BOTH, MAP_SHARED)
    files.program.write(at, b"stored")
    files.ok("ftruncate", fd, 3)
    files.ok("ftruncate", fd, PAGE)
    assert files.program.read(at, 8) == b"sto" + bytes(5)
    assert files.read(fd, 8, 0) == b"sto" + bytes(5)


def test_mapping_outlives_the_descriptor_and_the_name(files: Files, fd: int) -> None:
    at = mapped(files, fd, BOTH, MAP_SHARED)
    copy = files.ok("dup", fd)
    files.ok("close", fd)
    files.program.write(at, b"CONTENTS")
    assert files.read(copy, 8, 0) == b"CONTENTS"
    files.ok("close", copy)
    assert files.program.read(at, 15) == b"CONTENTS of old"


def test_rights_of_the_descriptor_hold(files: Files, fd: int) -> None:
    reader, writer = files.opened(b"/old"), files.opened(b"/old", O_WRONLY)
    for opened, prot, flags, error in (
        (reader, BOTH, MAP_SHARED, errno.EACCES),
        (writer, PROT_WRITE, MAP_SHARED, errno.EACCES),
        (writer, PROT_READ, MAP_PRIVATE, errno.EACCES),
        (files.opened(b"/dir"), PROT_READ, MAP_SHARED, errno.ENODEV),
        (777, PROT_READ, MAP_SHARED, errno.EBADF),
    ):
        assert files.call("mmap", 0, PAGE, prot, flags, opened, 0) == -error
    at = mapped(files, reader, BOTH, MAP_PRIVATE)
    files.program.write(at, b"mine")
    at = mapped(files, reader, PROT_READ, MAP_SHARED)
    assert files.call("mprotect", at, PAGE, BOTH) == -errno.EACCES


def test_reading_into_the_files_own_mapping(files: Files, fd: int) -> None:
    at = mapped(files, fd, BOTH, MAP_SHARED)
    assert files.ok("pread64", fd, at + 8, 8, 0) == 8
    assert files.read(fd, 16, 0) == b"contentscontents"
    assert files.ok("pwrite64", fd, at, 8, PAGE) == 8
    assert files.read(fd, 8, PAGE) == b"contents"
