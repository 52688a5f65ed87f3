"""Files that vanish before the host has them: what they were made of is used again, and nothing of
them is left in it."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gofer.p9.codec import Message
from gofer.p9.extensions import Rsparex
from gofer.p9.messages import Rlerror
from sentry.fs.gofer import journal, spares
from sentry.fs.gofer.pace import Pace
from sentry.fs.gofer.requests import Pending
from sentry.fs.gofer.spares import SPARES, TOGETHER
from sentry.vfs import open as opening
from sentry.vfs.access import check_create
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_journal import (
    NEW,
    killed_after,
    make,
    names_after,
    set_times,
    times,
)

pytestmark = pytest.mark.root


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    made = make_world(journal=1 << 20)
    made.fs.pace = Pace(lambda: 1)  # a disk that keeps up
    warm(made)
    return made


def warm(world: World) -> None:
    """All spares are there."""
    world.ok("close", world.open(b"warm", NEW))
    make(world, b"first")
    world.ok("sync")
    world.listdir(b".")
    world.session.names()


def remove(world: World, name: bytes) -> None:
    world.ok("unlinkat", AT_FDCWD, name, 0)


@pytest.mark.parametrize("data", [b"", b"contents"])
def test_files_that_vanish_cost_no_message(
    world: World, host: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are: the Gofer holds no more files for them."""
    monkeypatch.setattr(journal, "NAMES", 20)
    for number in range(200):
        make(world, b"a%d" % number, data)
        remove(world, b"a%d" % number)
    assert world.session.names() == []
    make(world, b"last", b"short")
    assert world.session.names() == []
    world.ok("sync")
    assert (host / "last").read_bytes() == b"short"
    assert not list(host.glob("a*"))


@pytest.mark.parametrize("answer", [Rlerror(errno.ENOSPC), Rsparex([], 1 << 20, 512)])
def test_a_host_that_has_no_spares_is_asked_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: Message
) -> None:
    """Meanwhile files are made by messages, and none is lost."""

    def refused(requests: Iterable[Message]) -> list[Pending]:
        found = []
        for request in requests:
            found.append(Pending(request))
            found[-1].complete(answer)
        return found

    monkeypatch.setattr(spares, "PAUSE", 8)
    with monkeypatch.context() as patch:
        patch.setattr(world.session, "send_together", refused)
        for number in range(2 * SPARES):
            make(world, b"a%d" % number)
        assert "Tcreatex" in world.session.names()
    for number in range(2 * SPARES):
        make(world, b"b%d" % number)
    world.session.names()
    make(world, b"last")
    assert "Tcreatex" not in world.session.names()
    assert len(world.listdir(b"/")) >= 4 * SPARES + 1


def test_next_file_has_nothing_of_the_last(world: World, host: Path) -> None:
    fd = world.open(b"a", NEW, 0o600)
    world.write(fd, b"x" * 5000)
    number = world.fstat(fd).st_ino
    world.ok("close", fd)
    remove(world, b"a")
    os.utime(host / "warm")
    now = os.stat(host / "warm").st_mtime_ns
    fd = world.open(b"a", NEW, 0o644)
    assert world.fstat(fd).st_ino == number
    assert (world.fstat(fd).st_size, world.fstat(fd).st_mode) == (0, 0o100644)
    told = times(world, fd)
    assert min(told) >= now
    world.ok("sync")
    assert times(world, fd) == told
    seen = os.stat(host / "a")
    assert (seen.st_ino, seen.st_mode, seen.st_size, seen.st_blocks) == (number, 0o100644, 0, 0)


def use(world: World, how: str) -> int | None:
    """Something else than removing it; a descriptor to read it."""
    match how:
        case "open":
            return world.open(b"a")
        case "path":
            world.open(b"a", os.O_PATH)
        case "watched":
            queue = world.ok("inotify_init1", 0)
            world.ok("inotify_add_watch", queue, b"a", 0x200)
        case "linked":
            world.ok("linkat", AT_FDCWD, b"a", AT_FDCWD, b"b", 0)
        case "moved":
            world.ok("renameat2", AT_FDCWD, b"a", AT_FDCWD, b"b", 0)
            world.ok("renameat2", AT_FDCWD, b"b", AT_FDCWD, b"a", 0)
        case "mode":
            world.ok("chmod", b"a", 0o604)
        case "times":
            set_times(world, b"a", 2_000_000_000)
        case "known":
            world.ok("sync")
    return None


