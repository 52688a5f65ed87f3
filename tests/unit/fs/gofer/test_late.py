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
