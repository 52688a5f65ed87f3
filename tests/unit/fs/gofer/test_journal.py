"""What is written behind: when the host has it, what programs see before, and what goes wrong."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gofer.attachment import Attachment, CacheMode
from runsc.launch.boot_gofer import sealed_memory
from sentry.boot.tree import Exports
from sentry.errors import EPROTO
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.session import Session
from sentry.fs.gofer.spares import SPARES, TOGETHER
from tests.unit.fs.gofer.conftest import AT_FDCWD, CountingSession, MakeWorld, World
from tests.unit.gofer.harness import spawn
from tests.world import World as Kernel

pytestmark = pytest.mark.root

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL
NEW_TO_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
SECOND = 1_000_000_000


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    made = make_world(journal=1 << 16)
    made.ok("close", made.open(b"warm", NEW))  # by message: no spare is there
    made.ok("sync")
    made.listdir(b".")
    made.session.names()
    return made


def make(world: World, name: bytes, data: bytes = b"") -> None:
    fd = world.open(name, NEW, 0o640)
    if data:
        world.write(fd, data)
    world.ok("close", fd)


def test_new_names_cost_no_message(world: World, host: Path) -> None:
    make(world, b"a", b"contents")
    world.ok("renameat2", AT_FDCWD, b"a", AT_FDCWD, b"b", 0)
    world.ok("linkat", AT_FDCWD, b"b", AT_FDCWD, b"c", 0)
    world.ok("unlinkat", AT_FDCWD, b"b", 0)
    assert world.session.names() == []
    assert world.contents(b"c") == b"contents"
    assert world.stat(b"c").st_nlink == 1
    assert "c" not in os.listdir(host)
    world.ok("sync")
    assert {"a", "b", "c"} & set(os.listdir(host)) == {"c"}
    assert (host / "c").read_bytes() == b"contents"


def test_new_files_come_from_spares_that_are_asked_for_many_at_a_time(world: World) -> None:
    for number in range(3 * SPARES):
        make(world, b"n%d" % number)
    asked = world.session.names()
    assert asked.count("Tsparex") >= 2 * SPARES // TOGETHER
    assert len(asked) - asked.count("Tsparex") <= 3


def test_message_of_a_mount_does_not_wait_for_what_was_recorded(tmp_path: Path) -> None:
    """It has a session of its own."""
    folders = tmp_path / "root", tmp_path / "volume"
    made: list[GoferFileSystem] = []

    def root(kernel: Kernel) -> GoferFileSystem:
        fds, ring = [], sealed_memory(1 << 16)
        for folder in folders:
            folder.mkdir()
            fds.append(os.open(folder, os.O_PATH))
        caches = CacheMode.EXCLUSIVE, CacheMode.SHARED
        attachments = [
            Attachment(b"%d" % number, fd, False, cache)
            for number, (fd, cache) in enumerate(zip(fds, caches, strict=True))
        ]
        session = Session(kernel.serve(attachments, ring), kernel.loop)
        for fd in (*fds, ring):
            os.close(fd)
        kernel.stack.callback(session.close)
        session.negotiate()
        exports = Exports(kernel.kernel, session)
        made.extend((exports.open(0, False, exclusive=True), exports.open(1, False)))
        for fs in made:
            if fs.session is not session:
                kernel.stack.callback(fs.session.close)
            for each in (fs.hearing, fs.changes, fs.journal):
                if each is not None:
                    kernel.stack.callback(each.close)
        return made[0]

    with Kernel(root) as kernel:
        kept, volume = made
        assert volume.session is not kept.session
        kernel.attach(volume, b"/mnt")
        task = kernel.program()
        task.ok("close", task.ok("openat", AT_FDCWD, b"/warm", NEW, 0o644))
        task.ok("sync")
        task.ok("close", task.ok("openat", AT_FDCWD, b"/a", NEW, 0o644))
        task.ok("close", task.ok("openat", AT_FDCWD, b"/mnt/b", NEW, 0o644))
        assert os.listdir(folders[1]) == ["b"]
        assert "a" not in os.listdir(folders[0])
        task.ok("sync")
        assert "a" in os.listdir(folders[0])


def test_sandbox_that_dies_has_lost_nothing(world: World, host: Path) -> None:
    for number in range(20):
        make(world, b"n%d" % number, b"%d" % number)
    world.ok("unlinkat", AT_FDCWD, b"n3", 0)
    world.close()
    left = {int(name[1:]) for name in os.listdir(host) if name[0] == "n"}
    assert left == set(range(20)) - {3}
    assert all((host / f"n{number}").read_bytes() == b"%d" % number for number in left)


def test_names_in_what_belongs_to_nobody_are_changed_by_messages(
    make_world: MakeWorld, host: Path
) -> None:
    """In a user namespace the host may refuse that. Until it has made something nobody's."""
    os.chown(host / "dir", 65534, 65534)
    world = make_world(journal=1 << 16)
    world.ok("close", world.open(b"warm", NEW))
    world.listdir(b"dir")
    world.ok("unlinkat", AT_FDCWD, b"dir/inner", 0)
    world.ok("renameat2", AT_FDCWD, b"file", AT_FDCWD, b"dir/moved", 0)
    make(world, b"dir/made")
    assert set(os.listdir(host / "dir")) == {"sub", "moved", "made"}
    world.ok("chown", b"warm", 65534, 65534)
    world.stat(b"dir/moved")
    world.ok("unlinkat", AT_FDCWD, b"dir/moved", 0)
    assert "moved" in os.listdir(host / "dir")
    world.ok("sync")
    assert "moved" not in os.listdir(host / "dir")


