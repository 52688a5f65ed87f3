"""Whatever a client leaves in its journal, the Gofer lives, serves others, and stays below its
root; and what a journal does is what messages do."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.extensions import (
    Rdrainx,
    Tdrainx,
    Tdupx,
    Tlinkx,
    Tmakex,
    Tnamex,
    Tremovexattrx,
    Trenamex,
    Trevertx,
    Tsetattrx,
    Tsetxattrx,
    Tsparex,
    Twalkx,
)
from gofer.p9.messages import Rgetattr, Tclunk, Tgetattr, Tunlinkat
from sentry.platform.records import JournalWriter
from tests.fuzz.running import explore, for_a_while
from tests.fuzz.test_9p import likely_requests
from tests.unit.gofer.harness import Client, spawn
from tests.unit.gofer.journals import JournalClient, journalling
from tests.unit.gofer.p9.strategies import requests

pytestmark = pytest.mark.root

CAPACITY = 8192


def grow(base: Path) -> Path:
    """A root with a secret beside it."""
    root = base / "root"
    (root / "dir").mkdir(parents=True)
    (root / "file").write_bytes(b"contents")
    (root / "link").symlink_to("../secret")
    (base / "secret").write_bytes(b"secret")
    os.chmod(base / "secret", 0o640)
    return root


@contextmanager
def fresh(base: Path) -> Iterator[JournalClient]:
    """A Gofer and its client; the tree goes with them, and nothing beside it was touched."""
    try:
        with journalling(grow(base), CAPACITY) as client:
            yield client
        assert sorted(os.listdir(base)) == ["root", "secret"]
        assert (base / "secret").read_bytes() == b"secret"
        assert os.stat(base / "secret").st_mode & 0o7777 == 0o640
    finally:
        shutil.rmtree(base)


_RECORDS = (
    Tmakex, Tlinkx, Trenamex, Tunlinkat, Tsetattrx, Tsetxattrx, Tremovexattrx, Tclunk, Tnamex,
    Trevertx,
)  # fmt: skip
_LEFT = st.lists(
    likely_requests().filter(lambda request: isinstance(request, _RECORDS))
    | st.builds(
        Twalkx, fid=st.sampled_from([0, 1, 2]), newfid=st.sampled_from([1, 2, 3]),
        flags=st.just(c.NOOPEN), donate=st.just(0),
        names=st.lists(st.sampled_from([b"dir", b"file", b"..", b"a", b"link"]), max_size=3),
    ) | st.sampled_from([Tsparex(0, [4, 5]), Tdrainx(0)]) | requests(),
    max_size=25,
)  # fmt: skip
"""Tsparex and Tdrainx are sent, the others are left in the journal."""
_NOISE = st.lists(st.tuples(st.integers(0, CAPACITY - 8), st.binary(max_size=8)), max_size=4)


def check_journal(
    base: Path, left: list[Message], noise: list[tuple[int, bytes]], cut: int | None
) -> None:
    with fresh(base) as client:
        client.call(Tdupx())
        other = Client(socket.socket(fileno=client.take_fd()))
        with other.sock:
            _leave(client, left)
            for at, piece in noise:
                client.memory[at : at + len(piece)] = piece
            if cut is not None:
                os.ftruncate(client.ring, cut)
            try:
                client.drain()
            except (EOFError, ConnectionError):
                pass
            except OSError as problem:
                assert problem.errno == errno.EBADF  # it has given its root back
            assert other.ask(Tgetattr(0, 0), Rgetattr).nlink


def _leave(client: JournalClient, left: list[Message]) -> None:
    for request in left:
        try:
            if isinstance(request, Tsparex | Tdrainx):
                client.call(request)
            elif client.writer.free > 2048:
                client.leave(request)
        except OSError as problem:
            assert not isinstance(problem, TimeoutError), request
        except EOFError:
            return
        for fd in client.fds:
            os.close(fd)
        client.fds.clear()


@for_a_while()
def test_any_journal_leaves_the_server_alive_and_below_its_root(
    tmp_path: Path, seconds: float
) -> None:
    explore(
        seconds, lambda **values: check_journal(tmp_path / "base", **values),
        left=_LEFT, noise=_NOISE, cut=st.none() | st.integers(0, CAPACITY),
    )  # fmt: skip


# --- the same as messages


NEW = [b"n%d" % number for number in range(40)]
_KNOWN = st.sampled_from([b"dir", b"file", b"link", *NEW[:8]])
_OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["mkdir", "symlink", "spare"]), st.sampled_from([0, 1]), _KNOWN)
    | st.tuples(st.sampled_from(["link", "rename"]), st.sampled_from([0, 1, 2]), _KNOWN, _KNOWN)
    | st.tuples(st.sampled_from(["unlink", "rmdir", "chmod", "xattr"]), st.just(0), _KNOWN),
    max_size=30,
)


class Names:
    """Operations as requests; new names are new ones, as for a client that knows its tree."""

    def __init__(self) -> None:
        self._fresh = iter(NEW)
        self._taken: set[bytes] = set()
        self.next_fid = 10

    def new(self) -> bytes:
        """One that nothing has."""
        return next(name for name in self._fresh if name not in self._taken)

    def requests(self, operation: tuple[Any, ...]) -> list[Message]:
        kind, which, name, *more = operation
        match kind:
            case "mkdir" | "symlink":
                mode = stat.S_IFDIR | 0o750 if kind == "mkdir" else stat.S_IFLNK | 0o777
                target = b"" if kind == "mkdir" else name
                return [Tmakex(which, self.new(), target, mode, 5, 6, 0)]
            case "spare":
                self.next_fid += 1
                return [
                    Tsparex(which, [self.next_fid]),
                    Tnamex(self.next_fid, which, self.new(), 0o640, 7, 8, 0),
                ]
            case "link":
                return [Tlinkx(0, name, which & 1, self.new())]
            case "rename":
                new = self.new() if which == 1 else more[0]  # RENAME_NOREPLACE
                self._taken.add(new)
                return [Trenamex(0, name, which & 1, new, which)]
            case "chmod":
                return [Tsetattrx(0, name, c.SETATTR_MODE, 0o700, 0, 0, 0, 0, 0)]
            case "xattr":
                return [Tsetxattrx(0, name, b"user.x", 0, name)]
        return [Tunlinkat(0, name, c.AT_REMOVEDIR if kind == "rmdir" else 0)]


def check_same(base: Path, operations: list[tuple[Any, ...]], drains: int) -> None:
    trees = []
    for journalled in (False, True):
        with fresh(base) as client:
            client.call(Twalkx(0, 1, c.NOOPEN, 0, [b"dir"]))
            names = Names()
            for number, operation in enumerate(operations):
                for request in names.requests(operation):
                    _do(client, request, journalled)
                if journalled and drains >> number % 8 & 1:
                    client.drain()
            client.drain()
            trees.append(look(base / "root"))
    assert trees[0] == trees[1]


def _do(client: JournalClient, request: Message, journalled: bool) -> None:
    if journalled and not isinstance(request, Tsparex):
        client.leave(request)
        return
    try:
        client.call(request)
    except OSError:
        return
    if isinstance(request, Tsparex):
        fd = client.take_fd()
        os.write(fd, b"%d" % request.newfids[0])
        os.close(fd)


def look(root: Path) -> dict[str, tuple[object, ...]]:
    """What is in a tree."""
    found: dict[str, tuple[object, ...]] = {}
    numbers: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name, seen = str(path.relative_to(root)), path.lstat()
        contents: object = None
        if stat.S_ISREG(seen.st_mode):
            contents = path.read_bytes(), os.listxattr(path)
        elif path.is_symlink():
            contents = os.readlink(path)
        same = numbers.setdefault(seen.st_ino, name)
        found[name] = seen.st_mode, seen.st_uid, seen.st_gid, seen.st_nlink, same, contents
    return found


@for_a_while()
def test_journal_does_what_messages_do(tmp_path: Path, seconds: float) -> None:
    explore(
        seconds, lambda **values: check_same(tmp_path / "base", **values),
        operations=_OPERATIONS, drains=st.integers(0, 255),
    )  # fmt: skip


# --- while it is read


@for_a_while()
def test_journal_that_changes_while_it_is_read_hurts_nobody(tmp_path: Path, seconds: float) -> None:
    """A second process writes one record over another, where the Gofer looks for the next one."""
    with fresh(tmp_path / "base") as client:
        place = mmap.mmap(-1, 8)
        pid = spawn(lambda: scribble(mmap.mmap(client.ring, CAPACITY), place))
        try:
            end, position = time.monotonic() + seconds, 0
            while time.monotonic() < end or position < 2 * CAPACITY:
                position = client.ask(Tdrainx(0), Rdrainx).position
                place[:] = position.to_bytes(8, "little")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def scribble(memory: mmap.mmap, place: mmap.mmap) -> None:
    """Until it is killed. Both records are as long, so that half of each may look like one."""
    writer = JournalWriter(memory)
    make = Tmakex(0, b"n", b"", 0o40755, 0, 0, 0).encode(c.NOTAG)
    link = Tmakex(0, b"m", b"", 0o10644, 1, 1, 0).encode(c.NOTAG)
    while True:
        for frame in (make, link):
            writer.ring.position = writer.ring.executed = int.from_bytes(place[:], "little")
            writer.append(frame)
