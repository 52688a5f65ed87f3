"""Mounts of a root file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.errors import RuntimeFailure
from runsc.shim import rootfs
from runsc.shim.messages import Mount

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


def test_without_mounts_nothing_is_made(tmp_path: Path) -> None:
    rootfs.mount(str(tmp_path), [])

    assert list(tmp_path.iterdir()) == []


@as_root
@pytest.mark.root
def test_an_overlay_of_many_folders_is_mounted_and_taken_away(tmp_path: Path) -> None:
    lower = []
    for number in range(60):  # more text than mount(2) takes
        folder = tmp_path / ("long" * 20) / str(number)
        folder.mkdir(parents=True)
        (folder / f"file{number}").touch()
        lower.append(str(folder))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    before = os.getcwd()

    rootfs.mount(str(bundle), [Mount("overlay", "overlay", "", ["lowerdir=" + ":".join(lower)])])

    assert len(list((bundle / "rootfs").iterdir())) == 60
    assert os.getcwd() == before
    rootfs.unmount(str(bundle))
    assert list((bundle / "rootfs").iterdir()) == []
    rootfs.unmount(str(bundle))


@as_root
@pytest.mark.root
def test_a_bind_mount_has_its_flags(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()

    rootfs.mount(str(tmp_path), [Mount("bind", str(tmp_path / "source"), "", ["rbind", "ro"])])

    with pytest.raises(OSError, match="Read-only"):
        (tmp_path / "rootfs" / "x").touch()
    rootfs.unmount(str(tmp_path))
    (tmp_path / "rootfs" / "x").touch()


@as_root
@pytest.mark.root
def test_of_mounts_that_fail_none_is_left(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    good = Mount("bind", str(tmp_path / "source"), "", ["rbind"])

    with pytest.raises(RuntimeFailure, match="failed to mount rootfs component"):
        rootfs.mount(str(tmp_path), [good, Mount("bind", "/nonexistent", "", ["rbind"])])

    assert f" {tmp_path}/rootfs " not in Path("/proc/self/mountinfo").read_text()


@as_root
@pytest.mark.root
def test_they_are_taken_away_whatever_the_bundle_is_called(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to("a b")
    bundle = str(tmp_path / "link")

    rootfs.mount(bundle, [Mount("bind", str(tmp_path / "source"), "", ["rbind"])] * 2)
    assert "/a\\040b/rootfs " in Path("/proc/self/mountinfo").read_text()
    rootfs.unmount(bundle)

    assert "/a\\040b/rootfs " not in Path("/proc/self/mountinfo").read_text()


@as_root
@pytest.mark.root
@pytest.mark.parametrize("target", ["link/x", "/up/x", "a/../link/./x", "../../link/x"])
def test_no_link_of_an_image_leads_a_mount_out_of_it(tmp_path: Path, target: str) -> None:
    image, outside = tmp_path / "image", tmp_path / "outside"
    for folder in (image / "outside" / "x", image / "a", outside / "x", tmp_path / "source"):
        folder.mkdir(parents=True)
    (tmp_path / "source" / "file").touch()
    (image / "link").symlink_to("/outside")
    (image / "up").symlink_to("../../../../outside")
    (image / "outside" / "x" / "loop").symlink_to("loop")
    made = [
        Mount("bind", str(image), "", ["rbind"]),
        Mount("bind", str(tmp_path / "source"), target, ["rbind"]),
    ]

    rootfs.mount(str(tmp_path), made)
    try:
        assert (tmp_path / "rootfs" / "outside" / "x" / "file").exists()
        assert not (outside / "x" / "file").exists()
    finally:
        rootfs.unmount(str(tmp_path))

    made[1].target += "/loop/y"
    with pytest.raises(RuntimeFailure, match="symbolic links"):
        rootfs.mount(str(tmp_path), made)
