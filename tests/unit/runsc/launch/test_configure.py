"""What a user is told who may not open /dev/kvm; descriptors of the caller."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from runsc.launch import configure
from runsc.launch.configure import how_to_be_let_in
from sentry.config import ProcessConfig


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


def test_only_descriptors_of_the_caller_are_passed_on() -> None:
    script = """
import os
from runsc.errors import RuntimeFailure
from runsc.launch.configure import preserved_fds
assert os.open("/dev/null", os.O_RDONLY) == 3
try:
    preserved_fds(1)
except RuntimeFailure as error:
    print(error)
os.set_inheritable(3, True)
print(len(preserved_fds(1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.stdout == "cannot preserve descriptors 3 to 3\n1\n", done.stderr


@pytest.mark.parametrize(
    ("count", "own", "found"),
    [("2", True, 2), ("2", False, 0), ("\u00b2", True, 0), ("-1", True, 0)],
)
def test_descriptors_of_a_service_manager_are_for_one_process(
    monkeypatch: pytest.MonkeyPatch, count: str, own: bool, found: int
) -> None:
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if own else 1))
    process = ProcessConfig((b"x",), env=(b"A=1", b"LISTEN_FDS=7"))

    told = configure.told_of_them(process)

    assert configure.listening_fds() == found
    assert told.env == ((b"A=1", b"LISTEN_FDS=2", b"LISTEN_PID=1") if found else process.env)
