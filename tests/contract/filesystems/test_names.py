"""Making, linking, moving and removing names."""

from __future__ import annotations

import errno
from itertools import product

import pytest

from sentry.abi.fcntl import (
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    O_RDWR,
    O_WRONLY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
)
from tests.contract.filesystems.calls import Files

KINDS = ("file", "link", "empty", "full", "missing")
FORBIDDEN = {
    ("file", "empty"): errno.EISDIR, ("file", "full"): errno.EISDIR,
    ("link", "empty"): errno.EISDIR, ("link", "full"): errno.EISDIR,
    ("empty", "file"): errno.ENOTDIR, ("empty", "link"): errno.ENOTDIR,
    ("full", "file"): errno.ENOTDIR, ("full", "link"): errno.ENOTDIR,
    ("empty", "full"): errno.ENOTEMPTY, ("full", "full"): errno.ENOTEMPTY,
}  # fmt: skip


def make(files: Files, path: bytes, kind: str) -> None:
    if kind == "file":
        files.fill(path, path)
    elif kind == "link":
        files.ok("symlink", b"nowhere", path)
    elif kind != "missing":
        files.ok("mkdir", path, 0o755)
        if kind == "full":
            files.fill(path + b"/x")


def move(files: Files, old: bytes, new: bytes, flags: int = 0) -> int:
    return files.call("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)


# --- rename


def outcome(source: str, target: str, flags: int) -> int:
    """The errno of a rename, 0 if it is made."""
    if source == "missing":
        return errno.ENOENT
    if flags == RENAME_EXCHANGE:
        return errno.ENOENT if target == "missing" else 0
    if flags == RENAME_NOREPLACE:
        return 0 if target == "missing" else errno.EEXIST
    return FORBIDDEN.get((source, target), 0)


def ino(files: Files, path: bytes) -> int:
    """0 for what is not there."""
    parent, name = path.rsplit(b"/", 1)
    return files.lstat(path).st_ino if name in files.names(parent) else 0


@pytest.mark.parametrize("flags", [0, RENAME_NOREPLACE, RENAME_EXCHANGE])
def test_rename_of_every_kind_over_every_kind(files: Files, flags: int) -> None:
    for number, (source, target) in enumerate(product(KINDS, KINDS)):
        here, there = b"/dir/%d" % number, b"/empty/%d" % number
        files.ok("mkdir", here, 0o755)
        files.ok("mkdir", there, 0o755)
        a, b = here + b"/a", there + b"/b"
        make(files, a, source)
        make(files, b, target)
        before, expected = (ino(files, a), ino(files, b)), outcome(source, target, flags)

        assert move(files, a, b, flags) == -expected, (source, target)

        exchanged = before[::-1] if flags == RENAME_EXCHANGE else (0, before[0])
        assert (ino(files, a), ino(files, b)) == (before if expected else exchanged)
        below = [files.lstat(there + b"/" + name).st_mode >> 12 for name in files.names(there)]
        assert files.stat(there).st_nlink in (1, 2 + below.count(4))


NO_RENAME = [
    (b"/dir", b"/dir/sub/x", errno.EINVAL),
    (b"/dir", b"/dir/x", errno.EINVAL),
    (b"/dir/sub", b"/dir", errno.ENOTEMPTY),
    (b"/dir/.", b"/x", errno.EBUSY),
    (b"/dir/..", b"/x", errno.EBUSY),
    (b"/old", b"/dir/.", errno.EBUSY),
    (b"/old", b"/new/", errno.ENOTDIR),
    (b"/old/", b"/new", errno.ENOTDIR),
    (b"/old", b"/none/x", errno.ENOENT),
    (b"/old", b"/dir/inner/x", errno.ENOTDIR),
    (b"/", b"/x", errno.EBUSY),
    (b"/old", b"", errno.ENOENT),
    (b"/old", b"/" + b"n" * 256, errno.ENAMETOOLONG),
]


def test_rename_that_cannot_be_says_why(files: Files) -> None:
    before = files.names(b"/")
    for old, new, error in NO_RENAME:
        assert move(files, old, new) == -error, (old, new)
    assert files.names(b"/") == before


def test_directory_moves_with_what_is_in_it_and_who_is_in_it(files: Files) -> None:
    other = files.sibling()
    other.ok("chdir", b"/dir/sub")
    assert move(files, b"/dir", b"/empty/moved/") == 0
    assert files.names(b"/empty/moved") == [b"inner", b"sub"]
    assert other.contents(b"../inner") == b"inner"
    buffer = other.program.buffer(64)
    assert other.program.read(buffer, other.ok("getcwd", buffer, 64)) == b"/empty/moved/sub\0"


def test_rename_to_another_name_of_the_same_file_does_nothing(files: Files) -> None:
    files.ok("link", b"/old", b"/same")
    assert move(files, b"/old", b"/same") == 0
    assert move(files, b"/old", b"/old") == 0
    assert files.stat(b"/old").st_nlink == 2


def test_replaced_file_lives_while_it_is_open(files: Files) -> None:
    files.fill(b"/new", b"newer")
    fd = files.opened(b"/old", O_RDWR)
    assert move(files, b"/new", b"/old") == 0
    assert files.read(fd, 100) == b"contents of old"
    assert files.fstat(fd).st_nlink == 0
    assert files.contents(b"/old") == b"newer"
    assert files.missing(b"/new") == -errno.ENOENT


def test_moved_file_is_still_what_was_opened(files: Files) -> None:
    fd = files.opened(b"/old", O_RDWR)
    assert move(files, b"/old", b"/dir/moved") == 0
    files.fill(b"/old", b"another")
    assert files.write(fd, b"C", 0) == 1
    assert files.contents(b"/dir/moved") == b"Contents of old"
    assert files.contents(b"/old") == b"another"


# --- links


def test_link_is_a_second_name(files: Files) -> None:
    files.ok("link", b"/old", b"/dir/second")
    assert files.is_same(b"/old", b"/dir/second")
    assert files.stat(b"/old").st_nlink == 2
    fd = files.opened(b"/dir/second", O_WRONLY)
    assert files.write(fd, b"C") == 1
    assert files.contents(b"/old") == b"Contents of old"
    files.ok("unlink", b"/old")
    assert files.contents(b"/dir/second") == b"Contents of old"
    assert files.stat(b"/dir/second").st_nlink == 1


NO_LINK = [
    (b"/none", b"/x", errno.ENOENT),
    (b"/dir", b"/x", errno.EPERM),
    (b"/old", b"/link", errno.EEXIST),
    (b"/old", b"/dir", errno.EEXIST),
    (b"/old", b"/none/x", errno.ENOENT),
    (b"/old", b"/new/", errno.ENOENT),
    (b"/old/x", b"/y", errno.ENOTDIR),
]


def test_link_that_cannot_be_says_why(files: Files) -> None:
    for old, new, error in NO_LINK:
        assert files.call("link", old, new) == -error, (old, new)


def test_link_to_a_link_is_to_itself_unless_followed(files: Files) -> None:
    files.ok("link", b"/link", b"/second")
    assert files.target(b"/second") == b"old"
    files.ok("linkat", AT_FDCWD, b"/link", AT_FDCWD, b"/third", AT_SYMLINK_FOLLOW)
    assert files.is_same(b"/third", b"/old")


def test_symbolic_link_says_where_it_leads(files: Files) -> None:
    text = b"../" * 40 + b"dir"
    files.ok("symlink", text, b"/dir/sub/up")
    assert files.target(b"/dir/sub/up") == text
    assert files.lstat(b"/dir/sub/up").st_size == len(text)
    assert files.names(b"/dir/sub/up/") == [b"inner", b"sub"]
    assert files.call("readlink", b"/old", files.place(bytes(8)), 8) == -errno.EINVAL
    assert files.call("readlink", b"/link", files.place(bytes(8)), 0) == -errno.EINVAL
    assert files.ok("readlink", b"/link", files.place(bytes(8)), 2) == 2
    assert files.call("symlink", b"", b"/x") == -errno.ENOENT
    assert files.call("symlink", b"x", b"/link") == -errno.EEXIST
    assert files.call("symlink", b"x" * 4096, b"/x") == -errno.ENAMETOOLONG


def test_chain_of_forty_links_is_followed_and_no_more(files: Files) -> None:
    files.ok("symlink", b"old", b"/l1")
    for number in range(2, 42):
        files.ok("symlink", b"l%d" % (number - 1), b"/l%d" % number)
    assert files.contents(b"/l40") == b"contents of old"
    assert files.missing(b"/l41") == -errno.ELOOP


# --- removal


def test_unlinked_file_lives_while_it_is_open(files: Files) -> None:
    fd = files.opened(b"/old", O_RDWR)
    files.ok("unlink", b"/old")
    assert files.missing(b"/old") == -errno.ENOENT
    assert files.missing(b"/link") == -errno.ENOENT
    assert files.write(fd, b" and new", 15) == 8
    assert files.read(fd, 100) == b"contents of old and new"
    files.ok("fchmod", fd, 0o600)
    found = files.fstat(fd)
    assert (found.st_nlink, found.st_size, found.st_mode) == (0, 23, 0o100600)
    files.fill(b"/old", b"again")
    assert files.contents(b"/link") == b"again"


NO_REMOVAL = [
    ("unlink", b"/none", errno.ENOENT),
    ("unlink", b"/dir", errno.EISDIR),
    ("unlink", b"/old/", errno.ENOTDIR),
    ("unlink", b"/dir/.", errno.EISDIR),
    ("unlink", b"/old/x", errno.ENOTDIR),
    ("rmdir", b"/none", errno.ENOENT),
    ("rmdir", b"/old", errno.ENOTDIR),
    ("rmdir", b"/link", errno.ENOTDIR),
    ("rmdir", b"/dir", errno.ENOTEMPTY),
    ("rmdir", b"/empty/.", errno.EINVAL),
    ("rmdir", b"/dir/sub/..", errno.ENOTEMPTY),
    ("rmdir", b"/", errno.EBUSY),
]


def test_removal_that_cannot_be_says_why(files: Files) -> None:
    before = files.names(b"/")
    for call, path, error in NO_REMOVAL:
        assert files.call(call, path) == -error, (call, path)
    assert files.names(b"/") == before


def test_removed_directory_takes_no_new_names(
    files: Files, request: pytest.FixtureRequest
) -> None:
    other = files.sibling()
    other.ok("chdir", b"/empty")
    files.ok("unlinkat", AT_FDCWD, b"/empty/", AT_REMOVEDIR)
    assert other.open(b"x", 0o101) == -errno.ENOENT
    assert other.call("mkdir", b"x", 0o755) == -errno.ENOENT
    assert other.call("getcwd", other.place(bytes(64)), 64) == -errno.ENOENT
    left = (2,) if "layers over gofer" in request.node.name else (0, 1)  # that of a lower layer
    assert other.stat(b".").st_nlink in left
    assert files.missing(b"/empty") == -errno.ENOENT
    files.ok("mkdir", b"/empty", 0o755)
    assert other.open(b"x", 0o101) == -errno.ENOENT


# --- directories and nodes


def test_directory_is_made_with_its_mode(files: Files) -> None:
    files.ok("mkdir", b"/new/", 0o777)
    assert files.stat(b"/new").st_mode == 0o040755
    assert files.names(b"/new") == []
    assert files.is_same(b"/new/..", b"/")
    for path, error in (
        (b"/new", errno.EEXIST), (b"/old", errno.EEXIST), (b"/link", errno.EEXIST),
        (b"/none/x", errno.ENOENT), (b"/old/x", errno.ENOTDIR), (b"/", errno.EEXIST),
        (b"/" + b"n" * 256, errno.ENAMETOOLONG),
    ):  # fmt: skip
        assert files.call("mkdir", path, 0o755) == -error, path


def test_fifo_and_socket_nodes(files: Files) -> None:
    files.ok("mknod", b"/fifo", 0o010640, 0)
    assert files.lstat(b"/fifo").st_mode == 0o010640
    assert files.call("mknod", b"/fifo", 0o010640, 0) == -errno.EEXIST
    reader = files.opened(b"/fifo", 0o4000)
    writer = files.opened(b"/fifo", O_WRONLY)
    assert files.write(writer, b"through") == 7
    assert files.read(reader, 10) == b"through"
    files.ok("unlink", b"/fifo")
    files.ok("mknod", b"/file", 0o100600, 0)
    assert files.stat(b"/file").st_mode == 0o100600
    assert files.call("mknod", b"/x", 0o040755, 0) == -errno.EPERM
    assert files.call("mknod", b"/x", 0o170000, 0) == -errno.EINVAL
