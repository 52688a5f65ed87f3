"""What a user is told who may not open /dev/kvm."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from runsc.launch.configure import how_to_be_let_in


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device of a group called "kvm", which the user "joe" is not in."""
    path = tmp_path / "kvm"
    path.touch()
    path.chmod(0o660)
    gid = path.stat().st_gid or 77
    if not path.stat().st_gid:
        os.chown(path, 0, gid)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 1234)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("joe", *"x" * 6)))
    _members(monkeypatch, [])
    return path


def _members(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    entry = grp.struct_group(("kvm", "x", 77, names))
    monkeypatch.setattr(grp, "getgrgid", lambda _: entry)


def test_who_is_not_in_the_group_learns_how_to_join(device: Path) -> None:
    told = how_to_be_let_in(str(device))
    assert "`sudo usermod -aG kvm joe`, then log in again" in told


def test_who_has_joined_since_logs_in_again(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _members(monkeypatch, ["joe"])
    told = how_to_be_let_in(str(device))
    assert "usermod" not in told
    assert "log in again" in told


def test_device_of_no_group_is_for_root_to_open(device: Path) -> None:
    device.chmod(0o600)
    assert f"`sudo setfacl -m u:joe:rw {device}`" in how_to_be_let_in(str(device))


def test_root_is_not_told_to_join(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "usermod" not in how_to_be_let_in(str(device))
