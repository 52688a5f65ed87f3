"""`root_of`, from everything that a root can be, in both forms; and from what means harm."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runsc.accounts import Ids
from runsc.images import ImageConfig, ImageError, ImageRoot, local, root_of
from runsc.images.layer import Layer, apply
from sentry.fs.erofs import layout as erofs_layout
from tests.unit.fs.erofs.images import Builder, directory
from tests.unit.fs.erofs.images import file as node
from tests.unit.runsc.images.making import (
    AS_ROOT,
    Files,
    archive,
    digest_of,
    file,
    folder,
    hard,
    index,
    layout,
    link,
    manifest,
    named,
    packed,
    saved,
    written,
)
from tests.unit.runsc.images.test_image import WRONG
from tests.unit.runsc.images.test_local import ID, engine

LOWER = archive(
    folder("etc"),
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n"),
    file("etc/group", b"www:x:33:web\n"),
    file("gone", b"gone"),
    file("bin/sh", b"#!", mode=0o4755, uid=7),
)
UPPER = archive(file(".wh.gone"), file("new", b"new"), hard("bin/bash", "bin/sh"))
CONFIG = {"Env": ["A=1"], "Cmd": ["sh"], "User": "web"}


class Place:
    """Where a test keeps things: sources, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"

    def put(self, data: bytes, name: str = "source") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def root(self, source: str | Path, limit_bytes: int | None = None) -> ImageRoot:
        return root_of(source, cache=self.cache, limit_bytes=limit_bytes)

    def made(self) -> int:
        """How many roots there are; nothing else is left."""
        assert not list((self.cache / "making").iterdir())
        return len(list((self.cache / "roots").iterdir()))


@pytest.fixture
def place(tmp_path: Path, kind: str) -> Place:
    return Place(tmp_path)


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs: the only engines that there are."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", str(found))
    return found


def names(root: ImageRoot) -> set[str]:
    """What is in its top folder."""
    if root.path.is_dir():
        return set(os.listdir(root.path))
    data = root.path.read_bytes()
    first, start = data[1024:], int.from_bytes(data[1024 + 40 : 1024 + 44], "little")
    number = int.from_bytes(first[14:16], "little")
    at = (start << 12) + number * erofs_layout.SLOT
    size = erofs_layout.EXTENDED.unpack_from(data, at)[4]
    body = data[at + erofs_layout.EXTENDED.size :][:size]
    return {name.decode() for name, _, _ in erofs_layout.entries(body)} - {".", ".."}


def is_ours(root: ImageRoot) -> bool:
    """It is made of LOWER and UPPER."""
    return names(root) == {"bin", "etc", "new"}


# --- what is taken as it is


def test_folder_is_taken_as_it_is(place: Place) -> None:
    inner = place.folder / "root"
    inner.mkdir()
    (place.folder / "link").symlink_to("root")
    for source in (inner, str(inner), str(place.folder / "link")):
        assert place.root(source) == ImageRoot(inner, ImageConfig(), None)
    assert not place.cache.exists()


def test_who_asks_hears_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "image.gz").write_bytes(gzip.compress(packed(layout(LOWER, UPPER))))
    heard: dict[str, tuple[int, int]] = {}

    def tell(what: str, done: int, total: int) -> None:
        heard[what] = done, total

    root_of(tmp_path / "image.gz", cache=tmp_path / "cache", tell=tell)

    steps = ["reading", "decompressing", "unpacking layer 1 of 2", "unpacking layer 2 of 2"]
    assert list(heard) == steps
    assert all(done == total for done, total in heard.values())


def test_image_of_erofs_is_taken_as_it_is(place: Place) -> None:
    source = place.put(Builder(directory({b"x": node(b"x")})).build())
    assert place.root(source) == ImageRoot(source, ImageConfig(), None)
    assert not place.cache.exists()


# --- what is made of images


