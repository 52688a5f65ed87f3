"""Which containers use a Gofer: it ends with the last of them."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

from sentry.boot.gofers import Gofer, Gofers, RunningTrees
from sentry.config import MountConfig
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.container import Container
from sentry.vfs.mounts import MountNamespace
from tests.world import World


def test_gofer_of_another_container_is_used_before_mounts_are_replaced() -> None:
    """Who brought it may end while they are."""
    with World() as world:
        kernel, ours, theirs = world.kernel, Container(), Container()
        end, other = socket.socketpair()
        gofers, gofer = Gofers(kernel), Gofer(kernel, end.detach(), theirs)
        gofers._all[gofer.session] = gofer
        found: Any = type("Tree", (), {"session": gofer.session})()
        older: Any = object()

        class Shared:
            looks = 0

            def find(self, place: object, read_only: bool) -> Any:
                self.looks += 1
                return None if self.looks == 1 else older if read_only else found

            def forget_dead(self) -> None: ...

        class Volumes:
            async def open(self, *_: object) -> Any:
                return object()

        class Replaced(RunningTrees):
            async def _replace(self, older: Any, newer: Any) -> None:
                gofers.leave(theirs)

        volumes: Any = Volumes()
        kernel.services.trees = Shared()  # type: ignore[assignment]
        trees = Replaced(kernel, gofers, (volumes, volumes), ours)
        entry = MountConfig(b"/x", "bind", attachment=1)
        assert world.run(trees.mounted(entry)) is found
        assert gofer.users == {ours}
        assert gofers._all
        gofers.leave(ours)
        assert not gofers._all
        other.close()


def test_tree_of_a_container_that_comes_is_replaced_too() -> None:
    """It has mounted the tree, and is not there yet when another one brings a newer."""
    with World() as world:
        kernel, ours, coming, begun = world.kernel, Container(), Container(), Container()
        end, other = socket.socketpair()
        gofers, gofer = Gofers(kernel), Gofer(kernel, end.detach(), coming)
        gofer.users.add(begun)
        gofers._all[gofer.session] = gofer
        older, newer = (TmpFs.make(world.vfs, "mode=0755") for _ in range(2))
        for tree in (older, newer):
            tree.session = gofer.session  # type: ignore[attr-defined]
        mounts = MountNamespace(world.vfs.new_mount(TmpFs.make(world.vfs, "")), world.vfs.mount_ids)
        coming.ns = cast("Any", SimpleNamespace(mounts=SimpleNamespace(mounts=mounts)))
        below = world.vfs.new_mount(older)
        mounts.attach(below, mounts.root.location)

        trees = RunningTrees(kernel, gofers, (gofer, gofer), ours)
        world.run(trees._replace(cast("Any", older), cast("Any", newer)))

        assert below.overmount is not None
        assert below.overmount.fs is newer
        gofers.leave(coming)
        gofers.leave(begun)
        other.close()
