"""Places of mounts, made in a root that an image has filled; devices."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sentry.abi.fcntl import AT_FDCWD
from sentry.boot.tree import Starter, bind, make_devices, mount_point
from sentry.config import ContainerConfig, DeviceConfig, MountConfig, ProcessConfig
from sentry.errors import ELOOP
from sentry.vfs.names import mkdir, symlink
from sentry.vfs.walk import child_of, resolve
from sentry.wait.again import again
from tests.world import World

LINKS = {
    b"/var/run": b"/run",
    b"/var/lock": b"../run/lock",
    b"/etc/resolv.conf": b"../../run/resolve/stub.conf",
    b"/etc/again": b"/etc/resolv.conf",
    b"/loop": b"/loop",
}


@pytest.fixture
def starter(world: World) -> Starter:
    made = Starter(world.kernel)
    for name in (b"/var", b"/etc"):
        world.run(again(mkdir, made, AT_FDCWD, name, 0o755))
    for name, target in LINKS.items():
        world.run(again(symlink, made, target, AT_FDCWD, name))
    return made


@pytest.mark.parametrize(
    ("path", "is_file", "where"),
    [
        (b"/new/below/./x", False, b"/new/below/x"),
        (b"/var/run", False, b"/run"),
        (b"/var/run/secrets/token", True, b"/run/secrets/token"),
        (b"/var/lock/a/../b", False, b"/run/lock/b"),
        (b"/etc/resolv.conf", True, b"/run/resolve/stub.conf"),
        (b"/etc/again", True, b"/run/resolve/stub.conf"),
    ],
)
def test_place_is_made_where_links_lead_that_lead_to_nothing(
    world: World, starter: Starter, path: bytes, is_file: bool, where: bytes
) -> None:
    place = world.run(mount_point(starter, path, is_file))

    assert place.dentry.inode.is_dir is not is_file
    assert world.run(again(resolve, starter, AT_FDCWD, where)).dentry is place.dentry


def test_links_that_never_end_are_refused(world: World, starter: Starter) -> None:
    with pytest.raises(ELOOP):
        world.run(mount_point(starter, b"/loop/x", False))


@pytest.mark.parametrize("attachment", [None, 1])
def test_devices_are_made_but_in_a_folder_of_the_host(
    world: World, starter: Starter, attachment: int | None
) -> None:
    world.mount("tmpfs", b"/dev")
    first, last = MountConfig(b"/dev", "tmpfs"), MountConfig(b"/dev/", "x", attachment=attachment)
    config = ContainerConfig("c", ProcessConfig((b"x",)), mounts=(first, last))

    world.run(make_devices(starter, config))

    dev = world.run(again(resolve, starter, AT_FDCWD, b"/dev")).dentry.inode
    names = {entry.name for entry in world.run(again(dev.entries))}
    assert ({b"null", b"fd"} <= names) is (attachment is None)
    assert bool(names) is (attachment is None)


def test_without_a_mount_on_dev_devices_are_in_the_root(world: World, starter: Starter) -> None:
    world.run(make_devices(starter, ContainerConfig("c", ProcessConfig((b"x",)))))

    dev, null = (
        world.run(again(resolve, starter, AT_FDCWD, path)) for path in (b"/dev", b"/dev/null")
    )
    assert null.mount is dev.mount
    assert (null.dentry.inode.mode, null.dentry.inode.rdev) == (stat.S_IFCHR | 0o666, 1 << 8 | 3)
    assert {entry.name for entry in world.run(again(dev.dentry.inode.entries))} >= {
        b"full", b"random", b"tty", b"urandom", b"zero", b"fd", b"ptmx", b"stdin", b"stdout",
        b"stderr",
    }  # fmt: skip


def test_devices_in_a_root_of_the_host_are_mounted_on_files(
    world: World, starter: Starter, tmp_path: Path
) -> None:
    """runc, where it has no CAP_MKNOD; the second time the files are there."""
    (tmp_path / "zero").write_text("not seen")
    (tmp_path / "tty").symlink_to("elsewhere")
    world.attach(world.export(tmp_path, exclusive=True), b"/dev")
    listed = (DeviceConfig(b"/dev/full", stat.S_IFCHR | 0o600, 1, 7, uid=5),)
    config = ContainerConfig("c", ProcessConfig((b"x",)), devices=listed)

    for _ in range(2):
        world.run(make_devices(starter, config))

    null, zero, full = (
        world.run(again(resolve, starter, AT_FDCWD, b"/dev/" + name)).dentry.inode
        for name in (b"null", b"zero", b"full")
    )
    assert (null.mode, null.rdev) == (stat.S_IFCHR | 0o666, 1 << 8 | 3)
    assert (zero.rdev, full.rdev) == (1 << 8 | 5, 1 << 8 | 7)
    assert (full.mode & 0o777, full.uid) == (0o600, 5)
    assert (tmp_path / "null").is_file()
    assert (tmp_path / "tty").is_symlink()
    assert (tmp_path / "fd").readlink() == Path("/proc/self/fd")
    mounts = [each.fs.name for each in world.mounts]
    assert mounts.count("tmpfs") == len(("null", "zero", "full", "random", "urandom")) + 1


def test_file_that_the_bundle_mounts_in_the_place_of_a_device_stays(
    world: World, starter: Starter
) -> None:
    world.mount("tmpfs", b"/dev")
    zero = world.run(mount_point(starter, b"/dev/zero", True))
    file = world.run(mount_point(starter, b"/file", True))
    world.mounts.attach(bind(starter, file, 0), zero)
    mounts = (MountConfig(b"/dev", "tmpfs"),)

    world.run(make_devices(starter, ContainerConfig("c", ProcessConfig((b"x",)), mounts=mounts)))

    assert world.run(again(resolve, starter, AT_FDCWD, b"/dev/zero")).inode is file.inode


def test_root_that_the_caller_may_not_write_to_has_no_more_devices(
    world: World, starter: Starter, tmp_path: Path
) -> None:
    world.attach(world.export(tmp_path, exclusive=True, read_only=True), b"/dev")

    world.run(make_devices(starter, ContainerConfig("c", ProcessConfig((b"x",)))))

    assert list(tmp_path.iterdir()) == []


def test_default_device_that_is_listed_is_as_it_is_listed(world: World, starter: Starter) -> None:
    world.mount("tmpfs", b"/dev")
    listed = [
        DeviceConfig(b"/dev/null", stat.S_IFCHR | 0o600, 1, 3, uid=5, gid=6),
        DeviceConfig(b"/dev/ptmx", stat.S_IFCHR | 0o666, 5, 2),
    ]
    mounts, process = (MountConfig(b"/dev", "tmpfs"),), ProcessConfig((b"x",))
    config = ContainerConfig("c", process, mounts=mounts, devices=tuple(listed))

    world.run(make_devices(starter, config))

    null, zero = (
        world.run(again(resolve, starter, AT_FDCWD, path)).dentry.inode
        for path in (b"/dev/null", b"/dev/zero")
    )
    assert (null.mode & 0o7777, null.uid, null.gid) == (0o600, 5, 6)
    assert (zero.mode & 0o7777, zero.uid) == (0o666, 0)
    dev = world.run(again(resolve, starter, AT_FDCWD, b"/dev")).dentry.inode
    assert world.run(again(child_of, dev, b"ptmx")).is_symlink
