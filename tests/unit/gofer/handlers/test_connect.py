"""Sockets of the host: which are connected to, and which never are."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from gofer.p9.extensions import Tconnectx
from gofer.p9.messages import Twalk
from tests.unit.gofer.harness import Client, serving

Make = Callable[[bool], Client]


@pytest.fixture
def service(tree: Path) -> Iterator[socket.socket]:
    """It listens at dir/sock, and outside of the tree."""
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as other:
        sock.bind(str(tree / "dir" / "sock"))
        sock.listen()
        other.bind(str(tree.parent / "outside"))
        other.listen()
        (tree / "link").symlink_to("dir/sock")
        (tree / "out").symlink_to(tree.parent / "outside")
        yield sock


@pytest.fixture
def make(tree: Path, service: socket.socket) -> Iterator[Make]:
    with ExitStack() as stack:

        def started(reaches: bool) -> Client:
            fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
            sock = stack.enter_context(serving([Attachment(b"0", fd, True, reaches=reaches)]))
            os.close(fd)
            client = Client(sock)
            client.start()
            return client

        yield started


def _connect(client: Client, fid: int, name: bytes, kind: int = socket.SOCK_STREAM) -> None:
    client.call(Tconnectx(fid, name, kind, os.geteuid(), os.getegid(), b""))


def test_socket_in_a_tree_that_may_be_reached(make: Make, service: socket.socket) -> None:
    client = make(True)
    client.call(Twalk(0, 1, (b"dir",)))

    for _ in range(2):
        _connect(client, 1, b"sock")
        with socket.socket(fileno=client.fds.pop()) as ours, service.accept()[0] as theirs:
            ours.send(b"through")
            assert theirs.recv(10) == b"through"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"file", errno.ECONNREFUSED),
        (b"dir", errno.ECONNREFUSED),
        (b"link", errno.ECONNREFUSED),
        (b"out", errno.ECONNREFUSED),
        (b"", errno.ECONNREFUSED),
        (b"nothing", errno.ENOENT),
        (b"dir/sock", errno.EINVAL),
        (b"..", errno.EINVAL),
    ],
)
def test_what_is_no_socket_of_that_directory(make: Make, name: bytes, number: int) -> None:
    client = make(True)

    with pytest.raises(OSError) as told:
        _connect(client, 0, name)

    assert told.value.errno == number
    assert client.fds == []


def test_none_where_the_caller_does_not_say_so(make: Make) -> None:
    client = make(False)
    client.call(Twalk(0, 1, (b"dir",)))

    with pytest.raises(ConnectionRefusedError):
        _connect(client, 1, b"sock")


def test_another_kind_of_socket_is_the_hosts_error(make: Make) -> None:
    client = make(True)
    client.call(Twalk(0, 1, (b"dir",)))

    with pytest.raises(OSError) as told:
        _connect(client, 1, b"sock", socket.SOCK_DGRAM)

    assert told.value.errno == errno.EPROTOTYPE