def history(world: World) -> Iterator[None]:
    """Operations without an end; each has been acknowledged when the next is asked for."""
    for number in itertools.count():
        make(world, b"n%d" % number, b"%d" % number)
        yield
        world.ok("renameat2", AT_FDCWD, b"n%d" % number, AT_FDCWD, b"m%d" % number, 0)
        yield
        world.ok("linkat", AT_FDCWD, b"m%d" % number, AT_FDCWD, b"l%d" % number, 0)
        yield
        world.ok("unlinkat", AT_FDCWD, b"m%d" % number, 0)
        yield


def names_after(operations: int) -> set[str]:
    whole, rest = divmod(operations, 4)
    last = [[], ["n"], ["m"], ["m", "l"]][rest]
    return {f"l{number}" for number in range(whole)} | {f"{letter}{whole}" for letter in last}


def killed_after(acknowledged: int, live: Callable[[], Iterator[object]]) -> int:
    """Kill a process once so many steps of this life were heard of; of how many, when its Gofer,
    too, has ended."""
    heard, tells = os.pipe()

    def steps() -> None:
        for _ in live():
            os.write(tells, b"x")

    pid = spawn(steps)
    os.close(tells)
    for _ in range(acknowledged):
        os.read(heard, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while data := os.read(heard, 4096):  # until the Gofer, which inherited the pipe, has ended
        acknowledged += len(data)
    os.close(heard)
    return acknowledged


@pytest.mark.parametrize("acknowledged", [1, 2, 3, 10, 99, 400])
def test_sandbox_that_is_killed_has_done_what_it_acknowledged(
    acknowledged: int, make_world: MakeWorld, host: Path
) -> None:
    """The names are those of a moment in its history, not before what was heard of."""
    was = set(os.listdir(host))
    acknowledged = killed_after(acknowledged, lambda: history(make_world(journal=1 << 14)))
    assert set(os.listdir(host)) - was in (names_after(acknowledged), names_after(acknowledged + 1))
    for path in host.glob("l*"):
        if path.name != "link":
            assert path.read_bytes() == path.name[1:].encode()


@pytest.mark.parametrize("when", ["after a while", "as nothing runs"])
def test_host_has_names(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    delay_ns = 1 if when == "after a while" else 1 << 60
    monkeypatch.setattr("sentry.fs.gofer.journal.DELAY_NS", delay_ns)
    journal = world.fs.journal
    assert journal is not None
    make(world, b"a")
    if when == "as nothing runs":
        world.fs.rest()
    while not journal.reached(journal.position):
        world.task.world.loop.turn()
    assert "a" in os.listdir(host)


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "syncfs"])
def test_host_has_the_name_after(call: str, world: World, host: Path) -> None:
    fd = world.open(b"a", NEW)
    assert "a" not in os.listdir(host)
    world.ok(call, fd)
    assert "a" in os.listdir(host)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_write_that_is_to_last_brings_the_name(flag: int, world: World, host: Path) -> None:
    fd = world.open(b"a", NEW | flag)
    assert "a" not in os.listdir(host)
    world.write(fd, b"contents")
    assert (host / "a").read_bytes() == b"contents"


def test_message_comes_after_what_was_recorded(world: World, host: Path) -> None:
    make(world, b"a")
    world.ok("setxattr", b"a", b"user.x", b"value", 5, 0)
    assert os.getxattr(host / "a", "user.x") == b"value"
    make(world, b"b")
    assert {b"a", b"b"} <= set(world.listdir(b"."))