@pytest.mark.parametrize(
    "how", ["open", "path", "watched", "linked", "moved", "mode", "times", "known"]
)
def test_file_that_was_used_is_not_used_again(world: World, host: Path, how: str) -> None:
    make(world, b"a", b"contents")
    number = world.stat(b"a").st_ino
    fd = use(world, how)
    remove(world, b"a")
    make(world, b"next", b"other")
    assert world.stat(b"next").st_ino != number
    if how == "linked":
        assert world.contents(b"b") == b"contents"
    if fd is not None:
        assert world.read(fd) == b"contents"
    world.ok("sync")
    assert (host / "next").read_bytes() == b"other"
    assert not (host / "a").exists()


def test_gofer_that_is_told_where_it_is_waited_for_has_heard_of_a_file(
    world: World, host: Path
) -> None:
    """That is a message, too, before which it looks at the journal."""
    journal = world.fs.journal
    assert journal is not None
    make(world, b"a")
    world.session._told_cpu = 0  # as before there was a journal, if the first replies came late
    journal.spares.ask(SPARES + TOGETHER)
    world.session.linger(journal.spares._under_way[-1])
    while world.session.unanswered:
        world.session.drain()
    remove(world, b"a")
    make(world, b"b", b"contents")
    world.ok("sync")
    assert not (host / "a").exists()
    assert (host / "b").read_bytes() == b"contents"


def test_large_file_is_not_emptied_here(world: World, host: Path) -> None:
    """That may take long."""
    make(world, b"a", b"x" * (1 << 17))
    number = world.stat(b"a").st_ino
    remove(world, b"a")
    make(world, b"b")
    assert world.stat(b"b").st_ino != number


def test_fids_of_spares_are_given_back(world: World, host: Path) -> None:
    """Whatever became of them: the Gofer holds a descriptor for each."""
    used = []
    for lot in range(3):
        for number in range(300):
            make(world, b"n%d,%d" % (lot, number))
            if number % 3 == 0:
                remove(world, b"n%d,%d" % (lot, number))
        world.ok("sync")
        used.append(world.session._next_fid)
    make(world, b"last")
    assert used[2] <= used[0] + SPARES
    assert world.session._next_fid < 200 + 3 * SPARES


def history(world: World) -> Iterator[None]:
    """Each operation has been acknowledged when the next is asked for."""
    for number in itertools.count():
        make(world, b"t%d" % number, b"temporary" * 3)
        remove(world, b"t%d" % number)
        make(world, b"n%d" % number, b"%d" % number)
        yield
        world.ok("renameat2", AT_FDCWD, b"n%d" % number, AT_FDCWD, b"m%d" % number, 0)
        yield
        world.ok("linkat", AT_FDCWD, b"m%d" % number, AT_FDCWD, b"l%d" % number, 0)
        yield
        remove(world, b"m%d" % number)
        yield


@pytest.mark.parametrize("acknowledged", [1, 2, 3, 10, 99, 400])
def test_sandbox_that_is_killed_leaves_whole_files(
    acknowledged: int, make_world: MakeWorld, host: Path
) -> None:
    def live() -> Iterator[object]:
        made = make_world(journal=1 << 14)
        warm(made)
        yield from history(made)

    acknowledged = killed_after(acknowledged, live)
    names = {name for name in os.listdir(host) if name[1:].isdecimal()}
    temporary = {name for name in names if name[0] == "t"}
    assert names - temporary in (names_after(acknowledged), names_after(acknowledged + 1))
    assert temporary in (set(), {f"t{acknowledged // 4}"}, {f"t{acknowledged // 4 + 1}"})
    for name in names - temporary:
        if name[0] != "n":  # its write has not been acknowledged
            assert (host / name).read_bytes() == name[1:].encode()


