"""open(2): what it makes, what it refuses, in which order."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    F_GETFL,
    F_SETFL,
    O_ACCMODE,
    O_APPEND,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
)
from tests.contract.filesystems.calls import Files

NAME_MAX = 255


def test_new_file_has_its_mode_without_the_umask(files: Files) -> None:
    files.ok("umask", 0o027)
    fd = files.opened(b"/new", O_CREAT | O_WRONLY, 0o777)
    found = files.fstat(fd)
    assert (found.st_mode, found.st_size, found.st_nlink) == (0o100750, 0, 1)
    assert (found.st_uid, found.st_gid) == (0, 0)
    assert files.names(b"/") == [b"dir", b"empty", b"link", b"new", b"old"]


def test_file_that_is_made_may_be_used_against_its_mode(files: Files) -> None:
    user = files.sibling(1000, 1000)
    files.ok("chmod", b"/empty", 0o777)
    fd = user.opened(b"/empty/f", O_CREAT | O_RDWR, 0)
    assert user.write(fd, b"x") == 1
    assert user.open(b"/empty/f") == -errno.EACCES


def test_create_of_what_is_there_opens_it(files: Files) -> None:
    fd = files.opened(b"/old", O_CREAT | O_RDONLY, 0o600)
    assert files.read(fd, 100) == b"contents of old"
    assert files.stat(b"/old").st_mode == 0o100644


@pytest.mark.parametrize("name", [b"/old", b"/link", b"/dir", b"/dangling"])
def test_exclusive_create_refuses_what_is_there(files: Files, name: bytes) -> None:
    files.ok("symlink", b"nowhere", b"/dangling")
    assert files.open(name, O_CREAT | O_EXCL | O_RDWR) == -errno.EEXIST


def test_create_through_a_dangling_link_makes_its_target(files: Files) -> None:
    files.ok("symlink", b"dir/made", b"/dangling")
    files.fill(b"/dangling", b"x")
    assert files.contents(b"/dir/made") == b"x"


def test_truncation_empties_unless_it_only_looks(files: Files) -> None:
    files.ok("close", files.opened(b"/old", O_WRONLY | O_TRUNC))
    assert files.stat(b"/old").st_size == 0
    files.fill(b"/old", b"again")
    assert files.contents(b"/old") == b"again"


def test_truncation_through_a_link_and_by_another_descriptor_is_seen(files: Files) -> None:
    fd = files.opened(b"/old", O_RDONLY)
    files.ok("close", files.opened(b"/link", O_RDWR | O_TRUNC))
    assert files.read(fd, 10) == b""
    assert files.fstat(fd).st_size == 0


REFUSED = [
    (b"", O_RDONLY, errno.ENOENT),
    (b"/none", O_RDONLY, errno.ENOENT),
    (b"/none/x", O_CREAT | O_WRONLY, errno.ENOENT),
    (b"/old/x", O_RDONLY, errno.ENOTDIR),
    (b"/old/x", O_CREAT | O_WRONLY, errno.ENOTDIR),
    (b"/old/", O_RDONLY, errno.ENOTDIR),
    (b"/old", O_RDONLY | O_DIRECTORY, errno.ENOTDIR),
    (b"/link", O_RDONLY | O_NOFOLLOW, errno.ELOOP),
    (b"/link", O_RDONLY | O_NOFOLLOW | O_DIRECTORY, errno.ENOTDIR),
    (b"/dir", O_WRONLY, errno.EISDIR),
    (b"/dir", O_RDWR, errno.EISDIR),
    (b"/dir", O_CREAT | O_RDONLY, errno.EISDIR),
    (b"/dir", O_RDONLY | O_TRUNC, errno.EISDIR),
    (b"/new/", O_CREAT | O_WRONLY, errno.EISDIR),
    (b"/dir/..", O_CREAT | O_RDONLY, errno.EISDIR),
    (b"/" + b"n" * (NAME_MAX + 1), O_RDONLY, errno.ENAMETOOLONG),
    (b"/" + b"n" * (NAME_MAX + 1), O_CREAT | O_WRONLY, errno.ENAMETOOLONG),
    (b"/dir" * 1024, O_RDONLY, errno.ENAMETOOLONG),
    (b"/old", O_TMPFILE & ~O_DIRECTORY | O_RDWR, errno.EINVAL),
    (b"/old", O_TMPFILE | O_RDWR, errno.ENOTDIR),
    (b"/dir", O_TMPFILE | O_RDONLY, errno.EINVAL),
]  # fmt: skip


def test_open_of_what_cannot_be_opened_says_why(files: Files) -> None:
    before = files.names(b"/")
    for path, flags, error in REFUSED:
        assert files.open(path, flags) == -error, (path[:20], flags)
    assert files.names(b"/") == before


def test_loop_of_links_is_found(files: Files) -> None:
    files.ok("symlink", b"b", b"/a")
    files.ok("symlink", b"a", b"/b")
    assert files.open(b"/a") == -errno.ELOOP
    assert files.open(b"/a/x", O_CREAT | O_WRONLY) == -errno.ELOOP


def test_longest_name_can_be_made_and_removed(files: Files) -> None:
    name = b"/dir/" + b"n" * NAME_MAX
    files.fill(name, b"x")
    assert files.contents(name) == b"x"
    files.ok("unlink", name)
    assert files.missing(name) == -errno.ENOENT


def test_path_alone_neither_reads_nor_writes(files: Files) -> None:
    fd = files.opened(b"/old", O_PATH)
    assert files.call("read", fd, files.place(bytes(4)), 4) == -errno.EBADF
    assert files.write(fd, b"x") == -errno.EBADF
    assert files.call("fchmod", fd, 0o600) == -errno.EBADF
    assert files.fstat(fd).st_size == 15
    directory = files.opened(b"/dir", O_PATH)
    inner = files.ok("openat", directory, b"inner", O_RDONLY, 0)
    assert files.read(inner, 10) == b"inner"


def test_descriptor_cannot_do_what_it_was_not_opened_for(files: Files) -> None:
    reader, writer = files.opened(b"/old"), files.opened(b"/old", O_WRONLY)
    assert files.write(reader, b"x") == -errno.EBADF
    assert files.call("read", writer, files.place(bytes(4)), 4) == -errno.EBADF
    assert files.call("ftruncate", reader, 0) == -errno.EINVAL
    directory = files.opened(b"/dir")
    assert files.call("read", directory, files.place(bytes(4)), 4) == -errno.EISDIR


def test_flags_are_kept_and_append_can_be_changed(files: Files) -> None:
    fd = files.opened(b"/old", O_RDWR | O_APPEND)
    assert files.ok("fcntl", fd, F_GETFL) & (O_ACCMODE | O_APPEND) == O_RDWR | O_APPEND
    files.ok("fcntl", fd, F_SETFL, 0)
    files.ok("lseek", fd, 0, 0)
    assert files.write(fd, b"C") == 1
    assert files.contents(b"/old") == b"Contents of old"


def test_file_without_a_name_gets_one_by_a_link(files: Files) -> None:
    fd = files.open(b"/dir", O_TMPFILE | O_RDWR, 0o600)
    if fd == -errno.EOPNOTSUPP:
        pytest.skip("this file system has no O_TMPFILE")
    assert files.write(fd, b"hidden") == 6
    assert files.fstat(fd).st_nlink == 0
    assert files.names(b"/dir") == [b"inner", b"sub"]
    files.ok("linkat", fd, b"", AT_FDCWD, b"/dir/named", AT_EMPTY_PATH)
    assert files.contents(b"/dir/named") == b"hidden"
    assert files.fstat(fd).st_nlink == 1


def test_two_opens_have_two_positions(files: Files) -> None:
    one, other = files.opened(b"/old"), files.opened(b"/old")
    assert files.read(one, 8) == b"contents"
    assert files.read(other, 8) == b"contents"
    copy = files.ok("dup", one)
    assert files.read(copy, 100) == b" of old"
    assert files.read(one, 1) == b""
