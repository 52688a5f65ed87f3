"""A file system without room: what a person is told, and that nothing is left there."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import host
from sentry.abi.mount import MNT_DETACH
from tests.e2e.bundle import Bundle
from tests.e2e.client import Client, wait_for_end
from tests.e2e.screens import PLAIN, screen

pytestmark = pytest.mark.root
HINT = "hint: `df -h` and `df -i` show which file system is full\n"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Room for names, and for no bytes."""
    place = tmp_path / "full"
    place.mkdir()
    host.mount("full", str(place), "tmpfs", 0, "size=64k,mode=700")
    (place / "filler").write_bytes(bytes(1 << 16))
    yield place
    host.umount(str(place), MNT_DETACH)


def test_state_that_has_no_room_is_told(full: Path) -> None:
    state = full / "state"
    assert screen(state, "do true", "--zygote=off") == (
        f"runsc: do failed: state directory (--root) {state}: no space left on device\n{HINT}"
    )
    assert os.listdir(state) == [".lock"]


def test_cache_of_images_that_has_no_room_is_told(full: Path, tmp_path: Path) -> None:
    root, archive = tmp_path / "root", tmp_path / "root.tar"
    root.mkdir()
    (root / "data").write_bytes(bytes(1 << 17))
    with tarfile.open(archive, "w") as tar:
        tar.add(root, ".")
    place = (*PLAIN, f"XDG_CACHE_HOME={full}")
    shown = screen(tmp_path / "state", f"do --image {archive} x", "--zygote=off", environment=place)
    assert shown == (
        f"runsc: do failed: image {archive} cannot be used: no space left on device"
        f" ('{full}/runsc/images')\n{HINT}"
    )
    kept = [each for each in full.rglob("*") if each.is_file() and each.stat().st_size]
    assert kept == [full / "filler"]


def test_snapshot_that_has_no_room_is_told(full: Path, bundle: Bundle, platform: str) -> None:
    client = Client(bundle.args("sleep", "1000"), platform)
    pidfd = os.pidfd_open(client.create("c", "--detach", command="run"))
    for flags in ("", "--compression zstd "):
        assert screen(client.root, f"checkpoint {flags}--image-path {full}/made c") == (
            f"runsc: {full}/made: cannot write: no space left on device\n{HINT}"
        )
        assert os.listdir(full) == ["filler"]
    assert screen(client.root, "kill c KILL") == ""
    wait_for_end(pidfd)
    assert screen(client.root, "delete c") == ""
