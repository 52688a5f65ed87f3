"""Records of a journal are carried out: in order, before messages, and when the client is gone."""

from __future__ import annotations

import errno
import glob
import os
import signal
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.extensions import (
    Rsparex,
    Rwalkx,
    Tcreatex,
    Tdrainx,
    Tdupx,
    Tjournalx,
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
from gofer.p9.journal import MAX_FRAME
from gofer.p9.messages import Rgetattr, Tclunk, Tgetattr, Tread, Tunlinkat, Tversion
from sentry.platform.records import JournalFull
from tests.unit.gofer.conftest import MakeClient
from tests.unit.gofer.harness import Client, spawn
from tests.unit.gofer.journals import JournalClient, journalling

pytestmark = pytest.mark.root

OWNER = c.SETATTR_MODE | c.SETATTR_UID | c.SETATTR_GID


@pytest.fixture
def client(tree: Path) -> Iterator[JournalClient]:
    with journalling(tree) as made:
        yield made


def bind(fid: int, newfid: int, *names: bytes) -> Message:
    return Twalkx(fid, newfid, c.NOOPEN, 0, list(names))


def directory(fid: int, name: bytes, mode: int = 0o755) -> Message:
    return Tmakex(fid, name, b"", stat.S_IFDIR | mode, 0, 0, 0)


def owned(fid: int, mode: int, uid: int, gid: int) -> Message:
    return Tsetattrx(fid, b"", OWNER, mode, uid, gid, 0, 0, 0)


def failures(client: JournalClient) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("<QI", client.drain().failures))


def test_each_kind_of_record_does_what_its_message_does(client: JournalClient, tree: Path) -> None:
    client.leave(
        directory(0, b"made", 0o2750),
        bind(0, 5, b"made"),
        Tmakex(5, b"link", b"to/nowhere", stat.S_IFLNK | 0o777, 3, 4, 0),
        Tmakex(5, b"pipe", b"", stat.S_IFIFO | 0o640, 3, 4, 0),
        Tlinkx(0, b"file", 5, b"second"),
        Tsetattrx(5, b"second", c.SETATTR_MODE, 0o604, 0, 0, 0, 0, 0),
        Tsetxattrx(0, b"file", b"user.one", 0, b"1"),
        Tsetxattrx(0, b"file", b"user.two", 0, b"2"),
        Tremovexattrx(0, b"file", b"user.one"),
        Trenamex(0, b"dir", 5, b"moved", 1),
        Trenamex(5, b"moved", 0, b"fifo", 2),
        Tunlinkat(0, b"up", 0),
        Tclunk(5),
    )
    assert failures(client) == []
    made = tree / "made"
    assert stat.S_IMODE(os.stat(made).st_mode) == 0o2750
    assert os.readlink(made / "link") == "to/nowhere"
    assert os.lstat(made / "link").st_uid == 3
    pipe = os.stat(made / "pipe")
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (pipe.st_uid, pipe.st_gid) == (3, 4)
    assert os.path.samefile(made / "second", tree / "file")
    assert stat.S_IMODE(os.stat(tree / "file").st_mode) == 0o604
    assert os.listxattr(tree / "file") == ["user.two"]
    assert (tree / "fifo" / "inner").read_bytes() == b"inner"
    assert stat.S_ISFIFO(os.stat(made / "moved").st_mode)
    assert not os.path.lexists(tree / "up")
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        client.call(Tgetattr(5, 0))


def test_message_sees_what_was_written_before_it(client: JournalClient) -> None:
    client.leave(directory(0, b"new"), bind(0, 9, b"new"))
    assert stat.S_ISDIR(client.ask(Tgetattr(9, 0), Rgetattr).mode)


def test_name_appears_with_data_owner_and_mode(client: JournalClient, tree: Path) -> None:
    spare = client.ask(Tsparex(0, [3]), Rsparex)
    fd = client.take_fd()
    before = sorted(os.listdir(tree))
    os.write(fd, b"contents")
    client.leave(owned(3, 0o4711, 1000, 1001), Tlinkx(3, b"", 0, b"named"), Tclunk(3))
    assert sorted(os.listdir(tree)) == before
    assert failures(client) == []
    found = os.stat(tree / "named")
    assert os.path.samestat(found, os.fstat(fd))
    os.close(fd)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 1001, 0o4711)
    assert found.st_nlink == 1
    assert (tree / "named").read_bytes() == b"contents"
    assert found.st_ino.to_bytes(8, "little") in spare.blocks[0]


