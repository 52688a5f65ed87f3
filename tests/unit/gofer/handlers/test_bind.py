"""Sockets that a client makes for the host: where, of which kinds, and how they end."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from gofer.p9.extensions import Rbindx, Tbindx, Tlistenx
from gofer.p9.messages import Tclunk, Tunlinkat, Twalk
from tests.unit.gofer.harness import Client, serving

Make = Callable[..., Client]
OWN = (os.geteuid(), os.getegid())


@pytest.fixture
def make(tree: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def started(readonly: bool = False, binds: bool = True) -> Client:
            fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
            sock = stack.enter_context(serving([Attachment(b"0", fd, readonly, binds=binds)]))
            os.close(fd)
            client = Client(sock)
            client.start()
            return client

        yield started


def _bind(
    client: Client, name: bytes = b"sock", kind: int = socket.SOCK_STREAM, newfid: int = 9
) -> Rbindx:
    reply = client.call(Tbindx(0, newfid, name, kind, 0o640, *OWN))
    assert isinstance(reply, Rbindx)
    return reply


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_who_listens_is_connected_to(make: Make, tree: Path, kind: int) -> None:
    client = make()
    _bind(client, kind=kind)
    ours = socket.socket(fileno=client.fds.pop())
    with ours, socket.socket(socket.AF_UNIX, kind) as sock:
        with pytest.raises(ConnectionRefusedError):
            sock.connect(str(tree / "sock"))
        client.call(Tlistenx(9, 5, *OWN, b""))
        sock.connect(str(tree / "sock"))
        creds = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("<iII", creds)[1:] == OWN
        with ours.accept()[0] as theirs:
            sock.send(b"through")
            assert theirs.recv(10) == b"through"


def test_datagrams_need_no_listener(make: Make, tree: Path) -> None:
    client = make()
    _bind(client, kind=socket.SOCK_DGRAM)

    with (
        socket.socket(fileno=client.fds.pop()) as ours,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.sendto(b"through", str(tree / "sock"))
        assert ours.recv(10) == b"through"
        assert not os.get_blocking(ours.fileno())


def test_name_has_its_mode_and_owner_and_is_removed_as_any_other(make: Make, tree: Path) -> None:
    client = make()
    _bind(client)
    os.close(client.fds.pop())

    found = (tree / "sock").lstat()
    assert stat.S_ISSOCK(found.st_mode)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, *OWN)
    client.call(Tunlinkat(0, b"sock", 0))
    assert not (tree / "sock").exists()


def test_longest_name_that_an_address_holds(make: Make, tree: Path) -> None:
    client = make()

    _bind(client, b"n" * 108)

    assert stat.S_ISSOCK((tree / ("n" * 108)).lstat().st_mode)
    os.close(client.fds.pop())


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        (b"file", socket.SOCK_STREAM, errno.EADDRINUSE),
        (b"out", socket.SOCK_STREAM, errno.EADDRINUSE),
        (b"dir", socket.SOCK_STREAM, errno.EADDRINUSE),
        (b"", socket.SOCK_STREAM, errno.ENOENT),
        (b"..", socket.SOCK_STREAM, errno.EINVAL),
        (b"dir/sock", socket.SOCK_STREAM, errno.EINVAL),
        (b"n" * 109, socket.SOCK_STREAM, errno.EINVAL),
        (b"sock", socket.SOCK_RAW, errno.EINVAL),
        (b"sock", socket.SOCK_STREAM | socket.SOCK_NONBLOCK, errno.EINVAL),
    ],
)
def test_what_is_no_new_name_of_that_directory(
    make: Make, tree: Path, name: bytes, kind: int, number: int
) -> None:
    (tree / "out").symlink_to(tree.parent / "outside")
    client = make()

    with pytest.raises(OSError) as told:
        _bind(client, name, kind)

    assert told.value.errno == number
    assert client.fds == []
    assert not (tree.parent / "outside").exists()
    _bind(client, b"fine")
    os.close(client.fds.pop())


@pytest.mark.parametrize(
    ("readonly", "binds", "number"),
    [(True, True, errno.EROFS), (False, False, errno.EOPNOTSUPP)],
)
def test_none_where_the_caller_does_not_say_so(
    make: Make, tree: Path, readonly: bool, binds: bool, number: int
) -> None:
    client = make(readonly, binds)

    with pytest.raises(OSError) as told:
        _bind(client)

    assert told.value.errno == number
    assert not (tree / "sock").exists()


def test_fid_that_is_taken_makes_nothing(make: Make, tree: Path) -> None:
    client = make()

    with pytest.raises(OSError) as told:
        _bind(client, newfid=0)

    assert told.value.errno == errno.EBADF
    assert not (tree / "sock").exists()


def test_clunked_socket_is_closed(make: Make, tree: Path) -> None:
    client = make()
    _bind(client)
    client.call(Tlistenx(9, 5, *OWN, b""))
    os.close(client.fds.pop())

    client.call(Tclunk(9))

    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(str(tree / "sock"))


def test_only_what_was_bound_listens(make: Make) -> None:
    client = make()
    client.call(Twalk(0, 1, (b"dir",)))

    for fid, groups, number in ((1, b"", errno.EBADF), (0, b"", errno.EBADF)):
        with pytest.raises(OSError) as told:
            client.call(Tlistenx(fid, 5, *OWN, groups))
        assert told.value.errno == number
    _bind(client)
    os.close(client.fds.pop())
    with pytest.raises(OSError) as told:
        client.call(Tlistenx(9, 5, *OWN, b"odd"))
    assert told.value.errno == errno.EINVAL


ALONE = """
import os, sys
from gofer._native import ffi, lib
os.chdir(sys.argv[1])
lib.gofer_remember_ids()
groups = ffi.new("uint32_t[]", [9])
fd = lib.gofer_bind(b"sock", 1, 0o600)
print(lib.gofer_listen(fd, 1, 7, 7, groups, 1))
print(lib.gofer_connect(b"sock", 1, 7, 7, groups, 1))
print(lib.gofer_connect(b"sock", 1, os.geteuid(), os.getegid(), ffi.NULL, 0) >= 0)
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_where_there_is_nobody_else_one_listens_oneself_and_connects_as_nobody_else(
    tmp_path: Path,
) -> None:
    """An ordinary user's namespace: setgroups(2) is denied."""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip("no user namespaces here")

    assert done.stdout == f"0\n{-errno.EPERM}\nTrue\n", done.stderr
