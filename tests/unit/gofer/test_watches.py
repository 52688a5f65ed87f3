"""Watching directories: who may be watched, how many, and what is heard."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gofer.attachment import Attachment, CacheMode
from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.extensions import Rwalkx, Rwatchx, Tdupx, Tnotifyx, Tunwatchx, Twalkx, Twatchx
from gofer.p9.messages import Tattach, Tclunk
from gofer.shared import Limits
from tests.unit.gofer.harness import Client, serving

IN_ATTRIB = 0x4
IN_CREATE = 0x100


@pytest.fixture
def client(tree: Path) -> Iterator[Client]:
    fd = os.open(tree, os.O_PATH)
    shared = Attachment(b"0", fd, cache=CacheMode.SHARED)
    with serving([shared, Attachment(b"root", fd)]) as sock:
        made = Client(sock)
        made.start()
        yield made
    os.close(fd)


@pytest.fixture
def queue(client: Client) -> Iterator[int]:
    """The session's, which so may watch."""
    client.call(Tnotifyx())
    fd = client.take_fd()
    yield fd
    os.close(fd)


def test_new_name_is_heard_of(client: Client, queue: int, tree: Path) -> None:
    reply = client.ask(Twatchx(0, b""), Rwatchx)
    assert Attributes.unpack(reply.block).ino == os.stat(tree).st_ino

    (tree / "new").mkdir()

    number, mask, _, _ = struct.unpack_from("iIII", os.read(queue, 4096))
    assert (number, mask & IN_CREATE) == (reply.number, IN_CREATE)
    client.call(Tunwatchx(reply.number))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.call(Tunwatchx(reply.number))


def test_second_session_gets_neither_queue_nor_watch(client: Client, queue: int) -> None:
    client.call(Tdupx())
    with socket.socket(fileno=client.take_fd()) as sock:
        second = Client(sock)

        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            second.call(Tnotifyx())
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            second.call(Twatchx(0, b""))


def test_tree_that_nobody_else_changes_is_not_watched(client: Client, queue: int) -> None:
    client.call(Tattach(9, c.NOFID, b"", b"root", 0))

    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.call(Twatchx(9, b""))


def test_file_is_not_watched(client: Client, queue: int) -> None:
    client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"file"]), Rwalkx)

    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        client.call(Twatchx(1, b""))


def test_ceiling_of_watches_is_enospc(client: Client, queue: int, tree: Path) -> None:
    limit = Limits().max_watches
    for i in range(limit + 1):
        (tree / f"{i}").mkdir()
        client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"%d" % i]), Rwalkx)
        if i == limit:
            break
        client.call(Twatchx(1, b""))
        client.call(Tclunk(1))

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        client.call(Twatchx(1, b""))


@pytest.mark.parametrize("name", [b"up", b"fifo"])
def test_link_and_special_file_are_heard_of(
    client: Client, queue: int, tree: Path, name: bytes
) -> None:
    """Not where the link leads to."""
    path = tree / os.fsdecode(name)
    reply = client.ask(Twatchx(0, name), Rwatchx)
    assert Attributes.unpack(reply.block).ino == os.lstat(path).st_ino

    (tree.parent / "secret").chmod(0o640)
    os.link(path, tree / "other", follow_symlinks=False)

    events = os.read(queue, 4096)
    assert struct.unpack_from("iIII", events) == (reply.number, IN_ATTRIB, 0, 0)
    assert len(events) == 16


def test_directory_stays_watched_for_its_names_when_it_is_watched_by_its_name(
    client: Client, queue: int, tree: Path
) -> None:
    first = client.ask(Twatchx(0, b"dir"), Rwatchx)
    client.ask(Twalkx(0, 1, c.NOOPEN, 0, [b"dir"]), Rwalkx)
    assert client.ask(Twatchx(1, b""), Rwatchx).number == first.number

    (tree / "dir" / "new").mkdir()

    number, mask, _, _ = struct.unpack_from("iIII", os.read(queue, 4096))
    assert (number, mask & IN_CREATE) == (first.number, IN_CREATE)
