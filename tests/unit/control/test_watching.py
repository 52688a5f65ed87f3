"""A directory that is watched from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.abi.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from sentry.control.answers import FileEvent
from sentry.control.orders import FileOrder
from sentry.control.protocol import Reply
from sentry.control.watching import parsed
from tests.unit.control.filing import Asked, error_of
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        made.init.ok("mkdir", b"/d", 0o755)
        yield made


def test_what_happens_is_told_as_it_happens(world: World) -> None:
    asked = Asked(world, FileOrder("watch", b"/d"))
    asked.settle()
    assert asked.replies == [Reply()]

    fd = world.init.ok("open", b"/d/f", O_CREAT | O_WRONLY, 0o644)
    world.init.ok("write", fd, b"x", 1)
    world.init.ok("mkdir", b"/d/sub", 0o755)
    world.init.ok("rename", b"/d/f", b"/d/g")
    world.init.ok("unlink", b"/d/g")
    asked.settle()

    found = {(event.name, event.mask & ~IN_ISDIR) for event in asked.lines(FileEvent)}
    assert found >= {
        (b"f", IN_CREATE), (b"f", IN_MODIFY), (b"sub", IN_CREATE), (b"f", IN_MOVED_FROM),
        (b"g", IN_MOVED_TO), (b"g", IN_DELETE),
    }  # fmt: skip
    moved = [event.cookie for event in asked.lines(FileEvent) if event.cookie]
    assert len(moved) == 2 and len(set(moved)) == 1
    asked.filing.abandon()
    world.settle()
    assert (world.loop.fibers, world.vfs.inotify_instances, world.vfs.inotify_watches) == (0, 0, 0)
    asked.leave()


def test_it_ends_with_the_directory(world: World) -> None:
    asked = Asked(world, FileOrder("watch", b"/d"))
    asked.settle()
    world.init.ok("rmdir", b"/d")
    while asked._out >= 0:
        asked.settle()

    assert asked.replies == [Reply()]
    assert world.vfs.inotify_instances == 0


def test_what_cannot_be_watched_says_why(world: World) -> None:
    assert error_of(world, "watch", b"/none") == "ENOENT"
    world.init.ok("close", world.init.ok("open", b"/f", O_CREAT | O_WRONLY, 0o644))
    assert error_of(world, "watch", b"/f") == "ENOTDIR"
    world.init.ok("chmod", b"/d", 0o700)
    assert error_of(world, "watch", b"/d", uid=5, gid=5) == "EACCES"


def test_events_are_read_whole() -> None:
    event = bytes.fromhex("01000000 00010000 07000000 10000000".replace(" ", ""))
    data = event + b"name".ljust(16, b"\0") + event[:12] + bytes(4)

    assert parsed(data) == [FileEvent(256, b"name", 7), FileEvent(256, b"", 7)]
