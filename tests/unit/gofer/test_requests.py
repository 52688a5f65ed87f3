"""Data, listings, attributes, extended attributes, locks, sessions."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.extensions import (
    Rgetxattrx,
    Rreaddirx,
    Rsetattrx,
    Tdupx,
    Tgetxattrx,
    Treaddirx,
    Tremovexattrx,
    Tsetattrx,
    Tsetxattrx,
    Tsyncx,
    Twalkx,
)
from gofer.p9.messages import (
    Rgetlock,
    Rlock,
    Rread,
    Rreaddir,
    Rstatfs,
    Rversion,
    Rwrite,
    Rxattrwalk,
    Tattach,
    Tauth,
    Tclunk,
    Tfsync,
    Tgetattr,
    Tgetlock,
    Tlock,
    Tlopen,
    Tread,
    Treaddir,
    Tstatfs,
    Tversion,
    Twalk,
    Twrite,
    Txattrcreate,
    Txattrwalk,
)
from tests.unit.gofer.conftest import MakeClient
from tests.unit.gofer.harness import Client


def open_fid(client: Client, fid: int, names: list[bytes], flags: int = os.O_RDWR) -> None:
    client.call(Twalk(0, fid, names))
    client.call(Tlopen(fid, flags))


# --- data


def test_read_and_write_at_offsets(client: Client, tree: Path) -> None:
    open_fid(client, 1, [b"file"])
    assert client.ask(Twrite(1, 8, b"!" * 100_000), Rwrite).count == 100_000
    assert client.ask(Tread(1, 4, 6), Rread).data == b"ents!!"
    assert client.ask(Tread(1, 1 << 40, 6), Rread).data == b""
    client.call(Tfsync(1, 0))
    client.call(Tfsync(0, 1))
    client.call(Tsyncx(1))
    client.call(Tsyncx(0))
    assert (tree / "file").stat().st_size == 100_008


def test_read_of_more_than_a_message_holds_is_cut_to_it(client: Client, tree: Path) -> None:
    (tree / "big").write_bytes(b"x" * (2 << 20))
    open_fid(client, 1, [b"big"], os.O_RDONLY)
    assert len(client.ask(Tread(1, 0, 0xFFFFFFFF), Rread).data) == c.MSIZE_MAX - 11


def test_access_mode_of_the_open_is_honoured(client: Client) -> None:
    open_fid(client, 1, [b"file"], os.O_RDONLY)
    open_fid(client, 2, [b"file"], os.O_WRONLY)
    for request in (Twrite(1, 0, b"x"), Tread(2, 0, 1), Tread(0, 0, 1), Tlopen(1, os.O_RDONLY)):
        with pytest.raises(OSError):
            client.call(request)


# --- listings


def parse(data: bytes) -> dict[bytes, tuple[int, int]]:
    found, pos = {}, 0
    while pos < len(data):
        _, _, ino, offset, _, size = struct.unpack_from("<BIQQBH", data, pos)
        pos += 24
        found[data[pos : pos + size]] = (ino, offset)
        pos += size
    return found


def test_readdir_lists_everything_and_hides_what_is_above_the_root(
    client: Client, tree: Path
) -> None:
    open_fid(client, 1, [], os.O_RDONLY)
    found: dict[bytes, tuple[int, int]] = {}
    offset = 0
    while data := client.ask(Treaddir(1, offset, 100), Rreaddir).data:
        part = parse(data)
        found |= part
        offset = list(part.values())[-1][1]
    names = {os.fsencode(name) for name in os.listdir(tree)}
    assert set(found) == names | {b".", b".."}
    assert found[b".."][0] == os.stat(tree).st_ino


def test_readdirx_gives_attributes_and_goes_on_from_a_cookie(client: Client, tree: Path) -> None:
    for i in range(300):
        (tree / "dir" / "sub" / f"f{i}").write_bytes(b"x" * i)
    client.call(Twalk(0, 1, [b"dir", b"sub"]))
    sizes: dict[bytes, int] = {}
    offset = 0
    while data := client.ask(Treaddirx(1, offset, 4096), Rreaddirx).data:
        pos = 0
        while pos < len(data):
            wire = Attributes.unpack(data[pos : pos + 96])
            offset, size = struct.unpack_from("<QH", data, pos + 96)
            pos += 106
            assert data[pos : pos + size] not in sizes
            sizes[data[pos : pos + size]] = wire.size
            pos += size
    assert sizes == {b"f%d" % i: i for i in range(300)}


# --- attributes


@pytest.mark.root
def test_setattrx_sets_and_gives_the_new_attributes(client: Client, tree: Path) -> None:
    valid = (
        c.SETATTR_MODE | c.SETATTR_UID | c.SETATTR_GID | c.SETATTR_SIZE
        | c.SETATTR_ATIME | c.SETATTR_ATIME_SET | c.SETATTR_MTIME | c.SETATTR_MTIME_SET
    )  # fmt: skip
    request = Tsetattrx(0, b"file", valid, 0o4711, 1, 2, 3, -5, 10**18 + 7)
    reply = Attributes.unpack(client.ask(request, Rsetattrx).block)
    st = os.stat(tree / "file")
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_size) == (0o4711, 1, 2, 3)
    assert (st.st_atime_ns, st.st_mtime_ns) == (-5, 10**18 + 7)
    assert (reply.mtime_ns, reply.size, reply.mode) == (st.st_mtime_ns, 3, st.st_mode)


@pytest.mark.root
def test_setattrx_of_a_link_changes_the_link(client: Client, tree: Path) -> None:
    request = Tsetattrx(0, b"up", c.SETATTR_UID, 0, 77, 0, 0, 0, 0)
    client.call(request)
    assert os.lstat(tree / "up").st_uid == 77
    assert os.stat(tree.parent / "secret").st_uid == 0


def test_statfs_tells_the_host_file_system(client: Client, tree: Path) -> None:
    reply = client.ask(Tstatfs(0), Rstatfs)
    st = os.statvfs(tree)
    assert (reply.bsize, reply.blocks, reply.namelen) == (st.f_bsize, st.f_blocks, st.f_namemax)


# --- extended attributes


def test_xattrs_by_standard_messages(client: Client, tree: Path) -> None:
    client.call(Twalk(0, 1, [b"file"]))
    client.call(Txattrcreate(1, b"user.key", 5, 0))
    client.call(Twrite(1, 0, b"val"))
    client.call(Twrite(1, 3, b"ue"))
    client.call(Tclunk(1))
    assert os.getxattr(tree / "file", "user.key") == b"value"
    client.call(Twalk(0, 1, [b"file"]))
    assert client.ask(Txattrwalk(1, 2, b"user.key"), Rxattrwalk).size == 5
    assert client.ask(Tread(2, 0, 100), Rread).data == b"value"
    client.ask(Txattrwalk(1, 3, b""), Rxattrwalk)
    assert b"user.key\0" in client.ask(Tread(3, 0, 1000), Rread).data


def test_xattrs_by_extensions(client: Client, tree: Path) -> None:
    client.call(Tsetxattrx(0, b"dir", b"user.a", os.XATTR_CREATE, b"1"))
    with pytest.raises(FileExistsError):
        client.call(Tsetxattrx(0, b"dir", b"user.a", os.XATTR_CREATE, b"2"))
    assert client.ask(Tgetxattrx(0, b"dir", b"user.a"), Rgetxattrx).data == b"1"
    assert b"user.a\0" in client.ask(Tgetxattrx(0, b"dir", b""), Rgetxattrx).data
    client.call(Tremovexattrx(0, b"dir", b"user.a"))
    with pytest.raises(OSError) as caught:
        client.call(Tgetxattrx(0, b"dir", b"user.a"))
    assert caught.value.errno == errno.ENODATA


@pytest.mark.parametrize("name", [b"trusted.x", b"security.ima"])
def test_xattrs_of_the_administrator_are_refused(client: Client, name: bytes) -> None:
    with pytest.raises(PermissionError):
        client.call(Tsetxattrx(0, b"file", name, 0, b"v"))


def test_file_capabilities_are_set_read_and_removed(client: Client, tree: Path) -> None:
    name, value = b"security.capability", struct.pack("<5I", 0x2000001, 1 << 10, 0, 0, 0)
    with pytest.raises(OSError) as caught:
        client.call(Tsetxattrx(0, b"file", name, 0, b"no such value"))
    assert caught.value.errno == errno.EINVAL
    client.call(Tsetxattrx(0, b"file", name, 0, value))
    assert os.getxattr(tree / "file", "security.capability") == value
    assert client.ask(Tgetxattrx(0, b"file", name), Rgetxattrx).data == value
    client.call(Tremovexattrx(0, b"file", name))
    assert "security.capability" not in os.listxattr(tree / "file")


def test_xattrs_of_a_link_do_not_reach_its_target(client: Client) -> None:
    for request in (Tgetxattrx(0, b"up", b"user.x"), Tsetxattrx(0, b"up", b"user.x", 0, b"v")):
        with pytest.raises(OSError) as caught:
            client.call(request)
        assert caught.value.errno == errno.EOPNOTSUPP
    assert client.ask(Tgetxattrx(0, b"up", b""), Rgetxattrx).data == b""


# --- locks


def test_locks_of_two_clients_exclude_each_other(client: Client) -> None:
    open_fid(client, 1, [b"file"])
    take = Tlock(1, c.LOCK_TYPE_WRLCK, 0, 10, 10, 1, b"one")
    assert client.ask(take, Rlock).status == c.LOCK_SUCCESS
    other = Tlock(1, c.LOCK_TYPE_RDLCK, 0, 15, 0, 1, b"two")
    assert client.ask(other, Rlock).status == c.LOCK_BLOCKED
    held = client.ask(Tgetlock(1, c.LOCK_TYPE_RDLCK, 0, 0, 9, b"two"), Rgetlock)
    assert (held.kind, held.start, held.length) == (c.LOCK_TYPE_WRLCK, 10, 10)
    part = Tlock(1, c.LOCK_TYPE_UNLCK, 0, 12, 8, 1, b"one")
    assert client.ask(part, Rlock).status == c.LOCK_SUCCESS
    assert client.ask(other, Rlock).status == c.LOCK_SUCCESS
    client.call(Tclunk(1))
    open_fid(client, 1, [b"file"])
    everything = Tgetlock(1, c.LOCK_TYPE_WRLCK, 0, 0, 9, b"three")
    assert client.ask(everything, Rgetlock).kind == c.LOCK_TYPE_UNLCK


# --- sessions


def test_version_is_negotiated_down(connect: MakeClient) -> None:
    client = connect(start=False)
    for asked, answer in (
        (b"9P2000.L", b"9P2000.L"),
        (b"9P2000.L.other", b"9P2000.L"),
        (c.VERSION_EXTENDED, c.VERSION_EXTENDED),
        (b"9P2000", b"unknown"),
        (b"9P2000.u", b"unknown"),
    ):
        reply = client.ask(Tversion(1 << 30, asked), Rversion)
        assert (reply.version, reply.msize) == (answer, c.MSIZE_MAX)


def test_extensions_need_to_be_negotiated(connect: MakeClient) -> None:
    client = connect(start=False)
    client.start(version=c.VERSION)
    with pytest.raises(OSError) as caught:
        client.call(Twalkx(0, c.NOFID, c.NOOPEN, 0, []))
    assert caught.value.errno == errno.EOPNOTSUPP


def test_attach_to_an_unknown_name_is_enoent(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client.call(Tattach(5, c.NOFID, b"", b"nothing", 0))
    with pytest.raises(FileNotFoundError):
        client.call(Tauth(5, b"", b"0", 0))


def test_a_new_version_forgets_all_fids(client: Client) -> None:
    client.call(Tversion(c.MSIZE_MAX, c.VERSION_EXTENDED))
    with pytest.raises(OSError) as caught:
        client.call(Tgetattr(0, 0))
    assert caught.value.errno == errno.EBADF


def test_a_duplicate_has_the_same_fids_and_lives_on_its_own(client: Client) -> None:
    client.call(Twalk(0, 1, [b"dir"]))
    client.call(Tdupx())
    other = Client(socket.socket(fileno=client.take_fd()))
    with other.sock:
        other.call(Twalk(1, 2, [b"inner"]))
        other.call(Tclunk(1))
        client.call(Twalk(1, 2, [b"sub"]))
        client.sock.shutdown(socket.SHUT_RDWR)
        other.call(Tlopen(2, os.O_RDONLY))
        assert other.ask(Tread(2, 0, 10), Rread).data == b"inner"
