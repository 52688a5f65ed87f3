"""A Gofer that is late with the answer to a creation or a removal, or never gives one."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import get_native_id
from typing import Any

import pytest

from sentry.fs.gofer.host_fifo import GoferFifo
from sentry.fs.overlay.filesystem import OverlayFs
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.world import Call

pytestmark = pytest.mark.root

CREATE = ("openat", AT_FDCWD, b"/dir/new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
UNLINK = ("unlinkat", AT_FDCWD, b"/dir/inner", 0)
AGAIN = {CREATE: -errno.EEXIST, UNLINK: -errno.ENOENT}


def children() -> set[int]:
    """The processes that this thread has made."""
    return set(map(int, Path(f"/proc/self/task/{get_native_id()}/children").read_text().split()))


class Slow:
    """A world whose Gofer stops and goes on."""

    def __init__(self, world: World, gofer: int) -> None:
        self.world = world
        self._begun: list[Call] = []
        self._ended: list[Call] = []
        self._pid = gofer

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._pid, os.WSTOPPED)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def begin(self, call: tuple[Any, ...]) -> None:
        """A call of another thread that will not end now."""
        self._begun.append(self.world.task.thread().begin(*call))

    def outcomes(self) -> list[int]:
        """Results in the order in which the calls ended."""
        self._ended += [c for c in self._begun if c.done and c not in self._ended]
        return [call.result for call in self._ended]

    def finish(self, calls: int) -> list[int]:
        """The same, once so many have ended."""
        while len(self.outcomes()) < calls:
            self.world.task.world.loop.turn()
        return self.outcomes()


@pytest.fixture(params=["exclusive", "shared"])
def slow(request: pytest.FixtureRequest, make_world: MakeWorld) -> Iterator[Slow]:
    """Which names there are is known without a request."""
    before = children()
    world = make_world(exclusive=request.param == "exclusive")
    (gofer,) = children() - before
    for _ in range(3):
        world.stat(b"/dir/inner")
        assert world.call("newfstatat", AT_FDCWD, b"/dir/new", world.task.buffer(144), 0) < 0
    made = Slow(world, gofer)
    yield made
    made.go_on()


@pytest.mark.parametrize("call", [CREATE, UNLINK], ids=["create", "unlink"])
def test_late_answer_keeps_nobody_else_waiting(slow: Slow, call: Any, host: Path) -> None:
    world = slow.world
    file = world.open(b"/file")
    slow.stop()

    slow.begin(call)
    slow.begin(call)
    assert world.read(file) == b"contents"
    assert slow.outcomes() == []

    slow.go_on()
    first, second = slow.finish(2)
    assert (first >= 0, second) == (True, AGAIN[call])
    assert world.listdir(b"/dir") == sorted(os.listdir(os.fsencode(host / "dir")))
    assert (host / "dir/new").exists() == (call is CREATE)
    assert (host / "dir/inner").exists() == (call is CREATE)


@pytest.mark.parametrize("call", [CREATE, UNLINK], ids=["create", "unlink"])
def test_answer_that_never_comes_is_eio(slow: Slow, call: Any) -> None:
    world = slow.world
    file = world.open(b"/file")
    slow.stop()
    slow.begin(call)

    world.session.sock.shutdown(2)

    assert slow.finish(1) == [-errno.EIO]
    assert world.call(*call) == -errno.EIO
    assert world.read(file, offset=0) == b"contents"


def test_late_file_is_written_and_read(slow: Slow, host: Path) -> None:
    slow.stop()
    slow.begin(CREATE)
    slow.go_on()
    (fd,) = slow.finish(1)

    slow.world.write(fd, b"bytes")

    assert slow.world.read(fd, offset=0) == b"bytes"
    assert (host / "dir/new").read_bytes() == b"bytes"
    assert (host / "dir/new").stat().st_mode & 0o7777 == 0o640


def test_copy_up_that_waits_for_the_gofer_is_made_once(slow: Slow) -> None:
    world = slow.world
    overlay = OverlayFs.over(world.task.world.vfs, world.fs)
    world.task.world.attach(overlay, b"/over")
    first, second = (world.open(b"/over/dir/inner", os.O_WRONLY | os.O_APPEND) for _ in range(2))
    slow.stop()

    slow.begin(("write", first, world.task.buffer(4), 4))
    slow.begin(("write", second, world.task.buffer(4), 4))
    slow.go_on()

    assert slow.finish(2) == [4, 4]
    assert world.stat(b"/over/dir/inner").st_size == len(b"inner") + 8


CHANGES = {
    "create": CREATE,
    "mkdir": ("mkdirat", AT_FDCWD, b"/dir/new", 0o755),
    "link": ("linkat", AT_FDCWD, b"/file", AT_FDCWD, b"/dir/new", 0),
    "unlink": UNLINK,
    "rename": ("rename", b"/dir/inner", b"/dir/new"),
}


@pytest.mark.parametrize("call", CHANGES.values(), ids=CHANGES)
def test_change_under_way_needs_its_directory_no_more(slow: Slow, call: Any, host: Path) -> None:
    """Fids are given back after their last use; the host may move a directory at any time."""
    world = slow.world
    for _ in range(3):
        world.stat(b"/file")
    slow.stop()
    slow.begin(call)

    world.fs.fids.give_all_back()
    (host / "dir").rename(host / "moved")
    slow.go_on()

    assert slow.finish(1)[0] >= 0
    assert (host / "moved/new").exists() == (call is not UNLINK)
    assert (host / "moved/inner").exists() == (call not in (UNLINK, CHANGES["rename"]))


def test_attribute_that_is_being_set_needs_its_name_no_more(slow: Slow, host: Path) -> None:
    world = slow.world
    for _ in range(3):
        world.stat(b"/dir/inner")
    value = world.task.place(b"value")
    name = world.task.place(b"user.name\0")
    slow.stop()
    slow.begin(("setxattr", b"/dir/inner", name, value, 5, 0))
    world.fs.fids.give_all_back()
    (host / "dir").rename(host / "moved")
    slow.go_on()
    assert slow.finish(1) == [0]
    assert os.getxattr(host / "moved/inner", "user.name") == b"value"


def test_two_walks_of_one_path_in_a_call_end_where_each_leads(slow: Slow, host: Path) -> None:
    """The first to a link, the second where that leads."""
    (host / "alias").symlink_to("dir")
    slow.stop()
    slow.begin(("linkat", AT_FDCWD, b"/alias", AT_FDCWD, b"/alias/new", 0))
    slow.go_on()
    assert slow.finish(1) == [0]
    assert (host / "dir/new").is_symlink()


def test_link_at_the_end_of_a_creating_open_is_followed_from_where_it_is(
    slow: Slow, host: Path
) -> None:
    """Its text is as the path was, and as many links were followed as the descriptor's number."""
    (host / "one/sub/sub").mkdir(parents=True)
    (host / "one/sub/link").symlink_to("sub/file")
    world = slow.world
    assert [world.open(b"/one", os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)] == [0, 1]
    slow.stop()
    slow.begin(("openat", 1, b"sub/link", os.O_WRONLY | os.O_CREAT, 0o600))
    slow.go_on()
    assert slow.finish(1)[0] >= 0
    assert (host / "one/sub/sub/file").exists()
    assert not (host / "one/sub/file").exists()