Make = Callable[[Place], str | Path]
BOTH = layout(LOWER, UPPER, config=CONFIG)
SOURCES: dict[str, Make] = {
    "layout": lambda place: written(BOTH, place.folder / "layout"),
    "archive": lambda place: place.put(packed(BOTH)),
    "compressed archive": lambda place: place.put(gzip.compress(packed(BOTH))),
    "saved": lambda place: place.put(packed(saved(LOWER, UPPER, config=CONFIG))),
    "compressed saved": lambda place: place.put(
        lzma.compress(packed(saved(LOWER, UPPER, config=CONFIG)))
    ),
    "gzip": lambda place: place.put(
        packed(layout(LOWER, UPPER, pack=gzip.compress, config=CONFIG))
    ),
    "bzip2": lambda place: place.put(
        packed(layout(LOWER, UPPER, pack=bz2.compress, config=CONFIG))
    ),
    "oci": lambda place: f"oci:{written(BOTH, place.folder / 'layout')}",
    "oci-archive": lambda place: f"oci-archive:{place.put(packed(BOTH))}",
    "docker-archive": lambda place: (
        f"docker-archive:{place.put(packed(saved(LOWER, UPPER, config=CONFIG)))}:some:tag"
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_image_becomes_a_root_once(place: Place, source: str) -> None:
    name = SOURCES[source](place)
    found = place.root(name)
    assert is_ours(found)
    assert found.path.is_relative_to(place.cache / "roots")
    assert (found.config.env, found.config.cmd, found.config.user) == (("A=1",), ("sh",), "web")
    assert found.digest is not None and found.digest.startswith("sha256:")
    assert found.ids() == Ids(101, 102, (33,))
    assert found.ids("0:www") == Ids(0, 33)
    before = found.path.stat().st_ino
    assert place.root(name) == found
    assert (found.path.stat().st_ino, place.made()) == (before, 1)


def test_images_of_the_same_layers_share_a_root(place: Place) -> None:
    one = place.root(place.put(packed(BOTH), "one"))
    other = place.root(place.put(packed(saved(LOWER, UPPER)), "other"))
    assert one.path == other.path and one.digest != other.digest
    assert (one.config.cmd, other.config.cmd, place.made()) == (("sh",), (), 1)


def test_tag_chooses_among_images(place: Place) -> None:
    files: Files = {}
    both = named(manifest(files, LOWER), "one"), named(manifest(files, LOWER, UPPER), "v:2")
    for transport, source in (
        ("oci", written(index(files, *both), place.folder / "layout")),
        ("oci-archive", place.put(packed(files))),
        ("oci-archive", place.put(gzip.compress(packed(files)), "compressed")),
    ):
        for _ in range(2):
            assert is_ours(place.root(f"{transport}:{source}:v:2"))
            assert "gone" in names(place.root(f"{transport}:{source}:one"))
    assert place.made() == 2


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_tar_becomes_a_root_once(place: Place, pack: Callable[[bytes], bytes]) -> None:
    source = place.put(pack(LOWER))
    found = place.root(source)
    assert names(found) == {"bin", "etc", "gone"}
    assert (found.config, found.digest) == (ImageConfig(), digest_of(LOWER))
    assert found.ids("web") == Ids(101, 102, (33,))
    assert place.root(source) == found
    assert place.root(place.put(LOWER, "other")) == found
    assert place.made() == 1


@pytest.mark.parametrize("kind", [pytest.param("folder", marks=AS_ROOT)], indirect=True)
def test_folder_of_a_root_has_owners_and_modes(place: Place) -> None:
    path = place.root(place.put(packed(BOTH))).path
    info = (path / "bin" / "sh").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_nlink) == (0o4755, 7, 2)
    assert path.stat().st_mode & 0o777 == 0o755
    assert (place.cache / "roots").stat().st_mode & 0o777 == 0o700


# --- engines


def test_image_of_an_engine_is_saved_once(place: Place, engines: Path) -> None:
    source = place.put(packed(saved(LOWER, UPPER, config=CONFIG)))
    calls = place.folder / "calls"
    script = f'echo "$*" >> {calls}; case "$2" in inspect) echo {ID};; save) cat {source};; esac'
    engine(engines, "podman", script)
    for name in ("some:tag", "containers-storage:some:tag", "some:tag"):
        found = place.root(name)
        assert is_ours(found) and found.config.user == "web"
    assert [line for line in calls.read_text().splitlines() if " save " in line] == [
        f"image save --format docker-archive {ID}"
    ]
    assert place.made() == 1


def test_image_that_no_engine_has_is_refused(place: Place, engines: Path) -> None:
    with pytest.raises(ImageError, match="image some:tag is no file, and no image that podman or"):
        place.root("some:tag")
    with pytest.raises(ImageError, match="no image that docker has"):
        place.root("docker-daemon:some:tag")
    engine(engines, "podman", f"[ $2 = inspect ] && echo {ID}")
    with pytest.raises(ImageError, match="could not be had from podman"):
        place.root("some:tag")
    assert place.made() == 0


def test_path_is_never_looked_for_in_an_engine(place: Place, engines: Path) -> None:
    engine(engines, "podman", f"echo {ID}")
    with pytest.raises(ImageError, match="no such file or directory"):
        place.root(Path("some"))
    assert local.find("some") is not None


# --- what means harm


SECRET = "/etc/runsc-test-of-images"
BAD: dict[str, tuple[bytes, str]] = {
    "out": (archive(file("../escaped", b"x")), "leads out of it"),
    "out below": (archive(file("a/../../escaped", b"x")), "leads out of it"),
    "through a link": (archive(link("l", "/etc"), file(f"l/{SECRET[5:]}")), "which is no folder"),
    "through a link to the top": (archive(link("l", "/"), file("l/x")), "which is no folder"),
    "link to itself": (archive(link("l", "l"), file("l/x")), "which is no folder"),
    "hard link out": (archive(hard("passwd", "../../../../etc/passwd")), "leads out of it"),
    "hard link to the host": (archive(hard("name", "/etc/hostname")), "which is no file in it"),
    "hard link through a link": (
        archive(link("l", "/etc"), hard("passwd", "l/passwd")), "which is no file in it",
    ),
    "whiteout out": (archive(file(".wh..")), "whiteout of no file"),
    "whiteout of the folder above": (archive(file("a/.wh...")), "whiteout of no file"),
    "root that is a file": (archive(file("./", b"x")), "root that is no folder"),
    "nothing": (archive(), "holds no files"),
    "no tar": (b"words" * 500, "no tar"),
    "cut short": (archive(file("x", bytes(5000)))[:3000], "cut short"),
}


@pytest.mark.parametrize("what", BAD)
def test_layer_that_means_harm_is_refused_and_leaves_nothing(place: Place, what: str) -> None:
    data, message = BAD[what]
    layers = [data] if what == "nothing" else [LOWER, data]
    with pytest.raises(ImageError, match=message) as found:
        place.root(place.put(packed(layout(*layers))))
    assert str(found.value).startswith(f"image {place.folder}")
    assert str(found.value).isprintable()
    assert place.made() == 0
    assert not (place.folder / "escaped").exists() and not os.path.lexists(SECRET)


@pytest.mark.parametrize("what", ["out", "through a link", "hard link to the host", "cut short"])
def test_tar_that_means_harm_is_refused_and_leaves_nothing(place: Place, what: str) -> None:
    data, message = BAD[what]
    with pytest.raises(ImageError, match=message):
        place.root(place.put(data))
    assert not place.cache.exists() or place.made() == 0


def test_absolute_names_are_below_the_root(place: Place) -> None:
    found = place.root(place.put(archive(file(SECRET, b"x"), link("/abs", "/etc/passwd"))))
    assert names(found) == {"abs", "etc"}
    assert not os.path.lexists(SECRET)


@pytest.mark.parametrize("what", WRONG)
def test_document_that_is_wrong_is_refused_in_one_line(place: Place, what: str) -> None:
    files, _ = WRONG[what]
    source = written(files, place.folder / "layout")
    with pytest.raises(ImageError) as found:
        place.root(f"oci:{source}")
    assert str(found.value).isprintable()
    assert not place.cache.exists()


def test_layer_of_another_digest_is_refused(place: Place) -> None:
    files = layout(LOWER, UPPER)
    name = f"blobs/sha256/{digest_of(UPPER)[7:]}"
    other = archive(file("other"), file("longer", bytes(len(UPPER))))
    with pytest.raises(ImageError, match="has layer 2, which is not what it should be"):
        place.root(place.put(packed(files | {name: other})))
    assert place.made() == 0


def test_layer_whose_archive_is_another_one_is_refused(place: Place) -> None:
    files = saved(LOWER, UPPER)
    with pytest.raises(ImageError, match="has layer 2, which is not what it should be"):
        place.root(place.put(packed(files | {"1/layer.tar": archive(file("other"))})))


def test_layer_that_is_missing_is_refused(place: Place) -> None:
    files = layout(LOWER, UPPER)
    del files[f"blobs/sha256/{digest_of(UPPER)[7:]}"]
    with pytest.raises(ImageError, match="has layer 2, which has no 'blobs/"):
        place.root(place.put(packed(files)))
    assert place.made() == 0


def test_bomb_is_refused_at_the_limit(place: Place) -> None:
    bomb = archive(file("zeros", bytes(64 << 20)))
    for source in (packed(layout(bomb, pack=gzip.compress)), gzip.compress(bomb)):
        assert len(source) < 1 << 20
        with pytest.raises(ImageError, match="larger than the limit of 1000000 bytes"):
            place.root(place.put(source), limit_bytes=1_000_000)
        assert place.made() == 0


def test_disk_that_is_full_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = place.put(packed(BOTH))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ImageError, match="cannot be used: no space left on device"):
        place.root(source)
    assert place.made() == 0


