"""Images that are written, as the Sentry and Linux read them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from runsc.images import erofs
from runsc.images.erofs import BLOCK, MAX_CHUNKS, Writer
from runsc.images.errors import ImageError
from runsc.images.layer import Layer, apply
from runsc.images.streams import Budget
from runsc.images.tree import Tree
from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.layers import mounted
from tests.unit.fs.erofs.test_filesystem import ACL, described, mount, on_linux, xattrs
from tests.unit.runsc.images.making import (
    archive,
    device,
    digest_of,
    extended,
    file,
    folder,
    hard,
    link,
    record,
)
from tests.unit.runsc.images.making import xattrs as headers
from tests.unit.runsc.images.test_streams import Bytes

LONG = bytes(range(256)) * 211
SPARSE = record("GNU.sparse.size", b"20000") + record("GNU.sparse.map", b"4000,200,9000,3,19997,3")
AT = 1_600_000_000
ACL_TEXT = ACL.decode(errors="surrogateescape")


def sparse(name: str, data: bytes, records: bytes) -> bytes:
    """A sparse file of an archive, without the archive's end."""
    return extended(records) + archive(file(name, data))[: 512 + len(data) + -len(data) % 512]


def everything() -> bytes:
    """A layer with what there may be in one."""
    name = "many/file of which there are many, {:04}".format
    many = [*(file(name(number)) for number in range(599)), file(name(599), b"599")]
    wide = [folder("wide"), *(folder(f"wide/{n}") for n in range(5))]
    entries = [
        folder("./", 0o751, uid=1, gid=2, mtime=AT),
        file("empty", mtime=AT),
        file("small", b"small", mode=0o6755, uid=3_000_000_000, gid=70_000, mtime=AT + 0.25),
        file("long", LONG),
        file("even", LONG[:BLOCK] * 2),
        folder("many", 0o1777), *many, *wide,
        link("link", "../../etc/passwd"),
        link("long link", "x" * 4095),
        hard("small too", "small"),
        device("null", 1, 3),
        device("large", 259, 0x12345),
        file("fifo", type=b"6", mode=0o620),
        file("attributes", b"x", pax_headers=headers(
            user_a="1", trusted_b="22" * 20, system_posix_acl_access=ACL_TEXT,
        )),
        folder("large attributes", pax_headers=headers(user_a="a" * 3000, user_b="b" * 3000)),
        file("n" * 255),
        file("before 1970", mtime=-5),
    ]  # fmt: skip
    return sparse("holes", b"a" * 200 + b"b" * 3 + b"end", SPARSE) + archive(*entries)


HOLES = b"".join(
    [bytes(4000), b"a" * 200, bytes(9000 - 4200), b"b" * 3, bytes(19997 - 9003), b"end"]
)


def written(path: Path, *layers: bytes, limit: int = 1 << 30) -> Path:
    """The image of such layers."""
    budget, tree = Budget(limit), Tree()
    store = Writer(str(path), b"0123456789abcdef", budget)
    try:
        for layer in layers:
            apply(Layer("", None, digest_of(layer)), Bytes(layer), budget, tree, store)
        store.finish(tree)
    finally:
        store.close()
    return path


def test_image_shows_what_the_layer_has(files: Files, tmp_path: Path) -> None:
    assert mount(files, written(tmp_path / "image", everything()).read_bytes()) == 0
    root = files.stat(b"/mnt")
    assert (root.st_mode & 0o7777, root.st_uid, root.st_gid, root.st_mtime) == (0o751, 1, 2, AT)
    small = files.stat(b"/mnt/small")
    assert (small.st_mode & 0o7777, small.st_uid, small.st_gid, small.st_nlink) == (
        0o6755, 3_000_000_000, 70_000, 2,
    )  # fmt: skip
    assert files.modified_ns(b"/mnt/small") == AT * 10**9 + 250_000_000
    assert files.is_same(b"/mnt/small", b"/mnt/small too")
    contents = {b"small": b"small", b"empty": b"", b"long": LONG, b"even": LONG[:BLOCK] * 2,
                b"holes": HOLES, b"many/file of which there are many, 0599": b"599"}  # fmt: skip
    assert {name: files.contents(b"/mnt/" + name) for name in contents} == contents
    assert len(files.names(b"/mnt/many")) == 600
    assert [files.stat(b"/mnt/" + name).st_nlink for name in (b"many", b"wide")] == [2, 7]
    assert files.target(b"/mnt/link") == b"../../etc/passwd"
    assert files.target(b"/mnt/long link") == b"x" * 4095
    assert [files.stat(b"/mnt/" + name).st_rdev for name in (b"null", b"large")] == [
        os.makedev(1, 3), os.makedev(259, 0x12345),
    ]  # fmt: skip
    assert stat.S_IFMT(files.stat(b"/mnt/fifo").st_mode) == stat.S_IFIFO
    assert xattrs(files, b"/mnt/attributes") == {
        b"user.a": b"1", b"trusted.b": b"22" * 20, b"system.posix_acl_access": ACL,
    }  # fmt: skip
    assert xattrs(files, b"/mnt/large attributes")[b"user.b"] == b"b" * 3000
    assert files.missing(b"/mnt/" + b"n" * 255) == 0
    assert files.stat(b"/mnt/before 1970").st_mtime == 0


