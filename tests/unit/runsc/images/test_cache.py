"""The cache: whole or not there, whoever makes it, is killed, or comes at the same time."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runsc.containers import names
from runsc.images import cache as caches
from runsc.images.cache import VERSION, Cache, Known, Whole, default_place
from runsc.images.documents import ImageConfig
from runsc.images.errors import ImageError

CHAIN, OTHER = "0" * 64, "1" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(place: Path) -> Cache:
    return Cache(str(place))


def fill(data: bytes = b"image") -> Callable[[str], Whole]:
    """What makes an image of these bytes."""

    def made(folder: str) -> Whole:
        Path(folder, "root.erofs").write_bytes(data)
        return Whole(VERSION, len(data), b"passwd\xff", b"group")

    return made


def fail(folder: str) -> Whole:
    Path(folder, "root.erofs").write_bytes(b"part")
    Path(folder, "more").mkdir()
    raise ImageError("is cut short")


def never(folder: str) -> Whole:
    raise AssertionError(folder)


def is_clean(place: Path) -> bool:
    return not list((place / "making").iterdir())


def test_root_is_made_once_and_found_by_everybody(place: Path, cache: Cache) -> None:
    assert cache.root(CHAIN, "erofs") is None
    made = cache.make(CHAIN, "erofs", fill())
    assert Path(made.path).read_bytes() == b"image"
    assert made.whole == Whole(VERSION, 5, b"passwd\xff", b"group")
    assert Cache(str(place)).root(CHAIN, "erofs") == made
    assert cache.make(CHAIN, "erofs", never) == made
    assert cache.root(CHAIN, "folder") is None and cache.root(OTHER, "erofs") is None
    assert is_clean(place)


def test_folders_are_their_owners_alone(place: Path, cache: Cache) -> None:
    assert {path.name for path in place.iterdir()} == {"roots", "images", "making"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (place, *place.iterdir()))


@pytest.mark.parametrize("name", ["roots", "images", "making"])
def test_folder_that_others_could_change_is_refused(place: Path, cache: Cache, name: str) -> None:
    (place / name).chmod(0o750)
    with pytest.raises(ImageError, match=f"{name} is not a folder of this user's alone"):
        Cache(str(place))


def test_cache_that_is_a_link_or_open_to_others_is_refused(place: Path, cache: Cache) -> None:
    (place / "roots").rename(place / "elsewhere")
    (place / "roots").symlink_to("elsewhere")
    with pytest.raises(ImageError, match="roots is not a folder"):
        Cache(str(place))
    place.chmod(0o777)
    with pytest.raises(ImageError, match="cache/ is not a folder"):
        Cache(str(place))


def test_failure_leaves_nothing_behind(place: Path, cache: Cache) -> None:
    with pytest.raises(ImageError, match="cut short"):
        cache.make(CHAIN, "erofs", fail)
    assert is_clean(place) and not list((place / "roots").iterdir())
    assert cache.make(CHAIN, "erofs", fill()).whole.size == 5


Spoil = Callable[[Path], object]
SPOILS: dict[str, Spoil] = {
    "shorter": lambda root: (root / "root.erofs").write_bytes(b"ima"),
    "gone": lambda root: (root / "root.erofs").unlink(),
    "not finished": lambda root: (root / "whole.json").unlink(),
    "lost in a crash": lambda root: (root / "whole.json").write_bytes(b""),
    "damaged": lambda root: (root / "whole.json").write_bytes(b"{"),
    "of another version": lambda root: (root / "whole.json").write_bytes(
        b'{"version":0,"size":5}'
    ),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_root_that_is_not_whole_is_made_anew(place: Path, cache: Cache, spoil: str) -> None:
    made = cache.make(CHAIN, "erofs", fill())
    SPOILS[spoil](Path(made.path).parent)
    assert cache.root(CHAIN, "erofs") is None
    assert cache.make(CHAIN, "erofs", fill(b"again")) == cache.root(CHAIN, "erofs")
    assert Path(made.path).read_bytes() == b"again"
    assert is_clean(place)


def test_what_was_killed_in_the_middle_goes_with_the_next_root(place: Path, cache: Cache) -> None:
    for made in (CHAIN, OTHER):
        _killed_while_it_makes(cache, made)
    assert len(list((place / "making").iterdir())) == 1  # the second has swept

    assert Path(cache.make(OTHER, "erofs", fill()).path).read_bytes() == b"image"

    assert is_clean(place)
    assert [path.name for path in (place / "roots").iterdir()] == [f"{OTHER}-erofs"]


def _killed_while_it_makes(cache: Cache, chain: str) -> None:
    read, write = os.pipe()

    def stay(folder: str) -> Whole:
        Path(folder, "root.erofs").write_bytes(b"part")
        os.write(write, b"x")
        signal.pause()
        raise AssertionError

    child = os.fork()
    if not child:
        try:
            cache.make(chain, "erofs", stay)
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_who_comes_meanwhile_waits_and_has_the_same(place: Path, cache: Cache) -> None:
    begun, may_end = threading.Event(), threading.Event()
    found: list[str] = []

    def slow(folder: str) -> Whole:
        begun.set()
        assert may_end.wait(60)
        return fill()(folder)

    first = threading.Thread(target=lambda: found.append(cache.make(CHAIN, "erofs", slow).path))
    first.start()
    assert begun.wait(60)
    others = [
        threading.Thread(
            target=lambda: found.append(Cache(str(place)).make(CHAIN, "erofs", never).path)
        )
        for _ in range(5)
    ]
    for other in others:
        other.start()
    made = cache.make(OTHER, "erofs", fill())  # another one waits for nobody, and sweeps nothing
    may_end.set()
    for thread in (first, *others):
        thread.join(60)
    assert found == [str(place / "roots" / f"{CHAIN}-erofs" / "root.erofs")] * 6
    assert Path(made.path).read_bytes() == b"image"
    assert is_clean(place)


def test_images_are_remembered_by_their_digests(place: Path, cache: Cache) -> None:
    known = Known(VERSION, f"sha256:{OTHER}", CHAIN, ImageConfig(env=("A=1",), user="web"))
    assert cache.known(OTHER) is None
    cache.remember(OTHER, known)
    assert Cache(str(place)).known(OTHER) == known
    cache.remember(OTHER, known)
    assert is_clean(place)
    text = (place / "images" / f"{OTHER}.json").read_text()
    older = text.replace('"version":1', '"version":0')
    assert older != text
    for other in ("", "[]", text.replace(CHAIN, "../x"), older):
        (place / "images" / f"{OTHER}.json").write_text(other)
        assert cache.known(OTHER) is None


def test_spool_has_no_name(place: Path, cache: Cache) -> None:
    with cache.spool() as spool:
        spool.write(b"x")
        assert is_clean(place)
        assert os.fstat(spool.fileno()).st_nlink == 0


@pytest.mark.parametrize(
    ("uid", "namespace", "base", "expected"),
    [
        (0, False, "/x", "/x/runsc/images"),
        (0, False, "", "/var/cache/runsc/images"),
        (0, True, "", "/home/me/.cache/runsc/images"),
        (1000, False, "/x", "/x/runsc/images"),
        (1000, False, "relative", "/home/me/.cache/runsc/images"),
        (1000, False, "", "/home/me/.cache/runsc/images"),
    ],
)
def test_place_is_the_users(
    uid: int, namespace: bool, base: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for module in (caches, names):
        monkeypatch.setattr(module, "is_in_user_namespace", lambda: namespace)
    monkeypatch.setenv("XDG_CACHE_HOME", base)
    monkeypatch.setenv("HOME", "/home/me")
    assert default_place() == expected
    assert (uid, namespace) == (0, False) or caches.form() == "erofs"


@pytest.mark.parametrize("missing", [None, *caches.RIGHTS])
def test_folder_is_made_by_who_has_the_rights(
    missing: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = (1 << 41) - 1 & ~(0 if missing is None else 1 << missing)
    status = f"Name:\tpython\nCapEff:\t{has:016x}\nCapBnd:\t0\n".encode()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(caches, "is_in_user_namespace", lambda: False)
    monkeypatch.setattr(caches, "open", lambda path, mode: io.BytesIO(status), raising=False)
    assert caches.form() == ("folder" if missing is None else "erofs")
