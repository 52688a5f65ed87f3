"""What the host changes in the root of a running container is seen there: podman cp, docker cp, an
editor; and what a process of exec has changed is seen on the host when it ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.filesystems.layers import layered
from tests.e2e.bundle import KEPT, Bundle
from tests.e2e.client import PATIENCE_MS, Client

pytestmark = pytest.mark.root

BEHIND = (KEPT,)
THROUGH = (KEPT, "--file-access=shared")
LOOK = "ls -lR /files && cat /files/*.txt && test ! -e /files/new && echo here > /files/own"
SEEN = """
cd /files
until [ "$(cat new)" = made ] && [ "$(cat written.txt)" = longer ] && [ ! -e removed.txt ] \
    && [ "$(cat moved)" = renamed ] && [ ! -e renamed.txt ] && [ "$(stat -c %a mode.txt)" = 604 ] \
    && [ "$(stat -c %s written.txt)" = 7 ] && [ "$(stat -c %a sub)" = 711 ] && [ -e sub/inner ]
do :; done
ls | tr '\\n' ' '
"""


def _root(path: Path) -> None:
    files = path / "files"
    (files / "sub").mkdir(parents=True)
    for name in ("written", "removed", "renamed", "mode"):
        (files / f"{name}.txt").write_text(f"{name}\n")


@pytest.fixture
def rooted(tmp_path: Path, busybox: Path) -> Path:
    root = tmp_path / "root"
    shutil.copytree(busybox, root, symlinks=True)
    return root


@pytest.fixture
def over_layers(tmp_path: Path, busybox: Path) -> Iterator[Path]:
    """As engines have it: an overlayfs, of which an image is the lower layer."""
    lower = tmp_path / "image"
    shutil.copytree(busybox, lower, symlinks=True)
    _root(lower)
    with ExitStack() as ends:
        yield layered(tmp_path / "root", [lower], tmp_path / "upper", ends)


def _started(root: Path, tmp_path: Path, platform: str, flags: tuple[str, ...]) -> Client:
    client = Client(Bundle(tmp_path / "bundle", root).args("sleep", "1000"), platform)
    client.flags += flags
    client.create("c")
    client.ok("start", "c")
    return client


def _changes(files: Path) -> None:
    (files / "new").write_text("made\n")
    (files / "written.txt").write_text("longer\n")
    (files / "removed.txt").unlink()
    (files / "renamed.txt").rename(files / "moved")
    (files / "mode.txt").chmod(0o604)
    (files / "sub").chmod(0o711)
    (files / "sub" / "inner").touch()


@pytest.mark.parametrize("flags", [THROUGH, BEHIND], ids=["through", "behind"])
def test_changes_of_the_host_are_seen(
    rooted: Path, tmp_path: Path, platform: str, flags: tuple[str, ...]
) -> None:
    _root(rooted)
    _see(rooted, tmp_path, platform, flags)


@pytest.mark.parametrize("flags", [THROUGH, BEHIND], ids=["through", "behind"])
def test_changes_of_the_host_to_layers_are_seen(
    over_layers: Path, tmp_path: Path, platform: str, flags: tuple[str, ...]
) -> None:
    _see(over_layers, tmp_path, platform, flags)


def _see(root: Path, tmp_path: Path, platform: str, flags: tuple[str, ...]) -> None:
    client = _started(root, tmp_path, platform, flags)
    client.ok("exec", "c", "sh", "-c", LOOK)
    _changes(root / "files")
    seen = client.ok("exec", "c", "timeout", str(PATIENCE_MS // 1000), "sh", "-c", SEEN)
    assert seen == "mode.txt moved new own sub written.txt "
    assert (root / "files" / "own").read_text() == "here\n"
    client.ok("delete", "--force", "c")


def test_end_of_exec_is_after_all_is_on_the_host(
    rooted: Path, tmp_path: Path, platform: str
) -> None:
    _root(rooted)
    client = _started(rooted, tmp_path, platform, BEHIND)
    client.ok("exec", "c", "sh", "-c", LOOK)
    files = rooted / "files"
    client.ok("exec", "c", "rm", "/files/removed.txt")
    assert not (files / "removed.txt").exists()
    client.ok("exec", "c", "sh", "-c", "cd /files && echo x > new && mv new newer && mkdir d")
    assert (files / "newer").read_text() == "x\n"
    assert (files / "d").is_dir()
    client.ok("delete", "--force", "c")
