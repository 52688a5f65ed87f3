"""Directories that give what is made in them something of theirs: there the host makes it. And who
is asked about access control lists."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.contract.filesystems.calls import Files
from tests.fuzz.test_files import warm as warm_up
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_behind_made import warm
from tests.unit.fs.gofer.test_journal import make
from tests.world import World as Kernel

pytestmark = pytest.mark.root

DEFAULT = "system.posix_acl_default"
ACCESS = "system.posix_acl_access"
ENTRIES = ((1, 7, -1), (2, 6, 1000), (4, 5, -1), (16, 7, -1), (32, 0, -1))
"""acl(5): owner, user 1000, group, mask, others."""
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in ENTRIES)
GET_ATTRIBUTES, SET_ATTRIBUTES = 0x801C581F, 0x401C5820
"""FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR."""
INHERITS = 0x200
"""FS_XFLAG_PROJINHERIT."""


def packed(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def give_acl(path: Path, name: str = DEFAULT, acl: bytes = ACL) -> None:
    try:
        os.setxattr(path, name, acl)
    except OSError as problem:
        pytest.skip(f"no ACLs here: {problem}")


@pytest.mark.parametrize("call", ["create", "mkdir", "link", "rename"])
def test_below_a_default_acl_it_is_made_at_once(
    call: str, make_world: MakeWorld, host: Path
) -> None:
    give_acl(host / "dir")
    world = make_world(journal=1 << 16)
    warm(world)
    make(world, b"file2")
    do(world, call)
    made = host / "dir" / "new"
    assert made.exists()
    if call in ("create", "mkdir"):
        assert ACCESS in os.listxattr(made)
        assert world.stat(b"dir/new").st_mode == os.stat(made).st_mode
    world.session.names()
    world.ok("unlinkat", AT_FDCWD, b"dir/new", 0x200 if call == "mkdir" else 0)
    assert "Tunlinkat" not in world.session.names()


def do(world: World, call: str) -> None:
    match call:
        case "create":
            make(world, b"dir/new")
        case "mkdir":
            world.ok("mkdir", b"dir/new", 0o777)
        case "link":
            world.ok("linkat", AT_FDCWD, b"file2", AT_FDCWD, b"dir/new", 0)
        case "rename":
            world.ok("renameat2", AT_FDCWD, b"file2", AT_FDCWD, b"dir/new", 0)


def test_root_with_a_default_acl_has_no_spares(make_world: MakeWorld, host: Path) -> None:
    """They would have it, wherever they get their names."""
    give_acl(host)
    world = make_world(journal=1 << 16)
    make(world, b"a")
    make(world, b"dir/b")
    assert "Tsparex" not in world.session.names()
    assert ACCESS in os.listxattr(host / "a")
    assert ACCESS not in os.listxattr(host / "dir" / "b")


def test_directory_is_asked_once_and_new_ones_are_not(make_world: MakeWorld) -> None:
    world = make_world(journal=1 << 16)
    warm(world)
    make(world, b"dir/a")
    assert world.session.names().count("Tinheritx") == 1
    make(world, b"dir/b")
    world.ok("mkdir", b"dir/d", 0o755)
    make(world, b"dir/d/a")
    assert "Tinheritx" not in world.session.names()


def test_program_that_sets_a_default_list_on_the_root_gets_it_everywhere(
    make_world: MakeWorld, host: Path
) -> None:
    world = make_world(journal=1 << 16)
    warm(world)
    make(world, b"dir/before")
    where = world.task.place(ACL)
    world.ok("setxattr", b"/", DEFAULT.encode(), where, len(ACL), 0)
    make(world, b"a")
    make(world, b"dir/b")
    assert ACCESS in os.listxattr(host / "a")
    assert ACCESS not in os.listxattr(host / "dir" / "b")
    world.ok("sync")
    assert ACCESS not in os.listxattr(host / "dir" / "before")


@pytest.mark.parametrize("exclusive", [True, False])
def test_stranger_asks_for_no_list_of_what_he_opens(
    exclusive: bool, make_world: MakeWorld
) -> None:
    world = make_world(exclusive)
    stranger = world.task.sibling(1000, 1000)
    for path in (b"file", b"dir/inner", b"dir"):
        stranger.ok("openat", AT_FDCWD, path, 0, 0)
    assert "Tgetxattrx" not in world.session.names()


@pytest.mark.parametrize("exclusive", [True, False])
def test_list_of_the_host_counts_inside(
    exclusive: bool, make_world: MakeWorld, host: Path
) -> None:
    everybody = (1, 7, -1), (4, 5, -1), (16, 5, -1), (32, 5, -1)
    but_one = packed(everybody[0], (2, 0, 1000), *everybody[1:])
    give_acl(host / "file", ACCESS, but_one)
    give_acl(host / "dir", ACCESS, but_one)
    world = make_world(exclusive)
    one, other = world.task.sibling(1000, 1000), world.task.sibling(1001, 1001)
    for path in (b"file", b"dir/inner", b"dir"):
        other.ok("openat", AT_FDCWD, path, 0, 0)
        assert one.call("openat", AT_FDCWD, path, 0, 0) == -errno.EACCES
    os.removexattr(host / "file", ACCESS)
    if not exclusive:
        one.ok("openat", AT_FDCWD, b"file", 0, 0)


@pytest.fixture
def projects(tmp_path: Path) -> Iterator[Path]:
    """A root with a directory `p` of another project."""
    place, image = tmp_path / "place", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as made:
        made.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", image], check=True)
    command = ["mount", "-o", "loop", str(image), str(place)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no projects of one's own: {found.stderr.strip()}")
    try:
        (place / "root" / "p").mkdir(parents=True)
        (place / "root" / "file").touch()
        fd = os.open(place / "root" / "p", os.O_RDONLY)
        attributes = bytearray(28)
        ioctl(fd, GET_ATTRIBUTES, attributes)
        flags = struct.unpack_from("<I", attributes)[0]
        struct.pack_into("<I", attributes, 0, flags | INHERITS)
        struct.pack_into("<I", attributes, 12, 7)
        ioctl(fd, SET_ATTRIBUTES, attributes)
        os.close(fd)
        yield place / "root"
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_files_of_another_project_are_made_there_and_moved_by_the_host(projects: Path) -> None:
    with Kernel(lambda world: world.export_behind(projects)) as world:
        files = Files(world.program())
        warm_up(files)
        files.fill(b"a")
        files.fill(b"p/new", b"contents")
        assert files.call("link", b"a", b"p/link") == -errno.EXDEV
        assert files.call("rename", b"file", b"p/moved") == -errno.EXDEV
        files.ok("rename", b"p/new", b"p/newer")
        files.ok("mkdir", b"p/d", 0o755)
        files.fill(b"p/d/inner")
        fd = files.opened(b".")
        assert files.call("syncfs", fd) == 0
        files.ok("close", fd)
    assert sorted(os.listdir(projects / "p")) == ["d", "newer"]
    assert (projects / "p" / "newer").read_bytes() == b"contents"
    assert os.listdir(projects / "p" / "d") == ["inner"]
