"""A root that is written behind belongs to one sandbox, and no mount shows a part of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runsc.launch.overlap import claimed, overlapping
from runsc.oci.convert import Container, Export
from sentry.config import ProcessConfig, RootConfig


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "sub" / "deep").mkdir(parents=True)
    (made / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "rootless").mkdir()
    return made


@pytest.mark.parametrize("other", ["root", "root/sub", "root/file", ".", "link", "link/deep"])
def test_what_is_above_or_below_overlaps(root: Path, other: str) -> None:
    (root.parent / "link").symlink_to("root/sub")
    path = str(root.parent / other)
    assert overlapping(str(root), [str(root.parent / "other"), path]) == path


@pytest.mark.parametrize("other", ["other", "rootless", "/proc", "/dev/null"])
def test_what_is_beside_does_not(root: Path, other: str) -> None:
    assert overlapping(str(root), [str(root.parent / other)]) == ""


@pytest.mark.root
@pytest.mark.parametrize("source", ["root/sub", "."])
def test_same_directories_by_another_mount_overlap(root: Path, source: str) -> None:
    place = root.parent / "other" / "with space"
    place.mkdir()
    command = ["mount", "--bind", str(root.parent / source), str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no mounts of one's own")
    try:
        assert overlapping(str(root), [str(place)]) == str(place)
        if source == ".":
            assert overlapping(str(root), [str(place / "rootless")]) == ""
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def claims(root: Path) -> Iterator[list[Container]]:
    """What was claimed; the locks end with the test."""
    with ExitStack() as ends:
        made: list[Container] = []
        ends.callback(lambda: [os.close(each.exports[0].lock_fd) for each in made])
        yield made


def claim(root: Path, claims: list[Container], *others: str) -> tuple[Container, list[str]]:
    told: list[str] = []
    exports = (Export(str(root), True), *(Export(path, True) for path in others))
    wanted = Container(
        ProcessConfig((b"/bin/true",)), RootConfig(overlay="none"), (), (), "", "", (), (), (),
        exports,
    )  # fmt: skip
    made = claimed(wanted, told.append)
    claims.append(made)
    return made, told


def test_first_one_has_it_and_the_second_shares_it(root: Path, claims: list[Container]) -> None:
    first, silent = claim(root, claims)
    assert (first.root.written_behind, first.root.is_shared, silent) == (True, False, [])
    second, told = claim(root, claims)
    assert (second.root.written_behind, second.root.is_shared) == (False, True)
    assert second.exports[0].is_shared
    assert "another sandbox has it" in told[0]
    os.close(claims.pop(0).exports[0].lock_fd)
    assert claim(root, claims)[0].root.is_shared
    while claims:
        os.close(claims.pop().exports[0].lock_fd)
    assert claim(root, claims)[0].root.written_behind


def test_with_a_part_of_it_mounted_it_is_shared(root: Path, claims: list[Container]) -> None:
    made, told = claim(root, claims, str(root.parent / "other"), str(root / "sub"))
    assert made.root.is_shared
    assert "overlaps" in told[0]
    assert claim(root, claims)[0].root.is_shared
