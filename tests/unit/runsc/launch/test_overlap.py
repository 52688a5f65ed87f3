"""A root that is written behind belongs to one sandbox, and no mount shows a part of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runsc.launch import claims as claims_of
from runsc.launch.overlap import claimed, counts_owners, overlapping
from runsc.oci.convert import Container
from runsc.oci.exports import Export
from sentry.config import ProcessConfig, RootConfig
from tests.contract.filesystems.layers import layered, mounted


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
def claims(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Container]]:
    """What was claimed, with a file of locks of its own; the locks end with the test."""
    monkeypatch.setattr(claims_of, "default_root", lambda: str(root.parent / "state"))
    with ExitStack() as ends:
        made: list[Container] = []
        ends.callback(lambda: [os.close(each.exports[0].lock_fd) for each in made])
        yield made


def claim(root: Path, claims: list[Container], *others: str) -> tuple[Container, list[str]]:
    made, told = make(root, *(Export(path, True) for path in others))
    claims.append(made)
    return made, told


def make(root: Path, *others: Export, kept: bool = True) -> tuple[Container, list[str]]:
    told: list[str] = []
    exports = (Export(str(root), kept), *others)
    wanted = Container(
        ProcessConfig((b"/bin/true",)), RootConfig(overlay="none" if kept else "memory"), (), (),
        "", "", (), (), (), exports,
    )  # fmt: skip

    def asks(paths: list[str]) -> None:
        told.append(f"asks about {paths}")

    return claimed(wanted, told.append, lambda: None, asks), told


def test_first_one_has_it_and_the_second_shares_it(root: Path, claims: list[Container]) -> None:
    first, silent = claim(root, claims)
    assert (first.root.written_behind, first.root.is_shared, silent) == (True, False, [])
    second, told = claim(root, claims)
    assert (second.root.written_behind, second.root.is_shared) == (False, True)
    assert second.exports[0].is_shared
    assert "another sandbox has it" in told[-1]
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


@pytest.mark.parametrize("mount", ["root", "root/sub", "root/file", "."])
def test_what_another_sandbox_has_mounted_is_shared(
    root: Path, claims: list[Container], mount: str
) -> None:
    """A folder, above or below, and a file."""
    path = str(root.parent / mount)
    assert claim(root.parent / "other", claims, path)[0].root.is_shared is (mount == ".")
    made, told = claim(root, claims)
    assert made.root.is_shared
    assert "another sandbox has a part of it" in told[0]


@pytest.mark.parametrize("mount", ["root", "root/sub", "."])
def test_sandbox_whose_root_is_mounted_by_another_is_asked(
    root: Path, claims: list[Container], mount: str
) -> None:
    assert claim(root, claims)[0].root.written_behind
    _, told = claim(root.parent / "other", claims, str(root.parent / mount))
    assert f"asks about {[str(root.parent / mount)]}" in told


def test_who_begins_while_one_looks_is_seen(
    root: Path, claims: list[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is behind then, and nobody asks."""
    looks = iter(["", "another sandbox has it"])
    with monkeypatch.context() as patch:
        patch.setattr(claims_of, "shared", lambda fd, path: next(looks))
        made, _ = claim(root, claims)
    assert (made.root.written_behind, made.root.is_shared) == (False, True)
    assert not any("asks" in line for line in claim(root, claims)[1])


def test_root_that_is_not_kept_claims_its_mounts_alone(root: Path, claims: list[Container]) -> None:
    made, told = make(root, Export(str(root.parent / "other"), True), kept=False)
    claims.append(made)
    assert (made.root.written_behind, made.root.is_shared, told) == (False, False, [])
    assert claim(root, claims)[0].root.written_behind
    assert claim(root.parent / "other", claims)[0].root.is_shared


def test_what_lies_beside_others_is_alone(root: Path, claims: list[Container]) -> None:
    (root.parent / "third").mkdir()
    assert claim(root, claims)[0].root.written_behind
    made, told = claim(root.parent / "other", claims, str(root.parent / "third"))
    assert (made.root.written_behind, told) == (True, [])


def test_root_inside_the_root_of_another_sandbox_is_shared(
    root: Path, claims: list[Container]
) -> None:
    assert claim(root, claims)[0].root.written_behind
    assert claim(root / "sub", claims)[0].root.is_shared
    while claims:
        os.close(claims.pop().exports[0].lock_fd)
    assert claim(root / "sub", claims)[0].root.written_behind
    assert claim(root, claims)[0].root.is_shared


def test_mount_that_is_read_only_hinders_nobody(root: Path, claims: list[Container]) -> None:
    claims.append(make(root.parent / "other", Export(str(root), False))[0])
    assert claim(root, claims)[0].root.written_behind


def test_where_nobody_can_tell_it_is_shared(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_of, "default_root", lambda: str(root / "none" / "state"))
    made, told = make(root)
    assert made.root.is_shared
    assert "nobody can tell" in told[0]


@pytest.mark.root
@pytest.mark.parametrize("options", ["", "usrquota", "grpquota"])
def test_where_owners_have_quotas_nothing_is_written_behind(
    root: Path, claims: list[Container], options: str
) -> None:
    """Nor on layers above; the root is nobody else's for that."""
    place, image = root.parent / "other", root.parent / "image"
    with image.open("wb") as made:
        made.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with ExitStack() as ends:
        wanted = ",".join(filter(None, ("loop", options)))
        mounted(ends, place, "-o", wanted, str(image))
        (place / "root").mkdir()
        layers = layered(root.parent / "layers", [root], place / "upper", ends)
        for path in (place / "root", layers):
            assert counts_owners(str(path)) is bool(options)
            container, told = claim(path, claims)
            assert container.root.written_behind is not bool(options)
            assert not container.root.is_shared
            assert bool(told) is bool(options)


@pytest.mark.root
@pytest.mark.timeout(20)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives something to others")
def test_file_of_claims_that_others_have_made_is_neither_believed_nor_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_of, "default_root", lambda: str(root / "state"))
    os.mkfifo(root / "state.claims")
    os.chown(root / "state.claims", 1000, 1000)
    with pytest.raises(PermissionError):
        claims_of.claim(str(root), [])
