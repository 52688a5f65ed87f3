"""Records that C reads, sorts and carries out: what was made and removed again within a batch is
left out, and nothing else; what is done is what the handlers would do."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from gofer.connection import Connection
from gofer.fid import FidBudget, FidTable
from gofer.hot import Hot
from gofer.node import NodeTable
from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.constants import NOTAG
from gofer.p9.extensions import (
    Rsparex,
    Rwalkx,
    Tlinkx,
    Tmakex,
    Tnamex,
    Trenamex,
    Trevertx,
    Tsetattrx,
    Tsetxattrx,
    Tsparex,
    Twalkx,
)
from gofer.p9.messages import Rgetattr, Tclunk, Tgetattr, Tunlinkat
from gofer.records import Records, Spares
from sentry.platform.records import JournalWriter
from tests.unit.gofer.journals import journalling

LINK = Tlinkx(7, b"", 0, b"a")
MAKE = Tmakex(0, b"a", b"", 0o10644, 0, 0, 0)
MAKE_DIRECTORY = Tmakex(0, b"a", b"", 0o40755, 0, 0, 0)
REMOVE = Tunlinkat(0, b"a", 0)
REMOVE_DIRECTORY = Tunlinkat(0, b"a", c.AT_REMOVEDIR)
NAME = Tnamex(7, 0, b"a", 0o600, 0, 0, 0)
REVERT = Trevertx(7)
OTHER = Tmakex(0, b"b", b"", 0o40755, 0, 0, 0)


def left(*requests: Message) -> list[Message]:
    """What is to be done of these, when C has sorted them and carries out nothing."""
    ring = os.memfd_create("ring", os.MFD_CLOEXEC)
    try:
        os.ftruncate(ring, 4096)
        with mmap.mmap(ring, 4096) as memory:
            writer = JournalWriter(memory)
            writer.append(*[request.encode(NOTAG) for request in requests])
            writer.close()
        records, hot = Records(ring, 4096), Hot()
        assert records.read() and records.sort()
        found, at = [], 0
        while (at := records.run(hot, -1, at, len(records))) < len(records):
            found.append(records[at][1])
            at += 1
        return found
    finally:
        os.close(ring)


@pytest.mark.parametrize("made", [LINK, MAKE])
def test_made_and_removed_is_left_out(made: Message) -> None:
    assert left(OTHER, made, Tsetattrx(7, b"", 1, 0, 0, 0, 0, 0, 0), REMOVE, OTHER) == [
        OTHER, Tsetattrx(7, b"", 1, 0, 0, 0, 0, 0, 0), OTHER,
    ]  # fmt: skip


def test_name_more_of_a_file_is_made_though_it_is_removed_again() -> None:
    """Else who looks when only a part is done sees names of no moment."""
    link = Tlinkx(0, b"c", 0, b"a")
    assert left(link, OTHER, REMOVE) == [link, OTHER, REMOVE]


def test_made_and_removed_twice_is_left_out_twice() -> None:
    assert left(LINK, REMOVE, LINK, REMOVE) == []


@pytest.mark.parametrize(
    "between",
    [
        Tsetattrx(0, b"a", 1, 0o600, 0, 0, 0, 0, 0),
        Tsetxattrx(1, b"a", b"user.x", 0, b""),
        Trenamex(0, b"a", 0, b"c", 0),
        Trenamex(0, b"c", 1, b"a", 0),
        Tlinkx(0, b"a", 0, b"c"),
        Tlinkx(8, b"", 1, b"a"),
        Tmakex(1, b"a", b"", 0o40755, 0, 0, 0),
        Twalkx(0, 9, c.NOOPEN, 0, [b"a"]),
        Twalkx(3, 0, c.NOOPEN, 0, [b"dir"]),
        Tclunk(0),
        Tunlinkat(1, b"a", 0),
    ],
)
def test_name_that_was_used_between_is_made(between: Message) -> None:
    """Or one that may be the same, or may be in another directory by now."""
    assert left(LINK, between, REMOVE) == [LINK, between, REMOVE]


def test_removal_of_what_was_there_stays() -> None:
    assert left(REMOVE, LINK) == [REMOVE, LINK]
    assert left(REMOVE, LINK, REMOVE) == [REMOVE]


@pytest.mark.parametrize("requests", [(MAKE_DIRECTORY, REMOVE), (MAKE, REMOVE_DIRECTORY)])
def test_removal_that_is_refused_stays(requests: tuple[Message, ...]) -> None:
    assert left(*requests) == list(requests)
    assert left(MAKE_DIRECTORY, REMOVE_DIRECTORY) == []


def test_spare_that_vanishes_is_given_back() -> None:
    assert left(NAME, OTHER, REMOVE) == [Tclunk(7), OTHER]
    assert left(NAME, Tclunk(0), REMOVE) == [NAME, Tclunk(0), REMOVE]


def test_what_is_reverted_is_left_out_whatever_was_between() -> None:
    """Its fid is used again."""
    again = Tnamex(7, 1, b"a", 0, 0, 0, 0)
    assert left(NAME, OTHER, REVERT, again) == [OTHER, again]
    assert left(NAME, Tlinkx(8, b"", 0, b"a"), REVERT) == [Tlinkx(8, b"", 0, b"a")]
    assert left(NAME, REVERT, again, REVERT) == []
    assert left(REVERT, NAME) == [NAME]


# --- carried out in C, as by the handlers

NAMES = (b"one", b"two", b"three", b"dir", b"link", b".", b"a/b", b"")
SPARES = range(100, 116)
Tree = dict[bytes, tuple[object, ...]]


def seen(tree: Path) -> Tree:
    """What is in it; access times and ctimes are the host's."""
    found: Tree = {}
    for path in sorted(bytes(each) for each in tree.rglob("*")):
        got = os.lstat(path)
        size = 0 if stat.S_ISDIR(got.st_mode) else got.st_size
        found[path] = (got.st_mode, got.st_uid, got.st_gid, got.st_nlink, size)
        if not stat.S_ISDIR(got.st_mode):
            found[path] += (got.st_mtime_ns,)
    return found


