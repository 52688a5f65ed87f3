"""Mounts that come from the host: of which depth, and who may write below."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import host
from sentry.abi.mount import MNT_DETACH
from tests.e2e.bundle import Bundle

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file system mounted in it."""
    made = tmp_path / "tree"
    (made / "below").mkdir(parents=True)
    (made / "below" / "covered").touch()
    host.mount("below", str(made / "below"), "tmpfs", 0, "")
    (made / "below" / "mounted").touch()
    yield made
    host.umount(str(made / "below"), MNT_DETACH)


@pytest.mark.parametrize(
    ("options", "seen", "written"),
    [
        (["rbind"], "mounted", {"top", "below/inner"}),
        (["rbind", "ro"], "mounted", {"below/inner"}),
        (["rbind", "rro"], "mounted", set()),
        (["bind"], "covered", {"top", "below/inner"}),
        (["bind", "ro"], "covered", set()),
    ],
)
def test_depth_of_a_bind_mount_is_that_of_linux(
    bundle: Bundle, platform: str, tree: Path, options: list[str], seen: str, written: set[str]
) -> None:
    mount = {"destination": "/tree", "type": "bind", "source": str(tree), "options": options}
    bundle.document["mounts"].append(mount)
    script = "cd /tree; ls below; for f in top below/inner; do (: >$f) 2>/dev/null && echo $f; done"

    result = bundle.args("sh", "-c", script).run(platform)

    shown = result.stdout.split()
    assert shown[0] == seen, result.stderr
    assert set(shown[1:]) == written


def test_overlay_of_folders_of_the_host(bundle: Bundle, platform: str, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "old").write_text("old\n")
    host.mount("x", str(tmp_path / "upper"), "tmpfs")  # not every file system can be an upper layer
    for name in ("u", "w"):
        (tmp_path / "upper" / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower", f"upperdir={tmp_path}/upper/u"
    options = [*layers, f"workdir={tmp_path}/upper/w"]
    mount = {"destination": "/o", "type": "overlay", "source": "overlay", "options": options}
    bundle.document["mounts"].append(mount)

    result = bundle.args("sh", "-c", "cat /o/old; echo new >/o/new; rm /o/old; ls /o").run(platform)

    written = sorted(os.listdir(tmp_path / "upper" / "u"))
    host.umount(str(tmp_path / "upper"), MNT_DETACH)
    assert result.stdout == "old\nnew\n", result.stderr
    assert written == ["new", "old"]
    assert (tmp_path / "lower" / "old").exists()
