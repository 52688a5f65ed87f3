"""Requests that are answered in C, beside the handlers that would answer them."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from gofer.connection import Connection
from gofer.hot import Hot
from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import Rcreatex, Rnearx, Rwalkx, Tcreatex, Tdupx, Tnearx, Twalkx
from gofer.p9.frames import FrameReader
from gofer.p9.messages import (
    Rgetattr,
    Rlerror,
    Runlinkat,
    Tattach,
    Tclunk,
    Tgetattr,
    Tunlinkat,
    Tversion,
)
from gofer.replies import Reply
from gofer.server import Server
from gofer.shared import Limits

pytestmark = pytest.mark.root

ROOT, DIR = 0, 1


class Served:
    """A server that works when a client waits, and that client, whose fid 0 is the tree."""

    def __init__(self, tree: Path, limits: Limits | None = None, readonly: bool = False) -> None:
        self.root = os.open(tree, os.O_PATH)
        self.server = Server([Attachment(b"0", self.root, readonly)], limits)
        self.sock, theirs = socket.socketpair()
        self.server.add(theirs)
        self.fds: list[int] = []
        self._reader = FrameReader(c.MSIZE_MAX)
        self.call(Tversion(c.MSIZE_MAX, c.VERSION_EXTENDED))
        self.call(Tattach(ROOT, c.NOFID, b"", b"", 0))

    def send(self, *requests: Message) -> None:
        """All at once, with tags from 0 on."""
        frames = [
            each.encode(c.NOTAG if isinstance(each, Tversion) else tag)
            for tag, each in enumerate(requests)
        ]
        self.sock.sendall(b"".join(frames))

    def replies(self, count: int) -> list[Message]:
        found: list[Message] = []
        while len(found) < count:
            self.server.step(0)
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, 65536, 8, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            self.fds += fds
            found += [reply for _, reply in self._reader.feed(data)]
        return found

    def call(self, request: Message) -> Message:
        self.send(request)
        return self.replies(1)[0]

    def create(self, name: bytes, fid: int = ROOT, flags: int = os.O_RDWR) -> Message:
        return self.call(creation(name, fid, flags))

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.sock.close()
        self.server.step(0)
        self.server.close()
        os.close(self.root)


def creation(name: bytes, fid: int = ROOT, flags: int = os.O_RDWR) -> Tcreatex:
    return Tcreatex(fid, c.NOFID, name, flags | os.O_EXCL, 1, 0o640, 0, 0)


def removal(name: bytes, fid: int = ROOT) -> Tunlinkat:
    return Tunlinkat(fid, name, 0)


@pytest.fixture
def served(tree: Path) -> Iterator[Served]:
    made = Served(tree)
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[type[Message]]:
    """What handlers were asked."""
    found: list[type[Message]] = []
    perform = Connection.perform

    def record(self: Connection, request: Message) -> Reply:
        found.append(type(request))
        return perform(self, request)

    monkeypatch.setattr(Connection, "perform", record)
    return found


def test_handlers_are_asked_once_for_each_directory(
    served: Served, asked: list[type[Message]], tree: Path
) -> None:
    for number in range(5):
        reply = served.create(b"f%d" % number)
        assert isinstance(reply, Rcreatex) and reply.created
        assert os.fstat(served.fds[-1]).st_ino == (tree / f"f{number}").stat().st_ino
    for number in range(5):
        assert isinstance(served.call(removal(b"f%d" % number)), Runlinkat)
    assert asked.count(Tcreatex) == 1
    assert asked.count(Tunlinkat) == 0
    assert not list(tree.glob("f?"))


def steps(seed: int) -> list[Message]:
    """Creations and removals, with names and flags that are refused, walks and clunks between."""
    chance = random.Random(seed)
    names = [b"a", b"b", b"file", b"dir", b"up", b"fifo", b"..", b".", b"", b"x/y", b"n" * 256]
    names += [b"z\0z", b"n" * 255]
    found: list[Message] = []
    for _ in range(400):
        name, fid = chance.choice(names), chance.choice((ROOT, ROOT, DIR, 7))
        flags = chance.choice((os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_RDONLY))
        kind = chance.random()
        if kind < 0.45:
            mode = chance.choice((0o640, 0o4711, 0o2000, 0o100666))
            owner = chance.choice((0, 1000, c.NOID)), chance.choice((0, 1001, c.NOID))
            flags |= chance.choice((os.O_EXCL, os.O_EXCL, 0, os.O_EXCL | os.O_TRUNC | os.O_SYNC))
            found.append(Tcreatex(fid, c.NOFID, name, flags, 1, mode, *owner))
        elif kind < 0.9:
            found.append(Tunlinkat(fid, name, chance.choice((0, 0, 0, c.AT_REMOVEDIR, 1))))
        elif kind < 0.95:
            found.append(Twalkx(ROOT, chance.choice((DIR, 7)), c.NOOPEN, 0, [name]))
        else:
            found.append(Tclunk(chance.choice((DIR, 7))))
    return found


def told(reply: Message) -> object:
    """What two trees have in common."""
    if isinstance(reply, Rcreatex):
        made = Attributes.unpack(reply.block)
        return reply.opened, reply.created, made.mode, made.uid, made.gid, made.nlink, made.size
    return type(reply) if isinstance(reply, Rwalkx) else reply


@pytest.mark.parametrize("seed", range(6))
def test_replies_are_those_of_the_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    outcomes = []
    for name in ("hot", "cold"):
        tree = tmp_path / name
        (tree / "dir").mkdir(parents=True)
        (tree / "file").touch()
        (tree / "up").symlink_to("../secret")
        os.mkfifo(tree / "fifo")
        served = Served(tree)
        if name == "cold":
            monkeypatch.setattr(Hot, "ready", lambda *_: None)
        outcomes.append([(request, told(served.call(request))) for request in steps(seed)])
        outcomes[-1].append((Tversion(0, b""), sorted(map(str, os.listdir(tree)))))
        served.close()
    assert outcomes[0] == outcomes[1]


def test_fid_that_becomes_another_directory_is_that(served: Served, tree: Path) -> None:
    (tree / "other").mkdir()
    served.call(Twalkx(ROOT, DIR, c.NOOPEN, 0, [b"dir"]))
    served.create(b"one", DIR)
    served.create(b"two", DIR)
    served.call(Tclunk(DIR))
    refused = served.create(b"three", DIR)
    assert isinstance(refused, Rlerror) and refused.ecode == errno.EBADF
    served.call(Twalkx(ROOT, DIR, c.NOOPEN, 0, [b"other"]))
    served.create(b"three", DIR)
    assert {each.name for each in (tree / "dir").iterdir()} >= {"one", "two"}
    assert [each.name for each in (tree / "other").iterdir()] == ["three"]


def test_file_whose_name_is_removed_is_still_that_of_its_fid(served: Served, tree: Path) -> None:
    served.create(b"one")
    served.call(Twalkx(ROOT, DIR, c.NOOPEN, 0, [b"file"]))
    served.call(removal(b"one"))
    assert isinstance(served.call(removal(b"file")), Runlinkat)
    left = served.call(Tgetattr(DIR, 0))
    assert isinstance(left, Rgetattr) and left.size == len("contents") and left.nlink == 0


def test_requests_that_come_together_are_answered_in_their_order(
    served: Served, tree: Path
) -> None:
    served.create(b"one")
    requests = [creation(b"two"), removal(b"two"), Tgetattr(ROOT, 0), creation(b"two"),
                removal(b"one"), removal(b"one")]  # fmt: skip
    served.send(*requests)
    kinds = [type(each) for each in served.replies(6)]
    assert kinds == [Rcreatex, Runlinkat, Rgetattr, Rcreatex, Runlinkat, Rlerror]
    assert (tree / "two").exists()


def test_request_that_comes_in_pieces_is_answered_when_it_is_whole(served: Served) -> None:
    served.create(b"one")
    frame = creation(b"two").encode(3)
    for at in range(len(frame)):
        served.sock.sendall(frame[at : at + 1])
        served.server.step(0)
    assert isinstance(served.replies(1)[0], Rcreatex)
    assert isinstance(served.call(removal(b"two")), Runlinkat)


def test_replies_that_nobody_reads_wait_with_their_descriptors(served: Served, tree: Path) -> None:
    """More than a socket holds; each is the answer to its own request in the end."""
    count = 900
    served.create(b"one")
    for number in range(count):
        served.send(creation(b"f%d" % number))
        served.server.step(0)
    assert len(list(tree.glob("f[0-9]*"))) == count
    first, served.fds = served.fds, []
    replies = served.replies(count)
    assert all(isinstance(each, Rcreatex) for each in replies)
    inodes = [os.fstat(fd).st_ino for fd in served.fds]
    assert inodes == [(tree / f"f{number}").stat().st_ino for number in range(count)]
    served.fds += first


def test_descriptors_of_directories_that_are_closed_are_not_used(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
    served = Served(tmp_path, Limits(max_node_fds=4))
    for number in range(20):
        served.call(Twalkx(ROOT, number + 1, c.NOOPEN, 0, [b"d%d" % number]))
    for turn in range(3):
        for number in range(20):
            assert isinstance(served.create(b"f%d" % turn, number + 1), Rcreatex)
    for number in range(20):
        assert sorted(os.listdir(tmp_path / f"d{number}")) == ["f0", "f1", "f2"]
    served.close()


def test_nothing_is_made_or_removed_in_what_is_only_to_be_read(tree: Path) -> None:
    served = Served(tree, readonly=True)
    for request in (creation(b"one"), removal(b"file"), creation(b"one"), removal(b"file")):
        reply = served.call(request)
        assert isinstance(reply, Rlerror) and reply.ecode == errno.EROFS
    served.close()
    assert (tree / "file").exists() and not (tree / "one").exists()


def test_more_sessions_than_are_known_are_all_answered(served: Served, tree: Path) -> None:
    for _ in range(40):
        served.call(Tdupx())
    first, sockets = served.sock, [socket.socket(fileno=fd) for fd in served.fds]
    served.fds = []
    for turn in range(3):
        for number, served.sock in enumerate(sockets):
            assert isinstance(served.create(b"s%d.%d" % (number, turn)), Rcreatex)
    for each in sockets:
        each.close()
    served.sock = first
    assert len(list(tree.glob("s*.*"))) == 120


@pytest.fixture
def cpus() -> Iterator[set[int]]:
    """Where this thread, which is the server's, may run."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def test_server_runs_where_its_last_client_waits(served: Served, cpus: set[int]) -> None:
    served.call(Tdupx())
    first, second = served.sock, socket.socket(fileno=served.fds.pop())
    for cpu in sorted(cpus):
        assert isinstance(served.call(Tnearx(cpu)), Rnearx)
        served.create(b"f%d" % cpu)  # the wait for it is from there
        served.create(b"g%d" % cpu)
        assert os.sched_getaffinity(0) == {cpu}
    with second:
        for served.sock, where in ((second, cpus), (first, {max(cpus)}), (second, cpus)):
            served.call(removal(b"none"))
            served.server.step(0)
            assert os.sched_getaffinity(0) == where
    served.sock = first
    served.call(Tnearx(c.NOCPU))
    served.server.step(0)
    assert os.sched_getaffinity(0) == cpus


@pytest.mark.parametrize("cpu", [1023, 1024, 1 << 31, c.NOCPU - 1])
def test_where_the_server_may_not_run_it_is_not(served: Served, cpus: set[int], cpu: int) -> None:
    served.call(Tnearx(cpu))
    assert isinstance(served.create(b"one"), Rcreatex)
    assert os.sched_getaffinity(0) == cpus


def test_threads_of_the_pool_run_anywhere(served: Served, cpus: set[int]) -> None:
    served.call(Tnearx(min(cpus)))
    served.create(b"one")
    assert os.sched_getaffinity(0) == {min(cpus)}
    found: list[set[int]] = []
    served.server.shared.pool.submit(
        lambda: os.sched_getaffinity(0), lambda value, _: found.append(value)
    )
    while not found:
        served.server.step()
    assert found == [cpus]