def test_attributes_are_the_same_before_and_after(world: World, host: Path) -> None:
    fd = world.open(b"a", NEW, 0o640)
    world.write(fd, b"contents")
    before = world.fstat(fd)
    world.ok("sync")
    assert world.fstat(fd) == before
    assert before.st_ino == os.stat(host / "a").st_ino
    assert (before.st_nlink, before.st_mode) == (1, 0o100640)


def times(world: World, fd: int) -> tuple[int, int]:
    """atime and mtime in nanoseconds."""
    buffer = world.task.buffer(144)
    world.ok("fstat", fd, buffer)
    raw = world.task.read(buffer, 144)
    at = [int.from_bytes(raw[pos : pos + 8], "little") for pos in (72, 80, 88, 96)]
    return at[0] * SECOND + at[1], at[2] * SECOND + at[3]


def test_time_of_a_change_is_the_hosts_once_it_has_made_it(world: World, host: Path) -> None:
    """Also if it was asked for before: a later look at the file does not show another one."""

    def changed_ns() -> int:
        buffer = world.task.buffer(144)
        world.ok("newfstatat", AT_FDCWD, b"a", buffer, 0)
        seconds, ns = struct.unpack_from("<qq", world.task.read(buffer, 144), 104)
        return int(seconds * SECOND + ns)

    make(world, b"a")
    world.ok("sync")
    world.ok("chmod", b"a", 0o604)
    changed_ns()
    world.ok("sync")
    assert changed_ns() == os.stat(host / "a").st_ctime_ns


def test_new_file_is_as_old_as_its_name(world: World, host: Path) -> None:
    """Not as the spare, and what was told is what the host has."""
    os.utime(host / "warm")
    now = os.stat(host / "warm").st_mtime_ns
    fd = world.open(b"a", NEW)
    told = times(world, fd)
    assert told[1] >= now
    world.ok("sync")
    assert times(world, fd) == told
    assert os.stat(host / "a").st_mtime_ns == told[1]


def test_time_of_a_write_is_not_set_back(world: World, host: Path) -> None:
    fd = world.open(b"a", NEW)
    world.ok("utimensat", fd, 0, 0, 0)
    begun = times(world, fd)[1]
    other = world.open(b"b", NEW)
    while os.stat(host / "warm").st_mtime_ns <= begun:  # the next tick of the host's clock
        os.utime(host / "warm")
    world.write(other, b"later")
    told = times(world, other)
    assert told[1] > begun
    world.ok("sync")
    assert times(world, other) == told


def test_open_file_without_a_name_can_still_be_used(world: World, host: Path) -> None:
    fd = world.open(b"a", NEW)
    world.write(fd, b"contents")
    world.ok("unlinkat", AT_FDCWD, b"a", 0)
    assert world.fstat(fd).st_nlink == 0
    world.ok("fchmod", fd, 0o600)
    assert world.fstat(fd).st_mode == 0o100600
    assert world.read(fd, 100, 0) == b"contents"
    assert "a" not in os.listdir(host)


def test_mode_owner_and_times_cost_no_message(world: World, host: Path) -> None:
    make(world, b"a")
    world.ok("chown", b"a", 1000, 1000)  # the first one: would the host take it?
    make(world, b"b", b"contents")
    world.session.names()
    world.ok("chmod", b"b", 0o604)
    world.ok("chown", b"b", 1000, 1000)
    set_times(world, b"b", 5)
    assert world.session.names() == []
    before = world.stat(b"b")
    assert (before.st_mode, before.st_uid, before.st_gid) == (0o100604, 1000, 1000)
    assert "b" not in os.listdir(host)
    world.ok("sync")
    seen = os.stat(host / "b")
    assert (seen.st_mode, seen.st_uid, seen.st_gid) == (0o100604, 1000, 1000)
    assert (seen.st_mtime, seen.st_size) == (5, 8)
    assert world.stat(b"b") == before


def set_times(world: World, path: bytes, seconds: int) -> None:
    times = world.task.place(struct.pack("<4q", seconds, 0, seconds, 0))
    world.ok("utimensat", AT_FDCWD, path, times, 0)