def test_spares_whose_reply_fails_leave_no_descriptors(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def room(_fd: int) -> int:
        raise OSError(len(os.listdir("/proc/self/fd")), "statfs")

    monkeypatch.setattr("gofer.handlers.journal._room", room)
    counts = set()
    with journalling(tree) as client:
        for _ in range(4):
            with pytest.raises(OSError) as refused:
                client.call(Tsparex(0, [3, 4]))
            counts.add(refused.value.errno)
            for fid in (3, 4):
                client.call(Tclunk(fid))
    assert len(counts) == 1


def test_file_that_was_removed_before_it_was_made_is_never_made(
    client: JournalClient, tree: Path
) -> None:
    times = os.stat(tree).st_mtime_ns
    for number in range(3):
        client.call(Tsparex(0, [number + 3]))
        os.close(client.take_fd())
        client.leave(
            owned(number + 3, 0o600, 0, 0), Tlinkx(number + 3, b"", 0, b"brief"),
            Tclunk(number + 3), Tunlinkat(0, b"brief", 0),
        )  # fmt: skip
    assert failures(client) == []
    assert os.stat(tree).st_mtime_ns == times


def test_spares_are_made_before_what_was_recorded_is_done(
    client: JournalClient, tree: Path
) -> None:
    spare(client, 3)
    client.leave(named(3, b"new"), directory(0, b"made"))
    spare(client, 4)
    assert not {"new", "made"} & set(os.listdir(tree))
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        client.call(Tsparex(0, [3]))
    assert client.ask(Twalkx(0, 9, c.NOOPEN, 0, [b"made"]), Rwalkx).blocks
    assert {"new", "made"} <= set(os.listdir(tree))


def test_refused_record_is_told_once_and_the_rest_is_done(
    client: JournalClient, tree: Path
) -> None:
    client.leave(directory(0, b"first"))
    refused = client.writer.position
    client.leave(Tunlinkat(0, b"first", 0))
    unbound = client.writer.position
    client.leave(bind(0, 9, b"nor", b"there"), directory(0, b"last"))
    assert failures(client) == [(refused, errno.EISDIR), (unbound, errno.ENOENT)]
    assert failures(client) == []
    assert {"first", "last"} <= set(os.listdir(tree))


def named(fid: int, name: bytes, mode: int = 0o600, uid: int = 0) -> Message:
    return Tnamex(fid, 0, name, mode, uid, 0, 0)


def spare(client: JournalClient, fid: int) -> None:
    client.ask(Tsparex(0, [fid]), Rsparex)
    os.close(client.take_fd())


def test_file_that_is_refused_its_name_gives_its_fid_back(
    client: JournalClient, tree: Path
) -> None:
    for fid in (3, 4):
        spare(client, fid)
    (tree / "taken").mkdir()
    refused = client.writer.position
    client.leave(named(3, b"taken"), named(4, b"good", 0o604))
    assert failures(client) == [(refused, errno.EEXIST)]
    assert os.stat(tree / "good").st_mode == stat.S_IFREG | 0o604
    for fid in (3, 4):
        spare(client, fid)


def test_what_is_no_spare_is_not_named(client: JournalClient, tree: Path) -> None:
    client.leave(bind(0, 5, b"file"), named(5, b"other"), named(0, b"other"), named(9, b"other"))
    assert [number for _, number in failures(client)] == [errno.EINVAL, errno.EINVAL, errno.EBADF]
    assert not (tree / "other").exists()


def test_what_was_made_is_told_by_its_number(client: JournalClient, tree: Path) -> None:
    start = client.writer.position
    client.leave(directory(0, b"one"))
    later = client.writer.position
    client.leave(directory(0, b"no/name"), directory(0, b"brief"), Tunlinkat(0, b"brief", 0x200))
    client.leave(directory(0, b"two"))
    made = list(struct.iter_unpack("<QQQ", client.drain().made))
    one, two = os.stat(tree / "one"), os.stat(tree / "two")
    assert made[0] == (start, one.st_dev, one.st_ino)
    assert made[1][0] > later
    assert made[1][1:] == (two.st_dev, two.st_ino)
    assert len(made) == 2
    assert client.drain().made == b""


def test_more_refusals_than_are_told_are_counted(client: JournalClient) -> None:
    for _ in range(70):
        client.leave(Tunlinkat(0, b"..", 0))
    reply = client.drain()
    assert (len(reply.failures) // 12, reply.lost) == (64, 6)
    assert client.drain().lost == 0


def test_ring_turns_and_its_writer_waits(tree: Path) -> None:
    with journalling(tree, 4096) as client:
        waits = 0
        for number in range(400):
            try:
                client.leave(directory(0, b"%03d" % number))
            except JournalFull:
                waits += 1
                client.drain()
                client.leave(directory(0, b"%03d" % number))
        assert waits > 3
    assert sum(name.isdigit() for name in os.listdir(tree)) == 400


# --- the end of the client


def test_closed_connection_leaves_nothing_undone(tree: Path) -> None:
    with journalling(tree) as client:
        client.leave(directory(0, b"a"), bind(0, 5, b"a"), directory(5, b"b"))
    assert (tree / "a" / "b").is_dir()


def test_connection_that_ends_in_garbage_leaves_nothing_undone(tree: Path) -> None:
    with journalling(tree) as client:
        client.leave(directory(0, b"a"))
        client.sock.sendall(b"\xff" * 64)
        assert client.sock.recv(1) == b""
    assert (tree / "a").is_dir()


@pytest.mark.parametrize("acknowledged", [1, 2, 17, 90])
def test_killed_writer_has_done_what_it_acknowledged(tree: Path, acknowledged: int) -> None:
    """In order, with nothing left out, and whatever more it had got done."""
    heard, tells = os.pipe()
    with journalling(tree) as client:

        def write() -> None:
            for number in range(1000):
                client.leave(directory(0, b"%04d" % number))
                os.write(tells, b"%04d" % number)

        pid = spawn(write)
        client.sock.close()
        os.close(tells)
        for _ in range(acknowledged):
            os.read(heard, 4)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while os.read(heard, 4):
            acknowledged += 1
        os.close(heard)
    done = sorted(name for name in os.listdir(tree) if name.isdigit())
    assert done == [f"{number:04}" for number in range(len(done))]
    assert acknowledged <= len(done) <= acknowledged + 1


@pytest.mark.parametrize("kept", [0, 1, 4, 15, 16, 17, 30, -20])
def test_torn_record_is_not_done(tree: Path, kept: int) -> None:
    """`kept`: of its bytes; the others are as they were before."""
    with journalling(tree) as client:
        client.leave(directory(0, b"whole"))
        start = client.writer.position
        blank = client.memory[start:]
        client.leave(directory(0, b"torn"))
        end = client.writer.position
        cut = start + kept if kept >= 0 else end + kept
        client.memory[cut:] = blank[cut - start :]
    assert (tree / "whole").is_dir()
    assert not (tree / "torn").exists()


# --- clients that mean harm


@pytest.mark.parametrize(
    "request_",
    [
        Tcreatex(0, c.NOFID, b"new", os.O_RDWR, 1, 0o600, 0, 0),
        Tread(0, 0, 10),
        Tdupx(),
        Tversion(c.MSIZE_MAX, c.VERSION),
        Tdrainx(0),
        Tjournalx(),
        Tsparex(0, [9]),
        Twalkx(0, 9, os.O_RDWR, 1, [b"file"]),
        Twalkx(0, c.NOFID, c.NOOPEN, 0, [b"file"]),
        Rwalkx(0, 0, b"", []),
    ],
)
def test_other_requests_end_the_session_after_what_came_before(
    tree: Path, request_: Message
) -> None:
    with journalling(tree) as client:
        client.leave(directory(0, b"before"), request_, directory(0, b"after"))
        with pytest.raises(EOFError):
            client.drain()
    assert (tree / "before").is_dir()
    assert not (tree / "after").exists()
    assert not (tree / "new").exists()


def test_names_lead_nowhere_else(client: JournalClient, tree: Path) -> None:
    secret = os.stat(tree.parent / "secret")
    numbers = [
        directory(0, b"../new"),
        directory(0, b".."),
        Tlinkx(0, b"../secret", 0, b"stolen"),
        Trenamex(0, b"file", 0, b"../file", 0),
        Tsetattrx(0, b"up", c.SETATTR_SIZE, 0, 0, 0, 0, 0, 0),
        Tunlinkat(0, b"../secret", 0),
        directory(0, b"x" * 256),
    ]
    client.leave(*numbers)
    assert len(failures(client)) == len(numbers)
    assert sorted(os.listdir(tree.parent)) == ["root", "secret"]
    assert os.stat(tree.parent / "secret") == secret


def test_memory_that_is_cut_short_stops_the_journal_alone(tree: Path) -> None:
    with journalling(tree) as client:
        client.leave(directory(0, b"before"))
        client.drain()
        client.call(Tdupx())
        other = Client(socket.socket(fileno=client.take_fd()))
        client.leave(directory(0, b"lost"))
        os.ftruncate(client.ring, 0)
        client.drain()
        with other.sock:
            assert other.ask(Tgetattr(0, 0), Rgetattr).nlink
    assert not (tree / "lost").exists()


def test_second_session_gets_no_journal(client: JournalClient) -> None:
    client.call(Tdupx())
    with socket.socket(fileno=client.take_fd()) as sock:
        other = Client(sock)
        other.start()
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            other.call(Tjournalx())
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            other.call(Tdrainx(0))


def test_where_there_is_none_it_is_not_given(connect: MakeClient) -> None:
    client = connect()
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        client.call(Tjournalx())
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        client.call(Tdrainx(0))


# --- files without a name


def test_spare_file_below_a_read_only_tree_is_refused(connect: MakeClient) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        connect(readonly=True).call(Tsparex(0, [3]))


def test_spare_file_wants_a_directory_and_a_free_fid(client: JournalClient) -> None:
    client.call(bind(0, 4, b"file"))
    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        client.call(Tsparex(4, [5]))
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        client.call(Tsparex(0, [4]))


def test_spare_files_come_with_their_descriptors(client: JournalClient, tree: Path) -> None:
    made = client.ask(Tsparex(0, [3, 4, 5]), Rsparex)
    fds, client.fds = client.fds, []
    numbers = [os.fstat(fd).st_ino.to_bytes(8, "little") for fd in fds]
    assert len(fds) == 3
    assert all(number in block for number, block in zip(numbers, made.blocks, strict=True))
    client.leave(*(named(fid, b"n%d" % fid) for fid in (5, 3, 4)))
    assert failures(client) == []
    for fid, fd in zip((3, 4, 5), fds, strict=True):
        assert os.path.samestat(os.stat(tree / f"n{fid}"), os.fstat(fd))
        os.close(fd)


def test_fewer_spare_files_than_wanted_are_those_of_the_first_fids(
    client: JournalClient, tree: Path
) -> None:
    client.call(bind(0, 5, b"file"))
    made = client.ask(Tsparex(0, [3, 4, 5, 6]), Rsparex)
    assert len(made.blocks) == len(client.fds) == 2
    while client.fds:
        os.close(client.fds.pop())
    client.leave(named(4, b"n4"))
    assert failures(client) == []
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        client.call(Tgetattr(6, 0))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.call(Tsparex(0, []))


def test_spare_file_that_is_given_back_is_gone(client: JournalClient, tree: Path) -> None:
    def unnamed() -> list[str]:
        """Of the tree, open in any process."""
        found = []
        for fd in glob.glob("/proc/[0-9]*/fd/*"):
            with suppress(OSError):
                found.append(os.readlink(fd))
        ours = [path for path in found if path.startswith(f"{tree}/")]
        return [path for path in ours if path.endswith("(deleted)")]

    client.call(Tsparex(0, [3]))
    os.close(client.take_fd())
    assert unnamed()
    client.call(Tclunk(3))
    assert not unnamed()


def test_largest_value_fits(client: JournalClient, tree: Path) -> None:
    assert len(Tsetxattrx(0, b"n" * 255, b"user." + b"a" * 250, 0, b"v" * 65536).encode(1)) < (
        MAX_FRAME
    )


def test_spare_that_is_reverted_is_used_again(client: JournalClient, tree: Path) -> None:
    spare(client, 4)
    client.leave(named(4, b"a"), Trevertx(4), named(4, b"b", 0o604))
    assert failures(client) == []
    assert not (tree / "a").exists()
    assert os.stat(tree / "b").st_mode == stat.S_IFREG | 0o604


def test_spare_whose_name_vanishes_gives_its_fid_back(client: JournalClient, tree: Path) -> None:
    spare(client, 4)
    client.leave(named(4, b"a"), Tunlinkat(0, b"a", 0))
    assert failures(client) == []
    assert not (tree / "a").exists()
    spare(client, 4)
