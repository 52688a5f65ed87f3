"""What a program can make in any number has a ceiling, and what it gives back counts no more."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from sentry.abi.fcntl import F_SETLK, F_WRLCK, FLOCK, O_CREAT, O_RDWR
from sentry.vfs import budget


def test_files_without_a_name(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_FILES", task.world.vfs.budget.files + 2)
    task.ok("pipe", task.buffer(8))
    fd = task.ok("eventfd", 0)
    assert task.call("epoll_create1", 0) == -errno.ENFILE
    task.ok("close", fd)
    task.ok("epoll_create1", 0)


def test_inodes_in_memory(task: Any) -> None:
    counts = task.world.vfs.budget
    counts.max_inodes = counts.inodes + 1
    task.ok("mkdir", b"/a", 0o755)
    assert task.call("mkdir", b"/b", 0o755) == -errno.ENOSPC
    task.ok("rmdir", b"/a")
    task.ok("mkdir", b"/b", 0o755)


def test_extended_attributes_and_links(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SMALL_BYTES", 100)
    task.ok("mkdir", b"/a", 0o755)
    value = task.place(bytes(80))
    task.ok("setxattr", b"/a", b"user.x", value, 80, 0)
    assert task.call("setxattr", b"/a", b"user.y", value, 80, 0) == -errno.ENOSPC
    task.ok("removexattr", b"/a", b"user.x")
    task.ok("symlink", b"t" * 100, b"/l")
    assert task.call("symlink", b"t", b"/k") == -errno.ENOSPC
    task.ok("unlink", b"/l")
    assert task.world.vfs.budget.small_bytes == 0


def test_record_locks(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_LOCKS", 2)
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)

    def lock(start: int) -> int:
        where = task.place(FLOCK.pack(F_WRLCK, 0, start, 1, 0))
        return int(task.call("fcntl", fd, F_SETLK, where))

    assert (lock(0), lock(2), lock(4), lock(1)) == (0, 0, -errno.ENOLCK, 0)
    task.ok("close", fd)
    assert task.world.vfs.budget.locks == 0


def test_mounts_of_all_namespaces(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_MOUNTS", task.task.mounts.budget.mounts + 1)
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    assert task.call("mount", b"x", b"/m", b"tmpfs", 0, 0) == -errno.ENOSPC
    task.ok("umount2", b"/m", 0)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)


def test_descriptors_whose_close_hangs_count_beyond_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_CLOSING", 2)
    counts = budget.Budget()
    counts.max_host_descriptors = 3
    counts.closing = 2
    assert counts.host_room == 3
    counts.closing = 5
    with pytest.raises(budget.ENFILE):
        counts.check_host_descriptor()
