"""Hearing of what others change: who hears, of what, and what is left out."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gofer.attachment import Attachment, CacheMode
from gofer.p9 import constants as c
from gofer.p9.extensions import (
    Rhearx,
    Rsparex,
    Rwalkx,
    Tcreatex,
    Tdupx,
    Thearx,
    Tmakex,
    Trenamex,
    Tsetattrx,
    Tsparex,
    Twalkx,
)
from gofer.p9.messages import Rflush, Tattach, Tclunk, Tflush, Tunlinkat
from gofer.shared import Limits
from tests.unit.gofer.harness import Client, serving

Heard = set[tuple[int, bytes, int]]
NAME, FILE = c.HEARD_NAME, c.HEARD_FILE


class Listener(Client):
    """One whose request may stay without an answer, and who looks for it."""

    def start_hearing(self, fid: int = 0) -> None:
        assert self.ask(Thearx(fid), Rhearx) == Rhearx(0, b"")

    def wait(self) -> None:
        """Ask, and do not look for the answer."""
        self.sock.sendall(Thearx(0).encode(7))

    def told(self) -> Rhearx:
        """The answer to the request that waits."""
        reply = self._next(7)
        assert isinstance(reply, Rhearx)
        return reply

    def _next(self, tag: int) -> object:
        while True:
            for got, reply in self._reader.feed(self.sock.recv(1 << 20)):
                assert got == tag
                return reply

    def is_silent(self, seconds: float = 0.1) -> bool:
        """Nothing is told for longer than the Gofer waits between two looks."""
        return not select.select([self.sock], [], [], seconds)[0]


def entries(reply: Rhearx) -> Heard:
    found, at = set(), 0
    while at < len(reply.heard):
        _, ino, what, length = struct.unpack_from("<QQBH", reply.heard, at)
        at += 19 + length
        found.add((ino, reply.heard[at - length : at], what))
    return found


@pytest.fixture
def client(tree: Path) -> Iterator[Listener]:
    fd = os.open(tree, os.O_PATH)
    (tree / "sub").mkdir()
    (tree / "sub" / "deep").mkdir()
    with serving([Attachment(b"0", fd), Attachment(b"1", fd, cache=CacheMode.SHARED)]) as sock:
        made = Listener(sock)
        made.start()
        yield made
    os.close(fd)


def ino(path: Path) -> int:
    return os.stat(path).st_ino


def collected(client: Listener, wanted: Heard) -> Heard:
    """What is told, until all that is wanted was."""
    found: Heard = set()
    while not found >= wanted:
        reply = client.told()
        assert not reply.lost
        found |= entries(reply)
        client.wait()
    return found


def test_what_others_do_in_a_directory_with_a_fid_is_heard(client: Listener, tree: Path) -> None:
    root, file = ino(tree), tree / "file"
    client.start_hearing()
    client.wait()
    (tree / "made").mkdir()
    os.rename(file, tree / "moved")
    os.chmod(tree / "moved", 0o604)
    (tree / "moved").write_bytes(b"other contents")
    os.link(tree / "moved", tree / "linked")
    os.unlink(tree / "linked")
    os.chmod(tree, 0o711)
    collected(client, {
        (root, b"made", NAME), (root, b"file", NAME), (root, b"moved", NAME),
        (root, b"linked", NAME), (root, b".", FILE),
    })  # fmt: skip


def test_contents_and_attributes_are_no_other_file(client: Listener, tree: Path) -> None:
    client.start_hearing()
    client.wait()
    os.chmod(tree / "file", 0o604)
    assert entries(client.told()) == {(ino(tree), b"file", FILE)}
    client.wait()
    (tree / "file").write_bytes(b"other contents")
    assert entries(client.told()) == {(ino(tree), b"file", FILE)}


def test_directory_is_heard_of_once_it_has_a_fid(client: Listener, tree: Path) -> None:
    client.start_hearing()
    client.wait()
    (tree / "sub" / "deep" / "unheard").touch()
    (tree / "sub" / "unheard").touch()
    assert client.is_silent()
    client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"sub", b"deep"]), Rwalkx)
    (tree / "sub" / "unheard").unlink()
    (tree / "sub" / "deep" / "heard").touch()
    deep = ino(tree / "sub" / "deep")
    assert collected(client, {(deep, b"heard", NAME)}) == {(deep, b"heard", NAME)}


def test_what_the_gofer_does_itself_is_not_heard(client: Listener, tree: Path) -> None:
    client.start_hearing()
    client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"sub"]), Rwalkx)
    client.wait()
    for request in (
        Tmakex(1, b"d", b"", 0o040755, 0, 0, 0),
        Tcreatex(1, 5, b"f", os.O_RDWR | os.O_EXCL, 0, 0o600, 0, 0),
        Tsetattrx(1, b"f", c.SETATTR_MODE, 0o640, 0, 0, 0, 0, 0),
        Trenamex(1, b"f", 0, b"g", 0),
        Tunlinkat(0, b"g", 0),
        Tunlinkat(1, b"d", c.AT_REMOVEDIR),
    ):
        client.call(request)
    assert client.is_silent()
    (tree / "sub" / "by others").touch()
    found = collected(client, {(ino(tree / "sub"), b"by others", NAME)})
    assert {name for _, name, _ in found} == {b"by others"}


def test_file_without_a_name_that_is_closed_is_not_heard(client: Listener, tree: Path) -> None:
    """Its events have a name that nothing has; a file that has such a name is heard of."""
    client.start_hearing()
    client.wait()
    client.ask(Tsparex(0, [5]), Rsparex)
    fd = client.take_fd()
    os.write(fd, b"contents")
    name = b"#%d" % os.fstat(fd).st_ino
    os.close(fd)
    assert client.is_silent()
    Path(os.fsdecode(bytes(tree) + b"/" + name)).write_bytes(b"another")
    assert collected(client, {(ino(tree), name, NAME)}) == {(ino(tree), name, NAME)}
    client.call(Tclunk(5))


def test_directory_without_a_fid_that_gets_another_mode_is_lost(
    client: Listener, tree: Path
) -> None:
    """Who walks through it looks at its mode, and what is told names directories with a fid."""
    client.start_hearing()
    client.wait()
    os.chmod(tree / "sub", 0o700)
    assert client.told() == Rhearx(1, b"")


def test_more_than_is_remembered_is_lost(client: Listener, tree: Path) -> None:
    client.start_hearing()
    for number in range(3000):
        (tree / f"n{number}").touch()
    lost = False
    while not lost:
        reply = client.ask(Thearx(0), Rhearx)
        lost = bool(reply.lost)
    assert reply.heard == b""


def test_queue_of_the_host_that_overflows_is_lost(client: Listener, tree: Path) -> None:
    """It was stopped meanwhile: nobody takes anything out of the queue."""
    client.start_hearing()
    most = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    with Stopped(children()):
        for number in range(most + 1):
            os.mknod(tree / f"n{number}")
    lost = False
    while not lost:
        lost = bool(client.ask(Thearx(0), Rhearx).lost)


class Stopped:
    """Processes that do not run meanwhile."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)


