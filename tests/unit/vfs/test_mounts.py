"""Mounts through system calls."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest

from sentry.abi.fcntl import AT_FDCWD, O_CREAT, O_RDONLY, O_RDWR, O_TMPFILE, O_WRONLY
from sentry.abi.mount import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_CMD_RECONFIGURE,
    FSCONFIG_SET_FLAG,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
)
from sentry.abi.sched import CLONE_NEWCGROUP, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from sentry.abi.stat import S_IFIFO
from sentry.auth.userns import Extent, IdMap
from sentry.errors import ENOSPC
from sentry.vfs.mount_copies import copy_namespace
from sentry.vfs.mounts import HeldMounts
from sentry.vfs.paths import path_of

MNT_FORCE, MNT_DETACH = 1, 2


def touch(task: Any, path: bytes) -> None:
    task.ok("close", task.ok("open", path, O_CREAT | O_WRONLY, 0o644))


def become_root(user: Any) -> None:
    """What `unshare -r` writes to /proc/self/uid_map and gid_map."""
    namespace = user.task.creds.user_ns
    namespace.uid_map = namespace.gid_map = IdMap([Extent(0, 1000, 1)])


def test_read_only_bind_refuses_writes_where_the_original_does_not(task: Any) -> None:
    task.ok("mkdir", b"/a", 0o755)
    task.ok("mkdir", b"/b", 0o755)
    touch(task, b"/a/f")
    task.ok("mount", b"/a", b"/b", 0, MS_BIND, 0)
    task.ok("mount", 0, b"/b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)
    assert task.call("open", b"/b/f", O_RDWR, 0) == -errno.EROFS
    assert task.call("unlink", b"/b/f") == -errno.EROFS
    assert task.call("access", b"/b/f", 2) == -errno.EROFS
    task.ok("open", b"/b/f", O_RDONLY, 0)
    task.ok("open", b"/a/f", O_RDWR, 0)


def test_remount_read_only_while_written_is_busy(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    fd = task.ok("open", b"/m/f", O_CREAT | O_WRONLY, 0o644)
    assert task.call("mount", 0, b"/m", 0, MS_REMOUNT | MS_RDONLY, 0) == -errno.EBUSY
    task.ok("close", fd)
    task.ok("mount", 0, b"/m", 0, MS_REMOUNT | MS_RDONLY, 0)
    assert task.call("open", b"/m/f", O_WRONLY, 0) == -errno.EROFS


def test_lazy_umount_leaves_open_files_alone(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, b"size=1m")
    fd = task.ok("open", b"/m/f", O_CREAT | O_WRONLY, 0o644)
    assert task.call("umount2", b"/m", 0) == -errno.EBUSY
    task.ok("umount2", b"/m", MNT_DETACH)
    task.ok("write", fd, task.place(b"x"), 1)
    assert task.call("access", b"/m/f", 0) == -errno.ENOENT
    task.ok("close", fd)


def filled(task: Any, files: int) -> int:
    """Inodes of the sandbox before files were made on a tmpfs on /m, one in the other."""
    task.ok("mkdir", b"/m", 0o755)
    before: int = task.world.kernel.vfs.budget.inodes
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    task.ok("mkdir", b"/m/d", 0o755)
    for number in range(files):
        touch(task, b"/m/d/%d" % number)
    assert task.world.kernel.vfs.budget.inodes >= before + files
    return before


def test_what_is_on_a_tmpfs_goes_with_its_mount(task: Any) -> None:
    before = filled(task, 40)

    task.ok("umount2", b"/m", 0)
    task.world.settle()

    assert task.world.kernel.vfs.budget.inodes == before


def test_deep_tree_of_a_tmpfs_goes_step_by_step(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = 2000
    before = filled(task, 1)
    task.ok("chdir", b"/m")
    for _ in range(levels):
        touch(task, b"f")
        task.ok("mkdir", b"d1", 0o755)
        task.ok("chdir", b"d1")
    task.ok("chdir", b"/")
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    vfs = task.world.kernel.vfs

    task.ok("umount2", b"/m", 0)
    seen = [vfs.budget.inodes]
    while vfs.budget.inodes != before:
        task.world.loop.turn()
        seen.append(vfs.budget.inodes)

    assert max(earlier - later for earlier, later in itertools.pairwise(seen)) < 10


def test_open_file_of_a_tmpfs_outlives_its_mount_and_the_rest_does_not(task: Any) -> None:
    before = filled(task, 40)
    fd = task.ok("open", b"/m/d/7", O_RDWR, 0)

    task.ok("umount2", b"/m", MNT_DETACH)
    assert task.ok("lseek", fd, 3, 0) == 3
    task.ok("close", fd)
    task.world.settle()

    assert task.world.kernel.vfs.budget.inodes == before


def test_mounting_needs_the_capability(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o777)
    user = task.sibling(1000, 1000)
    assert user.call("mount", b"x", b"/m", b"tmpfs", 0, 0) == -errno.EPERM
    assert user.call("umount2", b"/", 0) == -errno.EPERM


def test_user_namespace_changes_no_file_system_of_others(task: Any) -> None:
    for path in (b"/m", b"/own"):
        task.ok("mkdir", path, 0o777)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, b"size=1m")
    user = task.sibling(1000, 1000)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    for flags, options in ((MS_RDONLY, 0), (0, b"size=2m")):
        assert user.call("mount", 0, b"/m", 0, MS_REMOUNT | flags, options) == -errno.EPERM
    assert user.call("umount2", b"/", 0) == -errno.EPERM
    fd = user.ok("fspick", AT_FDCWD, b"/m", 0)
    user.ok("fsconfig", fd, FSCONFIG_SET_FLAG, b"ro", 0, 0)
    assert user.call("fsconfig", fd, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0) == -errno.EPERM
    touch(task, b"/m/f")
    user.ok("mount", 0, b"/m", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)
    user.ok("mount", b"x", b"/own", b"tmpfs", 0, 0)
    user.ok("mount", 0, b"/own", 0, MS_REMOUNT | MS_RDONLY, 0)


def test_user_namespace_has_its_rights_over_file_systems_of_its_own(task: Any) -> None:
    for path in (b"/m", b"/own"):
        task.ok("mkdir", path, 0o755)
    task.ok("chown", b"/m", 1000, 1000)
    user = task.sibling(1000, 1000)
    user.ok("mkdir", b"/m/mine", 0o777)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    become_root(user)
    user.ok("mount", b"x", b"/own", b"tmpfs", 0, 0)
    user.ok("mkdir", b"/own/d", 0o777)
    label = b"security.label", b"v", 1, 0
    assert user.call("setxattr", b"/m/mine", *label) == -errno.EPERM
    user.ok("setxattr", b"/own/d", *label)
    user.ok("umount2", b"/own", MNT_FORCE)


def test_user_that_a_file_system_does_not_know_makes_nothing_there(task: Any) -> None:
    task.ok("mkdir", b"/own", 0o777)
    user = task.sibling(1000, 1000)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    user.ok("mount", b"x", b"/own", b"tmpfs", 0, 0)
    for call in (
        ("mkdir", b"/own/d", 0o755),
        ("open", b"/own/f", O_CREAT | O_WRONLY, 0o644),
        ("open", b"/own", O_TMPFILE | O_RDWR, 0o644),
        ("symlink", b"x", b"/own/l"),
        ("mknod", b"/own/p", S_IFIFO | 0o644, 0),
    ):
        assert user.call(*call) == -errno.EOVERFLOW
    assert user.call("mkdir", b"/own", 0o755) == -errno.EEXIST
    become_root(user)
    touch(user, b"/own/f")


def test_user_namespace_sees_no_more_of_sysfs_than_it_is_shown(task: Any) -> None:
    for path in (b"/shown", b"/own"):
        task.ok("mkdir", path, 0o777)
    task.ok("mount", b"x", b"/shown", b"sysfs", MS_RDONLY, 0)
    user = task.sibling(1000, 1000)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
    for flags in (0, MS_RDONLY | MS_NOATIME):
        assert user.call("mount", b"x", b"/own", b"sysfs", flags, 0) == -errno.EPERM
    fd = user.ok("fsopen", b"sysfs", 0)
    user.ok("fsconfig", fd, FSCONFIG_CMD_CREATE, 0, 0, 0)
    assert user.call("fsmount", fd, 0, 0) == -errno.EPERM
    user.ok("fsmount", fd, 0, MOUNT_ATTR_RDONLY)
    user.ok("mount", b"x", b"/own", b"sysfs", MS_RDONLY, 0)
    assert user.call("mount", 0, b"/own", 0, MS_REMOUNT | MS_BIND, 0) == -errno.EPERM


def test_file_system_that_is_mounted_once_more_stays_writable_for_others(task: Any) -> None:
    for path in (b"/cgroup", b"/mine"):
        task.ok("mkdir", path, 0o777)
    task.ok("mount", b"x", b"/cgroup", b"cgroup2", 0, 0)
    user = task.sibling(1000, 1000)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)
    user.ok("mount", b"x", b"/mine", b"cgroup2", MS_RDONLY, 0)
    assert user.call("mkdir", b"/mine/made", 0o755) == -errno.EROFS
    task.ok("mkdir", b"/cgroup/made", 0o755)


def test_copy_of_a_namespace_is_independent(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    touch(task, b"/m/f")
    other = task.sibling()
    copy, by_old = copy_namespace(task.task.mounts)
    other.task.fs.move_to(by_old)
    other.task.ns = other.task.ns.but(mounts=HeldMounts(copy))
    other.ok("access", b"/m/f", 0)
    other.ok("umount2", b"/m", 0)
    assert other.call("access", b"/m/f", 0) == -errno.ENOENT
    task.ok("access", b"/m/f", 0)
    task.ok("chdir", b"/m")
    assert path_of(task.task.fs.cwd, task.task.fs.root) == b"/m"


def test_copy_of_a_namespace_that_fails_in_the_middle_leaves_nothing(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    task.ok("mount", 0, b"/", 0, MS_SHARED | MS_REC, 0)
    mounts = task.task.mounts
    budget = mounts.budget

    def counted() -> tuple[Any, ...]:
        return budget.mounts, list(budget.namespaces), [each.fs.mount_count for each in mounts]

    before = counted()
    copying = copy_namespace.steps(mounts)
    next(copying)
    assert counted() != before
    with monkeypatch.context() as full:
        full.setattr("sentry.vfs.budget.MAX_MOUNTS", 0)
        with pytest.raises(ENOSPC):
            next(copying)
    assert counted() == before
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    assert budget.mounts == before[0] + 1


def test_mount_max_is_for_what_is_attached_and_no_new_namespace(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    mounts = task.task.mounts
    for most in (len(mounts), 1):
        mounts.budget.mount_max = most
        child = task.fork()
        child.ok("unshare", CLONE_NEWNS)
        assert child.call("mount", b"x", b"/m", b"tmpfs", 0, 0) == -errno.ENOSPC
        assert len(child.task.mounts) == len(mounts)


def test_recursive_bind_takes_what_is_below(task: Any) -> None:
    for path in (b"/a", b"/a/sub", b"/b", b"/c"):
        task.ok("mkdir", path, 0o755)
    task.ok("mount", b"x", b"/a/sub", b"tmpfs", 0, 0)
    touch(task, b"/a/sub/deep")
    task.ok("mount", b"/a", b"/b", 0, MS_BIND, 0)
    assert task.call("access", b"/b/sub/deep", 0) == -errno.ENOENT
    task.ok("mount", b"/a", b"/c", 0, MS_BIND | MS_REC, 0)
    task.ok("access", b"/c/sub/deep", 0)


def test_devices_do_not_open_on_a_nodev_mount(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", MS_NODEV, 0)
    task.ok("mknod", b"/m/null", 0o020666, 0x103)
    task.ok("mknod", b"/null", 0o020666, 0x103)
    assert task.call("open", b"/m/null", O_RDWR, 0) == -errno.EACCES
    fd = task.ok("open", b"/null", O_RDWR, 0)
    assert task.ok("write", fd, task.place(b"gone"), 4) == 4
    assert task.ok("read", fd, task.buffer(4), 4) == 0


def exits(parent: Any, child: Any) -> None:
    child.begin("exit_group", 0)
    parent.world.settle()
    parent.ok("wait4", -1, 0, 0, 0)


def test_namespace_goes_with_the_last_process_in_it(task: Any) -> None:
    budget = task.task.kernel.vfs.budget
    task.ok("mount", 0, b"/", 0, MS_SHARED, 0)
    root = task.task.mounts.root
    before = budget.mounts, len(budget.namespaces), dict(root.group.members)
    child = task.fork()
    child.ok("unshare", CLONE_NEWNS)
    assert len(root.group.members) == 2
    exits(task, child)
    assert (budget.mounts, len(budget.namespaces), root.group.members) == before


def test_namespaces_that_are_mounted_do_not_hold_each_other(task: Any) -> None:
    task.world.mount("proc", b"/proc")
    for name in (b"/one", b"/two"):
        touch(task, name)
    budget = task.task.kernel.vfs.budget
    before = budget.mounts, len(budget.namespaces)

    def bind(program: Any, other: Any, place: bytes) -> int:
        link = b"/proc/%d/ns/mnt" % other.ok("getpid")
        return int(program.call("mount", link, place, 0, MS_BIND, 0))

    first, second = task.fork(), task.fork()
    first.ok("unshare", CLONE_NEWNS)
    assert bind(task, first, b"/one") == 0
    second.ok("unshare", CLONE_NEWNS)
    assert second.call("umount2", b"/one", 0) == -errno.EINVAL
    assert bind(first, second, b"/two") == 0
    assert bind(second, first, b"/two") == -errno.EINVAL
    exits(task, first)
    exits(task, second)
    task.ok("umount2", b"/one", 0)
    task.world.settle()
    assert (budget.mounts, len(budget.namespaces)) == before


def test_open_mountinfo_keeps_the_namespace_of_a_process_that_has_ended(task: Any) -> None:
    budget = task.task.kernel.vfs.budget
    task.ok("mkdir", b"/proc", 0o755)
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"proc", b"/proc", b"proc", 0, 0)
    child = task.fork()
    child.ok("unshare", CLONE_NEWNS)
    child.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    fd = task.ok("open", b"/proc/%d/mountinfo" % child.task.tid, O_RDONLY, 0)
    exits(task, child)
    room = task.place(bytes(4096))
    assert b" /m " in task.read(room, task.ok("read", fd, room, 4096))
    namespaces = len(budget.namespaces)
    task.ok("close", fd)
    assert len(budget.namespaces) == namespaces - 1


def test_mount_is_busy_while_somebody_works_in_it(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, 0)
    task.ok("chdir", b"/m")
    child = task.fork()
    task.ok("chdir", b"/")
    assert task.call("umount2", b"/m", 0) == -errno.EBUSY
    exits(task, child)
    task.ok("umount2", b"/m", 0)


def test_bind_without_room_leaves_no_peer(task: Any) -> None:
    budget = task.task.kernel.vfs.budget
    task.ok("mkdir", b"/a", 0o755)
    task.ok("mkdir", b"/b", 0o755)
    task.ok("mount", 0, b"/", 0, MS_SHARED, 0)
    child = task.fork()
    child.ok("unshare", CLONE_NEWNS)
    group = task.task.mounts.root.group
    assert len(group.members) == 2
    budget.mount_max = len(task.task.mounts) + 1
    assert task.call("mount", b"/a", b"/b", 0, MS_BIND, 0) == -errno.ENOSPC
    assert len(group.members) == 2


def test_pivot_root_moves_the_root_of_everybody(task: Any) -> None:
    task.ok("mkdir", b"/new", 0o755)
    task.ok("mount", b"x", b"/new", b"tmpfs", 0, 0)
    task.ok("mkdir", b"/new/old", 0o755)
    child = task.fork()
    child.ok("unshare", CLONE_NEWNS)
    child.ok("mount", 0, b"/", 0, MS_REC | MS_PRIVATE, 0)
    other = child.fork()
    child.ok("pivot_root", b"/new", b"/new/old")
    other.ok("access", b"/old/new", 0)
    task.ok("access", b"/new/old", 0)


def test_removal_takes_mounts_of_other_namespaces_only_if_it_works(task: Any) -> None:
    task.ok("mkdir", b"/d", 0o755)
    task.ok("mkdir", b"/d/below", 0o755)
    other = task.sibling()
    other.ok("unshare", CLONE_NEWNS)
    other.ok("mount", b"x", b"/d", b"tmpfs", 0, 0)
    other.ok("mkdir", b"/d/above", 0o755)

    assert task.call("rmdir", b"/d") == -errno.ENOTEMPTY
    assert other.call("access", b"/d/above", 0) == 0

    task.ok("rmdir", b"/d/below")
    task.ok("rmdir", b"/d")
    assert other.call("access", b"/d/above", 0) == -errno.ENOENT
