"""Whose a manifest is: who has the key has made it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.containers import seals


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "runsc"


def test_what_was_sealed_is_known_and_nothing_else(cache: Path) -> None:
    given = seals.seal(b"one")
    assert given == seals.seal(b"one")
    assert seals.is_ours(b"one", given)
    assert not seals.is_ours(b"two", given) and not seals.is_ours(b"one", "")
    assert not seals.is_ours(b"one", "ä" * 64)
    assert [path.name for path in cache.iterdir()] == ["snapshots.key"]
    assert (cache / "snapshots.key").stat().st_mode & 0o7777 == 0o600


def test_a_key_that_others_know_or_nobody_has_seals_nothing(cache: Path) -> None:
    assert not seals.is_ours(b"one", "0" * 64)
    given = seals.seal(b"one")
    (cache / "snapshots.key").chmod(0o644)
    assert not seals.is_ours(b"one", given) and seals.seal(b"one") == ""
    (cache / "snapshots.key").unlink()
    (cache / "snapshots.key").symlink_to("/etc/hostname")
    assert not seals.is_ours(b"one", given) and seals.seal(b"one") == ""


def test_a_key_is_on_the_disk_before_it_has_its_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash of the host an empty one would be there for good, and nothing be sealed."""
    seen = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        seen.append((os.fstat(fd).st_size, (cache / "snapshots.key").exists()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    assert seals.seal(b"one")
    assert seen == [(seals.KEY_BYTES, False)]
