"""What the host changes in an exclusive tree: programs see it once it was heard of."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.extensions import Rhearx
from sentry.errors import EEXIST, ENOENT
from sentry.fs.gofer.directory_cache import DirectoryCache
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World

pytestmark = pytest.mark.root

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


@pytest.fixture(params=[0, 1 << 16], ids=["asked", "behind"])
def world(make_world: MakeWorld, request: pytest.FixtureRequest) -> World:
    """Written through, or behind; warm."""
    made = make_world(journal=request.param)
    made.ok("close", made.open(b"warm", NEW))
    made.ok("mkdirat", AT_FDCWD, b"dir/own", 0o755)
    made.ok("sync")
    for path in (b".", b"dir", b"dir/sub"):
        made.listdir(path)
    heard_all(made)
    made.session.names()
    return made


def hearing(world: World) -> Any:
    assert world.fs.hearing is not None
    return world.fs.hearing


def heard(world: World, what: Callable[[], object], *names: bytes) -> None:
    """Do it on the host; the Sentry has heard of these names then, or that anything may be."""
    made, left = hearing(world), set(names)
    told, lost = made._told, made._lost

    def note(directory: tuple[int, int], name: bytes, another: bool) -> bool:
        left.discard(name)
        return told(directory, name, another)

    def lose() -> None:
        lost()
        left.clear()

    made._told, made._lost = note, lose
    what()
    while left:
        world.task.world.loop.turn()
    made._told, made._lost = told, lost


def heard_all(world: World) -> None:
    """Nothing is under way: the Gofer looks again before this long has passed."""
    while select.select([hearing(world)._session.sock], [], [], 0.1)[0]:
        world.task.world.settle()


def test_new_name_is_there(world: World, host: Path) -> None:
    world.call("newfstatat", AT_FDCWD, b"dir/new", world.task.buffer(144), 0)
    heard(world, lambda: (host / "dir" / "new").write_bytes(b"contents"), b"new")
    assert world.contents(b"dir/new") == b"contents"
    assert b"new" in world.listdir(b"dir")
    assert world.stat(b"dir/new").st_ino == os.stat(host / "dir" / "new").st_ino


def test_removed_name_is_gone(world: World, host: Path) -> None:
    assert world.contents(b"dir/inner") == b"inner"
    heard(world, (host / "dir" / "inner").unlink, b"inner")
    assert world.call("openat", AT_FDCWD, b"dir/inner", os.O_RDONLY, 0) == -ENOENT.number
    assert b"inner" not in world.listdir(b"dir")


def test_renamed_file_has_the_other_name(world: World, host: Path) -> None:
    world.stat(b"file")
    heard(world, lambda: os.rename(host / "file", host / "dir" / "inner"), b"file", b"inner")
    assert world.contents(b"dir/inner") == b"contents"
    assert b"file" not in world.listdir(b".")


def test_mode_and_owner_are_the_new_ones(world: World, host: Path) -> None:
    world.stat(b"dir/inner")
    heard(world, lambda: os.chmod(host / "dir" / "inner", 0o604), b"inner")
    assert stat.S_IMODE(world.stat(b"dir/inner").st_mode) == 0o604
    heard(world, lambda: os.chown(host / "dir" / "inner", 7, 8), b"inner")
    found = world.stat(b"dir/inner")
    assert (found.st_uid, found.st_gid) == (7, 8)


def test_mode_of_directories_decides_who_may_enter(world: World, host: Path) -> None:
    user = world.task.sibling(uid=1000, gid=1000)
    path = b"dir/sub/nothing"
    assert user.call("openat", AT_FDCWD, path, os.O_RDONLY, 0) == -ENOENT.number
    heard(world, lambda: os.chmod(host / "dir" / "sub", 0o700), b".")
    assert user.call("openat", AT_FDCWD, path, os.O_RDONLY, 0) == -13
    heard(world, lambda: os.chmod(host / "dir", 0o700), b".")
    assert user.call("openat", AT_FDCWD, b"dir/inner", os.O_RDONLY, 0) == -13


def test_mode_of_the_root_decides_who_may_enter(world: World, host: Path) -> None:
    """Nobody asks for it by a name."""
    user = world.task.sibling(uid=1000, gid=1000)
    user.ok("close", user.ok("openat", AT_FDCWD, b"/file", os.O_RDONLY, 0))
    heard(world, lambda: os.chmod(host, 0o700), b".")
    while stat.S_IMODE(world.fs.root.mode) != 0o700:
        world.task.world.loop.turn()
    assert user.call("openat", AT_FDCWD, b"/file", os.O_RDONLY, 0) == -13


def test_size_is_the_new_one(world: World, host: Path) -> None:
    assert world.stat(b"dir/inner").st_size == 5
    heard(world, lambda: (host / "dir" / "inner").write_bytes(b"more than that"), b"inner")
    assert world.stat(b"dir/inner").st_size == 14
    assert world.contents(b"dir/inner") == b"more than that"


def test_size_of_an_open_file_grows_while_the_host_writes(world: World, host: Path) -> None:
    """`tail -f`: nothing is heard before the writer closes it."""
    fd = world.open(b"dir/inner")
    assert world.fstat(fd).st_size == 5
    with (host / "dir" / "inner").open("ab", buffering=0) as writer:
        writer.write(b" and more")
        assert world.fstat(fd).st_size == 14
        assert world.stat(b"dir/inner").st_size == 14


@pytest.mark.parametrize("while_held", [True, False])
def test_file_that_nobody_holds_any_more_is_the_new_one(
    while_held: bool, world: World, host: Path
) -> None:
    """Whether somebody held it when the host changed it or not."""
    world.ok("close", world.open(b"dir/new", NEW))
    world.ok("sync")

    def leave() -> None:
        world.fs.handles.evict(100)
        world.task.task.kernel.vfs.dentries.forget()

    def write() -> None:
        (host / "dir" / "new").write_bytes(b"contents")

    if not while_held:
        leave()
    heard(world, write, b"new")
    leave()
    assert world.stat(b"dir/new").st_size == 8


def test_extended_attribute_is_the_new_one(world: World, host: Path) -> None:
    buffer = world.task.buffer(16)
    world.call("getxattr", b"dir/inner", b"user.a", buffer, 16)
    heard(world, lambda: os.setxattr(host / "dir" / "inner", "user.a", b"told"), b"inner")
    assert world.ok("getxattr", b"dir/inner", b"user.a", buffer, 16) == 4


def test_default_acl_is_inherited(world: World, host: Path) -> None:
    """What is made there is made by the host then, which gives it what it inherits."""
    world.ok("close", world.open(b"dir/before", NEW, 0o666))
    acl = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000000ffffffff")
    heard(world, lambda: os.setxattr(host / "dir", "system.posix_acl_default", acl), b".")
    world.ok("close", world.open(b"dir/after", NEW, 0o666))
    world.ok("sync")
    modes = [stat.S_IMODE(os.stat(host / "dir" / name).st_mode) for name in ("before", "after")]
    assert modes == [0o666, 0o640]
    assert stat.S_IMODE(world.stat(b"dir/after").st_mode) == 0o640


def test_file_of_another_name_that_is_not_known_is_asked_for(world: World, host: Path) -> None:
    """Where nobody has looked nothing is heard of."""
    (host / "aside").mkdir()
    heard(world, lambda: (host / "dir" / "linked").write_bytes(b"contents"), b"linked")
    os.link(host / "dir" / "linked", host / "aside" / "other")
    assert world.stat(b"dir/linked").st_nlink == 2
    os.chmod(host / "aside" / "other", 0o600)
    assert stat.S_IMODE(world.stat(b"dir/linked").st_mode) == 0o600


def test_directory_that_nobody_has_used_has_its_own_times(world: World, host: Path) -> None:
    heard(world, (host / "unused").mkdir, b"unused")
    world.listdir(b".")
    world.stat(b"unused")
    (host / "unused" / "inner").mkdir()
    assert world.stat(b"unused").st_nlink == os.stat(host / "unused").st_nlink


def test_directory_that_has_lost_its_fid_is_asked_for(world: World, host: Path) -> None:
    directory = world.fs.inodes.known((os.stat(host / "dir").st_dev, os.stat(host / "dir").st_ino))
    assert directory is not None and directory.fid >= 0
    world.fs.fids.give_back(directory)  # type: ignore[arg-type]
    (host / "dir" / "inner").unlink()
    (host / "dir" / "new").touch()
    assert b"new" in world.listdir(b"dir")
    assert world.call("openat", AT_FDCWD, b"dir/inner", os.O_RDONLY, 0) == -ENOENT.number


def test_number_that_the_host_has_used_again_is_another_file_in_a_listing(
    world: World, host: Path
) -> None:
    folder, file = os.stat(host / "dir"), os.stat(host / "dir" / "inner")
    directory = world.fs.inodes.known((folder.st_dev, folder.st_ino))
    assert isinstance(directory, DirectoryCache)
    world.open(b"dir/inner", os.O_RDONLY)
    world.listdir(b"dir")
    assert directory.listing is not None
    block = directory.listing[b"inner"][1]
    assert block is not None
    wire = WireAttributes.unpack(block)
    found = world.fs.inodes.from_listing(
        wire._replace(mode=stat.S_IFSOCK | 0o600).pack(), directory, b"new"
    )
    assert found.kind == stat.S_IFSOCK
    assert found is not world.fs.inodes.from_listing(block, directory, b"inner")
    assert file.st_ino == wire.ino


def test_what_is_lost_is_forgotten(world: World, host: Path) -> None:
    world.stat(b"dir/inner")
    world.stat(b"file")
    world.fs.hearing._told = lambda *_: True  # type: ignore[union-attr]
    for number in range(3000):
        (host / "dir" / f"n{number}").touch()
    (host / "dir" / "inner").write_bytes(b"other")
    os.unlink(host / "file")
    while world.call("newfstatat", AT_FDCWD, b"file", world.task.buffer(144), 0) >= 0:
        world.task.world.loop.turn()
    assert len(world.listdir(b"dir")) == 3003
    assert world.contents(b"dir/inner") == b"other"


def test_own_changes_are_remembered(world: World, host: Path) -> None:
    """The Gofer's events are its own."""
    epoch = hearing(world).epoch
    for number in range(20):
        world.ok("mkdirat", AT_FDCWD, b"dir/d%d" % number, 0o755)
        world.ok("unlinkat", AT_FDCWD, b"dir/d%d" % number, 0x200)
    world.ok("fchmodat", AT_FDCWD, b"dir/inner", 0o640)
    world.ok("sync")
    heard_all(world)
    assert hearing(world).epoch == epoch
    world.session.names()
    world.stat(b"dir/inner")
    world.listdir(b"dir")
    assert world.session.names() == []


