"""Images of EROFS: what is in them, as Linux shows it; and images that mean harm."""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sentry.abi.fcntl import O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_WRONLY
from sentry.abi.mman import MAP_PRIVATE, PROT_READ
from sentry.fs.erofs import layout
from sentry.fs.erofs.file import ErofsRegular
from sentry.wait.again import settled
from sentry.wait.fiber import Mode, park
from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.layers import mounted
from tests.unit.fs.erofs.images import BLOCK, Builder, Node, directory, file, link

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHi", *each)
    for each in ((1, 6, -1), (2, 0, 1000), (4, 4, -1), (16, 4, -1), (32, 4, -1))
)
LONG = bytes(range(256)) * 100
PACKED = b"packed " * 5000 + random.Random(5).randbytes(9000) + bytes(15_000) + b"end"
HOLES = b"a" * BLOCK + bytes(3 * BLOCK) + b"b" * 100


def tree() -> Node:
    many = {b"file%04d" % number: file(b"%d" % number) for number in range(600)}
    twice = file(b"two names", nlink=2)
    return directory(
        {
            b"empty": file(b""),
            b"small": file(b"inline", 0o600, owner=(1000, 50), extended=True, mtime_ns=10**18 + 7),
            b"tail": file(LONG),
            b"plain": file(LONG, layout=layout.FLAT_PLAIN),
            b"whole": file(LONG[:BLOCK] * 2, layout=layout.FLAT_PLAIN),
            b"chunks": file(HOLES, layout=layout.CHUNK_BASED),
            b"wide": file(HOLES, layout=layout.CHUNK_BASED, chunk_bits=1, indexes=False),
            b"packed": file(PACKED, layout=layout.COMPRESSED_FULL),
            b"packed once": file(LONG[:5000], layout=layout.COMPRESSED_FULL),
            b"link": link(b"dir/inner"),
            b"dir": directory({b"inner": file(b"inner"), b"none": directory({}, nlink=2)}, nlink=3),
            b"many": directory(many, 0o711, layout=layout.FLAT_PLAIN, nlink=2),
            b"one": twice,
            b"other": twice,
            b"fifo": Node(stat.S_IFIFO | 0o640, 0),
            b"null": Node(stat.S_IFCHR | 0o666, 0x103),
            b"xattrs": file(b"x", xattrs={b"user.a": b"1", b"trusted.b": b"22"}, shared=[0]),
            b"acl": file(b"x", 0o644, xattrs={b"system.posix_acl_access": ACL}),
        },
        nlink=5,
    )


def image(**more: bool) -> bytes:
    return Builder(tree(), {b"user.shared": b"told once"}).build(**more)


def mount(files: Files, data: bytes, path: bytes = b"/image") -> int:
    files.fill(path, data)
    if files.missing(b"/mnt") == -errno.ENOENT:
        files.ok("mkdir", b"/mnt", 0o755)
    return files.call("mount", path, b"/mnt", b"erofs", 1, 0)


def xattrs(files: Files, path: bytes) -> dict[bytes, bytes]:
    buffer = files.program.buffer(4096)
    names = files.program.read(buffer, files.ok("llistxattr", path, buffer, 4096)).split(b"\0")
    return {
        name: files.program.read(buffer, files.ok("lgetxattr", path, name, buffer, 4096))
        for name in names[:-1]
    }


def described(files: Files, path: bytes) -> tuple[object, ...]:
    """All that can be known of a file."""
    found = files.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    inside: object = None
    if kind == stat.S_IFREG:
        inside = files.contents(path)
    elif kind == stat.S_IFLNK:
        inside = files.target(path)
    elif kind == stat.S_IFDIR:
        inside = {name: described(files, path + b"/" + name) for name in files.names(path)}
    return (
        found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_size,
        found.st_ino, found.st_mtime, found.st_mtime_nsec, xattrs(files, path), inside,
    )  # fmt: skip


