"""Directories that are read while they change."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import O_DIRECTORY, SEEK_CUR, SEEK_SET
from tests.contract.filesystems.calls import Files

DT_FIFO, DT_DIR, DT_REG, DT_LNK = 1, 4, 8, 10
MANY = 300


@pytest.fixture
def crowd(files: Files) -> list[bytes]:
    """Names of many files in /dir."""
    names = [b"f%03d" % number for number in range(MANY)]
    for name in names:
        files.fill(b"/dir/" + name)
    return names


def test_entries_have_their_types(files: Files) -> None:
    files.ok("mknod", b"/fifo", 0o010600, 0)
    fd = files.opened(b"/", O_DIRECTORY)
    found = dict(files.entries(fd))
    assert found == {
        b".": DT_DIR, b"..": DT_DIR, b"dir": DT_DIR, b"empty": DT_DIR, b"old": DT_REG,
        b"link": DT_LNK, b"fifo": DT_FIFO,
    }  # fmt: skip
    assert files.entries(fd) == []


def test_every_name_comes_once_however_small_the_pieces(files: Files, crowd: list[bytes]) -> None:
    fd = files.opened(b"/dir", O_DIRECTORY)
    found = files.rest(fd, 200)
    assert sorted(found) == sorted([*crowd, b".", b"..", b"inner", b"sub"])
    files.ok("lseek", fd, 0, SEEK_SET)
    assert sorted(files.rest(fd)) == sorted(found)


def test_removing_what_was_read_leaves_the_rest(files: Files, crowd: list[bytes]) -> None:
    fd, removed = files.opened(b"/dir", O_DIRECTORY), []
    while part := files.entries(fd, 512):
        for name, _ in part:
            if name in crowd:
                files.ok("unlink", b"/dir/" + name)
                removed.append(name)
    assert sorted(removed) == crowd
    assert files.names(b"/dir") == [b"inner", b"sub"]


def test_what_stays_is_read_whatever_comes_and_goes(files: Files, crowd: list[bytes]) -> None:
    fd, found, turn = files.opened(b"/dir", O_DIRECTORY), [], 0
    stays = crowd[::2]
    goes = crowd[1::2]
    while part := files.entries(fd, 512):
        found += [name for name, _ in part]
        if turn < len(goes):
            files.ok("unlink", b"/dir/" + goes[turn])
            files.fill(b"/dir/g%03d" % turn)
        turn += 1
        assert turn < 2 * MANY
    assert set(stays) <= set(found)
    assert all(found.count(name) == 1 for name in stays)


def test_position_can_be_kept_and_gone_back_to(files: Files, crowd: list[bytes]) -> None:
    fd = files.opened(b"/dir", O_DIRECTORY)
    files.entries(fd, 512)
    place = files.ok("lseek", fd, 0, SEEK_CUR)
    after = files.rest(fd)
    assert files.ok("lseek", fd, place, SEEK_SET) == place
    assert files.rest(fd) == after


def test_new_file_is_in_a_listing_that_begins_later(files: Files) -> None:
    fd = files.opened(b"/empty", O_DIRECTORY)
    assert sorted(files.rest(fd)) == [b".", b".."]
    files.fill(b"/empty/new")
    files.ok("lseek", fd, 0, SEEK_SET)
    assert sorted(files.rest(fd)) == [b".", b"..", b"new"]


def test_room_for_no_entry_is_refused(files: Files) -> None:
    fd = files.opened(b"/", O_DIRECTORY)
    assert files.call("getdents64", fd, files.place(bytes(16)), 16) == -errno.EINVAL
    assert files.call("getdents64", files.opened(b"/old"), 0, 100) == -errno.ENOTDIR
    assert files.call("getdents64", fd, 8, 4096) == -errno.EFAULT
    assert len(files.rest(fd)) == 6


def test_removed_directory_is_not_listed(files: Files) -> None:
    fd = files.opened(b"/empty", O_DIRECTORY)
    files.ok("rmdir", b"/empty")
    assert files.call("getdents64", fd, files.place(bytes(100)), 100) == -errno.ENOENT
