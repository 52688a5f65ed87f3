"""Walks stay below the root, follow no link, refuse strange names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.extensions import Rwalkx, Twalkx
from gofer.p9.messages import Rgetattr, Rread, Rwalk, Tclunk, Tgetattr, Tlopen, Tread, Twalk
from tests.unit.gofer.conftest import MakeClient
from tests.unit.gofer.harness import Client


def walkx(
    client: Client, names: list[bytes], flags: int = c.NOOPEN, newfid: int = c.NOFID
) -> Rwalkx:
    donate = int(flags != c.NOOPEN)
    return client.ask(Twalkx(0, newfid, flags, donate, names), Rwalkx)


def test_walk_gives_the_attributes_of_the_host(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"dir", b"inner"]))
    reply = client.ask(Tgetattr(1, c.GETATTR_BASIC), Rgetattr)
    st = os.stat(tree / "dir" / "inner")
    assert (reply.mode, reply.size, reply.nlink) == (st.st_mode, st.st_size, st.st_nlink)
    assert reply.mtime_sec * 10**9 + reply.mtime_nsec == st.st_mtime_ns


def test_walk_of_dotdot_at_the_root_stays_at_the_root(client: Client, tree: Path) -> None:
    root = client.ask(Twalk(0, 1, [b"dir", b"..", b"..", b"..", b"file"]), Rwalk)
    assert len(root.qids) == 5
    reply = client.ask(Tgetattr(1, c.GETATTR_BASIC), Rgetattr)
    assert reply.size == os.stat(tree / "file").st_size


def test_walk_stops_at_the_first_missing_name_without_binding(client: Client) -> None:
    assert len(client.ask(Twalk(0, 1, [b"dir", b"nothing", b"x"]), Rwalk).qids) == 1
    with pytest.raises(OSError) as caught:
        client.call(Tgetattr(1, 0))
    assert caught.value.errno == errno.EBADF
    with pytest.raises(FileNotFoundError):
        client.call(Twalk(0, 1, [b"nothing"]))


@pytest.mark.parametrize("link", [b"up", b"abs", b"updir"])
def test_walk_through_a_link_is_refused(client: Client, link: bytes) -> None:
    assert len(client.ask(Twalk(0, 1, [link, b"secret"]), Rwalk).qids) == 1
    assert walkx(client, [link, b"secret"]).error == errno.ENOTDIR
    assert not client.fds


@pytest.mark.parametrize("link", [b"up", b"abs", b"updir"])
def test_open_of_a_link_is_refused(client: Client, link: bytes) -> None:
    assert walkx(client, [link], os.O_RDONLY, 1).error == errno.ELOOP
    assert walkx(client, [link], os.O_RDONLY).error in (errno.ELOOP, errno.EINVAL)
    client.call(Twalk(0, 1, [link]))
    with pytest.raises(OSError):
        client.call(Tlopen(1, os.O_RDONLY))
    assert not client.fds


@pytest.mark.parametrize("name", [b"", b"a/b", b"../secret", b"/etc", b"fi\0le", b"dir/inner"])
def test_walk_to_a_strange_name_is_refused(client: Client, name: bytes) -> None:
    with pytest.raises(OSError):
        client.call(Twalk(0, 1, [name]))
    assert walkx(client, [name]).error in (errno.EINVAL, errno.ENOENT)


@pytest.mark.parametrize("name", [b".", b".."])
def test_walkx_to_dots_is_refused(client: Client, name: bytes) -> None:
    assert walkx(client, [name]).error == errno.EINVAL


def test_walkx_of_a_long_name_is_enametoolong(client: Client) -> None:
    assert walkx(client, [b"x" * 256]).error == errno.ENAMETOOLONG


def test_walkx_gives_attributes_of_all_components_and_the_text_of_a_link(
    client: Client, tree: Path
) -> None:
    reply = walkx(client, [b"dir", b"sub"])
    inos = [Attributes.unpack(block).ino for block in reply.blocks]
    assert inos == [os.stat(tree / "dir").st_ino, os.stat(tree / "dir/sub").st_ino]
    assert walkx(client, [b"up"]).target == b"../secret"
    assert walkx(client, [b"nothing"]).error == errno.ENOENT


def test_walkx_donates_a_regular_file(client: Client, tree: Path) -> None:
    assert walkx(client, [b"dir", b"inner"], os.O_RDWR).opened == c.OPENED_DONATED
    fd = client.take_fd()
    assert os.pread(fd, 100, 0) == b"inner"
    os.pwrite(fd, b"I", 0)
    os.close(fd)
    assert (tree / "dir" / "inner").read_bytes() == b"Inner"


def test_walkx_truncates_what_it_opens(client: Client, tree: Path) -> None:
    reply = walkx(client, [b"file"], os.O_RDWR | os.O_TRUNC)
    os.close(client.take_fd())
    assert Attributes.unpack(reply.blocks[-1]).size == 0
    assert (tree / "file").read_bytes() == b""


@pytest.mark.parametrize("name", [b"fifo", b"dir"])
def test_walkx_never_donates_what_is_no_regular_file(client: Client, name: bytes) -> None:
    assert walkx(client, [name], os.O_RDONLY).error
    walkx(client, [name], os.O_RDONLY, 1)
    assert not client.fds


@pytest.mark.root
def test_walkx_never_opens_a_device(client: Client, tree: Path) -> None:
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert walkx(client, [b"null"], os.O_RDONLY).error
    assert walkx(client, [b"null"], os.O_RDONLY, 1).error == errno.ENXIO
    assert not client.fds


def test_walkx_without_names_clones_and_opens(client: Client) -> None:
    walkx(client, [b"file"], newfid=1)
    reply = client.ask(Twalkx(1, 2, os.O_RDONLY, 0, []), Rwalkx)
    assert reply.opened == c.OPENED_FID
    assert client.ask(Tread(2, 0, 100), Rread).data == b"contents"
    client.call(Tclunk(1))
    assert client.ask(Tread(2, 3, 2), Rread).data == b"te"


def test_walk_to_a_fid_in_use_is_refused(client: Client) -> None:
    client.call(Twalk(0, 1, []))
    with pytest.raises(OSError) as caught:
        client.call(Twalk(0, 1, [b"dir"]))
    assert caught.value.errno == errno.EBADF


def test_open_for_writing_below_a_readonly_attachment_is_erofs(connect: MakeClient) -> None:
    client = connect(readonly=True)
    assert walkx(client, [b"file"], os.O_RDWR).error == errno.EROFS
    assert walkx(client, [b"file"], os.O_RDONLY | os.O_TRUNC).error == errno.EROFS
    assert walkx(client, [b"file"], os.O_RDONLY).opened == c.OPENED_DONATED
    fd = client.take_fd()
    with pytest.raises(OSError):
        os.write(fd, b"x")
    os.close(fd)