def test_open_of_a_fifo_of_the_host_that_waited_is_of_the_one_that_was_found(
    world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Gofer opens those that are a mount; here it has opened this one."""
    os.mkfifo(host / "fifo", 0o600)
    given = os.open(host / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(GoferFifo, "_ask", lambda _self, _access: given)
    world.stat(b"/fifo")
    fifo: Any = world.fs.root.known(b"fifo")
    fifo.is_served()
    reader = world.task.thread().begin("openat", AT_FDCWD, b"/fifo", os.O_RDONLY, 0)
    world.ok("rename", b"/fifo", b"/moved")

    writer = os.open(host / "moved", os.O_RDWR)

    os.write(writer, b"bytes")
    assert world.read(reader.wait()) == b"bytes"
    os.close(writer)


MOUNT = ("mount", b"x", b"/dir/sub", b"tmpfs", 0, 0)


@pytest.mark.parametrize("is_empty", [True, False])
def test_mount_on_a_directory_that_is_being_removed_waits(
    slow: Slow, host: Path, is_empty: bool
) -> None:
    slow.world.stat(b"/dir/sub")
    slow.stop()
    slow.begin(("rmdir", b"/dir/sub"))
    slow.begin(MOUNT)
    assert slow.outcomes() == []
    if not is_empty:
        (host / "dir/sub/file").touch()

    slow.go_on()

    expected = [-errno.ENOENT, 0] if is_empty else [-errno.ENOTEMPTY, 0]
    assert sorted(slow.finish(2)) == sorted(expected)
    assert (host / "dir/sub").exists() == (not is_empty)


def test_file_that_nobody_has_open_is_not_opened_behind_its_removal(slow: Slow) -> None:
    """By a descriptor that was left from the last time, but has no fid."""
    assert slow.world.contents(b"/dir/inner") == b"inner"
    slow.stop()
    slow.begin(UNLINK)
    slow.begin(("openat", AT_FDCWD, b"/dir/inner", os.O_RDONLY, 0))
    slow.go_on()
    assert slow.finish(2) == [0, -errno.ENOENT]
