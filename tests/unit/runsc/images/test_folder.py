"""Roots in folders: what root can make, and that nothing is made elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runsc.images.errors import ImageError
from runsc.images.folder import Folder
from runsc.images.layer import Layer, apply
from runsc.images.streams import Budget
from runsc.images.tree import Tree
from tests.unit.fs.erofs.test_filesystem import ACL
from tests.unit.runsc.images.making import (
    AS_ROOT,
    Entry,
    archive,
    device,
    digest_of,
    file,
    folder,
    hard,
    link,
    record,
    xattrs,
)
from tests.unit.runsc.images.test_erofs import HOLES, LONG, SPARSE, sparse
from tests.unit.runsc.images.test_streams import Bytes

pytestmark = AS_ROOT
AT = 1_600_000_000


def written(place: Path, *layers: bytes) -> Path:
    """The root of such layers."""
    place.mkdir()
    tree, store = Tree(), Folder(str(place), "root")
    try:
        for layer in layers:
            source, budget = Bytes(layer), Budget(1 << 30)
            apply(Layer("", None, digest_of(layer)), source, budget, tree, store)
        store.finish(tree)
    finally:
        store.close()
    assert os.listdir(place) == ["root"]
    return place / "root"


def test_folder_has_what_the_layer_has(tmp_path: Path) -> None:
    capability = b"\1\0\0\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    headers = xattrs(
        user_a="1", trusted_b="2", security_capability=capability.decode(),
        security_selinux="system_u:object_r:etc_t:s0",
        system_posix_acl_access=ACL.decode(errors="surrogateescape"),
    )  # fmt: skip
    root = written(
        tmp_path / "made",
        sparse("holes", b"a" * 200 + b"b" * 3 + b"end", SPARSE) + archive(
            folder("./", 0o751, uid=1, gid=2, mtime=AT),
            folder("dir", 0o3771, uid=3, gid=4, mtime=AT + 1),
            file("dir/long", LONG, mode=0o6755, uid=3_000_000_000, gid=70_000, mtime=AT + 0.25),
            file("empty", mtime=-5),
            link("dir/link", "/etc/passwd", uid=5, gid=6, mtime=AT),
            hard("again", "dir/long"), hard("link too", "dir/link"),
            device("null", 1, 3), device("disk", 259, 0x12345, b"4"),
            file("fifo", type=b"6", mode=0o620),
            file("attributes", b"x", mode=0o755, uid=9, pax_headers=headers),
        ),
    )  # fmt: skip
    top = root.stat()
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid, top.st_mtime) == (0o751, 1, 2, AT)
    inner = (root / "dir").stat()
    assert (stat.S_IMODE(inner.st_mode), inner.st_uid, inner.st_mtime) == (0o3771, 3, AT + 1)
    long = (root / "dir" / "long").stat()
    assert (stat.S_IMODE(long.st_mode), long.st_uid, long.st_gid, long.st_nlink) == (
        0o6755, 3_000_000_000, 70_000, 2,
    )  # fmt: skip
    assert long.st_mtime_ns == AT * 10**9 + 250_000_000
    assert (root / "again").read_bytes() == LONG and (root / "again").samefile(root / "dir/long")
    shown = (root / "dir" / "link").lstat()
    assert (os.readlink(root / "dir/link"), shown.st_uid, shown.st_mtime, shown.st_nlink) == (
        "/etc/passwd", 5, AT, 2,
    )  # fmt: skip
    assert (root / "empty").stat().st_size == 0
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((root / "disk").stat().st_mode)
    assert (root / "disk").stat().st_rdev == os.makedev(259, 0x12345)
    assert stat.S_IMODE((root / "fifo").stat().st_mode) == 0o620
    assert (root / "holes").read_bytes() == HOLES
    attributes = root / "attributes"
    for name, value in (("user.a", b"1"), ("trusted.b", b"2"), ("security.capability", capability)):
        assert os.getxattr(attributes, name) == value
    assert os.getxattr(attributes, "system.posix_acl_access") == ACL
    values = [os.getxattr(attributes, name) for name in os.listxattr(attributes)]
    assert b"system_u:object_r:etc_t:s0" not in values


def test_file_of_a_terabyte_of_holes_takes_little(tmp_path: Path) -> None:
    records = record("GNU.sparse.size", b"%d" % (1 << 40)) + record("GNU.sparse.map", b"0,4")
    root = written(tmp_path / "made", sparse("large", b"some", records) + archive())
    found = (root / "large").stat()
    assert (found.st_size, found.st_blocks * 512 < 1 << 20) == (1 << 40, True)


def test_mask_of_the_caller_changes_no_mode(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        root = written(tmp_path / "made", archive(folder("d", 0o777), file("f", mode=0o666)))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in "df"] == [0o777, 0o666]


def test_default_list_of_a_folder_is_not_inherited(tmp_path: Path) -> None:
    headers = xattrs(system_posix_acl_default=ACL.decode(errors="surrogateescape"))
    root = written(tmp_path / "made", archive(folder("d", pax_headers=headers), file("d/f")))
    assert os.getxattr(root / "d", "system.posix_acl_default") == ACL
    assert os.listxattr(root / "d" / "f") == []


def test_deep_folders_are_made(tmp_path: Path) -> None:
    deep = "/".join("d" * 10 for _ in range(199))
    root = written(tmp_path / "made", archive(file(f"{deep}/file", b"deep")))
    found = next(names for _, _, names in os.walk(root) if names)
    assert found == ["file"]


def test_later_layers_replace_and_hide(tmp_path: Path) -> None:
    lower = archive(file("a", b"1"), file("d/x"), link("l", "d"), file("gone"))
    upper = archive(file("a", b"2"), file("l/new"), file(".wh.gone"), file("d/.wh..wh..opq"))
    root = written(tmp_path / "made", lower, upper)
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) == [
        "a", "d", "l", "l/new",
    ]  # fmt: skip
    assert (root / "a").read_bytes() == b"2" and not (root / "l").is_symlink()


@pytest.mark.parametrize(
    ("member", "name"),
    [(file("in/attribute", pax_headers=xattrs(security_capability="x")), "'attribute'"),
     (link("in/labelled", "x", pax_headers=xattrs(user_a="1")), "'labelled'")],
)  # fmt: skip
def test_what_cannot_be_made_is_named(tmp_path: Path, member: Entry, name: str) -> None:
    with pytest.raises(ImageError, match=f"^has {name}, which cannot be made: .* [a-z]+$"):
        written(tmp_path / "made", archive(member))