def test_interrupt_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[Layer] = []

    def interrupted(one: Layer, *given: Any) -> None:
        if applied:
            raise KeyboardInterrupt
        apply(one, *given)
        applied.append(one)

    monkeypatch.setattr("runsc.images.roots.apply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.root(place.put(packed(BOTH)))
    assert len(applied) == 1 and place.made() == 0


def test_what_is_there_and_can_be_no_image_is_refused(place: Place) -> None:
    os.mkfifo(place.folder / "fifo")
    for source, message in (
        (place.folder / "missing", "no such file or directory"),
        (place.folder / "fifo", "neither a folder nor a file"),
        (f"oci:{place.folder}", "is no image"),
        (f"oci-archive:{place.put(LOWER, 'tar')}", "is no archive of an image"),
        (f"docker-archive:{place.put(packed(BOTH))}", "has no 'manifest.json'"),
        ("a\0name", r"'a\\x00name' is no name"),
        (Path("oci:a\0name"), "is no name"),
    ):
        with pytest.raises(ImageError, match=message):
            place.root(source)
    assert not place.cache.exists()


def test_cache_of_another_is_refused(place: Place) -> None:
    place.cache.mkdir(mode=0o777)
    place.cache.chmod(0o777)
    with pytest.raises(ImageError, match="cannot be kept"):
        place.root(place.put(LOWER))


def test_tar_of_many_small_files_has_all_of_them(place: Place) -> None:
    rng = random.Random(3)
    files = [file(f"d{n % 7}/{n}", rng.randbytes(n % 50)) for n in range(3000)]
    root = place.root(place.put(archive(*files)))
    assert names(root) == {f"d{n}" for n in range(7)}
