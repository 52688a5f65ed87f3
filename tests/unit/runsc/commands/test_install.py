from __future__ import annotations

import json
from pathlib import Path

import pytest

from runsc.cli import main
from runsc.engines.settings import SHIM

PROGRAM = "/bin/sh"


def _main(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    return int(caught.value.code or 0)


@pytest.fixture
def daemon(tmp_path: Path) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text('{\n    "debug": true\n}\n')
    return path


def _install(daemon: Path, *args: str) -> int:
    return _main("install", f"--config-file={daemon}", f"--path={PROGRAM}", *args)


def test_install_shows_what_it_writes_and_uninstall_takes_it_back(
    daemon: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = daemon.read_text()

    assert _install(daemon, "--", "--debug", "--network=host") == 0

    shown = capsys.readouterr().out
    assert '+            "path": "/bin/sh"' in shown
    assert "systemctl reload docker" in shown
    assert json.loads(daemon.read_text()) == {
        "debug": True,
        "runtimes": {"runsc": {"path": PROGRAM, "runtimeArgs": ["--debug", "--network=host"]}},
    }
    assert _install(daemon, "--clobber=false") == 0
    assert "says that already" in capsys.readouterr().out
    assert _main("uninstall", f"--config_file={daemon}") == 0
    assert daemon.read_text() == before


def test_dry_run_changes_nothing(daemon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = daemon.read_text()

    assert _install(daemon, "--dry-run") == 0

    assert "+" in capsys.readouterr().out
    assert daemon.read_text() == before


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_it_asks(
    daemon: Path, monkeypatch: pytest.MonkeyPatch, answer: str, written: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda _: answer == "y\n")

    assert _install(daemon) == 0

    assert ("runtimes" in json.loads(daemon.read_text())) is written


def test_yes_asks_nobody(daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda _: pytest.fail("it asks"))

    assert _install(daemon, "--yes") == 0
    assert "runtimes" in json.loads(daemon.read_text())


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--runtime=a.b"], "letters, digits"),
        (["--runtime=runc"], "Docker keeps the name"),
        (["--path=/nowhere"], "no program"),
        (["--path=/"], "no program"),
    ],
)
def test_what_cannot_be_is_refused(
    daemon: Path, capfd: pytest.CaptureFixture[str], args: list[str], why: str
) -> None:
    assert _install(daemon, *args) == 1
    assert why in capfd.readouterr().err


def test_a_file_that_is_not_understood_is_named_and_stays(
    daemon: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.write_text("{")

    assert _install(daemon) == 1
    assert f"{daemon}: not JSON" in capfd.readouterr().err
    assert daemon.read_text() == "{"
    daemon.write_text("{}")
    assert _main("uninstall", f"--config-file={daemon}") == 1
    assert "not found" in capfd.readouterr().err


def test_containerd_is_told_of_the_shim_that_lies_where_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    for name in ("runsc", SHIM):
        (tmp_path / "venv" / name).touch(0o755)
    (tmp_path / "runsc").symlink_to("venv/runsc")
    told = tmp_path / "config.toml"
    told.write_text("version = 2\n")
    link = f"--path={tmp_path}/runsc"

    assert _main("install", "--engine=containerd", f"--config-file={told}", link) == 0

    assert f'runtime_path = "{tmp_path}/venv/{SHIM}"' in told.read_text()
