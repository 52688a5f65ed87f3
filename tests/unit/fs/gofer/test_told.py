"""What stat(2) tells of what is changed behind stays so when the host has made the change."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import pytest

from gofer.p9.extensions import Rdrainx
from sentry.abi.fcntl import AT_SYMLINK_NOFOLLOW
from sentry.abi.stat import STAT
from sentry.fs.gofer.journal import Journal
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_behind_made import AT_REMOVEDIR, warm
from tests.unit.fs.gofer.test_journal import SECOND, make, set_times

pytestmark = pytest.mark.root

Seen = tuple[int, ...]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """The host has made one of each kind before."""
    made = make_world(journal=1 << 16)
    warm(made)
    return made


def seen(world: World, path: bytes) -> Seen:
    """Mode, owner, links, and the time of the last change."""
    buffer = world.task.buffer(STAT.size)
    world.ok("newfstatat", AT_FDCWD, path, buffer, 0x100)
    found = STAT.unpack(world.task.read(buffer, STAT.size))
    mtime = found.st_mtime * SECOND + found.st_mtime_nsec
    return found.st_mode, found.st_uid, found.st_gid, found.st_nlink, mtime


def at_host(path: Path) -> Seen:
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_mtime_ns


def grow(world: World) -> None:
    """Directories that were there and new ones, with other names than before."""
    world.ok("mkdir", b"dir/new", 0o755)
    world.ok("mkdir", b"dir/new/inner", 0o700)
    make(world, b"dir/sub/file")
    world.ok("renameat2", AT_FDCWD, b"dir/new/inner", AT_FDCWD, b"moved", 0)
    world.ok("symlink", b"x", b"dir/new/link")
    world.ok("mkdir", b"dir/brief", 0o755)
    world.ok("unlinkat", AT_FDCWD, b"dir/brief", AT_REMOVEDIR)


PATHS = (b".", b"dir", b"dir/sub", b"dir/new", b"moved", b"dir/new/link")


def test_directories_are_told_as_the_host_has_them_later(world: World, host: Path) -> None:
    for path in (b".", b"dir", b"dir/sub"):
        world.listdir(path)
        world.stat(path)
    world.session.names()
    grow(world)
    told = {path: seen(world, path) for path in PATHS}
    asked = world.session.names()
    assert set(asked) <= {"Tinheritx", "Tdrainx", "Twalkx"}
    # `moved` has no fid, so nobody would hear of it; with that the link is done, and let go.
    assert asked.count("Twalkx") <= 2
    world.ok("sync")
    assert {path: seen(world, path) for path in PATHS} == told
    assert {path: at_host(host / os.fsdecode(path)) for path in PATHS} == told


def test_message_to_the_gofer_does_not_change_times(world: World, host: Path) -> None:
    """It has the records done."""
    world.ok("mkdir", b"d", 0o755)
    make(world, b"d/file")
    told = seen(world, b"d")
    world.ok("setxattr", b"d/file", b"user.x", b"value", 5, 0)
    assert at_host(host / "d") == told
    world.fs.distrust(5)
    assert seen(world, b"d") == told


def test_times_of_a_directory_whose_fid_is_given_back(world: World, host: Path) -> None:
    world.ok("mkdir", b"d", 0o755)
    make(world, b"d/file")
    told = seen(world, b"d")
    world.fs.fids.give_all_back()
    world.ok("sync")
    assert at_host(host / "d") == told


@pytest.mark.parametrize("path", [b"d", b"d/link", b"d/fifo"])
def test_owner_mode_and_times_cost_no_message(path: bytes, world: World, host: Path) -> None:
    make(world, b"warmer")
    world.ok("chown", b"warmer", 1000, 1000)
    world.ok("mkdir", b"d", 0o755)
    world.ok("symlink", b"x", b"d/link")
    world.ok("mknod", b"d/fifo", stat.S_IFIFO | 0o600, 0)
    world.session.names()
    world.ok("fchownat", AT_FDCWD, path, 1000, 1000, 0x100)
    if path != b"d/link":
        world.ok("chmod", path, 0o711)
    times = world.task.place(b"".join(at.to_bytes(8, "little") for at in (3, 0, 5, 0)))
    world.ok("utimensat", AT_FDCWD, path, times, 0x100)
    told = seen(world, path)
    assert world.session.names() == []
    assert told[4] == 5 * SECOND
    world.ok("sync")
    assert at_host(host / os.fsdecode(path)) == told == seen(world, path)


def test_times_that_were_set_stay_when_the_names_are_older(world: World, host: Path) -> None:
    """As tar does: a directory gets its times when all is in it."""
    world.ok("mkdir", b"d", 0o755)
    make(world, b"d/file")
    set_times(world, b"d", 7)
    world.ok("sync")
    assert at_host(host / "d")[4] == 7 * SECOND
    make(world, b"d/more")
    assert seen(world, b"d")[4] > 7 * SECOND


def test_file_with_other_names_is_told_without_a_message(world: World, host: Path) -> None:
    make(world, b"a", b"contents")
    world.ok("linkat", AT_FDCWD, b"a", AT_FDCWD, b"b", 0)
    world.ok("renameat2", AT_FDCWD, b"b", AT_FDCWD, b"c", 0)
    world.ok("unlinkat", AT_FDCWD, b"a", 0)
    world.session.names()
    told = seen(world, b"c")
    assert world.session.names() == []
    assert told[3] == 1
    world.ok("sync")
    assert at_host(host / "c") == told


def test_directory_that_is_gone_has_no_links(world: World) -> None:
    world.ok("mkdir", b"d", 0o755)
    fd = world.open(b"d", os.O_RDONLY | os.O_DIRECTORY)
    world.ok("unlinkat", AT_FDCWD, b"d", AT_REMOVEDIR)
    assert world.fstat(fd).st_nlink == 0


def test_set_group_id_directory_is_asked_for(world: World, host: Path) -> None:
    """The host may drop the bit, and what is made in one has it, too."""
    world.ok("mkdir", b"d", 0o755)
    world.ok("chmod", b"d", 0o2755)
    assert at_host(host / "d")[0] == seen(world, b"d")[0]
    world.ok("mkdir", b"d/e", 0o755)
    assert at_host(host / "d" / "e")[0] == seen(world, b"d/e")[0]


def leave(world: World) -> None:
    """Nobody holds a file of it that is not open."""
    world.fs.handles.evict(100)
    world.task.task.kernel.vfs.dentries.forget()
    world.session.names()


def make_some(world: World, folder: bytes) -> list[bytes]:
    """A file of each kind, which the host has."""
    make(world, folder + b"/new", b"contents")
    world.ok("symlink", b"new", folder + b"/link")
    world.ok("mknod", folder + b"/fifo", stat.S_IFIFO | 0o640, 0)
    world.ok("fchownat", AT_FDCWD, folder + b"/link", 0, 0, AT_SYMLINK_NOFOLLOW)
    world.ok("sync")
    return [folder + name for name in (b"/new", b"/link", b"/fifo")]


def test_what_nobody_holds_any_more_is_told_and_removed_without_a_message(
    world: World, host: Path
) -> None:
    world.ok("mkdir", b"d", 0o755)
    paths = make_some(world, b"d")
    told = [world.stat(path, nofollow=True) for path in paths]
    leave(world)
    held = {inode.ino for inode in world.fs.inodes.held()}
    assert held.isdisjoint(found.st_ino for found in told)
    assert [world.stat(path, nofollow=True) for path in paths] == told
    leave(world)
    for path in paths:
        world.ok("unlink", path)
    assert world.session.names() == []
    world.ok("sync")
    assert os.listdir(host / "d") == []


def test_link_that_nobody_held_is_the_one_that_is_open(world: World) -> None:
    """The host says that it was born later than it was made here."""
    world.ok("mkdir", b"d", 0o755)
    make_some(world, b"d")
    leave(world)
    world.open(b"d/link", os.O_PATH | os.O_NOFOLLOW)
    directory = world.fs.root.known(b"d")  # type: ignore[attr-defined]
    one = directory.known(b"link")
    directory.heard(b"link", False)
    world.stat(b"d/link", nofollow=True)
    assert directory.known(b"link") is one


def test_what_was_refused_of_a_file_that_nobody_holds_is_not_told(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host makes it, and refuses its times, before the Sentry hears of either."""
    take, journal, refused = Journal._take, world.fs.journal, list[int]()
    assert journal is not None

    def refuses(self: Journal, reply: Rdrainx) -> None:
        failures = b"".join(struct.pack("<QI", at, errno.EPERM) for at in refused)
        refused.clear()
        take(self, Rdrainx(reply.position, failures, 0, reply.made, reply.room))

    monkeypatch.setattr(Journal, "_take", refuses)
    world.ok("mkdir", b"d", 0o755)
    world.ok("symlink", b"new", b"d/link")
    refused.append(journal.position)
    world.ok("fchownat", AT_FDCWD, b"d/link", 0, 0, AT_SYMLINK_NOFOLLOW)
    leave(world)
    world.ok("sync")
    world.session.names()
    world.stat(b"d/link", nofollow=True)
    assert world.session.names() == ["Twalkx"]
