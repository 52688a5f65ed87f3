"""Archives: of Python's tarfile and of tar(1), and such as nobody would write."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runsc.images.errors import ImageError
from runsc.images.tar import HARD_LINK, MAX_ID, Member, TarReader
from tests.unit.runsc.images.making import (
    archive,
    device,
    extended,
    file,
    folder,
    hard,
    link,
    patched,
    record,
    xattrs,
)
from tests.unit.runsc.images.test_streams import Bytes

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
ONE = archive(file("one", b"contents"))
HOLES = b"a" * 5000 + bytes(100_000) + b"b" * 70_000 + bytes(60_000) + b"c"


def read(data: bytes, most: int = 10_007) -> list[tuple[Member, bytes]]:
    """The members, and their contents with the holes."""
    reader = TarReader(Bytes(data, most))
    found = []
    while (member := reader.next()) is not None:
        contents = bytearray(member.size)
        for at, piece in reader.data():
            contents[at : at + len(piece)] = piece
        found.append((member, bytes(contents)))
    return found


def members(data: bytes) -> list[Member]:
    return [member for member, _ in read(data)]


@pytest.mark.parametrize("form", FORMS)
def test_members_are_as_they_were_written(form: str) -> None:
    data = archive(
        folder("dir", 0o1777, uid=12, gid=34, mtime=1_500_000_000),
        file("dir/file", b"x" * 1000, mode=0o4755),
        link("dir/link", "/absolute/../target"),
        hard("dir/hard", "dir/file"),
        device("null", 1, 3),
        device("disk", 8, 17, tarfile.BLKTYPE),
        file("fifo", type=tarfile.FIFOTYPE),
        file("empty"),
        form=FORMS[form],
    )
    found = read(data)
    kinds = [stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, HARD_LINK, stat.S_IFCHR, stat.S_IFBLK,
             stat.S_IFIFO, stat.S_IFREG]  # fmt: skip
    assert [member.kind for member, _ in found] == kinds
    first = found[0][0]
    assert first.path.rstrip(b"/") == b"dir"
    assert (first.mode, first.uid, first.gid, first.mtime_ns) == (
        0o1777, 12, 34, 1_500_000_000 * 10**9,
    )  # fmt: skip
    assert (found[1][0].mode, found[1][1]) == (0o4755, b"x" * 1000)
    assert [found[2][0].target, found[3][0].target] == [b"/absolute/../target", b"dir/file"]
    assert [found[4][0].device, found[5][0].device] == [(1, 3), (8, 17)]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_names_and_large_numbers_are_whole(form: str) -> None:
    long, umlaut = "a/" * 90 + "n" * 200, "ü" * 120
    entries = file(long, b"1", uid=3_000_000_000), link(umlaut, long), hard("x", long)
    found = members(archive(*entries, form=FORMS[form]))
    assert [member.path for member in found] == [long.encode(), umlaut.encode(), b"x"]
    assert [member.target for member in found[1:]] == [long.encode()] * 2
    assert found[0].uid == 3_000_000_000


def test_name_with_a_prefix_is_joined() -> None:
    long = "d" * 120 + "/" + "n" * 90
    assert members(archive(file(long), form=tarfile.USTAR_FORMAT))[0].path == long.encode()


@pytest.mark.parametrize(
    ("form", "mtime", "expected"),
    [
        ("pax", 1234567890.25, 1_234_567_890_250_000_000),
        ("pax", -5, -5_000_000_000),
        ("gnu", -5, -5_000_000_000),
        ("pax", 10**15, (1 << 63) - 1),
    ],
)
def test_times_have_their_fractions_and_bounds(form: str, mtime: float, expected: int) -> None:
    assert members(archive(file("x", mtime=mtime), form=FORMS[form]))[0].mtime_ns == expected


def test_extended_attributes_are_bytes() -> None:
    headers = xattrs(user_a="1", security_capability="\udc80\x01=\n")
    found = members(archive(file("x", pax_headers=headers)))[0]
    assert found.xattrs == {b"user.a": b"1", b"security.capability": b"\x80\x01=\n"}


def test_member_after_a_pax_header_is_not_touched_by_it() -> None:
    data = archive(file("x", pax_headers=xattrs(user_a="1")), file("y"))
    assert [member.xattrs for member in members(data)] == [{b"user.a": b"1"}, {}]


def test_global_header_is_passed_over() -> None:
    data = extended(record("path", b"other") + record("comment", b"of git"), b"g") + ONE
    assert [member.path for member in members(data)] == [b"one"]


def test_archive_before_posix_has_folders_by_their_slash() -> None:
    data = patched(patched(archive(file("x"), form=tarfile.USTAR_FORMAT), 0, b"dir/"), 156, b"\0")
    assert members(data)[0].kind == stat.S_IFDIR


def test_checksum_of_signed_bytes_counts() -> None:
    data = archive(file("ü"), form=tarfile.GNU_FORMAT)
    high = sum(byte > 127 for byte in data[:512])
    said = int(data[148:154], 8) - 256 * high
    assert members(data[:148] + b"%06o\0 " % said + data[156:])[0].path == "ü".encode()


@pytest.mark.parametrize("options", [
    ("--format=gnu",),
    ("--format=posix", "--sparse-version=0.0"),
    ("--format=posix", "--sparse-version=0.1"),
    ("--format=posix", "--sparse-version=1.0"),
], ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 60])
@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar(1)")
def test_sparse_files_of_gnu_tar_have_their_holes(
    options: tuple[str, ...], pieces: int, tmp_path: Path
) -> None:
    expected = HOLES * pieces
    with open(tmp_path / "sparse", "wb") as whole:  # tar looks for holes where there are some
        for at in range(0, len(expected), 4096):
            if any(block := expected[at : at + 4096]):
                whole.seek(at)
                whole.write(block)
    (tmp_path / "next").write_bytes(b"next")
    command = ["tar", "-C", tmp_path, *options, "--sparse", "--hole-detection=raw", "-cf", "-"]
    made = subprocess.run([*command, "sparse", "next"], check=True, capture_output=True).stdout
    assert len(made) < len(expected)
    (sparse, contents), (after, rest) = read(made)
    assert (sparse.path, contents == expected) == (b"sparse", True)
    assert len(sparse.spans) > 1
    assert (after.path, rest) == (b"next", b"next")


def test_archive_ends_at_a_block_of_zeros_or_at_its_end() -> None:
    assert len(members(ONE[:1024])) == 1
    assert len(members(ONE[:1536] + ONE)) == 1
    assert members(b"") == []


@pytest.mark.parametrize("size", [1, 511, 513, 1023])
def test_archive_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(ImageError, match="cut short"):
        read(ONE[:size])


SPARSE = record("GNU.sparse.major", b"1") + record("GNU.sparse.minor", b"0")
Make = Callable[[], bytes]
WRONG: dict[str, tuple[Make, str]] = {
    "checksum": (lambda: b"two" + ONE[3:], "damaged header"),
    "letters": (lambda: patched(ONE, 124, b"12x"), "wrong size"),
    "negative size": (lambda: patched(ONE, 124, b"\xff" * 12), "wrong size"),
    "huge size": (lambda: patched(ONE, 124, b"\x80" + b"\x7f" * 11), "wrong size"),
    "owner of nobody": (lambda: patched(ONE, 108, b"\x80\0\0\0\xff\xff\xff\xff"), "wrong owner"),
    "kind": (lambda: patched(ONE, 156, b"?"), "unknown kind"),
    "volumes": (lambda: patched(ONE, 156, b"M"), "unknown kind"),
    "device": (lambda: patched(archive(device("x", 1, 3)), 329, b"7777777\0"), "wrong device"),
    "pax of a gigabyte": (lambda: patched(extended(b""), 124, b"10000000000\0"), "header of"),
    "long name of a gigabyte": (
        lambda: patched(extended(b"", b"L"), 124, b"10000000000\0"), "header of",
    ),
    "length beyond": (lambda: extended(b"99 path=x\n") + ONE, "damaged"),
    "length of nothing": (lambda: extended(b"0 path=x\n") + ONE, "damaged"),
    "length within": (lambda: extended(b"5 path=x\n") + ONE, "damaged"),
    "no length": (lambda: extended(b"path=x\n") + ONE, "damaged"),
    "no key": (lambda: extended(record("", b"x")) + ONE, "damaged"),
    "NUL in a name": (lambda: extended(record("path", b"a\0b")) + ONE, "NUL"),
    "owner of words": (lambda: extended(record("uid", b"-1")) + ONE, "wrong number"),
    "owner beyond": (lambda: extended(record("uid", b"%d" % (MAX_ID + 1))) + ONE, "wrong owner"),
    "size beyond": (lambda: extended(record("size", b"9" * 20)) + ONE, "has a file of"),
    "time of words": (lambda: extended(record("mtime", b"now")) + ONE, "wrong time"),
    "attribute without a name": (
        lambda: extended(record("SCHILY.xattr.", b"x")) + ONE, "attribute",
    ),
    "attribute of a megabyte": (
        lambda: extended(record("SCHILY.xattr.user.a", bytes(100_000))) + ONE, "attributes",
    ),
    "map of words": (
        lambda: extended(record("GNU.sparse.size", b"9") + record("GNU.sparse.map", b"0,x")) + ONE,
        "damaged map",
    ),
    "map of one": (
        lambda: extended(record("GNU.sparse.size", b"9") + record("GNU.sparse.map", b"0")) + ONE,
        "damaged map",
    ),
    "map beyond the size": (
        lambda: extended(record("GNU.sparse.size", b"4") + record("GNU.sparse.map", b"0,8")) + ONE,
        "damaged map",
    ),
    "map that overlaps": (
        lambda: extended(
            record("GNU.sparse.size", b"90") + record("GNU.sparse.map", b"10,4,8,4")
        ) + ONE,
        "damaged map",
    ),
    "map of less than there is": (
        lambda: extended(record("GNU.sparse.size", b"90") + record("GNU.sparse.map", b"0,4")) + ONE,
        "damaged map",
    ),
    "sparse file of an exabyte": (
        lambda: extended(
            record("GNU.sparse.size", b"1" + b"0" * 18) + record("GNU.sparse.map", b"0,8")
        ) + ONE,
        "has a file of",
    ),
    "map before the bytes that is longer than they": (
        lambda: extended(SPARSE + record("GNU.sparse.realsize", b"90"))
        + patched(ONE, 124, b"00000000010\0")[:512] + b"0\n".ljust(512, b"\0"),
        "longer than it",
    ),
    "map before the bytes of a million pieces": (
        lambda: extended(SPARSE + record("GNU.sparse.realsize", b"90")) + ONE[:512]
        + b"1000000\n".ljust(512, b"\0"),
        "damaged map",
    ),
    "map before the bytes without an end": (
        lambda: extended(SPARSE + record("GNU.sparse.realsize", b"90")) + ONE[:512]
        + b"5\n".ljust(2048, b"7"),
        "damaged map",
    ),
    "old map without an end": (
        lambda: patched(patched(ONE, 482, b"\x01"), 156, b"S")[:512]
        + (b"00000000000\0" * 42).ljust(504, b"\0").ljust(512, b"\x01") * 4000,
        "damaged map",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_archive_that_lies_is_refused(what: str) -> None:
    make, message = WRONG[what]
    with pytest.raises(ImageError, match=message):
        read(make())


def test_every_prefix_of_an_archive_is_read_or_refused() -> None:
    data = archive(file("ü" * 80, b"x" * 700, pax_headers=xattrs(user_a="1")), link("l", "t"))
    for size in range(0, len(data), 64):
        try:
            assert len(read(data[:size])) <= 2
        except ImageError as error:
            assert "cut short" in str(error)
