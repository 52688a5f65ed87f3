"""Files that are nowhere until all is in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from runsc.containers import nameless
from runsc.containers.nameless import Files


@pytest.fixture(params=["nameless", "named"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Also where the file system has no such files."""
    if request.param == "named":
        real = os.open

        def opened(path: Any, flags: int, *more: Any, **others: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "none such")
            return real(path, flags, *more, **others)

        monkeypatch.setattr(nameless.os, "open", opened)
    return Files(str(tmp_path))


def test_named_files_have_what_was_written(files: Files, tmp_path: Path) -> None:
    files.make("a")
    files.make("b")
    files["a"].write(b"first")
    first = files["a"]
    files.make_again("a").write(b"second")
    with first:
        assert first.seek(0) == 0
        assert first.read() == b"first"
    files.name()
    files.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"second", "b": b""
    }  # fmt: skip
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_without_names_nothing_stays(files: Files, tmp_path: Path) -> None:
    files.make("a")
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(files: Files, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    files.make("a")
    with pytest.raises(FileExistsError):
        files.make("b")
    files.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_name_that_is_taken_meanwhile_takes_all_back(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    files.make("a")
    files.make("b")
    (tmp_path / "b").write_text("mine")
    with pytest.raises(FileExistsError):
        files.name()
    files.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_full_disk_takes_all_back(files: Files, tmp_path: Path) -> None:
    files.make("a")
    files.make("b")
    files["b"].close()
    files._files["b"] = open("/dev/full", "r+b", buffering=64)  # noqa: SIM115
    files["b"].write(b"more")
    with pytest.raises(OSError, match="No space left"):
        files.name()
    files.close()
    assert list(tmp_path.iterdir()) == []
