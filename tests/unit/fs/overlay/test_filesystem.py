"""Which overlay inode stands for which lower one, and how long."""

from __future__ import annotations

import errno
import gc

import pytest

from sentry.abi.signal import SIGKILL
from sentry.fs.overlay.copyup import PIECE
from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.overlay.inode import OverlayInode
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.interface import Changes, Inode, Owner
from sentry.wait import steps
from tests.world import World

ROOT = Owner(0, 0)


def overlay(world: World) -> tuple[OverlayFs, Inode]:
    """An overlay over a tree with one file, and the file."""
    lower = TmpFs.make(world.vfs, "")
    return OverlayFs.over(world.vfs, lower), lower.root.create(b"file", 0o644, ROOT)


def inodes() -> int:
    return sum(isinstance(each, OverlayInode) for each in gc.get_objects())


def test_lower_inode_has_one_overlay_inode(world: World) -> None:
    fs, file = overlay(world)
    found = fs.root.lookup(b"file")
    assert isinstance(found, OverlayInode)
    assert fs.wrap(file) is found is fs.root.lookup(b"file")


def test_inode_that_nobody_uses_is_gone(world: World) -> None:
    fs, file = overlay(world)
    gc.collect()
    gc.disable()
    try:
        before = inodes()
        assert fs.wrap(file).lower is file
        assert inodes() == before
    finally:
        gc.enable()


def test_inode_that_differs_is_kept_until_its_last_name_goes(world: World) -> None:
    fs, _ = overlay(world)
    gc.collect()
    gc.disable()
    try:
        before = inodes()
        found = fs.root.lookup(b"file")
        assert isinstance(found, OverlayInode)
        found.setattr(Changes(mode=0o600))
        del found
        assert inodes() == before + 1
        assert fs.root.lookup(b"file").mode & 0o777 == 0o600  # type: ignore[union-attr]
        child = fs.root.lookup(b"file")
        assert isinstance(child, OverlayInode)
        fs.root.unlink(b"file", child)
        del child
        assert inodes() == before
    finally:
        gc.enable()


def test_what_is_removed_while_a_directory_is_walked_goes_one_by_one(world: World) -> None:
    fs, _ = overlay(world)
    for name in (b"1", b"2", b"3"):
        fs.root.create(name, 0o644, ROOT)
    gc.collect()
    gc.disable()
    try:
        before, walk = inodes(), fs.root.entries()
        assert next(walk).name == b"file"
        for name in (b"1", b"2"):
            child = fs.root.lookup(name)
            assert isinstance(child, OverlayInode)
            fs.root.unlink(name, child)
        del child
        assert inodes() == before - 2
        assert [entry.name for entry in walk] == [b"3"]
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ["done", "killed", "full"])
def test_others_run_while_a_large_file_is_copied_up(
    end: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, file = overlay(world)
    file.bytes().write(0, b"x" * 3 * PIECE)  # type: ignore[attr-defined]
    world.attach(fs, b"/o")
    user, other = world.program(), world.program()
    monkeypatch.setattr(steps, "STEP_NS", -1)
    copying = user.begin("chmod", b"/o/file", 0o600)
    assert not copying.done
    assert other.ok("access", b"/o/file", 0) == 0
    assert not copying.done
    if end == "killed":
        other.ok("kill", user.task.tid, SIGKILL)
    elif end == "full":
        fs.upper.max_pages = fs.upper.pages + 1
    world.settle()
    found, is_done = fs.root.lookup(b"file"), end == "done"
    assert isinstance(found, OverlayInode)
    assert (found.upper is not None, found.mode & 0o777) == (is_done, 0o600 if is_done else 0o644)
    assert fs.upper.pages == (3 * PIECE // 4096 if is_done else 0)
    if end != "killed":
        assert copying.result == (0 if is_done else -errno.ENOSPC)


def test_file_removed_while_it_is_copied_up_is_kept_by_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, file = overlay(world)
    file.bytes().write(0, b"x" * 3 * PIECE)  # type: ignore[attr-defined]
    world.attach(fs, b"/o")
    user, other = world.program(), world.program()
    fd = user.ok("open", b"/o/file", 0, 0)
    with monkeypatch.context() as patched:
        patched.setattr(steps, "STEP_NS", -1)
        copying = user.begin("fchmod", fd, 0o600)
        assert other.ok("unlink", b"/o/file") == 0
        assert not copying.done
        assert copying.wait() == 0
    user.ok("close", fd)
    assert fs.kept == [fs.root]
    assert fs.upper.pages == 0