@pytest.mark.parametrize("seconds", [5, 2_000_000_000])
def test_write_after_times_were_set_has_the_later_word(
    world: World, host: Path, seconds: int
) -> None:
    make(world, b"a")
    set_times(world, b"a", seconds)
    fd = world.open(b"a", os.O_WRONLY)
    world.write(fd, b"later")
    told = times(world, fd)[1]
    assert abs(told - time.time_ns()) < 100 * SECOND
    world.ok("sync")
    assert times(world, fd)[1] == told == os.stat(host / "a").st_mtime_ns


def test_times_of_a_file_that_is_being_written_cost_no_message(
    world: World, host: Path
) -> None:
    """As tar sets them. A write afterwards has the later word, and waits for them."""
    fd = world.open(b"a", NEW_TO_WRITE)
    world.write(fd, b"contents")
    set_times_of(world, fd, 5)
    assert world.session.names() == []
    assert times(world, fd) == (5 * SECOND, 5 * SECOND)
    world.write(fd, b"more")
    told = times(world, fd)[1]
    assert told > 5 * SECOND
    world.ok("sync")
    assert os.stat(host / "a").st_mtime_ns == told == times(world, fd)[1]
    set_times_of(world, fd, 6)
    world.ok("sync")
    assert os.stat(host / "a").st_mtime == 6 == times(world, fd)[1] // SECOND


def set_times_of(world: World, fd: int, seconds: int) -> None:
    times = world.task.place(struct.pack("<4q", seconds, 0, seconds, 0))
    world.ok("utimensat", fd, 0, times, 0)


@pytest.mark.parametrize("later", ["ftruncate", "reopened", "fallocate"])
def test_whatever_changes_a_file_waits_for_its_times(
    later: str, world: World, host: Path
) -> None:
    fd = world.open(b"a", NEW_TO_WRITE)
    world.write(fd, b"contents")
    set_times_of(world, fd, 5)
    match later:
        case "ftruncate":
            world.ok("ftruncate", fd, 3)
        case "fallocate":
            world.ok("fallocate", fd, 0, 0, 9000)
        case _:
            world.ok("close", fd)
            fd = world.open(b"a", os.O_RDWR)
            assert os.stat(host / "a").st_mtime == 5
            world.write(fd, b"x")
    told = times(world, fd)[1]
    assert told > 5 * SECOND
    world.ok("sync")
    assert os.stat(host / "a").st_mtime_ns == told


def test_times_of_a_file_that_may_be_mapped_are_set_at_once(world: World, host: Path) -> None:
    fd = world.open(b"a", NEW)
    set_times_of(world, fd, 5)
    assert os.stat(host / "a").st_mtime == 5


def test_set_id_bits_are_given_at_once(world: World, host: Path) -> None:
    make(world, b"a")
    world.ok("chmod", b"a", 0o4755)
    assert os.stat(host / "a").st_mode & 0o7777 == 0o4755


def test_owner_whom_the_host_has_not_had_yet_is_asked_for(world: World, host: Path) -> None:
    """It may refuse: then the call fails, and no file is lost."""
    make(world, b"a")
    world.ok("chown", b"a", 1234, 5)
    assert os.stat(host / "a").st_uid == 1234


def test_set_id_file_is_made_at_once(world: World, host: Path) -> None:
    world.ok("close", world.open(b"a", NEW, 0o4755))
    assert os.stat(host / "a").st_mode & 0o7777 == 0o4755


def test_small_ring_is_filled_many_times(make_world: MakeWorld, host: Path) -> None:
    world = make_world(journal=4096)
    for number in range(300):
        make(world, b"name%d" % number)
    world.ok("sync")
    assert sum(name.startswith("name") for name in os.listdir(host)) == 300


def test_without_descriptors_there_are_no_spares(make_world: MakeWorld, host: Path) -> None:
    world = make_world(descriptors=0, journal=1 << 16)
    make(world, b"a")
    assert "a" in os.listdir(host)


def test_gofer_without_a_journal_is_asked(make_world: MakeWorld) -> None:
    world = make_world()
    options = Options(writes_behind=world.task.world.loop)
    assert GoferFileSystem(9, world.session, b"0", options).journal is None


def test_journal_that_can_be_cut_is_refused(plain: Kernel, tmp_path: Path) -> None:
    fd, ring = os.open(tmp_path, os.O_PATH), os.memfd_create("journal")
    os.ftruncate(ring, 4096)
    session = CountingSession(plain.serve([Attachment(b"0", fd)], ring), plain.loop)
    plain.stack.callback(session.close)
    os.close(fd)
    os.close(ring)
    session.negotiate()
    with pytest.raises(EPROTO):
        GoferFileSystem(9, session, b"0", Options(writes_behind=plain.loop))
