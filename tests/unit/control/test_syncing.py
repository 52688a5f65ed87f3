"""What is written behind gets to the host when a container is paused, or synced from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.abi.fcntl import O_CREAT, O_RDWR
from sentry.abi.mman import MAP_SHARED, MS_SYNC, PROT_READ, PROT_WRITE
from sentry.control.syncing import settle, share, sync
from sentry.errors import EEXIST, EIO, Errno
from tests.world import Program, World

pytestmark = pytest.mark.root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Its root is written behind; the first file is made by a message."""
    root = tmp_path / "root"
    root.mkdir()
    with World(lambda made: made.export_behind(root)) as made:
        create(made.init, b"warm")
        yield made


@pytest.fixture
def host(world: World, tmp_path: Path) -> Path:
    return tmp_path / "root"


def create(program: Program, name: bytes) -> int:
    return int(program.ok("open", name, O_CREAT | O_RDWR, 0o600))


def run(world: World, coro: object) -> str:
    """"" or what it raised."""
    told: list[str] = []

    def ended(_: object, error: BaseException | None) -> None:
        assert error is None or isinstance(error, Errno)
        told.append("" if error is None else type(error).__name__)

    world.loop.spawn(coro, "test", ended)  # type: ignore[arg-type]
    while not told:
        world.settle()
    return told[0]


@pytest.mark.parametrize("how", [settle, share, sync])
def test_host_has_the_names(how: object, world: World, host: Path) -> None:
    create(world.init, b"a")
    assert not (host / "a").exists()
    assert run(world, how(world.kernel.container)) == ""  # type: ignore[operator]
    assert (host / "a").exists()


def test_what_is_done_to_a_shared_root_is_with_the_host_at_once(world: World, host: Path) -> None:
    """A name that the host has made first is the host's."""
    program = world.init
    create(program, b"a")
    program.ok("mkdir", b"d", 0o700)
    program.ok("mkdir", b"e", 0o700)
    assert run(world, share(world.kernel.container)) == ""
    (host / "theirs").mkdir()
    assert program.call("mkdir", b"theirs", 0o700) == -EEXIST.number
    for call, *arguments in (
        ("mkdir", b"e/f", 0o700), ("rename", b"a", b"b"), ("link", b"b", b"e/c"),
        ("symlink", b"b", b"l"), ("chmod", b"b", 0o640), ("rmdir", b"d"),
    ):  # fmt: skip
        program.ok(call, *arguments)
    assert {path.name for path in host.iterdir()} == {"warm", "theirs", "e", "b", "l"}
    assert (host / "b").stat().st_mode & 0o777 == 0o640
    assert (host / "e" / "c").samefile(host / "b")
    create(program, b"new")
    assert (host / "new").exists()
    program.ok("unlink", b"new")
    assert not (host / "new").exists()
    assert run(world, share(world.kernel.container)) == ""


def test_sync_tells_what_was_refused_once_and_settle_does_not(world: World, host: Path) -> None:
    create(world.init, b"a")
    (host / "a").mkdir()
    assert run(world, settle(world.kernel.container)) == ""
    assert run(world, sync(world.kernel.container)) == EIO.__name__
    assert run(world, sync(world.kernel.container)) == ""


def test_container_that_has_ended_is_no_error_for_pause(world: World) -> None:
    world.init.ok("sync")
    world.kernel.container.init.tasks.clear()
    try:
        assert run(world, settle(world.kernel.container)) == ""
        assert run(world, sync(world.kernel.container)) == "ESRCH"
    finally:
        world.kernel.container.init.tasks.append(world.init.task)


def test_msync_makes_the_name_last(world: World, host: Path) -> None:
    fd = create(world.init, b"a")
    world.init.ok("ftruncate", fd, 4096)
    at = world.init.ok("mmap", 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    world.init.write(at, b"stored")
    assert not (host / "a").exists()
    world.init.ok("msync", at, 4096, MS_SYNC)
    assert (host / "a").read_bytes().startswith(b"stored")


def test_msync_tells_what_was_refused(world: World, host: Path) -> None:
    fd = create(world.init, b"a")
    world.init.ok("ftruncate", fd, 4096)
    at = world.init.ok("mmap", 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    (host / "a").mkdir()
    assert world.init.call("msync", at, 4096, MS_SYNC) == -EIO.number
    assert os.listdir(host / "a") == []
