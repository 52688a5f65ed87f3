"""Images of mkfs.erofs(1), next to what Linux shows of them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.layers import mounted
from tests.unit.fs.erofs.test_filesystem import ACL, described, mount, on_linux

pytestmark = pytest.mark.skipif(not shutil.which("mkfs.erofs"), reason="needs erofs-utils")


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


def made(tmp_path: Path, *options: str) -> Path:
    image = tmp_path / "image"
    command = ["mkfs.erofs", *options, str(image), str(folder(tmp_path / "from"))]
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


def test_compressed_file_says_so_and_the_others_can_be_read(files: Files, tmp_path: Path) -> None:
    assert mount(files, made(tmp_path, "-zlz4").read_bytes()) == 0
    assert files.target(b"/mnt/link").startswith(b"dir/inner/")
    assert files.contents(b"/mnt/dir/a name of which there are many, 0007") == b"7"
    fd = files.open(b"/mnt/dir/inner/even", os.O_RDONLY)
    assert files.call("read", fd, files.program.buffer(64), 64) == -errno.EOPNOTSUPP
