from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.engines.change import change
from runsc.engines.settings import SettingsError


def test_a_change_is_shown_and_written_with_owner_and_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "file", tmp_path / "link"
    path.parent.mkdir()
    path.write_text("a\r\nb\n")
    path.chmod(0o640)
    link.symlink_to(path)

    wanted = change(str(link), lambda text: text + "c")

    assert wanted.difference() == f"--- {link}\n+++ {link}\n@@ -1,2 +1,3 @@\n a\r\n b\n+c\n"
    wanted.write()
    assert path.read_bytes() == b"a\r\nb\nc"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert link.is_symlink()
    assert os.listdir(path.parent) == ["file"]


def test_a_new_file_has_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"

    change(str(path), lambda text: f"{text}new\n").write()

    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o7777 == 0o644


def test_what_cannot_be_understood_is_named(tmp_path: Path) -> None:
    def refuse(text: str) -> str:
        raise SettingsError("no")

    path = tmp_path / "file"
    with pytest.raises(SettingsError, match=f"{path}: no"):
        change(str(path), refuse)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=f"{path}: not UTF-8"):
        change(str(path), str)
