"""Record locks, locks of open files, flock(2), leases: every file system has them alike."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import (
    F_GETLK,
    F_OFD_SETLK,
    F_RDLCK,
    F_SETLKW,
    F_UNLCK,
    F_WRLCK,
    FLOCK,
    LOCK_EX,
    LOCK_NB,
    LOCK_SH,
    LOCK_UN,
    O_RDWR,
    O_WRONLY,
)
from tests.contract.filesystems.calls import Files

Two = tuple[Files, int, Files, int]


@pytest.fixture(params=["new", "old"])
def two(request: pytest.FixtureRequest, files: Files) -> Two:
    """Two processes with the same file open."""
    path = b"/" + request.param.encode()
    files.fill(path)
    other = files.sibling()
    return files, files.opened(path, O_RDWR), other, other.opened(path, O_RDWR)


def holder(files: Files, fd: int, kind: int, start: int, length: int) -> tuple[int, int, int]:
    """Type, start and length of a lock that is in the way."""
    where = files.place(FLOCK.pack(kind, 0, start, length, 0))
    files.ok("fcntl", fd, F_GETLK, where)
    found = FLOCK.unpack(files.program.read(where, FLOCK.size))
    return found.l_type, found.l_start, found.l_len


def test_readers_share_and_a_writer_is_alone(two: Two) -> None:
    here, fd, there, other = two
    assert here.lock(fd, F_RDLCK, 0, 10) == 0
    assert there.lock(other, F_RDLCK, 5, 10) == 0
    assert there.lock(other, F_WRLCK, 10, 10) == 0
    assert there.lock(other, F_WRLCK, 9, 1) == -errno.EAGAIN
    assert here.lock(fd, F_RDLCK, 10, 1) == -errno.EAGAIN
    assert here.lock(fd, F_UNLCK) == 0
    assert there.lock(other, F_WRLCK, 0, 0) == 0


def test_ranges_split_and_join(two: Two) -> None:
    here, fd, there, other = two
    assert here.lock(fd, F_WRLCK, 0, 100) == 0
    assert here.lock(fd, F_UNLCK, 40, 20) == 0
    assert holder(there, other, F_WRLCK, 0, 0) == (F_WRLCK, 0, 40)
    assert holder(there, other, F_WRLCK, 45, 5)[0] == F_UNLCK
    assert holder(there, other, F_RDLCK, 50, 0) == (F_WRLCK, 60, 40)
    assert here.lock(fd, F_WRLCK, 40, 20) == 0
    assert holder(there, other, F_WRLCK, 0, 0) == (F_WRLCK, 0, 100)


def test_any_close_of_the_file_ends_the_locks_of_the_process(two: Two) -> None:
    here, fd, there, other = two
    assert here.lock(fd, F_WRLCK) == 0
    assert there.lock(other, F_RDLCK) == -errno.EAGAIN
    here.ok("close", here.ok("dup", fd))
    assert there.lock(other, F_RDLCK) == 0


def test_waiter_gets_the_lock_when_it_is_free(two: Two) -> None:
    here, fd, there, other = two
    assert here.lock(fd, F_WRLCK, 0, 10) == 0
    where = there.place(FLOCK.pack(F_WRLCK, 0, 5, 1, 0))
    waiter = there.begin("fcntl", other, F_SETLKW, where)
    assert not waiter.done
    assert here.lock(fd, F_UNLCK, 0, 10) == 0
    assert waiter.wait() == 0
    assert here.lock(fd, F_RDLCK, 5, 1) == -errno.EAGAIN


def test_circle_of_waiters_is_refused(two: Two) -> None:
    here, fd, there, other = two
    assert here.lock(fd, F_WRLCK, 0, 1) == 0
    assert there.lock(other, F_WRLCK, 1, 1) == 0
    waiter = there.begin("fcntl", other, F_SETLKW, there.place(FLOCK.pack(F_WRLCK, 0, 0, 1, 0)))
    assert not waiter.done
    where = here.place(FLOCK.pack(F_WRLCK, 0, 1, 1, 0))
    assert here.call("fcntl", fd, F_SETLKW, where) == -errno.EDEADLK
    here.ok("close", fd)
    assert waiter.wait() == 0


def test_lock_of_an_open_file_is_not_the_process(two: Two) -> None:
    here, fd, there, other = two
    assert here.lock(fd, F_WRLCK, 0, 10, F_OFD_SETLK) == 0
    here.ok("close", here.ok("dup", fd))
    assert there.lock(other, F_RDLCK, 0, 1) == -errno.EAGAIN
    assert here.lock(fd, F_RDLCK, 0, 1) == -errno.EAGAIN
    here.ok("close", fd)
    assert there.lock(other, F_RDLCK, 0, 1, F_OFD_SETLK) == 0


def test_flock_belongs_to_the_open_file(two: Two) -> None:
    here, fd, there, other = two
    here.ok("flock", fd, LOCK_EX)
    assert there.call("flock", other, LOCK_SH | LOCK_NB) == -errno.EAGAIN
    copy = here.ok("dup", fd)
    here.ok("close", fd)
    waiter = there.begin("flock", other, LOCK_SH)
    assert not waiter.done
    here.ok("flock", copy, LOCK_UN)
    assert waiter.wait() == 0
    here.ok("flock", copy, LOCK_SH)
    assert here.call("flock", copy, LOCK_EX | LOCK_NB) == -errno.EAGAIN


def test_lock_needs_the_right_that_it_is_for(files: Files) -> None:
    reader, writer = files.opened(b"/old"), files.opened(b"/old", O_WRONLY)
    assert files.lock(reader, F_WRLCK) == -errno.EBADF
    assert files.lock(writer, F_RDLCK) == -errno.EBADF
    assert files.lock(reader, F_RDLCK) == files.lock(writer, F_WRLCK) == 0
    assert files.lock(reader, 77) == -errno.EINVAL
    assert files.lock(reader, F_RDLCK, -5, 0) == -errno.EINVAL
    files.ok("flock", files.opened(b"/dir"), LOCK_EX)