def test_new_file_that_is_as_it_is_wanted_costs_no_record(world: World, host: Path) -> None:
    """As tar gives it the mode and owner that it has."""
    journal = world.fs.journal
    assert journal is not None
    fd = world.open(b"a", NEW, 0o640)
    world.write(fd, b"contents")
    before, told = journal.position, times(world, fd)
    world.ok("fchown", fd, 0, 0)
    world.ok("fchmod", fd, 0o640)
    assert journal.position == before
    world.ok("fchmod", fd, 0o600)
    assert journal.position > before
    world.ok("sync")
    before = journal.position
    world.ok("fchmod", fd, 0o600)  # the host's ctime would tell
    assert journal.position > before
    world.ok("sync")
    assert os.stat(host / "a").st_mode == 0o100600
    assert times(world, fd) == told


def test_rights_to_make_a_file_are_looked_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With O_EXCL also to know whether its name has to be looked for, and that is the same."""
    looked: list[object] = []

    def look(*arguments: Any) -> None:
        looked.append(arguments)
        check_create(*arguments)

    monkeypatch.setattr(opening, "check_create", look)
    for flags in (NEW, NEW & ~os.O_EXCL):
        world.ok("close", world.open(b"made%d" % flags, flags))
        assert len(looked) == 1
        looked.clear()


def test_spares_are_asked_for_many_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    push = world.session._push
    monkeypatch.setattr(world.session, "_push", lambda: (sent.append(1), push())[1])
    for number in range(40):
        make(world, b"n%d" % number)
    asked = world.session.names()
    assert 40 // TOGETHER <= asked.count("Tsparex") <= (40 + SPARES) // TOGETHER
    assert len(sent) <= len(asked) - asked.count("Tsparex") + 4


def several(world: World, count: int, data: bytes = b"") -> Iterator[int]:
    """Make files a0, a1 and so on; all spares that were asked for have come when it goes on."""
    assert world.fs.journal is not None
    for number in range(count):
        make(world, b"a%d" % number, data)
        while world.fs.journal.spares.asked:
            world.session.drain()
        yield number


def test_files_that_vanish_after_spares_were_asked_for_are_never_made(
    make_world: MakeWorld, host: Path
) -> None:
    world = make_world(journal=1 << 20, descriptors=1000)
    world.fs.pace = Pace(lambda: 1)
    warm(world)
    assert world.fs.journal is not None
    spares = world.fs.journal.spares
    for _ in several(world, SPARES):
        pass
    left = len(spares._spares)
    for number in range(SPARES):
        remove(world, b"a%d" % number)
    assert set(world.session.names()) == {"Tsparex"}
    assert len(spares._spares) == left + SPARES
    world.ok("sync")
    assert not list(host.glob("a*"))


def test_numbers_that_records_end_are_not_used_before_these_are_done(
    world: World, host: Path
) -> None:
    for number in several(world, 3 * SPARES, b"contents"):
        if number % 3:
            remove(world, b"a%d" % (number - 1))
    assert set(world.session.names()) == {"Tsparex"}
    world.ok("sync")
    left = {f"a{number}" for number in range(3 * SPARES) if number % 3 == 2}
    assert {path.name for path in host.glob("a*")} == left
    assert all((host / name).read_bytes() == b"contents" for name in left)


def test_who_finds_no_spare_waits_for_those_that_come(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late: a creation by message would come after all that is recorded."""
    monkeypatch.setattr(world.session, "linger", lambda _: None)
    for number in range(3 * SPARES):
        make(world, b"a%d" % number)
    assert set(world.session.names()) == {"Tsparex"}
    assert not world.session._sleepers
    world.ok("sync")
    assert len(list(host.glob("a*"))) == 3 * SPARES


def test_gofer_is_told_to_go_on_after_many_names(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds a descriptor of each."""
    monkeypatch.setattr(journal, "NAMES", 20)
    for _ in several(world, 21):
        pass
    asked = world.session.names()
    assert asked.count("Tdrainx") == 1
    assert asked.index("Tsparex") < asked.index("Tdrainx")


def test_drain_for_names_begins_when_the_last_record_is_known_by_its_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent before it are records, too."""
    known: list[int] = []
    monkeypatch.setattr(journal, "NAMES", 0)
    monkeypatch.setattr(
        journal.Journal, "_drain", lambda found: known.append(found._entries[-1].start)
    )
    assert world.fs.journal is not None
    before = world.fs.journal.position
    make(world, b"a")
    assert known == [before]
