"""A root that is an overlayfs of the host, written behind: what layers change, and what they
refuse."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.layers import layered, mounted
from tests.fuzz.test_files import warm
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_behind_made import warm as warm_up
from tests.unit.fs.gofer.test_journal import make
from tests.world import World as Kernel

pytestmark = pytest.mark.root

CHMOD, LARGE = 0o600, 3 << 20


def grow(lower: Path) -> None:
    (lower / "dir" / "sub").mkdir(parents=True)
    (lower / "file").write_bytes(b"contents")
    (lower / "dir" / "inner").write_bytes(b"inner")
    (lower / "one").write_bytes(b"two names")
    os.link(lower / "one", lower / "other")
    (lower / "large").write_bytes(b"x" * LARGE)


def over(folder: Path, ends: ExitStack, *mount: str) -> Path:
    """A tree of two layers, the upper one on what mount(8) makes of these words."""
    lower, upper = folder / "lower", folder / "upper"
    lower.mkdir()
    upper.mkdir()
    grow(lower)
    if mount:
        mounted(ends, upper, *mount)
    return layered(folder / "root", [lower], upper, ends)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """All layers on one file system, as those of engines are."""
    with ExitStack() as ends:
        yield over(tmp_path, ends)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    made = make_world(journal=1 << 16)
    warm_up(made)
    for path in (b"dir", b"dir/sub"):
        made.listdir(path)
    made.session.names()
    return made


def test_changes_of_both_layers_cost_no_message(world: World, host: Path) -> None:
    make(world, b"dir/new", b"data")
    world.ok("mkdir", b"made", 0o755)
    world.ok("renameat2", AT_FDCWD, b"dir/new", AT_FDCWD, b"made/new", 0)
    world.stat(b"file")
    world.stat(b"dir/inner")
    world.session.names()
    world.ok("fchmodat", AT_FDCWD, b"file", CHMOD)
    world.ok("linkat", AT_FDCWD, b"file", AT_FDCWD, b"dir/linked", 0)
    world.ok("unlinkat", AT_FDCWD, b"dir/inner", 0)
    world.ok("unlinkat", AT_FDCWD, b"dir/sub", 0x200)
    assert world.session.names() == []
    assert (host / "dir" / "inner").exists()
    world.ok("sync")
    assert sorted(os.listdir(host / "dir")) == ["linked"]
    assert (host / "made" / "new").read_bytes() == b"data"
    assert (host / "dir" / "linked").read_bytes() == b"contents"
    assert stat.S_IMODE((host / "file").stat().st_mode) == CHMOD
    assert (host.parent / "lower" / "dir" / "inner").exists()


def test_number_stays_when_a_file_is_copied_up(world: World, host: Path) -> None:
    fd = world.open(b"file")
    told = world.fstat(fd).st_ino
    assert told == (host / "file").stat().st_ino
    world.ok("fchmodat", AT_FDCWD, b"file", CHMOD)
    world.ok("sync")
    world.fs.distrust(errno.EIO)
    assert world.stat(b"file").st_ino == world.fstat(fd).st_ino == told
    writer = world.open(b"file", os.O_RDWR)
    world.write(writer, b"C")
    assert world.read(fd, offset=0) == b"Contents"
    assert (host / "file").stat().st_ino == told


def test_directory_of_a_lower_layer_is_renamed_as_the_host_says(world: World, host: Path) -> None:
    """By a message: else it would be refused too late."""
    try:
        os.rename(host / "dir" / "sub", host / "dir" / "bus")
    except OSError as problem:
        assert problem.errno == errno.EXDEV
    else:
        pytest.skip("this overlayfs renames directories")
    assert world.call("renameat2", AT_FDCWD, b"dir", AT_FDCWD, b"rid", 0) == -errno.EXDEV
    world.ok("mkdir", b"made", 0o755)
    world.ok("renameat2", AT_FDCWD, b"made", AT_FDCWD, b"moved", 0)
    assert (host / "moved").is_dir()


def test_file_of_two_names_is_changed_by_the_host(world: World, host: Path) -> None:
    """Only one of them is copied up: it is another file then."""
    world.stat(b"one")
    world.stat(b"other")
    world.ok("fchmodat", AT_FDCWD, b"one", CHMOD)
    assert stat.S_IMODE((host / "one").stat().st_mode) == CHMOD
    for name in ("one", "other"):
        shown, there = world.stat(name.encode()), (host / name).stat()
        assert (shown.st_mode, shown.st_ino) == (there.st_mode, there.st_ino)
    writer = world.open(b"other", os.O_RDWR)
    world.write(writer, b"T")
    assert world.contents(b"other") == b"Two names"
    assert (host / "other").read_bytes() == b"Two names"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """With less room than the large file takes, on another file system."""
    with ExitStack() as ends:
        yield over(tmp_path, ends, "-t", "tmpfs", "-o", "size=2m,nr_inodes=1000", "none")


@pytest.mark.parametrize("call", ["chmod", "link", "rename"])
def test_file_that_does_not_fit_is_refused_at_once(small: Path, call: str) -> None:
    with Kernel(lambda world: world.export_behind(small)) as world:
        files = Files(world.program())
        warm(files)
        fd = files.opened(b".")
        files.ok("newfstatat", AT_FDCWD, b"large", files.program.buffer(144), 0)
        match call:
            case "chmod":
                told = files.call("fchmodat", AT_FDCWD, b"large", CHMOD)
            case "link":
                told = files.call("linkat", AT_FDCWD, b"large", AT_FDCWD, b"dir/name", 0)
            case _:
                told = files.call("rename", b"large", b"dir/name")
        assert told == -errno.ENOSPC
        assert files.call("syncfs", fd) == 0
    assert sorted(os.listdir(small / "dir")) == ["inner", "sub"]


def test_layers_of_two_file_systems_lose_nothing(small: Path) -> None:
    """Where the host's numbers cannot be told apart nothing is made before it has one."""
    with Kernel(lambda world: world.export_behind(small)) as world:
        files = Files(world.program())
        warm(files)
        for number in range(20):
            files.ok("mkdir", b"d%d" % number, 0o755)
            files.ok("symlink", b"text", b"d%d/link" % number)
            files.ok("mknod", b"d%d/fifo" % number, stat.S_IFIFO | 0o600, 0)
            fd = files.opened(b"d%d/file" % number, os.O_CREAT | os.O_RDWR)
            files.write(fd, b"data")
            files.ok("close", fd)
            files.ok("rename", b"d%d/file" % number, b"d%d/name" % number)
        files.ok("unlinkat", AT_FDCWD, b"file", 0)
    assert not (small / "file").exists()
    for number in range(20):
        assert sorted(os.listdir(small / f"d{number}")) == ["fifo", "link", "name"]
        assert (small / f"d{number}" / "name").read_bytes() == b"data"
