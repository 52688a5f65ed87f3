"""Roots of images beside what podman, Docker and tar(1) make of the same layers."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runsc.images import root_of
from tests.full.docker import Docker, needs_docker
from tests.full.engine import TIMEOUT_S
from tests.full.podman import needs_podman
from tests.unit.runsc.images.making import (
    Entry,
    Files,
    archive,
    file,
    folder,
    hard,
    index,
    link,
    manifest,
    named,
    packed,
    xattrs,
)

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices"),
]
Podman = Callable[..., str]
Seen = dict[str, tuple[object, ...]]
NAMES = ("a", "b", "a/x", "a/y", "a/x/1", "a/x/2", "b/x", "b/y", "b/y/1", "c")
CAPABILITY = "\1\0\0\2\1" + "\0" * 15


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with storage of its own; the program of that name is this one meanwhile."""
    place = tmp_path_factory.mktemp("podman")
    command = [shutil.which("podman") or "", f"--root={place}/storage", f"--runroot={place}/run"]
    (place / "bin").mkdir()
    (place / "bin" / "podman").write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    (place / "bin" / "podman").chmod(0o755)

    def call(*args: str | Path) -> str:
        done = subprocess.run(
            [*command, *args], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
        yield call
    call("image", "umount", "--all")
    call("rmi", "--all", "--force")


def seen(root: Path) -> Seen:
    """All that layers say of the files of a folder, but for times of folders."""
    found: Seen = {}
    for folder_path, folders, files in os.walk(root):
        for name in (".", *folders, *files):
            path = os.path.join(folder_path, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:  # overlayfs lists whiteouts of what no layer has
                continue
            inside: object = None
            if stat.S_ISREG(info.st_mode):
                inside = Path(path).read_bytes(), info.st_mtime_ns
            elif stat.S_ISLNK(info.st_mode):
                inside = os.readlink(path), info.st_mtime_ns
            attributes = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
                if each.startswith(("user.", "security.capability", "system.posix"))
            }
            found[os.path.normpath(os.path.relpath(path, root))] = (
                info.st_mode, info.st_uid, info.st_gid, info.st_rdev, inside, attributes,
            )  # fmt: skip
    return found


# --- layers of chance


def layer_of(chance: random.Random) -> bytes:
    """Entries, links and whiteouts as a snapshot of a folder has them: each name once."""
    entries: dict[str, Entry] = {}
    folders: set[str] = set()
    hidden: set[str] = set()
    for _ in range(chance.randint(1, 8)):
        name = chance.choice(NAMES)
        above = [name[:at] for at, letter in enumerate(name) if letter == "/"]
        if name in entries or name in hidden or any(
            each in hidden or (each in entries and each not in folders) for each in above
        ):  # fmt: skip
            continue
        for each in above:
            folders.add(each)
            entries.setdefault(each, folder(each, 0o750, uid=len(each)))
        kind = chance.choice(["file", "file", "folder", "link", "hide", "opaque", "hard", "fifo"])
        plain = [each for each in entries if entries[each][0].isreg() and ".wh." not in each]
        if kind in ("folder", "opaque"):
            folders.add(name)
            entries[name] = folder(name, chance.choice([0o755, 0o1777, 0o2700]))
            if kind == "opaque":
                entries[f"{name}/.wh..wh..opq"] = file(f"{name}/.wh..wh..opq")
        elif kind == "hide":
            hidden.add(name)
            head, _, last = name.rpartition("/")
            path = f"{head}/.wh.{last}" if head else f".wh.{last}"
            entries[path] = file(path)
        elif kind == "link":
            entries[name] = link(name, chance.choice(["/etc/passwd", "../a", "x"]), mtime=77)
        elif kind == "hard" and plain:
            target = chance.choice(plain)
            entries[name] = hard(name, target, **_owned(entries[target][0]))
        elif kind == "fifo":
            entries[name] = file(name, type=tarfile.FIFOTYPE, mode=0o640)
        else:
            mode = chance.choice([0o644, 0o4755, 0o2711])
            headers = xattrs(security_capability=CAPABILITY) if mode == 0o644 else {}
            data = chance.randbytes(chance.choice([0, 10, 5000]))
            entries[name] = file(name, data, mode=mode, uid=3, mtime=99, pax_headers=headers)
    return archive(*entries.values())


def _owned(of: tarfile.TarInfo) -> dict[str, Any]:
    """What tar(1) says of a second name, too; podman takes it for true, tar(1) does not."""
    return {name: getattr(of, name) for name in ("mode", "uid", "mtime", "pax_headers")}


@needs_podman
@pytest.mark.timeout(600)
def test_layers_of_chance_are_what_podman_shows(podman: Podman, tmp_path: Path) -> None:
    for seed in range(40):
        chance = random.Random(seed)
        layers = [archive(file("base")), *(layer_of(chance) for _ in range(4))]
        files: Files = {}
        index(files, named(manifest(files, *layers), f"localhost/chance:{seed}"))
        source = tmp_path / f"{seed}.tar"
        source.write_bytes(packed(files))
        name = podman("load", "--input", source).split()[-1]
        expected = seen(Path(podman("image", "mount", name).split()[-1]))

        found = seen(root_of(source, cache=tmp_path / "cache").path)

        podman("image", "umount", name)
        del found["."], expected["."]  # podman does not look at what a layer says of the root
        assert found == expected, seed


@needs_podman
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_what_podman_saves_is_what_was_imported(
    podman: Podman, busybox: Path, tmp_path: Path, form: str
) -> None:
    subprocess.run(
        ["tar", "-C", busybox, "--format=posix", "-cf", tmp_path / "root.tar", "."], check=True
    )
    options = ("--change=CMD sh", "--change=ENV A=1", "--change=WORKDIR /tmp")
    podman("import", *options, tmp_path / "root.tar", f"localhost/{form}")
    podman("image", "save", "--format", form, "--output", tmp_path / "saved", f"localhost/{form}")

    saved = root_of(tmp_path / "saved", cache=tmp_path / "cache")

    assert seen(saved.path) == seen(busybox)
    assert "A=1" in saved.config.env and saved.config.working_dir == "/tmp"
    kept = root_of(f"localhost/{form}", cache=tmp_path / "cache")
    assert (kept.path, kept.config) == (saved.path, saved.config)
    assert root_of(f"containers-storage:localhost/{form}", cache=tmp_path / "cache") == kept


@needs_docker
def test_image_that_docker_has_is_had_from_it(
    docker: Docker, busybox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{docker.socket}")

    found = root_of("docker-daemon:bb", cache=tmp_path / "cache")

    whole, expected = (
        {path: said[:4] for path, said in seen(root).items()} for root in (found.path, busybox)
    )  # its archive was made with whole seconds
    assert whole == expected


@pytest.mark.parametrize("pack", [[], ["gzip", "-1"], ["xz", "-0"], ["bzip2"], ["zstd", "-1"]])
def test_tar_of_a_debian_is_that_debian(debian: Path, tmp_path: Path, pack: list[str]) -> None:
    if pack and not shutil.which(pack[0]):
        pytest.skip(f"needs {pack[0]}")
    if pack[:1] == ["zstd"]:
        pytest.importorskip("backports.zstd")
    source, commands = tmp_path / "root.tar", pack or ["cat"]
    options = ("--xattrs", "--xattrs-include=*", "--sparse", "--format=posix")
    script = 'tar -C "$1" "${@:3:4}" -cf - . | "${@:7}" > "$2"'
    words = ["bash", "-c", script, "bash", debian, source, *options, *commands]
    subprocess.run(words, check=True)

    found = root_of(source, cache=tmp_path / "cache")

    assert seen(found.path) == seen(debian)
