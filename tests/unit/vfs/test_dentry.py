"""Names in memory: what a directory knows of them, and for how long."""

from __future__ import annotations

from typing import Any

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.vfs.dentry import Dentry, DentryCache
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode, Owner


def inode() -> Inode:
    return Inode(FileSystem(1, lambda: 0), 1, 0o100644, Owner(0, 0))


def test_child_that_nobody_holds_leaves_no_trace() -> None:
    cache, root = DentryCache(2), Dentry(None, b"/", inode())
    file = inode()
    held = root.child(b"held", file, cache)
    for number in range(5):
        root.child(b"%d" % number, file, cache)
    assert root.known_child(b"held") is held
    assert root.children is not None
    assert set(root.children) == {b"held", b"3", b"4"}
    cache.forget()
    assert set(root.children) == {b"held"}


def test_child_that_was_replaced_leaves_its_heir_alone() -> None:
    cache, root = DentryCache(2), Dentry(None, b"/", inode())
    first = root.child(b"name", inode(), cache)
    second = root.child(b"name", inode(), cache)
    cache.forget()
    assert first.unlinked
    del first
    assert root.known_child(b"name") is second


def test_names_of_processes_that_have_ended_are_forgotten(task: Any) -> None:
    task.ok("mkdir", b"/proc", 0o755)
    task.ok("mount", b"proc", b"/proc", b"proc", 0, 0)
    for _ in range(3):
        child = task.fork()
        task.ok("access", b"/proc/%d/status" % child.task.tid, 0)
        child.begin("exit_group", 0)
        task.world.settle()
        task.ok("wait4", -1, 0, 0, 0)
    mount = next(m for m in task.task.mounts if m.fs.name == "proc")
    assert not mount.root.children


def test_moved_name_is_known_where_it_is(task: Any) -> None:
    task.ok("mkdir", b"/d", 0o755)
    task.ok("close", task.ok("open", b"/a", O_CREAT | O_WRONLY, 0o644))
    task.ok("rename", b"/a", b"/d/b")
    root = task.task.mounts.root.root
    assert root.known_child(b"a") is None
    assert root.known_child(b"d").known_child(b"b").inode.is_regular
    task.task.kernel.vfs.dentries.forget()
    assert not root.children