def changes(seed: int) -> list[Message]:
    """Records about a few names in two directories, many of which are refused."""
    chance, found = random.Random(seed), list[Message]()
    spares = list(SPARES)
    for _ in range(chance.randrange(1, 40)):
        at, name = chance.choice((0, 0, 1, 77)), chance.choice(NAMES)
        kind = chance.randrange(6)
        if kind < 2 and spares:
            fid = chance.choice(spares) if chance.random() < 0.1 else spares.pop()
            mode, owner = chance.choice((0o600, 0o4755, 0o40644)), chance.choice((0, 1000))
            found.append(Tnamex(fid, at, name, mode, owner, owner, chance.randrange(-5, 10**18)))
            for _ in range(chance.randrange(3)):  # done with it, if nothing speaks against that
                valid = chance.choice((1, 0x90, 0x120, 0x1B1, 0x10, 3))
                mode = chance.choice((0o640, 0o6750))
                set_times = chance.randrange(10**18), chance.randrange(10**18)
                where = chance.choice((at, at, at, 0)), chance.choice((name, name, name, b"one"))
                found.append(Tsetattrx(*where, valid, mode, 7, 8, 0, *set_times))
        elif kind == 2:
            valid = chance.choice((1, 7, 0x1A1, 0x120, 0x128, 0))
            name = chance.choice((name, b""))
            times = chance.randrange(10**18), chance.randrange(-(10**18), 10**18)
            found.append(Tsetattrx(at, name, valid, 0o2710, 7, 8, 3, *times))
        elif kind == 3:
            found.append(Tunlinkat(at, name, chance.choice((0, 0, 0, c.AT_REMOVEDIR, 1))))
        elif kind == 4 and spares:
            found.append(chance.choice((Tclunk, Trevertx))(spares.pop()))
        else:
            found.append(Tlinkx(0, chance.choice(NAMES), at, name))
    return found


