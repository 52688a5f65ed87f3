"""Path walk, as a program sees it."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from sentry.abi.fcntl import (
    AT_FDCWD,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TRUNC,
    O_WRONLY,
    OPEN_HOW,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from sentry.abi.mount import MS_BIND
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.wait.again import settled
from sentry.wait.fiber import Mode, park
from tests.world import Program


def touch(task: Any, path: bytes, mode: int = 0o644) -> None:
    task.ok("close", task.ok("open", path, O_CREAT | O_WRONLY, mode))


def ino(task: Any, path: bytes) -> int:
    buf = task.buffer(144)
    task.ok("stat", path, buf)
    return int.from_bytes(task.read(buf + 8, 8), "little")


@pytest.fixture
def tree(task: Any) -> Any:
    task.ok("mkdir", b"/a", 0o755)
    task.ok("mkdir", b"/a/b", 0o755)
    touch(task, b"/a/b/file")
    task.ok("symlink", b"b", b"/a/link")
    task.ok("symlink", b"/a/b/file", b"/abs")
    task.ok("symlink", b"loop", b"/loop")
    return task


def test_names_of_the_same_file_agree(tree: Any) -> None:
    wanted = ino(tree, b"/a/b/file")
    for path in (b"/a//b/./file", b"/a/b/../b/file", b"/a/link/file", b"/abs", b"/../../a/b/file"):
        assert ino(tree, path) == wanted


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"", errno.ENOENT),
        (b"/nothing", errno.ENOENT),
        (b"/a/b/file/", errno.ENOTDIR),
        (b"/a/b/file/x", errno.ENOTDIR),
        (b"/abs/", errno.ENOTDIR),
        (b"/loop", errno.ELOOP),
        (b"/loop/x", errno.ELOOP),
        (b"/" + b"n" * 256, errno.ENAMETOOLONG),
        (b"/a/" * 1400, errno.ENAMETOOLONG),
    ],
)
def test_stat_of_a_bad_path_says_why(tree: Any, path: bytes, error: int) -> None:
    assert tree.call("stat", path, tree.buffer(144)) == -error


def test_chain_of_links_is_followed_40_times(task: Any) -> None:
    touch(task, b"/end")
    task.ok("symlink", b"end", b"/l1")
    for n in range(2, 42):
        task.ok("symlink", b"l%d" % (n - 1), b"/l%d" % n)
    task.ok("stat", b"/l40", task.buffer(144))
    assert task.call("stat", b"/l41", task.buffer(144)) == -errno.ELOOP


def test_open_with_nofollow_refuses_a_link(tree: Any) -> None:
    assert tree.call("open", b"/abs", O_NOFOLLOW, 0) == -errno.ELOOP
    assert tree.call("open", b"/abs", O_NOFOLLOW | O_DIRECTORY, 0) == -errno.ENOTDIR
    tree.ok("open", b"/abs", O_NOFOLLOW | O_PATH, 0)


def test_create_follows_a_dangling_link_unless_exclusive(task: Any) -> None:
    task.ok("symlink", b"target", b"/dangling")
    assert task.call("open", b"/dangling", O_CREAT | O_EXCL | O_WRONLY, 0o600) == -errno.EEXIST
    touch(task, b"/dangling")
    assert ino(task, b"/dangling") == ino(task, b"/target")


def test_dirfd_is_the_start_of_a_relative_path(tree: Any) -> None:
    fd = tree.ok("open", b"/a", O_RDONLY | O_DIRECTORY, 0)
    tree.ok("openat", fd, b"b/file", O_RDWR, 0)
    file = tree.ok("open", b"/abs", O_RDONLY, 0)
    assert tree.call("openat", file, b"x", O_RDONLY, 0) == -errno.ENOTDIR
    assert tree.call("openat", 77, b"x", O_RDONLY, 0) == -errno.EBADF
    tree.ok("openat", 77, b"/abs", O_RDONLY, 0)


def openat2(task: Any, fd: int, path: bytes, resolve: int, flags: int = O_PATH) -> int:
    mode = 0o644 if flags & O_CREAT else 0
    how = task.place(OPEN_HOW.pack(flags, mode, resolve))
    return int(task.call("openat2", fd, path, how, OPEN_HOW.size))


def test_openat2_keeps_inside(tree: Any) -> None:
    fd = tree.ok("open", b"/a", O_PATH, 0)
    assert openat2(tree, fd, b"b/file", RESOLVE_BENEATH) >= 0
    assert openat2(tree, fd, b"b/../b/file", RESOLVE_BENEATH) >= 0
    assert openat2(tree, fd, b"../a/b", RESOLVE_BENEATH) == -errno.EXDEV
    assert openat2(tree, fd, b"/a", RESOLVE_BENEATH) == -errno.EXDEV
    assert openat2(tree, fd, b"/b/file", RESOLVE_IN_ROOT) >= 0
    assert openat2(tree, fd, b"../../b/file", RESOLVE_IN_ROOT) >= 0
    assert openat2(tree, fd, b"link/file", RESOLVE_NO_SYMLINKS) == -errno.ELOOP


def test_dotdot_leaves_a_mount_at_its_root(tree: Any) -> None:
    tree.world.attach(TmpFs.make(tree.world.vfs), b"/a/b")
    touch(tree, b"/a/b/inside")
    assert tree.call("stat", b"/a/b/file", tree.buffer(144)) == -errno.ENOENT
    assert ino(tree, b"/a/b/..") == ino(tree, b"/a")
    fd = tree.ok("open", b"/a", O_PATH, 0)
    assert openat2(tree, fd, b"b/inside", RESOLVE_NO_XDEV) == -errno.EXDEV
    assert tree.call("rmdir", b"/a/b") == -errno.EBUSY


@pytest.mark.parametrize("flags", [O_PATH, O_CREAT | O_RDWR])
def test_openat2_stays_on_its_mount(tree: Any, flags: int) -> None:
    tree.ok("mkdir", b"/m", 0o755)
    touch(tree, b"/a/b/place")
    tree.world.attach(TmpFs.make(tree.world.vfs), b"/m")
    touch(tree, b"/m/inside")
    tree.ok("symlink", b"/a/b/file", b"/m/out")
    tree.ok("symlink", b"/m/inside", b"/m/here")
    tree.ok("mount", b"/m/inside", b"/a/b/place", 0, MS_BIND, 0)
    fd, other = tree.ok("open", b"/m", O_PATH, 0), tree.ok("open", b"/a/b", O_PATH, 0)
    for start, path in ((fd, b"out"), (fd, b"here"), (other, b"place")):
        assert openat2(tree, start, path, 0, flags) >= 0
        assert openat2(tree, start, path, RESOLVE_NO_XDEV, flags) == -errno.EXDEV
    assert openat2(tree, fd, b"inside", RESOLVE_NO_XDEV, flags) >= 0
    assert openat2(tree, fd, b"/abs", RESOLVE_NO_XDEV, flags) >= 0


def test_search_permission_is_needed_on_every_directory(tree: Any) -> None:
    user = tree.sibling(1000, 1000)
    user.ok("stat", b"/a/b/file", user.buffer(144))
    tree.ok("chmod", b"/a", 0o700)
    assert user.call("stat", b"/a/b/file", user.buffer(144)) == -errno.EACCES
    tree.ok("chown", b"/a", 1000, 1000)
    user.ok("stat", b"/a/b/file", user.buffer(144))


def test_links_of_others_in_a_sticky_directory_are_not_followed(task: Any) -> None:
    task.ok("mkdir", b"/tmp", 0o777)
    task.ok("chmod", b"/tmp", 0o1777)
    touch(task, b"/secret")
    user = task.sibling(1000, 1000)
    user.ok("symlink", b"/secret", b"/tmp/trap")
    assert task.call("open", b"/tmp/trap", O_RDONLY, 0) == -errno.EACCES
    user.ok("open", b"/tmp/trap", O_RDONLY, 0)


def test_getcwd_follows_renames_and_ends_with_removal(tree: Any) -> None:
    buf = tree.buffer(100)
    tree.ok("chdir", b"/a/b")
    tree.ok("rename", b"/a", b"/new")
    length = tree.ok("getcwd", buf, 100)
    assert tree.read(buf, length) == b"/new/b\0"
    assert tree.call("getcwd", buf, 6) == -errno.ERANGE
    tree.ok("unlink", b"/new/b/file")
    tree.ok("rmdir", b"/new/b")
    assert tree.call("getcwd", buf, 100) == -errno.ENOENT
    assert tree.call("open", b"x", O_CREAT | O_WRONLY, 0o644) == -errno.ENOENT


def test_getcwd_of_a_place_whose_path_is_too_long(task: Any) -> None:
    buf, name = task.buffer(8192), b"n" * 204
    for _ in range(19):
        task.ok("mkdir", name, 0o755)
        task.ok("chdir", name)
    task.ok("mkdir", b"n" * 199, 0o755)
    task.ok("mkdir", name, 0o755)
    task.ok("chdir", b"n" * 199)
    assert task.ok("getcwd", buf, 8192) == 4096
    task.ok("chdir", b"../" + name)
    for size in (8192, 100):
        assert task.call("getcwd", buf, size) == -errno.ENAMETOOLONG


def test_chroot_is_the_top(tree: Any) -> None:
    tree.ok("chroot", b"/a")
    tree.ok("chdir", b"/")
    assert ino(tree, b"/..") == ino(tree, b"/")
    tree.ok("stat", b"/b/file", tree.buffer(144))
    user = tree.sibling(1, 1)
    assert user.call("chroot", b"/") == -errno.EPERM


@pytest.mark.parametrize(
    "call",
    [
        ("chmod", b"/found", 0o600),
        ("chown", b"/found", 1000, 1000),
        ("utimensat", AT_FDCWD, b"/found", 0, 0),
        ("truncate", b"/found", 1),
        ("open", b"/found", O_WRONLY | O_TRUNC, 0),
    ],
    ids=lambda call: str(call[0]),
)
def test_change_that_waits_is_of_the_file_that_was_found(
    task: Program, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    for name in (b"/found", b"/another"):
        fd = task.ok("open", name, O_CREAT | O_RDWR, 0o644)
        task.ok("write", fd, task.place(b"bytes"), 5)
    inode, other = task.task.files.get(fd).inode, task.sibling()
    kind = type(inode)
    setattr_now = kind.setattr

    async def answered() -> None:
        await park(Mode.KILLABLE, 0)

    def slow(self: Any, changes: Any) -> None:
        settled((self, "slow"), answered)
        setattr_now(self, changes)

    before = inode.stat()
    monkeypatch.setattr(kind, "setattr", slow)
    waiting = task.begin(*call)
    assert not waiting.done
    other.ok("rename", b"/another", b"/found")
    assert waiting.wait() >= 0
    after = inode.stat()
    same = "mode", "uid", "size", "mtime_ns"
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