def test_what_is_no_answer_makes_all_of_it_unsure(world: World) -> None:
    told: list[object] = []
    made = hearing(world)
    made._lost = lambda: told.append("lost")
    assert made._take(Rhearx(0, b"x" * 20).heard) is False
    assert made._take(b"") is True


@pytest.fixture
def behind(make_world: MakeWorld) -> World:
    """Written behind, with spares and what else is asked for once."""
    made = make_world(journal=1 << 16)
    made.ok("close", made.open(b"warm", NEW))
    made.ok("mkdirat", AT_FDCWD, b"dir/warm", 0o755)
    made.ok("sync")
    made.listdir(b".")
    made.listdir(b"dir")
    heard_all(made)
    made.session.names()
    return made


def test_name_that_both_have_made_is_the_programs(behind: World, host: Path) -> None:
    fd = behind.open(b"dir/new", NEW, 0o640)
    behind.write(fd, b"the program's")
    assert behind.session.names() == []
    heard(behind, lambda: (host / "dir" / "new").write_bytes(b"the host's"), b"new")
    assert behind.contents(b"dir/new") == b"the program's"
    behind.ok("fsync", fd)
    assert (host / "dir" / "new").read_bytes() == b"the program's"


def test_directory_that_both_have_made_holds_what_both_put_there(
    behind: World, host: Path
) -> None:
    behind.ok("mkdirat", AT_FDCWD, b"dir/new", 0o711)
    assert behind.session.names() == []
    heard(behind, (host / "dir" / "new").mkdir, b"new")
    (host / "dir" / "new" / "host").touch()
    behind.ok("close", behind.open(b"dir/new/own", NEW))
    assert behind.listdir(b"dir/new") == [b"host", b"own"]
    behind.ok("sync")
    assert sorted(os.listdir(host / "dir" / "new")) == ["host", "own"]
    assert stat.S_IMODE(os.stat(host / "dir" / "new").st_mode) == 0o711