def on_linux(path: bytes) -> tuple[object, ...]:
    """The same, of the host."""
    found = os.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    inside: object = None
    if kind == stat.S_IFREG:
        inside = Path(os.fsdecode(path)).read_bytes()
    elif kind == stat.S_IFLNK:
        inside = os.readlink(path)
    elif kind == stat.S_IFDIR:
        inside = {name: on_linux(path + b"/" + name) for name in sorted(os.listdir(path))}
    attributes = {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return (
        found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_size,
        found.st_ino, found.st_mtime_ns // 10**9, found.st_mtime_ns % 10**9, attributes, inside,
    )  # fmt: skip


@pytest.mark.root
def test_image_shows_what_linux_shows(files: Files, tmp_path: Path) -> None:
    path, place = tmp_path / "image", tmp_path / "place"
    path.write_bytes(image())
    place.mkdir()
    with ExitStack() as ends:
        mounted(ends, place, "-t", "erofs", "-o", "ro,loop", str(path))
        expected = on_linux(os.fsencode(place))
    assert mount(files, image()) == 0
    assert described(files, b"/mnt") == expected


def test_files_have_their_bytes_and_attributes(files: Files) -> None:
    assert mount(files, image()) == 0
    assert files.contents(b"/mnt/small") == b"inline"
    found = files.stat(b"/mnt/small")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 50, 0o600)
    assert files.modified_ns(b"/mnt/small") == 10**18 + 7
    assert files.modified_ns(b"/mnt/tail") == 1_700_000_000 * 10**9 + 5
    for path in (b"/mnt/tail", b"/mnt/plain"):
        assert files.contents(path) == LONG
    assert files.contents(b"/mnt/packed") == PACKED
    assert files.contents(b"/mnt/packed once") == LONG[:5000]
    for at in (0, BLOCK - 1, 34_990, 35_000 + 2 * BLOCK, len(PACKED) - 40):
        assert files.read(files.opened(b"/mnt/packed"), 100, at) == PACKED[at : at + 100]
    for path in (b"/mnt/chunks", b"/mnt/wide"):
        assert files.contents(path) == HOLES
        assert files.read(files.opened(path), 200, 4 * BLOCK - 50) == HOLES[4 * BLOCK - 50 :][:200]
    assert files.contents(b"/mnt/link") == b"inner"
    assert files.is_same(b"/mnt/one", b"/mnt/other")
    assert files.contents(b"/mnt/many/file0599") == b"599"
    assert files.missing(b"/mnt/many/file0600") == -errno.ENOENT
    assert len(files.names(b"/mnt/many")) == 600
    assert xattrs(files, b"/mnt/xattrs") == {
        b"user.a": b"1", b"trusted.b": b"22", b"user.shared": b"told once"
    }  # fmt: skip


def test_access_list_of_an_image_counts(files: Files) -> None:
    assert mount(files, image()) == 0
    files.ok("chmod", b"/", 0o755)
    assert files.sibling(1000, 1000).open(b"/mnt/acl") == -errno.EACCES
    assert files.sibling(1001, 1001).open(b"/mnt/acl") >= 0


def test_nothing_can_be_written(files: Files) -> None:
    assert mount(files, image()) == 0
    assert files.open(b"/mnt/small", O_RDWR) == -errno.EROFS
    assert files.open(b"/mnt/new", O_CREAT | O_WRONLY) == -errno.EROFS
    assert files.call("unlink", b"/mnt/small") == -errno.EROFS
    assert files.call("mount", 0, b"/mnt", 0, 32, 0) in (0, -errno.EROFS)
    assert files.open(b"/mnt/small", O_RDWR) == -errno.EROFS


def test_mapped_file_has_its_bytes(files: Files) -> None:
    assert mount(files, image()) == 0
    for path, data in (
        (b"/mnt/tail", LONG), (b"/mnt/chunks", HOLES), (b"/mnt/packed", PACKED),
    ):  # fmt: skip
        fd = files.opened(path)
        at = files.ok("mmap", 0, len(data), PROT_READ, MAP_PRIVATE, fd, 0)
        files.ok("close", fd)
        out = files.opened(b"/out", O_CREAT | O_RDWR)
        assert files.call("write", out, at, len(data)) == len(data)
        assert files.read(out, len(data), 0) == data
        files.ok("munmap", at, len(data))


