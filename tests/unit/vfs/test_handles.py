"""File handles: who has given them out keeps no file that nobody else has."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_HANDLE_FID, O_CREAT, O_RDWR
from tests.world import Program

SIZE = 10 * 4096


@pytest.fixture
def program(task: Program) -> Program:
    """With a tmpfs, and a file on it."""
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    fd = task.ok("open", b"/m/f", O_CREAT | O_RDWR, 0o600)
    task.ok("fallocate", fd, 0, 0, SIZE)
    task.ok("close", fd)
    return task


def handle(program: Program, path: bytes, dirfd: int = AT_FDCWD, flags: int = 0) -> int:
    found = program.place(struct.pack("<Ii", 128, 0) + bytes(128))
    program.ok("name_to_handle_at", dirfd, path, found, program.buffer(8), flags)
    return found


def pages(program: Program) -> int:
    program.world.settle()
    return int(program.world.platform.ram.file_pages)


def opened(program: Program, found: int) -> int:
    fd = program.ok("open", b"/m", 0, 0)
    return program.call("open_by_handle_at", fd, found, 0)


def test_file_without_a_name_is_gone(program: Program) -> None:
    found = handle(program, b"/m/f")
    before = pages(program)
    assert opened(program, found) >= 0
    program.ok("close_range", 0, 100, 0)
    program.ok("unlink", b"/m/f")
    assert before - pages(program) == SIZE // 4096
    assert opened(program, found) == -errno.ESTALE


def test_file_is_found_while_it_is_open_or_has_another_name(program: Program) -> None:
    found = handle(program, b"/m/f")
    fd = program.ok("open", b"/m/f", O_RDWR, 0)
    program.ok("link", b"/m/f", b"/m/g")
    program.ok("unlink", b"/m/f")
    assert opened(program, found) >= 0
    program.ok("unlink", b"/m/g")
    assert opened(program, found) >= 0
    found = handle(program, b"", fd, AT_EMPTY_PATH)
    assert opened(program, found) >= 0
    before = pages(program)
    program.ok("close_range", 0, 100, 0)
    assert before - pages(program) == SIZE // 4096
    assert opened(program, found) == -errno.ESTALE


def test_file_system_that_is_unmounted_is_gone(program: Program) -> None:
    for path in (b"/m", b"/m/f"):
        handle(program, path)
    before = pages(program)
    program.ok("umount2", b"/m", 0)
    assert before - pages(program) == SIZE // 4096
    assert not program.world.vfs.dentries.handles


def test_handle_that_is_only_compared_is_had_of_any_file(program: Program) -> None:
    program.world.mount("proc", b"/proc")
    found = program.place(struct.pack("<Ii", 128, 0) + bytes(128))
    ends = program.buffer(8)
    program.ok("pipe", ends)
    reader = program.read(ends, 1)[0]
    for fd, path in ((AT_FDCWD, b"/proc/version"), (reader, b"")):
        call = "name_to_handle_at", fd, path, found, program.buffer(8)
        assert program.call(*call, AT_EMPTY_PATH) == -errno.EOPNOTSUPP
        program.ok(*call, AT_EMPTY_PATH | AT_HANDLE_FID)
    assert not program.world.vfs.dentries.handles
