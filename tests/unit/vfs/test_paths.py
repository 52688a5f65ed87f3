"""Paths of places."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi.limits import PATH_MAX
from sentry.errors import ENAMETOOLONG
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location
from sentry.vfs.paths import (
    TOO_LONG,
    is_reachable,
    link_text,
    mount_paths,
    path_of,
    path_of_cwd,
    shown_path,
)
from sentry.wait.steps import at_once
from tests.world import World


def test_paths_of_all_mounts_are_those_of_each_from_any_root(world: World) -> None:
    for path in (b"/a", b"/a/b", b"/a/b/c/d", b"/a/b/c/d", b"/a/e/f", b"/g"):
        world.mount("tmpfs", path)
    mounts = list(world.mounts)
    roots = [mount.location for mount in mounts]
    roots += [mount.parent for mount in mounts if mount.parent is not None]
    for root in [Location(*root) for root in roots]:
        expected = {m: path_of(m.location, root) for m in mounts if is_reachable(m.location, root)}
        assert at_once(mount_paths(mounts, root)) == expected
        assert at_once(mount_paths(mounts[::-1], root)) == expected


class Name(bytes):
    """Notes what is put before it."""

    before = 0

    def __radd__(self, other: bytes) -> bytes:
        Name.before += 1
        return other + bytes(self)


def test_path_of_a_mount_far_below_is_put_together_once(world: World) -> None:
    root = world.mounts.root.location
    bottom = root.dentry
    for _ in range(1000):
        bottom = Dentry(bottom, Name(b"d"), root.inode)
    mount: Any = type("FarBelow", (), {"parent": Location(root.mount, bottom), "root": bottom})()
    assert at_once(mount_paths([mount], root)) == {mount: b"/d" * 1000}
    assert Name.before == 0


def test_getcwd_climbs_no_further_than_a_path_may_be_long(world: World) -> None:
    root = world.mounts.root.location
    bottom = root.dentry
    for _ in range(100_000):
        bottom = Dentry(bottom, b"d", root.inode)
    assert len(path_of_cwd(Location(root.mount, bottom), root)) == PATH_MAX + 2
    with pytest.raises(ENAMETOOLONG):
        link_text(Location(root.mount, bottom), root)
    assert shown_path(Location(root.mount, bottom), root) == TOO_LONG