def test_name_that_both_have_removed_is_gone(behind: World, host: Path) -> None:
    behind.ok("unlinkat", AT_FDCWD, b"dir/inner", 0)
    heard(behind, (host / "dir" / "inner").unlink, b"inner")
    assert behind.call("openat", AT_FDCWD, b"dir/inner", os.O_RDONLY, 0) == -ENOENT.number
    behind.ok("sync")


def test_removed_name_that_the_host_has_given_anew_is_removed(behind: World, host: Path) -> None:
    behind.ok("unlinkat", AT_FDCWD, b"dir/inner", 0)
    heard(behind, lambda: os.rename(host / "file", host / "dir" / "inner"), b"inner")
    assert behind.call("openat", AT_FDCWD, b"dir/inner", os.O_RDONLY, 0) == -ENOENT.number
    assert not (host / "dir" / "inner").exists()


def test_mode_that_both_have_set_is_the_programs(behind: World, host: Path) -> None:
    behind.ok("fchmodat", AT_FDCWD, b"dir/inner", 0o640)
    heard(behind, lambda: os.chmod(host / "dir" / "inner", 0o604), b"inner")
    assert stat.S_IMODE(behind.stat(b"dir/inner").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(host / "dir" / "inner").st_mode) == 0o640


def test_name_the_host_has_made_is_not_made_again(behind: World, host: Path) -> None:
    heard(behind, lambda: (host / "dir" / "new").write_bytes(b"the host's"), b"new")
    assert behind.call("openat", AT_FDCWD, b"dir/new", NEW, 0o644) == -EEXIST.number
    assert behind.contents(b"dir/new") == b"the host's"


