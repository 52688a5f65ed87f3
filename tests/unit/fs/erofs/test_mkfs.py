"""Images of mkfs.erofs(1), next to what Linux shows of them."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.layers import mounted
from tests.unit.fs.erofs.test_filesystem import ACL, described, mount, on_linux

pytestmark = pytest.mark.skipif(not shutil.which("mkfs.erofs"), reason="needs erofs-utils")


def mixed(chance: random.Random) -> bytes:
    """Text, what cannot be compressed, and nothing."""
    words = [b"%d words " % number for number in range(400)]
    text = b"".join(chance.choice(words) for _ in range(8_000))
    return text + chance.randbytes(60_000) + bytes(400_000) + text[::-1] + b"end"


MIXED = mixed(random.Random(3))


def folder(path: Path) -> Path:
    """What there may be in an image."""
    inner = path / "dir" / "inner"
    inner.mkdir(parents=True)
    for number in range(120):
        (path / "dir" / f"a name of which there are many, {number:04}").write_bytes(b"%d" % number)
    (inner / "long").write_bytes(bytes(range(256)) * 211)
    (inner / "same").write_bytes(bytes(range(256)) * 211)
    (inner / "even").write_bytes(b"e" * 8192)
    with (inner / "holes").open("wb") as file:
        file.seek(50_000)
        file.write(b"end")
    (path / "empty").touch()
    (path / "link").symlink_to("dir/inner/" + "x" * 300)
    os.link(path / "empty", path / "other")
    os.mkfifo(path / "fifo", 0o640)
    os.setxattr(path / "empty", "user.one", b"1" * 300)
    os.setxattr(path / "dir", "system.posix_acl_access", ACL)
    for name in ("even", "holes", "same", "long"):
        os.setxattr(inner / name, "user.shared", b"by many")
    return path


def made(tmp_path: Path, *options: str, more: bytes = b"") -> Path:
    """`more`: what is in a file besides."""
    image, source = tmp_path / "image", folder(tmp_path / "from")
    if more:
        (source / "more").write_bytes(more)
    command = ["mkfs.erofs", *options, str(image), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return image


@pytest.mark.root
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-Enoinline_data",),
        ("--chunksize=4096",),
        ("--chunksize=16384", "-Eforce-chunk-indexes"),
        ("-Eforce-inode-extended",),
        ("-Eforce-inode-compact",),
        ("-x1",),
        ("-b1024",),
        ("-T1234567890", "--mkfs-time"),
        ("-Ededupe", "--chunksize=4096"),
        ("-zlz4",),
        ("-zlz4hc", "-C65536", "-Eztailpacking"),
        ("-zlz4", "-Efragments,dedupe"),
    ],
    ids=" ".join,
)
def test_image_shows_what_linux_shows(
    options: tuple[str, ...], files: Files, tmp_path: Path
) -> None:
    image, place = made(tmp_path, *options), tmp_path / "place"
    place.mkdir()
    with ExitStack() as ends:
        mounted(ends, place, "-t", "erofs", "-o", "ro,loop", str(image))
        expected = on_linux(os.fsencode(place))
    assert mount(files, image.read_bytes()) == 0
    assert described(files, b"/mnt") == expected


def contents(path: Path) -> dict[str, bytes]:
    """Of what is short."""
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in path.rglob("*")
        if not each.is_symlink() and each.is_file() and each.name != "more"
    }


@pytest.mark.parametrize(
    "options",
    [
        ("-zlz4",),
        ("-zlz4", "-Elegacy-compress"),
        ("-zlz4", "-C16384"),
        ("-zlz4hc", "-C1048576"),
        ("-zlz4", "-C65536", "-Elegacy-compress"),
        ("-zlz4", "-Eztailpacking"),
        ("-zlz4", "-Elegacy-compress,ztailpacking"),
        ("-zlz4", "-C65536", "-Eztailpacking"),
        ("-zlz4", "-Efragments"),
        ("-zlz4", "-Efragments", "-C65536"),
        ("-zlz4", "-Eall-fragments"),
        ("-zlz4", "-Ededupe"),
        ("-zlz4", "-Eall-fragments,dedupe", "-C131072"),
        ("-zlz4", "-b1024"),
        ("-zlz4", "-Enoinline_data"),
        ("-zlz4", "-Eforce-inode-extended"),
    ],
    ids=" ".join,
)
def test_compressed_image_has_the_bytes_of_the_files(
    options: tuple[str, ...], files: Files, tmp_path: Path
) -> None:
    image = made(tmp_path, *options, more=MIXED)
    assert mount(files, image.read_bytes()) == 0
    for name, data in contents(tmp_path / "from").items():
        assert files.contents(b"/mnt/" + os.fsencode(name)) == data, name
    fd, size = files.opened(b"/mnt/more"), 1 << 16
    assert files.stat(b"/mnt/more").st_size == len(MIXED)
    for at in range(0, len(MIXED), size):
        assert files.read(fd, size, at) == MIXED[at : at + size], at
    chance = random.Random(4)
    for _ in range(60):
        at, size = chance.randrange(len(MIXED)), chance.randrange(1, 9000)
        assert files.read(fd, size, at) == MIXED[at : at + size], (at, size)


@pytest.mark.parametrize("algorithm", ["lzma", "deflate", "zstd"])
def test_what_is_compressed_otherwise_says_so_and_the_rest_can_be_read(
    files: Files, tmp_path: Path, algorithm: str
) -> None:
    if algorithm not in subprocess.check_output(["mkfs.erofs", "-V"], text=True):
        pytest.skip("this mkfs.erofs cannot")
    assert mount(files, made(tmp_path, f"-z{algorithm}").read_bytes()) == 0
    assert files.target(b"/mnt/link").startswith(b"dir/inner/")
    assert files.contents(b"/mnt/dir/a name of which there are many, 0007") == b"7"
    fd = files.open(b"/mnt/dir/inner/even", os.O_RDONLY)
    assert files.call("read", fd, files.program.buffer(64), 64) == -errno.EOPNOTSUPP
