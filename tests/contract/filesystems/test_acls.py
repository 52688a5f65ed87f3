"""Access control lists: acl(5). What they say, what chmod(2) makes of them, what is inherited."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.fcntl import (
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    O_CREAT,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_WRONLY,
)
from sentry.abi.xattr import XATTR_CREATE
from tests.contract.filesystems.calls import Files

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
ALICE, BOB, CAROL, STAFF = 1000, 1001, 1002, 50
NOBODY = -1
TAGS = {"user": (1, 2), "group": (4, 8), "mask": (0x10, 0), "other": (0x20, 0)}
"""acl(5): those without and with a name."""


def acl(text: str) -> bytes:
    """As setfacl(1) writes it: "user::rwx user:1000:r-x …"."""
    value = struct.pack("<I", 2)
    for entry in text.split():
        kind, who, rights = entry.split(":")
        bits = sum(bit for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if letter in rights)
        value += struct.pack("<HHi", TAGS[kind][bool(who)], bits, int(who) if who else NOBODY)
    return value


def set_acl(files: Files, path: bytes, text: str, name: bytes = ACCESS, flags: int = 0) -> int:
    value = acl(text)
    return files.call("setxattr", path, name, files.place(value), len(value), flags)


def get(files: Files, path: bytes, name: bytes = ACCESS) -> bytes | int:
    """The value, or -errno."""
    buffer = files.program.buffer(4096)
    size = files.call("getxattr", path, name, buffer, 4096)
    return files.program.read(buffer, size) if size >= 0 else size


def listed(files: Files, path: bytes) -> list[bytes]:
    buffer = files.program.buffer(4096)
    raw = files.program.read(buffer, files.ok("listxattr", path, buffer, 4096))
    return sorted(name for name in raw.split(b"\0") if name.startswith(b"system."))


def mode(files: Files, path: bytes) -> int:
    return int(files.stat(path).st_mode & 0o7777)


def rights(files: Files, path: bytes) -> str:
    """What access(2) says."""
    return "".join(
        letter if files.call("access", path, bit) == 0 else "-"
        for bit, letter in ((4, "r"), (2, "w"), (1, "x"))
    )


HERS = "user::rw- user:1000:rwx group::r-- mask::rwx other::---"


def test_list_is_kept_and_its_mask_is_the_groups_bits(files: Files) -> None:
    assert get(files, b"/old") == -errno.ENODATA
    assert set_acl(files, b"/old", HERS) == 0
    assert mode(files, b"/old") == 0o670
    assert get(files, b"/old") == acl(HERS)
    assert listed(files, b"/old") == [ACCESS]
    buffer = files.program.buffer(64)
    assert files.call("getxattr", b"/old", ACCESS, 0, 0) == len(acl(HERS))
    assert files.call("getxattr", b"/old", ACCESS, buffer, 8) == -errno.ERANGE
    assert set_acl(files, b"/old", "user::rwx group::r-x mask::r-- other::--x") == 0
    assert mode(files, b"/old") == 0o741


def test_list_that_bits_can_say_is_not_kept(files: Files) -> None:
    assert set_acl(files, b"/old", HERS) == 0
    assert set_acl(files, b"/old", "user::rw- group::r-x other::--x") == 0
    assert mode(files, b"/old") == 0o651
    assert get(files, b"/old") == -errno.ENODATA
    assert listed(files, b"/old") == []


def test_removed_list_leaves_the_bits(files: Files) -> None:
    assert set_acl(files, b"/old", HERS) == 0
    files.ok("removexattr", b"/old", ACCESS)
    assert mode(files, b"/old") == 0o670
    assert get(files, b"/old") == -errno.ENODATA
    files.ok("removexattr", b"/old", ACCESS)
    assert set_acl(files, b"/old", HERS) == 0
    files.ok("setxattr", b"/old", ACCESS, 0, 0, 0)
    assert get(files, b"/old") == -errno.ENODATA


def test_flags_of_setxattr_say_nothing_about_lists(files: Files) -> None:
    assert set_acl(files, b"/old", HERS) == 0
    assert set_acl(files, b"/old", HERS, flags=XATTR_CREATE) == 0


def test_chmod_changes_the_mask(files: Files) -> None:
    assert set_acl(files, b"/old", HERS) == 0
    files.ok("chmod", b"/old", 0o641)
    assert mode(files, b"/old") == 0o641
    assert get(files, b"/old") == acl("user::rw- user:1000:rwx group::r-- mask::r-- other::--x")
    files.ok("fchmod", files.opened(b"/old", O_RDWR), 0o4777)
    assert get(files, b"/old") == acl("user::rwx user:1000:rwx group::r-- mask::rwx other::rwx")


def test_list_decides_who_may(files: Files) -> None:
    alice, bob, carol = (files.sibling(uid, uid) for uid in (ALICE, BOB, CAROL))
    staff = files.sibling(CAROL, STAFF)
    text = "user::rw- user:1000:rwx user:1001:--- group::r-- group:50:-w- mask::rw- other::r-x"
    assert set_acl(files, b"/old", text) == 0
    assert [rights(who, b"/old") for who in (alice, bob, carol, staff)] == [
        "rw-", "---", "r-x", "-w-",
    ]  # fmt: skip
    assert alice.open(b"/old", O_RDWR) >= 0
    assert bob.open(b"/old", O_RDONLY) == -errno.EACCES
    assert staff.open(b"/old", O_RDONLY) == -errno.EACCES
    assert staff.open(b"/old", O_WRONLY) >= 0
    files.ok("chmod", b"/old", 0o644)
    assert [rights(who, b"/old") for who in (alice, bob, staff)] == ["r--", "---", "---"]
    files.ok("chmod", b"/old", 0o604)
    assert rights(alice, b"/old") == "r--"


def test_owner_is_asked_of_the_owners_entry_alone(files: Files) -> None:
    files.ok("chown", b"/old", ALICE, ALICE)
    assert set_acl(files, b"/old", "user::r-- user:1000:rwx group::r-- mask::rwx other::---") == 0
    assert rights(files.sibling(ALICE, ALICE), b"/old") == "r--"


def test_directory_that_all_may_search_keeps_out_whom_its_list_names(files: Files) -> None:
    alice, bob = files.sibling(ALICE, ALICE), files.sibling(BOB, BOB)
    assert alice.contents(b"/dir/inner") == b"inner"
    assert set_acl(files, b"/dir", "user::rwx user:1000:--- group::r-x mask::r-x other::r-x") == 0
    assert mode(files, b"/dir") == 0o755
    assert alice.missing(b"/dir/inner") == -errno.EACCES
    assert alice.open(b"/dir/inner") == -errno.EACCES
    assert alice.call("unlink", b"/dir/inner") == -errno.EACCES
    assert alice.call("chdir", b"/dir") == -errno.EACCES
    assert bob.contents(b"/dir/inner") == b"inner"
    files.ok("removexattr", b"/dir", ACCESS)
    assert alice.contents(b"/dir/inner") == b"inner"


def test_directory_lets_in_whom_its_list_names(files: Files) -> None:
    alice, bob = files.sibling(ALICE, ALICE), files.sibling(BOB, BOB)
    files.ok("chmod", b"/dir", 0o700)
    assert set_acl(files, b"/dir", "user::rwx user:1000:rwx group::--- mask::rwx other::---") == 0
    alice.fill(b"/dir/hers", b"x")
    assert bob.missing(b"/dir/hers") == -errno.EACCES
    assert files.stat(b"/dir/hers").st_uid == ALICE


FOR_ALL = "user::rwx user:1000:rwx group::r-x mask::rwx other::r-x"


def test_what_is_made_inherits_and_no_umask_counts(files: Files) -> None:
    files.ok("umask", 0o077)
    assert set_acl(files, b"/dir", FOR_ALL, DEFAULT) == 0
    assert mode(files, b"/dir") == 0o755
    assert listed(files, b"/dir") == [DEFAULT]
    files.fill(b"/dir/file", mode=0o664)
    assert mode(files, b"/dir/file") == 0o664
    limited = "user::rw- user:1000:rwx group::r-x mask::rw- other::r--"
    assert get(files, b"/dir/file") == acl(limited)
    assert get(files, b"/dir/file", DEFAULT) == -errno.ENODATA
    files.ok("mkdir", b"/dir/new", 0o770)
    assert mode(files, b"/dir/new") == 0o770
    assert get(files, b"/dir/new") == acl("user::rwx user:1000:rwx group::r-x mask::rwx other::---")
    assert get(files, b"/dir/new", DEFAULT) == acl(FOR_ALL)
    files.ok("mknod", b"/dir/fifo", 0o010666, 0)
    assert mode(files, b"/dir/fifo") == 0o664
    files.ok("symlink", b"file", b"/dir/link")
    assert files.lstat(b"/dir/link").st_mode == 0o120777
    files.fill(b"/dir/new/deep", mode=0o600)
    assert mode(files, b"/dir/new/deep") == 0o600
    files.fill(b"/empty/other", mode=0o664)
    assert mode(files, b"/empty/other") == 0o600


def test_default_list_that_bits_can_say_takes_bits_away(files: Files) -> None:
    files.ok("umask", 0o022)
    assert set_acl(files, b"/dir", "user::rwx group::rwx other::---", DEFAULT) == 0
    files.fill(b"/dir/file", mode=0o666)
    assert mode(files, b"/dir/file") == 0o660
    assert get(files, b"/dir/file") == -errno.ENODATA
    files.ok("removexattr", b"/dir", DEFAULT)
    files.fill(b"/dir/later", mode=0o666)
    assert mode(files, b"/dir/later") == 0o644


def test_set_group_id_and_default_list_go_together(files: Files) -> None:
    files.ok("chown", b"/dir", 0, STAFF)
    files.ok("chmod", b"/dir", 0o2775)
    text = "user::rwx user:1000:rwx group::r-x mask::r-x other::---"
    assert set_acl(files, b"/dir", text, DEFAULT) == 0
    files.ok("mkdir", b"/dir/new", 0o777)
    found = files.stat(b"/dir/new")
    assert (found.st_mode & 0o7777, found.st_gid) == (0o2750, STAFF)
    assert get(files, b"/dir/new") == acl(text)


def test_file_without_a_name_inherits(files: Files) -> None:
    assert set_acl(files, b"/dir", FOR_ALL, DEFAULT) == 0
    fd = files.open(b"/dir", O_TMPFILE | O_RDWR, 0o666)
    if fd == -errno.EOPNOTSUPP:
        pytest.skip("no files without names")
    assert files.fstat(fd).st_mode & 0o7777 == 0o664


def test_default_list_of_the_root_is_inherited_too(files: Files) -> None:
    files.ok("umask", 0o077)
    files.fill(b"/before", mode=0o666)
    assert set_acl(files, b"/", FOR_ALL, DEFAULT) == 0
    for path, expected in ((b"/after", 0o664), (b"/empty/after", 0o600)):
        files.fill(path, mode=0o666)
        assert mode(files, path) == expected
    assert mode(files, b"/before") == 0o600


def test_what_is_no_list_is_refused(files: Files) -> None:
    assert set_acl(files, b"/old", "user::rwx group::r-x") == -errno.EINVAL
    assert set_acl(files, b"/old", "user::rw- user:5:r-- group::r-- other::---") == -errno.EINVAL
    for value, error in (
        (b"\2", errno.EINVAL),
        (struct.pack("<I", 3) + acl(HERS)[4:], errno.EOPNOTSUPP),
        (acl(HERS) + b"\0\0", errno.EINVAL),
    ):
        where = files.place(value)
        assert files.call("setxattr", b"/old", ACCESS, where, len(value), 0) == -error
    assert set_acl(files, b"/old", HERS, DEFAULT) == -errno.EACCES
    files.ok("removexattr", b"/old", DEFAULT)
    value = acl(HERS)
    where = files.place(value)
    found = files.call("lsetxattr", b"/link", ACCESS, where, len(value), 0)
    assert found == -errno.EOPNOTSUPP
    assert files.call("lgetxattr", b"/link", ACCESS, 0, 0) == -errno.EOPNOTSUPP
    assert get(files, b"/old") == -errno.ENODATA


def test_owner_alone_sets_and_all_may_read(files: Files) -> None:
    alice = files.sibling(ALICE, ALICE)
    assert set_acl(files, b"/old", "user::rw- user:5:r-- group::r-- mask::r-- other::---") == 0
    assert set_acl(alice, b"/old", HERS) == -errno.EPERM
    assert alice.call("removexattr", b"/old", ACCESS) == -errno.EPERM
    assert isinstance(get(alice, b"/old"), bytes)
    files.ok("chown", b"/old", ALICE, ALICE)
    assert set_acl(alice, b"/old", HERS) == 0
    assert get(files, b"/old") == acl(HERS)


def test_set_group_id_goes_with_a_list_of_who_is_not_in_the_group(files: Files) -> None:
    files.ok("chown", b"/old", ALICE, STAFF)
    files.ok("chmod", b"/old", 0o2755)
    assert set_acl(files.sibling(ALICE, ALICE), b"/old", HERS) == 0
    assert mode(files, b"/old") == 0o670


def test_list_goes_where_its_file_goes(files: Files) -> None:
    assert set_acl(files, b"/old", HERS) == 0
    files.ok("link", b"/old", b"/dir/linked")
    files.ok("rename", b"/old", b"/dir/moved")
    assert get(files, b"/dir/moved") == get(files, b"/dir/linked") == acl(HERS)
    files.ok("chown", b"/dir/moved", BOB, BOB)
    assert get(files, b"/dir/linked") == acl(HERS)
    fd = files.opened(b"/dir/moved", O_WRONLY | O_CREAT)
    assert files.write(fd, b"more") == 4
    assert get(files, b"/dir/moved") == acl(HERS)
    found = files.program.buffer(144)
    files.ok("newfstatat", AT_FDCWD, b"/dir/moved", found, AT_SYMLINK_NOFOLLOW)
    assert mode(files, b"/dir/moved") == 0o670
