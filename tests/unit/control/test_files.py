"""Files of a container, for whoever asks from outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi.fcntl import O_CREAT, O_NOCTTY, O_RDWR, O_WRONLY
from sentry.abi.ioctl import TIOCSPTLCK
from sentry.control.answers import FileChange, FileEntry
from sentry.control.files import Filing
from sentry.control.orders import FileOrder
from sentry.control.protocol import Reply
from sentry.errors import EINVAL
from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.mm.buffers import KernelSource
from sentry.vfs.file import Caller, Source
from sentry.vfs.interface import Owner
from sentry.vfs.regular import RegularFile
from tests.unit.control.filing import Asked, done, error_of
from tests.world import World

DATA = bytes(range(256)) * 4000


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        fd = made.init.ok("open", b"/f", O_CREAT | O_WRONLY, 0o600)
        made.init.ok("write", fd, DATA[:100_000], 100_000)
        made.init.ok("close", fd)
        made.init.ok("mkdir", b"/d", 0o755)
        made.init.ok("symlink", b"/f", b"/d/link")
        yield made


def test_stat_follows_links_unless_it_is_told_not_to(world: World) -> None:
    (reply,) = done(world, FileOrder("stat", b"/d/link")).replies
    assert reply.file is not None
    assert (stat.S_IFMT(reply.file.mode), reply.file.size) == (stat.S_IFREG, 100_000)

    (reply,) = done(world, FileOrder("stat", b"d/link", follow=False)).replies
    assert reply.file is not None
    assert stat.S_ISLNK(reply.file.mode)
    assert reply.file.target == b"/f"
    assert error_of(world, "stat", b"/none") == "ENOENT"


def test_a_listing_goes_on_when_the_thread_beside_which_it_began_ends(world: World) -> None:
    for number in range(1000):
        world.init.ok("mkdir", b"/d/a-name-that-fills-pipes-%d" % number, 0o700)
    asked = Asked(world, FileOrder("list", b"/d"))
    world.settle()
    world.init.thread()
    world.init.begin("exit", 0)
    world.settle()
    assert world.init.task.dead and world.kernel.container.init is not None and not asked.replies
    while not asked.replies:
        asked.settle()
    assert asked.replies == [Reply()]
    assert len(asked.lines(FileEntry)) == 1001


def test_paths_are_from_the_root_wherever_the_first_process_is(world: World) -> None:
    world.init.ok("chdir", b"/d")
    assert error_of(world, "stat", b"link") == "ENOENT"
    assert error_of(world, "stat", b"d/link") == ""


@pytest.mark.parametrize("do", ["read", "write"])
def test_terminal_that_a_program_has_put_there_is_not_taken(world: World, do: str) -> None:
    world.devices()
    world.mount("devpts", b"/dev/pts")
    program = world.program()
    master = program.ok("open", b"/dev/ptmx", O_RDWR | O_NOCTTY, 0)
    program.ok("ioctl", master, TIOCSPTLCK, program.place(bytes(4)))
    program.ok("symlink", b"/dev/pts/0", b"/out")
    group = world.init.task.group
    assert group.session.leader is group and group.terminal is None
    asked = Asked(world, FileOrder(do, b"/out"), b"x")
    asked.settle()
    assert group.terminal is None and group.session.terminal is None
    asked.filing.abandon()
    world.settle()


def test_part_of_a_file_or_all_comes(world: World) -> None:
    assert done(world, FileOrder("read", b"/f")).found == DATA[:100_000]
    asked = done(world, FileOrder("read", b"/d/link", offset=10, size=70_000))
    assert (asked.found, asked.replies) == (DATA[10:70_010], [Reply()])
    assert done(world, FileOrder("read", b"/f", offset=1 << 40)).found == b""


@pytest.mark.parametrize(("path", "why"), [(b"/none", "ENOENT"), (b"/d", "EISDIR")])
def test_what_cannot_be_read_says_why(world: World, path: bytes, why: str) -> None:
    assert error_of(world, "read", path) == why


def test_who_wants_a_regular_file_waits_for_no_other(world: World) -> None:
    world.init.ok("mknod", b"/fifo", stat.S_IFIFO | 0o600, 0)
    world.init.ok("open", b"/fifo", O_RDWR, 0)  # else it would be at its end

    assert error_of(world, "read", b"/fifo", size=10, regular=True) == "EINVAL"
    assert done(world, FileOrder("read", b"/f", size=10, regular=True)).found == DATA[:10]


@pytest.mark.parametrize(("most", "why"), [(3, ""), (0, "EIO")])
def test_a_file_that_takes_less_than_it_looks_at_gets_all_of_it_or_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int, why: str
) -> None:
    write = RegularFile.write

    def little(file: RegularFile, caller: Caller, source: Source, rwf: int = 0) -> Any:
        return write(file, caller, KernelSource(source.get(source.count)[:most]), rwf)

    monkeypatch.setattr(RegularFile, "write", little)
    assert error_of(world, "write", b"/new", b"0123456789") == why
    assert done(world, FileOrder("read", b"/new")).found == (b"" if why else b"0123456789")


def test_what_is_written_replaces_or_follows_what_was_there(world: World) -> None:
    assert error_of(world, "write", b"/new", b"one", mode=0o640) == ""
    (reply,) = done(world, FileOrder("stat", b"/new")).replies
    assert reply.file is not None and reply.file.mode == stat.S_IFREG | 0o640
    assert error_of(world, "write", b"/new", b"two", append=True) == ""
    assert done(world, FileOrder("read", b"/new")).found == b"onetwo"
    assert error_of(world, "write", b"/new", b"3") == ""
    assert done(world, FileOrder("read", b"/new")).found == b"3"
    assert error_of(world, "write", b"/d", b"x") == "EISDIR"


def test_much_is_written(world: World) -> None:
    out, into = os.pipe()
    replies: list[Reply] = []
    order = FileOrder("write", b"/big")
    Filing(world.kernel, world.kernel.container, [out], order, replies.append)
    os.set_blocking(into, False)
    left = memoryview(DATA)
    while left:
        try:
            left = left[os.write(into, left) :]
        except BlockingIOError:
            world.loop.turn()
    os.close(into)
    while not replies:
        world.loop.turn()

    assert replies == [Reply()]
    assert done(world, FileOrder("read", b"/big")).found == DATA


def test_rights_are_those_of_the_user(world: World) -> None:
    assert error_of(world, "read", b"/f", uid=1000, gid=1000) == "EACCES"
    assert error_of(world, "write", b"/f", b"x", uid=1000, gid=1000) == "EACCES"
    assert error_of(world, "make", b"/e", uid=1000, gid=1000) == "EACCES"
    world.init.ok("mkdir", b"/theirs", 0o777)
    world.init.ok("chmod", b"/theirs", 0o770)
    world.init.ok("chown", b"/theirs", 0, 7)
    assert error_of(world, "write", b"/theirs/x", b"x", uid=1000, gid=1000) == "EACCES"
    assert error_of(world, "write", b"/theirs/x", b"x", uid=1000, gid=5, groups=(7,)) == ""
    (reply,) = done(world, FileOrder("stat", b"/theirs/x")).replies
    assert reply.file is not None
    assert (reply.file.uid, reply.file.gid) == (1000, 5)


def test_names_are_moved_and_directories_made(world: World) -> None:
    order = FileOrder("rename", b"/f", b"/d/g")
    assert done(world, order).replies == [Reply()]
    assert done(world, order).replies == [Reply(error="ENOENT")]
    assert error_of(world, "make", b"/x/y/z", mode=0o700) == ""
    assert error_of(world, "make", b"/x/y/z") == "EEXIST"
    assert error_of(world, "make", b"/x/../x/y") == "EEXIST"
    assert error_of(world, "make", b"/d/g/y") == "ENOTDIR"


def test_who_goes_away_ends_it(world: World) -> None:
    asked = Asked(world, FileOrder("read", b"/f"))
    world.settle()
    assert asked.replies == []
    asked.filing.abandon()
    world.settle()

    assert (asked.replies, world.loop.fibers) == ([], 0)
    asked.leave()


def test_a_reader_that_has_enough_kills_nobody(world: World) -> None:
    asked = Asked(world, FileOrder("read", b"/f"))
    asked.leave()
    world.settle()

    assert asked.replies == [Reply(error="EPIPE")]
    assert not world.init.task.dead


@pytest.mark.parametrize(
    "order",
    [
        FileOrder("none", b"/f"),
        FileOrder("read", b"a\0b"),
        FileOrder("rename", b"/f", b"x" * 4096),
        FileOrder("stat", b"/f"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_stays_open(
    world: World, order: FileOrder
) -> None:
    fds = list(os.pipe())

    with pytest.raises(EINVAL):
        Filing(world.kernel, world.kernel.container, fds[1:], order, print)

    with pytest.raises(OSError):
        os.fstat(fds[1])
    os.close(fds[0])
    with pytest.raises(EINVAL):
        Filing(world.kernel, world.kernel.container, [], FileOrder("read", b"/f"), print)


def test_differences_are_those_of_an_overlay(world: World) -> None:
    assert error_of(world, "diff", b"") == "EOPNOTSUPP"


def test_differences_of_a_root_are_told() -> None:
    def root(world: World) -> OverlayFs:
        lower = TmpFs.make(world.vfs, "")
        lower.root.create(b"old", 0o644, Owner(0, 0))
        return OverlayFs.over(world.vfs, lower)

    with World(root) as world:
        world.init.ok("unlink", b"/old")
        world.init.ok("mkdir", b"/new", 0o755)
        asked = done(world, FileOrder("diff"))
        found = {(change.path, change.kind) for change in asked.lines(FileChange)}
        assert found == {(b"/old", "removed"), (b"/new", "added")}
