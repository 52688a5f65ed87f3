"""Trees that are listed and removed for whoever asks from outside."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.control.answers import FileEntry
from sentry.control.orders import FileOrder
from tests.unit.control.filing import Asked, done, entries, error_of
from tests.world import World

DEEP = 400


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        for path in (b"/a", b"/a/b", b"/a/b/c", b"/other"):
            made.init.ok("mkdir", path, 0o755)
        for path in (b"/a/1", b"/a/b/2", b"/other/kept"):
            made.init.ok("close", made.init.ok("open", path, O_CREAT | O_WRONLY, 0o644))
        made.init.ok("symlink", b"/other", b"/a/b/out")
        yield made


def test_a_listing_is_as_deep_as_is_asked_for(world: World) -> None:
    assert set(entries(world, b"/a")) == {b"/a/1", b"/a/b"}
    assert set(entries(world, b"a/", 2)) == {b"a/1", b"a/b", b"a/b/2", b"a/b/c", b"a/b/out"}
    found = entries(world, b"/", 100)
    assert found[b"/a/b/out"].target == b"/other"
    assert stat.S_ISDIR(found[b"/a/b/c"].mode)
    assert b"/a/b/out/kept" not in found
    assert error_of(world, "list", b"/none") == "ENOENT"
    assert error_of(world, "list", b"/a/1") == "ENOTDIR"


def test_many_names_come_as_they_are_read(world: World) -> None:
    world.init.ok("mkdir", b"/many", 0o755)
    for number in range(3000):
        name = b"/many/%04d" % number
        world.init.ok("close", world.init.ok("open", name, O_CREAT | O_WRONLY, 0o644))
    asked = Asked(world, FileOrder("list", b"/many"))
    world.settle()
    assert not asked.replies  # the pipe is full

    while not asked.replies or asked._out >= 0:
        asked.settle()
    assert [entry.path for entry in asked.lines(FileEntry)] == [
        b"/many/%04d" % number for number in range(3000)
    ]


def test_a_tree_is_removed_and_nothing_that_a_link_in_it_names(world: World) -> None:
    assert error_of(world, "remove", b"/a") == ""

    assert set(entries(world, b"/", 9)) == {b"/other", b"/other/kept"}
    assert error_of(world, "remove", b"/a") == "ENOENT"
    assert error_of(world, "remove", b"/other/kept") == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [(b"/", "EBUSY"), (b"/a/.", "EINVAL"), (b"/a/..", "EINVAL"), (b"", "ENOENT"),
     (b"/a/1/", "ENOTDIR")],
)  # fmt: skip
def test_what_is_no_name_is_not_removed(world: World, path: bytes, why: str) -> None:
    before = set(entries(world, b"/", 9))
    assert error_of(world, "remove", path) == why
    assert set(entries(world, b"/", 9)) == before


def test_what_is_mounted_stays(world: World) -> None:
    world.mount("tmpfs", b"/a/b/c")
    world.init.ok("mkdir", b"/a/b/c/inside", 0o755)

    assert error_of(world, "remove", b"/a") == "EBUSY"
    assert b"/a/b/c/inside" in entries(world, b"/", 9)
    assert error_of(world, "remove", b"/a/b/c") == "EBUSY"


def test_a_deep_tree_is_listed_and_removed(world: World) -> None:
    world.init.ok("chdir", b"/other")
    for _ in range(DEEP):
        world.init.ok("mkdir", b"d", 0o755)
        world.init.ok("chdir", b"d")
    world.init.ok("chdir", b"/")

    asked = done(world, FileOrder("list", b"/other", depth=1 << 16))
    assert len(asked.lines(FileEntry)) == DEEP + 1
    assert error_of(world, "remove", b"/other") == ""


def test_a_tree_that_no_path_leads_through_is_removed_and_not_listed(world: World) -> None:
    world.init.ok("chdir", b"/other")
    for _ in range(20):
        world.init.ok("mkdir", b"d" * 250, 0o755)
        world.init.ok("chdir", b"d" * 250)
    world.init.ok("chdir", b"/")

    assert error_of(world, "list", b"/other", depth=10) == ""
    assert error_of(world, "list", b"/other", depth=1 << 16) == "ENAMETOOLONG"
    assert error_of(world, "remove", b"/other") == ""


def test_what_belongs_to_others_stays(world: World) -> None:
    world.init.ok("chmod", b"/a/b", 0o755)
    world.init.ok("chown", b"/a", 1000, 1000)

    assert error_of(world, "remove", b"/a", uid=1000, gid=1000) == "EACCES"
    assert b"/a/b/2" in entries(world, b"/", 9)