@pytest.mark.root
def test_image_shows_on_linux_what_it_shows_here(files: Files, tmp_path: Path) -> None:
    image, place = written(tmp_path / "image", everything()), tmp_path / "place"
    place.mkdir()
    with ExitStack() as ends:
        mounted(ends, place, "-t", "erofs", "-o", "ro,loop", str(image))
        expected = on_linux(os.fsencode(place))
    assert mount(files, image.read_bytes()) == 0
    assert described(files, b"/mnt") == expected


@pytest.mark.skipif(not shutil.which("fsck.erofs"), reason="needs erofs-utils")
def test_image_is_right_for_its_own_tools(tmp_path: Path) -> None:
    image = written(tmp_path / "image", everything())
    done = subprocess.run(["fsck.erofs", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_same_layers_make_the_same_image(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", everything()), written(tmp_path / "two", everything())
    assert one.read_bytes() == other.read_bytes()


def test_what_a_later_layer_hides_is_not_in_the_image(files: Files, tmp_path: Path) -> None:
    upper = archive(file(".wh.long"), file("many/.wh..wh..opq"), file("many/new", b"new"))
    assert mount(files, written(tmp_path / "image", everything(), upper).read_bytes()) == 0
    assert files.missing(b"/mnt/long") == -errno.ENOENT
    assert files.names(b"/mnt/many") == [b"new"]
    assert files.contents(b"/mnt/many/new") == b"new"


def test_image_that_is_not_finished_is_none(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cut short"):
        written(tmp_path / "image", archive(file("x", LONG))[:9000])
    data = (tmp_path / "image").read_bytes()
    assert len(data) > BLOCK
    assert mount(files, data) == -errno.EINVAL


def test_file_of_a_terabyte_of_holes_takes_little(tmp_path: Path) -> None:
    size = 1 << 40
    records = record("GNU.sparse.size", b"%d" % size)
    records += record("GNU.sparse.map", b"%d,4" % (size - 4))
    image = written(tmp_path / "image", sparse("large", b"last", records) + archive())
    assert image.stat().st_blocks * 512 < 1 << 20
    assert size // MAX_CHUNKS <= image.stat().st_size < 2 * size // MAX_CHUNKS
    with image.open("rb") as made:
        end = made.seek(-4, os.SEEK_END)
        assert os.pread(made.fileno(), 4, BLOCK + size // MAX_CHUNKS - 4) == b"last"
        assert b"large" in os.pread(made.fileno(), 1 << 16, end - (1 << 16))


def test_tables_of_holes_count_against_the_limit(tmp_path: Path) -> None:
    records = record("GNU.sparse.size", b"%d" % (1 << 40)) + record("GNU.sparse.map", b"0,4")
    layer = sparse("large", b"last", records) + archive()
    assert len(layer) < 15_000
    with pytest.raises(ImageError, match="limit of 15000 bytes"):
        written(tmp_path / "image", layer, limit=15_000)


def test_image_that_has_too_many_blocks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erofs, "MAX_BLOCKS", 12)
    with pytest.raises(ImageError, match="too large for an image of EROFS"):
        written(tmp_path / "image", archive(file("x", LONG)))


@pytest.mark.parametrize("length", [243, 244, 245])
def test_names_fill_blocks_to_their_ends(files: Files, tmp_path: Path, length: int) -> None:
    """With 244 bytes sixteen entries are as long as a block."""
    names = [f"{number:03}".ljust(length, "x") for number in range(80)]
    layer = archive(*(file(f"d/{name}") for name in names))
    assert mount(files, written(tmp_path / "image", layer).read_bytes()) == 0
    assert files.names(b"/mnt/d") == [name.encode() for name in names]
    assert all(files.missing(b"/mnt/d/" + name.encode()) == 0 for name in names)


def test_links_lie_behind_inodes_or_in_blocks_of_their_own(files: Files, tmp_path: Path) -> None:
    fits = BLOCK - 64
    links = [link(f"l{size}", "x" * size) for size in (fits - 1, fits, 4040, 4095)]
    assert mount(files, written(tmp_path / "image", archive(*links)).read_bytes()) == 0
    for info, _ in links:
        assert files.target(b"/mnt/" + info.name.encode()) == info.linkname.encode()


def test_checksum_of_the_superblock_is_right(files: Files, tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "image", archive(file("x"))).read_bytes())
    assert mount(files, bytes(data), b"/right") == 0
    files.ok("umount2", b"/mnt", 0)
    data[1024 + 100] ^= 1
    assert mount(files, bytes(data), b"/wrong") == -errno.EBADMSG
