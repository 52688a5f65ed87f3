"""Which bind mounts are the container's own where it is said that they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from runsc.launch.volumes import exclusive
from runsc.oci.convert import Container
from runsc.oci.exports import Export
from sentry.config import MountConfig, ProcessConfig, RootConfig


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("root/sub", "volume/sub", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    return tmp_path


def kinds(folders: Path, *exports: Export) -> tuple[list[bool], list[str]]:
    """Whether each is exclusive, and what one is told."""
    told: list[str] = []
    mounts = tuple(
        MountConfig(b"/%d" % number, "bind", attachment=number)
        for number in range(1, 1 + len(exports))
    )
    made = exclusive(
        Container(
            ProcessConfig((b"/bin/true",)), RootConfig(), mounts, (), "", "", (), (), (),
            (Export(str(folders / "root"), True), *exports),
        ),
        told.append,
    )  # fmt: skip
    found = [each.is_exclusive for each in made.exports[1:]]
    assert found == [each.exclusive for each in made.mounts]
    return found, told


def test_folders_that_may_be_written_to_are(folders: Path) -> None:
    volume, other = (Export(str(folders / name), True) for name in ("volume", "other"))
    assert kinds(folders, volume, other) == ([True, True], [])


def test_others_are_not(folders: Path) -> None:
    found, told = kinds(
        folders,
        Export(str(folders / "volume"), False),
        Export(str(folders / "other"), True, follows=True),
        Export(str(folders / "file"), True, is_file=True),
        Export("", True, overlay="lowerdir=/a:/b"),
    )
    assert (found, told) == ([False] * 4, [])


@pytest.mark.parametrize("second", ["volume", "volume/sub", ".", "root/sub"])
def test_what_overlaps_is_not(folders: Path, second: str) -> None:
    paths = folders / ("root" if second == "root/sub" else "volume"), folders / second
    found, told = kinds(folders, *(Export(str(path), True) for path in paths))
    assert found == [False, False]
    assert str(paths[0]) in told[0]
