"""`runsc do --image`: programs over archives of images, as engines run them."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runsc.images import root_of, roots
from tests.e2e.bundle import RUNSC, Bundle, Result, execute, kvm_is_usable
from tests.unit.runsc.images.making import archive, file, folder, layout, link, packed

CONFIG: dict[str, Any] = {
    "Env": ["GREETING=hello", "PATH=/bin"],
    "Entrypoint": ["sh", "-c"],
    "Cmd": ['echo "$GREETING $(pwd) $(id -u) $(id -g)"'],
    "WorkingDir": "/work",
    "User": "web:www",
}
UPPER = archive(
    folder("work", uid=101),
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:101:102::/work:/bin/sh\n"),
    file("etc/group", b"root:x:0:\nwww:x:33:\n"),
    file("owned", b"owned", mode=0o640, uid=3_000_000_000, gid=7),
    link("work/passwd", "/etc/passwd"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the commands of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runsc" / "images"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    """busybox, and a layer above it, as skopeo's oci-archive."""
    lower = subprocess.run(["tar", "-C", busybox, "-cf", "-", "."], check=True, capture_output=True)
    made = tmp_path_factory.mktemp("image") / "image.tar"
    made.write_bytes(packed(layout(lower.stdout, UPPER, pack=gzip.compress, config=CONFIG)))
    return made


def do(tmp_path: Path, platform: str, *args: str | Path) -> Result:
    command = [*RUNSC, f"--root={tmp_path}/state", f"--platform={platform}", "do", *args]
    return execute(command)


def test_image_says_what_runs_and_as_whom(image: Path, platform: str, tmp_path: Path) -> None:
    done = do(tmp_path, platform, "--image", image)
    assert (done.stdout, done.stderr, done.returncode) == ("hello /work 101 33\n", "", 0)


def test_command_stands_for_its_own_and_what_it_writes_is_gone(
    image: Path, tmp_path: Path, cache: Path
) -> None:
    platform = "kvm" if kvm_is_usable() else "unicorn"
    script = "cat passwd | head -n 1; echo new > passwd-of-mine && cat passwd-of-mine; ls"
    for _ in range(2):
        done = do(tmp_path, platform, "--image", image, script)
        expected = "root:x:0:0::/root:/bin/sh\nnew\npasswd\npasswd-of-mine\n"
        assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)
    assert len(list((cache / "roots").iterdir())) == 1
    assert list((cache / "making").iterdir()) == []


def test_owners_of_an_image_are_seen(image: Path, tmp_path: Path) -> None:
    platform = "kvm" if kvm_is_usable() else "unicorn"
    script = "stat -c '%u %g %a' /owned; cat /owned 2>&1; stat -c %U ."
    done = do(tmp_path, platform, "--image", image, "--cwd", "/work", script)
    assert done.stdout.splitlines() == [
        "3000000000 7 640", "cat: can't open '/owned': Permission denied", "web",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "/missing.tar"), "no image that podman or docker has"),
        (("--image", "{folder}/words", "true"), "is no tar, or has a damaged header"),
        (("--image", "{folder}/words", "--root", "/"), "--root and --image: only one of them"),
        (("--image", "{folder}/escaping.tar", "true"), "leads out of it: '../escaped'"),
        (("--image", "{folder}/plain.tar"), "names no program"),
    ],
)
def test_image_that_cannot_run_is_one_line(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "words").write_bytes(b"words" * 1000)
    (tmp_path / "escaping.tar").write_bytes(archive(file("../escaped")))
    (tmp_path / "plain.tar").write_bytes(archive(file("x")))
    done = do(tmp_path, "kvm", *(word.format(folder=tmp_path) for word in words))
    assert done.returncode == 125
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 4  # click shows how it is used
    assert not os.path.lexists(tmp_path / "cache" / "escaped")


def test_image_that_is_one_file_runs_as_a_bundle(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form that an ordinary user's images have."""
    monkeypatch.setattr(roots, "form", lambda: "erofs")
    root = root_of(image, cache=tmp_path / "files")
    bundle = Bundle(tmp_path / "bundle", root.path)
    done = bundle.args("sh", "-c", "stat -c '%u %g %a' /owned; cat /work/passwd | wc -l").run()
    assert (done.stdout.split(), done.stderr) == (["3000000000", "7", "640", "2"], "")
