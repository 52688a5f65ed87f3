"""Extended attributes: which there are is remembered, as long as it is true."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fs.gofer.conftest import MakeWorld, World
from tests.unit.fs.gofer.test_hearing import heard, heard_all, hearing
from tests.unit.fs.gofer.test_late import Slow, children

pytestmark = pytest.mark.root

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def names(world: World, path: bytes) -> list[bytes]:
    """listxattr(2)."""
    buffer = world.task.buffer(256)
    size = world.ok("listxattr", path, buffer, 256)
    return sorted(bytes(world.task.read(buffer, size)).split(b"\0")[:-1])


def put(world: World, path: bytes, name: bytes, value: bytes = b"value") -> None:
    world.ok("setxattr", path, name, world.task.place(value), len(value), 0)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Written behind; warm."""
    made = make_world(journal=1 << 16)
    made.ok("close", made.open(b"warm", NEW))
    made.ok("sync")
    made.ok("close", made.open(b"dir/warm", NEW))
    for path in (b".", b"dir", b"dir/sub"):
        made.listdir(path)
    heard_all(made)
    made.session.names()
    return made


@pytest.fixture(params=["exclusive", "shared"])
def any_world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    return make_world(exclusive=request.param == "exclusive")


def test_list_has_what_is_set_and_not_what_is_removed(any_world: World) -> None:
    for path in (b"/file", b"/dir", b"/dir/inner"):
        assert names(any_world, path) == []
        put(any_world, path, b"user.a")
        put(any_world, path, b"user.b")
        assert names(any_world, path) == names(any_world, path) == [b"user.a", b"user.b"]
        any_world.ok("removexattr", path, b"user.a")
        assert names(any_world, path) == [b"user.b"]


def test_list_is_asked_for_once(world: World) -> None:
    put(world, b"dir/inner", b"user.a")
    world.session.names()
    for path in (b"dir/inner", b"dir"):
        names(world, path)
        assert "Tgetxattrx" in world.session.names()
        names(world, path)
        assert world.session.names() == []


def test_list_of_a_new_file_is_known(world: World) -> None:
    fd = world.open(b"dir/new", NEW)
    world.write(fd, b"data")
    world.ok("fchmod", fd, 0o600)
    assert names(world, b"dir/new") == []
    assert world.session.names() == []
    world.ok("sync")
    world.session.names()
    assert names(world, b"dir/new") == []
    assert world.session.names() == []


def test_list_of_a_new_file_has_what_is_set(world: World, host: Path) -> None:
    world.ok("close", world.open(b"dir/new", NEW))
    put(world, b"dir/new", b"user.a")
    assert names(world, b"dir/new") == [b"user.a"]
    world.ok("removexattr", b"dir/new", b"user.a")
    assert names(world, b"dir/new") == []
    world.ok("close", world.open(b"dir/other", NEW))
    world.ok("sync")
    heard(world, lambda: os.setxattr(host / "dir" / "other", "user.b", b"told"), b"other")
    assert names(world, b"dir/other") == [b"user.b"]


def test_list_is_the_new_one_when_the_host_has_changed_it(world: World, host: Path) -> None:
    assert names(world, b"dir/inner") == []
    heard(world, lambda: os.setxattr(host / "dir" / "inner", "user.a", b"told"), b"inner")
    assert names(world, b"dir/inner") == [b"user.a"]
    heard(world, lambda: os.removexattr(host / "dir" / "inner", "user.a"), b"inner")
    assert names(world, b"dir/inner") == []


def test_links_have_none(any_world: World) -> None:
    any_world.ok("symlink", b"file", b"/to")
    assert any_world.ok("llistxattr", b"/to", 0, 0) == 0


@pytest.fixture
def slow(make_world: MakeWorld) -> Iterator[Slow]:
    """A tree, and its Gofer, which may stop."""
    before = children()
    world = make_world()
    (gofer,) = children() - before
    made = Slow(world, gofer)
    yield made
    made.go_on()


@pytest.mark.parametrize("call", ["getxattr", "listxattr"])
def test_answer_from_before_a_change_is_not_kept(slow: Slow, host: Path, call: str) -> None:
    """It has come, and so has the news, when the call goes on."""
    world = slow.world
    buffer = world.task.buffer(64)
    asked: dict[str, tuple[bytes | int, ...]] = {
        "getxattr": (b"/file", b"user.a", buffer, 64),
        "listxattr": (b"/file", buffer, 64),
    }
    world.stat(b"/file")
    heard_all(world)
    slow.stop()
    slow.begin((call, *asked[call]))
    slow.go_on()
    select.select([world.session.sock], [], [])
    os.setxattr(host / "file", "user.a", b"value")
    select.select([hearing(world)._session.sock], [], [])
    assert slow.finish(1) == [-errno.ENODATA if call == "getxattr" else 0]
    assert world.ok(call, *asked[call]) == len(b"value" if call == "getxattr" else b"user.a\0")


@pytest.mark.parametrize("path", [b"dir/new", b"dir/inner"])
def test_list_is_asked_for_again_below_a_directory_without_a_fid(
    world: World, host: Path, path: bytes
) -> None:
    """Nobody would have told of a change."""
    if path == b"dir/new":
        world.ok("close", world.open(path, NEW))
    fd = world.open(path)
    assert names(world, path) == []
    world.ok("sync")
    heard_all(world)
    world.fs.fids.give_all_back()
    os.setxattr(host / os.fsdecode(path), "user.a", b"unheard")
    assert names(world, path) == [b"user.a"]
    world.ok("close", fd)
