"""Directories, links, FIFOs and sockets that are made behind: seen before the host has them, with
numbers that stay, and what is done in them meanwhile."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentry.fs.gofer import behind_made
from sentry.fs.gofer.journal import Journal
from sentry.fs.gofer.wire import FIRST_TOLD
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_journal import NEW, make
from tests.unit.gofer.harness import spawn

pytestmark = pytest.mark.root

AT_REMOVEDIR = 0x200


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """The host has made one of each kind before."""
    made = make_world(journal=1 << 16)
    warm(made)
    return made


def warm(world: World) -> None:
    world.ok("mkdir", b"warm", 0o755)
    world.ok("symlink", b"target", b"warm/link")
    world.ok("mknod", b"warm/fifo", stat.S_IFIFO | 0o600, 0)
    world.ok("mknod", b"warm/socket", stat.S_IFSOCK | 0o600, 0)
    world.ok("close", world.open(b"warm/file", NEW))
    world.ok("sync")
    world.listdir(b".")
    world.session.names()


def make_each(world: World) -> None:
    world.ok("mkdir", b"d", 0o750)
    world.ok("mkdir", b"d/e", 0o1755)
    make(world, b"d/e/file", b"contents")
    world.ok("symlink", b"e/file", b"d/link")
    world.ok("mknod", b"d/fifo", stat.S_IFIFO | 0o640, 0)
    world.ok("mknod", b"d/socket", stat.S_IFSOCK | 0o600, 0)


def test_tree_is_made_without_a_message(world: World, host: Path) -> None:
    make_each(world)
    assert world.listdir(b"d") == [b"e", b"fifo", b"link", b"socket"]
    assert world.contents(b"d/link") == b"contents"
    assert world.stat(b"d/e").st_mode == stat.S_IFDIR | 0o1755
    world.ok("chdir", b"d/e")
    assert world.stat(b"file").st_size == 8
    world.ok("chdir", b"/")
    assert world.session.names() == []
    assert not (host / "d").exists()
    world.ok("sync")
    assert (host / "d" / "link").read_bytes() == b"contents"
    assert stat.S_ISFIFO(os.stat(host / "d" / "fifo").st_mode)
    assert stat.S_ISSOCK(os.stat(host / "d" / "socket").st_mode)
    assert os.stat(host / "d" / "e").st_mode == stat.S_IFDIR | 0o1755


def test_numbers_stay(world: World) -> None:
    """Of all kinds, wherever they are told: by stat(2), in listings, after the cache is gone."""
    make_each(world)
    paths = [b"d", b"d/e", b"d/link", b"d/fifo", b"d/socket"]
    told = [world.stat(path, nofollow=True).st_ino for path in paths]
    assert len(set(told)) == len(told)
    assert min(told) >= FIRST_TOLD
    for _ in range(2):
        world.ok("sync")
        assert [world.stat(path, nofollow=True).st_ino for path in paths] == told
        world.fs.distrust(5)
        assert [world.stat(path, nofollow=True).st_ino for path in paths] == told


def test_number_is_known_to_an_answer_that_was_asked_for_at_once(world: World) -> None:
    world.ok("mkdir", b"d", 0o755)
    told = world.stat(b"d").st_ino
    world.fs.root.drop_listing()  # type: ignore[attr-defined]
    fd = world.open(b".", os.O_RDONLY | os.O_DIRECTORY)
    buffer = world.task.buffer(32768)
    raw = world.task.read(buffer, world.ok("getdents64", fd, buffer, 32768))
    listed = {}
    while raw:
        number, _, size = struct.unpack_from("<QqH", raw)
        listed[raw[19:size].split(b"\0")[0]] = number
        raw = raw[size:]
    assert listed[b"d"] == told


def test_gofer_is_told_to_go_on_after_many_were_made(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind_made, "MAKES", 16)
    for number in range(5):
        world.ok("symlink", b"x", b"l%d" % number)
    assert world.session.names() == ["Tdrainx"]
    world.ok("sync")
    assert sorted(host.glob("l?")) == [host / f"l{number}" for number in range(5)]


def test_no_more_is_left_to_make_than_can_be_told_at_once(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind_made, "MAKES", 16)
    monkeypatch.setattr(Journal, "hurry", lambda _: None)
    for number in range(20):
        world.ok("symlink", b"x", b"l%d" % number)
    journal = world.fs.journal
    assert journal is not None
    assert journal.makes == 3
    assert world.session.names().count("Tmakex") == 1
    world.ok("sync")
    assert len(list(host.glob("l*"))) == 21


def test_what_is_made_and_removed_is_never_at_the_host(world: World, host: Path) -> None:
    before = os.stat(host).st_mtime_ns
    world.ok("symlink", b"x", b"l")
    world.ok("unlinkat", AT_FDCWD, b"l", 0)
    world.ok("mknod", b"p", stat.S_IFIFO | 0o600, 0)
    world.ok("unlinkat", AT_FDCWD, b"p", 0)
    assert world.session.names() == []
    world.ok("sync")
    assert os.stat(host).st_mtime_ns == before


def test_directory_is_removed_without_a_message_if_it_is_empty(world: World, host: Path) -> None:
    make_each(world)
    assert world.call("unlinkat", AT_FDCWD, b"d/e", AT_REMOVEDIR) == -errno.ENOTEMPTY
    world.ok("unlinkat", AT_FDCWD, b"d/e/file", 0)
    world.session.names()
    world.ok("unlinkat", AT_FDCWD, b"d/e", AT_REMOVEDIR)
    assert "Tunlinkat" not in world.session.names()
    world.ok("sync")
    assert sorted(os.listdir(host / "d")) == ["fifo", "link", "socket"]


def test_removed_directory_that_somebody_is_in_can_be_asked(world: World) -> None:
    world.ok("mkdir", b"d", 0o755)
    fd = world.open(b"d", os.O_RDONLY | os.O_DIRECTORY)
    world.ok("unlinkat", AT_FDCWD, b"d", AT_REMOVEDIR)
    world.ok("fchmod", fd, 0o700)
    assert world.fstat(fd).st_mode == stat.S_IFDIR | 0o700
    assert world.call("openat", fd, b"x", NEW, 0o600) == -errno.ENOENT


def test_directories_are_moved_with_what_is_in_them(world: World, host: Path) -> None:
    make_each(world)
    world.ok("mkdir", b"empty", 0o755)
    world.session.names()
    world.ok("renameat2", AT_FDCWD, b"d", AT_FDCWD, b"empty", 0)
    world.ok("renameat2", AT_FDCWD, b"empty/e", AT_FDCWD, b"e", 1)
    world.ok("renameat2", AT_FDCWD, b"empty/link", AT_FDCWD, b"empty/fifo", 2)
    make(world, b"e/more", b"more")
    assert world.session.names() == []
    world.ok("sync")
    assert sorted(os.listdir(host / "e")) == ["file", "more"]
    assert (host / "empty" / "fifo").is_symlink()
    assert stat.S_ISFIFO(os.stat(host / "empty" / "link").st_mode)


def test_links_and_fifos_get_more_names(world: World, host: Path) -> None:
    make_each(world)
    world.ok("linkat", AT_FDCWD, b"d/fifo", AT_FDCWD, b"second", 0)
    assert world.session.names() == []
    assert world.stat(b"second").st_nlink == 2
    world.ok("sync")
    assert os.path.samefile(host / "second", host / "d" / "fifo")
    assert world.stat(b"second").st_ino == world.stat(b"d/fifo").st_ino


def test_listings_of_what_is_made_have_a_bound(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.fs.gofer.filesystem.MAX_LISTED", 20)
    fs: Any = world.fs
    names = [b"d%d" % number for number in range(4)]
    for at, name in enumerate(names):
        world.ok("mkdir", name, 0o755)
        for number in range(30 if at == 1 else 8):
            make(world, name + b"/%d" % number)
        assert fs._listed <= 20
        assert sum(fs._listings.values()) == fs._listed
    world.ok("unlink", b"d3/0")
    assert fs._listed == sum(map(len, (d.listing or () for d in fs._listings))) <= 20
    assert [len(world.listdir(name)) for name in names] == [8, 30, 8, 7]
    world.ok("sync")
    assert sorted(len(os.listdir(host / name.decode())) for name in names) == [7, 8, 8, 30]


def test_deep_tree_whose_fids_were_given_back(world: World, host: Path) -> None:
    path = b"d"
    for _ in range(40):
        world.ok("mkdir", path, 0o755)
        path += b"/d"
    world.fs.fids.give_all_back()
    make(world, path[:-1] + b"file", b"deep")
    assert world.contents(path[:-1] + b"file") == b"deep"
    world.ok("sync")
    assert os.path.exists(os.path.join(os.fsencode(host), path[:-1] + b"file"))


def test_fids_of_directories_that_are_not_there_yet_are_bound_behind(
    world: World, host: Path
) -> None:
    for number in range(3):
        world.ok("mkdir", b"d%d" % number, 0o755)
        make(world, b"d%d/file" % number)
    assert world.session.names() == []


def test_owner_mode_and_times_are_those_that_were_told(world: World, host: Path) -> None:
    world.ok("mkdir", b"d", 0o711)
    world.ok("symlink", b"x", b"l")
    told = [mtime(world, name) for name in (b"d", b"l")]
    world.ok("sync")
    assert [os.lstat(host / name).st_mtime_ns for name in ("d", "l")] == told
    assert [mtime(world, name) for name in (b"d", b"l")] == told


def mtime(world: World, path: bytes) -> int:
    buffer = world.task.buffer(144)
    world.ok("newfstatat", AT_FDCWD, path, buffer, 0x100)
    raw = world.task.read(buffer, 144)
    return int.from_bytes(raw[88:96], "little") * 10**9 + int.from_bytes(raw[96:104], "little")


def test_what_the_host_refuses_to_make_is_gone(world: World, host: Path) -> None:
    world.listdir(b"dir/sub")
    world.ok("mkdir", b"dir/sub/d", 0o755)
    make(world, b"dir/sub/d/file")
    fd = world.open(b"dir/sub/d", os.O_RDONLY | os.O_DIRECTORY)
    (host / "dir" / "sub").rmdir()
    world.call("sync")
    assert world.call("openat", AT_FDCWD, b"dir/sub/d", os.O_RDONLY, 0) < 0
    assert world.call("openat", fd, b"x", NEW, 0o600) < 0
    make(world, b"after")
    world.ok("sync")
    assert (host / "after").exists()


def test_of_too_many_the_host_is_asked(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.fs.gofer.wire.MAX_TOLD", 3)
    for number in range(5):
        world.ok("mkdir", b"d%d" % number, 0o755)
    assert (host / "d4").exists()
    told = [world.stat(b"d%d" % number).st_ino for number in range(5)]
    assert [number >= FIRST_TOLD for number in told] == [True] * 3 + [False] * 2
    world.ok("unlinkat", AT_FDCWD, b"d1", AT_REMOVEDIR)
    world.ok("mkdir", b"again", 0o755)
    assert world.stat(b"again").st_ino >= FIRST_TOLD


def test_long_link_is_made_at_once(world: World, host: Path) -> None:
    """It takes a block on some file systems."""
    world.ok("symlink", b"x" * 60, b"l")
    assert (host / "l").is_symlink()


STEPS = (
    ("mkdir", "d{}"), ("symlink", "d{}/link"), ("mkdir", "d{}/inner"), ("create", "d{}/inner/file"),
    ("rename", "d{}", "e{}"), ("mknod", "e{}/fifo"), ("unlink", "e{}/link"),
)  # fmt: skip


def live(world: World) -> Iterator[None]:
    """Operations without an end; each has been acknowledged when the next is asked for."""
    for number in itertools.count():
        for kind, *names in STEPS:
            path, *other = [name.format(number).encode() for name in names]
            match kind:
                case "mkdir":
                    world.ok("mkdir", path, 0o755)
                case "symlink":
                    world.ok("symlink", b"x", path)
                case "create":
                    make(world, path, b"%d" % number)
                case "rename":
                    world.ok("renameat2", AT_FDCWD, path, AT_FDCWD, other[0], 0)
                case "mknod":
                    world.ok("mknod", path, stat.S_IFIFO | 0o600, 0)
                case "unlink":
                    world.ok("unlinkat", AT_FDCWD, path, 0)
            yield


def paths_after(operations: int) -> set[str]:
    found: set[str] = set()
    for at in range(operations):
        number, step = divmod(at, len(STEPS))
        kind, *names = STEPS[step]
        path, *other = [name.format(number) for name in names]
        if kind == "rename":
            moved = {each for each in found if each == path or each.startswith(f"{path}/")}
            found = found - moved | {other[0] + each[len(path) :] for each in moved}
        elif kind == "unlink":
            found.remove(path)
        else:
            found.add(path)
    return found


def paths_of(host: Path) -> set[str]:
    """What `live` has made."""
    found = [path.relative_to(host) for path in host.rglob("*")]
    return {str(path) for path in found if path.parts[0][1:].isdecimal()}


@pytest.mark.parametrize("acknowledged", [1, 2, 3, 4, 5, 6, 7, 23, 150, 600])
@pytest.mark.parametrize("who", ["sandbox", "Gofer"])
def test_whoever_is_killed_the_tree_is_of_a_moment(
    who: str, acknowledged: int, make_world: MakeWorld, host: Path
) -> None:
    """Of one that was not before what the sandbox had acknowledged, if that is killed; the Gofer
    may have got less far."""
    (host / "warm").mkdir()
    heard, tells = os.pipe()

    def lives() -> None:
        world = make_world(journal=1 << 14)
        warm_in_place(world)
        os.write(tells, b"%7d." % gofer_of(world))
        for _ in live(world):
            os.write(tells, b"x")

    pid = spawn(lives)
    os.close(tells)
    gofer = int(os.read(heard, 8)[:7])
    for _ in range(acknowledged):
        os.read(heard, 1)
    os.kill(pid if who == "sandbox" else gofer, signal.SIGKILL)
    if who == "Gofer":
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while data := os.read(heard, 4096):  # until all that inherited the pipe have ended
        acknowledged += len(data)
    os.close(heard)
    left = paths_of(host)
    if who == "sandbox":
        assert left in (paths_after(acknowledged), paths_after(acknowledged + 1))
    else:
        assert left in [paths_after(count) for count in range(acknowledged + 2)]


def warm_in_place(world: World) -> None:
    """The host makes one of each kind, which stays."""
    world.ok("mkdir", b"warm/dir", 0o755)
    world.ok("symlink", b"target", b"warm/link")
    world.ok("mknod", b"warm/fifo", stat.S_IFIFO | 0o600, 0)
    world.ok("close", world.open(b"warm/file", NEW))
    world.ok("sync")


def gofer_of(world: World) -> int:
    """Its pid: the other end of the session's socket was made by this process's child."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(children[-1])