def test_pages_of_a_file_go_with_its_last_mapping(files: Files) -> None:
    assert mount(files, image()) == 0
    first: Any = files.program
    ram = first.world.platform.ram
    before = ram.file_pages
    for program, goes in ((first, "munmap"), (first.fork(), "exit")):
        fd = program.ok("open", b"/mnt/tail", O_RDONLY)
        at = program.ok("mmap", 0, len(LONG), PROT_READ, MAP_PRIVATE, fd, 0)
        program.ok("close", fd)
        assert program.read(at, len(LONG)) == LONG
        assert ram.file_pages > before
        if goes == "munmap":
            program.ok("munmap", at, len(LONG))
        else:
            program.begin("exit_group", 0)
            first.world.settle()
        assert ram.file_pages == before


def test_page_that_is_fetched_for_a_file_that_nobody_maps_any_more_is_left(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mount(files, image()) == 0
    first: Any = files.program
    ram, fetched = first.world.platform.ram, ErofsRegular._page
    before = ram.file_pages

    def slow(file: ErofsRegular, at: int, size: int) -> bytes:
        settled(("slow", at), lambda: pause(1000))
        return fetched(file, at, size)

    async def pause(turns: int) -> None:
        for _ in range(turns):
            await park(Mode.KILLABLE, 0)

    monkeypatch.setattr(ErofsRegular, "_page", slow)
    fd = files.opened(b"/mnt/tail")
    at = files.ok("mmap", 0, len(LONG), PROT_READ, MAP_PRIVATE, fd, 0)
    files.ok("close", fd)
    reading = first.thread().begin("write", files.opened(b"/out", O_CREAT | O_WRONLY), at, 1)
    assert not reading.done
    files.ok("munmap", at, len(LONG))
    assert reading.wait() == -errno.EFAULT
    assert ram.file_pages == before


def test_image_is_in_use_while_it_is_mounted_and_goes_with_it(files: Files) -> None:
    assert mount(files, image()) == 0
    files.ok("unlink", b"/image")
    assert files.contents(b"/mnt/small") == b"inline"
    assert files.call("umount2", b"/mnt", 0) == 0
    assert files.names(b"/mnt") == []


def test_what_is_no_image_is_not_mounted(files: Files) -> None:
    for data in (b"", bytes(5000), image()[:1100]):
        assert mount(files, data) == -errno.EINVAL
        files.ok("unlink", b"/image")
    assert files.call("mount", b"/none", b"/mnt", b"erofs", 1, 0) == -errno.ENOENT
    assert files.call("mount", b"/mnt", b"/mnt", b"erofs", 1, 0) == -errno.ENOTBLK
    spoiled = bytearray(image())
    spoiled[layout.SUPER_OFFSET + 20] ^= 1
    assert mount(files, bytes(spoiled)) == -errno.EBADMSG
    files.ok("unlink", b"/image")
    assert mount(files, image(), b"/image") == 0
    assert files.call("mount", b"/image", b"/mnt", b"erofs", 1, b"nonsense") == -errno.EINVAL


def packed_image() -> tuple[bytearray, int]:
    """Without a checksum, and where what follows the inode of `packed` begins."""
    made = Builder(tree(), {b"user.shared": b"told once"})
    data = bytearray(made.build(checksum=False))
    struct.pack_into("<I", data, layout.SUPER_OFFSET + 8, 0)
    assert isinstance(made.top.data, dict)
    number = made.top.data[b"packed"].number
    return data, BLOCK + number * layout.SLOT + layout.COMPACT.size


@pytest.mark.parametrize(
    ("at", "value"),
    [(6, 1), (6, 3), (7, 1), (4, 0x40), (4, 1)],
    ids=["LZMA", "ZSTD", "other clusters", "unknown advice", "records of extents"],
)
def test_what_is_compressed_otherwise_is_seen_but_not_read(
    files: Files, at: int, value: int
) -> None:
    data, header = packed_image()
    data[header + at] = value
    assert mount(files, bytes(data)) == 0
    assert files.stat(b"/mnt/packed").st_size == len(PACKED)
    fd = files.opened(b"/mnt/packed")
    assert files.call("read", fd, files.program.buffer(64), 64) == -errno.EOPNOTSUPP
    assert files.contents(b"/mnt/packed once") == LONG[:5000]


SPOILT = {
    "a head before the first block": (16, struct.pack("<HHHH", 2, 0, 1, 1)),
    "a distance of nothing": (24, struct.pack("<HHHH", 2, 0, 0, 1)),
    "an extent beyond its block": (16, struct.pack("<HHI", 1, BLOCK, 9)),
    "beyond the image": (16, struct.pack("<HHI", 1, 0, 1 << 30)),
    "no LZ4": (16, struct.pack("<HHI", 1, 0, 0)),
    "big clusters in an image without": (4, b"\x02"),
    "counts without big clusters": (24, struct.pack("<HHHH", 2, 0, 0x802, 1)),
    "more than lies there": (16, struct.pack("<HHI", 0, 0, 9)),
}


@pytest.mark.parametrize("what", SPOILT)
def test_records_that_make_no_sense_are_an_error(files: Files, what: str) -> None:
    data, header = packed_image()
    at, raw = SPOILT[what]
    data[header + at : header + at + len(raw)] = raw
    assert mount(files, bytes(data)) == 0
    fd = files.opened(b"/mnt/packed")
    read = files.call("pread64", fd, files.program.buffer(BLOCK), BLOCK, BLOCK)
    assert read == -errno.EUCLEAN


def test_distances_that_lead_nowhere_end_soon(files: Files) -> None:
    """Each record says: one before."""
    data, header = packed_image()
    count = -(-len(PACKED) // BLOCK)
    for number in range(count):
        struct.pack_into("<HHHH", data, header + 16 + 8 * number, 2, 0, 1, 1)
    assert mount(files, bytes(data)) == 0
    fd = files.opened(b"/mnt/packed")
    at = (count - 1) * BLOCK
    assert files.call("pread64", fd, files.program.buffer(64), 64, at) == -errno.EUCLEAN


def explore(files: Files, path: bytes, left: int = 200) -> int:
    """Look at all there is; whatever it says."""
    buffer = files.program.buffer(8192)
    pending = [path]
    while pending and left:
        left -= 1
        at = pending.pop()
        files.call("newfstatat", -100, at, buffer, 0x100)
        files.call("readlink", at, buffer, 4096)
        files.call("llistxattr", at, buffer, 8192)
        files.call("lgetxattr", at, b"user.a", buffer, 4096)
        fd = files.open(at, O_RDONLY | O_DIRECTORY)
        if fd >= 0:
            while True:
                got = files.call("getdents64", fd, buffer, 4096)
                if got <= 0:
                    break
                raw = files.program.read(buffer, got)
                while raw:
                    size = struct.unpack_from("<H", raw, 16)[0]
                    name = raw[19:size].split(b"\0")[0]
                    if name not in (b".", b".."):
                        pending.append(at + b"/" + name)
                    raw = raw[size:]
            files.ok("close", fd)
            continue
        fd = files.open(at, O_RDONLY | 0o4000)
        if fd >= 0:
            files.call("read", fd, buffer, 8192)
            files.call("pread64", fd, buffer, 8192, 1 << 40)
            files.ok("close", fd)
    return left


@pytest.mark.parametrize("seed", range(8))
def test_spoiled_image_gives_errors_and_nothing_else(seed: int, files: Files) -> None:
    chance = random.Random(seed)
    good = bytearray(image(checksum=False))
    struct.pack_into("<I", good, layout.SUPER_OFFSET + 8, 0)
    end = BLOCK * 6
    for _ in range(12):
        bad = bytearray(good)
        for _ in range(chance.choice((1, 4, 40))):
            at = chance.randrange(layout.SUPER_OFFSET, end)
            bad[at] = chance.choice((0, 1, 0xFF, 0x80, chance.randrange(256)))
        if mount(files, bytes(bad)) == 0:
            explore(files, b"/mnt")
            files.ok("umount2", b"/mnt", 2)
        files.ok("unlink", b"/image")


def test_image_that_is_cut_short_while_mounted_gives_errors(files: Files) -> None:
    assert mount(files, image()) == 0
    files.ok("truncate", b"/image", 2 * BLOCK)
    explore(files, b"/mnt")
    fd = files.opened(b"/mnt/tail")
    assert files.call("read", fd, files.program.buffer(64), 64) == -errno.EUCLEAN