def children() -> list[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in found.split()]


def test_ceiling_of_directories_starts_anew_with_those_in_use(
    client: Listener, tree: Path
) -> None:
    client.start_hearing()
    client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"sub"]), Rwalkx)
    for number in range(Limits().max_heard):
        (tree / "sub" / f"d{number}").mkdir()
        client.ask(Twalkx(1, 2, c.NOOPEN, 0, [b"d%d" % number]), Rwalkx)
        client.call(Tclunk(2))
        (tree / "sub" / f"d{number}").rmdir()
    lost = False
    while not lost:
        lost = bool(client.ask(Thearx(0), Rhearx).lost)
    client.wait()
    (tree / "sub" / "still").touch()
    wanted = (ino(tree / "sub"), b"still", NAME)
    while wanted not in entries(client.told()):
        client.wait()


def test_second_session_does_not_hear(client: Listener) -> None:
    client.start_hearing()
    client.call(Tdupx())
    with socket.socket(fileno=client.take_fd()) as sock:
        second = Client(sock)
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            second.call(Thearx(0))


@pytest.fixture
def two(tree: Path, tmp_path: Path) -> Iterator[tuple[Listener, Listener]]:
    """Two trees, and who hears of each."""
    other = tmp_path / "other"
    other.mkdir()
    fds = [os.open(path, os.O_PATH) for path in (tree, other)]
    with serving([Attachment(b"%d" % number, fd) for number, fd in enumerate(fds)]) as sock:
        first = Listener(sock)
        first.start()
        first.call(Tattach(1, c.NOFID, b"", b"1", 0))
        first.call(Tdupx())
        with socket.socket(fileno=first.take_fd()) as copy:
            second = Listener(copy)
            first.start_hearing(0)
            second.start_hearing(1)
            yield first, second
    for fd in fds:
        os.close(fd)


def test_who_hears_of_a_tree_hears_of_no_other(
    two: tuple[Listener, Listener], tree: Path, tmp_path: Path
) -> None:
    first, second = two
    first.wait()
    second.wait()

    (tmp_path / "other" / "new").mkdir()
    assert entries(second.told()) == {(ino(tmp_path / "other"), b"new", NAME)}
    assert first.is_silent()

    (tree / "new").mkdir()
    assert entries(first.told()) == {(ino(tree), b"new", NAME)}


def test_one_hears_on_when_another_has_ended(
    two: tuple[Listener, Listener], tree: Path, tmp_path: Path
) -> None:
    """What it had of marks is taken off all together: so once, all may be different."""
    first, second = two
    second.sock.shutdown(socket.SHUT_RDWR)
    first.wait()
    assert first.told() == Rhearx(1, b"")
    first.wait()

    (tmp_path / "other" / "unheard").mkdir()
    (tree / "new").mkdir()

    assert entries(first.told()) == {(ino(tree), b"new", NAME)}


def test_one_request_waits_at_a_time(client: Listener) -> None:
    client.start_hearing()
    client.wait()
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        client.call(Thearx(0))


def test_request_that_is_flushed_is_not_answered(client: Listener, tree: Path) -> None:
    client.start_hearing()
    client.wait()
    assert isinstance(client.call(Tflush(7)), Rflush)
    (tree / "new").touch()
    assert client.is_silent()
    assert (ino(tree), b"new", NAME) in entries(client.ask(Thearx(0), Rhearx))


def test_tree_that_others_share_is_not_heard_of(client: Listener) -> None:
    client.call(Tattach(9, c.NOFID, b"", b"1", 0))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.call(Thearx(9))


def test_only_a_root_is_heard_of(client: Listener) -> None:
    client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"sub"]), Rwalkx)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.call(Thearx(1))


def test_without_a_group_nothing_is_heard(tree: Path) -> None:
    fd = os.open(tree, os.O_PATH)
    with serving([Attachment(b"0", fd)], hears=False) as sock:
        client = Client(sock)
        client.start()
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            client.call(Thearx(0))
    os.close(fd)
