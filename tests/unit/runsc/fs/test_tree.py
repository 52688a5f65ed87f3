"""A file system behind 9P: what its methods are asked, and what a hostile client gets."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import (
    Rcreatex,
    Rreaddirx,
    Rsetattrx,
    Rwalkx,
    Tcreatex,
    Tgetxattrx,
    Thearx,
    Tmakex,
    Treaddirx,
    Trenamex,
    Tsetattrx,
    Twalkx,
)
from gofer.p9.messages import (
    Rlerror,
    Rread,
    Rversion,
    Rwrite,
    Tattach,
    Tclunk,
    Tread,
    Tunlinkat,
    Tversion,
    Twrite,
)
from runsc.fs import FileSystem, MemoryFileSystem, Stat, regular
from runsc.fs.tree import HIDDEN, MAX_LISTINGS, Numbers, Tree

FILES = {"/a/b": b"text", "/c": b"other"}


class Client:
    """A session whose root is fid 0."""

    def __init__(self, served: FileSystem) -> None:
        self.tree = Tree(served)
        assert isinstance(self.ask(Tversion(1 << 20, c.VERSION_EXTENDED)), Rversion)
        self.ask(Tattach(0, c.NOFID, b"", b"fs", c.NONUNAME))

    def ask(self, message: Message) -> Any:
        coro = self.tree.answer(1, message)
        with pytest.raises(StopIteration) as end:
            coro.send(None)
        return end.value.value

    def walk(self, path: bytes, fid: int = c.NOFID, flags: int = c.NOOPEN) -> Rwalkx:
        names = [each for each in path.split(b"/") if each]
        reply = self.ask(Twalkx(0, fid, flags, 0, names))
        assert isinstance(reply, Rwalkx)
        return reply

    def fails(self, message: Message, number: int) -> None:
        reply = self.ask(message)
        assert isinstance(reply, Rlerror), reply
        assert reply.ecode == number


@pytest.fixture
def files() -> MemoryFileSystem:
    return MemoryFileSystem(FILES)


@pytest.fixture
def client(files: MemoryFileSystem) -> Client:
    return Client(files)


def names_in(reply: Any) -> list[bytes]:
    assert isinstance(reply, Rreaddirx)
    data, found = reply.data, []
    while data:
        size = int.from_bytes(data[104:106], "little")
        found.append(data[106 : 106 + size])
        data = data[106 + size :]
    return found


def test_walk_tells_of_each_step_and_where_it_ends(client: Client) -> None:
    found = client.walk(b"a/b", 1)
    assert (found.error, len(found.blocks)) == (0, 2)
    assert Attributes.unpack(found.blocks[1]).size == 4
    ended = client.walk(b"a/none/more", 2)
    assert (ended.error, len(ended.blocks)) == (errno.ENOENT, 1)
    client.fails(Tread(2, 0, 1), errno.EBADF)


def test_data_goes_both_ways(client: Client, files: MemoryFileSystem) -> None:
    assert client.walk(b"c", 1, os.O_RDWR).opened == c.OPENED_FID
    assert client.ask(Tread(1, 1, 3)) == Rread(b"the")
    assert client.ask(Twrite(1, 5, b"!")) == Rwrite(1)
    assert files.get("/c") == b"other!"
    made = client.ask(Tcreatex(0, c.NOFID, b"new", os.O_RDWR, 1, 0o640, 3, 4))
    assert isinstance(made, Rcreatex)
    block = Attributes.unpack(made.block)
    assert (block.mode & 0o7777, block.uid, block.gid, made.opened) == (0o640, 3, 4, 0)


def test_listing_is_of_its_beginning(client: Client, files: MemoryFileSystem) -> None:
    many = {f"/a/{number:03}{'x' * 200}": b"" for number in range(30)}
    for path, data in many.items():
        files.put(path, data)
    client.walk(b"a", 1)
    found, at = [], 0
    while more := names_in(client.ask(Treaddirx(1, at, 4096))):
        found += more
        at += len(more)
    assert sorted(found) == sorted([b"b", *(os.fsencode(path[3:]) for path in many)])


def test_listings_that_are_begun_and_not_ended_are_few(
    client: Client, files: MemoryFileSystem
) -> None:
    for number in range(30):
        files.put(f"/a/{number:03}{'x' * 200}", b"")
    for fid in range(1, MAX_LISTINGS + 10):
        client.walk(b"a", fid)
        assert names_in(client.ask(Treaddirx(fid, 0, 4096)))
    nodes = [node for node in client.tree.fids.values() if node.listing is not None]
    assert len(nodes) == MAX_LISTINGS
    found, at = [], 0
    while more := names_in(client.ask(Treaddirx(1, at, 4096))):
        found += more
        at += len(more)
    assert len(found) == 31


def test_numbers_stay_with_what_is_renamed(client: Client) -> None:
    number = Attributes.unpack(client.walk(b"a/b").blocks[1]).ino
    client.ask(Trenamex(0, b"a", 0, b"z", 0))
    assert Attributes.unpack(client.walk(b"z/b").blocks[1]).ino == number
    client.ask(Tmakex(0, b"a", b"", 0o040755, 0, 0, 0))
    client.walk(b"a", 5)
    client.ask(Tcreatex(5, c.NOFID, b"b", 0, 0, 0o644, 0, 0))
    assert Attributes.unpack(client.walk(b"a/b").blocks[1]).ino != number
    numbers = Numbers()
    assert len({numbers.of(path) for path in ("/", "/a", "/b", "/a/b", "/b/a")}) == 5


def test_what_is_removed_while_it_is_open_is_there_until_it_is_closed(
    client: Client, files: MemoryFileSystem
) -> None:
    client.walk(b"c", 1, os.O_RDONLY)
    client.ask(Tunlinkat(0, b"c", 0))
    assert client.walk(b"c").error == errno.ENOENT
    assert client.ask(Tread(1, 0, 9)) == Rread(b"other")
    client.walk(b"", 2)
    assert names_in(client.ask(Treaddirx(2, 0, 4096))) == [b"a"]
    assert any(HIDDEN in name for name in files.list("/"))
    client.ask(Tclunk(1))
    assert files.list("/") == ["a"]


def test_attributes_are_set_one_after_the_other(client: Client, files: MemoryFileSystem) -> None:
    valid = c.SETATTR_MODE | c.SETATTR_SIZE | c.SETATTR_MTIME | c.SETATTR_MTIME_SET
    reply = client.ask(Tsetattrx(0, b"c", valid, 0o600, 0, 0, 2, 0, 77))
    assert isinstance(reply, Rsetattrx)
    block = Attributes.unpack(reply.block)
    assert (block.mode & 0o777, block.size, block.mtime_ns) == (0o600, 2, 77)
    assert files.get("/c") == b"ot"


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0"])
def test_what_is_no_name_is_refused(client: Client, name: bytes) -> None:
    assert client.ask(Twalkx(0, 1, c.NOOPEN, 0, [name])).error == errno.EINVAL
    if name:
        client.fails(Tcreatex(0, c.NOFID, name, 0, 0, 0o644, 0, 0), errno.EINVAL)
        client.fails(Trenamex(0, b"c", 0, name, 0), errno.EINVAL)


def test_names_of_what_was_removed_are_nobodys(client: Client) -> None:
    """What is closed under one would be removed, whoever may remove it."""
    name = HIDDEN.encode() + b"1"
    client.fails(Tcreatex(0, c.NOFID, name, 0, 0, 0o644, 0, 0), errno.ENOENT)
    client.fails(Trenamex(0, b"a", 0, name, 0), errno.ENOENT)
    client.walk(b"c", 1, os.O_RDONLY)
    client.ask(Tunlinkat(0, b"c", 0))
    assert client.walk(name).error == errno.ENOENT


def test_files_in_memory_count_whatever_is_in_them() -> None:
    files = MemoryFileSystem(capacity=20_000)
    client = Client(files)
    before, made = files.room()[1], 0
    while not isinstance(reply := client.ask(
        Tcreatex(0, c.NOFID, b"%d" % made, 0, 0, 0o644, 0, 0)
    ), Rlerror):  # fmt: skip
        made += 1
    assert reply.ecode == errno.ENOSPC
    assert 10 < made < 20
    files.rename("/0", "/1")
    files.truncate("/1", 100)
    files.write("/1", 50, b"x" * 100)
    files.truncate("/1", 10)
    for number in range(1, made):
        files.remove(f"/{number}")
    assert files.room()[1] == before


def test_folders_in_memory_move_with_all_that_is_in_them() -> None:
    files = MemoryFileSystem({"/a/b/c/one": b"1", "/a/b/two": b"22", "/ab": b"", "/z": b""})
    room = files.room()
    files.rename("/a/b", "/moved")
    assert (files.list("/"), files.list("/a")) == (["a", "ab", "z", "moved"], [])
    assert (files.list("/moved"), files.list("/moved/c")) == (["c", "two"], ["one"])
    assert (files.get("/moved/c/one"), files.get("/moved/two")) == (b"1", b"22")
    with pytest.raises(FileNotFoundError):
        files.rename("/z", "/none/z")
    with pytest.raises(OSError, match="not empty"):
        files.rename("/a", "/moved")
    files.rename("/moved", "/a/b")
    files.rename("/a", "/a")
    assert files.room() == room
    files.rename("/z", "/ab")
    assert files.list("/") == ["a", "ab"]
    deep = "/d" * 3000
    files.put(f"{deep}/file", b"deep")
    files.rename("/d", "/e")
    assert files.get(f"/e{deep[2:]}/file") == b"deep"


def test_fids_are_this_sessions_and_used_once(client: Client) -> None:
    client.fails(Twalkx(77, 1, c.NOOPEN, 0, []), errno.EBADF)
    client.walk(b"c", 1)
    client.fails(Twalkx(0, 1, c.NOOPEN, 0, [b"c"]), errno.EBADF)
    client.fails(Tattach(0, c.NOFID, b"", b"fs", 0), errno.EBADF)
    client.fails(Tattach(5, c.NOFID, b"", b"device", 0), errno.ENOENT)
    client.fails(Thearx(0), errno.EOPNOTSUPP)
    client.fails(Tgetxattrx(0, b"c", b"user.x"), errno.ENODATA)


def test_file_system_without_changes_can_only_be_read() -> None:
    class Fixed(FileSystem):
        def stat(self, path: str) -> Stat:
            return regular(3)

    client = Client(Fixed())
    client.fails(Tcreatex(0, c.NOFID, b"x", 0, 0, 0o644, 0, 0), errno.EROFS)
    client.fails(Tunlinkat(0, b"x", 0), errno.EROFS)


def test_defect_of_a_method_is_eio_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FileSystem):
        def stat(self, path: str) -> Any:
            return 1 / 0

    client = Client(Broken())
    client.fails(Twalkx(0, c.NOFID, c.NOOPEN, 0, [b"x"]), errno.EIO)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("number", [-1, 1 << 40, "EIO", None])
def test_error_without_a_number_of_linux_is_eio(number: Any) -> None:
    class Odd(FileSystem):
        def stat(self, path: str) -> Stat:
            raise OSError(number, "odd")

        def remove(self, path: str) -> None:
            raise OSError(number, "odd")

    client = Client(Odd())
    assert client.walk(b"x").error == errno.EIO
    client.fails(Tunlinkat(0, b"x", 0), errno.EIO)
