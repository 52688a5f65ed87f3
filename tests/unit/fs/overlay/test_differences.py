"""What has changed over a lower tree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.abi.fcntl import O_APPEND, O_CREAT, O_WRONLY
from sentry.errors import ENAMETOOLONG
from sentry.fs.overlay.differences import Change, differences
from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.interface import Owner
from sentry.wait.fiber import Mode
from sentry.wait.steps import Pace
from tests.world import Program, World

ROOT = Owner(0, 0)


def lower(world: World) -> OverlayFs:
    """Two directories with files, over which nothing has changed yet."""
    fs = TmpFs.make(world.vfs, "mode=0755")
    for name in (b"a", b"b"):
        directory = fs.root.mkdir(name, 0o755, ROOT)
        assert isinstance(directory, TmpDirectory)
        inner = directory.mkdir(b"inner", 0o755, ROOT)
        for place in (directory, inner):
            place.create(b"one", 0o644, ROOT)
            place.create(b"two", 0o644, ROOT)
    return OverlayFs.over(world.vfs, fs)


@pytest.fixture
def world() -> Iterator[World]:
    with World(lower) as made:
        yield made


def found(world: World) -> dict[str, str]:
    """What is told: path → kind."""
    told: list[Change] = []

    async def tell(change: Change) -> None:
        told.append(change)

    fs = world.root
    assert isinstance(fs, OverlayFs)
    world.run(differences(fs, tell))
    assert len({change.path for change in told}) == len(told)
    return {change.path.decode(): change.kind for change in told}


def append(program: Program, path: bytes) -> None:
    fd = program.ok("open", path, O_WRONLY | O_APPEND | O_CREAT, 0o644)
    program.ok("write", fd, b"x", 1)
    program.ok("close", fd)


def test_a_tree_that_was_only_read_is_the_same(world: World) -> None:
    fd = world.init.ok("open", b"/a/inner/one", 0, 0)
    world.init.ok("close", fd)
    assert found(world) == {}


def test_what_is_made_changed_and_removed_is_told(world: World) -> None:
    append(world.init, b"/a/inner/one")
    append(world.init, b"/b/new")
    world.init.ok("unlink", b"/a/two")
    world.init.ok("mkdir", b"/c", 0o755)
    append(world.init, b"/c/deep")

    assert found(world) == {
        "/a/inner/one": "modified",
        "/b/new": "added",
        "/a/two": "removed",
        "/c": "added",
        "/c/deep": "added",
    }


def test_what_was_there_only_meanwhile_is_not_told(world: World) -> None:
    append(world.init, b"/a/new")
    world.init.ok("unlink", b"/a/new")
    world.init.ok("mkdir", b"/tmp", 0o755)
    world.init.ok("rmdir", b"/tmp")

    assert found(world) == {}


def test_a_file_that_takes_the_place_of_another_modifies_it(world: World) -> None:
    append(world.init, b"/a/new")
    world.init.ok("rename", b"/a/new", b"/a/one")
    assert found(world) == {"/a/one": "modified"}

    world.init.ok("rename", b"/b/one", b"/b/away")
    world.init.ok("rename", b"/b/away", b"/b/one")
    assert found(world).get("/b/away") is None


def test_what_was_moved_is_gone_there_and_added_here(world: World) -> None:
    append(world.init, b"/a/inner/two")
    world.init.ok("rename", b"/a/inner", b"/b/moved")

    assert found(world) == {
        "/a/inner": "removed",
        "/b/moved": "added",
        "/b/moved/two": "modified",
    }


def test_attributes_of_a_directory_count(world: World) -> None:
    world.init.ok("chmod", b"/a/inner", 0o700)
    append(world.init, b"/b/inner/new")

    assert found(world) == {"/a/inner": "modified", "/b/inner/new": "added"}


def test_a_tree_that_no_path_leads_through_is_refused(world: World) -> None:
    world.init.ok("chdir", b"/a")
    for _ in range(20):
        world.init.ok("mkdir", b"d" * 250, 0o755)
        world.init.ok("chdir", b"d" * 250)

    with pytest.raises(ENAMETOOLONG):
        found(world)


def test_others_run_between_directories_also_if_they_are_empty(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = 0

    class Counted(Pace):
        async def rest(self, mode: Mode = Mode.KILLABLE) -> None:
            nonlocal rests
            rests += 1
            await super().rest(mode)

    monkeypatch.setattr("sentry.fs.overlay.differences.Pace", Counted)
    for number in range(10):
        world.init.ok("mkdir", b"/a/new%d" % number, 0o755)

    assert len(found(world)) == 10
    assert rests >= 20  # each as a name, and as a directory
