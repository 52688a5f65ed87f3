"""What a user without rights may do."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import AT_FDCWD, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY
from tests.contract.filesystems.calls import Files

ALICE, BOB = 1000, 1001
R, W, X = 4, 2, 1


@pytest.fixture
def alice(files: Files) -> Files:
    """She owns /hers and /hers/file."""
    files.ok("mkdir", b"/hers", 0o755)
    files.fill(b"/hers/file", b"hers")
    for path in (b"/hers", b"/hers/file"):
        files.ok("chown", path, ALICE, ALICE)
    return files.sibling(ALICE, ALICE)


@pytest.fixture
def bob(files: Files) -> Files:
    """A stranger."""
    return files.sibling(BOB, BOB)


@pytest.mark.parametrize(
    ("mode", "who", "rights"),
    [
        (0o400, "alice", R), (0o200, "alice", W), (0o077, "alice", 0), (0o604, "bob", R),
        (0o772, "bob", W), (0o770, "bob", 0), (0o706, "group", 0), (0o060, "group", R | W),
    ],
)  # fmt: skip
def test_mode_decides_by_the_first_class_that_fits(
    files: Files, alice: Files, mode: int, who: str, rights: int
) -> None:
    files.ok("chmod", b"/hers/file", mode)
    user = {
        "alice": lambda: alice,
        "bob": lambda: files.sibling(BOB, BOB),
        "group": lambda: files.sibling(BOB, ALICE),
    }[who]()
    for flags, needed in ((O_RDONLY, R), (O_WRONLY, W), (O_RDWR, R | W)):
        expected = 0 if rights & needed == needed else -errno.EACCES
        assert min(0, user.open(b"/hers/file", flags)) == expected
    for wanted in (R, W):
        expected = 0 if rights & wanted else -errno.EACCES
        assert user.call("access", b"/hers/file", wanted) == expected


def test_directory_needs_writing_to_change_and_searching_to_pass(
    files: Files, alice: Files, bob: Files
) -> None:
    assert bob.open(b"/hers/new", O_CREAT | O_WRONLY) == -errno.EACCES
    assert bob.call("unlink", b"/hers/file") == -errno.EACCES
    assert bob.call("rename", b"/hers/file", b"/hers/x") == -errno.EACCES
    assert bob.call("mkdir", b"/hers/d", 0o755) == -errno.EACCES
    assert bob.contents(b"/hers/file") == b"hers"
    alice.ok("chmod", b"/hers", 0o744)
    assert bob.names(b"/hers") == [b"file"]
    assert bob.missing(b"/hers/file") == -errno.EACCES
    assert bob.missing(b"/hers/none") == -errno.EACCES
    alice.ok("chmod", b"/hers", 0o711)
    assert bob.open(b"/hers") == -errno.EACCES
    assert bob.contents(b"/hers/file") == b"hers"
    alice.ok("chmod", b"/hers", 0)
    assert alice.missing(b"/hers/file") == -errno.EACCES
    assert files.contents(b"/hers/file") == b"hers"


def test_owner_alone_changes_attributes(files: Files, alice: Files, bob: Files) -> None:
    assert bob.call("chmod", b"/hers/file", 0o777) == -errno.EPERM
    assert bob.call("chown", b"/hers/file", BOB, BOB) == -errno.EPERM
    assert bob.call("utimensat", AT_FDCWD, b"/hers/file", 0, 0) == -errno.EACCES
    times = bob.place(bytes(32))
    assert bob.call("utimensat", AT_FDCWD, b"/hers/file", times, 0) == -errno.EPERM
    alice.ok("chmod", b"/hers/file", 0o666)
    bob.ok("utimensat", AT_FDCWD, b"/hers/file", 0, 0)
    assert bob.call("utimensat", AT_FDCWD, b"/hers/file", times, 0) == -errno.EPERM
    assert alice.call("chown", b"/hers/file", BOB, ALICE) == -errno.EPERM
    alice.ok("chown", b"/hers/file", ALICE, ALICE)


def test_sticky_directory_keeps_what_is_others(files: Files, alice: Files, bob: Files) -> None:
    files.ok("chmod", b"/empty", 0o1777)
    alice.fill(b"/empty/f", b"x")
    alice.ok("chmod", b"/empty/f", 0o666)
    alice.ok("mkdir", b"/empty/d", 0o777)
    bob.fill(b"/empty/his")
    assert bob.call("unlink", b"/empty/f") == -errno.EPERM
    assert bob.call("rmdir", b"/empty/d") == -errno.EPERM
    assert bob.call("rename", b"/empty/f", b"/empty/g") == -errno.EPERM
    assert bob.call("rename", b"/empty/his", b"/empty/f") == -errno.EPERM
    assert bob.write(bob.opened(b"/empty/f", O_WRONLY), b"y") == 1
    alice.ok("rename", b"/empty/f", b"/empty/g")
    files.ok("unlink", b"/empty/g")
    bob.ok("unlink", b"/empty/his")


def test_what_a_user_makes_is_the_users(files: Files, alice: Files) -> None:
    alice.ok("mkdir", b"/hers/d", 0o700)
    alice.fill(b"/hers/d/f")
    alice.ok("symlink", b"f", b"/hers/d/l")
    for path in (b"/hers/d", b"/hers/d/f", b"/hers/d/l"):
        found = files.lstat(path)
        assert (found.st_uid, found.st_gid) == (ALICE, ALICE)


def test_truncation_and_creation_ask_for_writing(files: Files, bob: Files) -> None:
    assert bob.call("truncate", b"/old", 0) == -errno.EACCES
    assert bob.open(b"/old", O_RDONLY | O_TRUNC) == -errno.EACCES
    assert bob.open(b"/old", O_CREAT | O_RDONLY) >= 0
    assert bob.open(b"/old", O_CREAT | O_EXCL | O_RDONLY) == -errno.EEXIST
    assert bob.open(b"/new", O_CREAT | O_RDONLY) == -errno.EACCES
    assert bob.call("mkdir", b"/dir", 0o755) == -errno.EEXIST
    assert bob.call("link", b"/none", b"/x") == -errno.ENOENT
    assert files.contents(b"/old") == b"contents of old"


def test_device_nodes_need_the_capability(files: Files, alice: Files) -> None:
    assert alice.call("mknod", b"/hers/null", 0o020666, 0x103) == -errno.EPERM
    alice.ok("mknod", b"/hers/fifo", 0o010600, 0)
    assert files.stat(b"/hers/fifo").st_uid == ALICE


def test_access_uses_the_real_ids(files: Files, alice: Files) -> None:
    files.ok("chmod", b"/old", 0o600)
    assert alice.call("access", b"/old", R) == -errno.EACCES
    assert alice.call("access", b"/old", 0) == 0
    assert alice.call("access", b"/old", 8) == -errno.EINVAL
    assert files.call("access", b"/old", R | W) == 0
    assert files.call("access", b"/old", X) == -errno.EACCES
    files.ok("chmod", b"/old", 0o001)
    assert files.call("access", b"/old", X) == 0
