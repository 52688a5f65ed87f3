"""Modes, owners, times, numbers of links, extended attributes."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.fcntl import AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY
from sentry.abi.xattr import XATTR_CREATE, XATTR_REPLACE
from tests.contract.filesystems.calls import Files

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
LONG_AGO = 1_000_000_000


def aged(files: Files, *paths: bytes) -> None:
    """Times that nobody can mistake for now."""
    for path in paths:
        files.set_times(path, LONG_AGO)


# --- mode and owner


def test_mode_is_changed_by_name_and_by_descriptor(files: Files) -> None:
    files.ok("chmod", b"/link", 0o640)
    assert files.stat(b"/old").st_mode == 0o100640
    files.ok("fchmod", files.opened(b"/old"), 0o4751)
    assert files.stat(b"/old").st_mode == 0o104751
    files.ok("chmod", b"/dir", 0o1770)
    assert files.stat(b"/dir").st_mode == 0o041770
    assert files.call("chmod", b"/none", 0) == -errno.ENOENT


def test_owner_is_changed_and_minus_one_is_left(files: Files) -> None:
    files.ok("chown", b"/link", 5, -1 & 0xFFFFFFFF)
    files.ok("chown", b"/old", -1 & 0xFFFFFFFF, 7)
    found = files.stat(b"/old")
    assert (found.st_uid, found.st_gid) == (5, 7)
    files.ok("lchown", b"/link", 8, 9)
    assert (files.lstat(b"/link").st_uid, files.stat(b"/old").st_uid) == (8, 5)


def test_set_id_bits_go_with_the_owner_and_with_what_was_written(files: Files) -> None:
    files.ok("chmod", b"/old", 0o6755)
    files.ok("chown", b"/old", 5, 5)
    assert files.stat(b"/old").st_mode == 0o100755
    files.ok("chmod", b"/old", 0o6777)
    user = files.sibling(1000, 1000)
    assert user.write(user.opened(b"/old", O_WRONLY), b"x") == 1
    assert files.stat(b"/old").st_mode == 0o100777


def test_directory_with_a_group_gives_it_to_what_is_made(files: Files) -> None:
    files.ok("chown", b"/empty", 0, 50)
    files.ok("chmod", b"/empty", 0o2777)
    files.fill(b"/empty/f")
    files.ok("mkdir", b"/empty/d", 0o755)
    files.ok("symlink", b"x", b"/empty/l")
    assert [files.lstat(b"/empty/" + name).st_gid for name in (b"f", b"d", b"l")] == [50, 50, 50]
    assert files.stat(b"/empty/d").st_mode == 0o042755


def test_links_are_counted(files: Files, request: pytest.FixtureRequest) -> None:
    links = files.stat(b"/dir").st_nlink
    files.ok("mkdir", b"/dir/more", 0o755)
    if "layers over gofer" in request.node.name:  # merged, it has 1: ovl_getattr()
        assert files.stat(b"/dir").st_nlink == 1
        return
    assert files.stat(b"/dir").st_nlink - links in (0, 1)
    files.ok("rmdir", b"/dir/more")
    assert files.stat(b"/dir").st_nlink == links


def test_number_of_a_file_stays_through_everything(files: Files) -> None:
    number = files.stat(b"/old").st_ino
    fd = files.opened(b"/old", O_RDWR)
    assert files.write(fd, b"changed") == 7
    files.ok("chmod", b"/old", 0o600)
    files.ok("rename", b"/old", b"/dir/moved")
    assert files.stat(b"/dir/moved").st_ino == files.fstat(fd).st_ino == number
    assert files.stat(b"/dir/moved").st_dev == files.stat(b"/").st_dev


# --- times


def test_times_are_set_to_the_nanosecond(files: Files) -> None:
    times = files.place(struct.pack("<4q", 5, 123456789, 6, 999999999))
    files.ok("utimensat", AT_FDCWD, b"/link", times, 0)
    found = files.stat(b"/old")
    assert (found.st_atime, found.st_atime_nsec) == (5, 123456789)
    assert (found.st_mtime, found.st_mtime_nsec) == (6, 999999999)
    files.ok("utimensat", AT_FDCWD, b"/link", times, AT_SYMLINK_NOFOLLOW)
    assert files.lstat(b"/link").st_mtime == 6


def test_one_time_can_be_left_and_one_be_now(files: Files) -> None:
    aged(files, b"/old")
    times = files.place(struct.pack("<4q", 0, UTIME_OMIT, 0, UTIME_NOW))
    files.ok("utimensat", AT_FDCWD, b"/old", times, 0)
    found = files.stat(b"/old")
    assert found.st_atime == LONG_AGO < found.st_mtime
    bad = files.place(struct.pack("<4q", 0, 1_000_000_000, 0, 0))
    assert files.call("utimensat", AT_FDCWD, b"/old", bad, 0) == -errno.EINVAL


def test_write_and_truncation_change_the_file(files: Files) -> None:
    fd = files.opened(b"/old", O_RDWR)
    for change in (
        lambda: files.write(fd, b"x"),
        lambda: files.call("ftruncate", fd, 3),
        lambda: files.call("truncate", b"/old", 2),
    ):
        aged(files, b"/old")
        change()
        assert files.stat(b"/old").st_mtime > LONG_AGO
    aged(files, b"/old")
    files.read(fd, 1, 0)
    files.ok("chmod", b"/old", 0o600)
    files.ok("link", b"/old", b"/second")
    assert files.stat(b"/old").st_mtime == LONG_AGO


def test_change_of_attributes_moves_the_change_time_alone(files: Files) -> None:
    for change in (
        lambda: files.ok("chmod", b"/old", 0o600),
        lambda: files.ok("chown", b"/old", 1, 1),
        lambda: files.ok("link", b"/old", b"/second"),
        lambda: files.ok("rename", b"/second", b"/third"),
        lambda: files.ok("unlink", b"/third"),
        lambda: files.set_times(b"/old", LONG_AGO),
    ):
        aged(files, b"/old")
        before = files.changed_ns(b"/old")
        change()
        assert files.changed_ns(b"/old") >= before  # the clock of Linux has ticks
        assert files.stat(b"/old").st_mtime == LONG_AGO


@pytest.mark.parametrize(
    ("name", "values", "directories"),
    [
        ("mkdir", (b"/dir/new", 0o755), (b"/dir",)),
        ("mknod", (b"/dir/new", 0o100600, 0), (b"/dir",)),
        ("symlink", (b"x", b"/dir/new"), (b"/dir",)),
        ("link", (b"/old", b"/dir/new"), (b"/dir",)),
        ("unlink", (b"/dir/inner",), (b"/dir",)),
        ("rmdir", (b"/dir/sub",), (b"/dir",)),
        ("rename", (b"/dir/inner", b"/empty/x"), (b"/dir", b"/empty")),
        ("openat", (AT_FDCWD, b"/dir/new", O_CREAT | O_RDONLY, 0o600), (b"/dir",)),
    ],
)
def test_names_change_their_directory(
    files: Files, name: str, values: tuple[int | bytes, ...], directories: tuple[bytes, ...]
) -> None:
    aged(files, b"/dir", b"/empty")
    files.ok(name, *values)
    for path in directories:
        assert files.stat(path).st_mtime > LONG_AGO


def test_what_fails_changes_no_time(files: Files) -> None:
    aged(files, b"/dir", b"/old")
    assert files.call("mkdir", b"/dir/sub", 0o755) == -errno.EEXIST
    assert files.call("unlink", b"/dir/none") == -errno.ENOENT
    assert files.call("truncate", b"/old", -1) == -errno.EINVAL
    assert files.stat(b"/dir").st_mtime == files.stat(b"/old").st_mtime == LONG_AGO


# --- extended attributes


class Attributes:
    """Those of one file."""

    def __init__(self, files: Files, path: bytes) -> None:
        self.files, self.path = files, path

    def set(self, name: bytes, value: bytes, flags: int = 0) -> int:
        at = self.files.place(value)
        return self.files.call("setxattr", self.path, name, at, len(value), flags)

    def get(self, name: bytes, room: int = 256) -> bytes | int:
        buffer = self.files.program.buffer(room)
        size = self.files.call("getxattr", self.path, name, buffer, room)
        return size if size < 0 or not room else self.files.program.read(buffer, size)

    def list(self) -> list[bytes]:
        buffer = self.files.program.buffer(1024)
        size = self.files.ok("listxattr", self.path, buffer, 1024)
        return sorted(name for name in self.files.program.read(buffer, size).split(b"\0") if name)


@pytest.fixture(params=[b"/old", b"/dir"])
def attributes(request: pytest.FixtureRequest, files: Files) -> Attributes:
    """Of a file and of a directory, where there are any."""
    found = Attributes(files, request.param)
    if found.set(b"user.first", b"1") == -errno.EOPNOTSUPP:
        pytest.skip("this file system has no extended attributes")
    return found


def test_attribute_is_kept_replaced_and_removed(attributes: Attributes) -> None:
    assert attributes.get(b"user.first") == b"1"
    assert attributes.set(b"user.first", b"changed") == 0
    assert attributes.set(b"user.empty", b"") == 0
    assert attributes.get(b"user.first") == b"changed"
    assert attributes.get(b"user.empty") == b""
    assert attributes.list() == [b"user.empty", b"user.first"]
    files = attributes.files
    files.ok("removexattr", attributes.path, b"user.first")
    assert attributes.get(b"user.first") == -errno.ENODATA
    assert files.call("removexattr", attributes.path, b"user.first") == -errno.ENODATA


def test_flags_say_whether_it_may_be_there(attributes: Attributes) -> None:
    assert attributes.set(b"user.first", b"2", XATTR_CREATE) == -errno.EEXIST
    assert attributes.set(b"user.second", b"2", XATTR_REPLACE) == -errno.ENODATA
    assert attributes.set(b"user.second", b"2", XATTR_CREATE) == 0
    assert attributes.set(b"user.second", b"3", XATTR_REPLACE) == 0
    assert attributes.set(b"user.second", b"3", 77) == -errno.EINVAL


def test_size_is_told_and_small_buffers_are_refused(attributes: Attributes) -> None:
    assert attributes.set(b"user.first", b"12345") == 0
    assert attributes.get(b"user.first", 0) == 5
    assert attributes.get(b"user.first", 4) == -errno.ERANGE
    files = attributes.files
    assert files.ok("listxattr", attributes.path, 0, 0) == 11
    assert files.call("listxattr", attributes.path, files.place(bytes(4)), 4) == -errno.ERANGE


def test_names_that_no_attribute_can_have(attributes: Attributes) -> None:
    assert attributes.set(b"nonsense", b"") == -errno.EOPNOTSUPP
    assert attributes.set(b"", b"") == -errno.ERANGE
    assert attributes.set(b"user." + b"n" * 251, b"") == -errno.ERANGE
    assert attributes.get(b"user.") == -errno.EINVAL


def test_those_of_users_need_a_file_or_directory(attributes: Attributes) -> None:
    files = attributes.files
    at = files.place(b"x")
    assert files.call("lsetxattr", b"/link", b"user.x", at, 1, 0) == -errno.EPERM
    user = files.sibling(1000, 1000)
    assert Attributes(user, attributes.path).set(b"user.x", b"") == -errno.EACCES
    assert Attributes(user, attributes.path).get(b"user.first") == b"1"
    assert Attributes(user, attributes.path).set(b"trusted.x", b"") == -errno.EPERM
