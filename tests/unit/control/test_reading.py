"""A file of the container for whoever asks from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.control.reading import Reading
from sentry.errors import EINVAL
from tests.world import World

DATA = bytes(range(256)) * 1000


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        fd = made.init.ok("open", b"/f", O_CREAT | O_WRONLY, 0o600)
        made.init.ok("write", fd, DATA, len(DATA))
        made.init.ok("close", fd)
        yield made


def _read(world: World, path: bytes, size: int = 0) -> tuple[bytes, str]:
    """What came, and what was said at the end."""
    told: list[str] = []
    out, into = os.pipe()
    os.set_blocking(out, False)
    Reading(world.kernel, world.kernel.container, [into], (path, size), told.append)
    found = b""
    while not told:
        world.settle()
        with suppress(BlockingIOError):
            found += os.read(out, 1 << 16)
    while data := os.read(out, 1 << 16):
        found += data
    os.close(out)
    assert world.loop.fibers == 0
    return found, told[0]


def test_a_file_comes_to_its_end_or_to_the_size(world: World) -> None:
    assert _read(world, b"/f") == (DATA, "")
    assert _read(world, b"/f", 70_000) == (DATA[:70_000], "")
    assert _read(world, b"/f", 1 << 40) == (DATA, "")


@pytest.mark.parametrize(("path", "why"), [(b"/none", "ENOENT"), (b"/", "EISDIR")])
def test_what_cannot_be_read_says_why(world: World, path: bytes, why: str) -> None:
    assert _read(world, path) == (b"", why)


def test_who_goes_away_ends_it(world: World) -> None:
    told: list[str] = []
    out, into = os.pipe()
    reading = Reading(world.kernel, world.kernel.container, [into], (b"/f", 0), told.append)
    world.settle()
    assert told == []
    reading.abandon()
    world.settle()

    assert world.loop.fibers == 0
    os.close(out)


def test_a_reader_that_has_enough_kills_nobody(world: World) -> None:
    told: list[str] = []
    out, into = os.pipe()
    os.close(out)
    Reading(world.kernel, world.kernel.container, [into], (b"/f", 0), told.append)
    world.settle()

    assert told == ["EPIPE"]
    assert not world.init.task.dead


@pytest.mark.parametrize(("path", "size"), [(b"", 0), (b"a\0b", 0), (b"/f", -1), (b"x" * 4096, 0)])
def test_what_makes_no_sense_is_refused_and_nothing_stays_open(
    world: World, path: bytes, size: int
) -> None:
    fds = list(os.pipe())

    with pytest.raises(EINVAL):
        Reading(world.kernel, world.kernel.container, fds[1:], (path, size), print)

    with pytest.raises(OSError):
        os.fstat(fds[1])
    os.close(fds[0])
