"""What the host refuses of what was written behind: who is told, how often, what is seen then."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest

from gofer.p9.extensions import Rdrainx
from gofer.p9.messages import Tclunk
from sentry.errors import EDQUOT, EIO, ENOSPC, Errno
from sentry.fs.gofer.journal import Entry, Inode, Journal
from sentry.fs.gofer.refusals import Refusals
from sentry.fs.gofer.spares import Spare
from sentry.platform.records import FID
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_behind_made import AT_REMOVEDIR, warm
from tests.unit.fs.gofer.test_journal import NEW, make

pytestmark = pytest.mark.root


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """The host has made one of each kind before."""
    made = make_world(journal=1 << 16)
    warm(made)
    return made


def refused(world: World, host: Path) -> int:
    """A new file that is open, whose name the host has taken meanwhile for a directory."""
    fd = world.open(b"taken", NEW)
    world.write(fd, b"ours")
    (host / "taken").mkdir()
    return fd


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "close"])
def test_who_has_the_file_open_is_told_once(call: str, world: World, host: Path) -> None:
    fd = refused(world, host)
    world.ok("sync")
    again, third = world.ok("dup", fd), world.ok("dup", fd)
    assert world.call(call, fd) == -errno.EIO
    assert world.call(call, again) == 0
    assert world.listdir(b"taken") == []
    assert world.read(third, 10, 0) == b"ours"


def test_who_has_another_file_open_hears_nothing(world: World, host: Path) -> None:
    other = world.open(b"other", NEW)
    fd = refused(world, host)
    assert world.call("fsync", other) == 0
    assert world.call("fsync", fd) == -errno.EIO


def test_each_description_is_told(world: World, host: Path) -> None:
    fd = refused(world, host)
    second = world.open(b"taken", os.O_RDWR)
    assert world.call("fsync", fd) == -errno.EIO
    assert world.call("fsync", second) == -errno.EIO
    assert world.call("fsync", second) == 0


def test_file_system_is_told_once_to_each_description(world: World, host: Path) -> None:
    one, other = world.open(b"file"), world.open(b"dir", os.O_DIRECTORY)
    refused(world, host)
    assert world.call("sync") == 0
    for fd in (one, other):
        assert world.call("syncfs", fd) == -errno.EIO
        assert world.call("syncfs", fd) == 0
    assert world.call("syncfs", world.open(b"file")) == 0


def test_who_opens_later_is_told_if_nobody_was(world: World, host: Path) -> None:
    refused(world, host)
    world.ok("sync")
    assert world.call("syncfs", world.open(b"file")) == -errno.EIO
    assert world.call("syncfs", world.open(b"file")) == 0


def test_directory_is_told_and_shows_what_is_there(world: World, host: Path) -> None:
    fd = world.open(b"dir", os.O_DIRECTORY)
    assert world.listdir(b"dir") == [b"inner", b"sub"]
    assert world.listdir(b"dir/sub") == []
    (host / "dir" / "sub" / "other").touch()
    world.ok("unlinkat", AT_FDCWD, b"dir/sub", AT_REMOVEDIR)
    assert world.call("fsync", fd) == -errno.EIO
    assert world.listdir(b"dir") == [b"inner", b"sub"]
    assert world.listdir(b"dir/sub") == [b"other"]
    make(world, b"dir/more")
    world.ok("sync")
    assert (host / "dir" / "more").exists()


def test_other_directories_stay_known(world: World, host: Path) -> None:
    world.listdir(b"dir/sub")
    refused(world, host)
    world.ok("sync")
    world.session.names()
    assert world.listdir(b"dir/sub") == []
    assert "Treaddirx" not in world.session.names()


def test_what_lies_below_a_directory_that_was_refused_is_refused(world: World, host: Path) -> None:
    world.listdir(b"dir/sub")
    world.ok("mkdir", b"dir/sub/d", 0o755)
    fd = world.open(b"dir/sub/d/file", NEW)
    directory = world.open(b"dir/sub/d", os.O_DIRECTORY)
    (host / "dir" / "sub").rmdir()
    assert world.call("fsync", fd) == -errno.EIO
    assert world.call("fsync", directory) == -errno.EIO
    assert world.call("openat", directory, b"x", NEW, 0o600) == -errno.ESTALE
    other = world.open(b"file")
    assert world.call("syncfs", other) == -errno.EIO
    world.ok("mkdir", b"e", 0o755)
    world.ok("unlinkat", AT_FDCWD, b"e", AT_REMOVEDIR)
    assert world.call("syncfs", other) == 0


def test_more_than_are_told_one_by_one(world: World, host: Path) -> None:
    """The Gofer tells of 64."""
    fds = [world.open(b"n%d" % number, NEW) for number in range(80)]
    world.ok("sync")
    for number in range(80):
        os.unlink(host / f"n{number}")
        world.ok("fchmodat", AT_FDCWD, b"n%d" % number, 0o600)
    world.ok("sync")
    assert [world.call("fsync", fd) for fd in fds] == [-errno.EIO] * 80


def test_who_made_the_file_is_told_though_a_fid_ended_meanwhile(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a finalizer may end one at any moment: its record comes next."""
    made_of, journal = Journal.made_of, world.fs.journal
    assert journal is not None

    def amidst(self: Journal, inode: Inode, spare: Spare, moment: int) -> None:
        made_of(self, inode, spare, moment)
        world.session.clunk(world.session.new_fid())

    monkeypatch.setattr(Journal, "made_of", amidst)
    before = journal.position
    fd = refused(world, host)
    assert journal.position > before
    assert world.call("fsync", fd) == -errno.EIO


def test_record_within_another_changes_nothing_of_it(world: World) -> None:
    journal = world.fs.journal
    assert journal is not None

    def put(ring: Any, *fields: Any) -> int:
        size = int(FID(ring, *fields))
        world.session.clunk(world.session.new_fid())
        return size

    before = journal.position
    assert journal.put(put, (Tclunk.type, world.session.new_fid()))
    journal.about()
    assert journal.position == journal._ring.position
    assert journal._entries[-1].start == before
    world.ok("sync")
    assert journal.reached(journal.position)


def test_refusals_without_number_are_told_once_for_each_file() -> None:
    class File:
        """Something that can be referred to."""

    files = [File(), File(), File()]
    gone, entries = ref(File()), []
    for at in range(100):
        entries.append(Entry(at, at + 1, (ref(files[0]), ref(files[1 + at % 2]), gone), None))
    heard: list[tuple[list[Any], int]] = []
    behind = SimpleNamespace(
        refused=lambda entry, number: heard.append(([found() for found in entry.inodes], number)),
        distrust=lambda number: heard.append(([], number)),
    )
    journal: Any = SimpleNamespace(_behind=behind)
    Journal._take_refused(journal, Rdrainx(100, b"", 65, b"", 0), entries)
    assert heard == [(files, errno.EIO), ([], errno.EIO)]


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, ENOSPC), (errno.EDQUOT, EDQUOT), (errno.EBADF, EIO), (0, EIO)],
)
def test_errors_are_those_that_fsync_has(number: int, told: type[Errno]) -> None:
    refusals = Refusals()
    refusals.add(number)
    with pytest.raises(told):
        refusals.tell()