def outcome(base: Path, records: list[Message]) -> tuple[Tree, bytes]:
    """The tree, and what was refused."""
    tree = base / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "one").write_bytes(b"1")
    (tree / "link").symlink_to("one")
    for name in ("one", "link"):
        os.utime(tree / name, ns=(5, 5), follow_symlinks=False)
    os.chown(tree / "dir", 3, 3)
    with journalling(tree) as client:
        client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"dir"]), Rwalkx)
        client.leave(Tsetattrx(0, b"one", 1, 0o640, 0, 0, 0, 0, 0))  # they become known
        client.leave(Tsetattrx(1, b"", 1, 0o750, 0, 0, 0, 0, 0))
        client.drain()
        for some in (SPARES[:8], SPARES[8:]):
            assert len(client.ask(Tsparex(0, list(some)), Rsparex).blocks) == len(some)
        for number, fd in enumerate(client.fds):
            os.write(fd, b"x" * number)
            os.utime(fd, ns=(10**18, 10**18))
            os.close(fd)
        client.fds.clear()
        client.leave(*records)
        failures = client.drain().failures
    return {path.removeprefix(bytes(base)): what for path, what in seen(tree).items()}, failures


@pytest.mark.root
def test_same_is_done_as_by_the_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [outcome(tmp_path / f"c{seed}", changes(seed)) for seed in range(40)]
    with monkeypatch.context() as patch:
        patch.setattr(Spares, "make", lambda *_: [])
        patch.setattr(Connection, "learn", lambda *_: None)
        wanted = [outcome(tmp_path / f"python{seed}", changes(seed)) for seed in range(40)]
    assert found == wanted
    assert any(failures for _, failures in found)


@pytest.mark.root
def test_spare_is_a_fid_like_any_other(tmp_path: Path) -> None:
    with journalling(tmp_path) as client:
        client.ask(Tsparex(0, [3, 4]), Rsparex)
        fds, client.fds = client.fds, []
        os.write(fds[0], b"contents")
        assert client.ask(Tgetattr(3, 0), Rgetattr).size == 8
        assert client.ask(Twalkx(4, 5, c.NOOPEN, 0, []), Rwalkx).blocks
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            client.call(Tsparex(0, [4]))
        client.leave(*[Tnamex(fid, 0, b"%d" % fid, 0o600, 0, 0, 0) for fid in (3, 4)])
        assert client.drain().failures == b""
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            client.call(Tclunk(4))
        assert (tmp_path / "3").read_bytes() == b"contents"
        assert os.path.samestat(os.stat(tmp_path / "4"), os.fstat(fds[1]))
        for fd in fds:
            os.close(fd)


@pytest.mark.root
def test_spares_count_as_fids_and_nodes_until_they_end(tmp_path: Path) -> None:
    root, ring = os.open(tmp_path, os.O_PATH), os.memfd_create("ring", os.MFD_CLOEXEC)
    os.ftruncate(ring, 4096)
    table, budget = NodeTable(100, 100), FidBudget(4)
    fids = FidTable(table, budget)
    fids.spares = Spares(Records(ring, 4096), table)
    fid = fids.bind(0, table.root(Attachment(b"0", root)), 0)
    for _ in range(2):
        assert fids.bind_spares([0, 1], fid, root) == []
        made = fids.bind_spares([1, 2, 3, 4], fid, root)
        assert len(made) == 3
        for _, fd in made:
            os.close(fd)
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            fids.check_free(4)
        assert (table.count, table.pinned) == (4, 3)
        fids.remove(2)
        assert (budget.left, table.count) == (1, 3)
        fids.spares.close()
        fids.spares_gone()
        assert (budget.left, table.count, table.pinned) == (3, 1, 0)
    os.close(root)
    os.close(ring)
