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
