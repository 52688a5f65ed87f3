"""Every file system that can be written to, with the same tree to begin with; and Linux's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.filesystem import FileSystem
from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.merged import merged
from tests.linux import NativeProgram
from tests.world import World

CONTENTS = b"contents of old"
MakeFs = Callable[[World, Path], FileSystem]


def grow(root: Path) -> None:
    """What there is at the start: a file, a link, a directory with a file, an empty one."""
    os.chmod(root, 0o755)
    (root / "old").write_bytes(CONTENTS)
    (root / "link").symlink_to("old")
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "dir" / "inner").write_bytes(b"inner")
    (root / "empty").mkdir()


def _memory(world: World, _: Path) -> FileSystem:
    return TmpFs.make(world.vfs, "mode=0755")


def _on_disk(world: World, lower: FileSystem, folder: Path) -> FileSystem:
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR)
    world.stack.callback(os.close, fd)
    world.add_disk(fd)
    return OverlayFs.over(world.vfs, lower, "disk")


FILE_SYSTEMS: dict[str, MakeFs] = {
    "tmpfs": _memory,
    "overlay over tmpfs": lambda world, _: OverlayFs.over(world.vfs, _memory(world, _)),
    "overlay on disk": lambda world, host: _on_disk(world, _memory(world, host), host.parent),
    "overlay over gofer": lambda world, host: OverlayFs.over(
        world.vfs, world.export(host, exclusive=True, read_only=True)
    ),
    "layers in memory": lambda world, _: merged(world.vfs, None, ",redirect_dir=on"),
    "layers over gofer": lambda world, host: merged(
        world.vfs, world.export(host, exclusive=True, read_only=True), ",redirect_dir=on,xino=on"
    ),
    "gofer exclusive": lambda world, host: world.export(host, exclusive=True),
    "gofer written behind": lambda world, host: world.export_behind(host),
    "gofer shared": lambda world, host: world.export(host, exclusive=False),
}
GROWN_ON_THE_HOST = {name for name in FILE_SYSTEMS if "gofer" in name}


@pytest.fixture(params=["linux", *FILE_SYSTEMS])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    """A program with every right, whose root is the file system."""
    host = tmp_path / "root"
    host.mkdir()
    with ExitStack() as ends:
        if request.param == "linux":
            if os.geteuid():
                pytest.skip("needs root to change the root directory")
            grow(host)
            yield Files(NativeProgram(host, ends))
            return
        if request.param in GROWN_ON_THE_HOST:
            grow(host)
        make = FILE_SYSTEMS[request.param]
        world = ends.enter_context(World(lambda world: make(world, host)))
        program = Files(world.program())
        if request.param not in GROWN_ON_THE_HOST:
            program.grow()
        yield program
