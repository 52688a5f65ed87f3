"""Making, moving and removing names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import (
    Rcreatex,
    Rlinkx,
    Rmakex,
    Tcreatex,
    Tlinkx,
    Tmakex,
    Trenamex,
    Tsetattrx,
    Tsetxattrx,
)
from gofer.p9.messages import (
    Rgetattr,
    Rread,
    Rreadlink,
    Tclunk,
    Tgetattr,
    Tlcreate,
    Tlink,
    Tlopen,
    Tmkdir,
    Tmknod,
    Tread,
    Treadlink,
    Tremove,
    Trename,
    Trenameat,
    Tsetattr,
    Tsymlink,
    Tunlinkat,
    Twalk,
    Twrite,
)
from tests.unit.gofer.conftest import MakeClient
from tests.unit.gofer.harness import Client

pytestmark = pytest.mark.root


def test_createx_makes_a_file_with_owner_and_mode(client: Client, tree: Path) -> None:
    reply = client.ask(
        Tcreatex(0, c.NOFID, b"new", os.O_RDWR | os.O_EXCL, 1, 0o4751, 1000, 1001), Rcreatex
    )
    os.write(client.take_fd(), b"data")
    st = os.stat(tree / "new")
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1000, 1001, 0o4751)
    assert reply.created and Attributes.unpack(reply.block).ino == st.st_ino
    assert (tree / "new").read_bytes() == b"data"


def test_createx_of_an_existing_file_opens_it_and_keeps_its_owner(
    client: Client, tree: Path
) -> None:
    reply = client.ask(Tcreatex(0, c.NOFID, b"file", os.O_RDWR, 1, 0o600, 5, 5), Rcreatex)
    os.close(client.take_fd())
    assert not reply.created and os.stat(tree / "file").st_uid == 0
    with pytest.raises(FileExistsError):
        client.call(Tcreatex(0, c.NOFID, b"file", os.O_RDWR | os.O_EXCL, 1, 0o600, 5, 5))


@pytest.mark.parametrize("name", [b"up", b"abs"])
def test_createx_through_a_link_is_refused(client: Client, tree: Path, name: bytes) -> None:
    for flags in (os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_EXCL):
        with pytest.raises(OSError):
            client.call(Tcreatex(0, c.NOFID, name, flags, 1, 0o600, 0, 0))
    assert (tree.parent / "secret").read_bytes() == b"secret"


def test_lcreate_and_write_over_the_fid(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, []))
    client.call(Tlcreate(1, b"new", os.O_RDWR, 0o640, 7))
    client.call(Twrite(1, 0, b"hello"))
    assert client.ask(Tread(1, 1, 10), Rread).data == b"ello"
    assert os.stat(tree / "new").st_gid == 7


def test_makex_makes_directories_links_and_fifos(client: Client, tree: Path) -> None:
    for name, mode, target in (
        (b"d", stat.S_IFDIR | 0o2755, b""),
        (b"l", stat.S_IFLNK | 0o777, b"some/where"),
        (b"p", stat.S_IFIFO | 0o600, b""),
        (b"s", stat.S_IFSOCK | 0o700, b""),
    ):
        reply = client.ask(Tmakex(0, name, target, mode, 10, 20, 0), Rmakex)
        st = os.lstat(tree / name.decode())
        assert st.st_mode == mode and (st.st_uid, st.st_gid) == (10, 20)
        assert Attributes.unpack(reply.block).ino == st.st_ino
    assert os.readlink(tree / "l") == "some/where"


def test_standard_messages_make_things_for_the_user_of_the_attach(
    client: Client, tree: Path
) -> None:
    client.call(Tmkdir(0, b"d", 0o700, 3))
    client.call(Tsymlink(0, b"l", b"t", 4))
    client.call(Tmknod(0, b"p", stat.S_IFIFO | 0o600, 0, 0, 5))
    gids = [os.lstat(tree / name).st_gid for name in ("d", "l", "p")]
    assert gids == [3, 4, 5]
    client.call(Twalk(0, 1, [b"l"]))
    assert client.ask(Treadlink(1), Rreadlink).target == b"t"


@pytest.mark.parametrize("mode", [stat.S_IFCHR | 0o666, stat.S_IFBLK | 0o666])
def test_mknod_of_a_device_is_eperm(client: Client, tree: Path, mode: int) -> None:
    with pytest.raises(PermissionError):
        client.call(Tmknod(0, b"dev", mode, 1, 3, 0))
    with pytest.raises(PermissionError):
        client.call(Tmakex(0, b"dev", b"", mode, 0, 0, 0))
    assert not (tree / "dev").exists()


def test_an_open_unlinked_file_stays_usable_by_its_fid(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Twalk(1, 2, []))
    client.call(Tlopen(2, os.O_RDWR))
    client.call(Tunlinkat(0, b"file", 0))
    assert client.ask(Tread(2, 0, 100), Rread).data == b"contents"
    assert client.ask(Tgetattr(1, c.GETATTR_BASIC), Rgetattr).nlink == 0
    client.call(Tsetattr(1, c.SETATTR_MODE | c.SETATTR_SIZE, 0o600, 0, 0, 3, 0, 0, 0, 0))
    reply = client.ask(Tgetattr(1, c.GETATTR_BASIC), Rgetattr)
    assert (reply.mode & 0o777, reply.size) == (0o600, 3)
    (tree / "file").write_bytes(b"another")
    client.call(Twalk(1, 3, []))
    client.call(Tlopen(3, os.O_RDONLY))
    assert client.ask(Tread(3, 0, 100), Rread).data == b"con"


def test_remove_clunks_the_fid(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Tremove(1))
    assert not (tree / "file").exists()
    with pytest.raises(OSError) as caught:
        client.call(Tclunk(1))
    assert caught.value.errno == errno.EBADF
    client.call(Twalk(0, 1, [b"dir"]))
    with pytest.raises(OSError):
        client.call(Tremove(1))
    client.call(Twalk(0, 1, []))


def test_fids_follow_renames(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"dir", b"inner"]))
    client.call(Twalk(0, 2, [b"dir"]))
    client.call(Trenameat(0, b"dir", 0, b"moved"))
    client.call(Tlopen(1, os.O_RDONLY))
    assert client.ask(Tread(1, 0, 10), Rread).data == b"inner"
    client.call(Trename(2, 0, b"again"))
    client.call(Twalk(2, 3, [b"inner"]))
    client.call(Twalk(0, 4, [b"again", b"sub"]))
    assert sorted(os.listdir(tree / "again")) == ["inner", "sub"]


def test_rename_over_a_file_keeps_the_replaced_one_for_its_fid(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Twalk(0, 2, [b"dir", b"inner"]))
    client.call(Twalk(0, 3, [b"dir"]))
    client.call(Trenameat(3, b"inner", 0, b"file"))
    assert client.ask(Tgetattr(1, c.GETATTR_BASIC), Rgetattr).nlink == 0
    client.call(Tlopen(2, os.O_RDONLY))
    assert client.ask(Tread(2, 0, 10), Rread).data == b"inner"
    client.call(Tlopen(1, os.O_RDONLY))
    assert client.ask(Tread(1, 0, 10), Rread).data == b"contents"


def test_renamex_honours_noreplace_and_exchange(client: Client, tree: Path) -> None:
    with pytest.raises(FileExistsError):
        client.call(Trenamex(0, b"file", 0, b"dir", 1))
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Twalk(0, 2, [b"dir", b"inner"]))
    client.call(Trenamex(0, b"file", 0, b"dir", 2))
    assert (tree / "dir").is_file() and (tree / "file" / "inner").exists()
    client.call(Tlopen(1, os.O_RDONLY))
    client.call(Tlopen(2, os.O_RDONLY))
    assert client.ask(Tread(1, 0, 10), Rread).data == b"contents"
    assert client.ask(Tread(2, 0, 10), Rread).data == b"inner"


def test_link_makes_a_second_name_of_the_very_file(client: Client, tree: Path) -> None:
    reply = client.ask(Tlinkx(0, b"file", 0, b"hard"), Rlinkx)
    assert Attributes.unpack(reply.block).nlink == 2
    client.call(Twalk(0, 1, [b"up"]))
    client.call(Tlink(0, 1, b"uplink"))
    assert os.readlink(tree / "uplink") == "../secret"
    assert os.stat(tree / "hard").st_ino == os.stat(tree / "file").st_ino


STRANGE = [b"", b".", b"..", b"a/b", b"../x", b"nul\0", b"x" * 256]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_are_refused_everywhere(client: Client, tree: Path, name: bytes) -> None:
    before = sorted(os.listdir(tree)), sorted(os.listdir(tree.parent))
    client.call(Twalk(0, 1, [b"dir"]))
    requests: list[Message] = [
        Tmkdir(0, name, 0o755, 0),
        Tmknod(0, name, stat.S_IFIFO, 0, 0, 0),
        Tsymlink(0, name, b"t", 0),
        Tlink(0, 1, name),
        Tlcreate(0, name, os.O_RDWR, 0o644, 0),
        Tunlinkat(0, name, 0),
        Tunlinkat(0, name, c.AT_REMOVEDIR),
        Trenameat(0, name, 0, b"x"),
        Trenameat(0, b"file", 0, name),
        Trenamex(0, b"file", 0, name, 0),
        Tcreatex(0, c.NOFID, name, os.O_RDWR, 1, 0o644, 0, 0),
        Tmakex(0, name, b"", stat.S_IFDIR, 0, 0, 0),
        Tlinkx(0, b"file", 0, name),
    ]
    for request in requests:
        with pytest.raises(OSError):
            client.call(request)
    assert before == (sorted(os.listdir(tree)), sorted(os.listdir(tree.parent)))


def test_everything_that_writes_is_erofs_below_a_readonly_attachment(
    connect: MakeClient, tree: Path
) -> None:
    client = connect(readonly=True)
    client.call(Twalk(0, 1, [b"file"]))
    requests: list[Message] = [
        Tmkdir(0, b"d", 0o755, 0),
        Tsymlink(0, b"l", b"t", 0),
        Tmknod(0, b"p", stat.S_IFIFO, 0, 0, 0),
        Tlink(0, 1, b"h"),
        Tlcreate(0, b"n", os.O_RDWR, 0o644, 0),
        Tunlinkat(0, b"file", 0),
        Trenameat(0, b"file", 0, b"x"),
        Tsetattr(1, c.SETATTR_MODE, 0, 0, 0, 0, 0, 0, 0, 0),
        Tsetattrx(0, b"file", c.SETATTR_SIZE, 0, 0, 0, 0, 0, 0),
        Tsetxattrx(0, b"file", b"user.x", 0, b"v"),
        Tcreatex(0, c.NOFID, b"n", os.O_RDONLY, 1, 0o644, 0, 0),
        Tremove(1),
    ]
    for request in requests:
        with pytest.raises(OSError) as caught:
            client.call(request)
        assert caught.value.errno == errno.EROFS, request
    assert (tree / "file").read_bytes() == b"contents"
