"""Places of mounts, made in a root that an image has filled; devices."""

from __future__ import annotations

import stat

import pytest

from sentry.abi.fcntl import AT_FDCWD
from sentry.boot.tree import Starter, make_devices, mount_point
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
