"""Engines, as their command lines answer: programs that stand for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.images import local
from runsc.images.errors import ImageError
from runsc.images.streams import Budget

ID = "0123456789abcdef" * 4


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs: the only ones that there are, but for the system's."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", str(found))
    return found


def engine(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def test_first_engine_that_has_it_is_found(engines: Path) -> None:
    assert local.find("some:tag") is None
    engine(engines, "docker", f'[ "$5" = some:tag ] && echo sha256:{ID}')
    assert local.find("some:tag") == ("docker", ID)
    assert local.find("other") is None
    engine(engines, "podman", f"echo {ID}")
    assert local.find("other") == ("podman", ID)
    assert local.find("some:tag", ("docker",)) == ("docker", ID)


def test_engine_that_fails_or_babbles_has_none(engines: Path) -> None:
    engine(engines, "podman", f"echo {ID}; exit 125")
    engine(engines, "docker", "echo something else")
    assert local.find("some") is None


@pytest.mark.parametrize("name", ["--help", "", "a b", "a;b", "$(id)", "x" * 600, "a\nb", "/etc"])
def test_name_that_no_image_has_is_not_asked_for(engines: Path, name: str) -> None:
    engine(engines, "podman", f"echo {ID}")
    assert local.find(name) is None


def test_engine_that_does_not_answer_is_named(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PATIENCE_S", 0.1)
    engine(engines, "docker", "exec sleep 100")
    with pytest.raises(ImageError, match="docker does not answer"):
        local.find("some")


def _unheard(size: int) -> None:
    """Nobody wants to know."""


def test_image_is_saved_as_it_comes(engines: Path, tmp_path: Path) -> None:
    engine(engines, "podman", '[ "$*" = "image save --format docker-archive x" ] && printf archive')
    engine(engines, "docker", '[ "$*" = "image save x" ] && head -c 1000000 /dev/zero')
    fd = os.open(tmp_path / "spool", os.O_RDWR | os.O_CREAT, 0o600)
    heard: list[int] = []
    assert local.save("podman", "x", fd, Budget(100), heard.append) == 7
    assert heard == [7]
    assert os.pread(fd, 100, 0) == b"archive"
    assert local.save("docker", "x", fd, Budget(1 << 20), heard.append) == 1_000_000
    assert heard[-1] == 1_000_000
    os.close(fd)


def test_image_that_is_larger_than_the_limit_ends_the_engine(engines: Path, tmp_path: Path) -> None:
    engine(engines, "docker", "exec cat /dev/zero")
    fd = os.open(tmp_path / "spool", os.O_RDWR | os.O_CREAT, 0o600)
    with pytest.raises(ImageError, match="limit of 1000000 bytes"):
        local.save("docker", "x", fd, Budget(1_000_000), _unheard)
    os.close(fd)


def test_engine_that_cannot_save_says_why(engines: Path, tmp_path: Path) -> None:
    engine(engines, "docker", "printf part; echo 'no such\nimage' >&2; exit 1")
    fd = os.open(tmp_path / "spool", os.O_RDWR | os.O_CREAT, 0o600)
    with pytest.raises(ImageError, match=r"could not be had from docker: 'no such\\nimage'"):
        local.save("docker", "x", fd, Budget(1000), _unheard)
    os.close(fd)