def test_new_directory_of_which_no_number_is_known_is_heard_of(behind: World, host: Path) -> None:
    """Records are done with the next message, and told with the next Rdrainx."""
    behind.ok("mkdirat", AT_FDCWD, b"dir/new", 0o755)
    behind.ok("close", behind.open(b"dir/new/own", NEW))
    behind.ok("unlinkat", AT_FDCWD, b"dir/new/own", 0)
    behind.ok("statfs", b".", behind.task.buffer(120))
    heard(behind, (host / "dir" / "new" / "host").touch, b"host")
    assert behind.listdir(b"dir/new") == [b"host"]


def test_change_in_a_new_directory_makes_no_other_file_unsure(
    behind: World, host: Path
) -> None:
    """Also if it is heard of before the number of the directory, as changes of a program's own."""
    behind.ok("mkdirat", AT_FDCWD, b"dir/new", 0o755)
    behind.ok("close", behind.open(b"dir/new/own", NEW))
    behind.ok("close", behind.open(b"dir/new/other", NEW))
    behind.session.names()
    assert hearing(behind)._told((os.stat(host).st_dev, 1), b"own", False)
    behind.stat(b"dir/inner")
    behind.stat(b"dir/new/other")
    assert behind.session.names() == []
    behind.stat(b"dir/new/own")
    assert behind.session.names() == ["Twalkx", "Tdrainx"]


def test_change_in_one_of_many_new_directories_makes_all_unsure(
    behind: World, host: Path
) -> None:
    for number in range(100):
        behind.ok("mkdirat", AT_FDCWD, b"dir/new%d" % number, 0o755)
    assert behind.session.names() == []
    assert not hearing(behind)._told((os.stat(host).st_dev, 1), b"own", False)


def test_new_directory_that_is_looked_for_again_is_the_one_that_is_open(
    behind: World, host: Path
) -> None:
    """The host says that it was born later than it was made here."""
    behind.ok("mkdirat", AT_FDCWD, b"dir/new", 0o755)
    there = behind.ok("openat", AT_FDCWD, b"dir/new", os.O_RDONLY | os.O_DIRECTORY, 0)
    behind.ok("sync")
    heard(behind, lambda: os.chmod(host / "dir" / "new", 0o711), b"new")
    buffer = behind.task.buffer(144)
    assert behind.call("newfstatat", AT_FDCWD, b"dir/new/inner", buffer, 0) == -ENOENT.number
    behind.ok("mkdirat", there, b"inner", 0o755)
    behind.ok("newfstatat", AT_FDCWD, b"dir/new/inner", buffer, 0)
